//go:build dragonfly || freebsd || linux || netbsd || openbsd

package keychain

import (
	"errors"

	"github.com/godbus/dbus/v5"
)

// errorName is the name of a D-Bus error, which its text often leaves out.
func errorName(err error) string {
	var e dbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}
