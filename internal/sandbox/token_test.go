package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTokenAnswerIsUPSs(t *testing.T) {
	h := start(t, Options{})
	r := h.exchange(h.code(" Jane@Acme.example "))
	h.clock.advance(time.Minute)
	a := h.tokens(r)
	want := tokenAnswer{
		RefreshTokenExpiresIn: "5183999", RefreshTokenStatus: "approved", TokenType: "Bearer",
		IssuedAt: "1795277103000", ClientID: testClient, AccessToken: a.AccessToken, RefreshToken: a.RefreshToken,
		Scope: "read", RefreshTokenIssuedAt: "1795277103000", ExpiresIn: "3599", RefreshCount: "0", Status: "approved",
	}
	if a != want {
		t.Errorf("got %+v", a)
	}
	var raw map[string]string
	if err := json.Unmarshal([]byte(r.body), &raw); err != nil || len(raw) != 12 {
		t.Errorf("%d fields, all strings? %v", len(raw), err)
	}
	if r.header.Get("Content-Type") != "application/json" || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", r.header)
	}
	if n := len(a.RefreshToken); n != 160 {
		t.Errorf("the refresh token has %d characters", n)
	}
	if n := len(a.AccessToken); n < 1000 || 1400 < n {
		t.Errorf("the access token has %d characters", n)
	}

	c, err := verifyJWT(publicKey(t), a.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "Jane@Acme.example" || c.ClientID != testClient || c.Issuer != "https://apis.ups.com" ||
		c.Audience != testClient || c.DisplayName != testClient || c.IssuedAt != 1795277103 || c.NotBefore != c.IssuedAt ||
		c.Expires != c.IssuedAt+3599 || c.ID == "" || c.SessionID == "" || c.UUID == "" || c.At == "" {
		t.Errorf("claims %+v", c)
	}

	second := h.tokens(h.refresh(a.RefreshToken))
	if second.RefreshCount != "1" || second.IssuedAt != "1795277163000" || second.RefreshToken == a.RefreshToken || second.AccessToken == a.AccessToken {
		t.Errorf("refreshed: %+v", second)
	}
	if !h.works(a.AccessToken) || !h.works(second.AccessToken) {
		t.Error("an access token does not work, or stops working when another is issued")
	}
}

