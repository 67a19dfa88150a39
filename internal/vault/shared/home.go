package shared

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// HomeName is what records call the home.
const HomeName = "shared"

// Home is the database as the home of the vault's secrets: the grants' items lie in their
// rows, all others under their accounts.
type Home struct{ s *Store }

var _ vault.Home = Home{}

// Name is "shared".
func (h Home) Name() string { return HomeName }

// Open makes the team's identity ready, and with it the vault.
func (h Home) Open(ctx context.Context) error {
	_, err := h.s.readingBox(ctx)
	return err
}

// Get returns an item that is what its row says it is; see vault.Home.
func (h Home) Get(ctx context.Context, account string) ([]byte, error) {
	if grant.CheckTokenVaultKey(account) == nil {
		return h.grant(ctx, account)
	}
	box, err := h.s.readingBox(ctx)
	if err != nil {
		return nil, err
	}
	secret, ok, err := h.s.secret(ctx, account)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, vault.ErrNoItem
	}
	if !hmac.Equal(secret.MAC, box.codeOfSecret(account, secret.Generation, secret.Sealed)) {
		return nil, h.unlessResealed(ctx, box, forgedSecret(account))
	}
	plain, err := box.open(secret.Sealed)
	if err != nil {
		return nil, forgedSecret(account)
	}
	return plain, nil
}

// grant returns the item in a grant's row.
func (h Home) grant(ctx context.Context, key string) ([]byte, error) {
	box, err := h.s.readingBox(ctx)
	if err != nil {
		return nil, err
	}
	row, err := h.s.row(ctx, key)
	if err != nil {
		return nil, err
	}
	if row.Slot == "" || row.Item.Sealed == nil {
		return nil, vault.ErrNoItem
	}
	if !box.isGenuine(row) {
		return nil, h.unlessResealed(ctx, box, forgedGrant(key))
	}
	plain, err := box.open(row.Item.Sealed)
	if err != nil {
		return nil, forgedGrant(key)
	}
	return plain, nil
}

// unlessResealed is what is wrong with an item that is not genuine by a box: vault rekey may have
// been faster than this process.
func (h Home) unlessResealed(ctx context.Context, b *box, forged error) error {
	if err := h.s.isStill(ctx, b); errors.As(err, new(*IdentityError)) || errors.As(err, new(*RekeyError)) {
		return err
	}
	return forged
}

func forgedGrant(key string) error {
	return forged("The secrets of the grant "+key, "The company must be authorized again[: {}].", []vault.Act{vault.Authorize})
}

// forged says that an item is not what belongs in its place. Nothing of it is used: its
// refresh token could be another company's, or spent.
func forged(what, advice string, do []vault.Act) error {
	return &vault.HomeError{
		Home: HomeName, OfItem: true,
		What:   what + " in the shared vault are not what upsauth put there: they were changed, put in another's place, or sealed to another identity. Nothing of it is used.",
		Advice: "Look at who can write to the database, and put back a backup of it. " + advice, Do: do,
		Err: &ForgedError{What: what},
	}
}

func forgedSecret(account string) error {
	advice, do := vault.Again(account)
	return forged("The secret under "+account, advice, do)
}

// ForgedError says that an item is not what upsauth put in its place.
type ForgedError struct{ What string }

func (e *ForgedError) Error() string { return e.What + " are not what upsauth put there" }

// Put writes an item that is no grant's; those go with their rows. See vault.Home.
func (h Home) Put(ctx context.Context, account string, _ int64, secret []byte) error {
	if grant.CheckTokenVaultKey(account) == nil {
		return fmt.Errorf("the item of the grant %s belongs in its row", account)
	}
	box, err := h.s.box(ctx)
	if err != nil {
		return err
	}
	if err := h.s.isStill(ctx, box); err != nil {
		return err
	}
	h.s.forgetSecret(account)
	written := postgres.Secret{Account: account}
	err = h.s.db.PutSecret(ctx, account, func(generation int64) (sealed, mac []byte, err error) {
		if sealed, err = box.seal(secret); err != nil {
			return nil, nil, err
		}
		written.Generation, written.Sealed, written.MAC = generation, sealed, box.codeOfSecret(account, generation, sealed)
		return written.Sealed, written.MAC, nil
	})
	if err == nil {
		h.s.knowSecret(written)
	}
	return err
}

// PutNew writes an item where there is none. Of two hosts that do so at once, one writes.
func (h Home) PutNew(ctx context.Context, account string, secret []byte) error {
	box, err := h.s.box(ctx)
	if err != nil {
		return err
	}
	if err := h.s.isStill(ctx, box); err != nil {
		return err
	}
	h.s.forgetSecret(account)
	err = h.s.db.PutSecret(ctx, account, func(generation int64) (sealed, mac []byte, err error) {
		if generation > 1 {
			return nil, nil, postgres.ErrNothing
		}
		if sealed, err = box.seal(secret); err != nil {
			return nil, nil, err
		}
		return sealed, box.codeOfSecret(account, generation, sealed), nil
	})
	if busy := new(postgres.Error); errors.As(err, &busy) && busy.Reason == postgres.Busy {
		return nil // another host has written it
	}
	return err
}

// Room shows nothing: what a refresh needs of the database it has once the claim is there,
// and the answer is sealed on this machine before it is put in place.
func (h Home) Room(context.Context, string, []byte) (done func(), err error) {
	return func() {}, nil
}

// CanDelete says what Delete would; see vault.Home.
func (h Home) CanDelete(ctx context.Context, account string) error {
	if grant.CheckTokenVaultKey(account) == nil {
		row, err := h.s.row(ctx, account)
		if err == nil && row.Slot == "" {
			return vault.ErrNoItem
		}
		return err
	}
	_, ok, err := h.s.secret(ctx, account)
	if err == nil && !ok {
		return vault.ErrNoItem
	}
	return err
}

// Delete removes an item. A grant's goes with its row.
func (h Home) Delete(ctx context.Context, account string) error {
	if grant.CheckTokenVaultKey(account) == nil {
		return nil
	}
	h.s.forgetSecret(account)
	_, err := h.s.db.DropSecret(ctx, account)
	return err
}

// Accounts lists the items.
func (h Home) Accounts(ctx context.Context) ([]string, error) {
	accounts, err := h.s.db.Accounts(ctx)
	return accounts, err
}
