package shared_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// world is a database, a strict UPS, and the clock of all hosts.
type world struct {
	t        *testing.T
	server   *postgrestest.Server
	ups      *sandbox.Server
	url      string
	identity string
	address  string // of the database

	mu  sync.Mutex
	now time.Time
}

var id = grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "lab"}

const jane = "jane@acme.example"

func newWorld(t *testing.T, tune ...func(*sandbox.Options)) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)}
	w.server = postgrestest.Start(t, postgrestest.Options{Hasty: true, TLS: true})
	must(t, w.server.Restore("postgres", []byte(postgres.Schema(postgres.Role))))
	w.address = w.server.SocketURL(postgres.Role, "postgres")
	var err error
	o := sandbox.Options{Dir: t.TempDir(), Now: w.clock, Strict: true}
	for _, f := range tune {
		f(&o)
	}
	w.ups, err = sandbox.New(o)
	must(t, err)
	front := httptest.NewServer(w.ups)
	t.Cleanup(front.Close)
	w.url = front.URL
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	w.identity = filepath.Join(t.TempDir(), "identity.txt")
	must(t, os.WriteFile(w.identity, []byte(identity.String()+"\n"), 0o600))
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// host is a process on a host of its own.
type host struct {
	*keeper.Keeper
	w     *world
	vault *vault.Vault
	store *shared.Store
	db    *postgres.DB
}

