package ups

import (
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestExchangeSendsExactlyWhatTheWayOfAuthenticationNeeds(t *testing.T) {
	plain := url.Values{"grant_type": {"authorization_code"}, "code": {testCode}, "redirect_uri": {testRedirectURI}}
	with := func(more url.Values) url.Values {
		want := maps.Clone(plain)
		maps.Copy(want, more)
		return want
	}
	verifier := url.Values{"code_verifier": {testVerifier}}
	for _, test := range []struct {
		name       string
		tune       func(*Client)
		basic      bool
		form       url.Values
		needsBasic bool
	}{
		{"PKCE off", withPKCE(PKCEOff), true, plain, false},
		{"PKCE auto", withPKCE(PKCEAuto), false, with(url.Values{"client_id": {testClientID}, "code_verifier": {testVerifier}}), false},
		{"PKCE on", withPKCE(PKCEOn), false, with(url.Values{"client_id": {testClientID}, "code_verifier": {testVerifier}}), false},
		{"PKCE auto that has learned", func(c *Client) { c.PKCE, c.PKCENeedsBasic = PKCEAuto, true }, true, with(verifier), true},
		{"PKCE on, whatever was learned", func(c *Client) { c.PKCE, c.PKCENeedsBasic = PKCEOn, true }, false,
			with(url.Values{"client_id": {testClientID}, "code_verifier": {testVerifier}}), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, granting)
			answer, needsBasic, err := newClient(t, s.URL, test.tune).Exchange(t.Context(), testCode, testVerifier, forget)
			if err != nil {
				t.Fatal(err)
			}
			if string(answer.Body) != sample || needsBasic != test.needsBasic {
				t.Errorf("the answer is %q, needs Basic: %t; want UPS's and %t", answer.Body, needsBasic, test.needsBasic)
			}
			r := s.only(t)
			if r.Method != http.MethodPost || r.Path != "/security/v1/oauth/token" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
				t.Errorf("it came as %s %s with %s", r.Method, r.Path, r.Header.Get("Content-Type"))
			}
			if !maps.EqualFunc(r.Form, test.form, slices.Equal) {
				t.Errorf("the form is\n%v, want\n%v", r.Form, test.form)
			}
			checkBasic(t, r, test.basic)
		})
	}
}

// checkBasic wants HTTP Basic, or no Authorization header at all and the
// client secret nowhere.
func checkBasic(t *testing.T, r arrived, want bool) {
	t.Helper()
	if want {
		if got := r.Header.Values("Authorization"); len(got) != 1 || got[0] != "Basic "+basicCredentials() {
			t.Errorf("the Authorization header is %q", got)
		}
		return
	}
	if got, ok := r.Header["Authorization"]; ok {
		t.Errorf("there is an Authorization header: %q", got)
	}
	if whole := r.whole(); strings.Contains(whole, testSecret) || strings.Contains(whole, "client_secret") {
		t.Errorf("the client secret was sent along:\n%s", whole)
	}
}

// A refusal for want of the header looks at no code, so that the same code may
// be sent once more; after any other it must not.
// What was learned is forgotten where UPS refuses it for no other reason: or it
// would be refused for ever.
func TestExchangeUnlearnsTheHeader(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		body   string
		needs  bool
	}{
		{"a reason of its own", 400, upsError("10400", "Invalid Request: an exchange with PKCE has no HTTP Basic"), false},
		{"the code", 400, upsError("10400", "Invalid Authorization Code"), true},
		{"the client", 401, upsError("10401", "ClientId is Invalid"), true},
		{"UPS is down", 503, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, saying(test.status, "", test.body))
			learned := func(c *Client) { c.PKCE, c.PKCENeedsBasic = PKCEAuto, true }
			_, needsBasic, err := newClient(t, s.URL, learned).Exchange(t.Context(), testCode, testVerifier, forget)
			s.only(t)
			if typed(t, err); needsBasic != test.needs {
				t.Errorf("needs Basic: %t", needsBasic)
			}
		})
	}
}

