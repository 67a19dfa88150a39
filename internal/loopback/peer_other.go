//go:build !linux

package loopback

import "net"

// tellsUsers is false: only Linux shows whose a connection is.
func tellsUsers([]net.Listener) bool { return false }

// checkPeer passes everybody, as nobody tells who they are.
func checkPeer(*net.TCPConn) error { return nil }
