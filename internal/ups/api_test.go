package ups_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/ups"
)

// A path names a place at the environment's host, whatever is tried with it.
func TestCallStaysAtTheEnvironmentsHost(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.Host+" "+r.RequestURI+" "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	for _, test := range []struct{ base, path, want string }{
		{"", "/api/track/v1/details/1Z", "/api/track/v1/details/1Z"},
		{"", "/api/x?a=b&c=%2F", "/api/x?a=b&c=%2F"},
		{"", "/a%2Fb", "/a%2Fb"},
		{"/gateway", "/api/x", "/gateway/api/x"},
		{"/gateway", "/a%2Fb", "/gateway/a%2Fb"},
		{"", "/@evil.example/x", "/@evil.example/x"},
		{"", "/:80/x", "/:80/x"},
		{"", "//evil.example/x", ""},
		{"", "///evil.example/x", ""},
		{"", `/\evil.example/x`, ""},
		{"", "api/x", ""},
		{"", "", ""},
		{"", "https://evil.example/x", ""},
		{"", "@evil.example/x", ""},
		{"", ".evil.example/x", ""},
		{"", "/x y", "/x%20y"},
		{"", "/x\r\nHost: evil.example", ""},
		// What an address can't hold is written as it has it, or refused.
		{"", "/x?a= b", "/x?a=%20b"},
		{"", "/x?a=b+c&d=%20e", "/x?a=b+c&d=%20e"},
		{"", "/x?name=Müller&q=\"<>[]{}|^`", "/x?name=M%C3%BCller&q=%22%3C%3E%5B%5D%7B%7D%7C%5E%60"},
		{"", `/x?a=\b`, "/x?a=%5Cb"},
		{"", "/x?a=b?c/d:e@f;g,h!$'()*", "/x?a=b?c/d:e@f;g,h!$'()*"},
		{"", "/x?", "/x?"},
		{"", "/Müller/é x", "/M%C3%BCller/%C3%A9%20x"},
		{"/gateway", "/x y?a= b", "/gateway/x%20y?a=%20b"},
		{"", "/x?a=\tb", ""},
		{"", "/x?a=b\x7f", ""},
		{"", "/x?a=b\u0085", ""},
		{"", "/x#part", ""},
		{"", "/x?a=b#part", ""},
		{"", "/100%", ""},
		{"", "/x?a=100%", ""},
		{"", "/x?a=%2", ""},
		{"", "/x?a=%zz", ""},
		{"", "?a=b", ""},
	} {
		got = nil
		client := &ups.Client{Environment: ups.Environment{BaseURL: server.URL + test.base}}
		response, err := client.Do(t.Context(), ups.Call{Method: http.MethodGet, Path: test.path}, "t0ken")
		if response != nil {
			response.Body.Close()
		}
		if test.want == "" {
			if err == nil || len(got) > 0 {
				t.Errorf("%q was sent: %q, %v", test.path, got, err)
			}
			continue
		}
		if want := "GET " + host + " " + test.want + " Bearer t0ken"; err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q: %q, %v; want %q", test.path, got, err, want)
		}
	}
}

// The token goes with no redirect, wherever that leads.
func TestCallFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the redirect was followed")
	}))
	t.Cleanup(elsewhere.Close)
	for _, location := range []string{elsewhere.URL + "/steal", "/elsewhere", "http://[", ""} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{location}
			w.WriteHeader(http.StatusTemporaryRedirect)
		}))
		client := &ups.Client{Environment: ups.Environment{BaseURL: server.URL}}
		response, err := client.Do(t.Context(), ups.Call{Method: http.MethodPost, Path: "/x", Body: []byte("{}")}, "t0ken")
		if err != nil || response.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("Location %q: %v", location, err)
		}
		if response != nil {
			response.Body.Close()
		}
		server.Close()
	}
}

