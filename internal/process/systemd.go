package process

import (
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// TakeSystemd takes what systemd says to a service out of the environment, where
// programs that are started would find it. Notify tells systemd of the service's state,
// and is without effect elsewhere; systemd wants to be told that all is well within
// every watchdog, zero where it does not.
func TakeSystemd() (notify func(state string), watchdog time.Duration) {
	const variable = "NOTIFY_SOCKET"
	socket := os.Getenv(variable)
	_ = os.Unsetenv(variable)
	watchdog, _ = daemon.SdWatchdogEnabled(true)
	var mu sync.Mutex
	return func(state string) {
		if socket == "" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		// The library looks for the socket in the environment alone, and takes it
		// out again. What systemd does not hear, it says itself.
		_ = os.Setenv(variable, socket)
		_, _ = daemon.SdNotify(true, state)
	}, watchdog
}
