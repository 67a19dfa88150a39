package loopback

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/safefile"
)

// socketTables are the kernel's tables of TCP sockets (proc_pid_net(5)). A client
// that uses an IPv6 socket for 127.0.0.1 stands in the second, with both
// addresses IPv4-mapped.
var socketTables = [...]string{"/proc/net/tcp", "/proc/net/tcp6"}

// established is the state of a connection that neither end has closed, in the
// tables as in TCP_INFO (the kernel's TCP_ESTABLISHED).
const established = 1

// tellsUsers reports whether the tables can be read and show one of the listeners,
// as they do not in a sandbox that hides them.
func tellsUsers(listeners []net.Listener) bool {
	for _, table := range socketTables {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, l := range listeners {
			at := l.Addr().(*net.TCPAddr).AddrPort()
			if _, _, ok := findListener(string(text), at.Addr().Unmap(), int(at.Port())); ok {
				return true
			}
		}
	}
	return false
}

// checkPeer returns an error where the other end of a connection is not known to
// be this user's, root's, of a user who has no number here, or outside of this
// network namespace, as the client of a container's published port is.
func checkPeer(c *net.TCPConn) error {
	if c == nil {
		return errors.New("the connection is not TCP's")
	}
	uid, state, found := peerRow(c)
	// Only now: as long as our own socket is established, the client had not
	// closed its when the tables were read. One that has closed shows as root's,
	// and one that has reset the connection does not show at all.
	if now, err := tcpState(c); err != nil || now != established {
		return errPeerGone
	}
	switch {
	case !found:
		return nil
	case state != established:
		// It has closed, and its last bytes are still on their way.
		return errPeerGone
	case uid == os.Geteuid() || uid == 0 || uid == safefile.OverflowUID():
		return nil
	}
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = printable(u.Username)
	}
	return &otherUserError{name, uid}
}

// peerRow finds the other end of a connection in the kernel's tables.
func peerRow(c *net.TCPConn) (uid, state int, found bool) {
	local, remote := addressOf(c.LocalAddr()), addressOf(c.RemoteAddr())
	for _, table := range socketTables {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		if uid, state, found = findConnection(string(text), remote, local); found {
			return uid, state, true
		}
	}
	return 0, 0, false
}

func addressOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return unmapped(tcp.AddrPort())
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// findConnection looks through one of the kernel's tables for the socket whose own
// address is from, and whose other end's is to.
func findConnection(table string, from, to netip.AddrPort) (uid, state int, found bool) {
	const (
		local  = 1
		remote = 2
		status = 3
		userID = 7
	)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) <= userID {
			continue
		}
		here, ok := parseKernelAddr(f[local])
		if !ok || unmapped(here) != from {
			continue
		}
		there, ok := parseKernelAddr(f[remote])
		if !ok || unmapped(there) != to {
			continue
		}
		s, err := strconv.ParseUint(f[status], 16, 8)
		if err != nil {
			continue
		}
		// A user number that can't be read is nobody's.
		n, err := strconv.ParseUint(f[userID], 10, 32)
		if err != nil {
			continue
		}
		return int(n), int(s), true
	}
	return 0, 0, false
}

// tcpState is the state of our own end (tcp(7), TCP_INFO).
func tcpState(c *net.TCPConn) (state int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("the state of the connection can't be asked for: %w", err)
	}
	var info *unix.TCPInfo
	var infoErr error
	err = raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err = errors.Join(err, infoErr); err != nil {
		return 0, fmt.Errorf("the state of the connection can't be read: %w", err)
	}
	return int(info.State), nil
}
