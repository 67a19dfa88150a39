package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

const (
	slotA = "00000000000000000000000000000000-0000000000000000"
	slotB = "00000000000000000000000000000001-0000000000000000"
	keyA  = "11111111-2222-3333-4444-555555555555"
	keyB  = "AAAAAAAA-2222-3333-4444-555555555555"
)

var (
	respect = ledger.Terms{TakeOverAfter: 10 * time.Minute}
	first   = ledger.Made{Generation: 1, Attempt: 1}
)

// member is a host with what it has on its disk.
type member struct {
	db     *DB
	self   ledger.Self
	seen   ledger.Sighting
	nonces int
}

// join makes a host known to a database.
func join(t *testing.T, db *DB, name string) *member {
	t.Helper()
	m := &member{db: db, self: ledger.Self{ID: "id of " + name, Name: name, Machine: "machine of " + name, Incarnation: 1, Boot: "boot 1"}}
	m.attend(t)
	return m
}

func (m *member) session(t *testing.T, do func(*Session) error) error {
	t.Helper()
	return m.db.Session(t.Context(), do)
}

// attend does what comes before anything else.
func (m *member) attend(tb testing.TB) {
	tb.Helper()
	must(tb, m.db.Session(tb.Context(), func(s *Session) error {
		_, self, err := s.Introduce(tb.Context(), m.self, m.self.Machine, []string{m.self.Boot})
		if err != nil {
			return err
		}
		meta, _, err := s.OpenEpoch(tb.Context(), self, false)
		if err != nil {
			return err
		}
		m.self, err = s.Answer(tb.Context(), self, meta.Epoch, func(ledger.Self) error { return nil })
		return err
	}))
}

func (m *member) intent(key string, sends ledger.Made) ledger.Intent {
	m.nonces++
	return ledger.Intent{
		Key: key, Generation: sends.Generation + 1, Sends: sends, Nonce: fmt.Sprintf("%s, nonce %010d", m.self.Name, m.nonces),
		Host: m.self.ID, Incarnation: m.self.Incarnation, Purpose: grant.Refreshing, Epoch: m.self.Epoch,
	}
}

func (m *member) claim(t *testing.T, in ledger.Intent, terms ledger.Terms) (right ledger.Claim, err error) {
	t.Helper()
	err = m.session(t, func(s *Session) (err error) {
		right, err = s.Claim(t.Context(), m.self, Asked{Intent: in, Seen: m.seen, Terms: terms})
		return err
	})
	return right, err
}

func (m *member) check(t *testing.T, right ledger.Claim) error {
	t.Helper()
	return m.session(t, func(s *Session) error {
		return s.Check(t.Context(), m.self, right, func() time.Duration { return 0 })
	})
}

func (m *member) told(t *testing.T, in ledger.Intent, o ledger.Outcome) {
	t.Helper()
	must(t, m.session(t, func(s *Session) error {
		known, err := s.Told(t.Context(), in, o)
		if !known {
			t.Errorf("%s is not known", in.Nonce)
		}
		return err
	}))
}

func (m *member) read(t *testing.T, slot string) (r Row) {
	t.Helper()
	must(t, m.session(t, func(s *Session) (err error) {
		r, err = s.Grant(t.Context(), slot)
		return err
	}))
	return r
}

func item(text string) Item {
	return Item{Facts: []byte(`{"is": "` + text + `"}`), Sealed: []byte(text), MAC: []byte(strings.Repeat("m", 32))}
}

// always is an item wherever its token has its place.
func always(text string) func(ledger.Made) (Item, error) {
	return func(ledger.Made) (Item, error) { return item(text), nil }
}

// imported has a grant in the vault.
func imported(t *testing.T, m *member, slot, key string) ledger.Grant {
	t.Helper()
	var g ledger.Grant
	must(t, m.session(t, func(s *Session) (err error) {
		g, err = s.Import(t.Context(), m.self, slot, 0, key, first, item("the first"))
		return err
	}))
	return g
}

// older makes all times in the ledger earlier, as if time had passed.
func older(t *testing.T, s *postgrestest.Server, by string) {
	t.Helper()
	sql(t, s, fmt.Sprintf("UPDATE upsauth.claims SET time = time - interval '%[1]s'; UPDATE upsauth.hosts SET seen = seen - interval '%[1]s'", by))
}

// two hosts share a grant.
func two(t *testing.T, s *postgrestest.Server) (a, b *member) {
	t.Helper()
	a, b = join(t, open(t, s, Role, "postgres"), "web-1"), join(t, open(t, s, Role, "postgres"), "web-2")
	imported(t, a, slotA, keyA)
	return a, b
}

