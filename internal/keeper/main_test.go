package keeper_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

func TestMain(m *testing.M) {
	if os.Getenv(envFinisher) != "" {
		finishHere()
		return
	}
	goleak.VerifyTestMain(vaulttest.Stores{M: m})
}

const (
	retryUnknownAfter = 60 * time.Second
	lifetime          = 3599 * time.Second // of an access token, as the sandbox announces it
	patience          = 20 * time.Second   // for what must happen, on the slowest machine
)

// signingKey is the key of every sandbox here, because making one takes long
// under the race detector.
var signingKey = sync.OnceValues(func() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
})

// clock stands still unless it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is UPS, one machine's disk or a database, and a company. What is the same for
// several companies is shared by the worlds that of returns.
type world struct {
	t         *testing.T
	clock     *clock // this machine's
	upsClock  *clock
	ups       *sandbox.Server
	front     *front
	client    ups.Client
	transport *http.Transport
	place
	identity string
	browsers *sync.WaitGroup

	id   grant.ID
	user string

	// onStore, where set, is told of every call that a process makes of its store.
	onStore wire
}

// place is where grants are: in a directory, or in a database where there is one.
type place struct {
	dir    string
	memory *vaulttest.Memory
}

func newPlace(t *testing.T) place {
	if vaulttest.InMemory() {
		return place{memory: vaulttest.New()}
	}
	return place{dir: tempDir(t)}
}

// onDisk skips what is of this machine's files alone.
func onDisk(t *testing.T, why string) {
	t.Helper()
	if vaulttest.InMemory() {
		t.Skip("of files alone: " + why)
	}
}

