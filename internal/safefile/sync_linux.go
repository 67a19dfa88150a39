package safefile

import (
	"os"

	"golang.org/x/sys/unix"
)

// SyncData returns when what was written to a file is on disk, and its size.
func SyncData(file *os.File) error {
	_, err := again(func() (int, error) { return 0, unix.Fdatasync(int(file.Fd())) })
	if err != nil {
		return &os.PathError{Op: "sync", Path: file.Name(), Err: err}
	}
	return nil
}
