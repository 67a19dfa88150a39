package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// Vault is what the database says of the whole vault.
type Vault struct {
	ID string // random
	// Recipient is the public part of the team's identity, empty before the first use. Next is
	// that of the identity that everything is being sealed to anew, empty as a rule.
	Recipient, Next string
	// Now is the database's clock.
	Now time.Time
}

// Vault returns what the database says of the whole vault. Where no recipient is noted yet, it
// becomes the one that is given, unless that is empty.
func (db *DB) Vault(ctx context.Context, recipient string) (v Vault, err error) {
	err = db.Transact(ctx, func(tx pgx.Tx) error {
		read := func() error {
			return tx.QueryRow(ctx, "SELECT vault::text, coalesce(recipient, ''), coalesce(next_recipient, ''), clock_timestamp() FROM upsauth.meta").Scan(&v.ID, &v.Recipient, &v.Next, &v.Now)
		}
		if err := read(); errors.Is(err, pgx.ErrNoRows) {
			return strangeRows()
		} else if err != nil {
			return err
		}
		if v.Recipient != "" || recipient == "" {
			return ErrNothing
		}
		if _, err := tx.Exec(ctx, "UPDATE upsauth.meta SET recipient = $1 WHERE recipient IS NULL", recipient); err != nil {
			return err
		}
		return read()
	})
	return v, err
}

// BeginRekey says that everything is being sealed to another identity: until EndRekey nobody
// uses the vault. Both report whether the vault was as it was read.
func (db *DB) BeginRekey(ctx context.Context, from, to string) (bool, error) {
	return db.rekey(ctx, "UPDATE upsauth.meta SET next_recipient = $2 WHERE recipient = $1 AND next_recipient IS NULL", from, to)
}

// EndRekey says that everything is sealed to the identity by now.
func (db *DB) EndRekey(ctx context.Context, from, to string) (bool, error) {
	return db.rekey(ctx, "UPDATE upsauth.meta SET recipient = $2, next_recipient = NULL WHERE recipient = $1 AND next_recipient = $2", from, to)
}

func (db *DB) rekey(ctx context.Context, statement, from, to string) (done bool, err error) {
	err = db.Transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, statement, from, to)
		done = err == nil && tag.RowsAffected() == 1
		return err
	})
	return done, err
}

// Reseal writes a grant's item anew, made of the row as it is. A nil item leaves it.
func (db *DB) Reseal(ctx context.Context, slot string, seal func(Row) (*Item, error)) error {
	return db.Transact(ctx, func(tx pgx.Tx) error {
		r, err := scanRow(tx.QueryRow(ctx, "SELECT "+rowColumns+" FROM upsauth.grants WHERE slot = $1 FOR NO KEY UPDATE", slot))
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNothing
		}
		if err != nil {
			return err
		}
		item, err := seal(r)
		if err == nil && item == nil {
			err = ErrNothing
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE upsauth.grants SET item = $2, mac = $3, version = $4, changed = clock_timestamp() WHERE slot = $1", slot, item.Sealed, item.MAC, newVersion())
		return err
	})
}

// noTables says of a table that is not there what is to be done.
func noTables(err error) error {
	if c := code(err); c != "42P01" && c != "3F000" {
		return err
	}
	return &Error{
		Reason: NoTables, What: "the database has no tables of upsauth",
		Advice: "have the owner of the database run what {} prints, or the owner's role run {}",
		Do:     []Act{PrintSchema, Migrate}, Err: err,
	}
}

// behindPrefix is the end of what begins with a prefix, as bytes are compared.
const behindPrefix = "~"

// Rows are the grants' rows whose slots begin with a prefix, as they are at one moment.
func (db *DB) Rows(ctx context.Context, prefix string) ([]Row, error) {
	return db.rows(ctx, "g.item, g.mac", prefix)
}