func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// A refresh from the claim to the answer, and what the other host sees of it.
func TestRefreshByClaims(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	in := a.intent(keyA, first)
	var right ledger.Claim
	must(t, a.session(t, func(session *Session) (err error) {
		if right, err = session.Claim(t.Context(), a.self, Asked{Intent: in, Terms: respect}); err != nil {
			return err
		}
		return session.Check(t.Context(), a.self, right, func() time.Duration { return 0 })
	}))
	if right.Number != 1 || right.Makes != (ledger.Made{Generation: 2, Attempt: 1}) || time.Since(right.At) > time.Hour {
		t.Errorf("the claim is %+v", right)
	}
	if _, err := b.claim(t, b.intent(keyA, first), respect); !is[*ledger.ClaimedError](err) || !strings.Contains(err.Error(), "web-1 asked UPS at ") {
		t.Errorf("the other host: %v", err)
	}
	before := a.read(t, slotA)
	must(t, a.session(t, func(s *Session) error {
		d, err := s.Deliver(t.Context(), in, slotA, right.Makes, always("the second"))
		if !d.Stands || d.Grant.Token != right.Makes {
			t.Errorf("delivered: %+v", d)
		}
		return err
	}))
	row := b.read(t, slotA)
	if row.Grant.Token != right.Makes || row.Grant.State != ledger.Live || row.Grant.Version == before.Grant.Version || string(row.Item.Sealed) != "the second" {
		t.Errorf("the other host sees %+v", row)
	}
	// Again, as after an unknown commit.
	must(t, a.session(t, func(s *Session) error {
		d, err := s.Deliver(t.Context(), in, slotA, right.Makes, always("the second"))
		if d.Stands || d.Grant.Token != right.Makes {
			t.Errorf("delivered again: %+v", d)
		}
		return err
	}))
	if _, err := b.claim(t, b.intent(keyA, first), respect); !is[*ledger.ConflictError](err) {
		t.Errorf("with the old token: %v", err)
	}
	if right, err := b.claim(t, b.intent(keyA, row.Grant.Token), respect); err != nil || right.Number != 2 {
		t.Errorf("the next: %+v, %v", right, err)
	}
}

// Times are the database's, and what ended without a byte is free at once.
func TestClaimsOfOthersAreRespected(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	in := a.intent(keyA, first)
	right, err := a.claim(t, in, respect)
	must(t, err)
	older(t, s, "4 s")
	must(t, a.check(t, right))
	older(t, s, "1 s")
	if err := a.check(t, right); !is[*ledger.LateError](err) {
		t.Errorf("after 5 s: %v", err)
	}
	person := respect
	person.TakeOver = true
	if _, err := b.claim(t, b.intent(keyA, first), person); !is[*ledger.ClaimedError](err) {
		t.Errorf("a person after 5 s: %v", err)
	}
	older(t, s, "55 s")
	if _, err := b.claim(t, b.intent(keyA, first), respect); !is[*ledger.ClaimedError](err) {
		t.Errorf("after a minute: %v", err)
	}
	theirs := b.intent(keyA, first)
	taken, err := b.claim(t, theirs, person)
	if err != nil || taken.Makes.Attempt != 2 {
		t.Fatalf("a person after a minute: %+v, %v", taken, err)
	}
	if err := a.check(t, right); !is[*ledger.ClaimedError](err) {
		t.Errorf("whose claim was taken over: %v", err)
	}
	b.told(t, theirs, ledger.Unsent)
	b.told(t, theirs, ledger.Refused) // too late
	older(t, s, "10 min")
	again, err := b.claim(t, b.intent(keyA, first), respect)
	if err != nil || again.Makes.Attempt != 3 {
		t.Errorf("after ten minutes: %+v, %v", again, err)
	}
	// The late answer is put in place, and the later attempt's stands.
	must(t, a.session(t, func(s *Session) error {
		_, err := s.Deliver(t.Context(), in, slotA, right.Makes, always("late"))
		return err
	}))
	if err := b.check(t, again); !is[*ledger.ConflictError](err) {
		t.Errorf("the token is not the one that stands: %v", err)
	}
	rows := sql(t, s, "SELECT attempt, coalesce(outcome, 'open') FROM upsauth.claims ORDER BY number")
	if got := fmt.Sprint(rows); got != "[[1 granted] [2 unsent] [3 open]]" {
		t.Error(got)
	}
}

// A refusal counts once nobody can have an answer any more.
func TestRefusalIsJudged(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	early, late := a.intent(keyA, first), b.intent(keyA, first)
	_, err := a.claim(t, early, respect)
	must(t, err)
	older(t, s, "10 min")
	_, err = b.claim(t, late, respect)
	must(t, err)
	b.told(t, late, ledger.Refused)
	if row := b.read(t, slotA); row.Grant.State != ledger.Interrupted {
		t.Errorf("while the other may have an answer it is %s", row.Grant.State)
	}
	must(t, a.session(t, func(s *Session) error {
		c, err := s.Settle(t.Context(), a.self, early)
		if c.Outcome != ledger.NoAnswer {
			t.Errorf("settled as %+v", c)
		}
		return err
	}))
	if row := b.read(t, slotA); row.Grant.State != ledger.Void {
		t.Errorf("once nobody has an answer it is %s", row.Grant.State)
	}
	// An answer that is found after all brings it back.
	must(t, a.session(t, func(s *Session) error {
		_, err := s.Deliver(t.Context(), early, slotA, ledger.Made{Generation: 2, Attempt: 1}, always("found"))
		return err
	}))
	if row := b.read(t, slotA); row.Grant.State != ledger.Live || string(row.Item.Sealed) != "found" {
		t.Errorf("then it is %+v", row)
	}
}

