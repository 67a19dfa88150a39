//go:build unix

package cli

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// served is a service with faces in this process, on the system's clock.
type served struct {
	*months
	http *http.Client
	end  context.CancelFunc
	code chan int
}

// newServed starts a service whose grants are in a keychain in memory.
func newServed(t *testing.T, company string) *served {
	t.Helper()
	m := newMonths(t)
	// The path of a socket must be short, and a lock that is kept can't be removed by
	// t.TempDir on every system.
	dir, err := os.MkdirTemp("", "served")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m.settings["UPSAUTH_STATE_DIR"] = filepath.Join(dir, "state")
	m.settings["UPSAUTH_VAULT"] = "keychain"
	m.authorize(company)
	m.env.After = time.After
	ready := make(chan struct{})
	m.onStatus = func(n int) {
		if n == 1 {
			close(ready)
		}
	}
	s := &served{months: m, code: make(chan int, 1)}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "state", "programs", "serve.sock"))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	s.http = &http.Client{Transport: transport}
	var ctx context.Context
	ctx, s.end = context.WithCancel(t.Context())
	go func() { s.code <- Run(ctx, m.env, []string{"serve", "--listen", "localhost:0"}) }()
	select {
	case <-ready:
	case code := <-s.code:
		t.Fatalf("exit code %d: %s", code, m.err.String())
	}
	return s
}

// ask makes a request of a program's.
func (s *served) ask(ctx context.Context, method, path string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://upsauth"+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := s.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// A write that the keychain owes an answer keeps its lock until the process ends, so the
// service must not go on, although no round noticed it.
func TestServeEndsWithAWriteUnanswered(t *testing.T) {
	if testing.Short() {
		t.Skip("a call of the keychain is waited for during 10 s")
	}
	s := newServed(t, "A")
	answer := make(chan struct{})
	s.ring.set = func() { <-answer }
	status, body, err := s.ask(t.Context(), http.MethodPost, "/v1/refresh?company=A")
	if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, `"exit_code": 5`) {
		t.Errorf("%v, %d: %s", err, status, body)
	}
	code := <-s.code
	log := s.err.String()
	if code != exitVault || !strings.Contains(log, "upsauth: The keychain did not answer a write") || !strings.Contains(log, "ends: a write to the keychain has no answer") {
		t.Errorf("exit code %d: %s", code, log)
	}
	close(answer)
}

// Whoever hangs up in the middle of a write to the keychain must not leave it unanswered,
// which would end the service.
func TestServeOutlastsAClientThatHangsUp(t *testing.T) {
	s := newServed(t, "A")
	writing, answer := make(chan struct{}, 100), make(chan struct{})
	s.ring.set = func() { writing <- struct{}{}; <-answer }
	asking, hangUp := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, _, err := s.ask(asking, http.MethodPost, "/v1/refresh?company=A")
		gone <- err
	}()
	<-writing
	hangUp()
	if err := <-gone; err == nil {
		t.Error("the client had its answer before it hung up")
	}
	close(answer)
	if status, body, err := s.ask(t.Context(), http.MethodPost, "/v1/refresh?company=A"); err != nil || status != http.StatusOK {
		t.Errorf("afterwards: %v, %d: %s", err, status, body)
	}
	if status, body, err := s.ask(t.Context(), http.MethodGet, "/readyz"); err != nil || status != http.StatusOK {
		t.Errorf("readyz: %v, %d: %s", err, status, body)
	}
	s.end()
	if code := <-s.code; code != exitDone {
		t.Errorf("exit code %d: %s", code, s.err.String())
	}
}
