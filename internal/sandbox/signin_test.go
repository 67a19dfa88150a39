package sandbox

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
)

func TestSignInPages(t *testing.T) {
	h := start(t, Options{Clients: []Client{{ID: testClient, RedirectURI: testRedirect, DisplayName: `<b>"Rating" & Co`}}})
	signIn := h.signInURL()

	first := h.do("GET", signIn, "")
	for _, want := range []string{
		"<h1>Log In</h1>", "Email or Username", "By continuing", "&lt;b&gt;&#34;Rating&#34; &amp; Co", `type="checkbox"`, ">Continue</button>",
		">Cancel</button>", "Forgot Username/Password", "This is a sandbox and not ups.com.", "Type any name and any password.",
		`<html lang="en">`, "viewport", "<header>", "<main>", `<label for="username">`, `<label for="agree">`, "prefers-color-scheme: dark",
	} {
		if !strings.Contains(first.body, want) {
			t.Errorf("the first page lacks %q", want)
		}
	}
	second := h.submit(signIn, url.Values{"username": {"<jane>"}, "agree": {"yes"}, "action": {"continue"}})
	for _, want := range []string{
		"<h1>Password</h1>", "Welcome back, <strong><bdi>&lt;jane&gt;</bdi></strong>", `<label for="password">`, `type="password"`, ">Log In</button>",
		"This is a sandbox and not ups.com.",
	} {
		if !strings.Contains(second.body, want) {
			t.Errorf("the second page lacks %q", want)
		}
	}
	for _, page := range []reply{first, second, h.do("GET", "/", ""), h.do("GET", "/lasso/forgot", ""), h.do("GET", "/error.page", "")} {
		csp := page.header.Get("Content-Security-Policy")
		nonce := regexp.MustCompile(`style-src 'nonce-([^']+)'`).FindStringSubmatch(csp)
		if page.status != 200 || nonce == nil || !strings.Contains(page.body, `<style nonce="`+nonce[1]+`">`) || !strings.HasPrefix(csp, "default-src 'none';") {
			t.Errorf("%d, CSP %q", page.status, csp)
		}
		if page.header.Get("Cache-Control") != "no-store" || page.header.Get("X-Content-Type-Options") != "nosniff" || page.header.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("headers %v", page.header)
		}
		if strings.Contains(page.body, "<script") || strings.Contains(page.body, "ZgotmplZ") {
			t.Error("a page has a script, or something that html/template refused")
		}
	}
	if csp := first.header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' http://localhost:8400 ") {
		t.Errorf("the form may not lead to the client: %q", csp)
	}
}

func TestFormAction(t *testing.T) {
	for redirect, want := range map[string]string{
		"https://tools.example/cb": "'self' https://tools.example",
		"http://[::1]:80/cb":       "'self' http:",
		"com.example.app:/cb":      "'self' com.example.app:",
		"http://127.0.0.1:1/":      "'self' http://127.0.0.1:1 http://localhost:* https://localhost:* http://127.0.0.1:* https://127.0.0.1:*",
	} {
		if got := formAction(redirect); got != want {
			t.Errorf("%s: %s", redirect, got)
		}
	}
}

// submit sends a form and goes on to the page that it leads to.
func (h *harness) submit(path string, form url.Values) reply {
	h.t.Helper()
	r := h.post(path, form, "")
	next := r.header.Get("Location")
	if !strings.HasPrefix(next, "/lasso/signin?") {
		return r
	}
	for _, password := range form["password"] {
		if password != "" && strings.Contains(next, password) {
			h.t.Errorf("the password is in the next page's URL, %s", next)
		}
	}
	return h.do("GET", next, "")
}

func TestForgotLeadsBack(t *testing.T) {
	for want, users := range map[string][]User{"Make them up": nil, "was started with": {{Name: "jane", Password: "s3cret-word"}}} {
		h := start(t, Options{Users: users})
		signIn := h.signInURL()
		if r := h.do("GET", "/lasso/forgot", ""); r.status != 200 || !strings.Contains(r.body, want) || strings.Contains(r.body, "<a ") {
			t.Errorf("%d %s", r.status, r.body)
		}
		for name, form := range map[string]url.Values{
			`id="username"`:   {},
			"Welcome back":    {"username": {"jane"}, "agree": {"yes"}},
			"The password is": {"username": {"jane"}, "agree": {"yes"}, "password": {"wr0ng-word"}},
		} {
			if users == nil && name == "The password is" {
				continue // any password is right
			}
			page := h.submit(signIn, form)
			help := h.do("GET", h.link(page, "/lasso/forgot?"), "")
			if !strings.Contains(help.body, want) {
				t.Errorf("the help lacks %q", want)
			}
			if back := h.do("GET", h.link(help, "/lasso/signin?"), ""); back.status != page.status || !strings.Contains(back.body, name) {
				t.Errorf("the way back from the help ends with %d, without %q", back.status, name)
			}
		}
	}
}

