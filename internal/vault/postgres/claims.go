package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// typed makes an *Error of what the server or the network said in the middle of a
// transaction.
func (s Settings) typed(ctx context.Context, err error) error {
	var (
		said    *pgconn.PgError
		ours    *Error
		unknown *UnknownError
	)
	switch {
	case err == nil || errors.As(err, &ours) || errors.As(err, &unknown) || isRule(err):
		return err
	case errors.As(err, &said):
		// The details of the server's errors name what is in a row.
		e := &Error{
			Reason: Failed, What: "the database did not do it: " + s.said(err), Advice: "try again",
			Err: &pgconn.PgError{Severity: said.Severity, Code: said.Code, Message: s.said(err)},
		}
		switch said.Code {
		case "55P03", "40P01", "40001":
			e.Reason, e.What = Busy, "somebody else has been changing the same rows for too long: "+s.said(err)
		case "42P01", "3F000":
			return noTables(err)
		case "42703", "42883": // a column, a function
			e.Reason, e.What = OldTables, "the tables in the database are those of an earlier upsauth: "+s.said(err)
			e.Advice, e.Do = "have the owner of the tables run [the SQL that {} prints|the SQL of the shared vault]", []Act{PrintSchema}
		case "42501":
			e.Reason, e.Advice, e.Do = NoRights, "have the owner of the tables run [the SQL that {} prints|the SQL of the shared vault]", []Act{PrintSchema}
		}
		if endsAll(err) {
			e.Reason, e.What = Away, "the database broke the connection off: "+s.said(err)
		}
		return e
	case ctx.Err() != nil:
		return ctx.Err()
	}
	e := &Error{Reason: Away, What: "the database broke the connection off: " + s.said(err), Advice: "try again in a while", Err: s.quiet(err)}
	if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
		e.What = "the database did not answer in time"
	}
	return e
}

// isRule reports whether an error is the ledger's.
func isRule(err error) bool {
	return errors.As(err, new(*ledger.FrozenError)) || errors.As(err, new(*ledger.HostError)) ||
		errors.As(err, new(*ledger.ConflictError)) || errors.As(err, new(*ledger.ClaimedError)) ||
		errors.As(err, new(*ledger.SettledError)) || errors.As(err, new(*ledger.LateError))
}

// Item is what lies with a grant's row. Sealed and MAC belong to the token, so they are
// written with it. A nil Facts or Local leaves what is there.
type Item struct {
	Facts, Local json.RawMessage
	Sealed, MAC  []byte
}

// Row is a grant's row with what lies there.
type Row struct {
	Slot  string
	Grant ledger.Grant
	Item  Item
	// Earlier are the grants in whose place this one came, the latest last.
	Earlier []Earlier
	// Spent is who has got the token that stands. Rows alone reads it.
	Spent Spent
}

// Earlier is a grant that another took the place of.
type Earlier struct {
	Key string `json:"token_vault_key"`
	// Recipient is that of its journals, which tells it from a grant of the same key that a person
	// takes in later.
	Recipient string `json:"journal_recipient,omitempty"`
}

// mostEarlier is how many of a row's are kept.
const mostEarlier = 16

// newVersion is a row's next version. Another one than all before it, also after a failover
// that took commits back.
func newVersion() int64 { return rand.Int64() }

// NewVersion is a row's next version, for the stores of other rooms.
func NewVersion() string { return strconv.FormatInt(newVersion(), 10) }

const grantColumns = `slot, token_vault_key, generation, attempt, state, version`

// lockKey locks the row of a Token Vault Key, and lockSlot that of a slot. Where there is
// none, it is zero.
func lockKey(ctx context.Context, tx pgx.Tx, key string) (Row, error) {
	return oneRow(ctx, tx, "SELECT "+grantColumns+" FROM upsauth.grants WHERE token_vault_key = $1 FOR NO KEY UPDATE", key)
}

func lockSlot(ctx context.Context, tx pgx.Tx, slot string) (Row, error) {
	return oneRow(ctx, tx, "SELECT "+grantColumns+" FROM upsauth.grants WHERE slot = $1 FOR NO KEY UPDATE", slot)
}

