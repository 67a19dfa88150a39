package door

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
)

// house is a door with one page behind it that counts who got in, and who changed
// something.
type house struct {
	*Door
	t       *testing.T
	url     string // http://127.0.0.1:PORT
	got     atomic.Int64
	changed atomic.Int64
	mu      sync.Mutex
	now     time.Time
}

func newHouse(t *testing.T, o Options) *house {
	t.Helper()
	h := &house{t: t, now: time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC)}
	o.Now = func() time.Time {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.now
	}
	if o.Hosts == nil {
		o.Hosts, o.Secure = []string{"upsauth.agency.example"}, true
	}
	var err error
	if h.Door, err = New(o); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config.ConnContext = ConnContext
	server.Config.Handler = h.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		h.got.Add(1)
		if r.Method == http.MethodPost {
			h.changed.Add(1)
		}
		_, _ = io.WriteString(w, "inside")
	}))
	server.Start()
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

func (h *house) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
}

// browser keeps cookies and follows nothing.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// same are the headers of a form of our own page.
var same = map[string]string{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}

func (h *house) ask(b *http.Client, method, path string, headers map[string]string, body string) reply {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for name, value := range headers {
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	resp, err := b.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(text)}
}

func (h *house) address() string {
	path, _ := h.Link()
	return path
}

// enters opens an address and wants to be let in.
func (h *house) enters(b *http.Client, path string) {
	h.t.Helper()
	r := h.ask(b, "GET", path, nil, "")
	if r.status != http.StatusSeeOther || r.header.Get("Location") != "/" {
		h.t.Fatalf("the address led to %d %s: %s", r.status, r.header.Get("Location"), r.body)
	}
	h.inside(b)
}

func (h *house) inside(b *http.Client) {
	h.t.Helper()
	if r := h.ask(b, "GET", "/", nil, ""); r.status != http.StatusOK || r.body != "inside" {
		h.t.Fatalf("not inside: %d %s", r.status, r.body)
	}
}

func (h *house) outside(b *http.Client) {
	h.t.Helper()
	if r := h.ask(b, "GET", "/", map[string]string{"Accept": "text/html"}, ""); r.status != http.StatusSeeOther || r.header.Get("Location") != "/login" {
		h.t.Fatalf("inside: %d %s", r.status, r.body)
	}
	if r := h.ask(b, "GET", "/", map[string]string{"Accept": "application/json"}, ""); r.status != http.StatusUnauthorized {
		h.t.Fatalf("inside: %d %s", r.status, r.body)
	}
}

// An address lets one browser in, once, for 10 minutes; HEAD uses nothing up. The cookie is
// the browser's alone, and the address leaves the address bar.
func TestAnAddressWorksOnce(t *testing.T) {
	h := newHouse(t, Options{})
	path := h.address()
	nobody := browser(t)
	h.outside(nobody)
	for range 3 {
		if r := h.ask(nobody, "HEAD", path, nil, ""); r.status != http.StatusOK || r.header.Get("Set-Cookie") != "" {
			t.Errorf("HEAD got %d, %q", r.status, r.header.Get("Set-Cookie"))
		}
	}
	mine := browser(t)
	r := h.ask(mine, "GET", path, nil, "")
	cookie := r.header.Get("Set-Cookie")
	if r.status != http.StatusSeeOther || r.header.Get("Location") != "/" {
		t.Fatalf("%d to %s", r.status, r.header.Get("Location"))
	}
	for _, part := range []string{"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie %q has no %s", cookie, part)
		}
	}
	if strings.Contains(cookie, "Secure") || strings.Contains(cookie, "__Host") {
		t.Errorf("a cookie over http on loopback is %q", cookie)
	}
	h.inside(mine)
	h.enters(mine, path) // the same browser goes back to it
	h.outside(nobody)

	late := h.address()
	h.later(codeLasts)
	if r := h.ask(browser(t), "GET", late, nil, ""); r.status != http.StatusNotFound || r.header.Get("Set-Cookie") != "" {
		t.Errorf("after ten minutes the address got %d", r.status)
	}
	h.inside(mine)
}

