//go:build !linux

package loopback

import "net/netip"

// portOwner is known on Linux only.
func portOwner(netip.Addr, int) string { return "" }
