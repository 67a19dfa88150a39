package loopback

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// PortError says that another program has the port.
type PortError struct {
	Port  int
	Addr  string // the loopback address on which it is taken
	Owner string // who has it, such as "nc (process 812)"; empty where the system does not tell
	// SignIn says that it awaits the answer of another sign-in there.
	SignIn bool
}

func (e *PortError) Error() string {
	owner := e.Owner
	if owner == "" {
		owner = "another program"
	}
	return fmt.Sprintf("port %d is in use on %s by %s", e.Port, e.Addr, owner)
}

// BindError says that the system does not let this program listen there, for
// another reason than that the port is taken.
type BindError struct{ Err error }

func (e *BindError) Error() string { return e.Err.Error() }

func (e *BindError) Unwrap() error { return e.Err }

// UnservedError says why a redirect URI can't be served on this machine as it is
// asked for.
type UnservedError struct {
	RedirectURI string
	Why         Unserved
}

// Unserved is why a redirect URI can't be served.
type Unserved int

const (
	// Elsewhere: it does not lead to this machine, and no address to listen on is given.
	Elsewhere Unserved = iota
	// AnyPort: it has port 0, and the address to listen on names another.
	AnyPort
	// NeedsCertificate: it is https, and there is no certificate.
	NeedsCertificate
)

func (e *UnservedError) Error() string {
	switch e.Why {
	case AnyPort:
		return fmt.Sprintf("the redirect URI %s has port 0, any free port", e.RedirectURI)
	case NeedsCertificate:
		return fmt.Sprintf("the redirect URI %s is https", e.RedirectURI)
	}
	return fmt.Sprintf("the redirect URI %s does not lead to this machine", e.RedirectURI)
}

// CheckListen reports what is wrong with an address to listen on, nil where it is a
// loopback host and a port.
func CheckListen(address string) error { return CheckLoopback("the callback server", address) }

// CheckLoopback is CheckListen for another server, which it names: other machines must
// not reach it.
func CheckLoopback(server, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port, such as 127.0.0.1:8400", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port between 0 and 65535", address)
	}
	if loopbackAddrs(host) == nil {
		return fmt.Errorf("%q is not on loopback: "+
			"other machines must not reach %s; use localhost, 127.0.0.1 or [::1]", address, server)
	}
	return nil
}

// endpoint is where a server listens.
type endpoint struct {
	scheme string // what is spoken there: http or https
	host   string
	port   int
	addrs  []netip.Addr
}

func endpointFor(c Place, r redirect) (endpoint, error) {
	at := endpoint{scheme: "http", host: r.host, port: r.port, addrs: loopbackAddrs(r.host)}
	if r.scheme == "https" && c.TLS != nil {
		if len(c.TLS.Certificates) == 0 && c.TLS.GetCertificate == nil && c.TLS.GetConfigForClient == nil {
			return endpoint{}, &UnservedError{c.RedirectURI, NeedsCertificate}
		}
		at.scheme = "https"
	}
	if c.Listen == "" {
		switch {
		case at.addrs == nil:
			return endpoint{}, &UnservedError{c.RedirectURI, Elsewhere}
		case r.scheme != at.scheme:
			return endpoint{}, &UnservedError{c.RedirectURI, NeedsCertificate}
		}
		return at, nil
	}

	if r.port == 0 {
		return endpoint{}, &UnservedError{c.RedirectURI, AnyPort}
	}
	if err := CheckListen(c.Listen); err != nil {
		return endpoint{}, err
	}
	host, port, _ := net.SplitHostPort(c.Listen)
	n, _ := strconv.Atoi(port)
	at.host, at.port, at.addrs = canonicalHost(host), n, loopbackAddrs(host)
	return at, nil
}

