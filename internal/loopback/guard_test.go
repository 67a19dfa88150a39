package loopback

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// ups is where the browsers of these tests are sent.
const ups = "https://ups.example/authorize?state="

// guarded is a server whose login is kept to one browser.
func guarded(t *testing.T, c testConfig, tune ...func(*limits)) (*testServer, string) {
	t.Helper()
	s := start(t, c, tune...)
	return s, s.Guard(Guard{Address: func(state string) string { return ups + state }, Lasts: time.Minute})
}

func testCertificate(t *testing.T) *tls.Config {
	t.Helper()
	c, _ := certificate(t)
	return c
}

// aBrowser keeps cookies and follows no redirect.
func aBrowser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Jar: jar, Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func visitBy(t *testing.T, b *http.Client, address string) reply {
	t.Helper()
	response, err := b.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body strings.Builder
	if _, err := io.Copy(&body, response.Body); err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, body.String()}
}

// begin opens the start address and returns the state that the browser is sent on
// with.
func begin(t *testing.T, b *http.Client, start string) (state string) {
	t.Helper()
	r := visitBy(t, b, start)
	state, sent := strings.CutPrefix(r.header.Get("Location"), ups)
	if r.status != http.StatusFound || !sent {
		t.Fatalf("the start address answers %d and sends to %q:\n%s", r.status, r.header.Get("Location"), r.body)
	}
	return state
}

// answerAt is the address that a browser comes back to.
func (s *testServer) answerAt(params ...string) string {
	u, _ := url.Parse(s.RedirectURI())
	q := url.Values{}
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// arrives lets a browser bring the login's answer, and ends the login.
func (s *testServer) arrives(t *testing.T, b *http.Client, address string) {
	t.Helper()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if response, err := b.Get(address); err == nil {
			response.Body.Close()
		}
	}()
	s.wait(t)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-gone
}

func (s *testServer) wantNotice(t *testing.T, want NoticeKind) Notice {
	t.Helper()
	select {
	case n := <-s.Notices():
		if n.Kind != want {
			t.Fatalf("the notice is %+v, want one of kind %d", n, want)
		}
		return n
	case <-time.After(patience):
		t.Fatal("no notice came")
		return Notice{}
	}
}

// The answer counts only from the browser that opened the start address, at every
// redirect URI: also where the server's own paths look like the redirect URI's.
func TestOnlyTheBrowserThatBegan(t *testing.T) {
	pair := testCertificate(t)
	for _, uri := range []string{
		"http://localhost:0/callback", "http://127.0.0.1:0/callback", "http://127.0.0.1:0", "http://localhost:0/", "HTTP://LocalHost:0/cb",
		"http://127.0.0.1:0/start/x", "http://127.0.0.1:0/start/", "http://127.0.0.1:0/done/x", "http://127.0.0.1:0/cb?shop=1", "https://127.0.0.1:0/cb",
	} {
		t.Run(uri, func(t *testing.T) {
			s, start := guarded(t, testConfig{RedirectURI: uri, TLS: pair})
			extra := []string{}
			if strings.Contains(uri, "?") {
				extra = []string{"shop", "1"}
			}
			mine, other := aBrowser(t), aBrowser(t)
			state := begin(t, mine, start)
			if state != testState {
				t.Errorf("the state is %q", state)
			}
			for _, answer := range [][]string{{"code", "theirs"}, {"error", "access_denied"}} {
				r := visitBy(t, other, s.answerAt(append(append(answer, extra...), "state", state)...))
				if r.status != http.StatusBadRequest || !strings.Contains(r.body, "another browser") {
					t.Errorf("%v from another browser got %d:\n%s", answer, r.status, r.body)
				}
				s.wantNotice(t, OtherBrowser)
			}
			s.untouched(t)
			// The same browser may open the address as often as it likes.
			if begin(t, mine, start) != state {
				t.Error("opened again, the start address has another state")
			}
			got := make(chan reply, 1)
			go func() {
				got <- visitBy(t, mine, s.answerAt(append(extra, "code", testCode, "state", state)...))
			}()
			s.wait(t)
			go func() { _ = s.Finish(t.Context(), Page{OK: true, Heading: "Done"}) }()
			r := <-got
			if r.status != http.StatusSeeOther {
				t.Fatalf("the browser that began got %d:\n%s", r.status, r.body)
			}
			u, _ := url.Parse(s.RedirectURI())
			if page := visitBy(t, mine, u.Scheme+"://"+u.Host+r.header.Get("Location")); page.status != http.StatusOK || !strings.Contains(page.body, "Done") {
				t.Errorf("the result page: %d\n%s", page.status, page.body)
			}
			if r := visitBy(t, mine, start); r.status != http.StatusConflict {
				t.Errorf("the start address of a finished login got %d", r.status)
			}
		})
	}
}

