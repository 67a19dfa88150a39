package ups

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// Who is told at the last moment that the token is not to be sent has sent nothing: not even
// the header that names the application.
func TestNotReadyWritesNoByte(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	came := make(chan []byte)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		text, _ := io.ReadAll(conn)
		came <- text
	}()
	late := errors.New("somebody else has it")
	asked := 0
	c := newClient(t, "http://"+listener.Addr().String(), func(c *Client) { c.Ready = func() error { asked++; return late } })
	_, err = c.Refresh(t.Context(), testRefresh, forget)
	var not *NotReadyError
	if !errors.As(err, &not) || !errors.Is(err, late) {
		t.Errorf("the error is %v", err)
	}
	if text := <-came; len(text) > 0 || asked != 1 {
		t.Errorf("there came %q, after %d questions", text, asked)
	}
}

// A kept connection that the server has closed meanwhile is replaced, and whoever sends is
// asked again.
func TestReadyIsAskedForEachConnection(t *testing.T) {
	var served atomic.Int32
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		granting(w, r)
	})
	transport := NewTransport()
	defer transport.CloseIdleConnections()
	asked := 0
	c := newClient(t, server.URL, func(c *Client) {
		c.Transport = transport
		c.Ready = func() error {
			if asked++; asked == 2 {
				server.CloseClientConnections() // between the question and the first byte
			}
			return nil
		}
	})
	for range 2 {
		if _, err := c.Refresh(t.Context(), testRefresh, forget); err != nil && served.Load() == 0 {
			t.Fatal(err)
		}
	}
	if asked < 2 || served.Load() < 1 {
		t.Errorf("%d questions, %d requests", asked, served.Load())
	}
	c.Ready = func() error { return errors.New("no") }
	before := served.Load()
	if _, err := c.Refresh(t.Context(), testRefresh, forget); !errors.As(err, new(*NotReadyError)) || served.Load() != before {
		t.Errorf("on a kept connection: %v, %d requests", err, served.Load()-before)
	}
}
