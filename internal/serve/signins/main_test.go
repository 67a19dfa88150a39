package signins_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/serve/signins"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	patience    = 20 * time.Second // for what must happen, on the slowest machine
	home        = "http://localhost:8488/"
	application = "mine"
)

// world is UPS over HTTP, and a state directory with one application whose redirect URI
// names a port.
type world struct {
	*session.Session
	t    *testing.T
	dir  string
	ups  *front
	port int
}

// front stands before UPS and can hold what comes.
type front struct {
	next http.Handler
	mu   sync.Mutex
	hold func(endpoint string)
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	if hold != nil {
		hold(path.Base(r.URL.Path))
	}
	f.next.ServeHTTP(w, r)
}

func (f *front) set(hold func(endpoint string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = hold
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server, err := sandbox.New(sandbox.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir(), ups: &front{next: server}, port: realpart.Port(t)}
	at := httptest.NewServer(w.ups)
	t.Cleanup(at.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("identity.txt", identity.String()+"\n")
	w.write("config/config.toml", fmt.Sprintf("[environments.lab]\nbase_url = %q\n", at.URL))
	w.Session = openSession(t, w.dir)
	w.register(application, fmt.Sprintf("http://localhost:%d/cb", w.port))
	return w
}

// openSession opens a session on a world's directory, as a process does.
func openSession(t testing.TB, dir string) *session.Session {
	settings := map[string]string{
		"HOME": dir, "USERPROFILE": dir, "UPSAUTH_CONFIG_DIR": filepath.Join(dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(dir, "identity.txt"),
	}
	transport := ups.NewTransport()
	s, err := session.Open(session.Options{
		Getenv: func(name string) string { return settings[name] }, Now: time.Now, Transport: transport,
	})
	if err != nil {
		if t == nil {
			panic(err)
		}
		t.Fatal(err)
	}
	if t != nil {
		t.Cleanup(func() {
			s.Close()
			transport.CloseIdleConnections()
		})
	}
	return s
}

func (w *world) write(name, text string) {
	w.t.Helper()
	at := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) register(name, redirectURI string) {
	w.t.Helper()
	r := config.Registration{Name: name, Environment: "lab", ClientID: "cid-" + name, RedirectURI: redirectURI, Home: "file"}
	err := w.EditApplications(w.t.Context(), func(a *config.Applications, save func() error) error {
		return w.AddSecret(w.t.Context(), a, save, r, "s3cret")
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// serve begins a service, which ends with the test.
func (w *world) serve(tune ...func(*signins.Options)) *signins.SignIns {
	w.t.Helper()
	o := signins.Options{
		Session: func(context.Context) (*session.Session, error) { return w.Session, nil },
		Home:    home, Timeout: patience, Log: w.t.Logf,
	}
	for _, f := range tune {
		f(&o)
	}
	all := signins.New(o)
	w.t.Cleanup(func() { w.close(all) })
	return all
}

func (w *world) close(all *signins.SignIns) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := all.Close(ctx); err != nil {
		w.t.Errorf("the service does not end: %v", err)
	}
}

func id(company string) grant.ID {
	return grant.ID{Company: company, Application: application, Environment: "lab"}
}

func request(company string) signins.Request {
	return signins.Request{ID: id(company), Another: true, Page: func(handle string) string { return home + "sign-in/" + handle }}
}

func (w *world) begin(all *signins.SignIns, r signins.Request) *signins.SignIn {
	w.t.Helper()
	one, err := all.Begin(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return one
}

// browser is a person's browser, with cookies of its own.
type browser struct {
	t *testing.T
	sandbox.Person
}

func (w *world) browser(user string) *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &browser{w.t, sandbox.Person{User: user, Password: "pw", HTTP: transport, Jar: jar}}
}

// signIn signs in at an address, and returns what the browser shows then.
func (b *browser) signIn(address string) string {
	b.t.Helper()
	page, err := b.SignIn(b.t.Context(), address)
	if err != nil {
		b.t.Fatalf("%s can't sign in: %v", b.User, err)
	}
	return page.Text
}

// callback is the address on which the browser would come back.
func (b *browser) callback(address string) string {
	b.t.Helper()
	back, err := b.Callback(b.t.Context(), address)
	if err != nil {
		b.t.Fatalf("%s can't sign in: %v", b.User, err)
	}
	return back
}

// get opens an address, and returns what is there.
func (b *browser) get(address string) (status int, header http.Header, body string) {
	b.t.Helper()
	client := &http.Client{Transport: b.HTTP, Jar: b.Jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(text), "</style>")
	return answer.StatusCode, answer.Header, strings.NewReplacer("<bdi>", "", "</bdi>", "").Replace(shown)
}

// until waits for a state.
func until(t *testing.T, one *signins.SignIn, state signins.State) signins.View {
	t.Helper()
	return untilIt(t, one, state, func(signins.View) bool { return true })
}

// untilIt waits for a state in which more is so.
func untilIt(t *testing.T, one *signins.SignIn, state signins.State, is func(signins.View) bool) signins.View {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		v := one.View()
		if v.State == state && is(v) {
			return v
		}
		if v.State.Over() || time.Now().After(end) {
			t.Fatalf("the sign-in for %s is %s (%v), not %s", v.ID, v.State, v.Err, state)
		}
	}
}

func over(t *testing.T, one *signins.SignIn) signins.View {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := one.Wait(ctx); err != nil {
		t.Fatalf("%s: %v", one.ID(), err)
	}
	return one.View()
}

// wantUser says who stands for a company, empty for nobody.
func (w *world) wantUser(company, user string) {
	w.t.Helper()
	record, err := w.Vault.Record(w.t.Context(), id(company))
	if errors.Is(err, grant.ErrNoGrant) && user == "" {
		return
	}
	if err != nil || record.User != user {
		w.t.Errorf("for %s stands %q, %v, not %q", company, record.User, err, user)
	}
}

// wantFree waits until nobody listens on the world's port, with IPv4 and IPv6.
func (w *world) wantFree() {
	w.t.Helper()
	for _, host := range []string{"127.0.0.1", "::1"} {
		address := net.JoinHostPort(host, strconv.Itoa(w.port))
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			l, err := net.Listen("tcp", address)
			if err == nil {
				_ = l.Close()
				break
			}
			if host == "::1" && !errors.Is(err, syscall.EADDRINUSE) {
				break // no IPv6
			}
			if time.Now().After(end) {
				w.t.Fatal(err)
			}
		}
	}
}

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %q", part, text)
		}
	}
}

// withQuery is an address with another value of a parameter.
func withQuery(t *testing.T, address, name, value string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}
