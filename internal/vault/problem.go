package vault

import (
	"errors"

	"github.com/upsauth/upsauth/internal/safefile"
)

// PathOf is the file that a problem of List is about, empty where it is about
// none.
func PathOf(problem error) string {
	var (
		file    *FileError
		damaged *DamagedError
		journal *damagedJournalError
		newer   *NewerError
		open    *safefile.PermissionError
	)
	switch {
	case errors.As(problem, &file):
		return file.Path
	case errors.As(problem, &damaged):
		return damaged.Path
	case errors.As(problem, &journal):
		return journal.path
	case errors.As(problem, &newer):
		return newer.Path
	case errors.As(problem, &open):
		return open.Path
	}
	return ""
}
