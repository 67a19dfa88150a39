package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
)

// Move puts a grant's secrets in another home, once what was cut off is settled.
// A refresh whose fate is unknown has to be finished first: that is a
// *PendingError. The record returned has in Superseded what could not be
// removed from the old home yet.
func (k *Keeper) Move(ctx context.Context, id grant.ID, home string) (grant.Record, error) {
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return grant.Record{}, err
	}
	defer unlock()
	_, pending, err := k.settle(ctx, id)
	if err != nil {
		return grant.Record{}, err
	}
	if pending != nil {
		return grant.Record{}, k.pendingError(id, pending)
	}
	return k.Vault.Move(ctx, id, home)
}

// OtherGrantError says that a grant was not imported as another stands in its
// place.
type OtherGrantError struct {
	ID   grant.ID
	Here string // what stands in its place
}

func (e *OtherGrantError) Error() string {
	return fmt.Sprintf("%s was not imported: %s", e.ID, e.Here)
}

// Import takes in a grant that was exported, into the home that it names, and
// reports whether it did: it never replaces the same or a later generation of
// the same grant. Another grant in its place is an *OtherGrantError.
func (k *Keeper) Import(ctx context.Context, g grant.Grant) (imported bool, err error) {
	unlockLogin, err := k.Vault.LockLogin(g.Company)
	if err != nil {
		return false, err
	}
	defer unlockLogin()
	unlock, err := k.Vault.Lock(ctx, g.ID)
	if err != nil {
		return false, err
	}
	defer unlock()
	journals, err := k.Vault.Journals(g.ID)
	if err != nil {
		return false, err
	}
	for _, j := range journals {
		if j.Purpose == grant.Authorizing {
			if err := k.finishLogin(ctx, j); err != nil {
				return false, err
			}
		}
	}
	here, _, err := k.settle(ctx, g.ID)
	switch {
	case errors.Is(err, grant.ErrNoGrant):
		return k.takeIn(ctx, g)
	case errors.Is(err, grant.ErrNoSecrets):
		return k.restore(ctx, g)
	case err != nil:
		return false, err
	case here.TokenVaultKey != g.TokenVaultKey:
		return false, otherKey(g.ID, here.Record)
	case here.Generation >= g.Generation:
		return false, nil
	}
	g.Vault, g.JournalRecipient = here.Vault, here.JournalRecipient
	return true, k.putImported(ctx, g, here.Generation)
}

func otherKey(id grant.ID, here grant.Record) error {
	return &OtherGrantError{ID: id, Here: fmt.Sprintf("it has another authorization here, with the Token Vault Key %s", here.TokenVaultKey)}
}

// takeIn stores a grant of which nothing is here. As in an authorization a
// journal goes ahead, so that a cut-off import is finished by the next command
// that looks.
func (k *Keeper) takeIn(ctx context.Context, g grant.Grant) (bool, error) {
	j := grant.Journal{
		ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation,
		ClientID: g.ClientID, BaseURL: g.BaseURL, Time: k.Now().UTC(), Vault: g.Vault,
	}
	switch _, err := k.Vault.Announced(ctx, j); {
	case err == nil:
		return false, &OtherGrantError{ID: g.ID, Here: fmt.Sprintf("its Token Vault Key %s is in the %s already, of a company of another name or without a record (upsauth vault check tells)", g.TokenVaultKey, g.Vault)}
	case !errors.Is(err, grant.ErrNoSecrets):
		return false, err
	}
	if err := k.Vault.Begin(ctx, &j); err != nil {
		return false, err
	}
	g.JournalRecipient = j.Recipient
	if err := k.putImported(ctx, g, 0); err != nil {
		k.abandon(ctx, j)
		return false, err
	}
	return true, k.Vault.Settle(j)
}

// restore puts back the secrets of a grant that has only its record left. Older
// ones are spent.
func (k *Keeper) restore(ctx context.Context, g grant.Grant) (bool, error) {
	record, err := k.Vault.Record(g.ID)
	if err != nil {
		return false, err
	}
	if record.TokenVaultKey != g.TokenVaultKey {
		return false, otherKey(g.ID, record)
	}
	if g.Generation < record.Generation {
		return false, &OtherGrantError{ID: g.ID, Here: fmt.Sprintf("its refresh token is spent, as it is of generation %d and the record here is of %d", g.Generation, record.Generation)}
	}
	g.Vault = record.Vault
	journals, err := k.Vault.Journals(g.ID)
	if err != nil {
		return false, err
	}
	if len(journals) > 0 {
		// It tells of a refresh whose fate is unknown, and stays to tell it.
		j := journals[0]
		if _, err := k.Vault.Answer(ctx, j); errors.Is(err, grant.ErrNoSecrets) {
			j.Recipient = ""
			if err := k.Vault.Begin(ctx, &j); err != nil {
				return false, err
			}
		}
		g.JournalRecipient = j.Recipient
		return true, k.putImported(ctx, g, 0)
	}
	j := grant.Journal{
		ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation, Replaces: g.TokenVaultKey,
		ClientID: g.ClientID, BaseURL: g.BaseURL, Time: k.Now().UTC(), Vault: g.Vault,
	}
	if err := k.Vault.Begin(ctx, &j); err != nil {
		return false, err
	}
	g.JournalRecipient = j.Recipient
	if err := k.putImported(ctx, g, 0); err != nil {
		return false, err
	}
	return true, k.Vault.Settle(j)
}

// putImported stores a grant with what its record said of it where it was.
func (k *Keeper) putImported(ctx context.Context, g grant.Grant, expected int64) error {
	if err := k.Vault.Put(ctx, g, expected); err != nil {
		return err
	}
	if !g.Void && g.LastError == nil {
		return nil
	}
	record, err := k.Vault.Record(g.ID)
	if err != nil {
		return err
	}
	record.Void, record.LastError = g.Void, g.LastError
	return k.Vault.Note(record)
}
