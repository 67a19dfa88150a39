//go:build unix

package explain

import "syscall"

// diskErrors are what a system says of a disk that can't be written.
func diskErrors() []syscall.Errno {
	return []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO}
}

// lockErrors are what it says where files can't be locked.
func lockErrors() []syscall.Errno { return []syscall.Errno{syscall.ENOLCK} }
