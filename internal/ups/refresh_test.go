package ups

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"testing"
	"time"
)

func TestRefreshSendsExactlyWhatUPSDocuments(t *testing.T) {
	for _, pkce := range []PKCE{PKCEAuto, PKCEOn, PKCEOff} {
		t.Run(string(pkce), func(t *testing.T) {
			s := newServer(t, granting)
			answer, err := newClient(t, s.URL, withPKCE(pkce), func(c *Client) { c.Scope = "read" }).Refresh(t.Context(), testRefresh, forget)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Endpoint != RefreshEndpoint || string(answer.Body) != sample {
				t.Errorf("the answer is %q from %s", answer.Body, answer.Endpoint)
			}
			r := s.only(t)
			if r.Method != http.MethodPost || r.Path != "/security/v1/oauth/refresh" || len(r.Query) != 0 {
				t.Errorf("it came as %s %s?%s", r.Method, r.Path, r.Query.Encode())
			}
			for name, want := range map[string]string{
				"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", "User-Agent": "upsauth/test",
			} {
				if got := r.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if want := (url.Values{"grant_type": {"refresh_token"}, "refresh_token": {testRefresh}}); !maps.EqualFunc(r.Form, want, slices.Equal) {
				t.Errorf("the form is %v, want %v", r.Form, want)
			}
			checkBasic(t, r, true)
		})
	}
}

// net/http sends a POST again by itself when an HTTP/2 server resets its
// stream, and many exchanges on one connection are lost together.
func TestRefreshUsesHTTP1EvenWhereTheServerOffersHTTP2(t *testing.T) {
	s := &server{}
	s.Server = httptest.NewUnstartedServer(s.recording(t, granting))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	c := newClient(t, s.URL, func(c *Client) {
		c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: trusted}
	})
	if _, err := c.Refresh(t.Context(), testRefresh, forget); err != nil {
		t.Fatal(err)
	}
	if got := s.only(t).Proto; got != "HTTP/1.1" {
		t.Errorf("the request came as %s", got)
	}
}

func TestClientWithoutTransportWorksAndKeepsNoConnection(t *testing.T) {
	s := newServer(t, granting)
	c := newClient(t, s.URL, func(c *Client) { c.Transport = nil })
	if _, err := c.Refresh(t.Context(), testRefresh, forget); err != nil {
		t.Fatal(err)
	}
	if got := s.only(t).Header.Get("Connection"); got != "close" {
		t.Errorf("the connection is kept: %q", got)
	}
}

// Credentials go to the environment's host and nowhere else, wherever the host
// points.
func TestCredentialsFollowNoRedirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			elsewhere := newServer(t, granting)
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL+r.URL.Path, status)
			})
			c := newClient(t, s.URL)
			_, refreshErr := c.Refresh(t.Context(), testRefresh, forget)
			_, _, exchangeErr := c.Exchange(t.Context(), testCode, testVerifier, forget)
			for _, err := range []error{refreshErr, exchangeErr} {
				if e := typed(t, err); e.Kind != Down || e.Status != status || !e.FateUnknown() {
					t.Errorf("the error is %s with status %d, fate unknown: %t", e.Kind, e.Status, e.FateUnknown())
				}
			}
			if n := len(s.requests()); n != 2 {
				t.Errorf("%d requests arrived, want 2", n)
			}
			if got := elsewhere.requests(); len(got) != 0 {
				t.Errorf("the credentials went elsewhere:\n%s", got[0].whole())
			}
		})
	}
}

