package files

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isDiskFull is about Windows' own errors, which are none of POSIX's.
func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
