package loopback

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/peer"
)

// TestLoginsShareAListener guards sign-ins with one redirect URI: their handlers are
// told apart by state behind one listener, and each knows its own answer only.
func TestLoginsShareAListener(t *testing.T) {
	l, err := Listen(t.Context(), Place{RedirectURI: "http://127.0.0.1:0/callback"})
	if err != nil {
		t.Fatal(err)
	}
	logins := map[string]*Handler{}
	for _, state := range []string{"state-of-one", "state-of-other"} {
		h, err := New(Config{RedirectURI: l.RedirectURI(), State: state})
		if err != nil {
			t.Fatal(err)
		}
		logins[state] = h
	}
	l.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for state, h := range logins {
			if r.URL.Query().Get("state") == state {
				h.ServeHTTP(w, r)
				return
			}
		}
		http.NotFound(w, r)
	}), func(err error) {
		for _, h := range logins {
			h.Fail(err)
		}
	})
	defer func() {
		for _, h := range logins {
			h.Close()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	done := make(chan reply, len(logins))
	for state := range logins {
		go func() {
			done <- send(t, l.Addrs()[0], get("/callback?code=c-of-"+state+"&state="+state, l.Addrs()[0]))
		}()
	}
	for state, h := range logins {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if cb, err := h.Wait(ctx); err != nil || cb != (grant.Callback{Code: "c-of-" + state}) {
			t.Errorf("%s: %#v, %v", state, cb, err)
		}
		if err := h.Again(Page{Heading: "Tried"}); err != nil {
			t.Error(err)
		}
	}
	for range logins {
		if r := <-done; r.status != http.StatusSeeOther {
			t.Errorf("status %d", r.status)
		}
	}
}

// TestHandlerBehindAnyServer guards a handler that another server serves, one that
// keeps connections: its deadlines must end no later request, and where the server
// does not tell the connection nobody passes for the person's own browser.
func TestHandlerBehindAnyServer(t *testing.T) {
	for _, tells := range []bool{true, false} {
		var h *Handler
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
		if tells {
			server.Config.ConnContext = ConnContext
		}
		server.Start()
		defer server.Close()
		lim := defaultLimits()
		lim.body, lim.write = 50*time.Millisecond, 50*time.Millisecond
		var err error
		if h, err = newHandler(Config{RedirectURI: server.URL + "/callback", State: testState}, lim); err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		b := aBrowser(t)
		start := h.Guard(Guard{Address: func(state string) string { return ups + state }, Lasts: time.Minute})
		r := visitBy(t, b, start)
		if !tells && peer.Of(t.Context()).Check() != nil {
			if r.status != http.StatusForbidden {
				t.Errorf("a connection of nobody knows whom got %d", r.status)
			}
			continue
		}
		if r.status != http.StatusFound {
			t.Fatalf("the start address got %d", r.status)
		}
		visitBy(t, b, server.URL+"/elsewhere")
		got := make(chan reply, 1)
		go func() {
			q := url.Values{"code": {testCode}, "state": {testState}}
			got <- visitBy(t, b, server.URL+"/callback?"+q.Encode())
		}()
		if _, err := h.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		// For longer than an answer's deadlines.
		select {
		case r := <-got:
			t.Errorf("the browser was answered with %d before there was an outcome", r.status)
		case <-time.After(4 * lim.write):
		}
		go func() { _ = h.Finish(t.Context(), Page{OK: true, Heading: "Done"}) }()
		r = <-got
		if page := visitBy(t, b, server.URL+r.header.Get("Location")); !strings.Contains(page.body, "Done") {
			t.Errorf("the page says\n%s", page.body)
		}
	}
}

// A handler needs no connection at all to answer.
func TestHandlerWithoutAConnection(t *testing.T) {
	h, err := New(Config{RedirectURI: "https://shop.example/cb", State: testState})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://shop.example/elsewhere", nil))
	if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "There is nothing here") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if _, err := New(Config{RedirectURI: "http://localhost:0/", State: testState}); err == nil {
		t.Error("an answer is awaited at port 0")
	}
}
