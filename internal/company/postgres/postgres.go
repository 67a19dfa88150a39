// Package postgres keeps what is known of companies in a database that several hosts
// share: of each company one row that says that it was added and whom to ring, and a
// history with a row for each event.
package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Store is the companies' tables. A database that can't be used is a *postgres.Error of
// each method.
type Store struct{ db *postgres.DB }

// New returns the store in a database. Nothing is read before it is used.
func New(db *postgres.DB) *Store { return &Store{db: db} }

// historyFormat is that of the events of a history.
const historyFormat = 1

// place is where a row is, for errors.
func place(key company.Key) string {
	if key.Part == company.History {
		return "the history " + key.Slot + " in the shared database"
	}
	return "the company " + key.Slot + " in the shared database"
}

// Get reads a row; see company.Store.
func (s *Store) Get(ctx context.Context, key company.Key) (row company.Row, err error) {
	var bad error
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		if row, bad, err = get(ctx, tx, key); err != nil {
			return err
		}
		return postgres.ErrNothing
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return company.Row{}, err
	}
	return row, nil
}

// get reads a row. It returns beside the row what is bad about it, because an error within
// a transaction is the database's.
func get(ctx context.Context, tx pgx.Tx, key company.Key) (row company.Row, bad, err error) {
	row = company.Row{Key: key, Place: place(key)}
	if key.Part == company.History {
		bad, err = getHistory(ctx, tx, &row)
		return row, bad, err
	}
	var entry []byte
	err = tx.QueryRow(ctx, "SELECT version::text, entry::text FROM upsauth.companies WHERE slot = $1", key.Slot).
		Scan((*string)(&row.Version), &entry)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return row, nil, nil
	case err != nil:
		return row, nil, err
	}
	return row, row.ReadEntry(entry), nil
}

// getHistory reads a history in one statement, so that the version is that of the events.
func getHistory(ctx context.Context, tx pgx.Tx, row *company.Row) (bad, err error) {
	rows, err := tx.Query(ctx, `SELECT h.version::text, h.format, e.event::text FROM upsauth.histories h
		LEFT JOIN upsauth.history e ON e.slot = h.slot WHERE h.slot = $1 ORDER BY e.number`, row.Slot)
	if err != nil {
		return nil, err
	}
	var format int
	var event []byte
	_, err = pgx.ForEachRow(rows, []any{(*string)(&row.Version), &format, &event}, func() error {
		if bad == nil {
			bad = addEvent(row, format, event)
		}
		return nil
	})
	return bad, err
}

// addEvent adds the text of an event to a history's row, unless it is nil. The error is a
// *company.FileError.
func addEvent(row *company.Row, format int, event []byte) error {
	if format > historyFormat {
		return newer(row.Key, format)
	}
	if event == nil {
		return nil
	}
	var e grant.Event
	if err := json.Unmarshal(event, &e); err != nil {
		return &company.FileError{Path: row.Place, Err: fmt.Errorf("one of its events is damaged: %w", err)}
	}
	row.Events = append(row.Events, e)
	return nil
}

func newer(key company.Key, format int) error {
	return &company.FileError{Path: place(key), Err: fmt.Errorf("it was written by a newer upsauth (format %d, this one knows %d)", format, historyFormat)}
}

// List reads the rows of a part; see company.Store.
func (s *Store) List(ctx context.Context, part company.Part, without map[string]bool) (rows []company.Row, problems []error, err error) {
	var more []string // the slots of histories whose last event is not sound
	// add is one row of the answer.
	add := func(slot, version string, format int, text []byte) {
		row := company.Row{Key: company.Key{Slot: slot, Part: part}, Version: company.Version(version)}
		row.Place = place(row.Key)
		var bad error
		if part == company.History {
			bad = addEvent(&row, format, text)
		} else {
			bad = row.ReadEntry(text)
		}
		switch {
		case bad != nil:
			problems = append(problems, bad)
		case slices.ContainsFunc(row.Events, func(e grant.Event) bool { return !company.Sound(e) }):
			more = append(more, slot)
		default:
			rows = append(rows, row)
		}
	}
	query := "SELECT slot, version::text, 0, entry::text FROM upsauth.companies"
	if part == company.History {
		query = `SELECT slot, '', format, (SELECT event::text FROM upsauth.history e WHERE e.slot = h.slot ORDER BY number DESC LIMIT 1)
			FROM upsauth.histories h`
	}
	query += " WHERE slot NOT IN (SELECT unnest($1::text[]))"
	leave := make([]string, 0, len(without))
	for slot := range without {
		leave = append(leave, slot)
	}
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		found, err := tx.Query(ctx, query, leave)
		if err != nil {
			return err
		}
		var slot, version string
		var format int
		var text []byte
		_, err = pgx.ForEachRow(found, []any{&slot, &version, &format, &text}, func() error {
			add(slot, version, format, text)
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
	for _, slot := range more {
		row, err := s.Get(ctx, company.Key{Slot: slot, Part: part})
		switch {
		case errors.As(err, new(*company.FileError)):
			problems = append(problems, err)
		case err != nil:
			return nil, nil, err
		case row.Version != "":
			events := slices.DeleteFunc(row.Events, func(e grant.Event) bool { return !company.Sound(e) })
			row.Version, row.Events = "", events[max(len(events)-1, 0):]
			rows = append(rows, row)
		}
	}
	return rows, problems, nil
}

// Append adds an event; see company.Store. Nothing depends on the event, so its commit
// waits for no disk and no standby.
func (s *Store) Append(ctx context.Context, slot string, e grant.Event) (size int, err error) {
	line, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	var bad error
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		var format int
		err := tx.QueryRow(ctx, `WITH h AS (
				INSERT INTO upsauth.histories AS h (slot, version, size) VALUES ($1, $2::bigint, $3)
				ON CONFLICT (slot) DO UPDATE SET version = excluded.version, size = h.size + excluded.size RETURNING slot, size, format
			), e AS (INSERT INTO upsauth.history (slot, event) SELECT slot, $4::json FROM h)
			SELECT size, format FROM h WHERE set_config('synchronous_commit', 'off', true) = 'off'`,
			slot, postgres.NewVersion(), len(line)+1, string(line)).Scan(&size, &format)
		if err != nil {
			return err
		}
		if format > historyFormat {
			bad = newer(company.Key{Slot: slot, Part: company.History}, format)
			return postgres.ErrNothing
		}
		return nil
	})
	if err == nil {
		err = bad
	}
	return size, err
}

