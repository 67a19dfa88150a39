// Package postgres keeps the keys of programs in a database that several hosts share: a
// row for each, found by its SHA-256.
package postgres

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Store is the table of the keys. A database that can't be used is a *postgres.Error of
// each method.
//
// Each row has a code. Whoever writes to the database alone makes no key, and no key cover more
// than it did.
type Store struct {
	db   *postgres.DB
	code postgres.Code
}

// New returns the store in a database. Nothing is read before it is used.
func New(db *postgres.DB, code postgres.Code) *Store { return &Store{db: db, code: code} }

// Find returns the key with a digest; see keys.Store. A key that can't be read harms no
// other.
func (s *Store) Find(ctx context.Context, sum keys.Digest) (keys.Entry, error) {
	found, bad, err := s.read(ctx, "WHERE sha256 = $1", sum[:])
	switch {
	case err != nil:
		return keys.Entry{}, err
	case bad != nil:
		return keys.Entry{}, bad
	case len(found) == 0:
		return keys.Entry{}, keys.ErrWrong
	}
	return found[0], nil
}

// List returns all keys; see keys.Store.
func (s *Store) List(ctx context.Context) ([]keys.Entry, error) {
	found, bad, err := s.read(ctx, "")
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// read reads rows. It returns beside them what is bad about the first of those that can't
// be used.
func (s *Store) read(ctx context.Context, where string, args ...any) (found []keys.Entry, bad, err error) {
	var rows []row
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		asked, err := tx.Query(ctx, "SELECT name, sha256, used, key::text, mac FROM upsauth.keys "+where, args...)
		if err == nil {
			rows, err = pgx.CollectRows(asked, pgx.RowToStructByPos[row])
		}
		if err != nil {
			return err
		}
		return postgres.ErrNothing
	})
	if err != nil {
		return nil, nil, err
	}
	for _, r := range rows {
		code, err := s.code(ctx, codedAs(r.Name, r.Text)) // not before: it may ask the database as well
		if err != nil {
			return nil, nil, err
		}
		switch e, err := r.parse(code); {
		case err == nil:
			found = append(found, e)
		case bad == nil:
			bad = err
		}
	}
	return found, bad, nil
}

func codedAs(name string, text []byte) postgres.Coded {
	return postgres.Coded{Table: "keys", Key: []string{name}, Text: text}
}

type row struct {
	Name string
	Sum  []byte
	Used *time.Time
	Text []byte
	MAC  []byte
}

// parse reads a row's text, which must be that of its name and digest, and have its code.
func (r row) parse(code []byte) (keys.Entry, error) {
	place := fmt.Sprintf("the row %q of the shared database", r.Name)
	e, err := keys.ReadEntry(place, r.Text)
	if err != nil {
		if file := new(keys.FileError); errors.As(err, &file) {
			file.Key = r.Name
		}
		return keys.Entry{}, err
	}
	bad := func(what string) (keys.Entry, error) {
		return keys.Entry{}, &keys.FileError{Path: place, Key: r.Name, Err: errors.New(what), Damaged: true}
	}
	if e.Name != r.Name || !slices.Equal(e.Digest[:], r.Sum) {
		return bad("it is damaged: it has the text of another key")
	}
	if !hmac.Equal(r.MAC, code) {
		return bad("it is not what upsauth put there: somebody without the team's identity wrote it")
	}
	if r.Used != nil {
		e.Used = r.Used.UTC()
	}
	return e, nil
}

// Add adds a key; see keys.Store.
func (s *Store) Add(ctx context.Context, e keys.Entry) error {
	text, err := e.Text()
	if err != nil {
		return err
	}
	code, err := s.code(ctx, codedAs(e.Name, text))
	if err != nil {
		return err
	}
	var exists error
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO upsauth.keys (name, version, sha256, key, mac) VALUES ($1, $2::bigint, $3, $4::json, $5) ON CONFLICT DO NOTHING",
			e.Name, postgres.NewVersion(), e.Digest[:], string(text), code)
		if err != nil || tag.RowsAffected() == 1 {
			return err
		}
		there, _, err := find(ctx, tx, e.Name)
		if err != nil {
			return err
		}
		if there == "" {
			there = e.Name // it was removed meanwhile
		}
		exists = &keys.ExistsError{Name: there}
		return postgres.ErrNothing
	})
	if err != nil {
		return err
	}
	return exists
}

// find locks the row of a name, and returns the name as it is spelled there and the
// version; both are empty where there is none.
func find(ctx context.Context, tx pgx.Tx, name string) (there, version string, err error) {
	// Lower case is made here, because the database's language may have another one.
	err = tx.QueryRow(ctx, "SELECT name, version::text FROM upsauth.keys WHERE lower(name) = $1 FOR UPDATE", strings.ToLower(name)).Scan(&there, &version)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", nil
	}
	return there, version, err
}

// Remove removes a key, also one that can't be read; see keys.Store.
func (s *Store) Remove(ctx context.Context, name string) error {
	var gone error
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		there, version, err := find(ctx, tx, name)
		if err != nil {
			return err
		}
		if there == "" {
			gone = &keys.NotFoundError{Name: name}
			return postgres.ErrNothing
		}
		_, err = tx.Exec(ctx, "SELECT upsauth.drop_key($1, $2::bigint)", there, version)
		return err
	})
	if err != nil {
		return err
	}
	return gone
}

// Use notes when keys were used; see keys.Store. Nothing depends on it, so its commit waits
// for no disk and no standby.
func (s *Store) Use(ctx context.Context, used map[keys.Digest]time.Time) error {
	var sums [][]byte
	var times []time.Time
	for sum, at := range used {
		sums, times = append(sums, sum[:]), append(times, at)
	}
	return s.db.Transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
		// Locked in one order, so that no two hosts wait for each other's rows.
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.keys WHERE sha256 = ANY ($1) ORDER BY sha256 FOR UPDATE", sums); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE upsauth.keys k SET used = u.used FROM unnest($1::bytea[], $2::timestamptz[]) AS u (sha256, used)
			WHERE k.sha256 = u.sha256 AND (k.used IS NULL OR k.used < u.used)`, sums, times)
		return err
	})
}
