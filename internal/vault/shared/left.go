package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

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
	Host       string          `json:"host"` // a copy of this directory is another one
	Generation int64           `json:"generation"`
	Local      json.RawMessage `json:"local"` // of the tombstone
}

const leftVersion = 1

// markLeft notes on this disk that a grant has left, and returns when that is durable.
func (s *Store) markLeft(r grant.Record, host string, local json.RawMessage) error {
	text, err := json.Marshal(leftFile{Version: leftVersion, Host: host, Generation: r.Generation, Local: local})
	if err != nil {
		return fmt.Errorf("that a grant has left can't be noted: %w", err)
	}
	return s.marks(leftDir).put(r.TokenVaultKey, "that a grant has left", text)
}

// unmarkLeft is for a grant that comes back.
func (s *Store) unmarkLeft(key string) error { return s.marks(leftDir).drop(key) }

// leaveAgain makes tombstones of the grants that this host has moved to another vault, and that a
// database that went back has alive with the token that has left, or an older one.
func (s *Store) leaveAgain(ctx context.Context, db *postgres.Session, all map[string]leftFile) error {
	for key, left := range all {
		row, err := db.RowOf(ctx, key)
		if err != nil {
			return err
		}
		if row.Slot == "" || row.Grant.State == ledger.Removing || row.Grant.State == ledger.Moved {
			continue
		}
		if left.Generation < row.Grant.Token.Generation {
			continue // it is the newer one, whoever has made it
		}
		if _, err := db.LeaveAgain(ctx, row.Slot, row.Grant.Version, left.Local); err != nil && !errors.As(err, new(*ledger.ConflictError)) {
			return err
		}
		if err := s.copies.drop(ctx, row.Slot, key); err != nil {
			return err
		}
	}
	return nil
}

// left are the grants that this host has moved to another vault, by their keys. Who has a copy of
// this directory knows nothing of what came back since.
func (s *Store) left(self ledger.Self) (map[string]leftFile, error) {
	keys, err := s.marks(leftDir).keys("what has left")
	if err != nil {
		return nil, err
	}
	all := map[string]leftFile{}
	for _, key := range keys {
		f, ok, err := s.readLeft(key)
		if err != nil {
			return nil, err
		}
		if ok && f.Host == self.ID {
			all[key] = f
		}
	}
	return all, nil
}

// readLeft returns what is known of a grant that has left; not ok is nothing.
func (s *Store) readLeft(key string) (f leftFile, ok bool, err error) {
	path := s.marks(leftDir).path(key)
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
