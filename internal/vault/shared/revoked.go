package shared

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"

	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// revokeAgain revokes what this host has revoked and a database that went back has alive. Epoch is
// the one in which the database has the revoke then.
func (s *Store) revokeAgain(ctx context.Context, db *postgres.Session, epoch int64, keys []string) error {
	for _, key := range keys {
		row, err := db.RowOf(ctx, key)
		if err != nil {
			return err
		}
		if row.Slot == "" || row.Grant.State == ledger.Removing {
			continue
		}
		_, err = db.Revoke(ctx, row.Slot, row.Grant.Version)
		if errors.As(err, new(*ledger.ConflictError)) {
			continue
		}
		if err == nil {
			err = s.markRevoked(key, epoch)
		}
		if err != nil {
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

const revokedDir = "revoked"

// markRevoked notes on this disk that a grant is revoked, and returns when that is durable. Epoch
// is one in which the database has it, zero before it does.
func (s *Store) markRevoked(key string, epoch int64) error {
	return s.marks(revokedDir).put(key, "that a grant is revoked", []byte(strconv.FormatInt(epoch, 10)))
}

// revokedIn is the latest epoch in which the database had it that a grant was revoked, or one that
// took its place; zero is not known.
func (s *Store) revokedIn(key string) (epoch int64) {
	for _, key := range append(s.successors(key), key) {
		text, err := safefile.ReadFile(s.marks(revokedDir).path(key))
		if err != nil {
			continue
		}
		if in, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			epoch = max(epoch, in)
		}
	}
	return epoch
}

// isTakenIn reports whether a grant that this host has revoked, and that was read since, was taken
// in by a person on another host: the database has lost nothing since it had the revoke. Its epoch
// alone does not say that. A host that missed the latest one may have given its number to the next,
// so this host must have answered that.
func (s *Store) isTakenIn(ctx context.Context, key string) (bool, error) {
	f, err := s.readHost()
	if err != nil || !s.isHere(f) || s.revokedIn(key) != f.Epoch {
		return false, err
	}
	answered := false
	err = s.db.Session(ctx, func(db *postgres.Session) error {
		roll, err := db.Roll(ctx)
		answered = roll.Meta.Epoch == f.Epoch && slices.ContainsFunc(roll.Hosts, func(h ledger.Host) bool { return h.ID == f.ID && h.Epoch == f.Epoch })
		return err
	})
	return answered && err == nil, err
}

// unmarkRevoked is for a grant that a person takes in again.
func (s *Store) unmarkRevoked(key string) error {
	return errors.Join(s.marks(replacedDir).drop(key), s.marks(revokedDir).drop(key))
}

// revoked are the keys of the grants that this host has revoked.
func (s *Store) revoked() ([]string, error) {
	return s.marks(revokedDir).keys("what was revoked here")
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
		_, err := os.Lstat(s.marks(revokedDir).path(key))
		return err == nil
	})
}
