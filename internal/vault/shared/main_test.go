package shared_test

import (
	"context"
	"errors"
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

	mu  sync.Mutex
	now time.Time
}

var id = grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "lab"}

const jane = "jane@acme.example"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)}
	w.server = postgrestest.Start(t, postgrestest.Options{Hasty: true})
	must(t, w.server.Restore("postgres", []byte(postgres.Schema(postgres.Role))))
	var err error
	w.ups, err = sandbox.New(sandbox.Options{Dir: t.TempDir(), Now: w.clock, Strict: true})
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
	db := postgres.Open(postgres.Settings{URL: w.server.SocketURL(postgres.Role, "postgres"), Host: name, Patience: 3 * time.Second})
	w.t.Cleanup(db.Close)
	began := time.Now()
	o := shared.Options{
		DB: db, Dir: dir, Host: name, Keys: agefile.New(filepath.Join(dir, "vault"), w.identity).Keys,
		Terms: ledger.Terms{TakeOverAfter: 10 * time.Minute}, Patience: time.Second,
		Machine: func() string { return "machine of " + name }, Now: w.clock,
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
func (h *host) authorize() grant.Grant {
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

func is[T error](err error) bool { return errors.As(err, new(T)) }