// Bare are Rows without their items, which are most of them.
func (db *DB) Bare(ctx context.Context, prefix string) ([]Row, error) {
	return db.rows(ctx, "NULL::bytea, NULL::bytea", prefix)
}

func (db *DB) rows(ctx context.Context, items, prefix string) (rows []Row, err error) {
	err = db.read(ctx, fmt.Sprintf(rowsQuery, items), []any{prefix, prefix + behindPrefix}, func(found pgx.Rows) error {
		r, err := scanSpent(found)
		rows = append(rows, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// rowColumns are what scanRow reads.
const rowColumns = grantColumns + ", facts::text, local::text, item, mac, earlier"

func scanRow(from pgx.Row) (r Row, err error) {
	g := &r.Grant
	var facts, local string
	var earlier []string
	err = from.Scan(&r.Slot, &g.Key, &g.Token.Generation, &g.Token.Attempt, (*string)(&g.State), &g.Version, &facts, &local, &r.Item.Sealed, &r.Item.MAC, &earlier)
	r.Earlier = earlierOf(earlier)
	r.Item.Facts, r.Item.Local = json.RawMessage(facts), json.RawMessage(local)
	if err == nil {
		err = r.check()
	}
	return r, err
}

// earlierOf leaves out what can't be a Token Vault Key: they become names of files.
func earlierOf(column []string) (all []Earlier) {
	for _, text := range column {
		key, recipient, _ := strings.Cut(text, " ")
		if grant.CheckTokenVaultKey(key) == nil {
			all = append(all, Earlier{key, recipient})
		}
	}
	return all
}

func columnOf(all []Earlier) []string {
	column := make([]string, 0, len(all))
	for _, e := range all {
		column = append(column, e.Key+" "+e.Recipient)
	}
	return column
}

// slots is what grant.ID.Slot makes.
var slots = legible.Pattern(`^[0-9a-f]{32}-[0-9a-f]{16}$`)

// check refuses a row whose slot or Token Vault Key can't be one: both become names of files. The
// tables have the same conditions, and who owns them may have taken these away.
func (r Row) check() error {
	if !slots().MatchString(r.Slot) || grant.CheckTokenVaultKey(r.Grant.Key) != nil {
		return strangeRows()
	}
	return nil
}

// RowOf is the row of a Token Vault Key; one without a slot says that there is none.
func (db *DB) RowOf(ctx context.Context, key string) (r Row, err error) {
	err = db.Session(ctx, func(s *Session) error {
		r, err = s.RowOf(ctx, key)
		return err
	})
	return r, err
}

// RowOf is DB.RowOf on a session that is there: a session within another one may wait for ever,
// as the process has few.
func (s *Session) RowOf(ctx context.Context, key string) (Row, error) {
	return s.row(ctx, "token_vault_key", key)
}

// RowIn is the row of a slot; one without a slot says that there is none.
func (s *Session) RowIn(ctx context.Context, slot string) (Row, error) {
	return s.row(ctx, "slot", slot)
}

// row is the row that has something in a column, which is unique.
func (s *Session) row(ctx context.Context, column, value string) (r Row, err error) {
	err = s.read(ctx, "SELECT "+rowColumns+" FROM upsauth.grants WHERE "+column+" = $1", []any{value}, func(found pgx.Rows) error {
		r, err = scanRow(found)
		return err
	})
	return r, err
}

// Awaited is a claim whose answer has not arrived.
type Awaited struct {
	Slot  string
	Claim ledger.Claim
	// Host is the name of the host that claimed; it may have been removed.
	Host    string
	Removed bool
}

// Awaited are the claims at the grants' next generations, of slots that begin with a prefix,
// whose requests have ended for sure and whose answers have not arrived.
func (db *DB) Awaited(ctx context.Context, prefix string) (all []Awaited, err error) {
	const awaiting = `SELECT g.slot, row_to_json(c)::text, coalesce(h.name, c.host), h.removed IS NOT NULL FROM upsauth.claims c
		JOIN upsauth.grants g ON g.token_vault_key = c.token_vault_key AND c.generation = g.generation + 1
		LEFT JOIN upsauth.hosts h ON h.id = c.host
		WHERE (c.outcome IS NULL OR c.outcome = 'no answer') AND g.slot >= $1 AND g.slot < $2 AND g.state IN ('live', 'interrupted')
			AND c.time < clock_timestamp() - make_interval(secs => $3) ORDER BY g.slot, c.attempt`
	err = db.read(ctx, awaiting, []any{prefix, prefix + behindPrefix, ledger.CallEnds.Seconds()}, func(found pgx.Rows) error {
		var a Awaited
		var text string
		var row claimRow
		if err := found.Scan(&a.Slot, &text, &a.Host, &a.Removed); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &row); err != nil {
			return strangeRows()
		}
		a.Claim, a.Host = row.ledger(), legible.Line(a.Host)
		all = append(all, a)
		return nil
	})
	return all, err
}

// Open are the claims of a host under a Token Vault Key to which nobody has said an end yet,
// by their nonces.
func (db *DB) Open(ctx context.Context, host, key string) (nonces map[string]bool, err error) {
	nonces = map[string]bool{}
	err = db.read(ctx, "SELECT nonce FROM upsauth.claims WHERE token_vault_key = $1 AND host = $2 AND outcome IS NULL", []any{key, host}, func(found pgx.Rows) error {
		var nonce string
		err := found.Scan(&nonce)
		nonces[nonce] = true
		return err
	})
	return nonces, err
}

// Ask is Claim without the claim: it reports what a claim would meet now, and writes nothing.
func (s *Session) Ask(ctx context.Context, self ledger.Self, a Asked) error {
	return s.about(ctx, a.Intent, self.Seen, func(_ pgx.Tx, _ Row, b ledger.Book) error {
		if _, _, err := b.Claim(self, a.Intent, a.Seen, a.Unsettled, a.Terms); err != nil {
			return err
		}
		return ErrNothing
	})
}

// Note changes what lies with a grant's row and is no token: Item makes it of the row as it
// is; what it returns of the sealed part must be that of the row. The error is a
// *ledger.ConflictError where the row is another version by now.
func (s *Session) Note(ctx context.Context, slot string, version int64, item func(Row) (Item, error)) (g ledger.Grant, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		r, err := scanRow(tx.QueryRow(ctx, "SELECT "+rowColumns+" FROM upsauth.grants WHERE slot = $1 FOR NO KEY UPDATE", slot))
		if errors.Is(err, pgx.ErrNoRows) {
			return &ledger.ConflictError{}
		}
		if err != nil {
			return err
		}
		if r.Grant.Version != version {
			return &ledger.ConflictError{Grant: r.Grant}
		}
		made, err := item(r)
		if err != nil {
			return err
		}
		g = r.Grant
		g.Version = newVersion()
		_, err = tx.Exec(ctx, `UPDATE upsauth.grants SET version = $2, facts = $3::jsonb, local = $4::jsonb, mac = $5, changed = clock_timestamp() WHERE slot = $1`,
			slot, g.Version, text(made.Facts), text(made.Local), made.MAC)
		return err
	})
	return g, err
}

// Drop removes the row of a grant whose revoke has begun, with its claims. The error is a
// *ledger.ConflictError where the row is another by now.
func (s *Session) Drop(ctx context.Context, slot, key string, version int64) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		var dropped bool
		err := tx.QueryRow(ctx, "SELECT upsauth.drop_grant($1, $2, $3)", slot, key, version).Scan(&dropped)
		if err == nil && !dropped {
			err = &ledger.ConflictError{}
		}
		return err
	})
}

