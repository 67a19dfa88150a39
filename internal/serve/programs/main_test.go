package programs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	gokeyring "github.com/zalando/go-keyring"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

func TestMain(m *testing.M) {
	if act := os.Getenv("PROGRAMS_TEST_PROCESS"); act != "" {
		os.Exit(process(act))
	}
	goleak.VerifyTestMain(m)
}

const (
	redirectURI = "http://localhost:0/callback"
	publicURL   = "http://localhost:8489" // where customers' browsers come
)

// clock is a clock that a test sets ahead.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }

// world is UPS, the directories of one user, and a service's handler over them.
type world struct {
	testing.TB
	clock
	dir       string
	settings  map[string]string
	ups       *httptest.Server
	refreshes atomic.Int64
	// before is called before UPS answers a request for tokens.
	before   atomic.Pointer[func(*http.Request)]
	ring     *ring
	home     string // of new grants
	s        *session.Session
	keys     *keys.Book
	programs *Programs
}

// ring is a keychain in memory, whose writes can hang as one that asks a person does.
type ring struct {
	mu    sync.Mutex
	items map[string]string
	hangs chan struct{} // nil where it answers
}

func (r *ring) Get(_, account string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if secret, ok := r.items[account]; ok {
		return secret, nil
	}
	return "", gokeyring.ErrNotFound
}

func (r *ring) Set(_, account, secret string) error {
	r.mu.Lock()
	hangs := r.hangs
	r.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items[account] = secret
	return nil
}

func (r *ring) Delete(_, account string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.items, account)
	return nil
}

