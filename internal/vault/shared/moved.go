package shared

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

var _ vault.Movable = (*Store)(nil)

// Vault is the ID of the vault that is in the database.
func (s *Store) Vault(ctx context.Context) (string, error) {
	box, err := s.box(ctx)
	if err != nil {
		return "", err
	}
	return box.vault, nil
}

// Self is this host as the database knows it; it is introduced there first.
func (s *Store) Self(ctx context.Context) (ledger.Self, error) { return s.self(ctx) }

// here returns the row of a grant that has arrived, as it is once it lives, or says where the
// grant lives.
func (s *Store) here(ctx context.Context, row postgres.Row) (postgres.Row, *vault.MovedError) {
	r, err := s.standing(row)
	away := &vault.MovedError{Records: []grant.Record{r}}
	if err != nil {
		r.Moved, away.Err = &grant.Moved{}, err
		away.Records[0] = r
		return row, away
	}
	if !r.Moved.Arriving || s.o.HasLeft == nil {
		return row, away
	}
	var left bool
	if left, away.Err = s.o.HasLeft(ctx, r); away.Err != nil || !left {
		return row, away
	}
	if _, err := s.Arrived(ctx, r); err != nil && !errors.Is(err, grant.ErrConflict) {
		away.Err = err
		return row, away
	}
	there, err := s.db.RowOf(ctx, row.Grant.Key)
	if err != nil || there.Slot != row.Slot || there.Grant.State == ledger.Moved {
		away.Err = err
		return row, away
	}
	return there, nil
}

// standing is a row as a record, also that of a tombstone and of what has not arrived.
func (s *Store) standing(row postgres.Row) (grant.Record, error) {
	r, err := s.recordOf(row)
	if err != nil {
		return r, err
	}
	r.Moved = nil
	if row.Grant.State != ledger.Moved {
		return r, nil
	}
	left, err := LeftAs(row)
	r.Moved, r.Void = left.Moved, left.Void
	return r, err
}

// LeftAs is what a row says of a move: the record of a tombstone, or of what has not arrived.
// One of a grant that lives in the database has no Moved.
func LeftAs(row postgres.Row) (r grant.Record, err error) {
	if row.Grant.State != ledger.Moved {
		return r, nil
	}
	if r.Facts, err = factsOf(row); err == nil {
		err = json.Unmarshal(row.Item.Local, &r.Local)
	}
	if err != nil || r.Moved == nil {
		return grant.Record{}, &RowError{Slot: row.Slot}
	}
	r.Generation = row.Grant.Token.Generation
	return r, nil
}