// Commit puts and removes rows in one transaction; see company.Store.
func (s *Store) Commit(ctx context.Context, put, remove []company.Row) error {
	texts := make([][]string, len(put))
	for i, row := range put {
		var err error
		if texts[i], err = textsOf(row); err != nil {
			return err
		}
	}
	var bad error
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		// Commits take turns: each has several rows, and would wait for those of another.
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.readings WHERE about = 'companies' FOR UPDATE"); err != nil {
			return err
		}
		check := func(row company.Row, done bool, err error) error {
			if err != nil || done {
				return err
			}
			if row, bad, err = get(ctx, tx, row.Key); err != nil {
				return err
			}
			if bad == nil {
				bad = &company.ConflictError{Row: row}
			}
			return postgres.ErrNothing
		}
		for i, row := range put {
			done, err := putRow(ctx, tx, row, texts[i])
			if err := check(row, done, err); err != nil {
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
	if err != nil {
		return err
	}
	return bad
}

// textsOf is the JSON of a row: of its entry, or of each of its events.
func textsOf(row company.Row) (texts []string, err error) {
	if row.Part == company.Added {
		text, err := row.Entry.Text()
		return []string{string(text)}, err
	}
	for _, e := range row.Events {
		text, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(text))
	}
	return texts, nil
}

// putRow writes a row, if it has the version that was read, and reports whether it did.
func putRow(ctx context.Context, tx pgx.Tx, row company.Row, texts []string) (bool, error) {
	if row.Part == company.History {
		return putHistory(ctx, tx, row, texts)
	}
	statement, args := "INSERT INTO upsauth.companies (slot, version, entry) VALUES ($1, $2::bigint, $3::json) ON CONFLICT DO NOTHING",
		[]any{row.Slot, postgres.NewVersion(), texts[0]}
	if row.Version != "" {
		statement = "UPDATE upsauth.companies SET version = $2::bigint, entry = $3::json WHERE slot = $1 AND version = $4::bigint"
		args = append(args, string(row.Version))
	}
	tag, err := tx.Exec(ctx, statement, args...)
	return tag.RowsAffected() == 1, err
}

// putHistory replaces a history. Its events get new numbers.
func putHistory(ctx context.Context, tx pgx.Tx, row company.Row, texts []string) (bool, error) {
	if row.Version != "" {
		if done, err := removeRow(ctx, tx, row); err != nil || !done {
			return false, err
		}
	}
	size := 0
	for _, text := range texts {
		size += len(text) + 1
	}
	tag, err := tx.Exec(ctx, "INSERT INTO upsauth.histories (slot, version, size) VALUES ($1, $2::bigint, $3) ON CONFLICT DO NOTHING",
		row.Slot, postgres.NewVersion(), size)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	_, err = tx.Exec(ctx, `INSERT INTO upsauth.history (slot, event)
		SELECT $1, event::json FROM unnest($2::text[]) WITH ORDINALITY AS e (event, n) ORDER BY n`, row.Slot, texts)
	return true, err
}

// removeRow removes a row, if it has the version that was read, and reports whether it did
// or there was none, as was read.
func removeRow(ctx context.Context, tx pgx.Tx, row company.Row) (done bool, err error) {
	table := map[company.Part]string{company.Added: "companies", company.History: "histories"}[row.Part]
	drop := map[company.Part]string{company.Added: "drop_company", company.History: "drop_history"}[row.Part]
	if row.Version == "" {
		err = tx.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM upsauth."+table+" WHERE slot = $1)", row.Slot).Scan(&done)
		return done, err
	}
	err = tx.QueryRow(ctx, "SELECT upsauth."+drop+"($1, $2::bigint)", row.Slot, string(row.Version)).Scan(&done)
	return done, err
}

// Reading is the number that the database draws anew with each change of the companies'
// table; see company.Store.
func (s *Store) Reading(ctx context.Context) (reading uint64, err error) {
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		var n int64
		err := tx.QueryRow(ctx, "SELECT coalesce((SELECT reading FROM upsauth.readings WHERE about = 'companies'), 0)").Scan(&n)
		if err != nil {
			return err
		}
		reading = uint64(n)
		return postgres.ErrNothing
	})
	return reading, err
}
