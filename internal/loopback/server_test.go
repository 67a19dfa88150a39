package loopback

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

func TestOneLogin(t *testing.T) {
	s := start(t, testConfig{})
	c := s.visit(t)
	stillOpen(t, c)
	page := s.finish(t, c, Page{OK: true, Title: "Acme Corp", Heading: "AUTHORIZED", Text: []string{"An OAuth token exists for this company!"}})
	checkHeaders(t, page.header)
	for _, want := range []string{"<title>Success: Acme Corp</title>", "AUTHORIZED", "An OAuth token exists for this company!", "You can close this window."} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q:\n%s", want, page.body)
		}
	}

	t.Run("reloaded", func(t *testing.T) {
		for range 3 {
			if r := send(t, s.addr(), get(s.donePath(), s.host())); r.body != page.body {
				t.Errorf("a reload shows something else (%d)", r.status)
			}
		}
	})
	t.Run("the same callback again", func(t *testing.T) {
		if again := s.follow(t, send(t, s.addr(), get(s.good(), s.host()))); again.body != page.body {
			t.Error("the same callback shows another page")
		}
	})
	t.Run("another callback", func(t *testing.T) {
		r := send(t, s.addr(), get(s.answer("code", "another", "state", testState), s.host()))
		if r.status != http.StatusConflict {
			t.Errorf("status %d, want 409", r.status)
		}
		s.wait(t)
	})
	t.Run("finished twice", func(t *testing.T) {
		if err := s.Finish(t.Context(), Page{}); err == nil {
			t.Error("a second Finish passed")
		}
	})
}

// Everything a stranger can send must be refused, tell nothing, and leave the login alone.
func TestRefused(t *testing.T) {
	s := start(t, testConfig{})
	host := s.host()
	_, port, _ := strings.Cut(host, ":")
	good := s.good()
	ok := []string{"code", testCode, "state", testState}

	tests := []struct {
		name   string
		raw    string
		status int
	}{
		{"wrong state", get(s.answer("code", testCode, "state", testState+"x"), host), 400},
		{"state's beginning", get(s.answer("code", testCode, "state", testState[:5]), host), 400},
		{"state in other case", get(s.answer("code", testCode, "state", strings.ToUpper(testState)), host), 400},
		{"no state", get(s.answer("code", testCode), host), 400},
		{"empty state", get(s.answer("code", testCode, "state", ""), host), 400},
		{"state twice", get(s.answer(append(ok, "state", testState)...), host), 400},
		{"right and wrong state", get(s.answer(append(ok, "state", "x")...), host), 400},
		{"code twice", get(s.answer(append(ok, "code", "x")...), host), 400},
		{"no code", get(s.answer("state", testState), host), 400},
		{"empty code", get(s.answer("code", "", "state", testState), host), 400},
		{"code and error", get(s.answer(append(ok, "error", "access_denied")...), host), 400},
		{"error with the wrong state", get(s.answer("error", "access_denied", "state", "x"), host), 400},
		{"error without state", get(s.answer("error", "access_denied"), host), 400},
		{"error twice", get(s.answer("error", "a", "error", "b", "state", testState), host), 400},
		{"no query", get("/callback", host), 400},
		{"state with a bad escape", get(good+"%zz", host), 400},
		{"query with a semicolon", get(good+";x=1", host), 400},
		{"state in the body", request("GET", "/callback?code=x", host, "state="+testState, fmt.Sprint("Content-Length: ", len("state="+testState))), 400},
		{"body of unknown length", request("GET", good, host, "0\r\n\r\n", "Transfer-Encoding: chunked"), 400},

		{"root", get(strings.Replace(good, "/callback", "/", 1), host), 404},
		{"deeper path", get(strings.Replace(good, "/callback", "/callback/", 1), host), 404},
		{"path in other case", get(strings.Replace(good, "/callback", "/Callback", 1), host), 404},
		{"path with an escape", get(strings.Replace(good, "/callback", "/%63allback", 1), host), 404},
		{"path with dots", get(strings.Replace(good, "/callback", "/x/../callback", 1), host), 404},
		{"path with two slashes", get("/"+good, host), 404},
		{"no such result page", get("/done/AAAAAAAAAAAAAAAAAAAAAAAAAA", host), 404},
		{"empty result page", get("/done/", host), 404},

		{"other host", get(good, "attacker.example"), 404},
		{"other host, same port", get(good, "attacker.example:"+port), 404},
		{"other loopback name", get(good, "localhost:"+port), 404},
		{"other port", get(good, "127.0.0.1:1"), 404},
		{"no port", get(good, "127.0.0.1"), 404},
		{"port with a zero", get(good, "127.0.0.1:0"+port), 404},
		{"host with a dot", get(good, "127.0.0.1.:"+port), 404},
		{"other host in the request line", get("http://attacker.example"+good, host), 404},
		{"HTTP/1.0 without a host", "GET " + good + " HTTP/1.0\r\n\r\n", 404},

		{"POST", request("POST", "/callback", host, "code=x&state="+testState, "Content-Type: application/x-www-form-urlencoded", fmt.Sprint("Content-Length: ", len("code=x&state="+testState))), 405},
		{"POST with the query", request("POST", good, host, "", "Content-Length: 0"), 405},
		{"PUT", request("PUT", good, host, "", "Content-Length: 0"), 405},
		{"HEAD", request("HEAD", good, host, ""), 405},
		{"OPTIONS", request("OPTIONS", good, host, "", "Origin: https://attacker.example", "Access-Control-Request-Method: GET"), 405},
		{"OPTIONS *", request("OPTIONS", "*", host, ""), 404},
		{"CONNECT", request("CONNECT", host, host, ""), 404},
		{"invented method", request("GETX", good, host, ""), 405},

		{"favicon", get("/favicon.ico", host), 404},
		{"20 KB of query", get(good+"&x="+strings.Repeat("x", 20_000), host), 414},
		{"1 MB of query", get(good+"&x="+strings.Repeat("x", 1<<20), host), 431},
		{"1 MB of header", get(good, host, "Cookie: "+strings.Repeat("x", 1<<20)), 431},
		{"two hosts", get(good, host, "Host: "+host), 400},
		{"garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"a line of nothing", strings.Repeat("\x00", 64) + "\r\n\r\n", 400},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := send(t, s.addr(), tt.raw)
			if r.status != tt.status {
				t.Errorf("status %d, want %d", r.status, tt.status)
			}
			// net/http refuses by itself what is no request; its answers are bare.
			if r.header.Get("Content-Type") == "text/html; charset=utf-8" {
				checkHeaders(t, r.header)
			} else if tt.status != 431 && tt.status != 400 {
				t.Errorf("an answer of type %q", r.header.Get("Content-Type"))
			}
			if allow := r.header.Get("Allow"); (tt.status == 405) != (allow == "GET") {
				t.Errorf("Allow is %q", allow)
			}
			for _, secret := range []string{testState, testCode, url.QueryEscape(testCode), "attacker"} {
				if strings.Contains(r.body, secret) {
					t.Errorf("the page tells %q", secret)
				}
			}
			s.untouched(t)
		})
	}
	s.loginWorks(t)
}