// By the manager's own https address, the cookie stays on https, and no other host sets it.
func TestCookieOverTLS(t *testing.T) {
	h := newHouse(t, Options{})
	r := h.ask(browser(t), "GET", h.address(), map[string]string{"Host": "UPSAUTH.agency.example"}, "")
	if cookie := r.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Host-") || !strings.Contains(cookie, "Secure") || strings.Contains(cookie, "Domain") {
		t.Errorf("the cookie is %q", cookie)
	}
}

// A second browser at an address ends the session of the first, and says so.
func TestASecondBrowserEndsTheSession(t *testing.T) {
	h := newHouse(t, Options{})
	path := h.address()
	mine, other, third := browser(t), browser(t), browser(t)
	h.enters(mine, path)
	h.later(30 * time.Minute) // long after its ten minutes
	h.inside(mine)
	r := h.ask(other, "GET", path, nil, "")
	if r.status != http.StatusConflict || r.header.Get("Set-Cookie") != "" || !strings.Contains(r.body, "Another browser opened this address before.") {
		t.Errorf("the second got %d: %s", r.status, r.body)
	}
	h.outside(mine)
	h.outside(other)
	if r := h.ask(third, "GET", path, nil, ""); r.status != http.StatusNotFound {
		t.Errorf("the third got %d", r.status)
	}
	h.enters(mine, h.address())
}

// A session ends after 12 hours in which nobody used it, and with the button.
func TestASessionEnds(t *testing.T) {
	h := newHouse(t, Options{})
	mine, other := browser(t), browser(t)
	h.enters(mine, h.address())
	h.enters(other, h.address())
	for range 3 {
		h.later(idle - time.Minute)
		h.inside(mine)
	}
	h.outside(other)
	if r := h.ask(mine, "GET", "/logout", nil, ""); r.status != http.StatusMethodNotAllowed {
		t.Errorf("GET /logout got %d", r.status)
	}
	h.inside(mine)
	u, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	kept := mine.Jar.Cookies(u)
	if r := h.ask(mine, "POST", "/logout", same, ""); r.status != http.StatusSeeOther || r.header.Get("Location") != "/login?out" {
		t.Errorf("sign-out got %d to %s", r.status, r.header.Get("Location"))
	}
	h.outside(mine)
	mine.Jar.SetCookies(u, kept) // whoever kept a copy
	h.outside(mine)
	if r := h.ask(mine, "GET", "/login?out", nil, ""); !strings.Contains(r.body, "You have signed out.") {
		t.Errorf("it says %s", r.body)
	}
}

