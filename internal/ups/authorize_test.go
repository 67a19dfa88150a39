package ups

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestAuthorizeURLAsksForExactlyWhatUPSDocuments(t *testing.T) {
	always := url.Values{
		"client_id": {testClientID}, "response_type": {"code"}, "redirect_uri": {testRedirectURI}, "state": {"S/t+a=t&e"},
	}
	with := func(more url.Values) url.Values {
		want := maps.Clone(always)
		maps.Copy(want, more)
		return want
	}
	challenge := url.Values{"code_challenge": {testChallenge}, "code_challenge_method": {"S256"}}
	for _, test := range []struct {
		name string
		tune func(*Client)
		want url.Values
	}{
		{"PKCE auto", withPKCE(PKCEAuto), with(challenge)},
		{"PKCE on", withPKCE(PKCEOn), with(challenge)},
		{"PKCE beside Basic", func(c *Client) { c.PKCE, c.PKCENeedsBasic = PKCEAuto, true }, with(challenge)},
		{"PKCE off", withPKCE(PKCEOff), always},
		{"scope", func(c *Client) { c.Scope = "read write" }, with(url.Values{"scope": {"read write"}})},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, "https://onlinetools.ups.com", test.tune)
			address := c.AuthorizeURL("S/t+a=t&e", testVerifier)
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			if got := u.Scheme + "://" + u.Host + u.Path; got != "https://onlinetools.ups.com/security/v1/oauth/authorize" {
				t.Errorf("the browser goes to %s", got)
			}
			if got := u.Query(); !maps.EqualFunc(got, test.want, slices.Equal) {
				t.Errorf("the parameters are\n%v, want\n%v", got, test.want)
			}
			if strings.Contains(address, testSecret) || strings.Contains(address, testVerifier) {
				t.Errorf("a secret stands in the browser's address: %s", address)
			}
		})
	}
}

// UPS compares the redirect URI to the letter: nothing may tidy it up, neither
// for the browser nor for the exchange.
func TestRedirectURIGoesToUPSByteForByte(t *testing.T) {
	for _, uri := range []string{
		"http://localhost:8765",
		"http://localhost:8765/",
		"HTTP://LocalHost:8765/Call%2Fback/../x",
		"http://127.0.0.1:8765/callback?tenant=a%20b&x=1;2",
		"http://[::1]:8765/übersicht#",
	} {
		t.Run(uri, func(t *testing.T) {
			s := newServer(t, granting)
			c := newClient(t, s.URL, func(c *Client) { c.RedirectURI = uri })
			u, err := url.Parse(c.AuthorizeURL("state", testVerifier))
			if err != nil {
				t.Fatal(err)
			}
			if got := u.Query().Get("redirect_uri"); got != uri {
				t.Errorf("the browser takes %q along, want %q", got, uri)
			}
			if _, _, err := c.Exchange(t.Context(), testCode, testVerifier, forget); err != nil {
				t.Fatal(err)
			}
			if got := s.only(t).Form.Get("redirect_uri"); got != uri {
				t.Errorf("the exchange has %q, want %q", got, uri)
			}
		})
	}
}

