//go:build !(dragonfly || freebsd || linux || netbsd || openbsd)

package keychain

// errorName is empty: there is no D-Bus here.
func errorName(error) string { return "" }
