//go:build !linux

package peer

import (
	"net"
	"strconv"
)

// Tells is false: only Linux shows whose a connection is.
func Tells([]net.Listener) bool { return false }

// userOf tells nobody's user.
func userOf(*net.TCPConn) (int, error) { return Untold, nil }

func passes(int) bool { return true }

func nameOf(uid int) string { return strconv.Itoa(uid) }
