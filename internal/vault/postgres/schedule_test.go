package postgres

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/ledger/ledgertest"
)

var (
	firstSchedule = flag.Uint64("postgres.schedule", 0, "the number of the first schedule that is played")
	schedules     = flag.Uint64("postgres.schedules", 8, "how many schedules are played")
)

// TestSchedulesOfTheModel plays schedules of the ledger's model with a real database beside
// it: after each transaction both must have said the same, and have the same rows.
func TestSchedulesOfTheModel(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	compared := map[string]int{}
	steps := 0
	for seed := *firstSchedule; seed < *firstSchedule+*schedules; seed++ {
		m := &modelled{server: s, ctx: t.Context(), seed: seed, ids: map[ledger.Identity]ledger.Identity{}}
		result := ledgertest.PlayReal(seed, m.first)
		m.close(t)
		if result.Bad != "" {
			t.Fatalf("schedule %d: %s\n%s", seed, result.Bad, strings.Join(result.Trace, "\n"))
		}
		steps += result.Steps
		for what, n := range result.Compared {
			compared[what] += n
		}
	}
	t.Logf("%d schedules, %d steps, %v", *schedules, steps, compared)
	for _, what := range []string{"introduce", "answer", "claim", "check", "told", "settle", "disown", "deliver", "flip", "reinsert", "put back", "read"} {
		if compared[what] == 0 && *schedules >= 30 {
			t.Errorf("no schedule has the transaction %s", what)
		}
	}
}

// modelled is the databases of one schedule, on one server.
type modelled struct {
	server *postgrestest.Server
	ctx    context.Context
	seed   uint64
	all    []*real
	// ids are what the model calls them.
	ids map[ledger.Identity]ledger.Identity
}

// real is a database as the model's hosts use it.
type real struct {
	*modelled
	name  string
	db    *DB
	super *pgx.Conn
	// now is the model's time, and at the database's at that moment.
	now, at time.Time
}

func (m *modelled) first(id ledger.Identity, t ledgertest.Tables) (ledgertest.Database, error) {
	return m.make(id, t)
}

func (m *modelled) make(id ledger.Identity, t ledgertest.Tables) (*real, error) {
	r := &real{modelled: m, name: fmt.Sprintf("schedule%d_%d", m.seed, len(m.all))}
	if _, err := m.server.SQL("postgres", "CREATE DATABASE "+r.name); err != nil {
		return nil, err
	}
	if _, err := m.server.SQL(r.name, Schema(Role)); err != nil {
		return nil, err
	}
	r.db = Open(Settings{URL: m.server.SocketURL(Role, r.name)})
	m.all = append(m.all, r)
	var err error
	if r.super, err = pgx.Connect(m.ctx, m.server.SocketURL(postgrestest.Superuser, r.name)); err != nil {
		return nil, err
	}
	return r, r.put(id, t)
}

func (m *modelled) close(t *testing.T) {
	for _, r := range m.all {
		r.db.Close()
		if r.super != nil {
			must(t, r.super.Close(m.ctx))
		}
		sql(t, m.server, "DROP DATABASE "+r.name+" WITH (FORCE)")
	}
}

