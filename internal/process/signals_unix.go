//go:build !windows

package process

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// endings are the signals whose default is to end a process, whatever sends
// them: a terminal's Ctrl-C and Ctrl-\, a time limit, somebody's kill. SIGKILL can't
// be asked for, and a fault in the program itself ends it in any case. A hangup that
// was ignored when the process began, as under nohup, stays so.
func endings() []os.Signal {
	others := []syscall.Signal{
		syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
		syscall.SIGCONT, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH,
	}
	others = append(others, harmlessHere...)
	var found []os.Signal
	for s := syscall.Signal(1); s <= lastSignal; s++ {
		if !slices.Contains(others, s) && !slices.Contains(failedWrites(), os.Signal(s)) && (s != syscall.SIGHUP || !signal.Ignored(s)) {
			found = append(found, s)
		}
	}
	return found
}

// failedWrites are the signals of writes that fail: to a pipe that nobody reads, to
// a file that is too large. Asked for, they leave the write to its error; ignoring
// them would be inherited.
func failedWrites() []os.Signal { return []os.Signal{syscall.SIGPIPE, syscall.SIGXFSZ} }