func TestTokenRequestErrors(t *testing.T) {
	h := start(t, Options{Clients: []Client{
		{ID: testClient, Secret: testSecret, RedirectURI: testRedirect},
		{ID: "other", Secret: "x", RedirectURI: testRedirect},
		{ID: "public", RedirectURI: testRedirect},
	}})
	code := h.code("jane")
	tests := []struct {
		name    string
		change  []string
		status  int
		message string
	}{
		{"no grant type", []string{"grant_type", "-"}, 400, "Invalid Grant Type"},
		{"other grant type", []string{"grant_type", "refresh_token"}, 400, "Invalid Grant Type"},
		{"no authorization", []string{"Authorization", ""}, 400, "Invalid/Missing Authorization Header"},
		{"bearer", []string{"Authorization", "Bearer x"}, 400, "Invalid/Missing Authorization Header"},
		{"broken basic", []string{"Authorization", "Basic !"}, 400, "Invalid/Missing Authorization Header"},
		{"wrong secret", []string{"Authorization", basic(testClient, "x")}, 401, "ClientId is Invalid"},
		{"unknown client", []string{"Authorization", basic("nobody", testSecret)}, 401, "ClientId is Invalid"},
		{"empty secret", []string{"Authorization", basic("public", "")}, 401, "ClientId is Invalid"},
		{"two clients", []string{"client_id", "other"}, 401, "ClientId is Invalid"},
		{"no code", []string{"code", "-"}, 400, "Invalid Authorization Code"},
		{"unknown code", []string{"code", "x"}, 400, "Invalid Authorization Code"},
		{"other client's code", []string{"Authorization", basic("other", "x")}, 400, "Invalid Authorization Code"},
		{"no redirect URI", []string{"redirect_uri", "-"}, 400, "Invalid Redirect URL"},
		{"redirect URI not to the letter", []string{"redirect_uri", testRedirect + "&"}, 400, "Invalid Redirect URL"},
		{"short verifier", []string{"code_verifier", "x"}, 400, "Invalid Code Verifier"},
		{"verifier without challenge, no basic", []string{"Authorization", "", "code_verifier", verifier, "client_id", testClient}, 400, "Invalid/Missing Authorization Header"},
		{"PKCE without client", []string{"Authorization", "", "code_verifier", verifier}, 401, "ClientId is Invalid"},
		{"PKCE with unknown client", []string{"Authorization", "", "code_verifier", verifier, "client_id", "nobody"}, 401, "ClientId is Invalid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.exchange(code, tt.change...).wantError(t, tt.status, map[int]string{400: "10400", 401: "10401"}[tt.status], tt.message)
		})
	}
	const path = "/security/v1/oauth/token"
	full := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {testRedirect}}.Encode()
	auth := []string{"Authorization", basic(testClient, testSecret)}
	with := func(contentType string) []string { return append([]string{"Content-Type", contentType}, auth...) }
	h.do("POST", path, full, with("application/json")...).wantError(t, 400, "10400", "Invalid Content Type")
	h.do("POST", path, full, auth...).wantError(t, 400, "10400", "Invalid Content Type")
	h.do("POST", path, full+"&code=2", with(formType)...).wantError(t, 400, "10400", "Invalid Request")
	h.do("POST", path, "code=%zz", with(formType)...).wantError(t, 400, "10400", "Invalid Request")
	h.do("POST", path, strings.Repeat("x", 64<<10+1), with(formType)...).wantError(t, 413, "10413", "Request Entity Too Large")
	h.do("POST", path+"?"+full, "", with(formType)...).wantError(t, 400, "10400", "Invalid Grant Type")
	r := h.do("GET", path+"?"+full, "", auth...)
	r.wantError(t, 405, "10405", "Method Not Allowed")
	if got := r.header.Get("Allow"); got != "POST" {
		t.Errorf("Allow: %q", got)
	}

	// After all these requests the code is as good as new.
	h.tokens(h.exchange(code))
}

func TestRefreshRequestErrors(t *testing.T) {
	h := start(t, Options{Clients: []Client{
		{ID: testClient, Secret: testSecret, RedirectURI: testRedirect},
		{ID: "other", Secret: "x", RedirectURI: testRedirect},
	}})
	token := h.grant("jane").RefreshToken
	good := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	ours := basic(testClient, testSecret)
	const path = "/security/v1/oauth/refresh"

	h.post(path, good, "").wantError(t, 400, "10400", "Invalid/Missing Authorization Header")
	h.post(path, good, basic(testClient, "x")).wantError(t, 401, "10401", "ClientId is Invalid")
	h.post(path, good, basic("", "")).wantError(t, 401, "10401", "ClientId is Invalid")
	h.post(path, good, basic("other", "x")).wantError(t, 400, "10400", "Invalid Refresh Token")
	contradiction := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"other"}}
	h.post(path, contradiction, ours).wantError(t, 401, "10401", "ClientId is Invalid")
	h.post(path, url.Values{"refresh_token": {token}}, ours).wantError(t, 400, "10400", "Invalid Grant Type")
	h.post(path, url.Values{"grant_type": {"refresh_token"}}, ours).wantError(t, 400, "10400", "Invalid Refresh Token")
	h.post(path, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, ours).wantError(t, 400, "10400", "Invalid Refresh Token")
	// The token endpoint does not refresh, as UPS's does not.
	h.post("/security/v1/oauth/token", good, ours).wantError(t, 400, "10400", "Invalid Grant Type")
	h.do("PUT", path, "").wantError(t, 405, "10405", "Method Not Allowed")

	h.tokens(h.refresh(token))
	h.refresh(token).wantError(t, 400, "10400", "Invalid Refresh Token")
}