// host begins a process of a host, whose directory lasts as long as the test.
func (w *world) host(dir, name string, tune ...func(*shared.Options)) *host {
	w.t.Helper()
	db := postgres.Open(postgres.Settings{URL: w.address, Private: true, Host: name, Patience: 3 * time.Second})
	w.t.Cleanup(db.Close)
	began := time.Now()
	o := shared.Options{
		DB: db, Dir: dir, Host: name, Keys: agefile.New(filepath.Join(dir, "vault"), w.identity).Keys,
		Terms: ledger.Terms{TakeOverAfter: 10 * time.Minute}, Patience: time.Second,
		Machine: func() string { return "machine of " + name }, Now: w.clock,
		Offset:  func(_, _ time.Time) time.Duration { return 0 }, // the tests' clock is everybody's
		Elapsed: func() time.Duration { return time.Since(began) },
		Wait: func(ctx context.Context, d time.Duration) error {
			select {
			case <-time.After(d):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
	for _, f := range tune {
		f(&o)
	}
	h := &host{w: w, db: db, store: shared.New(o)}
	h.vault = vault.New(h.store)
	transport := ups.NewTransport()
	w.t.Cleanup(transport.CloseIdleConnections)
	h.Keeper = &keeper.Keeper{
		Vault: h.vault, Now: w.clock, RetryUnknownAfter: time.Minute, Wait: o.Wait,
		Client: func(context.Context, grant.ID) (*ups.Client, error) {
			return &ups.Client{
				Environment: ups.Environment{Name: "lab", BaseURL: w.url, Origin: "https://ups.example"},
				Application: ups.Application{Name: "intelligent-rating", ClientID: "client-1", ClientSecret: "s3cret", RedirectURI: "http://127.0.0.1:0/callback", PKCE: ups.PKCEAuto},
				Transport:   transport, Now: w.clock,
			}, nil
		},
		Notice: func(_ context.Context, n keeper.Notice) { w.t.Logf("%s: %s", name, n.Text) },
	}
	return h
}

// authorize signs jane in for the company.
func (h *host) authorize() grant.Grant { return h.authorizeFor(id) }

func (h *host) authorizeFor(id grant.ID) grant.Grant {
	t := h.w.t
	t.Helper()
	ctx := t.Context()
	client, err := h.Client(ctx, id)
	must(t, err)
	s, err := h.Begin(ctx, keeper.Request{ID: id, Home: shared.HomeName, Client: client, Lasts: time.Minute})
	must(t, err)
	defer s.Close(ctx)
	back, err := sandbox.Person{User: jane, Password: "pw"}.Callback(ctx, s.Address(s.State()))
	must(t, err)
	u, err := url.Parse(back)
	must(t, err)
	_, err = s.Finish(ctx, grant.Callback{Code: u.Query().Get("code")})
	must(t, err)
	g, err := s.Keep(ctx)
	must(t, err)
	return g
}

// refreshes is how often UPS granted a refresh.
func (w *world) refreshes() (granted int) {
	for _, e := range w.ups.Refreshes() {
		if e.Endpoint == "refresh" && e.Outcome == sandbox.Committed {
			granted++
		}
	}
	return granted
}

// cut ends a process at a moment: before or after one of its calls.
type cut struct{ at string }

// moments is told of every moment of a process, and may end it.
type moments func(moment string)

func (m moments) around(call string, do func() error) error {
	m("before " + call)
	err := do()
	m("after " + call)
	return err
}

// wired is a vault whose process can end at any of its calls.
type wired struct {
	keeper.Vault
	m moments
}

func (v wired) Record(ctx context.Context, id grant.ID) (r grant.Record, err error) {
	err = v.m.around("Record", func() error { r, err = v.Vault.Record(ctx, id); return err })
	return r, err
}

func (v wired) Attempts(ctx context.Context, id grant.ID) (all []grant.Journal, err error) {
	err = v.m.around("Attempts", func() error { all, err = v.Vault.Attempts(ctx, id); return err })
	return all, err
}

func (v wired) Claim(ctx context.Context, j *grant.Journal) error {
	return v.m.around("Claim", func() error { return v.Vault.Claim(ctx, j) })
}

func (v wired) LastLook(ctx context.Context, j grant.Journal) error {
	return v.m.around("LastLook", func() error { return v.Vault.LastLook(ctx, j) })
}

func (v wired) Seal(ctx context.Context, j *grant.Journal, old *grant.Grant, answer []byte) error {
	return v.m.around("Seal", func() error { return v.Vault.Seal(ctx, j, old, answer) })
}

func (v wired) Put(ctx context.Context, g grant.Grant, expected int64, settles *grant.Journal) error {
	return v.m.around("Put", func() error { return v.Vault.Put(ctx, g, expected, settles) })
}

func (v wired) Mark(ctx context.Context, j *grant.Journal) error {
	return v.m.around("Mark", func() error { return v.Vault.Mark(ctx, j) })
}

func (v wired) Note(ctx context.Context, id grant.ID, change func(*grant.Local)) error {
	return v.m.around("Note", func() error { return v.Vault.Note(ctx, id, change) })
}

func (v wired) Settle(ctx context.Context, r grant.Record) error {
	return v.m.around("Settle", func() error { return v.Vault.Settle(ctx, r) })
}

// until runs do, and reports whether the process was ended at the moment. What it holds of
// this machine's the system takes back, as here the deferred calls do.
func (h *host) until(moment string, do func()) (ended bool) {
	over := false
	h.Vault = wired{h.vault, func(now string) {
		if over || now == moment {
			over = true
			panic(cut{now})
		}
	}}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(cut); !ok {
				panic(r)
			}
			ended = true
		}
	}()
	do()
	return false
}

// later lets time go by in the database: every claim is so much older.
func (w *world) later(d time.Duration) {
	w.t.Helper()
	_, err := w.server.SQL("postgres", fmt.Sprintf("UPDATE upsauth.claims SET time = time - interval '%d s'", int(d.Seconds())))
	must(w.t, err)
}

// reused is how often UPS was sent a token that it had replaced.
func (w *world) reused() (n int) {
	for _, e := range w.ups.Refreshes() {
		if e.Outcome == sandbox.Reused {
			n++
		}
	}
	return n
}

func is[T error](err error) bool { return errors.As(err, new(T)) }

// named is the grant of a company of which nothing else is known.
func named(company string) grant.ID {
	return grant.ID{Company: company, Application: id.Application, Environment: id.Environment}
}

// behind is a company whose slot is listed after that of another.
func behind(first grant.ID) grant.ID {
	for i := 0; ; i++ {
		if c := named(fmt.Sprintf("Zeta %d", i)); c.Slot() > first.Slot() {
			return c
		}
	}
}

// deliver does what each command of a host begins with.
func (h *host) deliver() {
	t := h.w.t
	t.Helper()
	found, err := h.store.Undelivered(t.Context())
	if err != nil {
		t.Errorf("what is to be delivered: %v", err)
	}
	for _, id := range found {
		if _, err := h.Settle(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// sealed is a process that is ended once its answer is sealed.
func (h *host) sealed(id grant.ID) {
	h.w.t.Helper()
	if !h.until("after Seal", func() { _, _ = h.Refresh(h.w.t.Context(), id, keeper.Need{Always: true}) }) {
		h.w.t.Fatal("it was not ended")
	}
}

// remember returns what puts the database back to this moment.
func (w *world) remember() (forget func()) {
	w.t.Helper()
	dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
	must(w.t, err)
	return func() {
		w.t.Helper()
		must(w.t, w.server.Restore("postgres", dump))
	}
}

// sharing are two hosts that share two grants. The first has signed in for both and knows the
// tokens of the second, which has refreshed them.
func (w *world) sharing(dirA, dirB string) (a, b *host) {
	t := w.t
	t.Helper()
	a, b = w.host(dirA, "web-1"), w.host(dirB, "web-2")
	for _, id := range []grant.ID{id, other} {
		a.authorizeFor(id)
		_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
		must(t, err)
		_, err = a.Token(t.Context(), id, 0)
		must(t, err)
	}
	return a, b
}
