package serve

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Whoever finds the customers' server can neither keep customers out, with however many
// connections that ask nothing or do not come to an end, nor have it keep what they send.
func TestCustomersServer(t *testing.T) {
	rs := newRequests(t.Context(), func() {})
	s := &service{Options: Options{PublicListen: "127.0.0.1:0"}, requests: rs}
	s.faces.public = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "in"+string(body))
	})
	if err := s.bindPublic(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := s.places[0]
	s.serving.Go(func() { _ = at.server.Serve(at.listener) })
	defer func() {
		// A connection that was refused something is open for half a second more.
		if err := at.server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		s.serving.Wait()
	}()
	if len(s.said) != 2 || !strings.HasPrefix(s.said[0], "invited customers at http://127.0.0.1:") || !strings.Contains(s.said[1], "until public_url is set") {
		t.Errorf("%q", s.said)
	}
	address := at.listener.Addr().String()
	person := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	ask := func(beside, body string, status int) {
		t.Helper()
		response, err := person.Post("http://"+address+"/i/x", "application/x-www-form-urlencoded", strings.NewReader(body))
		if err != nil {
			t.Fatalf("beside %q: %v", beside, err)
		}
		defer response.Body.Close()
		if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != status || status == 200 && string(text) != "in"+body {
			t.Errorf("beside %q: %d %q, %v", beside, response.StatusCode, text, err)
		}
	}
	for _, begun := range []string{
		"", "GET /i/x HTTP/1.1\r\nHost: x\r\n", "POST /again HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\nsign-in=",
		"POST /again HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
	} {
		var idle []net.Conn
		for range publicLimit + 50 {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, c)
			_, _ = io.WriteString(c, begun) // it may be hung up on already
		}
		ask(begun, "sign-in=x", 200)
		for _, c := range idle {
			_ = c.Close()
		}
	}
	ask("nothing", strings.Repeat("a", publicBody), 200)
	ask("nothing", strings.Repeat("a", publicBody+1), 413)
	// One of 1 GB, as its header says, is not waited for.
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() // before the server waits for it
	_, _ = io.WriteString(c, "POST /i/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n"+strings.Repeat("a", publicBody+1))
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if text, _ := io.ReadAll(c); !strings.HasPrefix(string(text), "HTTP/1.1 413 ") {
		t.Errorf("%.100q", text)
	}
	// Headers without an end are refused, too.
	h, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	go func() {
		_, _ = io.WriteString(h, "GET / HTTP/1.1\r\nHost: x\r\nCookie: "+strings.Repeat("a", 2*longestHeader)+"\r\n\r\n")
	}()
	_ = h.SetReadDeadline(time.Now().Add(time.Minute))
	if text, _ := io.ReadAll(h); !strings.HasPrefix(string(text), "HTTP/1.1 431 ") {
		t.Errorf("%.100q", text)
	}
}