// Standing are all rows as records; see vault.Movable.
func (s *Store) Standing(ctx context.Context) (records []grant.Record, problems []error, err error) {
	rows, err := s.db.Rows(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	for _, row := range rows {
		r, err := s.standing(row)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		records = append(records, r)
	}
	return records, problems, nil
}

// Stands is the row in a slot as a record; see vault.Movable.
func (s *Store) Stands(ctx context.Context, slot string) (grant.Record, error) {
	rows, err := s.db.Rows(ctx, slot)
	if err != nil {
		return grant.Record{}, err
	}
	if len(rows) == 0 {
		return grant.Record{}, grant.ErrNoGrant
	}
	return s.standing(rows[0])
}

// mark is what lies with the row of a grant that lives elsewhere, without the sealed part. Of
// that the ledger says nothing but that.
func (s *Store) mark(r grant.Record) (postgres.Item, error) {
	item, err := s.itemOf(r)
	if err != nil {
		return item, err
	}
	r.Removing = false
	if item.Local, err = json.Marshal(r.Local); err != nil {
		return item, fmt.Errorf("the record of %s can't be made: %w", r.ID, err)
	}
	return item, nil
}

// Arrive writes the row of what comes from another vault; see vault.Movable. Where this host has not
// answered a roll call, it does so, and grant.ErrConflict says that the row is to be read again.
func (s *Store) Arrive(ctx context.Context, r grant.Record, secrets []byte, own bool) (grant.Record, error) {
	box, err := s.box(ctx)
	if err != nil {
		return r, err
	}
	item, err := s.mark(r)
	if err != nil {
		return r, err
	}
	if secrets != nil {
		if err := s.isStill(ctx, box); err != nil {
			return r, err
		}
		if item.Sealed, err = box.seal(secrets); err != nil {
			return r, err
		}
	}
	if err := s.unmarkRevoked(r.TokenVaultKey); err != nil {
		return r, err
	}
	self, err := s.self(ctx)
	if err != nil {
		return r, err
	}
	slot, version := r.Slot(), int64(r.Revision)
	err = s.certain(ctx, func(db *postgres.Session) error {
		_, err := db.Arrive(ctx, self, slot, version, r.TokenVaultKey, r.Generation, own, func(token ledger.Made) postgres.Item {
			made := item
			if item.Sealed != nil {
				made.MAC = box.codeOfGrant(slot, token, r.Facts, item.Sealed)
			}
			return made
		})
		return err
	})
	if err := s.answerFirstOf(ctx, err); err != nil {
		return r, err
	}
	there, readErr := s.Stands(ctx, slot)
	if err != nil {
		// A commit that nobody heard of may have made it before.
		if errors.As(err, new(*ledger.ConflictError)) && readErr == nil && same(there, r) && int64(there.Revision) != version {
			if rows, err := s.db.Rows(ctx, slot); err == nil && len(rows) == 1 && bytes.Equal(rows[0].Item.Sealed, item.Sealed) {
				return there, nil
			}
		}
		return r, conflict(err)
	}
	return there, readErr
}

// same reports whether two records are of the same move of a grant.
func same(a, b grant.Record) bool {
	return a.Moved != nil && b.Moved != nil && a.TokenVaultKey == b.TokenVaultKey && a.Generation == b.Generation &&
		a.Moved.Vault == b.Moved.Vault && a.Moved.At.Equal(b.Moved.At) && a.Moved.Arriving == b.Moved.Arriving
}

// Arrived makes a grant of what has arrived; see vault.Movable.
func (s *Store) Arrived(ctx context.Context, r grant.Record) (grant.Record, error) {
	version, slot := int64(r.Revision), r.Slot()
	void := r.Void
	r.Moved = nil
	item, err := s.itemOf(r)
	if err != nil {
		return r, err
	}
	if err := s.unmarkLeft(r.TokenVaultKey); err != nil {
		return r, err
	}
	err = s.certain(ctx, func(db *postgres.Session) error {
		_, err := db.Arrived(ctx, slot, version, void, item.Local)
		return err
	})
	if err != nil {
		// Somebody else may have found it arrived, or this did before.
		if there, readErr := s.Stands(ctx, slot); errors.As(err, new(*ledger.ConflictError)) && readErr == nil &&
			there.Moved == nil && there.TokenVaultKey == r.TokenVaultKey && there.Generation >= r.Generation {
			return s.changed(ctx, slot)
		}
		return r, conflict(err)
	}
	return s.changed(ctx, slot)
}

// answerFirstOf tells the database what this host is to tell first, where an error of a move says so,
// and returns grant.ErrConflict then: the row is to be read again. Of any other error it returns nil.
func (s *Store) answerFirstOf(ctx context.Context, err error) error {
	if !isToTell(err) {
		return nil
	}
	if err := s.tellFirst(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", grant.ErrConflict, err)
}

// Leave makes a tombstone of a row; see vault.Movable. A grant leaves a database as its token is
// spent there: once every host has told what it has. Where this host has not, it does so, and
// grant.ErrConflict says that the row is to be read again.
func (s *Store) Leave(ctx context.Context, r grant.Record, to grant.Moved) (grant.Record, error) {
	self, err := s.self(ctx)
	if err != nil {
		return r, err
	}
	version, slot := int64(r.Revision), r.Slot()
	r.Superseded = append(r.Superseded, r.Place())
	r.Moved = &to
	item, err := s.mark(r)
	if err != nil {
		return r, err
	}
	err = s.certain(ctx, func(db *postgres.Session) error {
		_, err := db.Move(ctx, self, slot, version, item.Local)
		return err
	})
	if err := s.answerFirstOf(ctx, err); err != nil {
		return r, err
	}
	s.forget(r.TokenVaultKey)
	there, readErr := s.Stands(ctx, slot)
	if err != nil {
		// A commit that nobody heard of may have made it before.
		if errors.As(err, new(*ledger.ConflictError)) && readErr == nil && same(there, r) {
			return there, errors.Join(s.copies.drop(ctx, slot, r.TokenVaultKey), s.markLeft(r, self.ID, item.Local))
		}
		return r, conflict(err)
	}
	return there, errors.Join(readErr, s.copies.drop(ctx, slot, r.TokenVaultKey), s.markLeft(r, self.ID, item.Local))
}
