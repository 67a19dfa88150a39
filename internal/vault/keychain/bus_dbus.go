//go:build (dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd

package keychain

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/godbus/dbus/v5"
)

const busVariable = "DBUS_SESSION_BUS_ADDRESS"

// errNoBus is how the library puts it too.
var errNoBus = errors.New("dbus: couldn't determine address of session bus")

// findBus looks for the session's bus and names it where the library finds it.
// Where the library finds none it runs dbus-launch, whose daemons stay for ever
// and have no keychain that anybody ever unlocked.
func findBus() error {
	address := os.Getenv(busVariable)
	if address != "" && !strings.HasPrefix(address, "autolaunch:") {
		return nil
	}
	for _, dir := range runtimeDirs() {
		if path := filepath.Join(dir, "bus"); isOwnSocket(path) {
			return os.Setenv(busVariable, "unix:path="+dbus.EscapeBusAddressValue(path))
		}
		// Where Ubuntu 16.04 wrote it.
		text, err := os.ReadFile(filepath.Join(dir, "dbus-session"))
		if address, ok := strings.CutPrefix(strings.TrimSpace(string(text)), busVariable+"="); err == nil && ok {
			return os.Setenv(busVariable, address)
		}
	}
	return errNoBus
}

// runtimeDirs are where a session's bus may be: a program that another user or
// cron started has the directory and not the variable.
func runtimeDirs() []string {
	dirs := []string{filepath.Join("/run/user", strconv.Itoa(os.Getuid()))}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// isOwnSocket keeps from handing secrets to the bus of another user.
func isOwnSocket(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
