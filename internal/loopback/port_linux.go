package loopback

import (
	"bufio"
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner names the program that listens on port where it keeps a from being
// listened on, or at least its user; empty when /proc does not tell.
func portOwner(a netip.Addr, port int) string {
	for _, table := range socketTables {
		inode, uid, ok := "", "", false
		readTable(table, func(rows io.Reader) { inode, uid, ok = findListener(rows, a, port) })
		if !ok {
			continue
		}
		if owner := socketOwner(inode); owner != "" {
			return owner
		}
		if u, err := user.LookupId(uid); err == nil {
			return "a program of user " + printable(u.Username)
		}
		return "a program of user number " + uid
	}
	return ""
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

// socketOwner names the process that holds the socket. Those of other users are
// hidden from it.
func socketOwner(inode string) string {
	want := "socket:[" + inode + "]"
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if got, err := os.Readlink(fd); err != nil || got != want {
			continue
		}
		proc := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(proc, "comm"))
		if err != nil {
			return ""
		}
		return printable(strings.TrimSpace(string(name))) + " (process " + filepath.Base(proc) + ")"
	}
	return ""
}
