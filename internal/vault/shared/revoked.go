package shared

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

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
		if _, err := db.Revoke(ctx, row.Slot, row.Grant.Version); err != nil && !errors.As(err, new(*ledger.ConflictError)) {
			return err
		}
	}
	return nil
}

// sayGone says of the grants that this host has revoked or moved away, and that a database that went
// back does not have, that they are gone: other hosts may have copies of them.
func (s *Store) sayGone(ctx context.Context, db *postgres.Session, gone map[string]bool, revoked []string) error {
	left, err := s.left()
	if err != nil {
		return err
	}
	for _, key := range append(revoked, left...) {
		if gone[key] {
			continue
		}
		if err := db.SayGone(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

const revokedDir = "revoked"

// markRevoked notes on this disk that a grant is revoked, and returns when that is durable.
func (s *Store) markRevoked(key string) error {
	dir := filepath.Join(s.dir, revokedDir)
	if err := safefile.MkdirAll(dir); err != nil {
		return err
	}
	if err := safefile.Write(filepath.Join(dir, key), nil); err != nil {
		return &safefile.WriteError{What: "that a grant is revoked can't be noted", Err: err}
	}
	return nil
}

// unmarkRevoked is for a grant that a person takes in again.
func (s *Store) unmarkRevoked(key string) error {
	return errors.Join(safefile.Unlink(filepath.Join(s.dir, replacedDir, key)), safefile.Unlink(filepath.Join(s.dir, revokedDir, key)))
}

// revoked are the keys of the grants that this host has revoked.
func (s *Store) revoked() ([]string, error) {
	names, err := safefile.ReadDir(filepath.Join(s.dir, revokedDir))
	if err != nil {
		return nil, fmt.Errorf("what was revoked here can't be read: %w", err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return grant.CheckTokenVaultKey(name) != nil }), nil
}

// revokedToo are the keys of the grants that this host has revoked, and of those before them.
func (s *Store) revokedToo() ([]string, error) {
	keys, err := s.revoked()
	if err != nil {
		return nil, err
	}
	earlier, err := s.replaced()
	if err != nil {
		return nil, err
	}
	earlier = slices.DeleteFunc(earlier, func(key string) bool { return slices.Contains(keys, key) || !s.isRevoked(key) })
	return append(keys, earlier...), nil
}

// isRevoked reports whether this host has revoked a grant, or one that it had put in its place.
func (s *Store) isRevoked(key string) bool {
	return slices.ContainsFunc(append(s.successors(key), key), func(key string) bool {
		_, err := os.Lstat(filepath.Join(s.dir, revokedDir, key))
		return err == nil
	})
}