func TestFaviconIsQuiet(t *testing.T) {
	s := start(t, testConfig{})
	if r := send(t, s.addr(), get("/favicon.ico", s.host())); r.status != 404 || r.body != "" {
		t.Errorf("got %d with %d bytes", r.status, len(r.body))
	}
	send(t, s.addr(), get("/other", s.host()))
	if line := <-s.lines; !strings.Contains(line, "path") {
		t.Errorf("the favicon was logged: %s", line)
	}
}

func TestRedirectURIs(t *testing.T) {
	tests := []struct {
		uri, target, host string // PORT in them is the port
	}{
		{"http://127.0.0.1:0", "/", "127.0.0.1:PORT"},
		{"http://127.0.0.1:0/", "/", "127.0.0.1:PORT"},
		{"http://127.0.0.1:0", "http://127.0.0.1:PORT", "127.0.0.1:PORT"},
		{"http://127.0.0.1:0?a=1", "/", "127.0.0.1:PORT"},
		{"HTTP://LocalHost:0/Cb", "/Cb", "localhost:PORT"},
		{"http://localhost:0/cb", "/cb", "LOCALHOST:PORT"}, // RFC 9110 section 4.2.3: a host has no case
		{"http://127.0.0.5:0/a%2Fb", "/a%2Fb", "127.0.0.5:PORT"},
		{"http://localhost:0/ü", "/%C3%BC", "localhost:PORT"},
	}
	for _, tt := range tests {
		t.Run(tt.uri+" "+tt.host, func(t *testing.T) {
			s, err := open(t.Context(), testConfig{RedirectURI: tt.uri, State: testState})
			if err != nil {
				if strings.Contains(tt.uri, "127.0.0.5") && runtime.GOOS != "linux" {
					t.Skip(err) // elsewhere loopback has one address
				}
				t.Fatal(err)
			}
			defer s.Close()
			_, port, _ := net.SplitHostPort(s.Addrs()[0])
			if want := strings.Replace(tt.uri, ":0", ":"+port, 1); s.RedirectURI() != want {
				t.Errorf("RedirectURI is %s, want %s", s.RedirectURI(), want)
			}
			query := url.Values{"error": {"access_denied"}, "error_description": {"Not today"}, "iss": {"https://as.example"}, "state": {testState}}
			if strings.Contains(tt.uri, "?a=1") {
				query.Set("a", "1")
			}
			c := dial(t, s.Addrs()[0])
			if _, err := io.WriteString(c, get(strings.Replace(tt.target, "PORT", port, 1)+"?"+query.Encode(), strings.Replace(tt.host, "PORT", port, 1))); err != nil {
				t.Fatal(err)
			}
			waiting, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if cb, err := s.Wait(waiting); err != nil || cb.Error != "access_denied" {
				t.Fatalf("Wait: %v, %v", cb, err)
			}
			over, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Finish(over, Page{}); !errors.Is(err, context.Canceled) {
				t.Errorf("Finish: %v", err)
			}
			if r := receive(t, c, "GET"); r.status != http.StatusSeeOther {
				t.Errorf("status %d", r.status)
			}
		})
	}
}