// hostile are requests that must do nothing, with the statuses that they may get. The
// person's own cookie comes along with each: nothing but the request gives it away.
func hostile() []struct {
	what, method, path string
	headers            map[string]string
	body               string
	status             []int
} {
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	with := func(more map[string]string) map[string]string {
		all := map[string]string{}
		for name, value := range form {
			all[name] = value
		}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	type row = struct {
		what, method, path string
		headers            map[string]string
		body               string
		status             []int
	}
	rows := []row{
		{"cross-site post", "POST", "/remove", with(map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}), "a=b", []int{403}},
		{"same-site post of another port", "POST", "/remove", with(map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}), "a=b", []int{403}},
		{"post of another origin, by an old browser", "POST", "/remove", with(map[string]string{"Origin": "http://127.0.0.1:1"}), "a=b", []int{403}},
		{"post of a page without an origin", "POST", "/remove", with(map[string]string{"Origin": "null"}), "a=b", []int{403}},
		{"post with neither header", "POST", "/remove", form, "a=b", []int{403}},
		{"post with empty headers", "POST", "/remove", with(map[string]string{"Origin": "", "Sec-Fetch-Site": ""}), "a=b", []int{403}},
		{"sign-out from elsewhere", "POST", "/logout", with(map[string]string{"Sec-Fetch-Site": "cross-site"}), "", []int{403}},
		{"sign-out with neither header", "POST", "/logout", form, "", []int{403}},
		{"put", "PUT", "/remove", same, "a=b", []int{405}},
		{"delete", "DELETE", "/remove", same, "", []int{405}},
		{"options", "OPTIONS", "/remove", map[string]string{"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, "", []int{405}},
		{"trace", "TRACE", "/", nil, "", []int{405}},
		{"a method of its own", "FROB", "/", same, "", []int{405}},
		{"too much", "POST", "/remove", with(same), strings.Repeat("x", maxBody+1), []int{413}},
		{"a guessed address", "GET", "/login/AAAAAAAAAAAAAAAAAAAAAAAAAA", nil, "", []int{404}},
		{"an empty address", "GET", "/login/", nil, "", []int{404}},
		{"an address by post", "POST", "/login/AAAA", same, "", []int{405}},
		{"an address below", "GET", "/login/a/b", nil, "", []int{404}},
	}
	for _, host := range []string{
		"evil.example", "localhost.evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "127.0.0.2", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]",
		"2130706433", "127.1", "upsauth.agency.example.evil.example", "upsauth.agency.example:444", "xupsauth.agency.example", "localhost:0", "localhost:99999",
		"localhost:8080:80", "localhost:", "user@localhost", "[::1", "169.254.169.254", "localhost:+80", "localhost:٣", "",
	} {
		for _, method := range []string{"GET", "POST"} {
			rows = append(rows, row{"host " + host, method, "/remove", map[string]string{"Host": host, "Sec-Fetch-Site": "same-origin", "Origin": "http://" + host}, "", []int{400, 403}})
		}
	}
	return rows
}

// Nothing that comes from elsewhere has an effect, whatever it knows, and the person's
// session goes on. Each refusal says how it keeps to itself.
func TestHostileRequests(t *testing.T) {
	h := newHouse(t, Options{})
	mine := browser(t)
	h.enters(mine, h.address())
	unused := h.address()
	rows := hostile()
	got, changed := h.got.Load(), h.changed.Load()
	for _, r := range rows {
		if r.headers["Host"] == "" {
			if _, ok := r.headers["Host"]; ok {
				continue // Go's client sends another one: see the next test
			}
		}
		answer := h.ask(mine, r.method, r.path, r.headers, r.body)
		fits := false
		for _, status := range r.status {
			fits = fits || answer.status == status
		}
		if !fits || answer.header.Get("Set-Cookie") != "" || answer.header.Get("Location") != "" || answer.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: %d %v", r.method, r.what, answer.status, answer.header)
		}
		if answer.status == 400 {
			continue // Go's own answer to what is no request
		}
		checkHeaders(t, r.what, answer.header)
	}
	if h.got.Load() != got || h.changed.Load() != changed {
		t.Errorf("%d got in, %d changed something", h.got.Load()-got, h.changed.Load()-changed)
	}
	h.inside(mine)
	h.enters(browser(t), unused)
	if r := h.ask(mine, "POST", "/x", same, "a=b"); r.status != http.StatusOK || h.changed.Load() != changed+1 {
		t.Errorf("the person's own form got %d", r.status)
	}
}

func checkHeaders(t *testing.T, what string, header http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %s is %q", what, name, got)
		}
	}
	if csp := header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") ||
		!strings.Contains(csp, "form-action 'self'; base-uri 'none'; frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("%s: the policy is %q", what, csp)
	}
}

// Ten thousand requests of all those kinds, many at once, with forged cookies and replayed
// addresses: no effect, and the person's session goes on.
func TestTenThousandHostileRequests(t *testing.T) {
	h := newHouse(t, Options{})
	mine := browser(t)
	used := h.address()
	h.enters(mine, h.address())
	gone := browser(t) // whoever had this address has signed out
	h.enters(gone, used)
	h.ask(gone, "POST", "/logout", same, "")
	old := h.address()
	h.later(codeLasts)
	rows := hostile()
	u, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	cookie := mine.Jar.Cookies(u)[0]
	forged := []string{
		"", cookie.Name + "=", cookie.Name + "=x", cookie.Name + "=" + cookie.Value[1:], cookie.Name + "=" + cookie.Value + "x", cookie.Name + `="` + cookie.Value + `x"`,
		"__Host-" + cookie.Name + "=" + cookie.Value, strings.ToUpper(cookie.Name) + "=" + cookie.Value, cookie.Name + "=" + strings.ToLower(cookie.Value),
		strings.Repeat("a=b; ", 1000), cookie.Name[:len(cookie.Name)-1] + "=" + cookie.Value,
	}
	got, changed := h.got.Load(), h.changed.Load()
	total := 10_000
	if testing.Short() {
		total = 500
	}
	const workers = 16
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			stranger := browser(t)
			stranger.Jar = nil
			for n := worker; n < total; n += workers {
				headers := map[string]string{}
				method, path, body := "GET", "/remove", ""
				if n%3 == 0 {
					r := rows[n/3%len(rows)]
					if host, ok := r.headers["Host"]; ok && host == "" {
						continue
					}
					for name, value := range r.headers {
						headers[name] = value
					}
					method, path, body = r.method, r.path, r.body
					headers["Cookie"] = cookie.Name + "=" + cookie.Value
				} else if n%30 == 1 {
					path = []string{used, old, used + "x", strings.ToLower(used)}[n/30%4] // replayed and guessed addresses
				} else {
					headers["Cookie"] = forged[n%len(forged)]
					if n%3 == 1 {
						method = "POST"
						headers["Sec-Fetch-Site"] = "same-origin"
					}
				}
				if r := h.ask(stranger, method, path, headers, body); r.status < 300 || r.status == http.StatusSeeOther && r.header.Get("Location") != "/login" {
					t.Errorf("%s %s with %v got %d", method, path, headers, r.status)
				}
			}
		})
	}
	group.Wait()
	if h.got.Load() != got || h.changed.Load() != changed {
		t.Errorf("%d got in, %d changed something", h.got.Load()-got, h.changed.Load()-changed)
	}
	h.inside(mine)
}

