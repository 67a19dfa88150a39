package shared

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// revokedDir has a file for each grant that this host has revoked, and for those before it, with the
// recipient of the grant's journals: should the database go back, they live there again.
const revokedDir = "revoked"

// markRevoked notes on this disk that a grant is revoked, with those in whose place it came, and
// returns when that is durable.
func (s *Store) markRevoked(ctx context.Context, r grant.Record) error {
	row, err := s.row(ctx, r.TokenVaultKey)
	if err != nil {
		return err
	}
	marks := s.marks(revokedDir)
	for _, e := range slices.Concat(row.Earlier, []postgres.Earlier{{Key: r.TokenVaultKey, Recipient: r.JournalRecipient}}) {
		if err := marks.put(e.Key, "that a grant is revoked", []byte(e.Recipient)); err != nil {
			return err
		}
	}
	return nil
}

// unmarkRevoked is for a grant that a person takes in again.
func (s *Store) unmarkRevoked(key string) error { return s.marks(revokedDir).drop(key) }

// recipientOf is the recipient of a grant's journals, empty where it is not known. A grant that a
// person takes in once it was revoked has another.
func recipientOf(row postgres.Row) string {
	facts, err := factsOf(row)
	if err != nil {
		return ""
	}
	return facts.JournalRecipient
}

// revocation is what this host knows of a row's grant.
type revocation int

const (
	notRevoked revocation = iota
	// isRevoked: it was revoked here. If it lives in the database, that went back.
	isRevoked
	// isTakenIn: a grant of its Token Vault Key was revoked here, and a person has taken this one in
	// again on another host.
	isTakenIn
)

func (s *Store) revocation(row postgres.Row) revocation {
	mark, err := safefile.ReadFile(s.marks(revokedDir).path(row.Grant.Key))
	switch recipient := recipientOf(row); {
	case errors.Is(err, os.ErrNotExist):
		return notRevoked
	case err == nil && len(mark) > 0 && recipient != "" && string(mark) != recipient:
		return isTakenIn
	}
	return isRevoked
}

// revoked are the keys of the grants that this host has revoked, and of those before them.
func (s *Store) revoked() ([]string, error) {
	return s.marks(revokedDir).keys("what was revoked here")
}

// revokeAgain revokes what this host has revoked and a database that went back has alive.
func (s *Store) revokeAgain(ctx context.Context, db *postgres.Session, keys []string) error {
	for _, key := range keys {
		row, err := db.RowOf(ctx, key)
		if err != nil {
			return err
		}
		if row.Slot == "" || row.Grant.State == ledger.Removing || s.revocation(row) != isRevoked {
			continue
		}
		if _, err := db.Revoke(ctx, row.Slot, row.Grant.Version); err != nil && !errors.As(err, new(*ledger.ConflictError)) {
			return err
		}
	}
	return nil
}

// sayGone says of the grants that this host has revoked or moved away, and that a database that went
// back does not have, that they are gone: other hosts may have copies of them.
func (s *Store) sayGone(ctx context.Context, db *postgres.Session, gone map[string]bool, keys []string) error {
	for _, key := range keys {
		if gone[key] {
			continue
		}
		if err := db.SayGone(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
