//go:build !windows

package serve

import (
	"math"

	"golang.org/x/sys/unix"
)

// openFiles is how many files this process may have open at once.
func openFiles() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)) //nolint:unconvert // it is signed on FreeBSD
}
