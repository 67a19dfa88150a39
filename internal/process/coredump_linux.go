package process

import "golang.org/x/sys/unix"

// NoCoreDumps keeps this process's memory, which has tokens in it, out of core
// dumps and from other programs of the user. Restore lets those look again, as at
// who has a port. A program that is started is dumped as ever.
func NoCoreDumps() (restore func()) {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	return func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }
}