// loopbackAddrs lists the addresses to listen on for a loopback host, nil for
// any other. Both families for localhost, since a browser may try either first;
// the name itself is never looked up (RFC 8252 section 8.3).
func loopbackAddrs(host string) []netip.Addr {
	if strings.EqualFold(host, "localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	a, err := netip.ParseAddr(host)
	if err != nil || !a.IsLoopback() || a.Is4In6() || a.Zone() != "" {
		return nil
	}
	return []netip.Addr{a}
}

// BindAll listens on a port of all addresses that a browser may try for a loopback host:
// for localhost and each of its two usual addresses that is both, so that nobody else
// answers at the other one. A port that is taken is a *PortError, for which holder, where
// it is not nil, names the program that has the port. The address has passed CheckListen.
func BindAll(ctx context.Context, address string, holder func(port int) Holder) ([]net.Listener, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	addrs := loopbackAddrs(host)
	if both := loopbackAddrs("localhost"); len(addrs) == 1 && slices.Contains(both, addrs[0]) {
		addrs = both
	}
	listeners, err := bind(ctx, addrs, int(port))
	return listeners, named(err, holder)
}

// named adds what is known of the program that has a port that is taken, where the system
// did not tell more.
func named(err error, know func(port int) Holder) error {
	if busy := new(PortError); errors.As(err, &busy) && know != nil {
		holder := know(busy.Port)
		if holder.Name != "" && (!strings.Contains(busy.Owner, "(process ") || strings.Contains(busy.Owner, fmt.Sprintf("(process %d)", holder.PID))) {
			busy.Owner, busy.SignIn = holder.Name, holder.SignIn
		}
	}
	return err
}

// bind listens on every address at one port; port 0 is one free on all of them.
func bind(ctx context.Context, addrs []netip.Addr, port int) ([]net.Listener, error) {
	const tries = 10 // for port 0: the port found for one address may be taken on the next
	for try := 1; ; try++ {
		listeners, err := bindAll(ctx, addrs, port)
		var busy *PortError
		if err == nil || port != 0 || try == tries || !errors.As(err, &busy) {
			return listeners, err
		}
	}
}

func bindAll(ctx context.Context, addrs []netip.Addr, port int) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			listeners = nil
		}
	}()
	var missing error
	for _, a := range addrs {
		network := "tcp6"
		if a.Is4() {
			network = "tcp4"
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, network, net.JoinHostPort(a.String(), strconv.Itoa(port)))
		switch {
		case isMissing(err):
			missing = &BindError{fmt.Errorf("this machine has no address %s: %w", a, err)}
			continue
		case err != nil:
			return listeners, bindError(err, a, port)
		}
		listeners = append(listeners, l)
		port = l.Addr().(*net.TCPAddr).Port
	}
	if len(listeners) == 0 {
		return nil, missing
	}
	return listeners, nil
}

func bindError(err error, a netip.Addr, port int) error {
	switch {
	case is(err, syscall.EADDRINUSE, wsaeaddrinuse):
		return &PortError{Port: port, Addr: a.String(), Owner: portOwner(a, port)}
	case !is(err, wsaeacces) && !errors.Is(err, fs.ErrPermission):
		return &BindError{fmt.Errorf("can't listen on port %d of %s: %w", port, a, err)}
	case port < 1024:
		return &BindError{fmt.Errorf("this user may not listen on port %d of %s, because the system reserves ports below 1024: "+
			"use a port from 1024 on (an application's port is that of its redirect URI), or give this program the right to that port: %w", port, a, err)}
	default:
		return &BindError{fmt.Errorf("the system does not let this program listen on port %d of %s: "+
			"use another port (an application's port is that of its redirect URI; on Windows, netsh interface ipv4 show excludedportrange protocol=tcp lists the reserved ones): %w", port, a, err)}
	}
}

// Winsock's numbers. On Windows the constants of package syscall with these
// names are inventions that no call returns; elsewhere no error has these numbers.
const (
	wsaeacces          syscall.Errno = 10013
	wsaeafnosupport    syscall.Errno = 10047
	wsaeaddrinuse      syscall.Errno = 10048
	wsaeaddrnotavail   syscall.Errno = 10049
	wsaeprotonosupport syscall.Errno = 10043
)

// isMissing reports that the machine lacks the address or its whole family, as
// opposed to the port being taken.
func isMissing(err error) bool {
	return is(err, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT,
		wsaeaddrnotavail, wsaeafnosupport, wsaeprotonosupport)
}

func is(err error, numbers ...syscall.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}
