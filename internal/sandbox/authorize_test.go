package sandbox

import (
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestAuthorizeParameters(t *testing.T) {
	listed := []Client{{ID: testClient, Secret: testSecret, RedirectURI: testRedirect, DisplayName: "UPS® Intelligent Rating"},
		{ID: testClient, Secret: testSecret, RedirectURI: "https://tools.example/cb"}}
	tests := []struct {
		name    string
		clients []Client
		change  []string
		status  int
		code    string
		message string
	}{
		{name: "unlisted"},
		{name: "listed", clients: listed},
		{name: "second redirect URI", clients: listed, change: []string{"redirect_uri", "https://tools.example/cb"}},
		{name: "challenge, method absent", change: []string{"code_challenge", challenge}},
		{name: "challenge S256", change: []string{"code_challenge", challenge, "code_challenge_method", "S256"}},
		{name: "IPv6", change: []string{"redirect_uri", "http://[::1]:9/"}},
		{name: "127.9.9.9", change: []string{"redirect_uri", "http://127.9.9.9"}},
		{name: "no client", change: []string{"client_id", "-"}, status: 401, code: "10401", message: "ClientId is Invalid"},
		{name: "client that no header can hold", change: []string{"client_id", "a\x00b"}, status: 401, code: "10401", message: "ClientId is Invalid"},
		{name: "unknown client", clients: listed, change: []string{"client_id", "other"}, status: 401, code: "10401", message: "ClientId is Invalid"},
		{name: "no redirect URI", change: []string{"redirect_uri", "-"}, status: 400, code: "10400", message: "Invalid Redirect URL"},
		{name: "redirect URI elsewhere", change: []string{"redirect_uri", "https://tools.example/cb"}, status: 400, code: "10400", message: "Invalid Redirect URL"},
		{name: "loopback in the user info", change: []string{"redirect_uri", "http://localhost@tools.example/"}, status: 400, code: "10400", message: "Invalid Redirect URL"},
		{name: "fragment", change: []string{"redirect_uri", "http://localhost/#"}, status: 400, code: "10400", message: "Invalid Redirect URL"},
		{name: "scheme", change: []string{"redirect_uri", "javascript://localhost/%0Aalert(1)"}, status: 400, code: "10400", message: "Invalid Redirect URL"},
		{name: "not to the letter", clients: listed, change: []string{"redirect_uri", "http://localhost:8400/callback"}, status: 400, code: "10400", message: "Invalid Redirect URL"},
		{name: "no response type", change: []string{"response_type", "-"}, status: 400, code: "10400", message: "Invalid Response Type"},
		{name: "response type token", change: []string{"response_type", "token"}, status: 400, code: "10400", message: "Invalid Response Type"},
		{name: "short challenge", change: []string{"code_challenge", challenge[1:]}, status: 400, code: "10400", message: "Invalid Code Challenge"},
		{name: "empty challenge", change: []string{"code_challenge", ""}, status: 400, code: "10400", message: "Invalid Code Challenge"},
		{name: "padded challenge", change: []string{"code_challenge", challenge[1:] + "="}, status: 400, code: "10400", message: "Invalid Code Challenge"},
		{name: "plain", change: []string{"code_challenge", challenge, "code_challenge_method", "plain"}, status: 400, code: "10400", message: "Invalid Code Challenge Method"},
		{name: "method alone", change: []string{"code_challenge_method", "S256"}, status: 400, code: "10400", message: "Invalid Code Challenge Method"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, Options{Clients: tt.clients})
			r := h.do("GET", h.authorizeURL(tt.change...), "")
			if tt.status != 0 {
				r.wantError(t, tt.status, tt.code, tt.message)
				return
			}
			if r.status != http.StatusFound || r.body != "" {
				t.Fatalf("%d %s", r.status, r.body)
			}
			if got := r.header.Get("appname"); got != testClient {
				t.Errorf("appname %q", got)
			}
		})
	}

	h := start(t, Options{})
	h.do("GET", h.authorizeURL()+"&state=again", "").wantError(t, 400, "10400", "Invalid Request")
	h.do("GET", h.authorizeURL()+"&x=%zz", "").wantError(t, 400, "10400", "Invalid Request")
	r := h.do("POST", h.authorizeURL(), "")
	r.wantError(t, 405, "10405", "Method Not Allowed")
	if got := r.header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow: %q", got)
	}
}