func TestDeclined(t *testing.T) {
	s := start(t, testConfig{})
	c := dial(t, s.addr())
	if _, err := io.WriteString(c, get(s.answer("error", "access_denied", "error_description", "Not\x1b[31m today", "state", testState), s.host())); err != nil {
		t.Fatal(err)
	}
	cb, err := s.Wait(t.Context())
	if want := (grant.Callback{Error: "access_denied", ErrorDescription: "Not[31m today"}); err != nil || cb != want {
		t.Fatalf("Wait returned %q %q, %v", cb.Error, cb.ErrorDescription, err)
	}
	page := s.finish(t, c, Page{Heading: "Consent was declined", Next: "Run authorize again"})
	for _, want := range []string{"<title>Failed: Consent was declined</title>", "Run authorize again", "The terminal shows the same error."} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q:\n%s", want, page.body)
		}
	}
}

func TestRedirectURIWithItsOwnQuery(t *testing.T) {
	s := start(t, testConfig{RedirectURI: "http://127.0.0.1:0/cb?app=7"})
	for _, extra := range [][]string{nil, {"app", "8"}, {"app", "7", "app", "7"}} {
		r := send(t, s.addr(), get(s.answer(append(extra, "code", testCode, "state", testState)...), s.host()))
		if r.status != http.StatusBadRequest {
			t.Errorf("with %v: status %d, want 400", extra, r.status)
		}
	}
	s.untouched(t)
	c := dial(t, s.addr())
	if _, err := io.WriteString(c, get(s.answer("app", "7", "code", testCode, "state", testState), s.host())); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
	s.finish(t, c, Page{OK: true})
}

// The browser may ask again while it waits: everyone with the same answer waits, any other is refused.
func TestSecondCallbackWhileWaiting(t *testing.T) {
	s := start(t, testConfig{}, func(l *limits) { l.waiting = 2 })
	first := s.visit(t)
	again := s.visit(t)
	stillOpen(t, again)
	if r := send(t, s.addr(), get(s.donePath(), s.host())); r.status != http.StatusNotFound {
		t.Errorf("the result page got %d before there was a result, want 404", r.status)
	}
	if r := send(t, s.addr(), get(s.answer("code", "another", "state", testState), s.host())); r.status != http.StatusConflict {
		t.Errorf("another code got %d, want 409", r.status)
	}
	if r := send(t, s.addr(), get(s.answer("error", "access_denied", "state", testState), s.host())); r.status != http.StatusConflict {
		t.Errorf("an error after the code got %d, want 409", r.status)
	}
	if r := send(t, s.addr(), get(s.good(), s.host())); r.status != http.StatusServiceUnavailable {
		t.Errorf("one waiting request too many got %d, want 503", r.status)
	}
	stillOpen(t, first)
	page := s.finish(t, first, Page{OK: true, Heading: "Done"})
	if also := s.follow(t, receive(t, again, "GET")); also.body != page.body {
		t.Error("the second tab shows another page")
	}
}

