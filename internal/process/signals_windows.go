package process

import (
	"os"
	"syscall"
)

// endings are the signals that end a process: Go makes them of Ctrl-C and
// Ctrl-Break, and of the console's, the session's and the system's end.
func endings() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

func failedWrites() []os.Signal { return nil }

func ignoreUnaskable() {}