func TestCookie(t *testing.T) {
	for uri, secure := range map[string]bool{"http://localhost:0/cb": false, "https://localhost:0/cb": true} {
		s, start := guarded(t, testConfig{RedirectURI: uri, TLS: testCertificate(t)})
		r := visitBy(t, aBrowser(t), start)
		cookies := (&http.Response{Header: r.header}).Cookies()
		if len(cookies) != 1 {
			t.Fatalf("%d cookies", len(cookies))
		}
		c := cookies[0]
		if !strings.HasPrefix(c.Name, "upsauth-") || len(c.Value) < 20 || c.Path != "/" || c.Domain != "" || !c.HttpOnly ||
			c.SameSite != http.SameSiteLaxMode || c.Secure != secure || c.MaxAge != 60 {
			t.Errorf("%s: the cookie is %s", uri, c)
		}
		if strings.Contains(start, testState) || strings.Contains(start, c.Value) {
			t.Errorf("the start address tells a secret: %s", start)
		}
		// Two sign-ins on one host have two cookies, as ports don't part them.
		_, second := guarded(t, testConfig{RedirectURI: uri, TLS: testCertificate(t)})
		r = visitBy(t, aBrowser(t), second)
		if other := (&http.Response{Header: r.header}).Cookies()[0]; other.Name == c.Name {
			t.Errorf("two sign-ins share the cookie %s", c.Name)
		}
		_ = s
	}
}

// A second browser at the start address: nobody knows which of the two is the
// person's, so neither gets on, and the terminal is told a new address.
func TestSecondBrowserVoidsTheState(t *testing.T) {
	s, start := guarded(t, testConfig{})
	first, second := aBrowser(t), aBrowser(t)
	old := begin(t, first, start)
	r := visitBy(t, second, start)
	if r.status != http.StatusConflict || r.header.Get("Location") != "" || r.header.Get("Set-Cookie") != "" {
		t.Errorf("the second browser got %d, %v", r.status, r.header)
	}
	n := s.wantNotice(t, Voided)
	if n.Address == start || !strings.HasPrefix(n.Address, "http://"+s.host()+"/start/") {
		t.Fatalf("the new address is %s", n.Address)
	}
	for _, want := range []string{"This address is no longer valid", "The terminal shows a new address"} {
		if !strings.Contains(r.body, want) {
			t.Errorf("the page lacks %q:\n%s", want, r.body)
		}
	}
	if strings.Contains(r.body, strings.TrimPrefix(n.Address, "http://"+s.host())) {
		t.Error("the page tells whoever opened the address the new one")
	}
	for name, b := range map[string]*http.Client{"first": first, "second": second} {
		if r := visitBy(t, b, s.answerAt("code", testCode, "state", old)); r.status != http.StatusBadRequest {
			t.Errorf("the %s browser's answer with the void state got %d", name, r.status)
		}
		if r := visitBy(t, b, start); r.status != http.StatusGone || r.header.Get("Location") != "" {
			t.Errorf("the void address got %d for the %s browser", r.status, name)
		}
	}
	s.untouched(t)
	state := begin(t, second, n.Address)
	if state == old || len(state) < 20 {
		t.Errorf("the new state is %q after %q", state, old)
	}
	// The cookie of the void address counts no more.
	if r := visitBy(t, first, s.answerAt("code", testCode, "state", state)); r.status != http.StatusBadRequest {
		t.Errorf("the first browser's answer with the new state got %d", r.status)
	}
	s.arrives(t, second, s.answerAt("code", testCode, "state", state))
}

// Behind a tunnel the browser knows this server by another host: its answer can
// have no cookie, and the start address only keeps the state out of sight.
func TestStartAddressOfATunnelledCallback(t *testing.T) {
	s, start := guarded(t, testConfig{RedirectURI: "https://shop.example/cb", Listen: "127.0.0.1:0"})
	if !strings.HasPrefix(start, "http://"+s.addr()+"/start/") {
		t.Fatalf("the start address is %s", start)
	}
	state := begin(t, aBrowser(t), start)
	c := dial(t, s.addr())
	if _, err := c.Write([]byte(get("/cb?code="+url.QueryEscape(testCode)+"&state="+url.QueryEscape(state), "shop.example"))); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
}