func oneRow(ctx context.Context, tx pgx.Tx, query, of string) (r Row, err error) {
	g := &r.Grant
	err = tx.QueryRow(ctx, query, of).Scan(&r.Slot, &g.Key, &g.Token.Generation, &g.Token.Attempt, (*string)(&g.State), &g.Version)
	if errors.Is(err, pgx.ErrNoRows) {
		return Row{}, nil
	}
	return r, err
}

// page says which claims a book is to have: those of a Token Vault Key from a generation
// on, and the one of a nonce. Earlier ones say nothing about a token that can still be sent.
type page struct {
	key        string
	generation int64
	nonce      string
	seen       ledger.Seen
}

func pageOf(g ledger.Grant) page { return page{key: g.Key, generation: g.Token.Generation} }

func pageFor(g ledger.Grant, in ledger.Intent, seen ledger.Seen) page {
	p := page{key: in.Key, generation: in.Generation, nonce: in.Nonce, seen: seen}
	if g.Key == in.Key {
		p.generation = min(p.generation, g.Token.Generation)
	}
	return p
}

// bookQuery reads at one moment who the database is and what is in it. Rows that may be many
// come as JSON, so that it is one statement and one round trip.
const bookQuery = `SELECT clock_timestamp(), i.system_identifier, i.timeline, i.database_oid, i.claims_oid,
	m.epoch, coalesce(m.system_identifier, ''), coalesce(m.timeline, 0), coalesce(m.database_oid, 0), coalesce(m.claims_oid, 0), m.highest,
	(SELECT coalesce(json_agg(h), '[]')::text FROM upsauth.hosts h),
	(SELECT coalesce(json_agg(c ORDER BY c.number), '[]')::text FROM upsauth.claims c
		WHERE c.token_vault_key = $1 AND (c.generation >= $2 OR c.nonce = $3)),
	(SELECT row_to_json(c)::text FROM upsauth.claims c WHERE c.number = $4)
	FROM upsauth.meta m CROSS JOIN (` + IdentityQuery + `) i`

// readBook is called once the lock is there, so that it reads what the lock guards.
func readBook(ctx context.Context, tx pgx.Tx, g ledger.Grant, p page) (ledger.Book, error) {
	b := ledger.Book{Grant: g}
	var now, then identityRow
	var hosts, claims string
	var holder *string
	err := tx.QueryRow(ctx, bookQuery, p.key, p.generation, p.nonce, p.seen.Number).Scan(
		&b.Now, &now.system, &now.timeline, &now.database, &now.claims,
		&b.Meta.Epoch, &then.system, &then.timeline, &then.database, &then.claims, &b.Meta.Highest,
		&hosts, &claims, &holder)
	if err != nil {
		return b, cannotIdentify(err)
	}
	if now.system == "" {
		return b, &Error{Reason: NoIdentity, What: "the database has no system identifier", Advice: "use another PostgreSQL"}
	}
	b.Identity, b.Meta.Identity = now.ledger(), then.ledger()
	var hostRows []hostRow
	var claimRows []claimRow
	if err := errors.Join(json.Unmarshal([]byte(hosts), &hostRows), json.Unmarshal([]byte(claims), &claimRows)); err != nil {
		return b, strangeRows()
	}
	for _, h := range hostRows {
		b.Hosts = append(b.Hosts, h.ledger())
	}
	for _, c := range claimRows {
		b.Claims = append(b.Claims, c.ledger())
	}
	if holder != nil {
		var row claimRow
		if err := json.Unmarshal([]byte(*holder), &row); err != nil {
			return b, strangeRows()
		}
		c := row.ledger()
		b.Holder = &c
	}
	return b, nil
}

func strangeRows() error {
	return &Error{Reason: StrangeTables, What: "the rows in the database are not what this upsauth writes", Advice: "upgrade upsauth on this machine"}
}

type identityRow struct {
	system                     string
	timeline, database, claims int64
}

// ledger is the zero identity where no host has said yet who the database is.
func (i identityRow) ledger() ledger.Identity {
	if i.system == "" {
		return ledger.Identity{}
	}
	return ledger.Identity{System: i.system, Timeline: fmt.Sprint(i.timeline), Database: uint32(i.database), Claims: uint32(i.claims)}
}