func TestBasicIsTakenRawAndEncoded(t *testing.T) {
	for name, clients := range map[string][]Client{
		"unlisted": nil,
		"listed":   {{ID: "my client", Secret: "a%2Bb+c", RedirectURI: testRedirect}},
	} {
		h := start(t, Options{Clients: clients})
		for _, header := range []string{
			basic("my client", "a%2Bb+c"),
			basic(url.QueryEscape("my client"), url.QueryEscape("a%2Bb+c")),
		} {
			code := h.code("jane", "client_id", "my client")
			if r := h.exchange(code, "Authorization", header); r.status != 200 {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
	}
}

func TestPKCE(t *testing.T) {
	wrong := strings.ToLower(verifier)
	public := []string{"Authorization", "", "client_id", testClient}
	tests := []struct {
		name    string
		change  []string
		message string // empty: it works
		burnt   bool
	}{
		{"as UPS documents it", append(public, "code_verifier", verifier), "", true},
		{"with Basic too", []string{"code_verifier", verifier}, "Invalid Request", false},
		{"wrong verifier", append(public, "code_verifier", wrong), "Invalid Code Verifier", true},
		{"wrong verifier with Basic", []string{"code_verifier", wrong}, "Invalid Request", false},
		{"Basic without verifier", nil, "Invalid Code Verifier", false},
		{"neither", public, "Invalid/Missing Authorization Header", false},
		{"verifier too long", append(public, "code_verifier", strings.Repeat("x", 129)), "Invalid Code Verifier", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, Options{})
			code := h.code("jane", "code_challenge", challenge, "code_challenge_method", "S256")
			r := h.exchange(code, tt.change...)
			if tt.message == "" {
				h.tokens(r)
			} else {
				r.wantError(t, 400, "10400", tt.message)
			}
			again := h.exchange(code, append(public, "code_verifier", verifier)...)
			if tt.burnt {
				again.wantError(t, 400, "10400", "Invalid Authorization Code")
			} else {
				h.tokens(again)
			}
		})
	}

	t.Run("verifier without a challenge", func(t *testing.T) {
		h := start(t, Options{})
		code := h.code("jane")
		h.exchange(code, "code_verifier", verifier).wantError(t, 400, "10400", "Invalid Code Verifier")
		h.exchange(code).wantError(t, 400, "10400", "Invalid Authorization Code")
	})
	t.Run("refresh takes Basic only", func(t *testing.T) {
		h := start(t, Options{})
		code := h.code("jane", "code_challenge", challenge)
		a := h.tokens(h.exchange(code, append(public, "code_verifier", verifier)...))
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.RefreshToken}, "client_id": {testClient}}
		h.post("/security/v1/oauth/refresh", form, "").wantError(t, 400, "10400", "Invalid/Missing Authorization Header")
		h.tokens(h.refresh(a.RefreshToken))
	})
}

func TestCodeExpires(t *testing.T) {
	h := start(t, Options{})
	code := h.code("jane")
	h.clock.advance(30*time.Second - 1)
	late := h.code("jane")
	h.tokens(h.exchange(code))
	h.clock.advance(30 * time.Second)
	h.exchange(late).wantError(t, 400, "10400", "Invalid Authorization Code: it has expired")
}

