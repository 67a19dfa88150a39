package loopback

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestBusyPort(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1", "0.0.0.0"} {
		t.Run(addr, func(t *testing.T) {
			if addr == "::1" && !haveIPv6(t) {
				t.Skip("this machine has no IPv6 loopback")
			}
			if addr == "0.0.0.0" && runtime.GOOS != "linux" {
				t.Skip("elsewhere loopback may be listened on beside every address")
			}
			taken, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			port := taken.Addr().(*net.TCPAddr).Port

			s, err := open(t.Context(), testConfig{RedirectURI: fmt.Sprintf("http://localhost:%d/cb", port), State: "s"})
			if err == nil {
				s.Close()
				t.Fatal("it listens on a port that is taken")
			}
			var busy *PortError
			if !errors.As(err, &busy) || busy.Port != port {
				t.Fatalf("got %v", err)
			}
			if want := strings.Replace(addr, "0.0.0.0", "127.0.0.1", 1); busy.Addr != want {
				t.Errorf("it is said to be taken on %s, not %s", busy.Addr, want)
			}
			says := []string{"port " + strconv.Itoa(port), "is in use"}
			if runtime.GOOS == "linux" {
				says = append(says, fmt.Sprintf("(process %d)", os.Getpid()))
			}
			for _, want := range says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}

			// A refused Listen keeps nothing: not 127.0.0.1 when ::1 was taken either.
			if addr == "::1" {
				l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
				if err != nil {
					t.Fatalf("the other address is still held: %v", err)
				}
				l.Close()
			}
		})
	}
}

func TestPortZeroIsFreeOnBothFamilies(t *testing.T) {
	for range 20 {
		s, err := open(t.Context(), testConfig{RedirectURI: "http://localhost:0/cb", State: "s"})
		if err != nil {
			t.Fatal(err)
		}
		ports := make(map[string]bool)
		for _, a := range s.Addrs() {
			_, port, _ := net.SplitHostPort(a)
			ports[port] = true
			if want := "http://localhost:" + port + "/cb"; s.RedirectURI() != want {
				t.Errorf("RedirectURI is %s, want %s", s.RedirectURI(), want)
			}
		}
		if len(ports) != 1 || ports["0"] {
			t.Errorf("listens on %v", s.Addrs())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestBindErrorsAreToldApart(t *testing.T) {
	wrap := func(n syscall.Errno) error {
		return &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", n)}
	}
	a := netip.MustParseAddr("127.0.0.1")
	for n, want := range map[syscall.Errno]bool{
		syscall.EADDRNOTAVAIL: true, syscall.EAFNOSUPPORT: true, wsaeaddrnotavail: true, wsaeafnosupport: true,
		syscall.EADDRINUSE: false, syscall.EACCES: false, wsaeaddrinuse: false, wsaeacces: false,
	} {
		if isMissing(wrap(n)) != want {
			t.Errorf("error %d: missing is %v", n, !want)
		}
	}
	for _, n := range []syscall.Errno{syscall.EADDRINUSE, wsaeaddrinuse} {
		var busy *PortError
		if !errors.As(bindError(wrap(n), a, 1), &busy) {
			t.Errorf("error %d is no *PortError", n)
		}
	}
	for _, n := range []syscall.Errno{syscall.EACCES, wsaeacces} {
		if err := bindError(wrap(n), a, 80); !strings.Contains(err.Error(), "below 1024") {
			t.Errorf("got %v", err)
		}
		if err := bindError(wrap(n), a, 8400); !strings.Contains(err.Error(), "another port") {
			t.Errorf("got %v", err)
		}
	}
	if err := bindError(wrap(syscall.EMFILE), a, 8400); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("got %v", err)
	}
}

func TestMissingAddress(t *testing.T) {
	// 192.0.2.0/24 is nobody's (RFC 5737).
	nobody := netip.MustParseAddr("192.0.2.1")
	if _, err := bind(t.Context(), []netip.Addr{nobody}, 0); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("got %v", err)
	}
	l, err := bind(t.Context(), []netip.Addr{netip.MustParseAddr("127.0.0.1"), nobody}, 0)
	if err != nil || len(l) != 1 {
		t.Fatalf("one address of two: %v, %v", l, err)
	}
	l[0].Close()
}

func TestCanListen(t *testing.T) {
	tests := []struct {
		uri     string
		haveTLS bool
		want    bool
	}{
		{"http://localhost:5001", false, true},
		{"http://LOCALHOST/", false, true},
		{"http://127.0.0.1:8400/callback", false, true},
		{"http://127.9.9.9:8400/callback", false, true},
		{"http://[::1]:8400/", false, true},
		{"https://localhost:8443/cb", true, true},
		{"https://localhost:8443/cb", false, false},
		{"https://login.example/cb", true, false},
		{"http://login.example/cb", false, false},
		{"http://localhost.example/", false, false},
		{"http://0.0.0.0:8400/", false, false},
		{"http://[::ffff:127.0.0.1]:8400/", false, false},
		{"http://[::1%25lo]:8400/", false, false},
		{"localhost:5001", false, false},
		{"", false, false},
	}
	for _, tt := range tests {
		if got := CanListen(tt.uri, tt.haveTLS); got != tt.want {
			t.Errorf("CanListen(%q, %v) is %v", tt.uri, tt.haveTLS, got)
		}
	}
}
