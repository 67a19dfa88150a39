package sandbox

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testKey is shared, because making one takes long under the race detector.
var testKey = sync.OnceValues(newKey)

const (
	testClient   = "client-1"
	testSecret   = "s3cret/+ %"
	testRedirect = "http://localhost:8400/callback?tenant=7"
	testState    = "a b+c/=%\u00e9"
	verifier     = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, appendix B
	challenge    = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// harness is a sandbox on the network and a client of it.
type harness struct {
	t     *testing.T
	srv   *Server
	url   string
	http  *http.Client // follows no redirect
	clock *clock
}

func start(t *testing.T, opts Options) *harness {
	t.Helper()
	h := &harness{t: t, clock: newClock()}
	key, err := testKey()
	if err != nil {
		t.Fatal(err)
	}
	if opts.Now == nil {
		opts.Now = h.clock.Now
	}
	if opts.key == nil {
		opts.key = key
	}
	if h.srv, err = New(opts); err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(h.srv)
	t.Cleanup(ts.Close)
	h.url = ts.URL
	h.http = ts.Client()
	h.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return h
}

// reply is an HTTP answer, read.
type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a request and reads the answer; a nil body sends none.
func (h *harness) do(method, path, body string, header ...string) reply {
	h.t.Helper()
	r, err := h.try(method, path, body, header...)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *harness) try(method, path, body string, header ...string) (reply, error) {
	h.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = h.url + path
	}
	req, err := http.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

const formType = "application/x-www-form-urlencoded"

func basic(id, secret string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(id, secret)
	return r.Header.Get("Authorization")
}

// post sends a form; an empty authorization sends no such header.
func (h *harness) post(path string, form url.Values, authorization string) reply {
	h.t.Helper()
	header := []string{"Content-Type", formType}
	if authorization != "" {
		header = append(header, "Authorization", authorization)
	}
	return h.do(http.MethodPost, path, form.Encode(), header...)
}

func authorizeQuery(change ...string) url.Values {
	q := url.Values{
		"client_id":     {testClient},
		"redirect_uri":  {testRedirect},
		"response_type": {"code"},
		"state":         {testState},
		"scope":         {"read"},
	}
	for i := 0; i+1 < len(change); i += 2 {
		q.Set(change[i], change[i+1])
		if change[i+1] == "-" {
			q.Del(change[i])
		}
	}
	return q
}

func (h *harness) authorizeURL(change ...string) string {
	return h.url + "/security/v1/oauth/authorize?" + authorizeQuery(change...).Encode()
}

// signInURL asks for consent and returns where the browser is sent.
func (h *harness) signInURL(change ...string) string {
	h.t.Helper()
	r := h.do("GET", h.authorizeURL(change...), "")
	if r.status != http.StatusFound {
		h.t.Fatalf("authorize: %d %s", r.status, r.body)
	}
	return r.header.Get("Location")
}

// code signs user in and returns the authorization code.
func (h *harness) code(user string, change ...string) string {
	h.t.Helper()
	r := h.post(h.signInURL(change...), url.Values{"username": {user}, "agree": {"yes"}, "password": {"pw"}}, "")
	if r.status != http.StatusSeeOther {
		h.t.Fatalf("sign-in: %d %s", r.status, r.body)
	}
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		h.t.Fatal(err)
	}
	return u.Query().Get("code")
}

func (h *harness) exchange(code string, change ...string) reply {
	h.t.Helper()
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {testRedirect}}
	authorization := basic(testClient, testSecret)
	for i := 0; i+1 < len(change); i += 2 {
		switch {
		case change[i] == "Authorization":
			authorization = change[i+1]
		case change[i+1] == "-":
			form.Del(change[i])
		default:
			form.Set(change[i], change[i+1])
		}
	}
	return h.post("/security/v1/oauth/token", form, authorization)
}

func (h *harness) refresh(token string) reply {
	h.t.Helper()
	return h.post("/security/v1/oauth/refresh", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, basic(testClient, testSecret))
}

// grant goes the whole way.
func (h *harness) grant(user string) tokenAnswer {
	h.t.Helper()
	return h.tokens(h.exchange(h.code(user)))
}

func (h *harness) tokens(r reply) tokenAnswer {
	h.t.Helper()
	var a tokenAnswer
	if r.status != http.StatusOK {
		h.t.Fatalf("status %d: %s", r.status, r.body)
	}
	if err := json.Unmarshal([]byte(r.body), &a); err != nil {
		h.t.Fatal(err)
	}
	return a
}

// works tells whether the API takes the access token.
func (h *harness) works(access string) bool {
	h.t.Helper()
	return h.do("GET", "/api/anything", "", "Authorization", "Bearer "+access).status == http.StatusOK
}

// wantError checks for an error as UPS words it.
func (r reply) wantError(t *testing.T, status int, code, message string) {
	t.Helper()
	want := `{"response":{"errors":[{"code":"` + code + `","message":"` + message
	if r.status != status || !strings.HasPrefix(r.body, want) {
		t.Errorf("got %d %s\nwant %d %s…", r.status, r.body, status, want)
	}
	if got := r.header.Get("errorcode"); got != code {
		t.Errorf("errorcode header %q, want %q", got, code)
	}
	if got := r.header.Get("errordescription"); !strings.HasPrefix(got, message) {
		t.Errorf("errordescription header %q, want %q", got, message)
	}
}

func publicKey(t *testing.T) *rsa.PublicKey {
	t.Helper()
	key, err := testKey()
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}