func TestExchangeFallsBackToBasicOnlyWhenTheHeaderWasMissed(t *testing.T) {
	noHeader := upsError("10400", "Invalid/Missing Authorization Header")
	for _, test := range []struct {
		name   string
		pkce   PKCE
		status int
		body   string
		again  bool
		want   Kind
	}{
		{"auto, 400", PKCEAuto, 400, noHeader, true, ""},
		{"auto, 401", PKCEAuto, 401, upsError("10401", "Missing authorization header"), true, ""},
		{"on", PKCEOn, 400, noHeader, false, HeaderMissing},
		{"off", PKCEOff, 400, noHeader, false, HeaderMissing},
		{"client refused", PKCEAuto, 401, upsError("10401", "ClientId is Invalid"), false, ClientRefused},
		{"code refused", PKCEAuto, 400, upsError("10400", "Invalid Authorization Code"), false, CodeRefused},
		{"redirect URI refused", PKCEAuto, 400, upsError("10400", "Invalid Redirect URL"), false, RedirectURIRefused},
		{"401 page of a proxy", PKCEAuto, 401, "<title>Missing Authorization Header</title>", false, Unknown},
		{"400 empty", PKCEAuto, 400, "", false, Unknown},
		{"429", PKCEAuto, 429, noHeader, false, RateLimited},
		{"500", PKCEAuto, 500, noHeader, false, Down},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := true
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if first {
					first = false
					saying(test.status, "", test.body)(w, r)
					return
				}
				granting(w, r)
			})
			answer, needsBasic, err := newClient(t, s.URL, withPKCE(test.pkce)).Exchange(t.Context(), testCode, testVerifier, forget)
			if !test.again {
				s.only(t)
				if e := typed(t, err); e.Kind != test.want || needsBasic {
					t.Errorf("the error is %s, needs Basic: %t; want %s, false", e.Kind, needsBasic, test.want)
				}
				return
			}
			if err != nil || !answer.OK() || !needsBasic {
				t.Fatalf("the answer is %d, needs Basic: %t, %v", answer.Status, needsBasic, err)
			}
			requests := s.requests()
			if len(requests) != 2 {
				t.Fatalf("%d requests arrived, want 2", len(requests))
			}
			want := url.Values{
				"grant_type": {"authorization_code"}, "code": {testCode}, "redirect_uri": {testRedirectURI}, "code_verifier": {testVerifier},
			}
			if got := requests[1].Form; !maps.EqualFunc(got, want, slices.Equal) {
				t.Errorf("the second form is\n%v, want\n%v", got, want)
			}
			checkBasic(t, requests[0], false)
			checkBasic(t, requests[1], true)
		})
	}
}

func TestExchangeAsksNoThirdTime(t *testing.T) {
	s := newServer(t, saying(400, "application/json", upsError("10400", "Invalid/Missing Authorization Header")))
	_, needsBasic, err := newClient(t, s.URL, withPKCE(PKCEAuto)).Exchange(t.Context(), testCode, testVerifier, forget)
	if e := typed(t, err); e.Kind != HeaderMissing || needsBasic {
		t.Errorf("the error is %s, needs Basic: %t", e.Kind, needsBasic)
	}
	if n := len(s.requests()); n != 2 {
		t.Errorf("%d requests arrived, want 2", n)
	}
}

// Whether the answer could be put away has nothing to do with what UPS wants.
func TestExchangeLearnsOfBasicEvenWhereTheAnswerCannotBeKept(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			saying(400, "application/json", upsError("10400", "Invalid/Missing Authorization Header"))(w, r)
			return
		}
		granting(w, r)
	})
	full := errors.New("no space left on device")
	answer, needsBasic, err := newClient(t, s.URL, withPKCE(PKCEAuto)).
		Exchange(t.Context(), testCode, testVerifier, func(Answer) error { return full })
	if !errors.Is(err, full) || !answer.OK() || !needsBasic {
		t.Errorf("the answer is %d, needs Basic: %t, %v", answer.Status, needsBasic, err)
	}
}

func TestExchangeDoesNotRepeatACodeWhoseAnswerWasLost(t *testing.T) {
	s := newRawServer(t, func(_ *rawServer, conn *net.TCPConn, _ int) bool {
		reset(conn)
		return false
	})
	_, _, err := newClient(t, s.url, withPKCE(PKCEAuto)).Exchange(t.Context(), testCode, testVerifier, forget)
	if e := typed(t, err); e.Kind != Lost {
		t.Errorf("the error is %s, want %s", e.Kind, Lost)
	}
	if n := s.requests(""); n != 1 {
		t.Errorf("%d requests arrived, want 1", n)
	}
}
