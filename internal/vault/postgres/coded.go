package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Coded is the text of a row that no secret is in, with the code that says that somebody with the
// team's identity wrote it for just this place.
type Coded struct {
	Table string
	Key   []string
	Text  []byte
	MAC   []byte
}

// Code makes the code of a text for its place.
type Code func(ctx context.Context, c Coded) ([]byte, error)

// coded are the tables whose rows have codes.
var coded = []struct{ table, key, text, where string }{
	{"keys", "ARRAY[name]", "key::text", "name = $2"},
	{"invitations", "ARRAY[part, key]", "invitation::text", "part = $2 AND key = $3"},
}

// Recode gives all rows that have codes those that recode makes. Without write, nothing is
// changed.
func (db *DB) Recode(ctx context.Context, write bool, recode func(Coded) ([]byte, error)) error {
	return db.Transact(ctx, func(tx pgx.Tx) error {
		for _, t := range coded {
			rows, err := tx.Query(ctx, fmt.Sprintf("SELECT $1, %s, %s, mac FROM upsauth.%s ORDER BY 2 FOR UPDATE", t.key, t.text, t.table), t.table)
			if err != nil {
				return err
			}
			all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Coded])
			if err != nil {
				return err
			}
			for _, c := range all {
				mac, err := recode(c)
				if err != nil {
					return err
				}
				args := []any{mac}
				for _, part := range c.Key {
					args = append(args, part)
				}
				if _, err := tx.Exec(ctx, fmt.Sprintf("UPDATE upsauth.%s SET mac = $1 WHERE %s", t.table, t.where), args...); err != nil {
					return err
				}
			}
		}
		if !write {
			return ErrNothing
		}
		return nil
	})
}
