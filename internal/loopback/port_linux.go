package loopback

import (
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/upsauth/upsauth/internal/peer"
)

// portOwner names the program that listens on port where it keeps a from being
// listened on, or at least its user; empty when /proc does not tell.
func portOwner(a netip.Addr, port int) string {
	inode, uid, ok := peer.Listener(a, port)
	if !ok {
		return ""
	}
	if owner := socketOwner(inode); owner != "" {
		return owner
	}
	if u, err := user.LookupId(uid); err == nil {
		return "a program of user " + printable(u.Username)
	}
	return "a program of user number " + uid
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