// newWorld has a strict UPS, unless tuned otherwise: a refresh token that comes
// a second time voids all that descends from its sign-in.
func newWorld(t *testing.T, tune ...func(*sandbox.Options)) *world {
	t.Helper()
	t.Logf("the store is %s", vaulttest.StoreName())
	start := time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
	w := &world{
		t: t, clock: &clock{now: start}, upsClock: &clock{now: start},
		place: newPlace(t), browsers: &sync.WaitGroup{},
		id:   grant.ID{Company: "Acme Corp", Application: "intelligent-rating", Environment: "lab"},
		user: "jane@acme.example",
	}
	options := sandbox.Options{Dir: tempDir(t), Now: w.upsClock.Now, Strict: true}
	for _, f := range tune {
		f(&options)
	}
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(options.Dir, "key.pem"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if w.ups, err = sandbox.New(options); err != nil {
		t.Fatal(err)
	}
	w.front = &front{next: w.ups, count: map[string]int{}}
	server := httptest.NewServer(w.front)
	w.transport = ups.NewTransport()
	t.Cleanup(func() {
		w.browsers.Wait()
		w.transport.CloseIdleConnections()
		server.Close()
	})
	w.client = ups.Client{
		Environment: ups.Environment{Name: "lab", BaseURL: server.URL, Origin: "https://ups.example"},
		Application: ups.Application{Name: "intelligent-rating", ClientID: "client-1", ClientSecret: "s3cret",
			RedirectURI: "http://127.0.0.1:0/callback", PKCE: ups.PKCEAuto},
		Transport: w.transport, Now: w.clock.Now,
	}

	w.identity = filepath.Join(tempDir(t), "identity.txt")
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.identity, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// tempDir is t.TempDir, in memory where the system has a place for that: these
// tests wait for ten thousand fsyncs, and a busy disk takes its time for each.
func tempDir(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" { // under wine there is such a directory too
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "upsauth-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// of is the same world with another company, in another place.
func (w *world) of(t *testing.T, company string) *world {
	t.Helper()
	other := *w
	other.t, other.id.Company, other.place = t, company, newPlace(t)
	other.user = "jane@" + grant.CompanySlot(company)[:8] + ".example"
	return &other
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	w.clock.move(d)
	w.upsClock.move(d)
}

// front stands before UPS, counts what comes, and can change what goes.
type front struct {
	next http.Handler

	mu      sync.Mutex
	count   map[string]int // requests by endpoint
	arrives func(endpoint string)
	change  func(endpoint string, a *answer)
	served  func(endpoint string)
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint := path.Base(r.URL.Path)
	f.mu.Lock()
	f.count[endpoint]++
	arrives, change, served := f.arrives, f.change, f.served
	f.mu.Unlock()
	if served != nil {
		defer served(endpoint)
	}
	if arrives != nil {
		arrives(endpoint)
	}
	if change == nil {
		f.next.ServeHTTP(w, r)
		return
	}
	recorded := httptest.NewRecorder()
	f.next.ServeHTTP(recorded, r)
	a := &answer{recorded.Code, recorded.Header(), recorded.Body.Bytes()}
	change(endpoint, a)
	a.header.Del("Content-Length")
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

func (f *front) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *front) counted(endpoint string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[endpoint]
}

// fields are those of a token answer; a change of them is written back.
func (a *answer) fields(t *testing.T, change func(map[string]any)) {
	fields := map[string]any{}
	if err := json.Unmarshal(a.body, &fields); err != nil {
		t.Errorf("the answer to be changed is not JSON: %v", err)
		return
	}
	change(fields)
	body, err := json.Marshal(fields)
	if err != nil {
		t.Error(err)
	}
	a.body = body
}

// process is one run of upsauth in the world's place.
type process struct {
	keeper.Keeper
	w     *world
	wire  wire
	vault *vault.Vault
	disk  *files.Store // nil in memory
	home  vault.Home

	seen   keeper.Seen // what it read of the grant first, for whoever tells it
	waits  []time.Duration
	during func() // called in every wait

	gone atomic.Bool // it was ended

	mu   sync.Mutex
	said []string
	held []func() // unlocks
}

// start begins a process. The wire, nil for none, is laid through everything
// that it does outside of itself.
func (w *world) start(wire wire) *process {
	p := &process{w: w}
	wire = wire.of(p)
	p.wire = wire
	var store vault.Store
	if w.memory != nil {
		p.home = wiredHome{w.memory.Home("file"), wire}
		store = w.memory.With(p.home)
	} else {
		p.home = wiredHome{agefile.New(filepath.Join(w.dir, "vault"), w.identity), wire}
		p.disk = files.New(w.dir, vault.Homes{p.home})
		store = p.disk
	}
	if w.onStore != nil {
		store = wiredStore{store, w.onStore}
	}
	p.vault = vault.New(store)
	p.Keeper = keeper.Keeper{
		Vault: wiredVault{p.vault, wire, p},
		Client: func(context.Context, grant.ID) (*ups.Client, error) {
			client := w.client
			client.Transport = wiredTransport{client.Transport, wire}
			return &client, nil
		},
		Now: w.clock.Now, RetryUnknownAfter: retryUnknownAfter,
		Wait: func(ctx context.Context, d time.Duration) error {
			p.mu.Lock()
			p.waits = append(p.waits, d)
			p.mu.Unlock()
			w.pass(d)
			if p.during != nil {
				p.during()
			}
			return ctx.Err()
		},
		Notice: func(_ context.Context, n keeper.Notice) { p.hear(n.Text) },
	}
	return p
}

// authorization is a whole sign-in at this machine: who asks for it, how its answer
// gets here, and the person at the terminal.
type authorization struct {
	keeper.Request
	signin.Options
	Open    func(ctx context.Context, address string)
	Doubts  func(user string) bool // nil: never
	Confirm func(ctx context.Context, user string) error
	Learned func(needsBasic bool)
	Page    func(grant.Grant, error) loopback.Page
}

// Authorize is a whole sign-in, as authorize does it, with the wire on the way to UPS
// as well.
func (p *process) Authorize(ctx context.Context, a authorization) (g grant.Grant, err error) {
	client := *a.Client
	client.Transport = wiredTransport{client.Transport, p.wire}
	a.Request.Client = &client
	step := a.Step
	a.Options.Step = func(s signin.Step) {
		step(s)
		switch {
		case s.Kind == signin.Opening:
			a.Open(s.Open.Context, s.Open.Address)
		case s.Kind == signin.Learned && a.Learned != nil:
			a.Learned(s.NeedsBasic)
		case s.Kind == signin.Uncaught:
			p.hear(s.Err.Error())
		}
	}
	a.Options.Page = func(awaited *keeper.AwaitedError) loopback.Page { return a.Page(grant.Grant{}, awaited) }
	login, err := signin.Begin(ctx, &p.Keeper, a.Request, a.Options)
	if err != nil {
		return g, err
	}
	defer login.Close(ctx)
	defer func() {
		if r := recover(); r != nil {
			p.gone.Store(true) // nothing is cleared away behind a process that was killed
			panic(r)
		}
	}()
	outcome, err := login.Await(ctx)
	if err == nil {
		g, err = a.decide(ctx, login, outcome.User)
	}
	if saved := new(keeper.SavedError); errors.As(err, &saved) {
		login.Show(ctx, a.Page(g, nil))
		return g, err
	}
	login.Show(ctx, a.Page(g, err))
	return g, err
}

func (a authorization) decide(ctx context.Context, login *signin.SignIn, user string) (grant.Grant, error) {
	if a.ExpectUser == "" && a.Doubts != nil && a.Doubts(user) {
		login.MarkUnconfirmed(ctx)
		if err := a.Confirm(ctx, user); err != nil {
			login.Drop(ctx)
			return grant.Grant{}, err
		}
	}
	return login.Keep(ctx)
}

func (p *process) hear(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, line)
}

// heard reports whether the process said so.
func (p *process) heard(part string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.said, func(line string) bool { return strings.Contains(line, part) })
}

// run lets the process do f and end, by itself or where its wire ends it.
func (p *process) run(f func()) (cut bool) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case ended:
			cut = true
		default:
			panic(r)
		}
		// The system drops the locks of a process that is no more.
		for _, unlock := range p.held {
			unlock()
		}
	}()
	f()
	return false
}