func TestResultPageIsGuarded(t *testing.T) {
	s := start(t, testConfig{})
	s.loginWorks(t)
	for raw, want := range map[string]int{
		get(s.donePath(), "attacker.example"):                            404,
		get(s.donePath()+"x", s.host()):                                  404,
		get(s.donePath()+"/", s.host()):                                  404,
		request("HEAD", s.donePath(), s.host(), ""):                      405,
		request("POST", s.donePath(), s.host(), "", "Content-Length: 0"): 405,
	} {
		if r := send(t, s.addr(), raw); r.status != want {
			t.Errorf("got %d, want %d for %q", r.status, want, raw)
		}
	}
}

func TestBrowserGoesAway(t *testing.T) {
	s := start(t, testConfig{}, func(l *limits) { l.finish = 50 * time.Millisecond })
	s.visit(t).Close()
	s.logged(t, "went away")
	if err := s.Finish(t.Context(), Page{OK: true, Heading: "Done"}); err != nil {
		t.Fatalf("Finish: %v", err)
	}
	if r := s.follow(t, send(t, s.addr(), get(s.good(), s.host()))); !strings.Contains(r.body, "Done") {
		t.Error("the browser that came back is not shown the result")
	}
}

// A client that only closed its sending side must not be told that all is well.
func TestHalfClosedBrowserIsNotShownSuccess(t *testing.T) {
	s := start(t, testConfig{})
	c := s.visit(t)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if r := receive(t, c, "GET"); r.status != http.StatusRequestTimeout {
		t.Errorf("got %d, want 408", r.status)
	}
}

