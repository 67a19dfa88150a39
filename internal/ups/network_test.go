package ups

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
)

// withTransport changes the client's own transport.
func withTransport(tune func(*http.Transport)) func(*Client) {
	return func(c *Client) { tune(c.Transport.(*http.Transport)) }
}

// checkNetworkError wants an error without anything that stood in the request.
func checkNetworkError(t *testing.T, c *Client, err error, kind Kind, endpoint Endpoint, says string) {
	t.Helper()
	e := typed(t, err)
	if e.Kind != kind || e.Endpoint != endpoint || e.Status != 0 {
		t.Errorf("the error is %s at %s with %d, want %s at %s", e.Kind, e.Endpoint, e.Status, kind, endpoint)
	}
	if want := kind == Lost; e.FateUnknown() != want {
		t.Errorf("the fate of what was sent is unknown: %t, want %t", !want, want)
	}
	if !strings.Contains(e.Message, says) {
		t.Errorf("the message is %q, want %q in it", e.Message, says)
	}
	for _, private := range []string{c.BaseURL, "/security/", "state", testRefresh, testCode, testVerifier, testSecret, basicCredentials()} {
		if strings.Contains(e.Error(), private) {
			t.Errorf("%q tells %q", e, private)
		}
	}
}

var endpoints = []Endpoint{AuthorizeEndpoint, TokenEndpoint, RefreshEndpoint}

func TestWithoutConnectionNothingWasSent(t *testing.T) {
	gone := net.JoinHostPort("127.0.0.1", strconv.Itoa(realpart.Port(t)))

	plain := newServer(t, func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
	distrusted := httptest.NewUnstartedServer(plain.Config.Handler)
	distrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	distrusted.StartTLS()
	t.Cleanup(distrusted.Close)

	type unreachable struct {
		name    string
		baseURL string
		tune    func(*http.Transport)
		says    string
	}
	tests := []unreachable{
		{"refused", "http://" + gone, func(*http.Transport) {}, "refused"},
		{"unknown authority", distrusted.URL, func(*http.Transport) {}, "certificate"},
		{"no TLS there", "https://" + plain.Listener.Addr().String(), func(*http.Transport) {}, ""},
		{"proxy refused", "https://onlinetools.ups.invalid", func(transport *http.Transport) {
			transport.Proxy = func(r *http.Request) (*url.URL, error) { return r.URL.Parse("http://" + gone) }
		}, "refused"},
	}
	if resolver := denyingResolver(t); resolver != nil {
		tests = append(tests, unreachable{"name that does not exist", "https://onlinetools.ups.invalid", func(transport *http.Transport) {
			transport.Proxy = nil
			transport.DialContext = (&net.Dialer{Resolver: resolver}).DialContext
		}, "the name onlinetools.ups.invalid can't be looked up (no such host)"})
	}
	for _, test := range tests {
		for _, endpoint := range endpoints {
			t.Run(test.name+" at "+string(endpoint), func(t *testing.T) {
				c := newClient(t, test.baseURL, withTransport(test.tune))
				checkNetworkError(t, c, call(t.Context(), c, endpoint), Unreachable, endpoint, test.says)
			})
		}
	}
}

// denyingResolver asks a name server which knows no name. It is nil where the
// system has no UDP as Go wants it: under wine before 9.0.
func denyingResolver(t *testing.T) *net.Resolver {
	t.Helper()
	nameServer, err := net.ListenPacket("udp", "127.0.0.1:0")
	const wsaeopnotsupp = syscall.Errno(10045)
	if errors.Is(err, wsaeopnotsupp) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		query := make([]byte, 512)
		for {
			n, from, err := nameServer.ReadFrom(query)
			if err != nil {
				return
			}
			// The query comes back as an answer with NXDOMAIN (RFC 1035, 4.1.1)
			// and without additional records.
			query[2] |= 0x80
			query[3] = 3
			query[10], query[11] = 0, 0
			_, _ = nameServer.WriteTo(query[:n], from)
		}
	}()
	t.Cleanup(func() {
		nameServer.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", nameServer.LocalAddr().String())
	}}
}

// Once the request is out, nobody knows what UPS did with it.
func TestAnswerThatNeverComesIsLost(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(s *rawServer, conn *net.TCPConn) // and then the connection is closed
		limit  time.Duration
		says   string
	}{
		{"closed", func(*rawServer, *net.TCPConn) {}, time.Minute, "the connection was closed before the answer came"},
		{"closed in the header", func(_ *rawServer, conn *net.TCPConn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nDate: x\r\n") }, time.Minute,
			"the connection was closed before the answer came"},
		{"reset", func(_ *rawServer, conn *net.TCPConn) { reset(conn) }, time.Minute, "reset"},
		{"late", func(s *rawServer, _ *net.TCPConn) { <-s.over }, 300 * time.Millisecond, "no answer in time"},
	} {
		for _, endpoint := range endpoints {
			t.Run(test.name+" at "+string(endpoint), func(t *testing.T) {
				s := newRawServer(t, func(s *rawServer, conn *net.TCPConn, _ int) bool {
					test.answer(s, conn)
					return false
				})
				ctx, cancel := context.WithTimeout(t.Context(), test.limit)
				defer cancel()
				c := newClient(t, s.url)
				kind := Lost
				if endpoint == AuthorizeEndpoint {
					kind = Unreachable // nothing is spent there, so that nothing is lost
				}
				checkNetworkError(t, c, call(ctx, c, endpoint), kind, endpoint, test.says)
			})
		}
	}
}