func TestAuthorizeRedirectIsUPSs(t *testing.T) {
	h := start(t, Options{Clients: []Client{{ID: testClient, RedirectURI: testRedirect, DisplayName: "UPS® Intelligent Rating"}}})
	r := h.do("GET", h.authorizeURL(), "")
	want := h.url + "/lasso/signin?client_id=client-1&redirect_uri=" + url.QueryEscape(testRedirect) +
		"&response_type=code&scope=read&state=" + url.QueryEscape(testState) + "&type=ups_com_api&ticket="
	if got := r.header.Get("Location"); !strings.HasPrefix(got, want) {
		t.Errorf("Location\n%s\nwant\n%s", got, want)
	}
	if got := r.header.Get("displayname"); got != "UPS® Intelligent Rating" {
		t.Errorf("displayname %q", got)
	}
}

func TestAskingConsumesNothing(t *testing.T) {
	h := start(t, Options{})
	first := h.signInURL()
	for range 3 {
		if again := h.signInURL(); again != first {
			t.Fatalf("asked again, the sign-in page moved from %s to %s", first, again)
		}
	}
}

func TestCallbackURL(t *testing.T) {
	state, empty := "x y", ""
	tests := []struct {
		redirect string
		scope    string
		state    *string
		want     string
	}{
		{"http://localhost", "", nil, "http://localhost?code=YWI=&scope=read"},
		{"http://localhost/cb", "read", &state, "http://localhost/cb?code=YWI=&scope=read&state=x+y"},
		{"http://localhost/cb?q=%41", "a b&c", &empty, "http://localhost/cb?q=%41&code=YWI=&scope=a+b%26c&state="},
		{"http://localhost/cb?", "", nil, "http://localhost/cb?code=YWI=&scope=read"},
		{"com.example.app:/cb?q&", "", nil, "com.example.app:/cb?q&code=YWI=&scope=read"},
	}
	for _, tt := range tests {
		a := authorization{RedirectURI: tt.redirect, Scope: tt.scope, State: tt.state}
		if got := a.granted("YWI="); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.redirect, got, tt.want)
		}
	}
	if got, want := (authorization{RedirectURI: "http://localhost/cb", State: &state}).denied(), "http://localhost/cb?error=access_denied&state=x+y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// UPS's codes have 132 characters, end in "==", and stand in the callback as they
// are: a client that cuts a parameter at its last = gets another code.
func TestCallbackIsUPSs(t *testing.T) {
	h := start(t, Options{})
	r := h.post(h.signInURL(), url.Values{"username": {"jane"}, "agree": {"yes"}, "password": {"pw"}}, "")
	want := regexp.MustCompile("^" + regexp.QuoteMeta(testRedirect) + "&code=[A-Za-z0-9]{130}==&scope=read&state=" +
		regexp.QuoteMeta(url.QueryEscape(testState)) + "$")
	if got := r.header.Get("Location"); !want.MatchString(got) {
		t.Errorf("the callback is %s", got)
	}
}

