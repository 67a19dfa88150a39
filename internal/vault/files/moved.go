package files

import (
	"context"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

var _ vault.Movable = (*Store)(nil)

// here returns a record as that of a grant which lives here, or says where the grant lives.
func (s *Store) here(ctx context.Context, r grant.Record) (grant.Record, *vault.MovedError) {
	if r.Moved == nil {
		return r, nil
	}
	if !r.Moved.Arriving || s.HasLeft == nil {
		return r, &vault.MovedError{Records: []grant.Record{r}}
	}
	left, err := s.HasLeft(ctx, r)
	if err != nil || !left {
		return r, &vault.MovedError{Records: []grant.Record{r}, Err: err}
	}
	r.Moved = nil // whoever changes the record next writes it so
	return r, nil
}

// Standing are all records as they are; see vault.Movable.
func (s *Store) Standing(context.Context) (records []grant.Record, problems []error, err error) {
	return s.all("")
}

// Stands is the record in a slot as it is; see vault.Movable.
func (s *Store) Stands(_ context.Context, slot string) (grant.Record, error) {
	return s.readRecord(slot)
}

// Arrive writes what comes from another vault; see vault.Movable.
func (s *Store) Arrive(ctx context.Context, r grant.Record, item []byte, own bool) (grant.Record, error) {
	there, err := s.readRecord(r.Slot())
	if err == nil && there.TokenVaultKey != r.TokenVaultKey && !own {
		return r, grant.ErrConflict
	}
	return s.Commit(ctx, vault.Change{Record: r, Item: item})
}

// Leave makes a tombstone of a record; see vault.Movable. It keeps in mind where secrets are
// to be removed yet.
func (s *Store) Leave(_ context.Context, r grant.Record, to grant.Moved) (grant.Record, error) {
	if err := s.unchanged(r.Slot(), r.Revision); err != nil {
		return r, err
	}
	r.Superseded = append(r.Superseded, r.Place())
	r.Moved = &to
	return s.writeRecord(r)
}

// Arrived makes a grant of what has arrived; see vault.Movable.
func (s *Store) Arrived(ctx context.Context, r grant.Record) (grant.Record, error) {
	if err := s.unchanged(r.Slot(), r.Revision); err != nil {
		return r, err
	}
	// Its company may have had another name when the grant left.
	all, _, err := s.all("")
	if err != nil {
		return r, err
	}
	for _, other := range all {
		if other.TokenVaultKey == r.TokenVaultKey && other.Moved != nil && other.Slot() != r.Slot() {
			if err := s.Drop(ctx, other); err != nil {
				return r, err
			}
		}
	}
	r.Moved = nil
	return s.writeRecord(r)
}
