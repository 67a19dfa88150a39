package postgres

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

func (m *member) introduce(t *testing.T, self ledger.Self, machine, boot string) (what ledger.Introduction, now ledger.Self) {
	t.Helper()
	must(t, m.session(t, func(s *Session) (err error) {
		what, now, err = s.Introduce(t.Context(), self, machine, []string{boot})
		return err
	}))
	return what, now
}

// Each boot raises the incarnation once, whoever is first.
func TestIncarnationIsRaisedOnceABoot(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	machine := a.self.Machine
	if what, self := a.introduce(t, a.self, machine, "boot 1"); what != ledger.Known || self != a.self {
		t.Errorf("the same boot: %v, %+v", what, self)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	found := map[ledger.Introduction]int{}
	for range 10 {
		all.Go(func() {
			what, self := a.introduce(t, a.self, machine, "boot 2")
			mu.Lock()
			defer mu.Unlock()
			found[what]++
			if self.Incarnation != 2 || self.Boot != "boot 2" {
				t.Errorf("%v: %+v", what, self)
			}
		})
	}
	all.Wait()
	if found[ledger.Raise] != 1 || found[ledger.Adopt] != 9 {
		t.Errorf("got %v", found)
	}
	if _, err := a.claim(t, a.intent(keyA, first), respect); !is[*ledger.HostError](err) {
		t.Errorf("a claim of the incarnation before: %v", err)
	}
	// A copy of the disk as it was does not get in.
	if what, _ := a.introduce(t, a.self, machine, "boot 3"); what != ledger.Rename {
		t.Errorf("an earlier disk: %v", what)
	}
	if what, _ := a.introduce(t, a.self, "another machine", "boot 2"); what != ledger.Rename {
		t.Errorf("another machine: %v", what)
	}
	ahead := a.self
	ahead.Incarnation, ahead.Boot = 7, "boot 8"
	if what, self := a.introduce(t, ahead, machine, "boot 9"); what != ledger.Restore || self.Incarnation != 7 || self.Boot != "boot 9" {
		t.Errorf("a database that went back: %v, %+v", what, self)
	}
	if rows := sql(t, s, "SELECT incarnation, boot FROM upsauth.hosts WHERE name = 'web-1'"); fmt.Sprint(rows) != "[[7 boot 9]]" {
		t.Error(rows)
	}
	if what, _ := a.introduce(t, ledger.Self{ID: "new", Machine: "m", Incarnation: 1}, "m", "b"); what != ledger.Register {
		t.Errorf("a host without a row: %v", what)
	}
}

// A host that was removed, that signed off, or that is alone in a copy of the database.
func TestWhoMaySpend(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	reason := func(err error) ledger.Reason {
		var e *ledger.HostError
		errors.As(err, &e)
		if e == nil {
			return ledger.Reason(fmt.Sprint(err))
		}
		return e.Reason
	}
	in := a.intent(keyA, first)
	right, err := a.claim(t, in, respect)
	must(t, err)
	must(t, b.session(t, func(s *Session) error {
		if err := s.RemoveHost(t.Context(), "nobody"); reason(err) != ledger.Stranger {
			t.Errorf("got %v", err)
		}
		return s.RemoveHost(t.Context(), a.self.ID)
	}))
	if got := reason(a.check(t, right)); got != ledger.RemovedHost {
		t.Errorf("the check of a host that was removed: %v", got)
	}
	if _, err := a.claim(t, a.intent(keyA, first), respect); reason(err) != ledger.RemovedHost {
		t.Errorf("a host that was removed: %v", err)
	}
	must(t, a.session(t, func(s *Session) error {
		d, err := s.Deliver(t.Context(), in, slotA, right.Makes, always("delivered"))
		if !d.Stands {
			t.Errorf("it delivered %+v", d)
		}
		return err
	}))
	token := right.Makes

	must(t, b.session(t, func(s *Session) error { return s.SignOff(t.Context(), b.self) }))
	if _, err := b.claim(t, b.intent(keyA, token), respect); !is[*ledger.FrozenError](err) {
		t.Errorf("a host that signed off: %v", err)
	}
	b.attend(t)
	in = b.intent(keyA, token)
	if _, err := b.claim(t, in, respect); err != nil {
		t.Errorf("once it is back: %v", err)
	}
	b.told(t, in, ledger.Unsent)

	older(t, s, "25 hours")
	c := join(t, open(t, s, Role, "postgres"), "web-3")
	if _, err := c.claim(t, c.intent(keyA, token), respect); reason(err) != ledger.Alone {
		t.Errorf("a host that is alone: %v", err)
	}
	must(t, c.session(t, func(s *Session) error { return s.AcceptHost(t.Context(), c.self.ID) }))
	if _, err := c.claim(t, c.intent(keyA, token), respect); err != nil {
		t.Errorf("accepted: %v", err)
	}
}

// frozen is why a host may not spend in a database that changed hands.
func (m *member) frozen(t *testing.T, sends ledger.Made) *ledger.FrozenError {
	t.Helper()
	_, err := m.claim(t, m.intent(keyA, sends), respect)
	var f *ledger.FrozenError
	if !errors.As(err, &f) {
		t.Errorf("%s: %v", m.self.Name, err)
		return &ledger.FrozenError{}
	}
	return f
}

// changedHands is what must be true whenever a database is another one: nobody spends before
// all have answered, and what the hosts hold is there afterwards.
func changedHands(t *testing.T, now *postgrestest.Server, a, b *member, open, answered ledger.Intent, made ledger.Made) {
	t.Helper()
	ctx := t.Context()
	epoch := a.self.Epoch
	if f := a.frozen(t, first); !f.Answer || f.Epoch != epoch {
		t.Errorf("before anybody noticed: %+v", f)
	}
	for _, m := range []*member{a, b} {
		// Nothing is said of a claim that this database may have lost.
		if err := m.session(t, func(s *Session) error { _, err := s.Settle(ctx, m.self, open); return err }); !is[*ledger.FrozenError](err) {
			t.Errorf("settled before the roll call: %v", err)
		}
	}
	// All processes notice at once, and one opens it.
	var all sync.WaitGroup
	var mu sync.Mutex
	opened := 0
	for range 5 {
		for _, m := range []*member{a, b} {
			all.Go(func() {
				err := m.session(t, func(s *Session) error {
					meta, mine, err := s.OpenEpoch(ctx, m.self, false)
					mu.Lock()
					defer mu.Unlock()
					if mine {
						opened++
					}
					if meta.Epoch != epoch+1 {
						t.Errorf("it is epoch %d", meta.Epoch)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if opened != 1 {
		t.Errorf("%d opened an epoch", opened)
	}
	answer := func(m *member, deliver func(*Session, ledger.Self) error) {
		t.Helper()
		must(t, m.session(t, func(s *Session) error {
			_, self, err := s.Introduce(ctx, m.self, m.self.Machine, []string{m.self.Boot})
			if err != nil {
				return err
			}
			m.self, err = s.Answer(ctx, self, epoch+1, func(self ledger.Self) error {
				rows, err := now.SQL("postgres", "SELECT count(*) FROM upsauth.hosts WHERE id = '"+self.ID+"' AND epoch > "+fmt.Sprint(epoch))
				if err != nil || rows[0][0] != "0" {
					t.Errorf("its row says the epoch before it has delivered: %v, %v", rows, err)
				}
				return deliver(s, self)
			})
			return err
		}))
	}
	answer(a, func(s *Session, self ledger.Self) error {
		_, err := s.Reinsert(ctx, self, open, false)
		return err
	})
	if f := a.frozen(t, first); f.Answer || len(f.Waiting) != 1 || f.Waiting[0] != "web-2" {
		t.Errorf("before the other has answered: %+v", f)
	}
	failed := errors.New("its disk is full")
	err := b.session(t, func(s *Session) error {
		_, err := s.Answer(ctx, b.self, epoch+1, func(ledger.Self) error { return failed })
		return err
	})
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if f := a.frozen(t, first); len(f.Waiting) != 1 {
		t.Errorf("after an answer that failed: %+v", f)
	}
	answer(b, func(s *Session, self ledger.Self) error {
		d, err := s.Deliver(ctx, answered, slotA, made, always("delivered"))
		if err == nil && d.Grant.Token != made {
			t.Errorf("delivered %+v", d)
		}
		return err
	})
	rows, err := now.SQL("postgres", "SELECT count(*) FROM upsauth.claims WHERE outcome IS NULL AND clock_timestamp() - time < interval '1 minute'")
	must(t, err)
	if rows[0][0] != "1" {
		t.Errorf("%v claims are open", rows)
	}
	right, err := a.claim(t, a.intent(keyB, first), respect)
	if !is[*ledger.ClaimedError](err) {
		t.Errorf("its own, as long as it may be on its way: %+v, %v", right, err)
	}
	right, err = a.claim(t, a.intent(keyA, made), respect)
	must(t, err)
	must(t, a.check(t, right))
}

// held gives a an open claim of one grant, and b an answer of another that is not delivered.
// Lose is called before them.
func held(t *testing.T, a, b *member, lose func()) (open, answered ledger.Intent, made ledger.Made) {
	t.Helper()
	imported(t, a, slotB, keyB)
	lose()
	open, answered = a.intent(keyB, first), b.intent(keyA, first)
	right, err := a.claim(t, open, respect)
	must(t, err)
	must(t, a.check(t, right))
	a.self.Seen = ledger.Seen{Number: right.Number, Nonce: right.Nonce}
	right, err = b.claim(t, answered, respect)
	must(t, err)
	b.self.Seen = ledger.Seen{Number: right.Number, Nonce: right.Nonce}
	return open, answered, right.Makes
}

// A promoted standby is another database, whether it has all commits or not.
func TestPromotedStandbyOpensAnEpoch(t *testing.T) {
	for name, lost := range map[string]bool{"synchronous": false, "asynchronous, with the last commits lost": true} {
		t.Run(name, func(t *testing.T) {
			s := server(t, postgrestest.Options{})
			standby, err := s.Standby()
			must(t, err)
			if !lost {
				must(t, s.Synchronous(standby))
			}
			a, b := two(t, s)
			open, answered, made := held(t, a, b, func() {
				if lost {
					until(t, standby, "SELECT count(*) FROM upsauth.grants", "2")
					must(t, standby.Stop()) // what is sent to one that stands still would arrive yet
				}
			})
			must(t, s.Kill())
			if lost {
				must(t, standby.Restart())
			}
			must(t, standby.Promote())
			wanted := "2"
			if lost {
				wanted = "0"
			}
			until(t, standby, "SELECT count(*) FROM upsauth.claims", wanted)
			for _, m := range []*member{a, b} {
				m.db.Close()
				m.db = connected(t, standby)
			}
			changedHands(t, standby, a, b, open, answered, made)
		})
	}
}

func connected(t *testing.T, s *postgrestest.Server) *DB { return open(t, s, Role, "postgres") }

// A dump that is restored in place is another database, although its server is the same.
func TestDumpRestoredInPlaceOpensAnEpoch(t *testing.T) {
	s := server(t, postgrestest.Options{})
	a, b := two(t, s)
	var dump []byte
	open, answered, made := held(t, a, b, func() {
		var err error
		dump, err = s.Dump("postgres", "--clean")
		must(t, err)
	})
	must(t, s.Restore("postgres", dump))
	changedHands(t, s, a, b, open, answered, made)
}

// A machine that is put back to an earlier snapshot is the same database by all it says. A
// claim's number tells.
func TestMachinePutBackOpensAnEpoch(t *testing.T) {
	s := server(t, postgrestest.Options{})
	a, b := two(t, s)
	open, answered, made := held(t, a, b, func() {})
	sql(t, s, "DELETE FROM upsauth.claims; UPDATE upsauth.meta SET highest = 0")
	changedHands(t, s, a, b, open, answered, made)
}

// A person need not wait for a host that will not come. When it comes, it answers first.
func TestFailoverIsAcceptedByAPerson(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	must(t, a.session(t, func(s *Session) error {
		_, opened, err := s.OpenEpoch(t.Context(), a.self, true) // a token went back
		if !opened {
			t.Error("it opened none")
		}
		return err
	}))
	a.attend(t)
	a.frozen(t, first)
	must(t, a.session(t, func(s *Session) error {
		names, err := s.AcceptFailover(t.Context(), a.self, a.self.Epoch)
		if fmt.Sprint(names) != "[web-2]" {
			t.Errorf("it waits for %v", names)
		}
		return err
	}))
	in := a.intent(keyA, first)
	if _, err := a.claim(t, in, respect); err != nil {
		t.Error(err)
	}
	a.told(t, in, ledger.Unsent)
	if f := b.frozen(t, first); !f.Answer {
		t.Errorf("the host that comes late: %+v", f)
	}
	b.attend(t)
	if _, err := b.claim(t, b.intent(keyA, first), respect); err != nil {
		t.Error(err)
	}
	must(t, a.session(t, func(s *Session) error {
		roll, err := s.Roll(t.Context())
		if roll.Meta.Epoch != a.self.Epoch || len(roll.Hosts) != 2 || len(roll.Meta.Waiting(roll.Hosts)) != 0 {
			t.Errorf("%+v", roll)
		}
		return err
	}))
}

// A person who speaks before any host has noticed that the database changed hands begins the
// roll call, and leaves out nobody who has not been asked.
func TestFailoverIsAcceptedOnceTheRollCallHasBegun(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	sql(t, s, "UPDATE upsauth.meta SET timeline = timeline - 1")
	accept := func(epoch int64) (names []string, err error) {
		err = a.session(t, func(s *Session) (err error) {
			names, err = s.AcceptFailover(t.Context(), a.self, epoch)
			return err
		})
		return names, err
	}
	epoch := a.self.Epoch
	for range 2 {
		var frozen *ledger.FrozenError
		if _, err := accept(epoch); !errors.As(err, &frozen) || frozen.Epoch != epoch+1 || len(frozen.Waiting) != 2 {
			t.Errorf("got %v", err)
		}
	}
	a.attend(t)
	a.frozen(t, first)
	if names, err := accept(epoch + 1); err != nil || fmt.Sprint(names) != "[web-2]" {
		t.Errorf("it waits for %v, %v", names, err)
	}
	if _, err := a.claim(t, a.intent(keyA, first), respect); err != nil {
		t.Error(err)
	}
	b.attend(t)
}

// A token that is older than one that a host saw is not spent. Once nobody has the newer one,
// the grant says so.
func TestTokenThatWentBackIsNotSpent(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	a.seen = ledger.Sighting{Token: ledger.Made{Generation: 5, Attempt: 1}, Epoch: a.self.Epoch}
	var conflict *ledger.ConflictError
	if _, err := a.claim(t, a.intent(keyA, first), respect); !errors.As(err, &conflict) || !conflict.WentBack {
		t.Errorf("got %v", err)
	}
	must(t, a.session(t, func(s *Session) error {
		_, _, err := s.OpenEpoch(t.Context(), a.self, true)
		return err
	}))
	a.attend(t)
	b.attend(t)
	if _, err := a.claim(t, a.intent(keyA, first), respect); !errors.As(err, &conflict) || !conflict.Missing || conflict.Grant.State != ledger.Interrupted {
		t.Errorf("got %v", err)
	}
	if row := b.read(t, slotA); row.Grant.Version != conflict.Grant.Version {
		t.Errorf("the grant is %+v, not %+v", row.Grant, conflict.Grant)
	}
}

// The ledger's rows are not the application's to remove, whatever is said in its name.
func TestRoleCannotUndoAClaim(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	_, err := a.claim(t, a.intent(keyA, first), respect)
	must(t, err)
	for _, statement := range []string{"DELETE FROM upsauth.claims", "DELETE FROM upsauth.hosts", "TRUNCATE upsauth.claims",
		"UPDATE upsauth.claims SET nonce = 'another nonce of sixteen'", "UPDATE upsauth.claims SET attempt = attempt + 1"} {
		if err := exec(t.Context(), a.db, statement); code(err) != "42501" {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

// An epoch that begins between a claim's look and its row keeps the row away.
func TestClaimLosesAgainstANewEpoch(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	ctx := t.Context()
	in := b.intent(keyA, first)
	done := make(chan error, 1)
	must(t, a.db.Do(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE upsauth.meta SET epoch = epoch + 1"); err != nil {
			return err
		}
		go func() {
			done <- b.db.Session(ctx, func(s *Session) error {
				_, err := s.Claim(ctx, b.self, Asked{Intent: in, Terms: respect})
				return err
			})
		}()
		until(t, s, "SELECT count(*) "+ours+" AND wait_event_type = 'Lock' AND query LIKE 'WITH next%'", "1")
		return nil
	}))
	if err := <-done; !is[*ledger.FrozenError](err) {
		t.Errorf("got %v", err)
	}
	if rows := sql(t, s, "SELECT count(*) FROM upsauth.claims"); rows[0][0] != "0" {
		t.Error("it was claimed")
	}
}

// Epochs that begin, roll calls, claims, answers and a person's orders at once never wait for
// each other in a circle.
func TestNothingWaitsInACircle(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, b := two(t, s)
	imported(t, a, slotB, keyB)
	ctx := t.Context()
	var all sync.WaitGroup
	loop := func(m *member, act func(*Session, ledger.Self, int) error) {
		db := connected(t, s)
		all.Go(func() {
			for i := range 40 {
				err := db.Session(ctx, func(s *Session) error {
					roll, err := s.Roll(ctx)
					self := m.self
					self.Epoch = roll.Meta.Epoch
					if err == nil {
						err = act(s, self, i)
					}
					return err
				})
				if err != nil && !isRule(err) {
					t.Error(err)
				}
			}
		})
	}
	for n, m := range []*member{a, b} {
		loop(m, func(s *Session, self ledger.Self, _ int) error {
			meta, _, err := s.OpenEpoch(ctx, self, true)
			if err == nil {
				_, err = s.Answer(ctx, self, meta.Epoch, func(ledger.Self) error { return nil })
			}
			return err
		})
		loop(m, func(s *Session, self ledger.Self, i int) error {
			if _, err := s.AcceptFailover(ctx, self, self.Epoch); err != nil && !isRule(err) {
				return err
			}
			_, _, err := s.Introduce(ctx, self, self.Machine, []string{fmt.Sprintf("boot %d", i/20)})
			return err
		})
		for k, key := range []string{keyA, keyB} {
			loop(m, func(s *Session, self ledger.Self, i int) error {
				in := ledger.Intent{Key: key, Generation: 2, Sends: first, Nonce: fmt.Sprintf("in a circle %d %d %d", n, k, i), Host: self.ID,
					Incarnation: self.Incarnation, Purpose: "refresh", Epoch: self.Epoch}
				_, err := s.Claim(ctx, self, Asked{Intent: in, Terms: respect})
				if err == nil {
					_, err = s.Told(ctx, in, ledger.Unsent)
				} else if isRule(err) {
					_, err = s.Settle(ctx, self, in)
				}
				return err
			})
		}
	}
	all.Wait()
	rows := sql(t, s, "SELECT count(*) = max(number), max(number) = (SELECT highest FROM upsauth.meta), count(outcome) = count(*), count(*) > 0 FROM upsauth.claims")
	t.Logf("%v claims", sql(t, s, "SELECT count(*), (SELECT epoch FROM upsauth.meta) FROM upsauth.claims"))
	if got := fmt.Sprint(rows); got != "[[t t t t]]" {
		t.Errorf("numbers without a gap, the highest, all ended, some: %s", got)
	}
}

// What people read of a host is one line, whoever wrote it into the database.
func TestNameOfAHostIsOneLine(t *testing.T) {
	s := server(t, postgrestest.Options{Hasty: true})
	a, _ := two(t, s)
	sql(t, s, `UPDATE upsauth.hosts SET name = E'web\r\nupsauth: all is well\x1b[2K'`)
	must(t, a.session(t, func(session *Session) error {
		roll, err := session.Roll(t.Context())
		for _, h := range roll.Hosts {
			if h.Name != "web upsauth: all is well[2K" {
				t.Errorf("a host is called %q", h.Name)
			}
		}
		return err
	}))
}
