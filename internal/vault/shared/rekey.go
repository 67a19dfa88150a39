package shared

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// RekeyError says that everything in the vault is being sealed to another identity. Nobody
// uses the vault before that has come to its end.
type RekeyError struct{ Next string } // the public part of the other identity

func (e *RekeyError) Error() string {
	return fmt.Sprintf("the vault's secrets are being sealed to another identity (%s), and that was not finished", e.Next)
}

// SameIdentityError says that the identity is the vault's already.
type SameIdentityError struct{ Public string }

func (e *SameIdentityError) Error() string {
	return fmt.Sprintf("the vault's secrets are sealed to that identity already (%s)", e.Public)
}

// Rekey seals everything in the vault to another identity. First it opens all: an item that
// is not what upsauth put in its place is an error, before anything is changed. Where it is
// cut off, the vault is used by nobody, and the same call goes on. Each is called with what is
// done and how much there is.
func (s *Store) Rekey(ctx context.Context, next agefile.Keys, each func(done, of int)) error {
	keys, err := s.o.Keys(ctx)
	if err != nil {
		return err
	}
	v, err := s.db.Vault(ctx, "")
	if err != nil {
		return err
	}
	switch {
	case v.Recipient != keys.Public:
		return &IdentityError{Have: keys.Public, Want: v.Recipient}
	case next.Public == keys.Public:
		return &SameIdentityError{Public: next.Public}
	case v.Next != "" && v.Next != next.Public:
		return &RekeyError{Next: v.Next}
	}
	from, err := newBox(keys, v.ID)
	if err != nil {
		return err
	}
	to, err := newBox(next, v.ID)
	if err != nil {
		return err
	}
	r := rekeying{db: s.db, from: from, to: to, each: each}
	if v.Next == "" {
		if err := r.all(ctx, false); err != nil {
			return err
		}
		begun, err := s.db.BeginRekey(ctx, keys.Public, next.Public)
		if err != nil {
			return err
		}
		if !begun {
			return fmt.Errorf("%w: somebody else has begun to change the identity", grant.ErrConflict)
		}
	}
	if err := r.all(ctx, true); err != nil {
		return err
	}
	if _, err = s.db.EndRekey(ctx, keys.Public, next.Public); err != nil {
		return err
	}
	if f, err := s.readHost(); err != nil || f.ID == "" {
		return err
	}
	return s.forgetItems(ctx, next.Public) // this host serves nothing more by the earlier one
}

// rekeying is a vault whose items go from one identity to another.
type rekeying struct {
	db       *postgres.DB
	from, to *box
	each     func(done, of int)
}

// all opens everything, and with write seals it anew where that was not done yet.
func (r rekeying) all(ctx context.Context, write bool) error {
	rows, err := r.db.Rows(ctx, "")
	if err != nil {
		return err
	}
	accounts, err := r.db.Accounts(ctx)
	if err != nil {
		return err
	}
	var secrets []string
	for _, account := range accounts {
		if grant.CheckTokenVaultKey(account) != nil {
			secrets = append(secrets, account)
		}
	}
	total := len(rows) + len(secrets)
	var problems error
	for i, row := range rows {
		if write {
			err = r.db.Reseal(ctx, row.Slot, r.item)
		} else {
			_, err = r.item(row)
		}
		if problems = errors.Join(problems, err); problems != nil && (write || ctx.Err() != nil) {
			return problems
		}
		if write {
			r.each(i+1, total)
		}
	}
	for i, account := range secrets {
		if write {
			err = r.db.ResealSecret(ctx, account, r.secret)
		} else if there, ok, readErr := r.db.Secret(ctx, account); readErr != nil || !ok {
			err = readErr
		} else {
			_, _, err = r.secret(there)
		}
		if problems = errors.Join(problems, err); problems != nil && (write || ctx.Err() != nil) {
			return problems
		}
		if write {
			r.each(len(rows)+i+1, total)
		}
	}
	// What is no secret and has a code gets one of the new identity.
	if err := r.db.Recode(ctx, write, r.code); err != nil {
		return errors.Join(problems, err)
	}
	return problems
}

// code is what the code of a row is to be.
func (r rekeying) code(c postgres.Coded) ([]byte, error) {
	fresh := r.to.codeOfRow(c)
	if !hmac.Equal(c.MAC, fresh) && !hmac.Equal(c.MAC, r.from.codeOfRow(c)) {
		return nil, forged(fmt.Sprintf("The row %s of the table %s", strings.Join(c.Key, " "), c.Table), "Remove what it stands for.", nil)
	}
	return fresh, nil
}

// item is what is to be in a grant's row, nil where it is there already.
func (r rekeying) item(row postgres.Row) (*postgres.Item, error) {
	if row.Item.Sealed == nil {
		return nil, nil //nolint:nilnil // there is nothing to be sealed
	}
	if r.to.isGenuine(row) {
		return nil, nil //nolint:nilnil // it was done before
	}
	bad := forged("The secrets of the grant "+row.Grant.Key, "", nil)
	facts, err := factsOf(row)
	if err != nil || !r.from.isGenuine(row) {
		return nil, bad
	}
	plain, err := r.from.open(row.Item.Sealed)
	if err != nil {
		return nil, bad
	}
	sealed, err := r.to.seal(plain)
	if err != nil {
		return nil, err
	}
	return &postgres.Item{Sealed: sealed, MAC: r.to.codeOfGrant(row.Slot, row.Grant.Token, facts, sealed)}, nil
}

// secret is what is to be under an account, nil where it is there already.
func (r rekeying) secret(s postgres.Secret) (sealed, mac []byte, err error) {
	if hmac.Equal(s.MAC, r.to.codeOfSecret(s.Account, s.Generation, s.Sealed)) {
		return nil, nil, nil
	}
	plain, err := r.from.open(s.Sealed)
	if err != nil || !hmac.Equal(s.MAC, r.from.codeOfSecret(s.Account, s.Generation, s.Sealed)) {
		return nil, nil, forgedSecret(s.Account)
	}
	if sealed, err = r.to.seal(plain); err != nil {
		return nil, nil, err
	}
	return sealed, r.to.codeOfSecret(s.Account, s.Generation, sealed), nil
}
