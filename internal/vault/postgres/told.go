package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// Spent is the request that brought a token: the name of the host that asked UPS, and when.
// The zero one is of a token whose claim the database does not have.
type Spent struct {
	Host string
	At   time.Time
}

// rowsQuery is given the columns of the item. Each claim is found by its primary key.
const rowsQuery = `SELECT g.slot, g.token_vault_key, g.generation, g.attempt, g.state, g.version, g.facts::text, g.local::text, %s, g.earlier,
	coalesce(h.name, c.host, ''), c.time
	FROM upsauth.grants g
	LEFT JOIN upsauth.claims c ON c.token_vault_key = g.token_vault_key AND c.generation = g.generation AND c.attempt = g.attempt AND c.outcome = 'granted'
	LEFT JOIN upsauth.hosts h ON h.id = c.host
	WHERE g.slot >= $1 AND g.slot < $2 ORDER BY g.slot`

func scanSpent(from pgx.Row) (r Row, err error) {
	g := &r.Grant
	var facts, local string
	var earlier []string
	var at *time.Time
	err = from.Scan(&r.Slot, &g.Key, &g.Token.Generation, &g.Token.Attempt, (*string)(&g.State), &g.Version, &facts, &local, &r.Item.Sealed, &r.Item.MAC, &earlier,
		&r.Spent.Host, &at)
	r.Item.Facts, r.Item.Local = json.RawMessage(facts), json.RawMessage(local)
	r.Earlier = earlierOf(earlier)
	r.Spent.Host = legible.Line(r.Spent.Host)
	if at != nil {
		r.Spent.At = *at
	}
	if err == nil {
		err = r.check()
	}
	return r, err
}

// Lost is a grant that is void or interrupted, with the claims that ledger.Loss asks for.
type Lost struct {
	Grant ledger.Grant
	Sent  []ledger.Sent
}

// Lost are the grants that are void or interrupted, by their Token Vault Keys, of slots that
// begin with a prefix.
func (db *DB) Lost(ctx context.Context, prefix string) (lost map[string]Lost, err error) {
	lost = map[string]Lost{}
	const ended = `SELECT g.token_vault_key, g.generation, g.attempt, g.state, row_to_json(c)::text, coalesce(h.name, ''), h.removed IS NOT NULL
		FROM upsauth.grants g
		JOIN upsauth.claims c ON c.token_vault_key = g.token_vault_key AND c.generation IN (g.generation, g.generation + 1)
		LEFT JOIN upsauth.hosts h ON h.id = c.host
		WHERE g.state IN ('void', 'interrupted') AND g.slot >= $1 AND g.slot < $2 ORDER BY g.slot, c.generation, c.attempt`
	err = db.read(ctx, ended, []any{prefix, prefix + behindPrefix}, func(found pgx.Rows) error {
		var g ledger.Grant
		var sent ledger.Sent
		var text string
		var row claimRow
		if err := found.Scan(&g.Key, &g.Token.Generation, &g.Token.Attempt, (*string)(&g.State), &text, &sent.Name, &sent.Removed); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &row); err != nil {
			return strangeRows()
		}
		sent.Claim, sent.Name = row.ledger(), legible.Line(sent.Name)
		lost[g.Key] = Lost{Grant: g, Sent: append(lost[g.Key].Sent, sent)}
		return nil
	})
	return lost, err
}
