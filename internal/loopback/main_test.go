package loopback

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testState = "S7ate.of~this-login"
	testCode  = "C0de/of+this=login"
	patience  = 20 * time.Second // for what must happen, on the slowest machine
)

// testConfig is a login and where its answer arrives.
type testConfig struct {
	RedirectURI, State, Issuer, Listen string
	TLS                                *tls.Config
}

// testServer is a login with a listener of its own, the lines they logged and the
// address to dial.
type testServer struct {
	*Handler
	*Listener
	lines chan string
}

// open is what a sign-in at the terminal does.
func open(ctx context.Context, c testConfig) (*testServer, error) {
	return openWith(ctx, c, nil, defaultLimits())
}

func openWith(ctx context.Context, c testConfig, log func(string), lim limits) (*testServer, error) {
	l, err := listen(ctx, Place{RedirectURI: c.RedirectURI, Listen: c.Listen, TLS: c.TLS, Log: log}, lim)
	if err != nil {
		return nil, err
	}
	h, err := newHandler(Config{RedirectURI: l.RedirectURI(), State: c.State, Issuer: c.Issuer, Front: l.Front(), Log: log}, lim)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.Serve(h, h.Fail)
	return &testServer{Handler: h, Listener: l}, nil
}

func (s *testServer) Close() error {
	s.Handler.Close()
	return s.Listener.Close()
}

func start(t *testing.T, c testConfig, tune ...func(*limits)) *testServer {
	t.Helper()
	if c.RedirectURI == "" {
		c.RedirectURI = "http://127.0.0.1:0/callback"
	}
	if c.State == "" {
		c.State = testState
	}
	lines := make(chan string, 30_000)
	log := func(line string) {
		if strings.Contains(line, testState) || strings.Contains(line, testCode) || strings.ContainsAny(line, "?=\r\n") {
			t.Errorf("a log line tells of the request: %q", line)
		}
		lines <- line
	}
	lim := defaultLimits()
	for _, f := range tune {
		f(&lim)
	}
	s, err := openWith(t.Context(), c, log, lim)
	if err != nil {
		t.Fatal(err)
	}
	s.lines = lines
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *testServer) addr() string { return s.Addrs()[0] }

// host is the redirect URI's host as a browser sends it.
func (s *testServer) host() string {
	u, _ := url.Parse(s.RedirectURI())
	return u.Host
}

// answer is the request line's target for the login's answer.
func (s *testServer) answer(params ...string) string {
	q := url.Values{}
	for i := 0; i < len(params); i += 2 {
		q.Add(params[i], params[i+1])
	}
	return s.login.redirect.path + "?" + q.Encode()
}

func (s *testServer) good() string { return s.answer("code", testCode, "state", testState) }

// untouched fails the test if anything counted as the login's answer.
func (s *testServer) untouched(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		t.Fatal("the login took an answer that is not its own")
	}
}

// donePath is where the page of the answer that is in stands, or will.
func (s *testServer) donePath() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.path
}

func (s *testServer) logged(t *testing.T, part string) {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case line := <-s.lines:
			if strings.Contains(line, part) {
				return
			}
		case <-limit:
			t.Fatalf("no log line with %q came", part)
		}
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// reply is an HTTP answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

// send writes raw on a connection of its own and reads the answer.
func send(t *testing.T, addr, raw string) reply {
	t.Helper()
	c := dial(t, addr)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		_, _ = io.WriteString(c, raw) // a server that has read enough hangs up
	}()
	method, _, _ := strings.Cut(raw, " ")
	r := receive(t, c, method)
	c.Close()
	<-wrote
	return r
}

func receive(t *testing.T, c net.Conn, method string) reply {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("the answer broke off: %v", err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

func get(target, host string, headers ...string) string {
	return request("GET", target, host, "", headers...)
}

func request(method, target, host, body string, headers ...string) string {
	raw := method + " " + target + " HTTP/1.1\r\n"
	if host != "" {
		raw += "Host: " + host + "\r\n"
	}
	for _, h := range headers {
		raw += h + "\r\n"
	}
	return raw + "\r\n" + body
}

// visit sends the login's good answer on a connection that stays open, and
// returns it once the server has the answer.
func (s *testServer) visit(t *testing.T) net.Conn {
	t.Helper()
	c := dial(t, s.addr())
	if _, err := io.WriteString(c, get(s.good(), s.host())); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
	return c
}

func (s *testServer) wait(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cb, err := s.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := (grant.Callback{Code: testCode}); cb != want {
		t.Fatalf("Wait returned %#v, another callback than the browser's", cb)
	}
}

// finish ends a login whose browser waits on c, and returns the page it is shown.
func (s *testServer) finish(t *testing.T, c net.Conn, p Page) reply {
	t.Helper()
	finished := make(chan error, 1)
	go func() { finished <- s.Finish(t.Context(), p) }()
	page := s.follow(t, receive(t, c, "GET"))
	select {
	case err := <-finished:
		if err != nil {
			t.Errorf("Finish: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Finish did not return though its page was served")
	}
	return page
}

func (s *testServer) follow(t *testing.T, r reply) reply {
	t.Helper()
	if r.status != http.StatusSeeOther {
		t.Fatalf("the browser that waited got %d, want 303", r.status)
	}
	to := r.header.Get("Location")
	if !strings.HasPrefix(to, "/done/") || len(to) < len("/done/")+20 {
		t.Fatalf("the browser was sent to %q", to)
	}
	r = send(t, s.addr(), get(to, s.host()))
	if r.status != http.StatusOK {
		t.Fatalf("the result page has status %d", r.status)
	}
	return r
}

// login goes through a whole login and fails the test if that is not possible.
func (s *testServer) loginWorks(t *testing.T) {
	t.Helper()
	page := s.finish(t, s.visit(t), Page{OK: true, Heading: "All is well"})
	if !strings.Contains(page.body, "All is well") {
		t.Errorf("the result page does not say what Finish said:\n%s", page.body)
	}
}

// stillOpen fails the test if an answer comes on c.
func stillOpen(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := c.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the waiting request was answered or cut (%v)", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

func checkHeaders(t *testing.T, h http.Header) {
	t.Helper()
	want := map[string]string{
		"Cache-Control":              "no-store",
		"Referrer-Policy":            "no-referrer",
		"X-Content-Type-Options":     "nosniff",
		"Cross-Origin-Opener-Policy": "same-origin",
		"Server":                     "",
		"Set-Cookie":                 "",
	}
	for name, value := range want {
		if got := h.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	policy := h.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "style-src 'sha256-", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the Content-Security-Policy %q lacks %s", policy, part)
		}
	}
	if strings.Contains(policy, "script") || strings.Contains(policy, "unsafe") {
		t.Errorf("the Content-Security-Policy %q is too wide", policy)
	}
}