// Secret is a row of secrets.
type Secret struct {
	Account     string
	Generation  int64
	Sealed, MAC []byte
}

// Secret returns what lies under an account; ok says that there is something.
func (db *DB) Secret(ctx context.Context, account string) (s Secret, ok bool, err error) {
	s = Secret{Account: account}
	err = db.read(ctx, "SELECT generation, item, mac FROM upsauth.secrets WHERE account = $1", []any{account}, func(found pgx.Rows) error {
		ok = true
		return found.Scan(&s.Generation, &s.Sealed, &s.MAC)
	})
	return s, ok && err == nil, err
}

// PutSecret writes what lies under an account. Make is given its generation, which the code
// covers that binds it to its place. It is called with the row locked.
func (db *DB) PutSecret(ctx context.Context, account string, seal func(generation int64) (sealed, mac []byte, err error)) error {
	return db.Transact(ctx, func(tx pgx.Tx) error {
		var generation int64
		err := tx.QueryRow(ctx, "SELECT generation FROM upsauth.secrets WHERE account = $1 FOR UPDATE", account).Scan(&generation)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		generation++
		sealed, mac, err := seal(generation)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO upsauth.secrets (account, version, generation, item, mac) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (account) DO UPDATE SET version = excluded.version, generation = excluded.generation, item = excluded.item, mac = excluded.mac
			WHERE secrets.generation < excluded.generation`, account, newVersion(), generation, sealed, mac)
		if err == nil && tag.RowsAffected() != 1 {
			return &Error{Reason: Busy, What: fmt.Sprintf("somebody else has just written the secret under %s", account), Advice: "try again"}
		}
		return err
	})
}

// PutBackSecret writes a secret that this host has read here before the database went back, where
// there is none. Over says that it also takes the place of another.
func (s *Session) PutBackSecret(ctx context.Context, secret Secret, over bool) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO upsauth.secrets (account, version, generation, item, mac) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (account) DO UPDATE SET version = excluded.version, generation = excluded.generation, item = excluded.item, mac = excluded.mac
			WHERE $6`, secret.Account, newVersion(), secret.Generation, secret.Sealed, secret.MAC, over)
		if err == nil && tag.RowsAffected() == 0 {
			return ErrNothing
		}
		return err
	})
}