// visit is how a person fared at the browser.
type visit struct {
	page sandbox.Page
	err  error
}

// login is an authorization with a person at the browser who signs in and
// agrees; visits gets what they see last.
func (w *world) login(visits chan<- visit) authorization {
	client := w.client
	return authorization{
		Request: keeper.Request{ID: w.id, Home: "file", Client: &client, Lasts: patience},
		Options: signin.Options{Timeout: patience, Step: func(signin.Step) {}},
		Open:    w.browser(visits, sandbox.Person.SignIn),
		Page: func(g grant.Grant, err error) loopback.Page {
			if err != nil {
				return loopback.Page{Heading: "It failed", Text: []string{err.Error()}}
			}
			return loopback.Page{OK: true, Heading: "It worked", Text: []string{g.TokenVaultKey}}
		},
	}
}

func (w *world) browser(visits chan<- visit, do func(sandbox.Person, context.Context, string) (sandbox.Page, error)) func(context.Context, string) {
	return w.browserOf(nil, visits, do)
}

// browserOf is browser with the cookies of an earlier visit.
func (w *world) browserOf(jar http.CookieJar, visits chan<- visit, do func(sandbox.Person, context.Context, string) (sandbox.Page, error)) func(context.Context, string) {
	ctx := w.t.Context()
	return func(_ context.Context, address string) {
		w.browsers.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			page, err := do(sandbox.Person{User: w.user, Password: "pw", HTTP: transport, Jar: jar}, ctx, address)
			if visits != nil {
				visits <- visit{page, err}
			}
		})
	}
}