// A base URL that ends in a slash, as in UPS's Java sample, makes two of one: UPS
// takes that, and a redirect would turn a POST into a GET.
func TestASlashTooManyInFront(t *testing.T) {
	h := start(t, Options{})
	h.url += "/" // the paths of the requests below begin with two
	first := h.grant("jane")
	second := h.tokens(h.refresh(first.RefreshToken))
	if !h.works(second.AccessToken) {
		t.Error("the access token does not open //api")
	}
	for _, path := range []string{"/security/v1/oauth/keys", "//security/v1/oauth/keys", "/sandbox/log", "/"} {
		if r := h.do("GET", path, ""); r.status != http.StatusOK {
			t.Errorf("GET /%s: %d %s", path, r.status, r.header.Get("Location"))
		}
	}
	h.do("GET", "/nothing/here", "").wantError(t, 404, "10404", "Not Found")
	h.do("POST", "/sandbox/faults", "", "Host", "sandbox.example").wantError(t, 403, "10403", "")
}

func TestParseClient(t *testing.T) {
	c, err := ParseClient("id:secret:http://localhost:8400/callback")
	if want := (Client{ID: "id", Secret: "secret", RedirectURI: "http://localhost:8400/callback"}); err != nil || c != want {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range []string{
		"", "id", "id:hunter2", ":hunter2:http://localhost/", "id::http://localhost/",
		"id:hunter2:", "id:hunter2:localhost/cb", "id:hunter2:http://localhost/#f", "id:hunter2:mailto:x", "id:hunter2:http://local host/",
	} {
		_, err := ParseClient(bad)
		if err == nil {
			t.Errorf("%q is accepted", bad)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error gives the secret away: %v", bad, err)
		}
	}
}

func FuzzParseClient(f *testing.F) {
	f.Add("id:secret:http://localhost:8400/callback")
	f.Add("id:secret:com.example.app:/cb")
	f.Add("::")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseClient(s)
		if err != nil {
			return
		}
		if c.ID+":"+c.Secret+":"+c.RedirectURI != s {
			t.Errorf("%q became %+v", s, c)
		}
		if _, err := New(Options{Clients: []Client{c}}); err != nil {
			t.Errorf("%q is accepted, and then refused: %v", s, err)
		}
	})
}

func TestNewRefusesContradictions(t *testing.T) {
	for name, opts := range map[string]Options{
		"client without ID":           {Clients: []Client{{RedirectURI: "http://localhost/"}}},
		"client without redirect URI": {Clients: []Client{{ID: "x"}}},
		"unprintable display name":    {Clients: []Client{{ID: "x", RedirectURI: "http://localhost/", DisplayName: "a\nb"}}},
		"user without name":           {Users: []User{{Password: "x"}}},
		"one user twice":              {Users: []User{{Name: "Jane"}, {Name: "jane "}}},
		"negative lifetime":           {AccessLifetime: -1},
	} {
		if _, err := New(opts); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseUsers(t *testing.T) {
	users, err := ParseUsers([]byte(`[{"name":"jane","password":"pw","company":"Acme","accounts":["A1"]},{"name":"joe","password":"x","declines":true,"campus_ship":true}]`))
	want := []User{{Name: "jane", Password: "pw", Company: "Acme", Accounts: []string{"A1"}}, {Name: "joe", Password: "x", Declines: true, CampusShip: true}}
	if err != nil || !reflect.DeepEqual(users, want) {
		t.Errorf("%+v, %v", users, err)
	}
	for text, message := range map[string]string{
		``: "JSON list", `[]`: "JSON list", `{}`: "JSON list", `[1]`: "user 1: a user is a JSON object, not a JSON number",
		`[{"name":"a"}]`: "no password", `[{"password":"a"}]`: "no name",
		`[{"name":"a","password":"b"},{"name":"A ","password":"b"}]`:           "user 2 has the name of another",
		"[{\"name\":\"" + strings.Repeat("a", 201) + "\",\"password\":\"b\"}]": "too long",
		`[{"name":"a","password":"b","declnes":true}]`:                         `unknown field "declnes"`,
		`[{"name":"a","password":"b","accounts":"A1"}]`:                        "a user's accounts is a list of strings, not a JSON string",
	} {
		if _, err := ParseUsers([]byte(text)); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