// put has the tables in the database, whose identity is what the model calls id.
func (r *real) put(id ledger.Identity, t ledgertest.Tables) error {
	var found identityRow
	err := r.super.QueryRow(r.ctx, IdentityQuery).Scan(&found.system, &found.timeline, &found.database, &found.claims)
	if err != nil {
		return err
	}
	r.ids[found.ledger()] = id
	if _, err := r.super.Exec(r.ctx, "TRUNCATE upsauth.claims, upsauth.grants, upsauth.hosts"); err != nil {
		return err
	}
	for theirs, ours := range r.ids {
		if ours == t.Meta.Identity {
			timeline, err := strconv.ParseInt(theirs.Timeline, 10, 64)
			if err != nil {
				return err
			}
			found = identityRow{theirs.System, timeline, int64(theirs.Database), int64(theirs.Claims)}
		}
	}
	if _, err := r.super.Exec(r.ctx, `UPDATE upsauth.meta SET epoch = $1, system_identifier = $2, timeline = $3, database_oid = $4, claims_oid = $5, highest = $6`,
		t.Meta.Epoch, found.system, found.timeline, found.database, found.claims, t.Meta.Highest); err != nil {
		return err
	}
	g := t.Grant
	if _, err := r.super.Exec(r.ctx, `INSERT INTO upsauth.grants (slot, token_vault_key, generation, attempt, state, version, facts, item, mac)
		VALUES ($1, $2, $3, $4, $5, $6, '{}', $7, $8)`, slotA, realKey(g.Key), g.Token.Generation, g.Token.Attempt, string(g.State), g.Version,
		[]byte(strconv.Itoa(t.Token)), tokenItem(0).MAC); err != nil {
		return err
	}
	for _, h := range t.Hosts {
		if _, err := r.super.Exec(r.ctx, `INSERT INTO upsauth.hosts (id, name, machine, incarnation, boot, epoch, waived, accepted, removed)
			VALUES ($1, $2, $3, $4, $5, $6, $7, now(), CASE WHEN $8::boolean THEN now() END)`,
			h.ID, h.Name, h.Machine, h.Incarnation, h.Boot, h.Epoch, h.Waived, h.Removed); err != nil {
			return err
		}
	}
	for _, c := range t.Claims {
		var outcome *string
		if o := string(c.Outcome); o != "" {
			outcome = &o
		}
		if _, err := r.super.Exec(r.ctx, `INSERT INTO upsauth.claims (number, token_vault_key, generation, attempt, sends_generation, sends_attempt,
			nonce, purpose, host, incarnation, epoch, outcome, ended)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, CASE WHEN $12::text IS NOT NULL THEN now() END)`,
			c.Number, realKey(c.Key), c.Makes.Generation, c.Makes.Attempt, c.Sends.Generation, c.Sends.Attempt,
			realNonce(c.Nonce), string(c.Purpose), c.Host, c.Incarnation, c.Epoch, outcome); err != nil {
			return err
		}
	}
	return nil
}

// The model's keys and nonces are shorter than a database takes.

func realKey(key string) string {
	n, _ := strconv.Atoi(strings.TrimPrefix(key, "K"))
	return fmt.Sprintf("00000000-0000-0000-0000-%012X", n)
}

func modelKey(key string) string {
	n, _ := strconv.ParseInt(key[len(key)-12:], 16, 64)
	return fmt.Sprintf("K%d", n)
}

func realNonce(nonce string) string {
	if nonce == "" {
		return ""
	}
	return "the nonce number " + nonce
}

func modelNonce(nonce string) string { return strings.TrimPrefix(nonce, "the nonce number ") }

func realIntent(in ledger.Intent) ledger.Intent {
	in.Key, in.Nonce = realKey(in.Key), realNonce(in.Nonce)
	return in
}

func modelClaim(c ledger.Claim) ledger.Claim {
	c.Key, c.Nonce = modelKey(c.Key), modelNonce(c.Nonce)
	return c
}

func realSelf(self ledger.Self) ledger.Self {
	self.Seen.Nonce = realNonce(self.Seen.Nonce)
	return self
}

func tokenItem(token int) Item {
	return Item{Facts: []byte("{}"), Sealed: []byte(strconv.Itoa(token)), MAC: make([]byte, 32)}
}

func (r *real) At(now time.Time, t ledgertest.Tables) error {
	if err := r.super.QueryRow(r.ctx, "SELECT clock_timestamp()").Scan(&r.at); err != nil {
		return err
	}
	r.now = now
	nonces, times := []string{}, []time.Time{}
	for _, c := range t.Claims {
		nonces, times = append(nonces, realNonce(c.Nonce)), append(times, r.at.Add(c.At.Sub(now)))
	}
	_, err := r.super.Exec(r.ctx, `UPDATE upsauth.claims SET time = t.time FROM unnest($1::text[], $2::timestamptz[]) AS t (nonce, time)
		WHERE claims.nonce = t.nonce`, nonces, times)
	return err
}

