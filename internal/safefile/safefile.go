// Package safefile writes files that are whole at every instant and keeps what
// is private from other users of the machine.
package safefile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write puts data in the file at path, mode 0600, making its directory, 0700,
// where there is none. A reader sees the old content or the new, never a part,
// and when Write returns nil the new content survives a loss of power.
func Write(path string, data []byte) error {
	dir := filepath.Dir(path)
	err := replace(path, data)
	if os.IsNotExist(err) {
		if err := MkdirAll(dir); err != nil {
			return err
		}
		err = replace(path, data)
	}
	if err != nil {
		return fmt.Errorf("%s can't be written: %w", path, err)
	}
	return SyncDir(dir)
}

// MkdirAll makes a directory and its missing parents, mode 0700.
func MkdirAll(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the directory %s can't be made: %w", dir, err)
	}
	return nil
}

// Remove deletes a file for good; one that is not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("%s can't be removed: %w", path, err)
	} else if err != nil {
		return nil
	}
	return SyncDir(filepath.Dir(path))
}

// PermissionError says that a file or directory is open to others, and the
// command that mends it.
type PermissionError struct {
	Path   string
	Mode   os.FileMode
	Remedy string
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("%s can be used by other users of this machine (mode %04o). Run: %s", e.Path, e.Mode.Perm(), e.Remedy)
}