func TestReusedCodeKillsItsGrant(t *testing.T) {
	h := start(t, Options{})
	code := h.code("jane")
	a := h.tokens(h.exchange(code))
	b := h.tokens(h.refresh(a.RefreshToken))
	other := h.grant("jane")
	h.exchange(code).wantError(t, 400, "10400", "Invalid Authorization Code: it has been used")
	if h.works(a.AccessToken) || h.works(b.AccessToken) {
		t.Error("an access token survived")
	}
	h.refresh(b.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
	if !h.works(other.AccessToken) {
		t.Error("the user's other grant was hit")
	}
}

func TestReusedRefreshToken(t *testing.T) {
	t.Run("as UPS", func(t *testing.T) {
		h := start(t, Options{})
		a := h.grant("jane")
		b := h.tokens(h.refresh(a.RefreshToken))
		h.refresh(a.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
		if !h.works(b.AccessToken) {
			t.Error("the access token died with it")
		}
		h.tokens(h.refresh(b.RefreshToken))
		var got []Outcome
		for _, e := range h.srv.Refreshes() {
			got = append(got, e.Outcome)
			if e.User != "jane" || e.Family == "" || e.Family != h.srv.Refreshes()[0].Family || e.Time.IsZero() {
				t.Errorf("event %+v", e)
			}
		}
		if want := []Outcome{Committed, Committed, Reused, Committed}; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
	t.Run("strict", func(t *testing.T) {
		h := start(t, Options{Strict: true})
		a, other := h.grant("jane"), h.grant("jane")
		b := h.tokens(h.refresh(a.RefreshToken))
		h.refresh(a.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
		h.refresh(b.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
		if h.works(a.AccessToken) || h.works(b.AccessToken) {
			t.Error("an access token survived")
		}
		h.tokens(h.refresh(other.RefreshToken))
	})
	t.Run("lenient", func(t *testing.T) {
		h := start(t, Options{Grace: 10 * time.Second, Strict: true})
		a := h.grant("jane")
		b := h.tokens(h.refresh(a.RefreshToken))
		h.clock.advance(10*time.Second - 1)
		c := h.tokens(h.refresh(a.RefreshToken))
		h.tokens(h.refresh(b.RefreshToken))
		if c.RefreshCount != "2" {
			t.Errorf("refresh_count %s", c.RefreshCount)
		}
		c = h.tokens(h.refresh(a.RefreshToken)) // as often as it likes
		h.clock.advance(1)
		h.refresh(a.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
		h.refresh(c.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
	})
}

// A clock that is set back, as by NTP or by another --clock, revives nothing.
func TestReusedRefreshTokenOnAClockThatWentBack(t *testing.T) {
	for _, options := range []Options{{}, {Grace: time.Minute}} {
		h := start(t, options)
		a := h.grant("jane")
		h.tokens(h.refresh(a.RefreshToken))
		h.clock.advance(-time.Hour)
		h.refresh(a.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
	}
}

// Only the client that a code was made for can void what came of it.
func TestReusedCodeOfSomebodyElse(t *testing.T) {
	h := start(t, Options{})
	code := h.code("jane")
	a := h.tokens(h.exchange(code))
	h.exchange(code, "Authorization", "", "client_id", testClient, "code_verifier", verifier).
		wantError(t, 400, "10400", "Invalid/Missing Authorization Header")
	h.exchange(code, "Authorization", basic("other", "x")).wantError(t, 400, "10400", "Invalid Authorization Code")

	code = h.code("jane", "code_challenge", challenge)
	public := []string{"Authorization", "", "client_id", testClient, "code_verifier"}
	b := h.tokens(h.exchange(code, append(public, verifier)...))
	h.exchange(code, append(public, strings.ToLower(verifier))...).wantError(t, 400, "10400", "Invalid Authorization Code: it has been used")
	if !h.works(a.AccessToken) || !h.works(b.AccessToken) {
		t.Error("a grant was voided by somebody who could not have exchanged its code")
	}
	h.exchange(code, append(public, verifier)...).wantError(t, 400, "10400", "Invalid Authorization Code: it has been used")
	if h.works(b.AccessToken) {
		t.Error("a grant outlived the second use of its code")
	}
}

func TestTokensExpire(t *testing.T) {
	h := start(t, Options{AccessLifetime: 10 * time.Second, RefreshLifetime: time.Minute})
	a := h.grant("jane")
	if a.ExpiresIn != "9" || a.RefreshTokenExpiresIn != "59" {
		t.Errorf("announced %s and %s", a.ExpiresIn, a.RefreshTokenExpiresIn)
	}
	h.clock.advance(10*time.Second - 1)
	if !h.works(a.AccessToken) {
		t.Error("the access token ends early")
	}
	h.clock.advance(1)
	if h.works(a.AccessToken) {
		t.Error("the access token does not end")
	}
	h.clock.advance(50 * time.Second)
	h.refresh(a.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
}

func TestChangePassword(t *testing.T) {
	h := start(t, Options{})
	a, b := h.grant("Jane"), h.grant("jane ")
	other := h.grant("joe")
	code := h.code("JANE")
	if err := h.srv.ChangePassword("jane"); err != nil {
		t.Fatal(err)
	}
	for _, g := range []tokenAnswer{a, b} {
		if h.works(g.AccessToken) {
			t.Error("an access token survived")
		}
		h.refresh(g.RefreshToken).wantError(t, 400, "10400", "Invalid Refresh Token")
	}
	h.exchange(code).wantError(t, 400, "10400", "Invalid Authorization Code")
	h.tokens(h.refresh(other.RefreshToken))
	h.grant("jane")
	if err := h.srv.ChangePassword("nobody"); err == nil {
		t.Error("an unknown user's password changes")
	}
}

func FuzzTokenForm(f *testing.F) {
	key, err := testKey()
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(Options{key: key})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/security/v1/oauth/token", "grant_type=authorization_code&code=x&redirect_uri=http%3A%2F%2Flocalhost", "Y2xpZW50OnNlY3JldA==")
	f.Add("/security/v1/oauth/token", "grant_type=authorization_code&code=x&redirect_uri=y&client_id=z&code_verifier="+verifier, "")
	f.Add("/security/v1/oauth/refresh", "grant_type=refresh_token&refresh_token=%zz;&&=", base64.StdEncoding.EncodeToString([]byte("%:%")))
	message := regexp.MustCompile(`^\{"response":\{"errors":\[\{"code":"[0-9]+","message":"(\\.|[^"\\])+"\}\]\}\}$`)
	f.Fuzz(func(t *testing.T, path, body, credentials string) {
		if !strings.HasSuffix(path, "token") {
			path = "/security/v1/oauth/refresh"
		} else {
			path = "/security/v1/oauth/token"
		}
		r := &http.Request{Method: "POST", URL: &url.URL{Path: path}, Header: http.Header{"Content-Type": {formType}}}
		if credentials != "" {
			r.Header.Set("Authorization", "Basic "+credentials)
		}
		var a *answer
		if path == "/security/v1/oauth/token" {
			a = s.token(r, []byte(body), Fault{})
		} else {
			a = s.refresh(r, []byte(body), Fault{})
		}
		if a.status != 400 && a.status != 401 || !message.Match(a.body) {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

// A refresh token of UPS's was seen to end in "==": a client that trims it, or cuts
// a form at its last =, loses it.
func TestRefreshTokensAreUPSs(t *testing.T) {
	h := start(t, Options{})
	want := regexp.MustCompile("^[A-Za-z0-9]{158}==$")
	first := h.grant("jane").RefreshToken
	second := h.tokens(h.refresh(first)).RefreshToken
	for _, token := range []string{first, second} {
		if !want.MatchString(token) {
			t.Errorf("the refresh token is %q", token)
		}
	}
	h.refresh(strings.TrimRight(second, "=")).wantError(t, 400, "10400", "Invalid Refresh Token")
	// A form whose = are not escaped is one still.
	r := h.do("POST", "/security/v1/oauth/refresh", "grant_type=refresh_token&refresh_token="+second,
		"Content-Type", formType, "Authorization", basic(testClient, testSecret))
	if third := h.tokens(r).RefreshToken; third == second {
		t.Error("the same refresh token again")
	}
}