func (r *real) Tables() (t ledgertest.Tables, err error) {
	var then identityRow
	var hosts, claims string
	var sealed []byte
	g := &t.Grant
	if err := r.super.QueryRow(r.ctx, `SELECT m.epoch, coalesce(m.system_identifier, ''), m.timeline, m.database_oid, m.claims_oid, m.highest,
		token_vault_key, generation, attempt, state, item,
		(SELECT coalesce(json_agg(h), '[]')::text FROM upsauth.hosts h), (SELECT coalesce(json_agg(c ORDER BY number), '[]')::text FROM upsauth.claims c)
		FROM upsauth.meta m, upsauth.grants`).
		Scan(&t.Meta.Epoch, &then.system, &then.timeline, &then.database, &then.claims, &t.Meta.Highest,
			&g.Key, &g.Token.Generation, &g.Token.Attempt, (*string)(&g.State), &sealed, &hosts, &claims); err != nil {
		return t, err
	}
	t.Meta.Identity = r.ids[then.ledger()]
	g.Key = modelKey(g.Key)
	if t.Token, err = strconv.Atoi(string(sealed)); err != nil {
		return t, err
	}
	var hostRows []hostRow
	var claimRows []claimRow
	if err := json.Unmarshal([]byte(hosts), &hostRows); err != nil {
		return t, err
	}
	if err := json.Unmarshal([]byte(claims), &claimRows); err != nil {
		return t, err
	}
	for _, h := range hostRows {
		t.Hosts = append(t.Hosts, h.ledger())
	}
	for _, row := range claimRows {
		c := modelClaim(row.ledger())
		c.At = r.now.Add(c.At.Sub(r.at))
		t.Claims = append(t.Claims, c)
	}
	return t, nil
}

func (r *real) session(do func(*Session) error) error {
	err := r.db.Session(r.ctx, do)
	// The model says which claim it is by its own nonce.
	if claimed, ok := err.(*ledger.ClaimedError); ok {
		claimed.Claim = modelClaim(claimed.Claim)
	}
	return err
}

func (r *real) Introduce(self ledger.Self, machine string, boots []string) (now ledger.Self, err error) {
	err = r.session(func(s *Session) error {
		_, now, err = s.Introduce(r.ctx, realSelf(self), machine, boots)
		return err
	})
	now.Seen = self.Seen
	return now, err
}

func (r *real) OpenEpoch(self ledger.Self, older bool) error {
	return r.session(func(s *Session) error { _, _, err := s.OpenEpoch(r.ctx, realSelf(self), older); return err })
}

func (r *real) Answer(self ledger.Self, epoch int64) error {
	return r.session(func(s *Session) error {
		_, err := s.Answer(r.ctx, realSelf(self), epoch, func(ledger.Self) error { return nil })
		return err
	})
}

func (r *real) Reinsert(self ledger.Self, in ledger.Intent, answered bool) error {
	return r.session(func(s *Session) error {
		_, err := s.Reinsert(r.ctx, realSelf(self), realIntent(in), answered)
		return err
	})
}

func (r *real) Settle(self ledger.Self, in ledger.Intent) error {
	return r.session(func(s *Session) error { _, err := s.Settle(r.ctx, realSelf(self), realIntent(in)); return err })
}

func (r *real) Disown(self ledger.Self, held ledger.Held, t ledger.Terms) error {
	return r.session(func(s *Session) error {
		row, err := s.Grant(r.ctx, slotA)
		if err != nil {
			return err
		}
		return s.Disown(r.ctx, realSelf(self), row.Grant.Key, ledger.Held{Attempts: realNonces(held.Attempts), Answers: realNonces(held.Answers)}, t)
	})
}

func realNonces(nonces []string) (real []string) {
	for _, nonce := range nonces {
		real = append(real, realNonce(nonce))
	}
	return real
}

func (r *real) Told(in ledger.Intent, o ledger.Outcome) error {
	return r.session(func(s *Session) error { _, err := s.Told(r.ctx, realIntent(in), o); return err })
}

func (r *real) Judge() error {
	return r.session(func(s *Session) error {
		row, err := s.Grant(r.ctx, slotA)
		if err == nil {
			_, err = s.Judge(r.ctx, row.Grant.Key)
		}
		return err
	})
}

