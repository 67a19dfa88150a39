package peer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/safefile"
)

// socketTables are the kernel's tables of TCP sockets (proc_pid_net(5)). A client
// that uses an IPv6 socket for 127.0.0.1 stands in the second, with both
// addresses IPv4-mapped.
//
// They are this process's own: a service manager may hide all else of /proc.
var socketTables = [...]string{"/proc/self/net/tcp", "/proc/self/net/tcp6"}

// established is the state of a connection that neither end has closed, in the
// tables as in TCP_INFO (the kernel's TCP_ESTABLISHED).
const established = 1

// Tells reports whether the tables can be read and show one of the listeners,
// as they do not in a sandbox that hides them.
func Tells(listeners []net.Listener) bool {
	for _, table := range socketTables {
		for _, l := range listeners {
			at, found := l.Addr().(*net.TCPAddr).AddrPort(), false
			readTable(table, func(rows io.Reader) {
				_, _, found = findListener(rows, at.Addr().Unmap(), int(at.Port()))
			})
			if found {
				return true
			}
		}
	}
	return false
}

// userOf is the user who has the other end of a connection.
func userOf(c *net.TCPConn) (int, error) {
	if c == nil {
		return Untold, errors.New("the connection is not TCP's")
	}
	uid, state, found := peerRow(c)
	// Only now: as long as our own socket is established, the client had not
	// closed its when the tables were read. One that has closed shows as root's,
	// and one that has reset the connection does not show at all.
	if now, err := tcpState(c); err != nil || now != established {
		return Untold, ErrGone
	}
	switch {
	case !found:
		return Untold, nil
	case state != established:
		// It has closed, and its last bytes are still on their way.
		return Untold, ErrGone
	}
	return uid, nil
}

// passes reports whether a user may take part in what this user has begun.
func passes(uid int) bool {
	return uid == Untold || uid == os.Geteuid() || uid == 0 || uid == safefile.OverflowUID()
}

// nameOf is a user's name, or the number of one who has none.
func nameOf(uid int) string {
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = legible.Line(u.Username)
	}
	return name
}

// Listener finds the program that listens on a port of a, or of every address: the inode
// of its socket and the number of its user.
func Listener(a netip.Addr, port int) (inode, uid string, ok bool) {
	for _, table := range socketTables {
		readTable(table, func(rows io.Reader) { inode, uid, ok = findListener(rows, a, port) })
		if ok {
			return inode, uid, true
		}
	}
	return "", "", false
}

// peerRow finds the other end of a connection in the kernel's tables.
func peerRow(c *net.TCPConn) (uid, state int, found bool) {
	local, remote := addressOf(c.LocalAddr()), addressOf(c.RemoteAddr())
	for _, table := range socketTables {
		readTable(table, func(rows io.Reader) { uid, state, found = findConnection(rows, remote, local) })
		if found {
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
func findConnection(rows io.Reader, from, to netip.AddrPort) (uid, state int, found bool) {
	const (
		local  = 1
		remote = 2
		status = 3
		userID = 7
	)
	// A machine can have thousands of connections, and hardly one with both ports.
	ports := [...][]byte{fmt.Appendf(nil, ":%04X ", from.Port()), fmt.Appendf(nil, ":%04X ", to.Port())}
	for lines := bufio.NewScanner(rows); lines.Scan(); {
		if !bytes.Contains(lines.Bytes(), ports[0]) || !bytes.Contains(lines.Bytes(), ports[1]) {
			continue
		}
		f := strings.Fields(lines.Text())
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

// readTable gives one of the kernel's socket tables to read, where there is one. Its
// listening sockets come first, and reading on costs a walk through all that the kernel
// has, so nobody reads further than to what is looked for.
func readTable(path string, read func(rows io.Reader)) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	read(f)
}

// findListener looks through one of the kernel's socket tables (proc_pid_net(5))
// for a listening socket that has a's port, on a or on every address.
func findListener(rows io.Reader, a netip.Addr, port int) (inode, uid string, ok bool) {
	const (
		local  = 1
		state  = 3
		userID = 7
		number = 9

		listening = "0A"
	)
	for lines := bufio.NewScanner(rows); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) <= number || f[state] != listening {
			continue
		}
		at, ok := parseKernelAddr(f[local])
		if !ok || int(at.Port()) != port {
			continue
		}
		switch ip := at.Addr(); {
		case ip.Unmap() == a, ip == netip.IPv6Unspecified(), ip == netip.IPv4Unspecified() && a.Is4():
			return f[number], f[userID], true
		}
	}
	return "", "", false
}

// parseKernelAddr reads an address as the kernel prints it: 32-bit words in
// hexadecimal, each in the machine's byte order, then the port.
func parseKernelAddr(s string) (netip.AddrPort, bool) {
	words, portHex, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(portHex, 16, 16)
	if err != nil || len(words)%8 != 0 {
		return netip.AddrPort{}, false
	}
	var raw []byte
	for ; words != ""; words = words[8:] {
		w, err := strconv.ParseUint(words[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(w))
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip, uint16(port)), ok
}