type hostRow struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Machine     string     `json:"machine"`
	Incarnation int64      `json:"incarnation"`
	Boot        string     `json:"boot"`
	Epoch       int64      `json:"epoch"`
	Waived      int64      `json:"waived"`
	Seen        time.Time  `json:"seen"`
	Accepted    *time.Time `json:"accepted"`
	SignedOff   *time.Time `json:"signed_off"`
	Removed     *time.Time `json:"removed"`
}

func (h hostRow) ledger() ledger.Host {
	return ledger.Host{
		ID: h.ID, Name: legible.Line(h.Name), Machine: h.Machine, Incarnation: h.Incarnation, Boot: h.Boot, Epoch: h.Epoch, Waived: h.Waived,
		Removed: h.Removed != nil, SignedOff: h.SignedOff != nil, Accepted: h.Accepted != nil, Seen: h.Seen,
	}
}

type claimRow struct {
	Number          int64     `json:"number"`
	Key             string    `json:"token_vault_key"`
	Generation      int64     `json:"generation"`
	Attempt         int       `json:"attempt"`
	SendsGeneration int64     `json:"sends_generation"`
	SendsAttempt    int       `json:"sends_attempt"`
	Nonce           string    `json:"nonce"`
	Purpose         string    `json:"purpose"`
	Host            string    `json:"host"`
	Incarnation     int64     `json:"incarnation"`
	Epoch           int64     `json:"epoch"`
	Time            time.Time `json:"time"`
	Outcome         *string   `json:"outcome"`
}

func (c claimRow) ledger() ledger.Claim {
	claim := ledger.Claim{
		Number: c.Number, Key: c.Key, Makes: ledger.Made{Generation: c.Generation, Attempt: c.Attempt},
		Sends: ledger.Made{Generation: c.SendsGeneration, Attempt: c.SendsAttempt},
		Nonce: c.Nonce, Host: c.Host, Incarnation: c.Incarnation, Purpose: grant.Purpose(c.Purpose), Epoch: c.Epoch, At: c.Time,
	}
	if c.Outcome != nil {
		claim.Outcome = ledger.Outcome(*c.Outcome)
	}
	return claim
}

// insertSQL counts the number up, and inserts. The row of meta is locked by it until the
// commit, so no epoch can begin between the rule's look and the claim, and every claim of an
// epoch is there when the next one begins. A claim that is repeated is written anew, although
// nothing in it changes: its commit then waits for all that the first one may not have
// reached.
const insertSQL = `WITH next AS (
		UPDATE upsauth.meta SET highest = highest + CASE WHEN EXISTS (SELECT FROM upsauth.claims WHERE nonce = $7) THEN 0 ELSE 1 END
		WHERE epoch = $1 RETURNING highest)
	INSERT INTO upsauth.claims (number, token_vault_key, generation, attempt, sends_generation, sends_attempt, nonce, purpose, host,
		incarnation, epoch, outcome, ended)
	SELECT highest, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, CASE WHEN $12::text IS NULL THEN NULL ELSE clock_timestamp() END FROM next
	ON CONFLICT (nonce) DO UPDATE SET detail = claims.detail
		WHERE claims.host = excluded.host AND claims.outcome IS NOT DISTINCT FROM excluded.outcome
	RETURNING number, attempt, time`

// insert writes a claim in an epoch that must still be the ledger's, and returns the row.
func insert(ctx context.Context, tx pgx.Tx, epoch int64, c ledger.Claim) (ledger.Claim, error) {
	var outcome *string
	if c.Outcome != ledger.Open {
		o := string(c.Outcome)
		outcome = &o
	}
	err := tx.QueryRow(ctx, insertSQL, epoch, c.Key, c.Makes.Generation, int64(c.Makes.Attempt), c.Sends.Generation, int64(c.Sends.Attempt),
		c.Nonce, string(c.Purpose), c.Host, c.Incarnation, c.Epoch, outcome).Scan(&c.Number, &c.Makes.Attempt, &c.At)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return c, &ledger.FrozenError{Epoch: epoch, Answer: true}
	case code(err) == "23505":
		// Only a claim that no grant's row guards can come too late for its place.
		return c, &ledger.ConflictError{}
	}
	return c, err
}

