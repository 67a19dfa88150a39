package safefile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// replace has no use for the mode: the access list is that of the directory.
func replace(path string, data []byte, _ os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return insist(func() error { return os.Rename(file.Name(), path) })
}

// Read returns what is in a file; errors are those of os.ReadFile.
func Read(path string, _ []byte) ([]byte, error) { return os.ReadFile(path) }

func remove(path string) error {
	return insist(func() error { return os.Remove(path) })
}

// insist tries for up to two seconds: on Windows a file that somebody has open
// for reading can neither be renamed over nor removed.
func insist(f func() error) error {
	err := f()
	for attempt := 0; err != nil && attempt < 40 && inUse(err); attempt++ {
		time.Sleep(50 * time.Millisecond)
		err = f()
	}
	return err
}

func inUse(err error) bool {
	const sharingViolation = syscall.Errno(32)
	return errors.Is(err, os.ErrPermission) || errors.Is(err, sharingViolation)
}

// SyncDir has nothing to do: NTFS keeps renames in its own journal.
func SyncDir(string) error { return nil }

// CheckPrivate has nothing to check: below a user's profile, Windows gives
// files to that user alone unless somebody changed the access list.
func CheckPrivate(string) error { return nil }

// CheckUnwritable is as CheckPrivate.
func CheckUnwritable(string) error { return nil }