// A refresh token can be spent once: whatever goes wrong, it is the caller who
// decides about a second request. Nothing below may probe or retry.
func TestRefreshSendsTheTokenOnceWhateverHappens(t *testing.T) {
	say := func(text string, again bool) func(*rawServer, *net.TCPConn, int) bool {
		return func(_ *rawServer, conn *net.TCPConn, _ int) bool {
			_, _ = io.WriteString(conn, text)
			return again
		}
	}
	status := func(line, header, body string) func(*rawServer, *net.TCPConn, int) bool {
		return say(fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", line, header, len(body), body), true)
	}
	unauthorized := `{"error":"invalid_client"}`
	for _, test := range []struct {
		name   string
		answer func(*rawServer, *net.TCPConn, int) bool
		want   Kind
	}{
		{"400 invalid_request", status("400 Bad Request", "", `{"error":"invalid_request"}`), Unknown},
		{"400 empty", status("400 Bad Request", "", ""), Unknown},
		{"401 with a challenge", status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"ups\"\r\n", unauthorized), ClientRefused},
		{"401 without", status("401 Unauthorized", "", unauthorized), ClientRefused},
		{"403", status("403 Forbidden", "", upsError("10403", "Blocked Merchant")), Blocked},
		{"407", status("407 Proxy Authentication Required", "Proxy-Authenticate: Basic\r\n", ""), Unknown},
		{"408", status("408 Request Timeout", "Connection: close\r\n", ""), Unknown},
		{"421", status("421 Misdirected Request", "", ""), Unknown},
		{"425", status("425 Too Early", "", ""), Unknown},
		{"429 come back at once", status("429 Too Many Requests", "Retry-After: 0\r\n", ""), RateLimited},
		{"500", status("500 Internal Server Error", "", upsError("10500", "Internal Server Error")), Down},
		{"503 come back at once", status("503 Service Unavailable", "Retry-After: 0\r\n", ""), Down},
		{"closed without an answer", say("", false), Lost},
		{"closed in the status line", say("HTTP/1.1 20", false), Lost},
		{"closed in the header", say("HTTP/1.1 200 OK\r\nContent-Ty", false), Lost},
		{"no HTTP", say("SSH-2.0-OpenSSH_9.9\r\n", false), Lost},
		{"reset without an answer", func(_ *rawServer, conn *net.TCPConn, _ int) bool {
			reset(conn)
			return false
		}, Lost},
		{"header without end", func(_ *rawServer, conn *net.TCPConn, _ int) bool {
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for err == nil {
				_, err = io.WriteString(conn, "X-More: of the same, and nobody ever stops\r\n")
			}
			return false
		}, Lost},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newRawServer(t, test.answer)
			_, err := newClient(t, s.url).Refresh(t.Context(), testRefresh, func(Answer) error {
				t.Error("an answer was kept")
				return nil
			})
			if e := typed(t, err); e.Kind != test.want {
				t.Errorf("the error is %s (%v), want %s", e.Kind, err, test.want)
			}
			if n := s.requests(""); n != 1 {
				t.Errorf("%d requests arrived, want 1", n)
			}
		})
	}
}

// The server takes the second request off a connection that it kept, and hangs
// up: net/http would send an idempotent request again.
func TestRefreshIsNotRepeatedWhenAKeptConnectionIsClosed(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){"closed": func(c *net.TCPConn) { c.Close() }, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			s := newRawServer(t, func(_ *rawServer, conn *net.TCPConn, n int) bool {
				if n > 1 {
					end(conn)
					return false
				}
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(sample), sample)
				return true
			})
			c := newClient(t, s.url)
			if _, err := c.Refresh(t.Context(), testRefresh, forget); err != nil {
				t.Fatal(err)
			}
			_, err := c.Refresh(t.Context(), newRefresh, forget)
			if e := typed(t, err); e.Kind != Lost {
				t.Errorf("the error is %s, want %s", e.Kind, Lost)
			}
			if n := s.requests(newRefresh); n != 1 {
				t.Errorf("the token was sent %d times, want 1", n)
			}
		})
	}
}

// The server closes a connection just after its answer, unannounced. Whether
// that is noticed before the next request is a matter of luck; a token that is
// sent twice is not.
func TestRefreshIsNeverSentTwiceOverAConnectionThatWentStale(t *testing.T) {
	s := newRawServer(t, func(_ *rawServer, conn *net.TCPConn, _ int) bool {
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(sample), sample)
		return false
	})
	c := newClient(t, s.url)
	for i := range 50 {
		token := fmt.Sprintf("%s-%d", testRefresh, i)
		_, err := c.Refresh(t.Context(), token, forget)
		n := s.requests(token)
		var e *Error
		switch {
		case err == nil && n == 1:
		case errors.As(err, &e) && e.Kind == Lost && n <= 1:
		default:
			t.Fatalf("the token was sent %d times, %v", n, err)
		}
	}
}

