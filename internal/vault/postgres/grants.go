package postgres

import (
	"context"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// Grant reads the row of a slot; a Row without a slot says that there is none. One that is
// Interrupted is judged again.
func (s *Session) Grant(ctx context.Context, slot string) (Row, error) {
	r, err := s.RowIn(ctx, slot)
	if err != nil || r.Grant.State != ledger.Interrupted {
		return r, err
	}
	g, err := s.Judge(ctx, r.Grant.Key)
	if err == nil && g.Key == r.Grant.Key && g.Token == r.Grant.Token {
		r.Grant = g
	}
	return r, err
}

// Judge says again what the claims of a grant make of it, and returns its row.
func (s *Session) Judge(ctx context.Context, key string) (g ledger.Grant, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		r, err := lockKey(ctx, tx, key)
		if err != nil {
			return err
		}
		b, err := readBook(ctx, tx, r.Grant, pageOf(r.Grant))
		if err != nil {
			return err
		}
		if g, err = judge(ctx, tx, b); err == nil && g == r.Grant {
			return ErrNothing
		}
		return err
	})
	return g, err
}

// change is a transaction that makes another row of a slot's. Where the slot has none, the
// rule sees a grant without a key.
func (s *Session) change(ctx context.Context, slot string, rule func(pgx.Tx, Row, ledger.Book) (ledger.Grant, error)) (g ledger.Grant, err error) {
	return s.changeSeen(ctx, slot, ledger.Seen{}, rule)
}

// changeSeen is change for a rule that compares what this host has seen.
func (s *Session) changeSeen(ctx context.Context, slot string, seen ledger.Seen, rule func(pgx.Tx, Row, ledger.Book) (ledger.Grant, error)) (g ledger.Grant, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		r, err := lockSlot(ctx, tx, slot)
		if err != nil {
			return err
		}
		p := pageOf(r.Grant)
		p.seen = seen
		b, err := readBook(ctx, tx, r.Grant, p)
		if err != nil {
			return err
		}
		g, err = rule(tx, r, b)
		return err
	})
	return g, err
}

// putGrant writes all of a slot's row, and notes there the grant in whose place another comes. The
// error is a *ledger.ConflictError where another slot has the Token Vault Key, or where somebody has
// just made the row.
func putGrant(ctx context.Context, tx pgx.Tx, slot string, was, g ledger.Grant, item Item) (ledger.Grant, error) {
	return putGrantOf(ctx, tx, slot, was, g, item, nil)
}

// putGrantOf is putGrant for a grant that comes back, with those in whose place it came.
func putGrantOf(ctx context.Context, tx pgx.Tx, slot string, was, g ledger.Grant, item Item, earlier []Earlier) (ledger.Grant, error) {
	g.Version = newVersion()
	args := []any{slot, g.Key, g.Token.Generation, int64(g.Token.Attempt), string(g.State), g.Version, item.Sealed, item.MAC, text(item.Facts), text(item.Local), columnOf(earlier)}
	statement := `UPDATE upsauth.grants SET token_vault_key = $2, generation = $3, attempt = $4, state = $5, version = $6, item = $7, mac = $8,
		facts = coalesce($9::jsonb, '{}'), local = coalesce($10::jsonb, '{}'), changed = clock_timestamp(), earlier = CASE
			WHEN $11::text[] <> '{}' THEN $11::text[]
			WHEN token_vault_key = $2 THEN earlier
			ELSE earlier[greatest(1, cardinality(earlier) + 2 - $12::int):] || (token_vault_key || ' ' || coalesce(facts->>'journal_recipient', '')) END
		WHERE slot = $1`
	if was.Key == "" {
		statement = `INSERT INTO upsauth.grants (slot, token_vault_key, generation, attempt, state, version, item, mac, facts, local, earlier)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9::jsonb, '{}'), coalesce($10::jsonb, '{}'), $11)`
	} else {
		args = append(args, mostEarlier)
	}
	_, err := tx.Exec(ctx, statement, args...)
	if code(err) == "23505" {
		return was, &ledger.ConflictError{Grant: was}
	}
	return g, err
}