func (r *real) PutBack(key string, made ledger.Made, token int) error {
	return r.session(func(s *Session) error {
		return s.PutBack(r.ctx, realKey(key), made, func(Row) (Item, error) { return tokenItem(token), nil })
	})
}

func (r *real) Deliver(in ledger.Intent, makes ledger.Made, token int) (made ledger.Made, stands bool, err error) {
	err = r.session(func(s *Session) error {
		d, err := s.Deliver(r.ctx, realIntent(in), slotA, makes, func(ledger.Made) (Item, error) { return tokenItem(token), nil })
		made, stands = d.Claim.Makes, d.Stands
		return err
	})
	return made, stands, err
}

func (r *real) Flip(replaces string, in ledger.Intent, makes ledger.Made, token int, t ledger.Terms) error {
	return r.session(func(s *Session) error {
		_, err := s.Flip(r.ctx, slotA, realKey(replaces), realIntent(in), makes, tokenItem(token), t)
		return err
	})
}

func (r *real) Read() (g ledger.Grant, token int, err error) {
	err = r.session(func(s *Session) error {
		row, err := s.Grant(r.ctx, slotA)
		if err != nil {
			return err
		}
		g = row.Grant
		g.Key = modelKey(g.Key)
		token, err = strconv.Atoi(string(row.Item.Sealed))
		return err
	})
	return g, token, err
}

func (r *real) Claim(self ledger.Self, in ledger.Intent, seen ledger.Sighting, unsettled []string, t ledger.Terms) (right ledger.Claim, err error) {
	var nonces []string
	for _, nonce := range unsettled {
		nonces = append(nonces, realNonce(nonce))
	}
	err = r.session(func(s *Session) error {
		right, err = s.Claim(r.ctx, realSelf(self), Asked{Intent: realIntent(in), Seen: seen, Unsettled: nonces, Terms: t})
		return err
	})
	if err == nil {
		right = modelClaim(right)
	}
	return right, err
}

func (r *real) Check(self ledger.Self, right ledger.Claim, elapsed time.Duration) error {
	right.Key, right.Nonce = realKey(right.Key), realNonce(right.Nonce)
	return r.session(func(s *Session) error {
		return s.Check(r.ctx, realSelf(self), right, func() time.Duration { return elapsed })
	})
}

// row is the slot's, as somebody has read it who then changes it.
func (r *real) row(change func(*Session, int64) error) error {
	return r.session(func(s *Session) error {
		var version int64
		if err := r.super.QueryRow(r.ctx, "SELECT version FROM upsauth.grants").Scan(&version); err != nil {
			return err
		}
		return change(s, version)
	})
}

func (r *real) Revoke() error {
	return r.row(func(s *Session, version int64) error { _, err := s.Revoke(r.ctx, slotA, version); return err })
}

func (r *real) Rename(t ledger.Terms) error {
	return r.row(func(s *Session, version int64) error {
		_, err := s.Rename(r.ctx, slotA, version, slotA, Item{MAC: make([]byte, 32)}, t)
		return err
	})
}

func (r *real) Remove(host string) error {
	return r.session(func(s *Session) error { return s.RemoveHost(r.ctx, host) })
}

func (r *real) AcceptFailover(self ledger.Self, epoch int64) error {
	return r.session(func(s *Session) error { _, err := s.AcceptFailover(r.ctx, realSelf(self), epoch); return err })
}

// Failover makes another database where the model has another primary, because the old one
// may run on. A dump makes the tables anew, and a machine that is put back changes rows alone.
func (r *real) Failover(what string, id ledger.Identity, t ledgertest.Tables) (ledgertest.Database, error) {
	switch what {
	case "failover", "failover back":
		return r.make(id, t)
	case "dump":
		for _, statements := range []string{"DROP SCHEMA upsauth CASCADE", Schema(Role)} {
			if _, err := r.super.PgConn().Exec(r.ctx, statements).ReadAll(); err != nil {
				return nil, err
			}
		}
	}
	return r, r.put(id, t)
}
