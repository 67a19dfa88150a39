package sandbox

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// callbackServer is a client's, which sends the browser on to a page of its
// own, as clients do.
func callbackServer(t *testing.T) (redirectURI string, got *url.Values) {
	t.Helper()
	got = new(url.Values)
	mux := http.NewServeMux()
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		*got = r.URL.Query()
		http.Redirect(w, r, "/done", http.StatusFound)
	})
	mux.HandleFunc("/done", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>x</title><p>You can close <b>this</b><br>tab.")
	})
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	return ts.URL + "/callback", got
}

func TestPersonSignsIn(t *testing.T) {
	h := start(t, Options{Users: []User{
		{Name: "jane", Password: "right"}, {Name: "camp", Password: "right", CampusShip: true}, {Name: "no", Password: "right", Declines: true},
	}})
	redirect, got := callbackServer(t)
	authorizeURL := h.authorizeURL("redirect_uri", redirect)
	ctx := context.Background()
	jane := Person{User: "jane", Password: "right", HTTP: h.http.Transport}

	page, err := jane.SignIn(ctx, authorizeURL)
	if err != nil || page.Status != 200 || page.Text != "x You can close this tab." || page.URL != strings.Replace(redirect, "callback", "done", 1) {
		t.Errorf("%+v, %v", page, err)
	}
	if got.Get("code") == "" || got.Get("state") != testState {
		t.Errorf("the client was given %v", *got)
	}

	*got = nil
	callback, err := jane.Callback(ctx, authorizeURL)
	if u, _ := url.Parse(callback); err != nil || !strings.HasPrefix(callback, redirect+"?code=") || u.Query().Get("state") != testState {
		t.Errorf("%s, %v", callback, err)
	}
	if *got != nil {
		t.Error("the callback was followed")
	}

	// A browser may be given a private page that leads on.
	dir := filepath.ToSlash(t.TempDir())
	text := `<meta http-equiv="refresh" content="0; url=` + html.EscapeString(authorizeURL) + `">`
	if err := os.WriteFile(filepath.Join(dir, "sign-in.html"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	private := (&url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(dir, "/") + "/sign-in.html"}).String()
	if _, err := jane.SignIn(ctx, private); err != nil || got.Get("code") == "" {
		t.Errorf("%v, %v", *got, err)
	}
	if _, err := jane.SignIn(ctx, private+"x"); err == nil {
		t.Error("a page that is not there was opened")
	}

	if page, err := jane.Decline(ctx, authorizeURL); err != nil || page.Status != 200 || got.Get("error") != "access_denied" || got.Get("state") != testState {
		t.Errorf("%+v, %v, %v", page, *got, err)
	}
	*got = nil
	if _, err := (Person{User: "no", Password: "right", HTTP: h.http.Transport}).SignIn(ctx, authorizeURL); err != nil || got.Get("error") != "access_denied" {
		t.Errorf("%v, %v", *got, err)
	}

	for _, tt := range []struct {
		person Person
		url    string
		status int
		want   string
	}{
		{Person{User: "jane", Password: "wrong"}, authorizeURL, 422, "The password is wrong."},
		{Person{User: "jane"}, authorizeURL, 422, "Enter your password."},
		{Person{User: "joe", Password: "x"}, authorizeURL, 422, "does not know this user name"},
		{Person{User: "camp", Password: "right"}, authorizeURL, 403, "CampusShip profile"},
		{Person{User: "jane", Password: "right"}, strings.Replace(authorizeURL, "response_type=code", "", 1), 400, "Invalid Response Type"},
		{Person{User: "jane", Password: "right"}, h.url + "/security/v1/oauth/authorize", 0, "no redirect URI"},
	} {
		tt.person.HTTP = h.http.Transport
		page, err := tt.person.SignIn(ctx, tt.url)
		if err == nil || !strings.Contains(err.Error(), tt.want) || page.Status != tt.status {
			t.Errorf("%+v: %+v, %v", tt.person, page, err)
		}
	}
}

func TestReadHTML(t *testing.T) {
	for _, tt := range []struct{ page, text, alert string }{
		{"", "", ""},
		{"<p>a&nbsp;b &amp; <em>c</em>.</p><p role=alert>No<br>way</p>", "a b & c. No way", "No way"},
		{"<head><style>p < q</style></head>", "", ""},
		{"<p>cut <b", "cut", ""},
		{"<DIV>unclosed<input disabled name=x>", "unclosed", ""},
	} {
		doc := readHTML([]byte(tt.page))
		if doc.text != tt.text || doc.alert != tt.alert {
			t.Errorf("%q: %+v", tt.page, doc)
		}
	}
}

func FuzzReadHTML(f *testing.F) {
	f.Add([]byte(`<form action="/x"><input type=text name="a" value="b"></form>`))
	f.Fuzz(func(_ *testing.T, page []byte) { readHTML(page) })
}
