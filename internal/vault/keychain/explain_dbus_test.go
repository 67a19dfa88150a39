//go:build dragonfly || freebsd || linux || netbsd || openbsd

package keychain

import (
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"
)

// The name of a D-Bus error says what its text, which is for people and may be
// translated, does not.
func TestExplainDBusErrors(t *testing.T) {
	say := func(name, text string) error { return dbus.Error{Name: name, Body: []any{text}} }
	checkExplained(t, []explained{
		{"nothing has the name", say("org.freedesktop.DBus.Error.ServiceUnknown", "The name org.freedesktop.secrets was not provided by any .service files"), saysNoService},
		{"in another language", say("org.freedesktop.DBus.Error.ServiceUnknown", "Nada"), saysNoService},
		{"nobody owns the name", say("org.freedesktop.DBus.Error.NameHasNoOwner", "Could not get owner of name"), saysNoService},
		{"the service's program is gone", say("org.freedesktop.DBus.Error.Spawn.ExecFailed", "Failed to execute program org.freedesktop.secrets: No such file or directory"), saysNoService},
		{"the service ends at once", say("org.freedesktop.DBus.Error.Spawn.ChildExited", "Process org.freedesktop.secrets exited with status 1"), saysNoService},
		{"locked item", say("org.freedesktop.Secret.Error.IsLocked", "Cannot get secret of a locked object"), saysLocked},
		{"locked, no text", dbus.Error{Name: "org.freedesktop.Secret.Error.IsLocked"}, saysLocked},
		{"no such collection", say("org.freedesktop.Secret.Error.NoSuchObject", "The collection does not exist"), saysNoKeyring},
		{"no such object path", say("org.freedesktop.DBus.Error.UnknownMethod", "No such object path '/org/freedesktop/secrets/aliases/other'"), saysNoKeyring},
		{"sandboxed", say("org.freedesktop.DBus.Error.AccessDenied", "Rejected send message"), saysRefused},
		{"the service ended meanwhile", say("org.freedesktop.DBus.Error.NoReply", "Message recipient disconnected from message bus without replying"), "disconnected"},
	})
}

func TestExplainABusThatIsNotThere(t *testing.T) {
	dial := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: "/run/user/1000/bus", Net: "unix"}, Err: os.NewSyscallError("connect", errno)}
	}
	checkExplained(t, []explained{
		{"no socket", dial(syscall.ENOENT), saysNoBus},
		{"nobody at the socket", dial(syscall.ECONNREFUSED), saysNoBus},
	})
}