// end writes what became of a claim that is there. Its host says so, and is seen.
func end(ctx context.Context, tx pgx.Tx, c ledger.Claim) error {
	_, err := tx.Exec(ctx, `WITH seen AS (UPDATE upsauth.hosts SET seen = clock_timestamp()
			WHERE id = $3 AND seen < clock_timestamp() - make_interval(secs => $4))
		UPDATE upsauth.claims SET outcome = $2, ended = clock_timestamp() WHERE nonce = $1`,
		c.Nonce, string(c.Outcome), c.Host, seenEvery.Seconds())
	return err
}

// with is the book once a claim is written.
func with(b ledger.Book, c ledger.Claim) ledger.Book {
	b.Claims = slices.DeleteFunc(slices.Clone(b.Claims), func(other ledger.Claim) bool { return other.Nonce == c.Nonce })
	b.Claims = append(b.Claims, c)
	return b
}

// judge writes what the claims of a grant make of it.
func judge(ctx context.Context, tx pgx.Tx, b ledger.Book) (ledger.Grant, error) {
	g := b.Grant
	if g.Key == "" {
		return g, nil
	}
	if g.State = b.Judge(); g.State == b.Grant.State {
		return g, nil
	}
	return writeState(ctx, tx, g)
}

// writeState writes the state of a grant, with a new version.
func writeState(ctx context.Context, tx pgx.Tx, g ledger.Grant) (ledger.Grant, error) {
	g.Version = newVersion()
	_, err := tx.Exec(ctx, "UPDATE upsauth.grants SET state = $2, version = $3, changed = clock_timestamp() WHERE token_vault_key = $1",
		g.Key, string(g.State), g.Version)
	return g, err
}

// Asked is what a host asks for with an intent that is on its disk.
type Asked struct {
	Intent ledger.Intent
	// Seen is the newest token that the grant had when this host looked.
	Seen ledger.Sighting
	// Unsettled are the nonces of this host's intents.
	Unsettled []string
	Terms     ledger.Terms
}

// about is a transaction that reads or says something of a claim: it locks the grant, and
// reads what is known of the claims for its Token Vault Key.
func (s *Session) about(ctx context.Context, in ledger.Intent, seen ledger.Seen, do func(pgx.Tx, Row, ledger.Book) error) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		r, err := lockKey(ctx, tx, in.Key)
		if err != nil {
			return err
		}
		b, err := readBook(ctx, tx, r.Grant, pageFor(r.Grant, in, seen))
		if err != nil {
			return err
		}
		return do(tx, r, b)
	})
}

