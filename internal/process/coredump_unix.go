//go:build unix && !linux

package process

import "golang.org/x/sys/unix"

// NoCoreDumps keeps this process's memory, which has tokens in it, out of core
// dumps: its own limit is none. It returns what gives a program that is started
// the limit that there was.
func NoCoreDumps() (restore func()) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &limit) != nil {
		return func() {}
	}
	none := limit
	none.Cur = 0
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &none)
	return func() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &limit) }
}