// A try that came to nothing has its page, and the login waits for the next one.
func TestAgain(t *testing.T) {
	s, start := guarded(t, testConfig{}, func(l *limits) { l.rounds = 2 })
	b := aBrowser(t)
	state := begin(t, b, start)
	if err := s.Again(Page{}); err != nil {
		t.Fatalf("without an answer: %v", err)
	}
	try := func(want grant.Callback, params ...string) (page reply) {
		t.Helper()
		got := make(chan reply, 1)
		go func() { got <- visitBy(t, b, s.answerAt(append(params, "state", state)...)) }()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if cb, err := s.Wait(ctx); err != nil || cb != want {
			t.Fatalf("Wait: %#v, %v", cb, err)
		}
		if err := s.Again(Page{Heading: "Came to nothing: " + params[1], Next: "Sign in again"}); err != nil {
			t.Fatal(err)
		}
		r := <-got
		return visitBy(t, b, "http://"+s.host()+r.header.Get("Location"))
	}
	declined := try(grant.Callback{Error: "access_denied"}, "error", "access_denied")
	for _, want := range []string{"Came to nothing: access_denied", `<a href="/start/`, "Sign in again"} {
		if !strings.Contains(declined.body, want) {
			t.Errorf("the page lacks %q:\n%s", want, declined.body)
		}
	}
	late := try(grant.Callback{Code: "late"}, "code", "late")
	if !strings.Contains(late.body, "Came to nothing: late") {
		t.Errorf("the second page says\n%s", late.body)
	}
	// The same answer again gets the same page, and is no new try.
	r := visitBy(t, b, s.answerAt("code", "late", "state", state))
	if again := visitBy(t, b, "http://"+s.host()+r.header.Get("Location")); again.body != late.body {
		t.Errorf("the same answer again shows\n%s", again.body)
	}
	s.untouched(t)
	if begin(t, b, start) != state {
		t.Error("the state changed between two tries")
	}
	got := make(chan reply, 1)
	go func() { got <- visitBy(t, b, s.answerAt("code", testCode, "state", state)) }()
	s.wait(t)
	go func() { _ = s.Finish(t.Context(), Page{OK: true, Heading: "Done"}) }()
	if page := visitBy(t, b, "http://"+s.host()+(<-got).header.Get("Location")); !strings.Contains(page.body, "Done") {
		t.Errorf("in the end the page says\n%s", page.body)
	}
	if err := s.Again(Page{}); err == nil {
		t.Error("a login that is finished can be begun again")
	}
}

// RFC 9207: where the environment names its issuer, the answer of any other, and
// one without, ends nothing.
func TestIssuer(t *testing.T) {
	c := testConfig{RedirectURI: "http://127.0.0.1:0/callback", State: testState, Issuer: "https://as.example"}
	s := start(t, c)
	good := []string{"code", testCode, "state", testState}
	for _, iss := range [][]string{nil, {"iss", ""}, {"iss", "https://evil.example"}, {"iss", "https://as.example/"}, {"iss", c.Issuer, "iss", c.Issuer}} {
		if r := send(t, s.addr(), get(s.answer(append(iss, good...)...), s.host())); r.status != http.StatusBadRequest {
			t.Errorf("%v got %d", iss, r.status)
		}
		s.wantNotice(t, OtherIssuer)
	}
	if r := send(t, s.addr(), get(s.answer("error", "access_denied", "state", testState), s.host())); r.status != http.StatusBadRequest {
		t.Errorf("an error without issuer got %d", r.status)
	}
	s.untouched(t)
	pasted := Config{RedirectURI: "https://shop.example/cb", State: testState, Issuer: c.Issuer}
	query := url.Values{"code": {"x"}, "state": {testState}}
	if _, err := ParseCallback(pasted, "https://shop.example/cb?"+query.Encode()); err == nil {
		t.Error("an address without issuer was taken")
	}
	query.Set("iss", c.Issuer)
	if _, err := ParseCallback(pasted, "https://shop.example/cb?"+query.Encode()); err != nil {
		t.Error(err)
	}
	conn := dial(t, s.addr())
	if _, err := conn.Write([]byte(get(s.answer(append(good, "iss", c.Issuer)...), s.host()))); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
}

func TestSameRedirectURI(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"http://localhost:8400/cb", "http://LOCALHOST:8400/cb", true},
		{"http://localhost:8400", "http://localhost:8400/", true},
		{"https://shop.example/cb", "https://shop.example:443/cb?shop=1", true},
		{"http://localhost:8400/cb", "http://localhost:8401/cb", false},
		{"http://localhost:8400/cb", "http://127.0.0.1:8400/cb", false},
		{"http://localhost:8400/cb", "https://localhost:8400/cb", false},
		{"http://localhost:8400/cb", "http://localhost:8400/CB", false},
		{"http://localhost:0/cb", "http://localhost:0/cb", false},
		{"", "", false},
	} {
		if SameRedirectURI(tt.a, tt.b) != tt.same {
			t.Errorf("%q and %q: not %t", tt.a, tt.b, tt.same)
		}
	}
}
