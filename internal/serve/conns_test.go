package serve

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
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
	defer waitFor(t, rs)
	server := httptest.NewUnstartedServer(rs.whole(longestBody, refuse, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in") })))
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

// Nor do those whose requests do not come to their end: what has not come whole waits as
// what has not begun does.
func TestSlowRequestsKeepNobodyOut(t *testing.T) {
	const limit = 16
	rs := newRequests(t.Context(), func() {})
	busy, release := make(chan struct{}, 1), make(chan struct{})
	server := httptest.NewUnstartedServer(rs.whole(longestBody, refuse, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			busy <- struct{}{}
			<-release
		}
		_, _ = io.WriteString(w, "in")
	})))
	open := newConnections(limit)
	server.Config.ConnState, server.Config.ConnContext = open.changed, open.context(nil)
	server.Start()
	defer server.Close()
	end := sync.OnceFunc(func() { close(release) })
	defer end()
	send := func(text string) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	// Whoever is worked for stays, however many come.
	worked := send("POST /busy HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab")
	<-busy
	for _, text := range []string{
		"G", "GET / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
	} {
		var slow []net.Conn
		for range 4 * limit {
			slow = append(slow, send(text))
		}
		// The oldest is hung up on, and not waited for.
		_ = slow[0].SetReadDeadline(time.Now().Add(time.Minute))
		if answer, err := io.ReadAll(slow[0]); errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(answer), " 408 ") {
			t.Fatalf("beside %q the oldest one got %q, %v", text, answer, err)
		}
		person := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := person.Get(server.URL)
		if err != nil {
			t.Errorf("beside %q: %v", text, err)
			continue
		}
		if in, err := io.ReadAll(response.Body); err != nil || string(in) != "in" {
			t.Errorf("beside %q: %q, %v", text, in, err)
		}
		response.Body.Close()
		for _, c := range slow {
			_ = c.Close()
		}
	}
	end()
	if answer, err := io.ReadAll(worked); err != nil || !strings.HasSuffix(string(answer), "in") {
		t.Errorf("who was worked for got %q, %v", answer, err)
	}
}

// However many connect, files stay free for saving tokens.
func TestConnectionsLeaveFilesFree(t *testing.T) {
	for _, files := range []int{64, 256, 1024, 4096, 1 << 20} {
		manager, programs, control, public := roomFor(managerLimit, files), roomFor(programsLimit, files), roomFor(controlLimit, files), roomFor(publicLimit, files)
		if all := manager + 2*programs + control + public; all > files*5/8 || min(manager, programs, control, public) < 4 {
			t.Errorf("of %d files, %d are for the company manager, %d for programs, %d for commands, %d for customers", files, manager, programs, control, public)
		}
	}
	if got := roomFor(managerLimit, 5184); got != managerLimit {
		t.Errorf("where there are enough, there are %d", got)
	}
}
