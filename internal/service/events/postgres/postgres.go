// Package postgres keeps what a program was told, and what it is to be told, in a database
// that several hosts share: each event is told by whichever of them is there.
package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/service/events"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Store is the events' tables. A database that can't be used is a *postgres.Error of each
// method.
type Store struct {
	db *postgres.DB

	mu sync.Mutex
	// known is what was read last: it is read again where somebody has changed it.
	known events.Told
}

// New returns the store in a database. Nothing is read before it is used.
func New(db *postgres.DB) *Store { return &Store{db: db} }

const (
	// taken is how long nobody else begins to tell an event: the command's time, and what it
	// takes to note what became of it.
	taken = 2 * events.Limit
	// again is how often it is looked whether another host has left something to be told.
	again = 30 * time.Second
	// format is that of the rows.
	format = 1
)

const (
	ofGrant      = "grant"
	ofInvitation = "invitation"
)

// key names a row of what was told.
type key struct{ part, key string }

// RowError says that a row of events is not what upsauth writes.
type RowError struct {
	Row string
	Err error
}

func (e *RowError) Error() string {
	return fmt.Sprintf("%s in the shared database is not what upsauth writes: %v", e.Row, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

// row is the text of a row of what was told.
type row[T any] struct {
	Version int `json:"version"`
	Told    T   `json:"told"`
}

func read[T any](text []byte) (told T, err error) {
	var r row[T]
	if err = json.Unmarshal(text, &r); err == nil && r.Version != format {
		err = fmt.Errorf("its format is %d, and this upsauth knows %d", r.Version, format)
	}
	return r.Told, err
}

// Read returns what was told; see events.Store. A row that can't be read is an error: what it
// has would be told once more.
func (s *Store) Read(ctx context.Context) (events.Told, []error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bad error
	known := s.known
	err := s.db.Transact(ctx, func(tx pgx.Tx) error {
		var version string
		if err := tx.QueryRow(ctx, "SELECT reading::text FROM upsauth.readings WHERE about = 'told'").Scan(&version); err != nil {
			return err
		}
		if version == known.Version {
			return postgres.ErrNothing
		}
		// One statement: the reading is that of the rows.
		rows, err := tx.Query(ctx, `SELECT '', '', to_json(reading::text)::text FROM upsauth.readings WHERE about = 'told'
			UNION ALL SELECT part, key, memory::text FROM upsauth.told`)
		if err != nil {
			return err
		}
		known = events.Told{Silent: true, Grants: map[string]events.Memory{}, Invitations: map[string]events.Invited{}}
		var k key
		var text []byte
		_, err = pgx.ForEachRow(rows, []any{&k.part, &k.key, &text}, func() (err error) {
			switch k.part {
			case "":
				return json.Unmarshal(text, &known.Version)
			case ofGrant:
				known.Grants[k.key], err = read[events.Memory](text)
			case ofInvitation:
				known.Invitations[k.key], err = read[events.Invited](text)
			}
			if err != nil && bad == nil {
				bad = &RowError{Row: "what was told of the " + k.part + " " + k.key, Err: err}
			}
			return nil
		})
		if err != nil {
			return err
		}
		var some bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM upsauth.settings WHERE name = $1)", begun).Scan(&some); err != nil {
			return err
		}
		known.Silent = !some
		return postgres.ErrNothing
	})
	if err = cmp.Or(err, bad); err != nil {
		return events.Told{}, nil, err
	}
	s.known = known
	return known, nil, nil
}

// begun is the setting that says that somebody was to be told before.
const begun = "events have begun"

// Keep keeps what was found; see events.Store.
func (s *Store) Keep(ctx context.Context, f events.Found) error {
	put, drop, err := changes(f)
	if err != nil {
		return err
	}
	conflict := false
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		// Whoever changes the reading first keeps the others waiting until the commit. So the
		// numbers of events are in the order in which they were found.
		tag, err := tx.Exec(ctx, "UPDATE upsauth.readings SET reading = $1::bigint WHERE about = 'told' AND reading = $2::bigint", postgres.NewVersion(), f.Before.Version)
		if err != nil {
			return err
		}
		if conflict = tag.RowsAffected() == 0; conflict {
			return postgres.ErrNothing
		}
		if f.Before.Silent {
			if _, err := tx.Exec(ctx, "INSERT INTO upsauth.settings (name, version) VALUES ($1, 1) ON CONFLICT DO NOTHING", begun); err != nil {
				return err
			}
		}
		return keep(ctx, tx, f, put, drop)
	})
	if err == nil && conflict {
		err = &events.ConflictError{}
	}
	return err
}

func keep(ctx context.Context, tx pgx.Tx, f events.Found, put map[key]string, drop []key) error {
	if len(put) > 0 {
		var parts, keys, texts []string
		for k, text := range put {
			parts, keys, texts = append(parts, k.part), append(keys, k.key), append(texts, text)
		}
		_, err := tx.Exec(ctx, `INSERT INTO upsauth.told (part, key, memory) SELECT * FROM unnest($1::text[], $2::text[], $3::json[])
			ON CONFLICT (part, key) DO UPDATE SET memory = excluded.memory`, parts, keys, texts)
		if err != nil {
			return err
		}
	}
	for _, k := range drop {
		if _, err := tx.Exec(ctx, "SELECT upsauth.drop_told($1, $2)", k.part, k.key); err != nil {
			return err
		}
	}
	for lane, into := range f.Joined {
		if _, err := tx.Exec(ctx, "UPDATE upsauth.outbox SET lane = $2 WHERE lane = $1 AND told IS NULL", lane, into); err != nil {
			return err
		}
	}
	for _, b := range f.Batches {
		for i := range b.Events {
			e := &b.Events[i]
			text, err := json.Marshal(e)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, "INSERT INTO upsauth.outbox (id, lane, event) VALUES ($1, $2, $3::json) ON CONFLICT (id) DO NOTHING", e.ID, f.LaneOf(e), string(text))
			if err != nil {
				return err
			}
		}
	}
	_, err := tx.Exec(ctx, "SELECT upsauth.drop_events()")
	return err
}

