// Package invitationtest has a store of invitations in memory, for tests.
package invitationtest

import (
	"context"
	"slices"
	"strconv"
	"sync"

	"github.com/upsauth/upsauth/internal/invitation"
)

// Store keeps rows in memory. It keeps nobody out between reading and writing.
type Store struct {
	mu      sync.Mutex
	rows    map[invitation.RowKey]invitation.Row
	changes uint64
}

// New returns an empty store.
func New() *Store { return &Store{rows: map[invitation.RowKey]invitation.Row{}} }

// Get returns a row.
func (s *Store) Get(ctx context.Context, key invitation.RowKey) (invitation.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(key), ctx.Err()
}

func (s *Store) get(key invitation.RowKey) invitation.Row {
	row, ok := s.rows[key]
	if !ok {
		return invitation.Row{RowKey: key, Place: string(key.Key)}
	}
	return row
}

// List returns all rows of a part.
func (s *Store) List(ctx context.Context, part invitation.Part) (rows []invitation.Row, problems []error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, row := range s.rows {
		if key.Part == part {
			rows = append(rows, row)
		}
	}
	return rows, nil, ctx.Err()
}

// Any reports whether there is a row.
func (s *Store) Any(ctx context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rows) > 0, ctx.Err()
}

// Commit changes rows that are as they were read.
func (s *Store) Commit(ctx context.Context, put, remove []invitation.Row) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range slices.Concat(put, remove) {
		if now := s.get(row.RowKey); now.Version != row.Version {
			return &invitation.ConflictError{Row: now}
		}
	}
	for _, row := range put {
		s.changes++
		row.Version = invitation.Version(strconv.FormatUint(s.changes, 10))
		s.rows[row.RowKey] = row
	}
	for _, row := range remove {
		s.changes++
		delete(s.rows, row.RowKey)
	}
	return nil
}

// Reading is how many changes there were.
func (s *Store) Reading(ctx context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes + 1, ctx.Err()
}