// What is no request of a browser at all: no Host, two Hosts, a slow body, and connections
// that say nothing. The person is served beside them.
func TestRawRequests(t *testing.T) {
	h := newHouse(t, Options{})
	mine := browser(t)
	h.enters(mine, h.address())
	at := strings.TrimPrefix(h.url, "http://")
	dial := func() net.Conn {
		t.Helper()
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	u, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	cookie := "Cookie: " + mine.Jar.Cookies(u)[0].String() + "\r\n"
	got := h.got.Load()
	for _, text := range []string{
		"GET /remove HTTP/1.1\r\n" + cookie + "\r\n",
		"GET /remove HTTP/1.1\r\nHost: \r\n" + cookie + "\r\n",
		"GET /remove HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n" + cookie + "\r\n",
		"GET http://evil.example/remove HTTP/1.1\r\nHost: localhost\r\n" + cookie + "\r\n",
		"GET /remove HTTP/1.0\r\n" + cookie + "\r\n",
		"POST /remove HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 1000000\r\n" + cookie + "\r\nab",
	} {
		c := dial()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 400 && resp.StatusCode != 403 && resp.StatusCode != 413 {
			t.Errorf("%q got %d", text, resp.StatusCode)
		}
	}
	for range 500 {
		dial()
	}
	slow := dial()
	if _, err := io.WriteString(slow, "POST /remove HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 10\r\n"+cookie+"\r\nab"); err != nil {
		t.Fatal(err)
	}
	if h.got.Load() != got {
		t.Error("one of them got in")
	}
	h.inside(mine)
}

// Another user of this machine who has the address or the cookie of this one gets nothing,
// and the session goes on; an address that was made for an opener is not used up either.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	for _, program := range []string{"setpriv", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			realpart.Missing(t, err)
		}
	}
	h := newHouse(t, Options{})
	mine := browser(t)
	h.enters(mine, h.address())
	opener, _ := h.LinkForOpener()
	u, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	got := h.got.Load()
	other := func(path, cookie string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		const program = `
import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
c.request("GET", sys.argv[2], headers={"Cookie": sys.argv[3]})
r = c.getresponse()
print(r.status, r.getheader("Location"), r.getheader("Set-Cookie"))`
		command := exec.CommandContext(ctx, "setpriv", "--reuid=23002", "--regid=23002", "--clear-groups", "python3", "-c", program, u.Port(), path, cookie)
		command.Dir, command.Env, command.Stderr = "/", []string{"PATH=/usr/bin:/bin"}, os.Stderr
		out, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if answer := other("/", mine.Jar.Cookies(u)[0].String()); answer != "401 None None" {
		t.Errorf("with the cookie, another user got %s", answer)
	}
	if answer := other(opener, "a=b"); answer != "403 None None" {
		t.Errorf("at the opener's address, another user got %s", answer)
	}
	if h.got.Load() != got {
		t.Error("another user got in")
	}
	h.inside(mine)
	h.enters(browser(t), opener)
}

