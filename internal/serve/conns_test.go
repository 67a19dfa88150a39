package serve

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// However many connections ask nothing, or do not come to the end of what they ask, a
// person is let in.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	for what, begun := range map[string]string{
		"nothing": "", "half a header": "POST / HTTP/1.1\r\nHost: x\r\n", "half a body": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab",
	} {
		t.Run(what, func(t *testing.T) { testIdleConnections(t, begun) })
	}
}

func testIdleConnections(t *testing.T, begun string) {
	const limit = 16
	rs := newRequests(t.Context(), func() {})
	defer rs.all.Wait()
	server := httptest.NewUnstartedServer(rs.whole(longestBody, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") })))
	open := newConnections(limit)
	server.Config.ConnState, server.Config.ConnContext = open.changed, open.context(nil)
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
		if _, err := io.WriteString(c, begun); err != nil && begun == "" {
			t.Fatal(err)
		}
	}
	ask("beside 500 connections", person)
	// The oldest have gone.
	if answer, err := io.ReadAll(idle[0]); strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("the first of them gets %q, %v", answer, err)
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