// Claim asks for the right to send, and returns the claim. The right is only there where the
// error is nil. After an *UnknownError it is asked for again with the same intent, on another
// session. The other errors are those of ledger.Book.Claim and *Error; with them nothing may
// be sent. A *ConflictError that is Missing has changed the grant.
func (s *Session) Claim(ctx context.Context, self ledger.Self, a Asked) (right ledger.Claim, err error) {
	in := a.Intent
	var refused error
	err = s.about(ctx, in, self.Seen, func(tx pgx.Tx, _ Row, b ledger.Book) error {
		c, _, err := b.Claim(self, in, a.Seen, a.Unsettled, a.Terms)
		var conflict *ledger.ConflictError
		if errors.As(err, &conflict) && conflict.Missing {
			refused = err
			g := b.Grant.Missing()
			if g == b.Grant {
				return err
			}
			conflict.Grant, err = writeState(ctx, tx, g)
			return err
		}
		if err != nil {
			return err
		}
		right, err = insert(ctx, tx, b.Meta.Epoch, c)
		return err
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return ledger.Claim{}, err
	}
	return right, nil
}

// Check is the last look before the first byte, on the session that claimed. Elapsed is by
// CLOCK_BOOTTIME since before the claim was asked for; the caller looks at that clock once
// more, with ledger.InTime. After an error nothing may be sent.
func (s *Session) Check(ctx context.Context, self ledger.Self, right ledger.Claim, elapsed func() time.Duration) error {
	in := ledger.Intent{Key: right.Key, Generation: right.Makes.Generation, Nonce: right.Nonce}
	// The lock waits for an answer or another claim that is being committed.
	return s.about(ctx, in, self.Seen, func(_ pgx.Tx, _ Row, b ledger.Book) error {
		if err := b.Check(self, right, elapsed()); err != nil {
			return err
		}
		return ErrNothing
	})
}

// Rehearse writes a claim and takes it back, so that a database that can't say who it is, or
// a role that lacks a right, is found out before anything is sent.
func (s *Session) Rehearse(ctx context.Context, self ledger.Self) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		b, err := readBook(ctx, tx, ledger.Grant{}, page{})
		if err != nil {
			return err
		}
		const key = "a rehearsal"
		c, err := insert(ctx, tx, b.Meta.Epoch, ledger.Claim{
			Key: key, Makes: ledger.Made{Attempt: 1}, Nonce: fmt.Sprintf("%s of %016x", key, rand.Uint64()),
			Host: self.ID, Incarnation: self.Incarnation, Purpose: grant.Refreshing, Epoch: b.Meta.Epoch,
		})
		if err != nil {
			return err
		}
		c.Outcome = ledger.Unsent
		if err := end(ctx, tx, c); err != nil {
			return err
		}
		return ErrNothing
	})
}

// Told says what became of an attempt, and what that makes of the grant. It reports whether
// the database has the claim: otherwise the intent is kept, until it is settled.
func (s *Session) Told(ctx context.Context, in ledger.Intent, o ledger.Outcome) (known bool, err error) {
	err = s.about(ctx, in, ledger.Seen{}, func(tx pgx.Tx, _ Row, b ledger.Book) error {
		var c ledger.Claim
		if c, known = b.ByNonce(in.Nonce); !known {
			return ErrNothing
		}
		c, write := c.Told(o)
		if !write {
			return ErrNothing
		}
		if err := end(ctx, tx, c); err != nil {
			return err
		}
		_, err := judge(ctx, tx, with(b, c))
		return err
	})
	return known && err == nil, err
}

// Settle says of an intent of this host, whose process is gone and which has no answer, what
// ledger.Book.Settle says. A *ledger.FrozenError means that the host has to answer a roll
// call first.
func (s *Session) Settle(ctx context.Context, self ledger.Self, in ledger.Intent) (said ledger.Claim, err error) {
	err = s.about(ctx, in, self.Seen, func(tx pgx.Tx, _ Row, b ledger.Book) error {
		c, write, err := b.Settle(self, in)
		if err != nil {
			return err
		}
		said = c
		if !write {
			return ErrNothing
		}
		if said, err = put(ctx, tx, b, c); err != nil {
			return err
		}
		_, err = judge(ctx, tx, with(b, said))
		return err
	})
	return said, err
}

// Disown says of this host's claims under a key, of which its disk has what is held, what
// ledger.Book.Disown says.
func (s *Session) Disown(ctx context.Context, self ledger.Self, key string, held ledger.Held, t ledger.Terms) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		r, err := lockKey(ctx, tx, key)
		if err != nil {
			return err
		}
		p := pageOf(r.Grant)
		p.seen = self.Seen
		b, err := readBook(ctx, tx, r.Grant, p)
		if err != nil {
			return err
		}
		ended, err := b.Disown(self, held, t)
		if err != nil {
			return err
		}
		if len(ended) == 0 {
			return ErrNothing
		}
		for _, c := range ended {
			if err := end(ctx, tx, c); err != nil {
				return err
			}
			b = with(b, c)
		}
		_, err = judge(ctx, tx, b)
		return err
	})
}