// What is kept is the answer itself, before anybody makes sense of it: also the
// answers that x/oauth2 throws away.
func TestGrantedAnswersAreKeptAsTheyCame(t *testing.T) {
	content := func(contentType, body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", contentType, len(body), body)
	}
	long := `{"refresh_token":"` + newRefresh + `","padding":"` + string(make([]byte, MaxAnswer)) + `"}`
	full := long[:MaxAnswer]
	for _, test := range []struct {
		name   string
		answer string
		reset  bool
		status int
		body   string
		cut    bool
	}{
		{name: "UPS's", answer: content("application/json", sample), status: 200, body: sample},
		{name: "text/plain", answer: content("text/plain", sample), status: 200, body: sample},
		{name: "form", answer: content("application/x-www-form-urlencoded", "refresh_token=x"), status: 200, body: "refresh_token=x"},
		{name: "HTML", answer: content("text/html", "<p>Moment please"), status: 200, body: "<p>Moment please"},
		{name: "empty", answer: content("application/json", ""), status: 200},
		{name: "201", answer: "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", status: 201, body: "{}"},
		{name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204},
		{name: "expires_in empty", answer: content("application/json", `{"access_token":"a","expires_in":""}`), status: 200, body: `{"access_token":"a","expires_in":""}`},
		{name: "expires_in 3599.0", answer: content("application/json", `{"access_token":"a","expires_in":3599.0}`), status: 200, body: `{"access_token":"a","expires_in":3599.0}`},
		{name: "error granted", answer: content("application/json", `{"error":"x"}`), status: 200, body: `{"error":"x"}`},
		{name: "as long as may be", answer: content("application/json", full), status: 200, body: full},
		{name: "longer", answer: content("application/json", long), status: 200, body: full, cut: true},
		{name: "cut by closing", answer: "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + sample[:200], status: 200, body: sample[:200], cut: true},
		{name: "cut by reset", answer: "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + sample[:200], reset: true, status: 200, body: sample[:200], cut: true},
		{name: "chunked", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n4\r\n:\"b\"\r\n1\r\n}\r\n0\r\n\r\n", status: 200, body: `{"a":"b"}`},
		{name: "chunked and cut", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n10\r\n:\"b", status: 200, body: `{"a":"b`, cut: true},
		{name: "chunked without the last chunk", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", status: 200, body: "{}", cut: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			// A reset may overtake what was sent before it, so it waits until the
			// client has that.
			seen := make(chan struct{})
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotFirstResponseByte: func() { close(seen) }})
			s := newRawServer(t, func(_ *rawServer, conn *net.TCPConn, _ int) bool {
				_, _ = io.WriteString(conn, test.answer)
				if test.reset {
					<-seen
					reset(conn)
				}
				return false
			})
			var kept []Answer
			keep := func(a Answer) error {
				kept = append(kept, a)
				return nil
			}
			got, err := newClient(t, s.url).Refresh(ctx, testRefresh, keep)
			if err != nil {
				t.Fatal(err)
			}
			if len(kept) != 1 {
				t.Fatalf("the answer was kept %d times", len(kept))
			}
			for _, a := range []Answer{kept[0], got} {
				if a.Status != test.status || string(a.Body) != test.body || a.Cut != test.cut || !a.OK() {
					t.Errorf("the answer is %d, %d bytes %.60q, cut: %t; want %d, %d bytes %.60q, cut: %t",
						a.Status, len(a.Body), a.Body, a.Cut, test.status, len(test.body), test.body, test.cut)
				}
			}
			if n := s.requests(""); n != 1 {
				t.Errorf("%d requests arrived, want 1", n)
			}
		})
	}
}

func TestRefusedAnswersAreNotKept(t *testing.T) {
	for _, status := range []int{302, 400, 401, 403, 429, 500, 503} {
		s := newServer(t, saying(status, "application/json", sample))
		answer, err := newClient(t, s.URL).Refresh(t.Context(), testRefresh, func(Answer) error {
			t.Errorf("an answer %d was kept", status)
			return nil
		})
		if typed(t, err).Status != status || answer.Status != status {
			t.Errorf("the status %d became %d and %v", status, answer.Status, err)
		}
	}
}

// The answer is good whether or not it could be put away.
func TestAnswerIsReturnedBesideTheErrorOfKeeping(t *testing.T) {
	s := newServer(t, granting)
	full := errors.New("no space left on device")
	answer, err := newClient(t, s.URL).Refresh(t.Context(), testRefresh, func(Answer) error { return full })
	if !errors.Is(err, full) || !answer.OK() || string(answer.Body) != sample {
		t.Errorf("the answer is %d %q, %v", answer.Status, answer.Body, err)
	}
}

// Lifetimes are reckoned from the moment before the request: were it the moment
// of the answer, a slow one would make a token look younger than it is.
func TestAnswerRemembersTheMomentBeforeTheRequest(t *testing.T) {
	before := time.Date(2026, 11, 21, 17, 5, 3, 0, time.FixedZone("CET", 3600))
	now := before
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		now = now.Add(20 * time.Second)
		w.Header().Set("Date", "Sat, 21 Nov 2026 16:05:10 GMT")
		granting(w, r)
	})
	c := newClient(t, s.URL, func(c *Client) { c.Now = func() time.Time { return now } })
	answer, err := c.Refresh(t.Context(), testRefresh, forget)
	if err != nil {
		t.Fatal(err)
	}
	if !answer.Requested.Equal(before) || answer.Requested.Location() != time.UTC {
		t.Errorf("it was requested at %v, want %v in UTC", answer.Requested, before)
	}
	if answer.Date != "Sat, 21 Nov 2026 16:05:10 GMT" {
		t.Errorf("the server's Date is %q", answer.Date)
	}
}