// An intent whose claim never arrived takes its nonce for good.
func TestIntentWithoutAClaimIsSettledAsUnsent(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	in := a.intent(keyA, first)
	for range 2 {
		must(t, a.session(t, func(s *Session) error {
			c, err := s.Settle(t.Context(), a.self, in)
			if c.Outcome != ledger.Unsent {
				t.Errorf("settled as %+v", c)
			}
			return err
		}))
	}
	if _, err := a.claim(t, in, respect); !is[*ledger.SettledError](err) {
		t.Errorf("the claim that comes late: %v", err)
	}
	if _, err := b.claim(t, b.intent(keyA, first), respect); err != nil {
		t.Error(err)
	}
}

// Whatever many do at once, one has the right to send.
func TestOneClaimOfMany(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	var mu sync.Mutex
	var all sync.WaitGroup
	won := 0
	for _, m := range []*member{a, b} {
		for range 100 {
			in := m.intent(keyA, first)
			all.Go(func() {
				_, err := m.claim(t, in, respect)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case !is[*ledger.ClaimedError](err):
					t.Errorf("got %v", err)
				}
			})
		}
	}
	all.Wait()
	rows := sql(t, s, "SELECT count(*), max(number), (SELECT highest FROM upsauth.meta) FROM upsauth.claims")
	if got := fmt.Sprint(won, rows); got != "1 [[1 1 1]]" {
		t.Errorf("won, rows, highest number: %s", got)
	}
}

