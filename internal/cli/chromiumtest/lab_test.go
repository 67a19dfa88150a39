package chromiumtest

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/cli"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// sandboxDir is the state of all sandboxes, because making the key that is in
// it takes long under the race detector.
var sandboxDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "chromiumtest-") })

// lab is a sandbox with a door before its token endpoint.
type lab struct {
	*sandbox.Server
	host    string
	arrived chan struct{} // gets a value for each exchange that comes to the door

	mu   sync.Mutex
	door chan struct{} // closed: it is open
}

func newLab(t *testing.T, options sandbox.Options) *lab {
	t.Helper()
	dir, err := sandboxDir()
	if err != nil {
		t.Fatal(err)
	}
	options.Dir = dir
	server, err := sandbox.New(options)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Server: server, arrived: make(chan struct{}, 100), door: make(chan struct{})}
	close(l.door)
	served := httptest.NewServer(l)
	t.Cleanup(served.Close)
	l.host = strings.TrimPrefix(served.URL, "http://")
	return l
}

func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/security/v1/oauth/token" {
		l.mu.Lock()
		door := l.door
		l.mu.Unlock()
		l.arrived <- struct{}{}
		<-door
	}
	l.Server.ServeHTTP(w, r)
}

// hold shuts the door until release is called.
func (l *lab) hold(t *testing.T) (release func()) {
	door := make(chan struct{})
	l.mu.Lock()
	l.door = door
	l.mu.Unlock()
	release = sync.OnceFunc(func() { close(door) })
	t.Cleanup(release)
	return release
}

// signInURL is where an application that is no part of this program sends a
// browser.
func (l *lab) signInURL(redirectURI string) string {
	return "http://" + l.host + "/security/v1/oauth/authorize?" + url.Values{
		"client_id": {"another-application"}, "redirect_uri": {redirectURI}, "response_type": {"code"}, "state": {callbackState},
	}.Encode()
}

// terminal is where commands run, in this process and with directories of their
// own.
type terminal struct {
	t           *testing.T
	env         *cli.Env
	settings    map[string]string
	out, errOut lockedBuffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	dir := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identityFile := filepath.Join(dir, "identity.txt")
	if err := os.WriteFile(identityFile, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	term := &terminal{t: t, settings: map[string]string{
		"UPSAUTH_CONFIG_DIR": filepath.Join(dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": identityFile,
	}}
	term.env = &cli.Env{
		In: strings.NewReader(""), Out: &term.out, Err: &term.errOut,
		Getenv:  func(name string) string { return term.settings[name] },
		Environ: func() []string { return nil },
		Now:     time.Now, Zone: time.UTC, Transport: transport,
	}
	return term
}

// at makes the lab the environment of that name.
func (term *terminal) at(l *lab) *terminal {
	term.t.Helper()
	dir := term.settings["UPSAUTH_CONFIG_DIR"]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		term.t.Fatal(err)
	}
	config := "[environments.lab]\nbase_url = \"http://" + l.host + "\"\n"
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		term.t.Fatal(err)
	}
	term.settings["UPSAUTH_CLIENT_ID"] = "lab-client"
	term.settings["UPSAUTH_CLIENT_SECRET"] = "lab-secret"
	term.settings["UPSAUTH_REDIRECT_URI"] = "http://localhost:0/callback"
	return term
}

// run runs a command to its end and returns what it writes on standard output.
func (term *terminal) run(args ...string) (exit int, out string) {
	before := len(term.out.String())
	exit = cli.Run(context.Background(), term.env, args)
	return exit, term.out.String()[before:]
}

// login is an upsauth authorize that waits for its browser.
type login struct {
	*terminal
	address   string // where the browser is sent
	lab       string // the host of the server that it signs in at
	exit      chan int
	interrupt func()
}

func (term *terminal) authorize(company string, flags ...string) *login {
	term.t.Helper()
	l := &login{terminal: term, exit: make(chan int, 1)}
	addresses := make(chan string, 1)
	term.env.OpenBrowser = func(_ context.Context, address string, _ func(string, error)) error {
		addresses <- address
		return nil
	}
	ctx, interrupt := context.WithCancel(context.Background())
	l.interrupt = interrupt
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.exit <- cli.Run(ctx, term.env, append([]string{"authorize", "--company", company}, flags...))
	}()
	term.t.Cleanup(func() {
		interrupt()
		<-ended
	})
	select {
	case l.address = <-addresses:
	case exit := <-l.exit:
		term.t.Fatalf("exit code %d before the browser opened:\n%s", exit, &term.errOut)
	}
	return l
}

// labLogin is a login of the company at the lab.
func labLogin(t *testing.T, l *lab, company string) *login {
	t.Helper()
	login := newTerminal(t).at(l).authorize(company, "--env", "lab", "--app", "intelligent-rating")
	login.lab = l.host
	return login
}

// hosts are those that the login's browser has to do with.
func (l *login) hosts() []string {
	l.t.Helper()
	callback, err := url.Parse(l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	return []string{l.lab, callback.Host}
}

// wantAwaited fails the test unless the terminal says so and goes on waiting.
func (l *login) wantAwaited(why string) {
	l.t.Helper()
	l.wantTerminal(why)
	l.wantTerminal("The sign-in waits until ")
	select {
	case exit := <-l.exit:
		l.t.Fatalf("exit code %d although the sign-in should be awaited\n%s", exit, &l.errOut)
	default:
	}
}

// wantTerminal waits until the terminal says so.
func (l *login) wantTerminal(text string) {
	l.t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(l.errOut.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("the terminal does not say %q:\n%s", text, &l.errOut)
		}
	}
}

func (l *login) wantExit(want int) {
	l.t.Helper()
	select {
	case got := <-l.exit:
		if got != want {
			l.t.Errorf("exit code %d, not %d\n%s", got, want, &l.errOut)
		}
	case <-time.After(patience):
		l.t.Fatalf("the command does not end\n%s", &l.errOut)
	}
}

// wantStatus fails the test unless the company is authorized, by that user.
func (l *login) wantStatus(company, user string) {
	l.t.Helper()
	exit, out := l.run("status", "--company", company, "-o", "json")
	if exit != 0 || !strings.Contains(out, `"authorized"`) || !strings.Contains(out, `"`+user+`"`) {
		l.t.Errorf("%s is not authorized by %s: exit code %d\n%s", company, user, exit, out)
	}
}

// enter fills in the first page.
func (b *tab) enter(user string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx,
		chromedp.SendKeys(chromedp.CSS("#username"), user), chromedp.Click(chromedp.CSS("#agree")),
	); err != nil {
		b.t.Fatal(err)
	}
	b.follow("button[value=continue]")
}

// paste fills in the first page with a name that no keyboard has.
func (b *tab) paste(user string) {
	b.t.Helper()
	run(b, chromedp.SetValue(chromedp.CSS("#username"), user))
	b.enter("")
}

// typePassword fills in the second page and sends nothing.
func (b *tab) typePassword(password string) {
	b.t.Helper()
	run(b, chromedp.SendKeys(chromedp.CSS("#password"), password))
}

// logIn fills in the second page.
func (b *tab) logIn(password string) {
	b.t.Helper()
	b.typePassword(password)
	b.follow("button[value=login]")
}

// signIn goes through both pages from the address on, to the last.
func (b *tab) signIn(address, user string) {
	b.t.Helper()
	b.open(address)
	b.paste(user)
	b.logIn("right")
}

const (
	forgotLink       = "a[href^='/lasso/forgot?']"
	somebodyElseLink = "a[href^='/lasso/signin?']"
)

// lockedBuffer is a buffer that a command writes while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