// answer goes to where the sign-in begins and comes back with another answer than
// UPS's.
func (w *world) answer(ctx context.Context, p sandbox.Person, start string, params ...string) (sandbox.Page, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return sandbox.Page{}, err
	}
	p.Jar = jar
	callback, err := p.Callback(ctx, start)
	if err != nil {
		return sandbox.Page{}, err
	}
	u, err := url.Parse(callback)
	if err != nil {
		return sandbox.Page{}, err
	}
	query := url.Values{"state": u.Query()["state"]}
	for i := 0; i < len(params); i += 2 {
		query.Set(params[i], params[i+1])
	}
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return sandbox.Page{}, err
	}
	response, err := (&http.Client{Transport: p.HTTP, Jar: jar}).Do(request)
	if err != nil {
		return sandbox.Page{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return sandbox.Page{URL: response.Request.URL.String(), Status: response.StatusCode, Text: string(text)}, err
}

// authorize makes the company's grant.
func (w *world) authorize() grant.Grant {
	w.t.Helper()
	g, err := w.start(nil).Authorize(w.t.Context(), w.login(nil))
	if err != nil {
		w.t.Fatalf("authorizing: %v", err)
	}
	return g
}

// disk is what the machine has of a company, seen by a process of its own.
type disk struct {
	grant.Record             // of List, zero where there is none
	state        grant.State // empty where there is no record
	item         grant.Grant // zero where there is none
	journals     []grant.Journal
}

func (w *world) disk() disk {
	w.t.Helper()
	v := w.start(nil).vault
	records, problems, err := v.List(w.t.Context(), w.id.Company)
	if err != nil || len(problems) > 0 || len(records) > 1 {
		w.t.Fatalf("the records are not in order: %d of them, %v %v", len(records), err, problems)
	}
	var d disk
	if len(records) == 1 {
		d.Record, d.state = records[0], records[0].StateAt(w.clock.Now())
	}
	attempts, err := v.Attempts(w.t.Context(), w.id)
	if err != nil {
		w.t.Fatal(err)
	}
	d.item, err = v.Get(w.t.Context(), w.id)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) && !errors.Is(err, grant.ErrNoSecrets) {
		w.t.Fatal(err)
	}
	d.journals = unsettled(d, attempts)
	return d
}

// unsettled are the latest attempts, one of each Token Vault Key, at what the grant does
// not have.
func unsettled(d disk, attempts []grant.Journal) (left []grant.Journal) {
	byKey := map[string][]grant.Journal{}
	var keys []string
	for _, j := range attempts {
		if byKey[j.TokenVaultKey] == nil {
			keys = append(keys, j.TokenVaultKey)
		}
		byKey[j.TokenVaultKey] = append(byKey[j.TokenVaultKey], j)
	}
	for _, key := range keys {
		generation := int64(0)
		switch {
		case key == d.TokenVaultKey:
			generation = max(d.item.Generation, d.Generation)
		case byKey[key][0].Purpose == grant.Refreshing:
			continue // of an earlier grant of the company
		}
		if open, _ := grant.Unsettled(byKey[key], generation); len(open) > 0 {
			left = append(left, open[0])
		}
	}
	return left
}

// items are the account names in the home.
func (w *world) items() []string {
	w.t.Helper()
	var names []string
	if w.memory != nil {
		names, err := w.memory.Home("file").Accounts(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		return names
	}
	root := filepath.Join(w.dir, "vault")
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			name, _ = filepath.Rel(root, name)
			name = strings.TrimSuffix(filepath.ToSlash(name), ".age")
			if kind, key, ok := strings.Cut(name, "/"); ok {
				name = key + "/" + kind
			}
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// outcomes are what UPS made of the company's refresh tokens.
func (w *world) outcomes(o sandbox.Outcome) int {
	n := 0
	for _, e := range w.ups.Refreshes() {
		if e.Endpoint == "refresh" && e.User == w.user && e.Outcome == o {
			n++
		}
	}
	return n
}

// works reports whether UPS takes the access token.
func (w *world) works(accessToken string) bool {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.client.BaseURL+"/api/anything", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+accessToken)
	response, err := w.transport.RoundTrip(request)
	if err != nil {
		w.t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// requests calls f and returns how many refreshes reached UPS meanwhile.
func (w *world) requests(f func()) int {
	before := w.front.counted("refresh")
	f()
	return w.front.counted("refresh") - before
}

// inTheClear returns where beside a database's home, which a test does not encrypt, or
// on the machine's disk a secret can be read.
func (w *world) inTheClear(secret string) (found []string) {
	w.t.Helper()
	if w.memory != nil {
		for name, text := range w.memory.Texts() {
			if !strings.HasPrefix(name, "file/") && bytes.Contains(text, []byte(secret)) {
				found = append(found, name)
			}
		}
		return found
	}
	err := filepath.WalkDir(w.dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if bytes.Contains(data, []byte(secret)) {
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func (d disk) String() string {
	return fmt.Sprintf("generation %d, state %q, %d journals, %+v", d.Generation, d.state, len(d.journals), d.LastError)
}
