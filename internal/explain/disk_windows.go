package explain

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// diskErrors are what Windows says of a disk that can't be written.
func diskErrors() []syscall.Errno {
	return []syscall.Errno{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_WRITE_PROTECT, windows.ERROR_DISK_QUOTA_EXCEEDED}
}

// lockErrors are none: every Windows file system has locks.
func lockErrors() []syscall.Errno { return nil }
