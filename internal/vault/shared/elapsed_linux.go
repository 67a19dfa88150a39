package shared

import (
	"time"

	"golang.org/x/sys/unix"
)

// Elapsed is the time since this machine started, also while it was suspended
// (CLOCK_BOOTTIME, clock_gettime(2)).
func Elapsed() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Since(began)
	}
	return time.Duration(now.Nano())
}