// Only what certainly ends a sign-in may keep a person from the browser.
func TestPreflightStopsOnlyAtWhatCertainlyEndsASignIn(t *testing.T) {
	const none = Kind("")
	jsonBody := func(status int, body string) http.HandlerFunc { return saying(status, "application/json", body) }
	redirect := func(status int, location string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if location != "" {
				w.Header().Set("Location", location)
			}
			w.WriteHeader(status)
		}
	}
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   Kind
	}{
		{"302 to UPS's sign-in page", redirect(302, "https://www.ups.com/lasso/signin?type=ups_com_api"), none},
		{"302 to a sign-in page elsewhere", redirect(302, "https://id.ups.com/u/login?state=x"), none},
		{"303 relative", redirect(303, "/signin"), none},
		{"302 without Location", redirect(302, ""), none},
		{"302 with a Location that is no URL", redirect(302, "http://a b/%zz"), none},
		{"302 to a page that only mentions the error page", redirect(302, "https://www.ups.com/signin?next=/error.page"), none},
		{"200 HTML", saying(200, "text/html", "<title>Sign in</title>"), none},
		{"200 with unknown JSON", jsonBody(200, `{"page":"signin"}`), none},
		{"200 with an error that is not known", jsonBody(200, `{"error":"beta"}`), none},
		{"400 empty", saying(400, "text/plain", ""), none},
		{"400 refusal cut in the middle", jsonBody(400, upsError("10400", "Invalid Redirect URL")[:40]), none},
		{"401 HTML", saying(401, "text/html", "<title>Invalid Redirect URL</title>"), none},
		{"403 HTML of a firewall", saying(403, "text/html", "<title>Access Denied</title>"), none},
		{"404 HTML", saying(404, "text/html", "<h1>Not found</h1>"), none},
		{"503 HTML", saying(503, "text/html", "<h1>We'll be right back</h1>"), none},

		{"400 redirect URI", jsonBody(400, upsError("10400", "Invalid Redirect URL")), RedirectURIRefused},
		{"401 client", jsonBody(401, upsError("10401", "ClientId is Invalid")), ClientRefused},
		{"403 blocked", jsonBody(403, upsError("10403", "Blocked Merchant")), Blocked},
		{"429", jsonBody(429, upsError("10429", "Too Many Requests")), RateLimited},
		{"500 in UPS's words", jsonBody(500, upsError("10500", "Internal Server Error")), Down},
		{"refusal in UPS's words that nobody knows", jsonBody(400, upsError("10400", "Something new")), Unknown},
		{"refusal granted by its status", jsonBody(200, upsError("10401", "ClientId is Invalid")), ClientRefused},
		{"400 with errorcode header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("errorcode", "10400")
			w.Header().Set("errordescription", "Invalid Redirect URL")
			w.WriteHeader(http.StatusBadRequest)
		}, RedirectURIRefused},
		{"401 with errorcode header and a page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("errorcode", "10401")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte("<html></html>"))
		}, ClientRefused},
		{"302 to UPS's error page", redirect(302, "https://www.ups.com/error.page"), Down},
		{"302 to UPS's error page with parameters", redirect(302, "https://www.ups.com/us/en/error.page?code=9"), Down},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, test.answer)
			err := newClient(t, s.URL, withPKCE(PKCEAuto)).Preflight(t.Context())
			s.only(t)
			if test.want == none {
				if err != nil {
					t.Fatalf("the browser was not opened: %v", err)
				}
				return
			}
			if e := typed(t, err); e.Kind != test.want || e.Endpoint != AuthorizeEndpoint {
				t.Errorf("the error is %s at %s, want %s at %s", e.Kind, e.Endpoint, test.want, AuthorizeEndpoint)
			}
		})
	}
}

// The state of a login may reach UPS once, with the person's browser.
func TestPreflightHasStateAndChallengeOfItsOwn(t *testing.T) {
	s := newServer(t, saying(200, "text/html", ""))
	c := newClient(t, s.URL, func(c *Client) { c.PKCE, c.Scope = PKCEAuto, "read" })
	for range 2 {
		if err := c.Preflight(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(c.AuthorizeURL("the-state-of-the-login", testVerifier))
	if err != nil {
		t.Fatal(err)
	}
	requests := s.requests()
	queries := make([]url.Values, 1, 1+len(requests))
	queries[0] = u.Query()
	for _, r := range requests {
		if r.Method != http.MethodGet || r.Path != "/security/v1/oauth/authorize" || r.Header.Get("Authorization") != "" {
			t.Errorf("the preflight is %s %s with Authorization %q", r.Method, r.Path, r.Header.Get("Authorization"))
		}
		queries = append(queries, r.Query)
	}
	seen := map[string]bool{}
	for _, q := range queries {
		for _, name := range []string{"state", "code_challenge"} {
			if v := q.Get(name); v == "" || seen[v] {
				t.Errorf("the %s %q is empty or was used before", name, v)
			} else {
				seen[v] = true
			}
			q.Del(name)
		}
		if !maps.EqualFunc(q, queries[0], slices.Equal) {
			t.Errorf("the preflight asks for %v, the browser for %v", q, queries[0])
		}
	}
}

func TestPreflightFollowsNoRedirect(t *testing.T) {
	elsewhere := newServer(t, saying(200, "text/html", ""))
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
	if err := newClient(t, s.URL).Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(elsewhere.requests()); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}