// link is where the page's link leads that begins so.
func (h *harness) link(page reply, start string) string {
	h.t.Helper()
	for _, m := range regexp.MustCompile(`<a href="([^"]*)"`).FindAllStringSubmatch(page.body, -1) {
		if address := html.UnescapeString(m[1]); strings.HasPrefix(address, start) {
			return address
		}
	}
	h.t.Fatalf("no link leads to %s in\n%s", start, page.body)
	return ""
}

func TestSignInForms(t *testing.T) {
	h := start(t, Options{Users: []User{
		{Name: "Jane", Password: "right"},
		{Name: "camp", Password: "right", CampusShip: true},
		{Name: "no", Password: "right", Declines: true},
	}})
	tests := []struct {
		name   string
		form   url.Values
		status int
		want   string
	}{
		{"nothing", url.Values{}, 422, `aria-describedby="username-error"`},
		{"unticked", url.Values{"username": {"Jane"}}, 422, "agree by ticking the box"},
		{"unticked, name kept", url.Values{"username": {" Jane"}}, 422, `value="Jane"`},
		{"no name, tick kept", url.Values{"agree": {"yes"}}, 422, " checked"},
		{"unknown", url.Values{"username": {"joe"}, "agree": {"yes"}}, 422, "does not know this user name"},
		{"unknown with password", url.Values{"username": {"joe"}, "agree": {"yes"}, "password": {"right"}}, 422, "does not know this user name"},
		{"unprintable", url.Values{"username": {"a\x00b"}, "agree": {"yes"}}, 422, "be a username"},
		{"no UTF-8", url.Values{"username": {"\xff"}, "agree": {"yes"}}, 422, "be a username"},
		{"too long", url.Values{"username": {strings.Repeat("ä", 201)}, "agree": {"yes"}}, 422, "be a username"},
		{"first page", url.Values{"username": {"Jane"}, "agree": {"yes"}}, 200, "Welcome back"},
		{"no password", url.Values{"username": {"Jane"}, "agree": {"yes"}, "password": {""}}, 422, "Enter your password."},
		{"wrong password", url.Values{"username": {"Jane"}, "agree": {"yes"}, "password": {"wr0ng"}}, 422, "The password is wrong."},
		{"CampusShip", url.Values{"username": {"camp"}, "agree": {"yes"}, "password": {"right"}}, 403, "CampusShip"},
		{"too large", url.Values{"username": {strings.Repeat("x", 1<<16)}}, 400, "be read"},
	}
	signIn := h.signInURL()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := h.submit(signIn, tt.form)
			if r.status != tt.status || !strings.Contains(r.body, tt.want) {
				t.Errorf("%d without %q:\n%s", r.status, tt.want, r.body[strings.Index(r.body, "<main"):])
			}
			if r.status == 422 && strings.Count(r.body, `role="alert"`) != strings.Count(r.body, `aria-invalid="true"`) {
				t.Error("a message belongs to no field")
			}
		})
	}

	back := func(form url.Values) url.Values {
		t.Helper()
		r := h.post(signIn, form, "")
		location, found := strings.CutPrefix(r.header.Get("Location"), testRedirect+"&")
		if r.status != http.StatusSeeOther || !found {
			t.Fatalf("%d to %s", r.status, r.header.Get("Location"))
		}
		q, err := url.ParseQuery(location)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.Get("state"); got != testState {
			t.Errorf("state %q came back as %q", testState, got)
		}
		return q
	}
	if q := back(url.Values{"action": {"cancel"}}); q.Get("error") != "access_denied" || q.Has("code") {
		t.Errorf("cancelled: %v", q)
	}
	if q := back(url.Values{"username": {"no"}, "agree": {"yes"}, "password": {"right"}}); q.Get("error") != "access_denied" || q.Has("code") {
		t.Errorf("declined: %v", q)
	}
	// A page that has been sent before, from a second tab or after going
	// back, is as good as the first time.
	full := url.Values{"username": {"jane"}, "agree": {"yes"}, "password": {"right"}}
	if a, b := back(full).Get("code"), back(full).Get("code"); a == "" || b == "" || a == b {
		t.Errorf("codes %q and %q", a, b)
	}
}

func TestStateIsAbsentWhereNoneWasSent(t *testing.T) {
	h := start(t, Options{})
	r := h.post(h.signInURL("state", "-"), url.Values{"action": {"cancel"}}, "")
	if got := r.header.Get("Location"); got != testRedirect+"&error=access_denied" {
		t.Error(got)
	}
}

