package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// leftDir has a file for each grant that this host has moved to another vault: should the database
// go back, it would live in both.
const leftDir = "left"

// leftFile is what is known of a grant that has left.
type leftFile struct {
	Version    int             `json:"version"`
	Generation int64           `json:"generation"`
	Local      json.RawMessage `json:"local"` // of the tombstone
}

const leftVersion = 1

func (s *Store) leftPath(key string) string { return filepath.Join(s.dir, leftDir, key) }

// markLeft notes on this disk that a grant has left, and returns when that is durable.
func (s *Store) markLeft(r grant.Record, local json.RawMessage) error {
	text, err := json.Marshal(leftFile{Version: leftVersion, Generation: r.Generation, Local: local})
	if err != nil {
		return fmt.Errorf("that a grant has left can't be noted: %w", err)
	}
	if err := safefile.MkdirAll(filepath.Join(s.dir, leftDir)); err != nil {
		return err
	}
	if err := safefile.Write(s.leftPath(r.TokenVaultKey), text); err != nil {
		return &safefile.WriteError{What: "that a grant has left can't be noted", Err: err}
	}
	return nil
}

// unmarkLeft is for a grant that comes back.
func (s *Store) unmarkLeft(key string) error { return safefile.Unlink(s.leftPath(key)) }

// leaveAgain makes tombstones of the grants that this host has moved to another vault, and that a
// database that went back has alive with the token that has left, or an older one.
func (s *Store) leaveAgain(ctx context.Context, db *postgres.Session) error {
	keys, err := s.left()
	if err != nil {
		return err
	}
	for _, key := range keys {
		row, err := db.RowOf(ctx, key)
		if err != nil {
			return err
		}
		if row.Slot == "" || row.Grant.State == ledger.Removing || row.Grant.State == ledger.Moved {
			continue
		}
		left, ok, err := s.readLeft(key)
		if err != nil {
			return err
		}
		if !ok || left.Generation < row.Grant.Token.Generation {
			continue // it has come back, or is the newer one, whoever has made it
		}
		if _, err := db.LeaveAgain(ctx, row.Slot, row.Grant.Version, left.Local); err != nil && !errors.As(err, new(*ledger.ConflictError)) {
			return err
		}
		if err := s.copies.drop(row.Slot); err != nil {
			return err
		}
	}
	return nil
}

// left are the keys of the grants that this host has moved to another vault.
func (s *Store) left() ([]string, error) {
	names, err := safefile.ReadDir(filepath.Join(s.dir, leftDir))
	if err != nil {
		return nil, fmt.Errorf("what has left can't be read: %w", err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return grant.CheckTokenVaultKey(name) != nil }), nil
}

// readLeft returns what is known of a grant that has left; not ok is nothing.
func (s *Store) readLeft(key string) (f leftFile, ok bool, err error) {
	path := s.leftPath(key)
	data, err := safefile.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return leftFile{}, false, nil
	}
	if err == nil {
		if version := grant.FormatOf(data); version > leftVersion {
			return f, false, &vault.NewerError{Path: path, Version: version}
		}
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return f, false, &vault.FileError{What: "what is known of a grant that has left", Path: path, Err: err}
	}
	return f, true, nil
}
