package process

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// Programs that are started must not speak to systemd in the service's name.
func TestTakeSystemdLeavesNothingToBeInherited(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	address := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil && runtime.GOOS == "windows" {
		t.Skip(err) // and there is no systemd
	}
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", address)
	t.Setenv("WATCHDOG_USEC", "90000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	clean := func() {
		t.Helper()
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if value, ok := os.LookupEnv(name); ok {
				t.Errorf("%s is %q", name, value)
			}
		}
	}
	notify, watchdog := TakeSystemd()
	clean()
	if watchdog != 90*time.Second {
		t.Errorf("the watchdog wants to hear every %s", watchdog)
	}
	for _, state := range []string{"READY=1", "STOPPING=1"} {
		notify(state)
		clean()
		message := make([]byte, 100)
		if n, err := socket.Read(message); err != nil || string(message[:n]) != state {
			t.Errorf("systemd heard %q, %v", message[:n], err)
		}
	}
	// Elsewhere there is nobody to tell.
	notify, watchdog = TakeSystemd()
	notify("READY=1")
	if watchdog != 0 {
		t.Errorf("the watchdog wants to hear every %s", watchdog)
	}
}