// Reinsert is what the roll call has a host do with each intent that the database may have lost;
// see ledger.Book.Reinsert. Nothing ends by it, so the grant stays as it is. It returns the claim that
// is there then, one without a nonce for none.
func (s *Session) Reinsert(ctx context.Context, self ledger.Self, in ledger.Intent, answered bool) (there ledger.Claim, err error) {
	err = s.about(ctx, in, self.Seen, func(tx pgx.Tx, _ Row, b ledger.Book) error {
		c, write, err := b.Reinsert(self, in, answered)
		if err != nil {
			return err
		}
		there = c
		if !write {
			return ErrNothing
		}
		there, err = insert(ctx, tx, b.Meta.Epoch, c)
		return err
	})
	return there, err
}

// Standing is a grant's token with the claims at its generation.
type Standing struct {
	State  ledger.State
	Token  ledger.Made
	Claims []ledger.Claim
}

// Standing returns what stands of all grants, or of the one of a Token Vault Key, by their keys.
func (s *Session) Standing(ctx context.Context, key string) (map[string]Standing, error) {
	all := map[string]Standing{}
	statement, args := `SELECT g.token_vault_key, g.state, g.generation, g.attempt, row_to_json(c)::text FROM upsauth.grants g
		LEFT JOIN upsauth.claims c ON c.token_vault_key = g.token_vault_key AND c.generation = g.generation`, []any(nil)
	if key != "" {
		statement, args = statement+" WHERE g.token_vault_key = $1", []any{key}
	}
	err := s.read(ctx, statement, args, func(found pgx.Rows) error {
		var of string
		var state ledger.State
		var token ledger.Made
		var claim *string
		if err := found.Scan(&of, (*string)(&state), &token.Generation, &token.Attempt, &claim); err != nil {
			return err
		}
		standing := all[of]
		standing.State, standing.Token = state, token
		if claim != nil {
			var row claimRow
			if err := json.Unmarshal([]byte(*claim), &row); err != nil {
				return strangeRows()
			}
			standing.Claims = append(standing.Claims, row.ledger())
		}
		all[of] = standing
		return nil
	})
	return all, err
}

// Gone are the Token Vault Keys of the grants that were revoked, replaced or moved away, as far as
// a host can still have a token of theirs.
func (s *Session) Gone(ctx context.Context) (map[string]bool, error) {
	gone := map[string]bool{}
	err := s.read(ctx, "SELECT token_vault_key FROM upsauth.gone", nil, func(found pgx.Rows) error {
		var key string
		err := found.Scan(&key)
		gone[key] = true
		return err
	})
	return gone, err
}

// DropClaims removes claims that say nothing any more, a thousand at most, and returns how
// many they were. Which ones is the database's to say: see drop_claims. Claims of others wait
// meanwhile.
func (s *Session) DropClaims(ctx context.Context, self ledger.Self) (dropped int64, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		b, err := readBook(ctx, tx, ledger.Grant{}, page{seen: self.Seen})
		if err != nil {
			return err
		}
		if err := b.Current(self); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT upsauth.drop_claims()").Scan(&dropped)
	})
	if err != nil {
		dropped = 0
	}
	return dropped, err
}

// put writes the outcome of a claim that is there, or the whole claim, and returns the row.
func put(ctx context.Context, tx pgx.Tx, b ledger.Book, c ledger.Claim) (ledger.Claim, error) {
	if _, there := b.ByNonce(c.Nonce); there {
		return c, end(ctx, tx, c)
	}
	return insert(ctx, tx, b.Meta.Epoch, c)
}

// Delivered is what became of an answer.
type Delivered struct {
	// Claim has the token's place, which may be another than it was.
	Claim ledger.Claim
	Grant ledger.Grant
	// Stands says that the token is the grant's. Otherwise it is a spare or of no use.
	Stands bool
	// Gone says that the database has no such grant, so nothing was written. The host keeps the
	// answer, as the grant may come back, and at a roll call inserts its intent again.
	Gone bool
}

