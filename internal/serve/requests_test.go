package serve

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func serveRequests(t *testing.T, rs *requests, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	t.Cleanup(func() { waitFor(t, rs) })
	return server
}

// waitFor waits until no request is under way.
func waitFor(t *testing.T, rs *requests) {
	t.Helper()
	if !rs.endWithin(time.Minute) {
		t.Error("requests are still under way")
	}
}

// slowListener is one whose connections take a while to send anything.
type slowListener struct{ net.Listener }

func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return slowConn{c}, err
}

type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	<-time.After(50 * time.Millisecond)
	return c.Conn.Write(p)
}

// The request that ends the service has its answer, however slowly that leaves.
func TestTheLastRequestIsAnswered(t *testing.T) {
	told := make(chan struct{})
	rs := newRequests(t.Context(), func() { close(told) })
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{requests: rs}
	s.faces.interrupt = func(time.Duration) {}
	s.add(rs.whole(0, refuse, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "last words") })),
		nil, newConnections(1), nil, slowListener{listener})
	s.serving.Go(func() { _ = s.places[0].server.Serve(s.places[0].listener) })
	ended := make(chan struct{})
	go func() {
		<-told
		s.finish(func() { t.Error("nothing waits for anything") })
		close(ended)
	}()
	response, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "last words" {
		t.Errorf("%q, %v", text, err)
	}
	<-ended
}

// A handler that works with a keychain goes on when whoever asked hangs up, and knows
// what the request says.
func TestOutlasting(t *testing.T) {
	rs := newRequests(t.Context(), func() {})
	inside, gone, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var server *httptest.Server
	server = serveRequests(t, rs, rs.outlasting(longestBody, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Context().Value(http.ServerContextKey) != server.Config {
			t.Error("the request's values are lost")
		}
		close(inside)
		<-gone
		ended <- r.Context().Err()
	})))
	asking, hangUp := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(asking, http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-inside; hangUp() }()
	if _, err := http.DefaultClient.Do(request); err == nil {
		t.Error("it has an answer")
	}
	close(gone)
	if err := <-ended; err != nil {
		t.Errorf("the work was ended: %v", err)
	}
}

func TestBodies(t *testing.T) {
	told := 0
	rs := newRequests(t.Context(), func() { told++ })
	server := serveRequests(t, rs, rs.whole(longestBody, refuse, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})))
	for _, test := range []struct {
		body   string
		status int
	}{
		{"", 200}, {"a=b", 200}, {strings.Repeat("a", longestBody), 200}, {strings.Repeat("a", longestBody+1), 413},
	} {
		response, err := http.Post(server.URL, "text/plain", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != test.status || err != nil || test.status == 200 && string(text) != test.body {
			t.Errorf("%d bytes: %d, %d bytes, %v", len(test.body), response.StatusCode, len(text), err)
		}
	}
	// One that ends too early.
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(c); !strings.HasPrefix(string(text), "HTTP/1.1 408 ") {
		t.Errorf("%q", text)
	}
	waitFor(t, rs)
	if told != 5 {
		t.Errorf("it was told %d times", told)
	}
}

func TestTooManyRequests(t *testing.T) {
	rs := newRequests(t.Context(), func() {})
	for range mostRequests {
		rs.slots <- struct{}{}
	}
	server := serveRequests(t, rs, rs.whole(longestBody, refuse, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it is worked on") })))
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", response.StatusCode, response.Header)
	}
}