func TestFinish(t *testing.T) {
	t.Run("is bounded", func(t *testing.T) {
		s := start(t, testConfig{}, func(l *limits) { l.finish = 50 * time.Millisecond })
		c := s.visit(t) // gets its redirect and never follows it
		if err := s.Finish(t.Context(), Page{}); err != nil {
			t.Fatal(err)
		}
		if r := receive(t, c, "GET"); r.status != http.StatusSeeOther {
			t.Errorf("got %d", r.status)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		s := start(t, testConfig{}, func(l *limits) { l.finish = time.Hour })
		s.visit(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Finish(ctx, Page{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Finish: %v", err)
		}
	})
	t.Run("ends with Close", func(t *testing.T) {
		s := start(t, testConfig{}, func(l *limits) { l.finish = time.Hour })
		c := s.visit(t)
		finished := make(chan error, 1)
		go func() { finished <- s.Finish(t.Context(), Page{}) }()
		receive(t, c, "GET")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-finished; !errors.Is(err, ErrClosed) {
			t.Errorf("Finish: %v", err)
		}
	})
	t.Run("without a callback", func(t *testing.T) {
		s := start(t, testConfig{}, func(l *limits) { l.finish = time.Hour })
		if err := s.Finish(t.Context(), Page{}); err != nil {
			t.Fatal(err)
		}
		if r := send(t, s.addr(), get(s.good(), s.host())); r.status != http.StatusConflict {
			t.Errorf("a callback after the end got %d, want 409", r.status)
		}
		s.untouched(t)
	})
}

func TestWait(t *testing.T) {
	s := start(t, testConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() { _, err := s.Wait(ctx); waited <- err }()
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	go func() { _, err := s.Wait(t.Context()); waited <- err }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
	if err := s.Finish(t.Context(), Page{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Finish: %v", err)
	}
}

func TestBrokenListenerEndsWait(t *testing.T) {
	s := start(t, testConfig{})
	s.listeners[0].Close()
	if _, err := s.Wait(t.Context()); !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
}

func TestClose(t *testing.T) {
	t.Run("tells the waiting browser", func(t *testing.T) {
		s := start(t, testConfig{})
		c := s.visit(t)
		silent := dial(t, s.addr())
		stillOpen(t, silent)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		r := receive(t, c, "GET")
		if r.status != http.StatusGone || !strings.Contains(r.body, "ended in the terminal") {
			t.Errorf("got %d:\n%s", r.status, r.body)
		}
		for _, addr := range s.Addrs() {
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				t.Errorf("%s still listens", addr)
			}
		}
		s.conns.mu.Lock()
		defer s.conns.mu.Unlock()
		if n := len(s.conns.fresh) + len(s.conns.busy); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	t.Run("twice", func(t *testing.T) {
		s := start(t, testConfig{})
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	})
	// After Close a redirect would lead nowhere, so the waiting browser is told at once what Finish said.
	t.Run("right after Finish", func(t *testing.T) {
		s := start(t, testConfig{})
		c := s.visit(t)
		s.mu.Lock() // both happen before the waiting request sees either
		s.current.page, s.closed = []byte("what Finish said"), true
		close(s.current.finished)
		close(s.ended)
		s.mu.Unlock()
		if r := receive(t, c, "GET"); r.status != http.StatusOK || r.body != "what Finish said" {
			t.Errorf("got %d %q", r.status, r.body)
		}
		s.mu.Lock()
		s.closed, s.ended = false, make(chan struct{})
		s.mu.Unlock()
	})
}

func TestSlowClients(t *testing.T) {
	s := start(t, testConfig{}, func(l *limits) {
		l.header = 50 * time.Millisecond
		l.body = 50 * time.Millisecond
	})
	t.Run("header", func(t *testing.T) {
		for _, raw := range []string{"", "GET /callb", "GET /callback HTTP/1.1\r\nHost: x\r\nA: "} {
			c := dial(t, s.addr())
			if _, err := io.WriteString(c, raw); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); isTimeout(err) {
				t.Errorf("a client that sent %q was not cut off", raw)
			}
		}
	})
	t.Run("body", func(t *testing.T) {
		c := dial(t, s.addr())
		if _, err := io.WriteString(c, request("POST", "/callback", s.host(), "co", "Content-Length: 1000")); err != nil {
			t.Fatal(err)
		}
		if r := receive(t, c, "POST"); r.status != http.StatusMethodNotAllowed {
			t.Errorf("got %d", r.status)
		}
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Error("a client that owes a body was not cut off")
		}
	})
	t.Run("not the one that waits", func(t *testing.T) {
		c := s.visit(t)
		stillOpen(t, c) // for longer than both limits
		s.finish(t, c, Page{OK: true})
	})
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestTooManyConnections(t *testing.T) {
	s := start(t, testConfig{}, func(l *limits) { l.conns, l.header = 4, time.Hour })
	oldest := dial(t, s.addr())
	waiting := s.visit(t)
	for range 20 {
		dial(t, s.addr())
	}
	if _, err := oldest.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the oldest silent connection is still open (%v)", err)
	}
	stillOpen(t, waiting)
	s.finish(t, waiting, Page{OK: true})
}

func TestTenThousandWrongRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("ten thousand requests take several seconds")
	}
	s := start(t, testConfig{})
	host := s.host()
	wrong := []string{
		get(s.answer("code", testCode, "state", "wrong"), host),
		get(s.answer("code", testCode), host),
		get(s.answer("error", "access_denied", "state", "wrong"), host),
		get("/callback?%", host),
		get("/", host),
		get("/favicon.ico", host),
		get("/done/AAAA", host),
		get(s.good(), "attacker.example"),
		request("POST", "/callback", host, "x=1", "Content-Length: 3"),
		request("POST", "/callback", host, "x=1", "Content-Length: 3000"), // owes the rest
		request("HEAD", s.good(), host, ""),
		request("OPTIONS", "*", host, ""),
		get(s.answer("state", testState), host),
		get(s.good()+"&x="+strings.Repeat("x", 20_000), host),
		"\x16\x03\x01garbage\r\n\r\n",
		"GET /callback HTTP/1.1\r\nHost: ", // never ends
	}
	flood := func(n int) {
		var (
			wg   sync.WaitGroup
			next = make(chan int)
		)
		for range 8 {
			wg.Go(func() {
				for i := range next {
					c, err := net.Dial("tcp", s.addr())
					if err != nil {
						t.Errorf("request %d: %v", i, err)
						continue
					}
					_ = c.SetDeadline(time.Now().Add(patience))
					raw := wrong[i%len(wrong)]
					_, _ = io.WriteString(c, raw)
					if !strings.HasSuffix(raw, "Host: ") {
						_, _ = c.Read(make([]byte, 512))
					}
					_ = c.Close()
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		wg.Wait()
	}

	for range 300 { // and these stay open
		c := dial(t, s.addr())
		if _, err := io.WriteString(c, "GET /callback?code=x HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	flood(5000)
	s.untouched(t)
	c := s.visit(t)
	flood(5000)
	stillOpen(t, c)
	s.finish(t, c, Page{OK: true})
}

func TestBothFamilies(t *testing.T) {
	s := start(t, testConfig{RedirectURI: "http://localhost:0/cb"})
	if !haveIPv6(t) {
		if n := len(s.Addrs()); n != 1 {
			t.Errorf("%d addresses without IPv6", n)
		}
		t.Skip("this machine has no IPv6 loopback")
	}
	addrs := s.Addrs()
	if len(addrs) != 2 || !strings.HasPrefix(addrs[0], "127.0.0.1:") || !strings.HasPrefix(addrs[1], "[::1]:") {
		t.Fatalf("listens on %v", addrs)
	}
	c := dial(t, addrs[1])
	if _, err := io.WriteString(c, get(s.good(), s.host())); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
	s.finish(t, c, Page{OK: true})
}

func TestIPv6Host(t *testing.T) {
	if !haveIPv6(t) {
		t.Skip("this machine has no IPv6 loopback")
	}
	s := start(t, testConfig{RedirectURI: "http://[0:0:0:0:0:0:0:1]:0/"})
	_, port, _ := net.SplitHostPort(s.addr())
	if want := "http://[0:0:0:0:0:0:0:1]:" + port + "/"; s.RedirectURI() != want {
		t.Errorf("RedirectURI is %s, want %s", s.RedirectURI(), want)
	}
	c := dial(t, s.addr())
	if _, err := io.WriteString(c, get(s.good(), "[::1]:"+port)); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
}

// haveIPv6 says whether ::1 can be listened on. On CI a machine that has the
// address and can't is a failure, not a reason to skip.
func haveIPv6(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
		return true
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(net.IPv6loopback) && os.Getenv("CI") != "" {
			t.Fatalf("::1 is there and can't be listened on: %v", err)
		}
	}
	return false
}

func TestTunnel(t *testing.T) {
	s := start(t, testConfig{RedirectURI: "https://login.example/ups/cb", Listen: "127.0.0.1:0"})
	if s.RedirectURI() != "https://login.example/ups/cb" {
		t.Errorf("RedirectURI is %s", s.RedirectURI())
	}
	for _, host := range []string{"login.example:80", "example", "localhost", "login.example:"} {
		if r := send(t, s.addr(), get(s.good(), host)); r.status != http.StatusNotFound {
			t.Errorf("Host %s got %d", host, r.status)
		}
	}
	s.untouched(t)
	for _, host := range []string{"login.example", "login.example:443", "Login.Example", s.addr()} {
		c := dial(t, s.addr())
		if _, err := io.WriteString(c, get(s.good(), host)); err != nil {
			t.Fatal(err)
		}
		stillOpen(t, c)
	}
	s.wait(t)
}

func TestTLS(t *testing.T) {
	conf, roots := certificate(t)
	s := start(t, testConfig{RedirectURI: "https://localhost:0/cb", TLS: conf})
	client := func(roots *x509.CertPool) *http.Client {
		return &http.Client{
			Timeout: patience,
			Transport: &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: roots},
				ForceAttemptHTTP2: true,
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, s.addr())
				},
			},
		}
	}

	if _, err := client(x509.NewCertPool()).Get(s.RedirectURI()); err == nil {
		t.Fatal("a certificate nobody knows was trusted")
	}
	s.logged(t, "TLS handshake")
	if r := send(t, s.addr(), get(s.good(), s.host())); r.status != http.StatusBadRequest {
		t.Errorf("plain http got %d", r.status)
	}
	silent := dial(t, s.addr())
	if _, err := silent.Write([]byte{0x16, 3, 1}); err != nil {
		t.Fatal(err)
	}
	s.untouched(t)

	type result struct {
		resp *http.Response
		body string
		err  error
	}
	shown := make(chan result, 1)
	browser := client(roots)
	go func() {
		resp, err := browser.Get("https://" + s.host() + s.good())
		if err != nil {
			shown <- result{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		shown <- result{resp, string(body), err}
	}()
	s.wait(t)
	if err := s.Finish(t.Context(), Page{OK: true, Heading: "Over TLS"}); err != nil {
		t.Fatal(err)
	}
	r := <-shown
	if r.err != nil || r.resp.ProtoMajor != 1 || !strings.Contains(r.body, "Over TLS") || r.resp.Request.URL.Path != s.donePath() {
		t.Errorf("the browser ended with %v, %+v", r.err, r.body)
	}
	if r.resp != nil {
		checkHeaders(t, r.resp.Header)
	}
}

func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, roots
}

func TestListenRefuses(t *testing.T) {
	tests := []struct {
		name string
		c    testConfig
		says string
	}{
		{"no state", testConfig{RedirectURI: "http://localhost:0/"}, "state"},
		{"relative", testConfig{RedirectURI: "/cb", State: "s"}, "absolute"},
		{"unreadable", testConfig{RedirectURI: "http://local host/", State: "s"}, "absolute"},
		{"other scheme", testConfig{RedirectURI: "com.example://localhost/cb", State: "s"}, "http nor https"},
		{"user name", testConfig{RedirectURI: "http://me@localhost:0/", State: "s"}, "user name"},
		{"fragment", testConfig{RedirectURI: "http://localhost:0/#", State: "s"}, "fragment"},
		{"port", testConfig{RedirectURI: "http://localhost:65536/", State: "s"}, "port"},
		{"query", testConfig{RedirectURI: "http://localhost:0/?a=%zz", State: "s"}, "query"},
		{"own state", testConfig{RedirectURI: "http://localhost:0/?state=1", State: "s"}, "state of its own"},
		{"public", testConfig{RedirectURI: "https://login.example/cb", State: "s"}, "lead to this machine"},
		{"public, port 0", testConfig{RedirectURI: "https://login.example:0/cb", State: "s", Listen: "localhost:0"}, "port 0"},
		{"mapped address", testConfig{RedirectURI: "http://[::ffff:127.0.0.1]:8400/", State: "s"}, "plain http"},
		{"no certificate", testConfig{RedirectURI: "https://localhost:0/cb", State: "s"}, "is https"},
		{"empty certificate", testConfig{RedirectURI: "https://localhost:0/cb", State: "s", TLS: &tls.Config{}}, "is https"},
		{"listening everywhere", testConfig{RedirectURI: "https://login.example/cb", State: "s", Listen: ":8400"}, "loopback"},
		{"listening on all addresses", testConfig{RedirectURI: "https://login.example/cb", State: "s", Listen: "0.0.0.0:8400"}, "loopback"},
		{"listening on a name", testConfig{RedirectURI: "https://login.example/cb", State: "s", Listen: "login.example:8400"}, "loopback"},
		{"listening without a port", testConfig{RedirectURI: "https://login.example/cb", State: "s", Listen: "127.0.0.1"}, "host:port"},
		{"listening on a named port", testConfig{RedirectURI: "https://login.example/cb", State: "s", Listen: "127.0.0.1:http"}, "port"},
		{"listening elsewhere than port 0", testConfig{RedirectURI: "http://localhost:0/cb", State: "s", Listen: "127.0.0.1:8400"}, "port 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := open(t.Context(), tt.c)
			if err == nil {
				s.Close()
				t.Fatal("it listens")
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not speak of %s", err, tt.says)
			}
		})
	}
}

// While the terminal asks whether the right person signed in, the browser would wait
// without a word: it says so, and gives way to the result.
func TestThePageSaysWhereTheQuestionIs(t *testing.T) {
	s := start(t, testConfig{})
	if err := s.Ask(Page{Heading: "Too early"}); err != nil {
		t.Fatal(err)
	}
	location := make(chan string, 1)
	go func() { location <- send(t, s.addr(), get(s.good(), s.host())).header.Get("Location") }()
	if _, err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Ask(Page{Heading: "Answer in the terminal"}); err != nil {
		t.Fatal(err)
	}
	at := <-location
	page := send(t, s.addr(), get(at, s.host()))
	if page.status != 200 || page.header.Get("Refresh") == "" || !strings.Contains(page.body, "Answer in the terminal") || strings.Contains(page.body, "Failed") {
		t.Errorf("%d, refreshes %q: %s", page.status, page.header.Get("Refresh"), page.body)
	}
	finished := make(chan error, 1)
	go func() { finished <- s.Finish(t.Context(), Page{OK: true, Heading: "It worked"}) }()
	for { // as the browser does
		page = send(t, s.addr(), get(at, s.host()))
		if !strings.Contains(page.body, "Answer in the terminal") {
			break
		}
	}
	if page.header.Get("Refresh") != "" || !strings.Contains(page.body, "It worked") {
		t.Errorf("refreshes %q: %s", page.header.Get("Refresh"), page.body)
	}
	if err := <-finished; err != nil {
		t.Error(err)
	}
}
