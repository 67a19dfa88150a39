package loopback

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
)

func TestParseCallback(t *testing.T) {
	const query = "code=C0de&state=S7ate"
	accepted := grant.Callback{Code: "C0de"}
	tests := []struct {
		name, redirect, pasted string
		says                   string // of the error; empty: accepted
	}{
		{"whole address", "http://localhost:5001/cb", "http://localhost:5001/cb?" + query, ""},
		{"line end and blanks", "http://localhost:5001/cb", "  http://localhost:5001/cb?" + query + "\r\n", ""},
		{"quoted", "http://localhost:5001/cb", `"http://localhost:5001/cb?` + query + `"`, ""},
		{"in angle brackets", "http://localhost:5001/cb", "<http://localhost:5001/cb?" + query + ">", ""},
		{"host in other case", "http://localhost:5001/cb", "HTTP://LOCALHOST:5001/cb?" + query, ""},
		{"no path registered", "http://localhost:5001", "http://localhost:5001/?" + query, ""},
		{"default port named", "https://login.example/cb", "https://login.example:443/cb?" + query, ""},
		{"default port left out", "https://login.example:443/cb", "https://login.example/cb?" + query, ""},
		{"IPv6", "http://[::1]:8400/", "http://[::1]:8400/?" + query, ""},
		{"fragment", "http://localhost:5001/cb", "http://localhost:5001/cb?" + query + "#_=_", ""},
		{"issuer", "http://localhost:5001/cb", "http://localhost:5001/cb?iss=https://as.example&" + query, ""},
		{"query", "http://localhost:5001/cb", "?" + query, ""},
		{"query without its mark", "http://localhost:5001/cb", query, ""},
		{"query with an issuer", "http://localhost:5001/cb", query + "&iss=https://as.example/?x", ""},
		{"query with a fragment", "http://localhost:5001/cb", "?" + query + "#top", ""},
		{"own query", "http://localhost:5001/cb?app=7", "http://localhost:5001/cb?app=7&" + query, ""},

		{"nothing", "http://localhost:5001/cb", " \n", "nothing was pasted"},
		{"a bare code", "http://localhost:5001/cb", "C0de", "a code alone"},
		{"a bare code with padding", "http://localhost:5001/cb", "C0de==", "a code alone"},
		{"cut in two", "http://localhost:5001/cb", "http://localhost:5001/cb?code=C0de\n&state=S7ate", "one piece"},
		{"too long", "http://localhost:5001/cb", "?" + query + "&x=" + strings.Repeat("x", maxURL), "too long"},
		{"other scheme", "http://localhost:5001/cb", "https://localhost:5001/cb?" + query, "not at http://localhost:5001/cb"},
		{"other host", "http://localhost:5001/cb", "http://127.0.0.1:5001/cb?" + query, "not at"},
		{"other port", "http://localhost:5001/cb", "http://localhost:5002/cb?" + query, "not at"},
		{"no port", "http://localhost:5001/cb", "http://localhost/cb?" + query, "not at"},
		{"other path", "http://localhost:5001/cb", "http://localhost:5001/cb/?" + query, "not at"},
		{"the sign-in page", "http://localhost:5001/cb", "https://www.ups.com/lasso/signin?state=S7ate", "not at"},
		{"user name", "http://localhost:5001/cb", "http://localhost:5001@localhost:5001/cb?" + query, "not at"},
		{"opaque", "http://localhost:5001/cb", "http:localhost:5001/cb?" + query, "lacks its beginning"},
		{"unreadable", "http://localhost:5001/cb", "http://local%zzhost/?" + query, "can't be read"},
		{"beginning missing", "http://localhost:5001/cb", "localhost:5001/cb?" + query, "from http:// on"},
		{"only the path", "http://localhost:5001/cb", "/cb?" + query, "from http:// on"},
		{"no query", "http://localhost:5001/cb", "http://localhost:5001/cb", "no state"},
		{"wrong state", "http://localhost:5001/cb", "?code=C0de&state=0ldState", "not that of this sign-in"},
		{"no state", "http://localhost:5001/cb", "?code=C0de", "no state"},
		{"no code", "http://localhost:5001/cb", "?state=S7ate", "neither"},
		{"two codes", "http://localhost:5001/cb", "?code=C0de&" + query, "more than one"},
		{"own query missing", "http://localhost:5001/cb?app=7", "http://localhost:5001/cb?" + query, "lacks"},
		{"bad redirect URI", "localhost", "?" + query, "redirect URI"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cb, err := ParseCallback(Config{RedirectURI: tt.redirect, State: "S7ate"}, tt.pasted)
			if tt.says == "" {
				if err != nil || cb != accepted {
					t.Errorf("got %q, %v", cb.Code, err)
				}
				return
			}
			if err == nil || cb != (grant.Callback{}) {
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			for _, secret := range []string{"C0de", "S7ate", "0ldState", "zz"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error tells %q: %v", secret, err)
				}
			}
		})
	}
	if _, err := ParseCallback(Config{RedirectURI: "http://localhost:5001/cb"}, "?code=x&state="); err == nil {
		t.Error("an empty state was accepted")
	}
}

