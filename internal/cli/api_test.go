package cli

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// A server's answer must not write to the clipboard, the title or the screen of who
// looks at it; a program gets every byte.
func TestAPIOnATerminal(t *testing.T) {
	const (
		head = "HTTP/1.1 200 O\x1b[2JK\r\nX-Evil: a\u202eb\u009bc\r\nConnection: close\r\n\r\n"
		body = "{\x1b[31m\"a\":\"\u202eb\u200b\",\r\n\t\"c\":\u009b\x9b1}\x00"
	)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = io.WriteString(conn, head+body)
			conn.Close()
		}
	}()
	for _, test := range []struct {
		name               string
		terminal, include  bool
		wantHead, wantBody string
	}{
		{"piped", false, false, "", body},
		{"piped with headers", false, true, "HTTP/1.1 200 O\x1b[2JK\n", body},
		{"terminal", true, false, "", "{[31m\"a\":\"b\",\n\t\"c\":\ufffd1}\n"},
		{"terminal with headers", true, true, "HTTP/1.1 200 O[2JK\n", "{[31m\"a\":\"b\",\n\t\"c\":\ufffd1}\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := &ups.Client{Environment: ups.Environment{BaseURL: "http://" + listener.Addr().String()}}
			call := ups.Call{Method: http.MethodGet, Path: "/x"}
			response, err := client.Do(t.Context(), call, "t0ken")
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			var out bytes.Buffer
			opts := apiOptions{env: &Env{Out: &out, OutTerminal: test.terminal, Now: time.Now}, Include: test.include}
			if err := opts.print(&session.Answer{Response: response}); err != nil {
				t.Fatal(err)
			}
			got := out.String()
			if !strings.HasPrefix(got, test.wantHead) || !strings.HasSuffix(got, test.wantBody) || !test.include && got != test.wantBody {
				t.Errorf("it prints %q, want %q and %q", got, test.wantHead, test.wantBody)
			}
			if test.terminal && strings.ContainsFunc(got, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == '\u202e' }) {
				t.Errorf("the terminal gets %q", got)
			}
			if test.include && strings.Contains(got, "X-Evil: a\u202e") == test.terminal {
				t.Errorf("the headers are %q", got)
			}
		})
	}
}
