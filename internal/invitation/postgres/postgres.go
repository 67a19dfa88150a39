// Package postgres keeps invitations in a database that several hosts share: a row for
// each, and one for each grant that says which is its latest.
package postgres

import (
	"context"
	"crypto/hmac"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Store is the table of the invitations. A database that can't be used is a *postgres.Error
// of each method.
//
// Each row has a code, which is compared before the row is used: whoever writes to the database
// alone makes no invitation, and changes none. List compares none, as it needs no identity.
type Store struct {
	db   *postgres.DB
	code postgres.Code
}

// New returns the store in a database. Nothing is read before it is used.
func New(db *postgres.DB, code postgres.Code) *Store { return &Store{db: db, code: code} }

// partOf is what the table calls a part.
func partOf(p invitation.Part) string {
	if p == invitation.Latest {
		return "latest"
	}
	return "invitation"
}

// none is a row that is not there.
func none(key invitation.RowKey) invitation.Row {
	place := "the invitation " + string(key.Key) + " in the shared database"
	if key.Part == invitation.Latest {
		place = "the note of a grant's latest invitation " + string(key.Key) + " in the shared database"
	}
	return invitation.Row{RowKey: key, Place: place}
}

// Get reads a row; see invitation.Store.
func (s *Store) Get(ctx context.Context, key invitation.RowKey) (invitation.Row, error) {
	var found kept
	err := s.db.Transact(ctx, func(tx pgx.Tx) (err error) {
		if found, err = get(ctx, tx, key); err != nil {
			return err
		}
		return postgres.ErrNothing
	})
	if err != nil {
		return invitation.Row{}, err
	}
	return s.read(ctx, found)
}

// kept is a row as it is in the table.
type kept struct {
	row       invitation.Row
	text, mac []byte
}

func get(ctx context.Context, tx pgx.Tx, key invitation.RowKey) (k kept, err error) {
	k.row = none(key)
	err = tx.QueryRow(ctx, "SELECT version::text, invitation::text, mac FROM upsauth.invitations WHERE part = $1 AND key = $2", partOf(key.Part), string(key.Key)).
		Scan((*string)(&k.row.Version), &k.text, &k.mac)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return k, err
}

// read is what a row says, if it has its code. It is called outside of transactions: the code may
// ask the database as well.
func (s *Store) read(ctx context.Context, k kept) (invitation.Row, error) {
	if k.row.Version == "" {
		return k.row, nil
	}
	if err := k.row.ReadText(k.text); err != nil {
		return invitation.Row{}, err
	}
	code, err := s.codeOf(ctx, k.row, k.text)
	if err == nil && !hmac.Equal(k.mac, code) {
		err = &invitation.FileError{Path: k.row.Place, Err: errors.New("it is not what upsauth put there: somebody without the team's identity wrote it. Remove the row, and invite the customer again")}
	}
	if err != nil {
		return invitation.Row{}, err
	}
	return k.row, nil
}

func (s *Store) codeOf(ctx context.Context, row invitation.Row, text []byte) ([]byte, error) {
	return s.code(ctx, postgres.Coded{Table: "invitations", Key: []string{partOf(row.Part), string(row.Key)}, Text: text})
}

// List reads the rows of a part; see invitation.Store. As with files, a row whose key can't
// be one is nobody's invitation.
func (s *Store) List(ctx context.Context, part invitation.Part) (rows []invitation.Row, problems []error, err error) {
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		found, err := tx.Query(ctx, "SELECT key, version::text, invitation::text FROM upsauth.invitations WHERE part = $1", partOf(part))
		if err != nil {
			return err
		}
		var key, version string
		var text []byte
		_, err = pgx.ForEachRow(found, []any{&key, &version, &text}, func() error {
			row := none(invitation.RowKey{Part: part, Key: invitation.Key(key)})
			row.Version = invitation.Version(version)
			if !row.Key.Valid() {
				return nil
			}
			if bad := row.ReadText(text); bad != nil {
				problems = append(problems, bad)
			} else {
				rows = append(rows, row)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return postgres.ErrNothing
	})
	if err != nil {
		return nil, nil, err
	}
	return rows, problems, nil
}

// Any reports whether there is any row; see invitation.Store.
func (s *Store) Any(ctx context.Context) (some bool, err error) {
	err = s.ask(ctx, "SELECT EXISTS (SELECT FROM upsauth.invitations)", &some)
	return some, err
}

// Reading is the number that the database draws anew with each change of the table; see
// invitation.Store.
func (s *Store) Reading(ctx context.Context) (reading uint64, err error) {
	var n int64
	err = s.ask(ctx, "SELECT coalesce((SELECT reading FROM upsauth.readings WHERE about = 'invitations'), 0)", &n)
	return uint64(n), err
}

// ask reads one value.
func (s *Store) ask(ctx context.Context, query string, value any) error {
	return s.db.Transact(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, query).Scan(value); err != nil {
			return err
		}
		return postgres.ErrNothing
	})
}

// Commit puts and removes rows in one transaction; see invitation.Store.
func (s *Store) Commit(ctx context.Context, put, remove []invitation.Row) error {
	texts := make([]kept, len(put))
	for i, row := range put {
		text, err := row.Text()
		if err != nil {
			return err
		}
		code, err := s.codeOf(ctx, row, text)
		if err != nil {
			return err
		}
		texts[i] = kept{row, text, code}
	}
	var there *kept
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		// Commits take turns: each has several rows, and would wait for those of another.
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.readings WHERE about = 'invitations' FOR UPDATE"); err != nil {
			return err
		}
		check := func(row invitation.Row, done bool, err error) error {
			if err != nil || done {
				return err
			}
			found, err := get(ctx, tx, row.RowKey)
			if err != nil {
				return err
			}
			there = &found
			return postgres.ErrNothing
		}
		for _, k := range texts {
			done, err := putRow(ctx, tx, k)
			if err := check(k.row, done, err); err != nil {
				return err
			}
		}
		for _, row := range remove {
			done, err := removeRow(ctx, tx, row)
			if err := check(row, done, err); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || there == nil {
		return err
	}
	row, err := s.read(ctx, *there)
	if err != nil {
		return err
	}
	return &invitation.ConflictError{Row: row}
}

// putRow writes a row, if it has the version that was read, and reports whether it did.
func putRow(ctx context.Context, tx pgx.Tx, k kept) (bool, error) {
	statement, args := "INSERT INTO upsauth.invitations (part, key, version, invitation, mac) VALUES ($1, $2, $3::bigint, $4::json, $5) ON CONFLICT DO NOTHING",
		[]any{partOf(k.row.Part), string(k.row.Key), postgres.NewVersion(), string(k.text), k.mac}
	if k.row.Version != "" {
		statement = "UPDATE upsauth.invitations SET version = $3::bigint, invitation = $4::json, mac = $5 WHERE part = $1 AND key = $2 AND version = $6::bigint"
		args = append(args, string(k.row.Version))
	}
	tag, err := tx.Exec(ctx, statement, args...)
	return tag.RowsAffected() == 1, err
}

// removeRow removes a row, if it has the version that was read, and reports whether it did
// or there was none, as was read.
func removeRow(ctx context.Context, tx pgx.Tx, row invitation.Row) (done bool, err error) {
	if row.Version == "" {
		err = tx.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM upsauth.invitations WHERE part = $1 AND key = $2)", partOf(row.Part), string(row.Key)).Scan(&done)
		return done, err
	}
	err = tx.QueryRow(ctx, "SELECT upsauth.drop_invitation($1, $2, $3::bigint)", partOf(row.Part), string(row.Key), string(row.Version)).Scan(&done)
	return done, err
}