func TestCallHeadersAndBody(t *testing.T) {
	var header http.Header
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		header, body = r.Header, string(text)
	}))
	t.Cleanup(server.Close)
	client := &ups.Client{Environment: ups.Environment{BaseURL: server.URL}, UserAgent: "upsauth/test"}
	do := func(h http.Header) {
		t.Helper()
		response, err := client.Do(t.Context(), ups.Call{Method: http.MethodPut, Path: "/x", Header: h, Body: []byte(`{"a":1}`)}, "t0ken")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	do(nil)
	first := header.Get("transId")
	if len(first) != 32 || header.Get("transactionSrc") != "upsauth" || header.Get("User-Agent") != "upsauth/test" || body != `{"a":1}` {
		t.Errorf("headers %v, body %q", header, body)
	}
	do(nil)
	if header.Get("transId") == first {
		t.Error("two calls have the same transId")
	}
	do(http.Header{"Transid": {"mine"}, "Transactionsrc": {"shop"}, "X-Twice": {"1", "2"}})
	if header.Get("transId") != "mine" || header.Get("transactionSrc") != "shop" || len(header["X-Twice"]) != 2 {
		t.Errorf("the caller's headers did not arrive: %v", header)
	}
}

func TestCheckHeader(t *testing.T) {
	for _, test := range []struct {
		name, value string
		ok          bool
	}{
		{"transId", "1", true},
		{"X-Empty", "", true},
		{"Authorization", "Bearer stolen", false},
		{"AUTHORIZATION", "x", false},
		{"Host", "evil.example", false},
		{"Content-Length", "5", false},
		{"Transfer-Encoding", "chunked", false},
		{"Connection", "Authorization", false},
		{"", "x", false},
		{"a b", "x", false},
		{"a:b", "x", false},
		{"ä", "x", false},
		{"X-Split", "a\r\nHost: evil.example", false},
		{"X-Split", "a\nb", false},
		{"X-Null", "a\x00b", false},
		{"X-Tab", "a\tb", true},
		{"X-Escape", "a\x1bb", false},
		{"X-Delete", "a\x7fb", false},
	} {
		if err := ups.CheckHeader(test.name, test.value); (err == nil) != test.ok {
			t.Errorf("CheckHeader(%q, %q) = %v", test.name, test.value, err)
		}
	}
}

// Whatever the environment answers, it answers; nothing of the application's is
// sent.
func TestPing(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" || r.Header.Get("Authorization") != "" {
			t.Errorf("it was sent %s %v", r.URL, r.Header)
		}
		w.Header().Set("Date", "Sat, 21 Nov 2026 16:05:03 GMT")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	client := &ups.Client{Environment: ups.Environment{BaseURL: server.URL}}
	if date, err := client.Ping(t.Context()); err != nil || date != "Sat, 21 Nov 2026 16:05:03 GMT" {
		t.Errorf("%q, %v", date, err)
	}
	server.Close()
	if _, err := client.Ping(t.Context()); err == nil {
		t.Error("a server that is gone answered")
	}
}

// Whatever path is given, it is refused at once or reaches the server as one request.
func FuzzCheckPath(f *testing.F) {
	for _, seed := range []string{"/x", "/x?a= b", "/x?a=%", "/%2F?%C3", "//x", "/\u202e?\xff", "/x?a#b", "/x?a\x01"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		var got *http.Request
		client := &ups.Client{Environment: ups.Environment{BaseURL: "https://ups.example"}, Transport: take(func(r *http.Request) { got = r })}
		response, err := client.Do(t.Context(), ups.Call{Method: http.MethodGet, Path: path}, "t0ken")
		if response != nil {
			response.Body.Close()
		}
		if refused := ups.CheckPath(path) != nil; refused != (err != nil) {
			t.Fatalf("%q: refused before: %t, then %v", path, refused, err)
		}
		if err != nil {
			return
		}
		var line strings.Builder
		if err := got.Write(&line); err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		first, _, _ := strings.Cut(line.String(), "\r\n")
		again, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line.String())))
		if err != nil || again.Host != "ups.example" || strings.ContainsFunc(first, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is sent as %q: %v", path, first, err)
		}
	})
}

type take func(*http.Request)

func (f take) RoundTrip(r *http.Request) (*http.Response, error) {
	f(r)
	return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
}