// Flip puts a sign-in's answer in place of the grant that the sign-in saw; an empty replaces
// says that it saw none. The errors are those of ledger.Book.Flip.
func (s *Session) Flip(ctx context.Context, slot, replaces string, in ledger.Intent, makes ledger.Made, item Item, t ledger.Terms) (ledger.Grant, error) {
	return s.change(ctx, slot, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		if r.Grant.Key == in.Key {
			return r.Grant, tellGranted(ctx, tx, in.Key) // it was put in place before
		}
		g, err := b.Flip(replaces, in.Key, makes, t)
		if err != nil {
			return r.Grant, err
		}
		if g, err = putGrant(ctx, tx, slot, r.Grant, g, item); err != nil {
			return r.Grant, err
		}
		return g, tellGranted(ctx, tx, in.Key)
	})
}

// FlipBack puts a grant in place again, as this host has read it before the database went back to
// one of those before it. The errors are those of ledger.Book.FlipBack.
func (s *Session) FlipBack(ctx context.Context, replaces string, back Row) error {
	_, err := s.change(ctx, back.Slot, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.FlipBack(replaces, back.Grant)
		if err != nil {
			return r.Grant, err
		}
		var gone bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM upsauth.gone WHERE token_vault_key = $1)", back.Grant.Key).Scan(&gone); err != nil {
			return r.Grant, err
		}
		if gone {
			return r.Grant, &ledger.ConflictError{Grant: r.Grant}
		}
		if g, err = putGrantOf(ctx, tx, back.Slot, r.Grant, g, back.Item, back.Earlier); err != nil {
			return r.Grant, err
		}
		return g, tellGranted(ctx, tx, g.Key)
	})
	return err
}

// tellGranted ends the claim of the sign-in that a grant was made by, if the database has it: it has the
// grant's Token Vault Key alone. Whoever puts the grant in place may be another than who has signed in.
func tellGranted(ctx context.Context, tx pgx.Tx, key string) error {
	_, err := tx.Exec(ctx, `UPDATE upsauth.claims SET outcome = 'granted', ended = clock_timestamp()
		WHERE token_vault_key = $1 AND purpose = 'authorize' AND outcome IS DISTINCT FROM 'granted'`, key)
	return err
}

// Rename gives a grant another slot. Of the item the facts count, which have the new name, and
// the code that binds it to its row.
func (s *Session) Rename(ctx context.Context, slot string, version int64, to string, item Item, t ledger.Terms) (ledger.Grant, error) {
	return s.change(ctx, slot, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.Rename(version, t)
		if err != nil {
			return r.Grant, err
		}
		if r.Slot == "" {
			return r.Grant, &ledger.ConflictError{}
		}
		g.Version = newVersion()
		_, err = tx.Exec(ctx, `UPDATE upsauth.grants SET slot = $2, version = $3, mac = CASE WHEN item IS NULL THEN NULL ELSE $4::bytea END,
			facts = coalesce($5::jsonb, facts), local = coalesce($6::jsonb, local), changed = clock_timestamp() WHERE slot = $1`,
			slot, to, g.Version, item.MAC, text(item.Facts), text(item.Local))
		if code(err) == "23505" {
			return r.Grant, &ledger.ConflictError{Grant: r.Grant}
		}
		return g, err
	})
}

// Move makes a tombstone of a grant that is going to live in another vault. Local says where;
// the secrets are gone with it. The errors are those of ledger.Book.Move.
func (s *Session) Move(ctx context.Context, self ledger.Self, slot string, version int64, local json.RawMessage) (ledger.Grant, error) {
	return s.changeSeen(ctx, slot, self.Seen, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.Move(self, version)
		if err != nil {
			return r.Grant, err
		}
		return putTombstone(ctx, tx, r, g, local)
	})
}