// Claims of many grants at once have numbers in the order of their commits, without a gap.
func TestClaimsOfManyGrants(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	const n = 40
	for i := range n {
		imported(t, a, fmt.Sprintf("%032x-%016x", i, 1), fmt.Sprintf("%08X-0000-0000-0000-000000000000", i))
	}
	var all sync.WaitGroup
	for i := range n {
		for _, m := range []*member{a, b} {
			in := m.intent(fmt.Sprintf("%08X-0000-0000-0000-000000000000", i), first)
			all.Go(func() {
				if _, err := m.claim(t, in, respect); err != nil && !is[*ledger.ClaimedError](err) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
	all.Wait()
	rows := sql(t, s, "SELECT count(*), max(number), (SELECT highest FROM upsauth.meta) FROM upsauth.claims")
	if got := fmt.Sprint(rows); got != "[[40 40 40]]" {
		t.Error(got)
	}
}

// A sign-in's code is sent once, also where no grant's row guards it.
func TestSignInIsClaimedOnce(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	signIn := func(m *member) ledger.Intent {
		in := m.intent(keyB, ledger.Made{})
		in.Purpose = grant.Authorizing
		return in
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var winners []ledger.Intent
	for _, m := range []*member{a, b} {
		for range 10 {
			in := signIn(m)
			all.Go(func() {
				_, err := m.claim(t, in, respect)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, in)
				} else if !is[*ledger.ConflictError](err) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
	all.Wait()
	if len(winners) != 1 {
		t.Fatalf("%d sent the code", len(winners))
	}
	flip := func(slot, replaces string) (g ledger.Grant, err error) {
		err = a.session(t, func(s *Session) (err error) {
			g, err = s.Flip(t.Context(), slot, replaces, winners[0], first, item("signed in"), respect)
			return err
		})
		return g, err
	}
	if _, err := flip(slotA, "other"); !is[*ledger.ConflictError](err) {
		t.Errorf("in place of another grant: %v", err)
	}
	in := b.intent(keyA, first)
	_, err := b.claim(t, in, respect)
	must(t, err)
	if _, err := flip(slotA, keyA); !is[*ledger.ClaimedError](err) {
		t.Errorf("while somebody refreshes the old grant: %v", err)
	}
	b.told(t, in, ledger.Limited)
	for range 2 {
		if g, err := flip(slotA, keyA); err != nil || g.Key != keyB || g.Token != first {
			t.Errorf("flipped: %+v, %v", g, err)
		}
	}
	if row := a.read(t, slotA); row.Grant.Key != keyB || string(row.Item.Sealed) != "signed in" {
		t.Errorf("the slot has %+v", row)
	}
	if _, err := flip(slotB, ""); !is[*ledger.ConflictError](err) {
		t.Errorf("in two slots: %v", err)
	}
	if rows := sql(t, s, "SELECT outcome FROM upsauth.claims WHERE purpose = 'authorize'"); rows[0][0] != "granted" {
		t.Error(rows)
	}
}

// Renaming, moving, importing and revoking take the same lock, and compare versions.
func TestGrantsRowIsChangedByItsVersion(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	ctx := t.Context()
	g := a.read(t, slotA).Grant
	in := b.intent(keyA, first)
	right, err := b.claim(t, in, respect)
	must(t, err)
	mac := []byte(strings.Repeat("n", 32))
	busy := map[string]func(*Session, int64) error{
		"rename": func(s *Session, v int64) error {
			_, err := s.Rename(ctx, slotA, v, slotB, Item{MAC: mac}, respect)
			return err
		},
		"move": func(s *Session, v int64) error { _, err := s.Move(ctx, a.self, slotA, v, nil); return err },
		"import": func(s *Session, v int64) error {
			_, err := s.Import(ctx, a.self, slotA, v, keyA, ledger.Made{Generation: 9, Attempt: 1}, item("moved here"))
			return err
		},
	}
	for name, act := range busy {
		must(t, a.session(t, func(s *Session) error {
			if err := act(s, g.Version); !is[*ledger.ClaimedError](err) {
				t.Errorf("%s during a claim: %v", name, err)
			}
			if err := act(s, g.Version+1); !is[*ledger.ConflictError](err) {
				t.Errorf("%s of another version: %v", name, err)
			}
			return nil
		}))
	}
	b.told(t, in, ledger.NoByte)
	must(t, a.session(t, func(s *Session) (err error) {
		if g, err = s.Rename(ctx, slotA, g.Version, slotB, Item{MAC: mac}, respect); err != nil {
			return err
		}
		if g, err = s.Import(ctx, a.self, slotB, g.Version, keyA, ledger.Made{Generation: 9, Attempt: 1}, item("moved here")); err != nil {
			return err
		}
		// An answer finds its grant under the new name.
		d, err := s.Deliver(ctx, in, slotB, right.Makes, always("old"))
		if err != nil || d.Gone || d.Stands {
			t.Errorf("an old answer: %+v, %v", d, err)
		}
		err = s.PutBack(ctx, keyA, ledger.Made{Generation: 9, Attempt: 2}, func(there Row) (Item, error) {
			if there.Slot != slotB || string(there.Item.Sealed) != "moved here" {
				t.Errorf("it is put back into the row %+v", there)
			}
			return item("put back"), nil
		})
		if err != nil {
			t.Errorf("put back: %v", err)
		}
		r, err := s.Grant(ctx, slotB)
		if err != nil || string(r.Item.Sealed) != "put back" {
			t.Errorf("the row is %+v, %v", r, err)
		}
		if _, err := s.Revoke(ctx, slotB, g.Version); !is[*ledger.ConflictError](err) {
			t.Errorf("revoked by an old version: %v", err)
		}
		if g, err = s.Revoke(ctx, slotB, r.Grant.Version); err != nil || g.State != ledger.Removing {
			t.Errorf("revoked: %+v, %v", g, err)
		}
		d, err = s.Deliver(ctx, b.intent(keyA, ledger.Made{Generation: 9, Attempt: 2}), slotB, ledger.Made{Generation: 10, Attempt: 1}, always("late"))
		if err != nil || d.Stands {
			t.Errorf("an answer to a revoked grant: %+v, %v", d, err)
		}
		if _, err := s.Move(ctx, a.self, slotB, g.Version, nil); !is[*ledger.ConflictError](err) {
			t.Errorf("moved although revoked: %v", err)
		}
		for name, act := range map[string]func() error{
			"rename": func() error { _, err := s.Rename(ctx, slotA, 0, slotB, Item{MAC: mac}, respect); return err },
			"move":   func() error { _, err := s.Move(ctx, a.self, slotA, 0, nil); return err },
			"revoke": func() error { _, err := s.Revoke(ctx, slotA, 0); return err },
		} {
			if err := act(); !is[*ledger.ConflictError](err) {
				t.Errorf("%s of nothing: %v", name, err)
			}
		}
		d, err = s.Deliver(ctx, b.intent(keyB, first), slotB, ledger.Made{Generation: 2, Attempt: 1}, always("x"))
		if err != nil || !d.Gone {
			t.Errorf("an answer of a grant that is gone: %+v, %v", d, err)
		}
		// A tombstone says that the grant lives elsewhere.
		if g, err = s.Import(ctx, a.self, slotA, 0, keyB, first, item("b")); err != nil {
			return err
		}
		if g, err = s.Move(ctx, a.self, slotA, g.Version, nil); err != nil || g.State != ledger.Moved {
			t.Errorf("moved: %+v, %v", g, err)
		}
		return nil
	}))
	if _, err := a.claim(t, a.intent(keyB, first), respect); !is[*ledger.ConflictError](err) {
		t.Errorf("a claim of what moved away: %v", err)
	}
}

// A commit that nobody heard of is repeated with its nonce, and is the same claim.
func TestClaimWhoseCommitIsCutOffIsRepeated(t *testing.T) {
	s := server(t, postgrestest.Options{})
	a, b := two(t, s)
	standby, err := s.Standby()
	must(t, err)
	must(t, s.Synchronous(standby))
	for name, end := range map[string]func(cancel func()){
		"a person cancels the wait": func(func()) { sql(t, s, "SELECT pg_cancel_backend(pid) "+ours+" AND wait_event = 'SyncRep'") },
		"the connection ends":       func(func()) { sql(t, s, "SELECT pg_terminate_backend(pid) "+ours+" AND wait_event = 'SyncRep'") },
		"the caller gives up":       func(cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			must(t, standby.Pause())
			in := a.intent(keyA, first)
			ask := func(ctx context.Context) (right ledger.Claim, err error) {
				err = a.db.Session(ctx, func(s *Session) (err error) {
					right, err = s.Claim(ctx, a.self, Asked{Intent: in, Terms: respect})
					return err
				})
				return right, err
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := ask(ctx)
				done <- err
			}()
			until(t, s, "SELECT count(*) "+ours+" AND wait_event = 'SyncRep'", "1")
			end(cancel)
			if err := <-done; FateOf(err) != Unknown || !is[*UnknownError](err) {
				t.Errorf("the first: %v", err)
			}
			// The repeated one waits for the standby too: it really writes.
			again := make(chan error, 1)
			var right ledger.Claim
			go func() {
				var err error
				right, err = ask(t.Context())
				again <- err
			}()
			until(t, s, "SELECT count(*) > 0 "+ours+" AND wait_event = 'SyncRep'", "t")
			select {
			case err := <-again:
				t.Errorf("it did not wait: %v", err)
			default:
			}
			must(t, standby.Resume())
			must(t, <-again)
			rows := sql(t, s, "SELECT count(*), max(number) FROM upsauth.claims WHERE nonce = '"+in.Nonce+"'")
			if got := fmt.Sprint(rows); got != fmt.Sprintf("[[1 %d]]", right.Number) {
				t.Errorf("%s of %+v", got, right)
			}
			if _, err := b.claim(t, b.intent(keyA, first), respect); !is[*ledger.ClaimedError](err) {
				t.Errorf("the other host: %v", err)
			}
			until(t, standby, "SELECT count(*) FROM upsauth.claims WHERE nonce = '"+in.Nonce+"'", "1")
			a.told(t, in, ledger.Unsent)
		})
	}
}

// A server that is killed at the commit leaves it open whether the claim is there.
func TestServerKilledAtTheCommitOfAClaim(t *testing.T) {
	s := server(t, postgrestest.Options{})
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'pw'")
	db := Open(Settings{URL: s.URL(Role, "pw", "postgres"), Private: true})
	t.Cleanup(db.Close)
	a := join(t, db, "web-1")
	imported(t, a, slotA, keyA)
	in := a.intent(keyA, first)
	err := a.session(t, func(session *Session) error {
		return session.transact(t.Context(), func(tx pgx.Tx) error {
			_, err := insert(t.Context(), tx, a.self.Epoch, ledger.Claim{Key: keyA, Makes: ledger.Made{Generation: 2, Attempt: 1}, Sends: first,
				Nonce: in.Nonce, Host: in.Host, Incarnation: 1, Purpose: in.Purpose, Epoch: in.Epoch})
			must(t, s.Kill())
			return err
		})
	})
	if FateOf(err) != Unknown {
		t.Errorf("got %v", err)
	}
	must(t, s.Restart())
	right, err := a.claim(t, in, respect)
	if err != nil || right.Makes.Attempt != 1 {
		t.Fatalf("repeated: %+v, %v", right, err)
	}
	must(t, a.check(t, right))
}

// A check is said on the connection of its claim, or not at all.
func TestCheckStaysOnItsConnection(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	must(t, a.session(t, func(session *Session) error {
		right, err := session.Claim(t.Context(), a.self, Asked{Intent: a.intent(keyA, first), Terms: respect})
		must(t, err)
		sql(t, s, "SELECT pg_terminate_backend(pid, 10000) "+ours)
		if err := session.Check(t.Context(), a.self, right, func() time.Duration { return 0 }); reasonOf(err) != Away {
			t.Errorf("got %v", err)
		}
		return nil
	}))
}

// No error tells what is in a row.
func TestErrorsOfTheProtocolHaveNothingSecret(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	secret := Item{Facts: []byte(`{}`), Sealed: []byte("s3cret"), MAC: []byte("s3cret, and too short")}
	err := a.session(t, func(session *Session) error {
		_, err := session.Import(t.Context(), a.self, slotB, 0, keyB, first, secret)
		return err
	})
	if reasonOf(err) != Failed {
		t.Errorf("got %v", err)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, "s3cret") || strings.Contains(text, fmt.Sprintf("%x", "s3cret")) {
			t.Errorf("the error has the item: %s", text)
		}
	}
	held := make(chan struct{})
	release := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- a.db.Do(t.Context(), func(tx pgx.Tx) error {
			_, err := lockKey(t.Context(), tx, keyA)
			close(held)
			<-release
			return err
		})
	}()
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = a.db.Session(ctx, func(s *Session) error { _, err := s.Judge(ctx, keyA); return err })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a row that somebody holds: %v", err)
	}
	close(release)
	must(t, <-done)
}

// An answer whose place another attempt has by now is stored for the place that it gets: its
// code is made for that one.
func TestItemIsMadeForThePlaceItGets(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	lost := a.intent(keyA, first)
	_, err := b.claim(t, b.intent(keyA, first), respect) // the database has lost that of a
	must(t, err)
	want := ledger.Made{Generation: 2, Attempt: 2}
	must(t, a.session(t, func(s *Session) error {
		d, err := s.Deliver(t.Context(), lost, slotA, ledger.Made{Generation: 2, Attempt: 1}, func(m ledger.Made) (Item, error) { return item(fmt.Sprint(m)), nil })
		if d.Claim.Makes != want || d.Claim.Number != 2 || !d.Stands || d.Grant.Token != want {
			t.Errorf("delivered: %+v", d)
		}
		return err
	}))
	if row := b.read(t, slotA); row.Grant.Token != want || string(row.Item.Sealed) != fmt.Sprint(want) {
		t.Errorf("the row is %+v", row)
	}
	failed := errors.New("no key")
	err = a.session(t, func(s *Session) error {
		_, err := s.Deliver(t.Context(), a.intent(keyA, want), slotA, ledger.Made{Generation: 3, Attempt: 1}, func(ledger.Made) (Item, error) { return Item{}, failed })
		return err
	})
	if err == nil || FateOf(err) != NotCommitted {
		t.Errorf("an item that can't be made: %v", err)
	}
	if rows := sql(t, s, "SELECT count(*), max(highest) FROM upsauth.claims, upsauth.meta"); fmt.Sprint(rows) != "[[2 2]]" {
		t.Error(rows)
	}
}

// A slot that is taken is not taken again, by a rename or by an import of the same grant.
func TestNoSlotIsTakenTwice(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	g := a.read(t, slotA).Grant
	b := imported(t, a, slotB, keyB)
	must(t, a.session(t, func(s *Session) error {
		if _, err := s.Rename(t.Context(), slotA, g.Version, slotB, Item{MAC: make([]byte, 32)}, respect); !is[*ledger.ConflictError](err) {
			t.Errorf("renamed: %v", err)
		}
		if _, err := s.Import(t.Context(), a.self, slotB, b.Version, keyA, first, item("x")); !is[*ledger.ConflictError](err) {
			t.Errorf("imported: %v", err)
		}
		return nil
	}))
	if row := a.read(t, slotB); row.Grant != b {
		t.Errorf("the other grant is %+v", row)
	}
}

// Behind a pooler, claim and check find themselves in different sessions.
func TestClaimsThroughAPooler(t *testing.T) {
	noLibpq(t)
	s := server(t, postgrestest.Options{Hasty: true})
	sql(t, s, "ALTER ROLE upsauth PASSWORD 'pw'")
	pooler, err := s.Pooler(map[string]string{Role: "pw"})
	must(t, err)
	db := Open(Settings{URL: pooler.URL(Role, "postgres"), Private: true})
	t.Cleanup(db.Close)
	a := join(t, db, "web-1")
	imported(t, a, slotA, keyA)
	must(t, a.session(t, func(s *Session) error { return s.Rehearse(t.Context(), a.self) }))
	in := a.intent(keyA, first)
	right, err := a.claim(t, in, respect)
	must(t, err)
	must(t, a.check(t, right))
	if right.Number != 1 {
		t.Errorf("the rehearsal is seen in %+v", right)
	}
	must(t, a.session(t, func(s *Session) error {
		d, err := s.Deliver(t.Context(), in, slotA, right.Makes, always("second"))
		if !d.Stands {
			t.Errorf("delivered: %+v", d)
		}
		return err
	}))
}

// A database that can't say who it is, or a role without a right, is found out beforehand.
func TestRehearsalFindsWhatIsMissing(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	rehearse := func() error {
		return a.session(t, func(s *Session) error { return s.Rehearse(t.Context(), a.self) })
	}
	must(t, rehearse())
	sql(t, s, "REVOKE UPDATE (outcome) ON upsauth.claims FROM upsauth")
	if err := rehearse(); reasonOf(err) != NoRights {
		t.Errorf("without a right: %v", err)
	}
	sql(t, s, "GRANT UPDATE (outcome) ON upsauth.claims TO upsauth; REVOKE EXECUTE ON FUNCTION pg_control_system FROM PUBLIC")
	if err := rehearse(); reasonOf(err) != NoIdentity {
		t.Errorf("without an identity: %v", err)
	}
	if rows := sql(t, s, "SELECT count(*), max(highest) FROM upsauth.meta LEFT JOIN upsauth.claims ON true"); fmt.Sprint(rows) != "[[1 0]]" {
		t.Error(rows)
	}
}

// Of two answers the later attempt's stands. The other is tried before the grant is void, also
// when its host finds it later.
func TestSpareIsTriedBeforeVoid(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	state := func(want ledger.State, when string) {
		t.Helper()
		if rows := sql(t, s, "SELECT state FROM upsauth.grants"); rows[0][0] != string(want) {
			t.Errorf("%s it is %v", when, rows)
		}
	}
	early, late := a.intent(keyA, first), b.intent(keyA, first)
	spare, err := a.claim(t, early, respect)
	must(t, err)
	older(t, s, "10 min")
	stands, err := b.claim(t, late, respect)
	must(t, err)
	must(t, b.session(t, func(s *Session) error {
		_, err := s.Deliver(t.Context(), late, slotA, stands.Makes, always("stands"))
		return err
	}))
	next := b.intent(keyA, stands.Makes)
	_, err = b.claim(t, next, respect)
	must(t, err)
	b.told(t, next, ledger.Refused)
	state(ledger.Interrupted, "while the spare may come")
	must(t, a.session(t, func(s *Session) error { _, err := s.Settle(t.Context(), a.self, early); return err }))
	state(ledger.Void, "once there is none")
	must(t, a.session(t, func(s *Session) error {
		d, err := s.Deliver(t.Context(), early, slotA, spare.Makes, always("spare"))
		if d.Stands || d.Grant.State != ledger.Interrupted {
			t.Errorf("delivered: %+v", d)
		}
		return err
	}))
	state(ledger.Interrupted, "with a spare that was found")
	if row := a.read(t, slotA); row.Grant.State != ledger.Interrupted || string(row.Item.Sealed) != "stands" {
		t.Errorf("the row is %+v", row)
	}
	if _, err := b.claim(t, b.intent(keyA, stands.Makes), respect); !is[*ledger.ConflictError](err) {
		t.Errorf("the token that was refused: %v", err)
	}
	again := a.intent(keyA, spare.Makes)
	right, err := a.claim(t, again, respect)
	must(t, err)
	must(t, a.check(t, right))
	a.told(t, again, ledger.Refused)
	state(ledger.Void, "once all were refused")
}

// Whatever is said of a grant waits for who holds its row, and sees what was written there.
func TestEveryTransactionWaitsForTheGrantsRow(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	ctx := t.Context()
	g := a.read(t, slotA).Grant
	in := b.intent(keyA, first)
	right, err := b.claim(t, in, respect)
	must(t, err)
	for name, act := range map[string]func(*Session) error{
		"claim": func(s *Session) error {
			_, err := s.Claim(ctx, b.self, Asked{Intent: b.intent(keyA, first), Terms: respect})
			return err
		},
		"check":    func(s *Session) error { return s.Check(ctx, b.self, right, func() time.Duration { return 0 }) },
		"told":     func(s *Session) error { _, err := s.Told(ctx, b.intent(keyA, first), ledger.Unsent); return err },
		"settle":   func(s *Session) error { _, err := s.Settle(ctx, b.self, in); return err },
		"reinsert": func(s *Session) error { _, err := s.Reinsert(ctx, b.self, in, false); return err },
		"deliver":  func(s *Session) error { _, err := s.Deliver(ctx, in, slotA, right.Makes, always("x")); return err },
		"put back": func(s *Session) error {
			return s.PutBack(ctx, keyA, first, func(Row) (Item, error) { return item("x"), nil })
		},
		"judge": func(s *Session) error { _, err := s.Judge(ctx, keyA); return err },
		"flip": func(s *Session) error {
			_, err := s.Flip(ctx, slotA, keyB, b.intent(keyB, ledger.Made{}), first, item("x"), respect)
			return err
		},
		"rename": func(s *Session) error {
			_, err := s.Rename(ctx, slotA, g.Version, slotB, Item{MAC: nil}, respect)
			return err
		},
		"move": func(s *Session) error { _, err := s.Move(ctx, a.self, slotA, g.Version, nil); return err },
		"import": func(s *Session) error {
			_, err := s.Import(ctx, a.self, slotA, g.Version, keyA, first, item("x"))
			return err
		},
		"revoke": func(s *Session) error { _, err := s.Revoke(ctx, slotA, g.Version+1); return err },
	} {
		done := make(chan error, 1)
		must(t, a.db.Do(ctx, func(tx pgx.Tx) error {
			if _, err := lockKey(ctx, tx, keyA); err != nil {
				return err
			}
			go func() { done <- b.db.Session(ctx, act) }()
			until(t, s, "SELECT count(*) "+ours+" AND wait_event_type = 'Lock' AND query LIKE '%upsauth.grants%FOR NO KEY UPDATE'", "1")
			return nil
		}))
		if err := <-done; err != nil && !isRule(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Claims that say nothing any more go, and nothing that is alive goes with them.
func TestClaimsThatSayNothingAreDropped(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	ctx := t.Context()
	const gone, signIn, young = "BBBBBBBB-2222-3333-4444-555555555555", "CCCCCCCC-2222-3333-4444-555555555555", "DDDDDDDD-2222-3333-4444-555555555555"
	sql(t, s, "UPDATE upsauth.grants SET generation = 5; UPDATE upsauth.meta SET highest = 1000")
	imported(t, a, slotB, keyB)
	sql(t, s, "UPDATE upsauth.grants SET state = 'moved' WHERE token_vault_key = '"+keyB+"'")
	for i, c := range []struct {
		name, key, purpose, outcome string
		generation, days            int
	}{
		{"drop: replaced", keyA, "refresh", "granted", 4, 91},
		{"drop: replaced, and never ended", keyA, "refresh", "", 3, 91},
		{"keep: replaced lately", keyA, "refresh", "granted", 2, 89},
		{"keep: it made the token, or a spare", keyA, "refresh", "granted", 5, 1000},
		{"keep: it sends the token", keyA, "refresh", "", 6, 1000},
		{"keep: of a tombstone", keyB, "refresh", "", 2, 1000},
		{"drop: of no grant", gone, "refresh", "refused", 7, 91},
		{"drop: of no grant, and open", gone, "refresh", "", 8, 91},
		{"drop: a sign-in that failed", signIn, "authorize", "refused", 1, 91},
		{"keep: old, of a key with a younger one", young, "authorize", "granted", 1, 1000},
		{"keep: open, and somebody may put its grant back", young, "refresh", "", 2, 89},
	} {
		sql(t, s, fmt.Sprintf(`INSERT INTO upsauth.claims (number, token_vault_key, generation, attempt, sends_generation, sends_attempt, nonce, purpose, host,
			incarnation, epoch, outcome, time, ended) SELECT %d, '%s', %d, 1, 0, 0, '%s, and more', '%s', 'h', 1, 1, nullif('%s', ''), at, CASE WHEN '%[6]s' <> '' THEN at END
			FROM (SELECT now() - interval '%d days' AS at) AS times`, i+1, c.key, c.generation, c.name, c.purpose, c.outcome, c.days))
	}
	drop := func(want int64, when string) {
		t.Helper()
		must(t, a.session(t, func(s *Session) error {
			if dropped, err := s.DropClaims(ctx, a.self); err != nil || dropped != want {
				t.Errorf("%s: %d, %v", when, dropped, err)
			}
			return nil
		}))
	}
	sql(t, s, "UPDATE upsauth.meta SET epoch = epoch + 1; UPDATE upsauth.hosts SET epoch = epoch + 1 WHERE name = 'web-1'")
	a.self.Epoch++
	drop(0, "while a host has not answered the roll call")
	sql(t, s, "UPDATE upsauth.hosts SET waived = epoch + 1 WHERE name = 'web-2'")
	drop(0, "although a person does not wait for it")
	sql(t, s, "UPDATE upsauth.hosts SET removed = now() WHERE name = 'web-2'")
	must(t, a.session(t, func(s *Session) error {
		self := a.self
		self.Epoch++
		if _, err := s.DropClaims(ctx, self); !is[*ledger.FrozenError](err) {
			t.Errorf("in a database that went back: %v", err)
		}
		return nil
	}))
	drop(5, "once all have")
	drop(0, "again")
	for _, row := range sql(t, s, "SELECT nonce FROM upsauth.claims") {
		if !strings.HasPrefix(row[0], "keep") {
			t.Errorf("it is left: %s", row[0])
		}
	}
	if rows := sql(t, s, "SELECT count(*), (SELECT highest FROM upsauth.meta) FROM upsauth.claims"); fmt.Sprint(rows) != "[[6 1000]]" {
		t.Errorf("%v are left", rows)
	}

	// A host that comes after all of this says what it has to say.
	late := func(key string, generation int64) ledger.Intent {
		in := a.intent(key, ledger.Made{Generation: generation - 1, Attempt: 1})
		in.Epoch--
		return in
	}
	must(t, a.session(t, func(s *Session) error {
		if c, err := s.Settle(ctx, a.self, late(gone, 8)); err != nil || c.Outcome != ledger.NoAnswer {
			t.Errorf("settled: %+v, %v", c, err)
		}
		if _, err := s.Reinsert(ctx, a.self, late(gone, 7), false); err != nil {
			t.Errorf("inserted again: %v", err)
		}
		if d, err := s.Deliver(ctx, late(keyA, 4), slotA, ledger.Made{Generation: 4, Attempt: 1}, always("late")); err != nil || d.Stands {
			t.Errorf("delivered: %+v, %v", d, err)
		}
		g, err := s.Flip(ctx, "00000000000000000000000000000002-0000000000000000", "", late(signIn, 1), first, item("signed in"), respect)
		if err != nil || g.Key != signIn {
			t.Errorf("a late sign-in: %+v, %v", g, err)
		}
		return nil
	}))
	if row := a.read(t, slotA); row.Grant.Token.Generation != 5 || row.Grant.State != ledger.Live {
		t.Errorf("the grant is %+v", row.Grant)
	}
	b.db.Close()
}