func TestSignInRefusesWhatItDidNotMake(t *testing.T) {
	h := start(t, Options{})
	signIn := h.signInURL("code_challenge", challenge)
	for name, change := range map[string]func(url.Values){
		"challenge removed":  func(q url.Values) { q.Del("code_challenge") },
		"challenge replaced": func(q url.Values) { q.Set("code_challenge", strings.ToLower(challenge)) },
		"redirect replaced":  func(q url.Values) { q.Set("redirect_uri", "http://localhost:1/") },
		"client replaced":    func(q url.Values) { q.Set("client_id", "other") },
		"state replaced":     func(q url.Values) { q.Set("state", "other") },
		"ticket removed":     func(q url.Values) { q.Del("ticket") },
		"ticket twice":       func(q url.Values) { q.Add("ticket", "x") },
	} {
		u, err := url.Parse(signIn)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		change(q)
		for _, method := range []string{"GET", "POST"} {
			r := h.do(method, "/lasso/signin?"+q.Encode(), "action=cancel", "Content-Type", formType)
			if r.status != http.StatusBadRequest || r.header.Get("Location") != "" {
				t.Errorf("%s, %s: %d", name, method, r.status)
			}
		}
	}
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	h := start(t, Options{})
	signIn := h.signInURL()
	form := "username=jane&agree=yes&password=x"
	for _, tt := range []struct {
		header []string
		status int
	}{
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-site"}, 403},
		{[]string{"Origin", "https://evil.example"}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Sec-Fetch-Site", "same-origin", "Origin", "null"}, 303},
		{[]string{"Origin", h.url}, 303},
		{nil, 303},
	} {
		r := h.do("POST", signIn, form, append(tt.header, "Content-Type", formType)...)
		if r.status != tt.status {
			t.Errorf("%v: %d, want %d", tt.header, r.status, tt.status)
		}
	}
}

func TestStartPage(t *testing.T) {
	h := start(t, Options{Clients: []Client{{ID: testClient, Secret: testSecret, RedirectURI: testRedirect}}})
	a := h.grant("jane & co")
	b := h.grant("joe")
	h.clock.advance(24 * time.Hour)
	h.tokens(h.refresh(b.RefreshToken))
	page := h.do("GET", "/", "").body
	for _, want := range []string{"jane &amp; co", testClient, "2026-11-22 17:05:03 UTC", "/security/v1/oauth/refresh", "BASE=&#39;" + h.url} {
		if !strings.Contains(page, want) {
			t.Errorf("the start page lacks %q", want)
		}
	}
	for _, secret := range []string{testSecret, "s3cret", a.AccessToken, a.RefreshToken} {
		if strings.Contains(page, secret) {
			t.Errorf("the start page shows a secret: %q", secret)
		}
	}
	// Not to other machines, nor to a site whose name was bound to this one.
	r := httptest.NewRequest("GET", h.url+"/", nil)
	r.RemoteAddr = "192.0.2.1:1234"
	w := httptest.NewRecorder()
	h.srv.ServeHTTP(w, r)
	for _, page := range []string{w.Body.String(), h.do("GET", "/", "", "Host", "sandbox.example").body} {
		if !strings.Contains(page, "on this machine only") || strings.Contains(page, "jane &amp; co") {
			t.Errorf("others are told who authorized what: %s", page)
		}
	}
}

func TestNoSessionWhereNobodyCanAuthorize(t *testing.T) {
	h := start(t, Options{Users: []User{{Name: "joe", Password: "x", Declines: true}, {Name: "jim", Password: "x", CampusShip: true}}})
	if session := h.srv.CurlSession(h.url); session != "" {
		t.Errorf("it would fail: %s", session)
	}
	if page := h.do("GET", "/", "").body; strings.Contains(page, "With curl") {
		t.Error("the start page has a session that would fail")
	}
}

func TestQuietPaths(t *testing.T) {
	h := start(t, Options{})
	if r := h.do("GET", "/favicon.ico", ""); r.status != 204 {
		t.Errorf("favicon: %d", r.status)
	}
	if r := h.do("GET", "/robots.txt", ""); r.status != 200 {
		t.Errorf("robots.txt: %d", r.status)
	}
	h.do("GET", "/security/v1/oauth/revoke", "").wantError(t, 404, "10404", "Not Found")
	h.do("POST", "/", "").wantError(t, 405, "10405", "Method Not Allowed")
	h.do("DELETE", "/lasso/signin", "").wantError(t, 405, "10405", "Method Not Allowed")
}

func TestCurlSession(t *testing.T) {
	for tool, debianPackage := range map[string]string{"sh": "dash", "curl": "curl", "sed": "sed"} {
		realpart.Program(t, tool, debianPackage)
	}
	options := map[string]Options{
		"unlisted": {},
		"listed": {
			Clients: []Client{{ID: "it's", Secret: "a$b c", RedirectURI: testRedirect}},
			Users: []User{
				{Name: "joe", Password: "pw", Declines: true}, {Name: "jim", Password: "pw", CampusShip: true},
				{Name: "jane", Password: "it's & so+on"},
			},
		},
	}
	for name, options := range options {
		t.Run(name, func(t *testing.T) {
			h := start(t, options)
			cmd := exec.Command("sh", "-eu")
			cmd.Stdin = strings.NewReader(h.srv.CurlSession(h.url))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"&state=af0ifjsldkj", `"refresh_count":"0"`, `"user":"jane"`, `"refresh_count":"1"`, "Invalid Refresh Token"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("the transcript lacks %s:\n%s", want, out)
				}
			}
			page := h.do("GET", "/", "").body
			for _, secret := range []string{"a$b c", "so+on", "so&#43;on"} {
				if strings.Contains(page, secret) {
					t.Errorf("the start page tells %s", secret)
				}
			}
		})
	}
}