// An answer whose beginning came is an answer, and what came of it is kept.
func TestAnswerThatStopsInItsBodyIsCutNotLost(t *testing.T) {
	s := newRawServer(t, func(s *rawServer, conn *net.TCPConn, _ int) bool {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"+sample[:200])
		<-s.over
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	answer, err := newClient(t, s.url).Refresh(ctx, testRefresh, forget)
	if err != nil || !answer.Cut || string(answer.Body) != sample[:200] {
		t.Errorf("the answer is %q, cut: %t, %v", answer.Body, answer.Cut, err)
	}
}

func TestTimeEndsBeforeTheConnectionStands(t *testing.T) {
	for _, endpoint := range endpoints {
		t.Run(string(endpoint), func(t *testing.T) {
			c := newClient(t, "http://127.0.0.1:1", withTransport(func(transport *http.Transport) {
				transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			checkNetworkError(t, c, call(ctx, c, endpoint), Unreachable, endpoint, "no answer in time")
		})
	}
}

// Nobody waits longer than CallTimeout for one exchange, though nothing else
// may end it once it is sent.
func TestEveryCallEndsByItself(t *testing.T) {
	for _, endpoint := range endpoints {
		t.Run(string(endpoint), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				go io.Copy(io.Discard, there)
				defer there.Close()
				c := newClient(t, "http://ups.invalid", withTransport(func(transport *http.Transport) {
					transport.Proxy = nil
					transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return here, nil }
				}))
				kind := Lost
				if endpoint == AuthorizeEndpoint {
					kind = Unreachable
				}
				start := time.Now()
				err := call(context.WithoutCancel(t.Context()), c, endpoint)
				if took := time.Since(start); took != CallTimeout {
					t.Errorf("the call took %s, want %s", took, CallTimeout)
				}
				checkNetworkError(t, c, err, kind, endpoint, "no answer within 30s")
			})
		})
	}
}

// Ctrl-C before anything was sent is an interruption, not UPS's failure.
func TestInterruptedCallSaysSo(t *testing.T) {
	for _, endpoint := range endpoints {
		c := newClient(t, "http://127.0.0.1:1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := call(ctx, c, endpoint)
		if e := typed(t, err); !errors.Is(err, context.Canceled) || e.Kind != Unreachable {
			t.Errorf("%s: the error is %s, %v", endpoint, e.Kind, err)
		}
	}
}

// A process that was stopped, or whose machine was, goes on after the end of its call. It takes the
// answer that came meanwhile, and waits for none that did not.
func TestAnswerThatCameDuringAPause(t *testing.T) {
	for _, test := range []struct {
		paused, answers, sent bool
	}{{true, true, true}, {true, false, true}, {false, true, true}, {true, true, false}} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			answered := make(chan struct{})
			defer func() { <-answered }()
			go func() {
				defer close(answered)
				if !test.sent {
					time.Sleep(CallTimeout + time.Second)
				}
				_, _ = http.ReadRequest(bufio.NewReader(there))
				if test.answers {
					time.Sleep(CallTimeout + time.Second)
					_, _ = io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\r\n{\"refresh_token\":\"the only one\"} ")
				}
			}()
			began := time.Now()
			c := newClient(t, "http://ups.invalid", withTransport(func(transport *http.Transport) {
				transport.Proxy = nil
				transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return here, nil }
			}), func(c *Client) {
				c.Now = func() time.Time {
					now := time.Now()
					if test.paused && now.Sub(began) >= CallTimeout {
						now = now.Add(time.Hour)
					}
					return now
				}
			})
			kept := false
			_, err := c.Refresh(t.Context(), testRefresh, func(Answer) error { kept = true; return nil })
			if want := test.paused && test.answers && test.sent; kept != want {
				t.Errorf("%+v: the answer was taken: %t, %v", test, kept, err)
			}
			if !kept {
				checkNetworkError(t, c, err, Lost, RefreshEndpoint, "no answer within 30s")
			}
			if took, most := time.Since(began), CallTimeout+catchUp; took > most {
				t.Errorf("it took %s", took)
			}
		})
	}
}