// LeaveAgain is Move for a grant that has left before the database went back.
func (s *Session) LeaveAgain(ctx context.Context, slot string, version int64, local json.RawMessage) (ledger.Grant, error) {
	return s.change(ctx, slot, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.Left(version)
		if err != nil {
			return r.Grant, err
		}
		return putTombstone(ctx, tx, r, g, local)
	})
}

func putTombstone(ctx context.Context, tx pgx.Tx, r Row, g ledger.Grant, local json.RawMessage) (ledger.Grant, error) {
	if r.Slot == "" {
		return r.Grant, &ledger.ConflictError{}
	}
	g.Version = newVersion()
	_, err := tx.Exec(ctx, `UPDATE upsauth.grants SET state = $2, version = $3, item = NULL, mac = NULL, local = coalesce($4::jsonb, local),
		changed = clock_timestamp() WHERE slot = $1`, r.Slot, string(g.State), g.Version, text(local))
	return g, err
}

// Arrive writes the row of a grant that is to be moved here, which nobody uses before Arrived.
// Where the slot has no row, the version is 0. Make makes the item for the token's place. A
// tombstone of the same grant under another name goes.
func (s *Session) Arrive(ctx context.Context, self ledger.Self, slot string, version int64, key string, generation int64, own bool, item func(ledger.Made) Item) (ledger.Grant, error) {
	return s.changeSeen(ctx, slot, self.Seen, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.Arrive(self, version, key, generation, own)
		if err != nil {
			return r.Grant, err
		}
		if err := dropTombstone(ctx, tx, slot, key, generation); err != nil {
			return r.Grant, err
		}
		return putGrant(ctx, tx, slot, r.Grant, g, item(g.Token))
	})
}

// dropTombstone removes the tombstone of a grant that lies in another slot, as its company had
// another name when it was moved away.
func dropTombstone(ctx context.Context, tx pgx.Tx, slot, key string, generation int64) error {
	there, err := lockKey(ctx, tx, key)
	if err != nil || there.Slot == "" || there.Slot == slot {
		return err
	}
	if there.Grant.State != ledger.Moved || there.Grant.Token.Generation > generation {
		return &ledger.ConflictError{Grant: there.Grant}
	}
	there.Grant.State = ledger.Removing
	if there.Grant, err = writeState(ctx, tx, there.Grant); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "SELECT upsauth.drop_grant($1, $2, $3)", there.Slot, key, there.Grant.Version)
	return err
}

// Arrived makes a grant of a row that Arrive wrote, once its old vault has a tombstone.
func (s *Session) Arrived(ctx context.Context, slot string, version int64, void bool, local json.RawMessage) (ledger.Grant, error) {
	return s.change(ctx, slot, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.Arrived(version, void)
		if err != nil {
			return r.Grant, err
		}
		g.Version = newVersion()
		_, err = tx.Exec(ctx, `UPDATE upsauth.grants SET state = $2, version = $3, local = coalesce($4::jsonb, local), changed = clock_timestamp()
			WHERE slot = $1`, slot, string(g.State), g.Version, text(local))
		return g, err
	})
}

// Import takes a grant in from another vault. Where the slot has no row, the version is 0. The errors
// are those of ledger.Book.Import.
func (s *Session) Import(ctx context.Context, self ledger.Self, slot string, version int64, key string, made ledger.Made, item Item) (ledger.Grant, error) {
	return s.changeSeen(ctx, slot, self.Seen, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.Import(self, version, key, made)
		if err != nil {
			return r.Grant, err
		}
		return putGrant(ctx, tx, slot, r.Grant, g, item)
	})
}

// Revoke begins a revoke.
func (s *Session) Revoke(ctx context.Context, slot string, version int64) (ledger.Grant, error) {
	return s.change(ctx, slot, func(tx pgx.Tx, r Row, b ledger.Book) (ledger.Grant, error) {
		g, err := b.Revoke(version)
		if err != nil {
			return r.Grant, err
		}
		if r.Slot == "" {
			return r.Grant, &ledger.ConflictError{}
		}
		return writeState(ctx, tx, g)
	})
}