// changes are the rows of what was told that differ.
func changes(f events.Found) (put map[key]string, drop []key, err error) {
	put = map[key]string{}
	compare := func(part string, one any, other any, k string, there bool) error {
		text, err := json.Marshal(one)
		if err != nil {
			return err
		}
		if there {
			before, err := json.Marshal(other)
			if err != nil || string(before) == string(text) {
				return err
			}
		}
		put[key{part, k}] = string(text)
		return nil
	}
	for k, m := range f.Grants {
		before, there := f.Before.Grants[k]
		if err := compare(ofGrant, row[events.Memory]{format, m}, row[events.Memory]{format, before}, k, there); err != nil {
			return nil, nil, err
		}
	}
	for k, m := range f.Invitations {
		before, there := f.Before.Invitations[k]
		if err := compare(ofInvitation, row[events.Invited]{format, m}, row[events.Invited]{format, before}, k, there); err != nil {
			return nil, nil, err
		}
	}
	for k := range f.Before.Grants {
		if _, there := f.Grants[k]; !there {
			drop = append(drop, key{ofGrant, k})
		}
	}
	for k := range f.Before.Invitations {
		if _, there := f.Invitations[k]; !there {
			drop = append(drop, key{ofInvitation, k})
		}
	}
	slices.SortFunc(drop, func(a, b key) int { return cmp.Or(strings.Compare(a.part, b.part), strings.Compare(a.key, b.key)) })
	return put, drop, nil
}

// TurnOff does nothing: a host without a command leaves events to the others. See events.Store.
func (s *Store) TurnOff(context.Context) (waiting int, changed bool, err error) { return 0, false, nil }

// Hurry ends all pauses; see events.Store.
func (s *Store) Hurry(ctx context.Context) error {
	return s.db.Transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE upsauth.outbox SET next = clock_timestamp() WHERE told IS NULL AND next > clock_timestamp()")
		return err
	})
}

// Next takes the event that is to be told next; see events.Store. Times are the database's.
func (s *Store) Next(ctx context.Context) (one *events.Event, wait time.Duration, err error) {
	var bad error
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		one, wait, bad = nil, again, nil
		// The first of each lane. One that another host has just taken is left alone.
		rows, err := tx.Query(ctx, `SELECT number, id, event::text, tries, least(1e6, greatest(0, 1000 * extract(epoch FROM greatest(next, until) - clock_timestamp())))::bigint
			FROM (SELECT DISTINCT ON (lane) * FROM upsauth.outbox WHERE told IS NULL ORDER BY lane, number) AS first
			ORDER BY greatest(next, until), number LIMIT 1`)
		if err != nil {
			return err
		}
		var number, left int64
		var tries int
		var id string
		var text []byte
		found, err := pgx.ForEachRow(rows, []any{&number, &id, &text, &tries, &left}, func() error { return nil })
		switch {
		case err != nil:
			return err
		case found.RowsAffected() == 0:
			return postgres.ErrNothing
		case left > 0:
			wait = min(wait, time.Duration(left)*time.Millisecond)
			return postgres.ErrNothing
		}
		attempt := uuid.NewString()
		tag, err := tx.Exec(ctx, `UPDATE upsauth.outbox SET attempt = $2, until = clock_timestamp() + $3::bigint * interval '1 ms'
			WHERE number = $1 AND told IS NULL AND greatest(next, until) <= clock_timestamp()`, number, attempt, taken.Milliseconds())
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			wait = time.Millisecond // somebody was faster; there may be others
			return postgres.ErrNothing
		}
		one = &events.Event{}
		if bad = json.Unmarshal(text, one); bad == nil {
			bad = one.Check()
		}
		if bad == nil && one.ID != id {
			bad = errors.New("it has another's text")
		}
		one.Tries, one.Taken = tries, attempt
		return nil
	})
	if err == nil && bad != nil {
		err = &RowError{Row: "an event that waits", Err: bad}
	}
	if err != nil {
		return nil, again, err
	}
	return one, wait, nil
}

// Done takes an event out; see events.Store.
func (s *Store) Done(ctx context.Context, e events.Event, _ bool) error {
	return s.db.Transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE upsauth.outbox SET told = clock_timestamp(), until = '-infinity' WHERE id = $1 AND told IS NULL", e.ID)
		return err
	})
}

// Later puts an event off; see events.Store.
func (s *Store) Later(ctx context.Context, e events.Event, pause time.Duration) (waiting int, err error) {
	err = s.db.Transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE upsauth.outbox SET tries = tries + 1, next = clock_timestamp() + $3::bigint * interval '1 ms', until = '-infinity', attempt = ''
			WHERE id = $1 AND attempt = $2 AND told IS NULL`, e.ID, e.Taken, pause.Milliseconds())
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT count(*) FROM upsauth.outbox WHERE told IS NULL").Scan(&waiting)
	})
	return waiting, err
}

// Leave lets another host tell an event at once; see events.Store.
func (s *Store) Leave(ctx context.Context, e events.Event) error {
	return s.db.Transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE upsauth.outbox SET until = '-infinity', attempt = '' WHERE id = $1 AND attempt = $2 AND told IS NULL", e.ID, e.Taken)
		return err
	})
}