// Deliver puts a sealed answer to a refresh in place: token, item and outcome at once. Any
// host may do that, also one that was removed. Item makes what is stored for the token's place,
// which the database may have changed, as the MAC covers it. It is called with rows locked,
// and reads and writes nothing. It is made for a slot: the error is a *ledger.ConflictError where
// the grant has another by now.
func (s *Session) Deliver(ctx context.Context, in ledger.Intent, slot string, makes ledger.Made, item func(ledger.Made) (Item, error)) (d Delivered, err error) {
	err = s.about(ctx, in, ledger.Seen{}, func(tx pgx.Tx, r Row, b ledger.Book) error {
		if b.Grant.Key == "" {
			d = Delivered{Gone: true}
			return ErrNothing
		}
		if r.Slot != slot {
			return &ledger.ConflictError{Grant: r.Grant}
		}
		got := b.Deliver(in, makes)
		c, err := put(ctx, tx, b, got.Claim)
		if err != nil {
			return err
		}
		b = with(b, c)
		if got.Stands {
			stored, err := item(got.Grant.Token)
			if err != nil {
				return err
			}
			if b.Grant, err = putToken(ctx, tx, got.Grant, stored); err != nil {
				return err
			}
		}
		g, err := judge(ctx, tx, b)
		d = Delivered{Claim: c, Grant: g, Stands: got.Stands}
		return err
	})
	return d, err
}

// PutBack puts a token in place that this host has read here before the database went back.
// Item makes what is stored of the row as it is: the grant may have another name by now. Where it
// returns ErrNothing, nothing is put back.
func (s *Session) PutBack(ctx context.Context, key string, made ledger.Made, item func(Row) (Item, error)) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		r, err := scanRow(tx.QueryRow(ctx, "SELECT "+rowColumns+" FROM upsauth.grants WHERE token_vault_key = $1 FOR NO KEY UPDATE", key))
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNothing
		}
		if err != nil {
			return err
		}
		g, stands := r.Grant.Commit(key, made)
		if !stands {
			return ErrNothing
		}
		stored, err := item(r)
		if err != nil {
			return err
		}
		_, err = putToken(ctx, tx, g, stored)
		return err
	})
}

// BringBack writes the row of a grant that this host has seen here before the database went back,
// where there is none, nor another in its slot, and nobody has said that the grant is gone.
func (s *Session) BringBack(ctx context.Context, row Row) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		// Whoever says that it is gone has said so, or waits.
		if _, err := tx.Exec(ctx, "SELECT FROM upsauth.meta FOR NO KEY UPDATE"); err != nil {
			return err
		}
		var known bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM upsauth.grants WHERE slot = $1 OR token_vault_key = $2)
			OR EXISTS (SELECT FROM upsauth.gone WHERE token_vault_key = $2)`, row.Slot, row.Grant.Key).Scan(&known)
		if err != nil {
			return err
		}
		if known {
			return ErrNothing
		}
		_, err = putGrantOf(ctx, tx, row.Slot, ledger.Grant{}, row.Grant.BroughtBack(), row.Item, row.Earlier)
		if errors.As(err, new(*ledger.ConflictError)) {
			return ErrNothing // somebody has just been faster
		}
		if err != nil {
			return err
		}
		return tellGranted(ctx, tx, row.Grant.Key)
	})
}

// SayGone says that a grant is gone which the database has lost.
func (s *Session) SayGone(ctx context.Context, key string) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		var said bool
		err := tx.QueryRow(ctx, "SELECT upsauth.say_gone($1)", key).Scan(&said)
		if err == nil && !said {
			err = ErrNothing
		}
		return err
	})
}

// putToken writes the token of a grant that is there already.
func putToken(ctx context.Context, tx pgx.Tx, g ledger.Grant, item Item) (ledger.Grant, error) {
	g.Version = newVersion()
	_, err := tx.Exec(ctx, `UPDATE upsauth.grants SET generation = $2, attempt = $3, state = $4, version = $5, item = $6, mac = $7,
		facts = coalesce($8::jsonb, facts), local = coalesce($9::jsonb, local), changed = clock_timestamp() WHERE token_vault_key = $1`,
		g.Key, g.Token.Generation, int64(g.Token.Attempt), string(g.State), g.Version, item.Sealed, item.MAC, text(item.Facts), text(item.Local))
	return g, err
}

// text is JSON as a statement takes it; nil is NULL.
func text(j json.RawMessage) *string {
	if j == nil {
		return nil
	}
	t := string(j)
	return &t
}
