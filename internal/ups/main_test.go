package ups

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// An exchange that leaves a goroutine behind has left a connection behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testClientID    = "Kx2vG8dQm5sTcLw0aYbZ"
	testSecret      = "s3cr3tOfTheClient9qW"
	testRedirectURI = "http://localhost:8765/callback"
	testCode        = "U1BTLWF1dGhvcml6YXRpb24tY29kZQ"
	testRefresh     = "rT5yNw8bKq2ZpLx7VdHs4JmCfGa9TuEo"
	// Verifier and challenge are those of RFC 7636, appendix B.
	testVerifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	testChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

	newAccess  = "eyJhbGciOiJSUzM4NCJ9.eyJzdWIiOiJqYW5lIn0.c2lnbmF0dXJl"
	newRefresh = "pQ7mXc3ZtRe6WbNv1KsLy8HdJg0FuAoI"
	// sample is the success answer that UPS publishes, with tokens in it.
	sample = `{"refresh_token_expires_in":"5183999","refresh_token_status":"approved","token_type":"Bearer",` +
		`"issued_at":"1706710138962","client_id":"` + testClientID + `","access_token":"` + newAccess + `",` +
		`"refresh_token":"` + newRefresh + `","scope":"","refresh_token_issued_at":"1706710138962",` +
		`"expires_in":"14399","refresh_count":"0","status":"approved"}`
)

// basicCredentials is what follows "Basic " in the Authorization header.
func basicCredentials() string {
	return base64.StdEncoding.EncodeToString([]byte(testClientID + ":" + testSecret))
}

// arrived is one request as a server got it.
type arrived struct {
	Method, Path, Proto string
	Query, Form         url.Values
	Header              http.Header
	Body                string
}

// whole is everything of the request that could carry a secret.
func (a arrived) whole() string {
	var s strings.Builder
	s.WriteString(a.Path + "?" + a.Query.Encode() + "\n")
	_ = a.Header.Write(&s)
	s.WriteString(a.Body)
	return s.String()
}

// server is a real HTTP server that remembers what it was asked.
type server struct {
	*httptest.Server
	mu  sync.Mutex
	got []arrived
}

func newServer(t *testing.T, answer http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(s.recording(t, answer))
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *server) recording(t *testing.T, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("the request did not arrive whole: %v", err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Errorf("the request's form can't be read: %v", err)
		}
		s.mu.Lock()
		s.got = append(s.got, arrived{r.Method, r.URL.Path, r.Proto, r.URL.Query(), form, r.Header.Clone(), string(body)})
		s.mu.Unlock()
		answer(w, r)
	}
}

func (s *server) requests() []arrived {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrived(nil), s.got...)
}

func (s *server) only(t *testing.T) arrived {
	t.Helper()
	got := s.requests()
	if len(got) != 1 {
		t.Fatalf("%d requests arrived, want 1", len(got))
	}
	return got[0]
}

// saying is a handler that always gives the same answer.
func saying(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func granting(w http.ResponseWriter, r *http.Request) {
	saying(http.StatusOK, "application/json", sample)(w, r)
}

// upsError is a body in UPS's own form.
func upsError(code, message string) string {
	return `{"response":{"errors":[{"code":"` + code + `","message":"` + message + `"}]}}`
}

func newClient(t *testing.T, baseURL string, tune ...func(*Client)) *Client {
	t.Helper()
	transport := NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	c := &Client{
		Environment: Environment{Name: "lab", BaseURL: baseURL, Origin: baseURL},
		Application: Application{
			Name: "batch-suite", ClientID: testClientID, ClientSecret: testSecret, RedirectURI: testRedirectURI, PKCE: PKCEOff,
		},
		Transport: transport,
		UserAgent: "upsauth/test",
	}
	for _, f := range tune {
		f(c)
	}
	return c
}

func withPKCE(p PKCE) func(*Client) { return func(c *Client) { c.PKCE = p } }

// rawServer speaks HTTP by hand, so that an answer can be cut, reset or
// withheld.
type rawServer struct {
	url string
	// over is closed at the end of the test, for who withholds an answer.
	over  chan struct{}
	mu    sync.Mutex
	got   []url.Values
	conns []net.Conn
}

// newRawServer calls answer for each request that came whole, with the number
// of the request. The connection is closed unless answer returns true.
func newRawServer(t *testing.T, answer func(s *rawServer, conn *net.TCPConn, n int) (again bool)) *rawServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{url: "http://" + listener.Addr().String(), over: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			running.Go(func() { s.serve(conn.(*net.TCPConn), answer) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		close(s.over)
		s.mu.Lock()
		for _, conn := range s.conns {
			conn.Close()
		}
		s.mu.Unlock()
		running.Wait()
	})
	return s
}

func (s *rawServer) serve(conn *net.TCPConn, answer func(*rawServer, *net.TCPConn, int) bool) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		form, _ := url.ParseQuery(string(body))
		s.mu.Lock()
		s.got = append(s.got, form)
		n := len(s.got)
		s.mu.Unlock()
		if !answer(s, conn, n) {
			return
		}
	}
}

// requests counts the requests that arrived with a refresh token, or all.
func (s *rawServer) requests(refreshToken string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, form := range s.got {
		if refreshToken == "" || form.Get("refresh_token") == refreshToken {
			n++
		}
	}
	return n
}

// reset ends a connection with RST instead of FIN.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// typed returns the *Error that every refusal and every failure is.
func typed(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is %#v, want an *Error", err)
	}
	return e
}

// forget is a Keep that keeps nothing.
func forget(Answer) error { return nil }
