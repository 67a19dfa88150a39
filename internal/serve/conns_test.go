package serve

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// However many connections ask nothing, a person is let in.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	const limit = 16
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") }))
	open := newConnections(limit)
	server.Config.ConnState = open.changed
	server.Start()
	defer server.Close()
	ask := func(what string, client *http.Client) {
		t.Helper()
		response, err := client.Get(server.URL)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer response.Body.Close()
		if text, err := io.ReadAll(response.Body); err != nil || string(text) != "in" {
			t.Errorf("%s: %q, %v", what, text, err)
		}
	}
	person := &http.Client{Transport: &http.Transport{}}
	defer person.CloseIdleConnections()
	ask("first", person)
	var idle []net.Conn
	for range 500 {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	ask("beside 500 idle connections", person)
	// The oldest have gone.
	if n, err := idle[0].Read(make([]byte, 1)); err == nil {
		t.Errorf("the first of them reads %d bytes", n)
	}
	open.mu.Lock()
	left := len(open.open) - open.leaving
	open.mu.Unlock()
	if left > limit {
		t.Errorf("%d connections are open", left)
	}
	for _, c := range idle {
		c.Close()
	}
	ask("afterwards", person)
}