func TestCallbackHidesItsCode(t *testing.T) {
	cb := grant.Callback{Code: testCode}
	if s := fmt.Sprintf("%v %+v %#v %s", cb, cb, cb, cb); strings.Contains(s, testCode) {
		t.Errorf("printed as %s", s)
	}
	if s := (grant.Callback{Error: "access_denied"}).String(); !strings.Contains(s, "access_denied") {
		t.Errorf("printed as %s", s)
	}
}

func TestEmptyParametersCountAsOmitted(t *testing.T) {
	l, err := newLogin(Config{RedirectURI: "http://localhost:1/", State: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if cb, err := l.read("code=c&error=&state=s"); err != nil || cb != (grant.Callback{Code: "c"}) {
		t.Errorf("got %q, %v", cb.Code, err)
	}
}

var refusals = []error{errRepeated, errNoState, errState, errOwnQuery, errBoth, errNeither}

func FuzzCallback(f *testing.F) {
	for _, seed := range []string{
		"code=c&state=S7ate", "code=c", "state=S7ate", "code=c&state=S7ate&state=S7ate", "code=c&state=s7ate",
		"error=access_denied&error_description=no&state=S7ate", "code=c&state=%53%37%61%74%65", "code=c;state=S7ate", "%zz", "&&&=",
		"code=c&state=S7ate\x00", "code=c&error=e&state=S7ate", "code=c&State=S7ate", "code=c&state=S7ate&iss=x&iss=y",
	} {
		f.Add(seed)
	}
	l, err := newLogin(Config{RedirectURI: "http://localhost:5001/cb", State: "S7ate"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		cb, err := l.read(query)
		if err != nil {
			if !slices.Contains(refusals, err) || cb != (grant.Callback{}) {
				t.Fatalf("refused with %v, %#v", err, cb)
			}
			return
		}
		checkAccepted(t, query, cb)
	})
}

func FuzzParseCallback(f *testing.F) {
	for _, seed := range []string{
		"http://localhost:5001/cb?code=c&state=S7ate", "?code=c&state=S7ate", "code=c&state=S7ate", "c", "",
		"https://localhost:5001/cb?code=c&state=S7ate", "localhost:5001/cb?code=c&state=S7ate", "http://localhost:5001@x/cb?code=c&state=S7ate",
		"HTTP://LOCALHOST:5001/cb?code=c&state=S7ate#x", "\"?code=c&state=S7ate\"", "://?code=c&state=S7ate", "http:////cb?code=c&state=S7ate",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, pasted string) {
		cb, err := ParseCallback(Config{RedirectURI: "http://localhost:5001/cb", State: "S7ate"}, pasted)
		if err != nil {
			if cb != (grant.Callback{}) {
				t.Fatal("refused and returned")
			}
			return
		}
		rest := strings.Trim(strings.TrimSpace(pasted), `"'<>`)
		rest, _, _ = strings.Cut(rest, "#")
		head, query, marked := strings.Cut(rest, "?")
		switch {
		case marked && head == "":
		case marked && strings.EqualFold(head, "http://localhost:5001/cb") && strings.HasSuffix(head, "/cb"):
		case !strings.Contains(strings.SplitN(rest, "=", 2)[0], "?"):
			query = rest
		default:
			t.Fatalf("accepted an address that begins %q", head)
		}
		checkAccepted(t, query, cb)
	})
}

// checkAccepted holds an accepted callback against a second reading of its query.
func checkAccepted(t *testing.T, query string, cb grant.Callback) {
	t.Helper()
	q, err := url.ParseQuery(query)
	if states := q["state"]; len(states) > 1 || states != nil && states[0] != "S7ate" || states == nil && err == nil {
		t.Fatalf("accepted the state %q", states)
	}
	if (cb.Code == "") == (cb.Error == "") {
		t.Fatalf("accepted %q as %q", query, cb.Code)
	}
	// Where the standard library can read the query, the code is the same, a +
	// aside.
	if code := strings.ReplaceAll(cb.Code, "+", " "); err == nil && code != strings.ReplaceAll(q.Get("code"), "+", " ") {
		t.Fatalf("accepted %q as %q", query, cb.Code)
	}
}