func (r *ring) hang(until chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hangs = until
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir(), ring: &ring{items: map[string]string{}}, home: "file"}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("identity.txt", identity.String()+"\n")
	authority, err := sandbox.New(sandbox.Options{Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.ups = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/refresh") {
			w.refreshes.Add(1)
		}
		if before := w.before.Load(); before != nil {
			(*before)(r)
		}
		authority.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.ups.Close)
	w.write("config/config.toml", fmt.Sprintf("[environments.lab]\nbase_url = %q\n[environments.lab2]\nbase_url = %q\n[serve]\npublic_url = %q\nreturn_urls = [\"https://shop.example/done\"]\n", w.ups.URL, w.ups.URL, publicURL))
	w.settings = map[string]string{
		"HOME": w.dir, "USERPROFILE": w.dir, "UPSAUTH_CONFIG_DIR": filepath.Join(w.dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(w.dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(w.dir, "identity.txt"),
	}
	w.s = w.open()
	for _, environment := range []string{"lab", "lab2"} {
		for _, name := range []string{"rating", "batch"} {
			w.register(name, environment)
		}
	}
	w.keys = keys.Open(filepath.Join(w.dir, "state", "keys.json"), keys.Options{Places: w.s.Places, Now: w.Now, Log: t.Logf})
	o := Options{
		Session: func(context.Context) (*session.Session, error) { return w.s, nil },
		Keys:    w.keys, Now: w.Now, Log: t.Logf,
	}
	for _, change := range change {
		change(&o)
	}
	w.programs = New(o)
	t.Cleanup(func() {
		w.programs.Close()
		if err := w.keys.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// open is another process's session: nothing of it is shared but the files.
func (w *world) open() *session.Session {
	w.Helper()
	transport := ups.NewTransport()
	w.Cleanup(transport.CloseIdleConnections)
	s, err := session.Open(session.Options{
		Getenv: func(name string) string { return w.settings[name] }, Now: w.Now, Transport: transport,
		Keychain: w.ring, KeychainDeadline: 100 * time.Millisecond,
	})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(s.Close)
	return s
}

func (w *world) write(name, text string) {
	w.Helper()
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

func (w *world) register(name, environment string) {
	w.Helper()
	r := config.Registration{Name: name, Environment: environment, ClientID: "client-" + name, RedirectURI: redirectURI, Home: "file"}
	if name == "rating" { // nobody can be invited for batch
		r.PublicRedirectURI = publicURL + "/callback"
	}
	err := w.s.EditApplications(w.Context(), func(a *config.Applications, save func() error) error {
		return w.s.AddSecret(w.Context(), a, save, r, "s3cret")
	})
	if err != nil {
		w.Fatal(err)
	}
}

// authorize has a person sign in for a company.
func authorize(ctx context.Context, s *session.Session, id grant.ID, home string) error {
	client, err := s.ClientFor(ctx, id)
	if err != nil {
		return err
	}
	signIn, err := s.Keeper.Begin(ctx, keeper.Request{ID: id, Home: home, Client: client, Lasts: time.Minute})
	if err != nil {
		return err
	}
	defer signIn.Close(ctx)
	back, err := sandbox.Person{User: "user of " + id.Company, Password: "any"}.Callback(ctx, signIn.Address(signIn.State()))
	if err != nil {
		return err
	}
	u, err := url.Parse(back)
	if err != nil {
		return err
	}
	if _, err := signIn.Finish(ctx, grant.Callback{Code: u.Query().Get("code"), Error: u.Query().Get("error")}); err != nil {
		return err
	}
	_, err = signIn.Keep(ctx)
	return err
}

func (w *world) authorize(company, application, environment string) grant.ID {
	w.Helper()
	id := grant.ID{Company: company, Application: application, Environment: environment}
	if err := authorize(w.Context(), w.open(), id, w.home); err != nil {
		w.Fatal(err)
	}
	return id
}

// identify is the identity of a company.
func (w *world) identify(company string) string {
	w.Helper()
	_, id, err := w.s.Identify(w.Context(), company)
	if err != nil {
		w.Fatal(err)
	}
	return id
}

// key makes a key and returns it.
func (w *world) key(name string, scope keys.Scope) string {
	w.Helper()
	secret, err := w.keys.Add(w.Context(), name, scope)
	if err != nil {
		w.Fatal(err)
	}
	return secret
}

// reply is an answer to a request.
type reply struct {
	*httptest.ResponseRecorder
	Error struct {
		ExitCode int    `json:"exit_code"`
		Class    string `json:"class"`
		Message  string `json:"message"`
		Advice   string `json:"advice"`
	} `json:"error"`
	AccessToken string `json:"access_token"`
	Company     string `json:"company"`
	Application string `json:"application"`
}

// ask makes one request of the handler. Secret is the key, empty for none.
func (w *world) ask(secret, method, target string) reply {
	w.Helper()
	r := httptest.NewRequest(method, "http://x"+target, nil)
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	return w.do(r, false)
}

func (w *world) do(r *http.Request, keyed bool) reply {
	w.Helper()
	recorder := httptest.NewRecorder()
	w.programs.Handler(keyed).ServeHTTP(recorder, r)
	a := reply{ResponseRecorder: recorder}
	if recorder.Header().Get("Content-Type") == kindJSON && r.Method != http.MethodHead {
		if err := json.Unmarshal(recorder.Body.Bytes(), &a); err != nil {
			w.Errorf("%s %s: %v in %s", r.Method, r.URL, err, recorder.Body)
		}
	}
	if got := recorder.Header().Get("Content-Length"); r.Method != http.MethodHead && got != fmt.Sprint(recorder.Body.Len()) {
		w.Errorf("%s %s: Content-Length %q of %d bytes", r.Method, r.URL, got, recorder.Body.Len())
	}
	if got := recorder.Header().Get("Cache-Control"); got != "no-store" {
		w.Errorf("%s %s: Cache-Control %q", r.Method, r.URL, got)
	}
	return a
}

// token asks for a company's token, with other parameters behind it.
func (w *world) token(company string, more ...string) reply {
	w.Helper()
	return w.ask("", http.MethodGet, "/v1/token?"+strings.Join(append([]string{"company=" + url.QueryEscape(company)}, more...), "&"))
}

// serve serves the handler over a unix socket, and returns a client of it.
func (w *world) serve(keyed bool) *http.Client {
	w.Helper()
	dir, err := os.MkdirTemp("", "programs") // a socket's path must be short
	if err != nil {
		w.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		w.Fatal(err)
	}
	server := &http.Server{Handler: w.programs.Handler(keyed), ReadHeaderTimeout: time.Minute}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	transport := &http.Transport{
		MaxIdleConnsPerHost: 512,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}
	w.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		served.Wait()
		_ = os.RemoveAll(dir)
	})
	return &http.Client{Transport: transport}
}

func get(t testing.TB, client *http.Client, target string) (status int, body []byte) {
	t.Helper()
	response, err := client.Get("http://x" + target)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, bytes.TrimSpace(body)
}

// ask makes a request that is answered well.
func ask(t testing.TB, client *http.Client, secret, path string) {
	r, err := http.NewRequest(http.MethodGet, "http://x"+path, nil)
	if err != nil {
		t.Error(err)
		return
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("%s: %d, %v", path, response.StatusCode, err)
	}
}

// process is what another process does with the same files.
func process(act string) int {
	verb, name, _ := strings.Cut(act, " ")
	s, err := session.Open(session.Options{Getenv: os.Getenv, Now: time.Now, Transport: ups.NewTransport()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Close()
	ctx := context.Background()
	id := grant.ID{Company: name, Application: "rating", Environment: "lab"}
	switch verb {
	case "authorize":
		err = authorize(ctx, s, id, "file")
	case "revoke":
		err = s.Keeper.Revoke(ctx, id)
	case "refresh":
		_, err = s.Keeper.Refresh(ctx, id, keeper.Need{Always: true})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
