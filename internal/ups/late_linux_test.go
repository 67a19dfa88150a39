package ups

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/cutnet"
)

// A connection to UPS must end with its process, on every way there.
func TestConnectionsDontLinger(t *testing.T) {
	plain, secure := newServer(t, granting), httptest.NewTLSServer(http.HandlerFunc(granting))
	defer secure.Close()
	proxy := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		here, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = here.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		go func() {
			_, _ = buffered.WriteTo(there)
			there.Close()
		}()
		_, _ = here.(*net.TCPConn).ReadFrom(there)
		here.Close()
	})
	for name, way := range map[string]struct {
		base  string
		proxy *url.URL
	}{
		"direct": {plain.URL, nil}, "TLS": {secure.URL, nil},
		"proxy": {secure.URL, &url.URL{Scheme: "http", Host: proxy.Listener.Addr().String()}},
	} {
		t.Run(name, func(t *testing.T) {
			transport := newTransport(12345 * time.Millisecond)
			defer transport.CloseIdleConnections()
			transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
			transport.Proxy = http.ProxyURL(way.proxy)
			var conns []net.Conn
			dial := transport.DialContext
			transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				conns = append(conns, conn)
				return conn, err
			}
			c := newClient(t, way.base, func(c *Client) { c.Transport = transport })
			if _, err := c.Refresh(t.Context(), testRefresh, forget); err != nil {
				t.Fatal(err)
			}
			if len(conns) != 1 {
				t.Fatalf("%d connections were made", len(conns))
			}
			raw, err := conns[0].(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) {
				var on [8]byte // a struct linger: on, for 0 seconds
				binary.NativeEndian.PutUint32(on[:], 1)
				linger, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_LINGER)
				if err != nil || linger != binary.NativeEndian.Uint64(on[:]) {
					t.Errorf("SO_LINGER is %x, %v", linger, err)
				}
				limit, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
				if err != nil || limit != 12345 {
					t.Errorf("TCP_USER_TIMEOUT is %d, %v", limit, err)
				}
			})
		})
	}
}

// lateLimit is the limit of a call in the tests of late delivery.
const lateLimit = 600 * time.Millisecond

// TestLateClient is the client's process of TestNothingIsDeliveredLate.
func TestLateClient(t *testing.T) {
	base, token := os.Getenv("LATE_BASE"), os.Getenv("LATE_TOKEN")
	if base == "" {
		t.Skip("it is a part of TestNothingIsDeliveredLate")
	}
	transport := newTransport(lateLimit)
	if token == "control" {
		transport.DialContext = new(net.Dialer).DialContext
	}
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// On a machine that is busy the way to the request takes its time.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { time.AfterFunc(lateLimit, cancel) }})
	_, _ = newClient(t, base, func(c *Client) { c.Transport = transport }).Refresh(ctx, token, forget)
}

// What a process had written is not delivered once the network is back, whatever
// became of the process: it would come behind the retry.
func TestNothingIsDeliveredLate(t *testing.T) {
	network := cutnet.New(t)
	var mu sync.Mutex
	var arrived []string
	arrives := make(chan string, 64)
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.PostFormValue("refresh_token")
		mu.Lock()
		arrived = append(arrived, token)
		mu.Unlock()
		arrives <- token
		granting(w, r)
	})
	bases := map[string]string{}
	for _, way := range []string{"direct", "TLS"} {
		server := httptest.NewUnstartedServer(answer)
		server.Listener.Close()
		server.Listener = network.Listen()
		if way == "TLS" {
			server.StartTLS()
		} else {
			server.Start()
		}
		defer server.Close()
		bases[way] = server.URL
	}
	send := func(way, token string) (*os.Process, <-chan struct{}) {
		command := network.Command(os.Args[0], "-test.run=^TestLateClient$")
		command.Env = append(os.Environ(), "LATE_BASE="+bases[way], "LATE_TOKEN="+token)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		go func() { _ = command.Wait(); close(over) }()
		t.Cleanup(func() {
			_ = command.Process.Kill()
			<-over
		})
		return command.Process, over
	}
	held := func(way, token string) *os.Process {
		for late := time.After(patience); ; {
			process, over := send(way, token)
			select {
			case <-network.Sent():
				return process
			case <-over: // on a machine that is busy even its connect can take too long
			case <-late:
				t.Fatalf("the request of %s was never sent", token)
			}
		}
	}
	for way := range bases {
		_ = held(way, way+" alive")
		_ = held(way, way+" stopped").Signal(syscall.SIGSTOP) // as on a machine that hangs
		_ = held(way, way+" killed").Kill()
	}
	// The controls show when the kernel would have delivered the others: they were
	// sent later, from sockets as Go makes them.
	for way := range bases {
		_ = held(way, "control").Kill()
	}
	time.Sleep(2 * lateLimit) // the length of the cut
	network.Mend()
	for _, want := range []string{"control", "control", "retry"} {
		if want == "retry" {
			send("TLS", "retry")
		}
		for got := ""; got != want; {
			select {
			case got = <-arrives:
			case <-time.After(patience):
				t.Fatalf("the %s did not arrive", want)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(arrived, []string{"control", "control", "retry"}) {
		t.Errorf("there arrived %q", arrived)
	}
}

// patience is for what must happen, on the slowest machine.
const patience = time.Minute
