package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/service/events"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	noon   = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	teller = []string{"/bin/tell"}
	errNo  = errors.New("exit status 1")
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func record(company string, n int) grant.Record {
	var r grant.Record
	r.ID, r.TokenVaultKey, r.Generation = grant.ID{Company: company, Application: "rating", Environment: "lab"}, fmt.Sprintf("00000000-0000-0000-0000-%012d", n), 1
	r.RefreshTokenExpires, r.RefreshUntil, r.AccessUntil = noon.Add(1e3*time.Hour), noon.Add(1e3*time.Hour), noon.Add(1e3*time.Hour)
	r.Requested = noon.Add(-time.Hour)
	return r
}

func void(r grant.Record) grant.Record {
	r.Void, r.LastError = true, &grant.LastError{Code: "10400", Message: "no", Time: noon}
	return r
}

// heard is what the program got from all hosts.
type heard struct {
	mu    sync.Mutex
	lines []string
	ids   []string
}

func (h *heard) take(text []byte) {
	var e struct {
		events.Header
		grant.ID
	}
	if err := json.Unmarshal(text, &e); err != nil {
		panic(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, e.Company+" "+string(e.Event))
	h.ids = append(h.ids, e.Header.ID)
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// host is a queue of a host of its own.
type host struct {
	*events.Queue
	store *Store
	t     *testing.T
	heard *heard
	now   time.Time
	// run is what the command does, nil where it takes all.
	run func(ctx context.Context, text string) error
	mu  sync.Mutex
	log strings.Builder
	// told is sent to when an attempt has come to something.
	told chan struct{}
}

func open(t *testing.T, tables *tablestest.Tables, h *heard) *host {
	one := &host{t: t, heard: h, now: noon, store: New(tables.Open()), told: make(chan struct{}, 1000)}
	say := func(text string) {
		one.mu.Lock()
		defer one.mu.Unlock()
		one.log.WriteString(text + "\n")
		one.told <- struct{}{}
	}
	one.Queue = events.New(events.Options{
		Store: one.store, Now: func() time.Time { return one.now },
		After: func(time.Duration) <-chan time.Time { return time.After(time.Millisecond) },
		Facts: func(r grant.Record, _ time.Time) ([]byte, error) { return json.Marshal(r.ID) },
		Invited: func(i invitation.Invitation, _ time.Time) ([]byte, error) {
			return json.Marshal(grant.ID{Company: i.Company})
		},
		Event:   func(format string, args ...any) { say(fmt.Sprintf(format, args...)) },
		Trouble: func(_, _, text string) { say(text) },
		Run: func(ctx context.Context, _ []string, text []byte) (string, error) {
			if one.run != nil {
				if err := one.run(ctx, string(text)); err != nil {
					return "", err
				}
			}
			h.take(text)
			return "", nil
		},
	})
	return one
}

func (h *host) look(records ...grant.Record) error {
	return h.Look(h.t.Context(), events.Known{Records: records, Complete: true}, teller)
}

// work tells what there is until so many attempts were made.
func (h *host) work(attempts int) {
	h.t.Helper()
	ctx, end := context.WithCancel(h.t.Context())
	var worker sync.WaitGroup
	worker.Go(func() { h.Work(ctx) })
	for range attempts {
		select {
		case <-h.told:
		case <-time.After(30 * time.Second):
			h.t.Error("nothing is told")
		}
	}
	end()
	worker.Wait()
}

// waits is how many events are not told.
func waits(tables *tablestest.Tables) string {
	return tables.SQL("SELECT count(*) FROM upsauth.outbox WHERE told IS NULL")[0][0]
}

// Two hosts that find the same at the same time tell the program once of each event, each
// company's in order.
func TestEachEventIsToldOnce(t *testing.T) {
	tables, h := tablestest.New(t), &heard{}
	hosts := []*host{open(t, tables, h), open(t, tables, h)}
	check(t, hosts[0].look()) // what is there from the start is no news
	const companies, rounds = 20, 5
	var records []grant.Record
	for n := range companies {
		records = append(records, record(fmt.Sprint("c", n), n))
	}
	ctx, end := context.WithCancel(t.Context())
	var working, looking sync.WaitGroup
	var step atomic.Int64 // of all companies, which go on once a host has told of them
	for _, one := range hosts {
		working.Go(func() { one.Work(ctx) })
		looking.Go(func() {
			for {
				// As a round does: what is read is not older than what the look began with.
				if err := one.Begin(t.Context()); err != nil {
					t.Error(err)
					return
				}
				n := step.Load()
				if n == 2*rounds {
					return
				}
				now := slices.Clone(records)
				for i := range now {
					if now[i].Generation = n/2 + 1; n%2 == 1 {
						now[i] = void(now[i])
					}
				}
				switch err := one.look(now...); {
				case err == nil:
					step.CompareAndSwap(n, n+1)
				case !errors.As(err, new(*events.ConflictError)):
					t.Error(err)
					return
				}
			}
		})
	}
	looking.Wait()
	for deadline := time.Now().Add(time.Minute); waits(tables) != "0" && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	end()
	working.Wait()
	seen, last := map[string]bool{}, map[string]string{}
	for i, id := range h.ids {
		if seen[id] {
			t.Errorf("%s was told twice: %s", id, h.lines[i])
		}
		seen[id] = true
		company, kind, _ := strings.Cut(h.lines[i], " ")
		if last[company] == "" && kind != "authorized" || kind == "recovered" && last[company] != "void" {
			t.Errorf("%s after %q", h.lines[i], last[company])
		}
		last[company] = kind
	}
	if len(h.ids) < 2*companies || waits(tables) != "0" {
		t.Errorf("%d were told, %s wait", len(h.ids), waits(tables))
	}
	// A third host knows all that, also what nobody has told it.
	third := open(t, tables, h)
	before := len(h.ids)
	for i := range records {
		records[i] = void(records[i])
		records[i].Generation = rounds
	}
	check(t, third.look(records...))
	if n := waits(tables); n != "0" || len(h.ids) != before {
		t.Errorf("%s wait", n)
	}
}

// What a host has read before another one told of something newer is compared with nothing:
// otherwise the older state would be told as the newer one.
func TestOlderStateIsNotCompared(t *testing.T) {
	tables, h := tablestest.New(t), &heard{}
	a, b := open(t, tables, h), open(t, tables, h)
	check(t, a.look(record("A", 1)))
	check(t, a.Begin(t.Context()))
	check(t, b.look(void(record("A", 1))))
	// What is found beside it is not kept either, and found again.
	if err := a.look(record("A", 1), record("B", 2)); !errors.As(err, new(*events.ConflictError)) {
		t.Fatalf("it was compared: %v", err)
	}
	check(t, a.look(void(record("A", 1)), record("B", 2)))
	a.work(2)
	got := h.all()
	slices.Sort(got)
	if !slices.Equal(got, []string{"A void", "B authorized"}) || waits(tables) != "0" {
		t.Errorf("told %q, %s wait", got, waits(tables))
	}
}

// A host that ends, or dies, while it tells an event leaves it to the others; those behind it
// wait, and those of other companies do not.
func TestHostThatEnds(t *testing.T) {
	tables, h := tablestest.New(t), &heard{}
	a, b := open(t, tables, h), open(t, tables, h)
	check(t, a.look())
	check(t, a.look(record("A", 1)))
	check(t, a.look(void(record("A", 1)), record("B", 2)))
	check(t, b.look(void(record("A", 1)), record("B", 2)))
	// It dies.
	first, _, err := a.store.Next(t.Context())
	if err != nil || first == nil || first.Kind != events.Authorized || first.Of.Company != "A" {
		t.Fatalf("%+v, %v", first, err)
	}
	b.work(1)
	if got := h.all(); !slices.Equal(got, []string{"B authorized"}) {
		t.Fatalf("told %q", got)
	}
	if one, wait, err := b.store.Next(t.Context()); err != nil || one != nil || wait <= 0 || wait > again {
		t.Errorf("%+v, %s, %v", one, wait, err)
	}
	tables.SQL("UPDATE upsauth.outbox SET until = clock_timestamp() WHERE told IS NULL")
	b.work(2)
	if got := h.all(); !slices.Equal(got, []string{"B authorized", "A authorized", "A void"}) || h.ids[1] != first.ID {
		t.Fatalf("told %q", got)
	}
	// What it says later puts off nothing.
	if _, err := a.store.Later(t.Context(), *first, time.Hour); err != nil || waits(tables) != "0" {
		t.Errorf("%s wait, %v", waits(tables), err)
	}
	// It ends.
	check(t, a.look(record("A", 1), record("B", 2)))
	ctx, end := context.WithCancel(t.Context())
	a.run = func(running context.Context, _ string) error { end(); <-running.Done(); return running.Err() }
	a.Work(ctx)
	b.work(1)
	if got := h.all(); !slices.Equal(got[3:], []string{"A recovered"}) {
		t.Errorf("told %q", got)
	}
}

// A command that fails is tried again, by whichever host, with all of the company waiting
// behind it, and for a day.
func TestCommandFails(t *testing.T) {
	tables, h := tablestest.New(t), &heard{}
	a, b := open(t, tables, h), open(t, tables, h)
	fails := func(_ context.Context, text string) error {
		if strings.Contains(text, `"company":"A"`) {
			return errNo
		}
		return nil
	}
	a.run, b.run = fails, fails
	check(t, a.look())
	check(t, a.look(record("A", 1), record("B", 2)))
	check(t, a.look(void(record("A", 1)), record("B", 2)))
	check(t, b.look(void(record("A", 1)), record("B", 2)))
	a.work(2)
	if got := h.all(); !slices.Equal(got, []string{"B authorized"}) || waits(tables) != "2" {
		t.Fatalf("told %q, %s wait", got, waits(tables))
	}
	pause := func() string {
		return tables.SQL("SELECT tries, round(extract(epoch FROM next - clock_timestamp())) BETWEEN 3 AND 10 FROM upsauth.outbox WHERE told IS NULL ORDER BY number")[0][0]
	}
	if got := pause(); got != "1" {
		t.Errorf("tries %s", got)
	}
	tables.SQL("UPDATE upsauth.outbox SET next = clock_timestamp()")
	b.work(1)
	if got := pause(); got != "2" {
		t.Errorf("tries %s", got)
	}
	// Another command is told at once.
	check(t, b.Look(t.Context(), events.Known{Records: []grant.Record{void(record("A", 1)), record("B", 2)}, Complete: true}, []string{"/bin/other"}))
	b.now = b.now.Add(25 * time.Hour)
	b.work(1)
	if !strings.Contains(b.log.String(), "dropped the event authorized of A") || waits(tables) != "1" {
		t.Errorf("%s wait; the log is %s", waits(tables), b.log.String())
	}
	b.run = nil
	b.work(1)
	if got := h.all(); !slices.Equal(got, []string{"B authorized", "A void"}) {
		t.Errorf("told %q", got)
	}
}

// Companies that become one have one lane from then on, also what waits.
func TestLanesJoin(t *testing.T) {
	tables, h := tablestest.New(t), &heard{}
	a := open(t, tables, h)
	check(t, a.look())
	one, two := record("A", 1), record("B", 2)
	check(t, a.look(one, two))
	two.Company, two.Application = "A", "batch"
	check(t, a.look(void(one), void(two)))
	if lanes := tables.SQL("SELECT count(DISTINCT lane) FROM upsauth.outbox")[0][0]; lanes != "1" {
		t.Errorf("%s lanes", lanes)
	}
}

// A host without a command takes nothing from those that have one.
func TestHostWithoutCommand(t *testing.T) {
	tables, h := tablestest.New(t), &heard{}
	a, b := open(t, tables, h), open(t, tables, h)
	check(t, a.look())
	check(t, b.Look(t.Context(), events.Known{Complete: true}, nil))
	check(t, a.look(record("A", 1)))
	a.work(1)
	if got := h.all(); !slices.Equal(got, []string{"A authorized"}) {
		t.Errorf("told %q", got)
	}
}

// What can't be read is an error, and a database that is away has lost nothing.
func TestDamageAndAbsence(t *testing.T) {
	tables, h := tablestest.New(t), &heard{}
	a := open(t, tables, h)
	check(t, a.look())
	check(t, a.look(record("A", 1)))
	tables.SQL(`UPDATE upsauth.told SET memory = '{"version":2}'; UPDATE upsauth.readings SET reading = 7 WHERE about = 'told'`)
	if err := a.look(record("A", 1)); !errors.As(err, new(*RowError)) {
		t.Errorf("a newer row: %v", err)
	}
	tables.SQL(`UPDATE upsauth.outbox SET event = '{"id":"x"}'`)
	if _, _, err := a.store.Next(t.Context()); !errors.As(err, new(*RowError)) {
		t.Errorf("a damaged event: %v", err)
	}
	away := New(tables.Away())
	_, _, readErr := away.Read(t.Context())
	_, _, nextErr := away.Next(t.Context())
	for what, err := range map[string]error{"read": readErr, "next": nextErr, "keep": away.Keep(t.Context(), events.Found{}), "done": away.Done(t.Context(), events.Event{}, true)} {
		var e *postgres.Error
		if !errors.As(err, &e) || e.Reason != postgres.Away {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Events that were told are forgotten after a day.
	tables.SQL("UPDATE upsauth.outbox SET told = clock_timestamp() - interval '25 hours'")
	if n := tables.SQL("SELECT upsauth.drop_events()")[0][0]; n != "1" {
		t.Errorf("%s were forgotten", n)
	}
}