func TestHostOf(t *testing.T) {
	for address, want := range map[string]string{
		"https://upsauth.agency.example": "upsauth.agency.example true", "https://UPSAUTH.agency.example:443/": "upsauth.agency.example true",
		"http://box:8488": "box:8488 false", "http://box:80": "box false", "https://[fd00::1]:443": "[fd00::1] true", "https://box:8443/": "box:8443 true",
	} {
		host, secure, err := HostOf(address)
		if got := fmt.Sprint(host, " ", secure); err != nil || got != want {
			t.Errorf("%s: %s, %v", address, got, err)
		}
	}
	for _, address := range []string{"", "box", "ftp://box", "https://", "https://a@b", "https://box/path", "https://box?x", "https://box#x", "https://b\x00x"} {
		if host, _, err := HostOf(address); err == nil {
			t.Errorf("%q is %q", address, host)
		}
	}
}

// No Host but the loopback names and the manager's own passes.
func FuzzHost(f *testing.F) {
	for _, host := range []string{"localhost", "localhost:8488", "127.0.0.1:1", "[::1]:65535", "upsauth.agency.example", "evil.example", "localhost.evil.example:80", "LOCALHOST:8", "localhost:65536"} {
		f.Add(host)
	}
	d, err := New(Options{Hosts: []string{"upsauth.agency.example"}, Now: time.Now})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host string) {
		_, ok := d.host(host)
		u, err := url.Parse("http://" + host + "/")
		named := err == nil && u.Host == host && (strings.EqualFold(u.Host, "upsauth.agency.example") ||
			strings.EqualFold(u.Hostname(), "localhost") || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
		if ok && !named {
			t.Errorf("the host %q passes", host)
		}
	})
}

// No cookie but the one that was given lets anybody in.
func FuzzCookie(f *testing.F) {
	d, err := New(Options{Now: time.Now})
	if err != nil {
		f.Fatal(err)
	}
	get := func(path, cookie string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil)
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		r = r.WithContext(ConnContext(r.Context(), nil))
		w := httptest.NewRecorder()
		d.enter(visit{w: w, r: r, uid: 1}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
		return w
	}
	address, _ := d.Link()
	value, came := d.use(visit{r: httptest.NewRequest(http.MethodGet, "/", nil), uid: 1}, strings.TrimPrefix(address, "/login/"))
	if came != fresh || get("/", d.cookie+"="+value).Code != http.StatusTeapot {
		f.Fatal("the right cookie lets nobody in")
	}
	f.Add(d.cookie + "=")
	f.Add("x; " + d.cookie + "=AAAA;" + d.cookie + "=\"B\"")
	f.Fuzz(func(t *testing.T, cookie string) {
		if w := get("/", cookie); w.Code != http.StatusUnauthorized && !strings.Contains(cookie, value) {
			t.Errorf("the cookie %q got %d", cookie, w.Code)
		}
		if w := get("/", d.cookie+"="+cookie); w.Code != http.StatusUnauthorized && !strings.Contains(cookie, value) {
			t.Errorf("the value %q got %d", cookie, w.Code)
		}
	})
}

// Somebody who was signed in is told why that is over, and nobody else.
func TestEndedSessionIsExplained(t *testing.T) {
	const explained = "This browser was signed in before, and that session has ended."
	h := newHouse(t, Options{})
	mine := browser(t)
	if r := h.ask(mine, "GET", "/login", nil, ""); strings.Contains(r.body, explained) {
		t.Errorf("a new browser reads %s", r.body)
	}
	h.enters(mine, h.address())
	u, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	kept := mine.Jar.Cookies(u)
	h.later(idle)
	for _, path := range []string{"/login", "/"} {
		if r := h.ask(mine, "GET", path, nil, ""); !strings.Contains(r.body, explained) || !strings.Contains(r.body, "12\u00a0hours") {
			t.Errorf("%s says %s", path, r.body)
		}
	}
	if r := h.ask(mine, "GET", "/login?out", nil, ""); strings.Contains(r.body, explained) {
		t.Errorf("after the sign-out it says %s", r.body)
	}
	// The service that was started anew has another door.
	h = newHouse(t, Options{})
	mine.Jar.SetCookies(u, kept)
	anew, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	mine.Jar.SetCookies(anew, kept)
	if r := h.ask(mine, "GET", "/login", nil, ""); !strings.Contains(r.body, explained) || !strings.Contains(r.body, "started anew") {
		t.Errorf("it says %s", r.body)
	}
}