// ResealSecret writes what lies under an account anew, made of what is there. Nothing sealed
// leaves it.
func (db *DB) ResealSecret(ctx context.Context, account string, seal func(Secret) (sealed, mac []byte, err error)) error {
	return db.Transact(ctx, func(tx pgx.Tx) error {
		s := Secret{Account: account}
		err := tx.QueryRow(ctx, "SELECT generation, item, mac FROM upsauth.secrets WHERE account = $1 FOR UPDATE", account).Scan(&s.Generation, &s.Sealed, &s.MAC)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNothing
		}
		if err != nil {
			return err
		}
		sealed, mac, err := seal(s)
		if err == nil && sealed == nil {
			err = ErrNothing
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE upsauth.secrets SET item = $2, mac = $3, version = $4 WHERE account = $1", account, sealed, mac, newVersion())
		return err
	})
}

// DropSecret removes what lies under an account, and reports whether there was anything.
func (db *DB) DropSecret(ctx context.Context, account string) (there bool, err error) {
	err = db.Transact(ctx, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, "SELECT upsauth.drop_secret(account, version) FROM upsauth.secrets WHERE account = $1", account).Scan(&there)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNothing
		}
		return err
	})
	return there && err == nil, err
}

// Accounts are the names under which there are secrets, those of grants among them.
func (db *DB) Accounts(ctx context.Context) (accounts []string, err error) {
	err = db.Transact(ctx, func(tx pgx.Tx) error {
		accounts, err = list(ctx, tx, `SELECT account FROM upsauth.secrets UNION ALL SELECT token_vault_key FROM upsauth.grants WHERE item IS NOT NULL ORDER BY 1`)
		if err != nil {
			return err
		}
		return ErrNothing
	})
	return accounts, err
}
