package shared

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// revokedDir has a file for each grant that this host has revoked, and for those before it, with the
// recipient of the grant's journals on a line of its own each time: should the database go back, they
// live there again.
const revokedDir = "revoked"

// markRevoked notes on this disk that a grant is revoked, with those in whose place it came, and
// returns when that is durable.
func (s *Store) markRevoked(ctx context.Context, r grant.Record) error {
	row, err := s.row(ctx, r.TokenVaultKey)
	if err != nil {
		return err
	}
	for _, e := range slices.Concat(row.Earlier, []postgres.Earlier{{Key: r.TokenVaultKey, Recipient: r.JournalRecipient}}) {
		// A person may have taken it in again since it was revoked last, and the database may go back to
		// any of them.
		recipients, err := s.revokedAs(e.Key)
		if err != nil {
			return err
		}
		if slices.Contains(recipients, e.Recipient) {
			continue
		}
		text := strings.Join(append(recipients, e.Recipient), "\n")
		if err := s.marks(revokedDir).put(e.Key, "that a grant is revoked", []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// revokedAs are the recipients of a grant's journals with which it was revoked here, empty for one
// that is not known.
func (s *Store) revokedAs(key string) (recipients []string, err error) {
	path := s.marks(revokedDir).path(key)
	text, err := safefile.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &vault.FileError{What: "what was revoked here", Path: path, Err: err}
	}
	return strings.Split(string(text), "\n"), nil
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

// revocation says nothing where the mark can't be read: a grant is not revoked because of that.
func (s *Store) revocation(row postgres.Row) (revocation, error) {
	recipients, err := s.revokedAs(row.Grant.Key)
	if err != nil || len(recipients) == 0 {
		return notRevoked, err
	}
	recipient := recipientOf(row)
	if recipient == "" || slices.Contains(recipients, "") || slices.Contains(recipients, recipient) {
		return isRevoked, nil
	}
	return isTakenIn, nil
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
		if row.Slot == "" || row.Grant.State == ledger.Removing {
			continue
		}
		if known, err := s.revocation(row); err != nil {
			return err
		} else if known != isRevoked {
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
