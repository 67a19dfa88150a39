package vault

import (
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// NewerError says that a file was written by a newer upsauth. It is left alone.
type NewerError struct {
	Path    string
	Version int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s was written by a newer upsauth (format %d, this one knows %d). It was left as it is. Use the newer upsauth.",
		e.Path, e.Version, grant.RecordVersion)
}

// FileError says that a record or a journal is there and can't be read. It is left
// alone.
type FileError struct {
	What string // "a record"
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s can't be read: %v", e.What, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

// DamagedError says that a record or a journal can't be read and was set aside.
type DamagedError struct {
	Path    string // where it is now
	Cause   string
	Journal bool
}

func (e *DamagedError) Error() string {
	if e.Journal {
		return fmt.Sprintf("a damaged journal was set aside as %s (%s)", e.Path, e.Cause)
	}
	return fmt.Sprintf("a damaged record was set aside as %s (%s)", e.Path, e.Cause)
}

// JournalDamageError says that a journal's header is none.
type JournalDamageError struct{ Path, Cause string }

func (e *JournalDamageError) Error() string {
	return fmt.Sprintf("the journal %s is damaged: %s", e.Path, e.Cause)
}

// MissingError says that a record's secrets are not in their home. It is a
// grant.ErrNoSecrets.
type MissingError struct {
	ID   grant.ID
	Home string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the secrets of %s are not in the %s, where its record says they are", e.ID, Describe(e.Home))
}

func (e *MissingError) Unwrap() error { return grant.ErrNoSecrets }

// LockError says that a lock can't be taken, and that nobody has it: the files are
// where no lock works, or can't be written. Nothing is safe without locks.
type LockError struct {
	Of  string // what is locked
	Err error
}

func (e *LockError) Error() string { return fmt.Sprintf("%s can't be locked: %v", e.Of, e.Err) }

func (e *LockError) Unwrap() error { return e.Err }

// LoginBusyError says that a company is being authorized by another process.
type LoginBusyError struct {
	Company string
	PID     int // 0 where it is not known
}

func (e *LoginBusyError) Error() string {
	who := "another upsauth"
	if e.PID > 0 {
		who = fmt.Sprintf("another upsauth (process %d)", e.PID)
	}
	return fmt.Sprintf("%s is being authorized by %s right now", e.Company, who)
}

// Unwrap makes it a grant.ErrLoginBusy.
func (e *LoginBusyError) Unwrap() error { return grant.ErrLoginBusy }

// RehearsalError says that a refresh could not be done where the vault is, and
// at which of its steps.
type RehearsalError struct {
	Dir  string
	Step string // a part of a sentence: "no lock can be taken"
	Err  error
}

func (e *RehearsalError) Error() string {
	return fmt.Sprintf("%s can't be used for a refresh: %s (%v)", e.Dir, e.Step, e.Err)
}

func (e *RehearsalError) Unwrap() error { return e.Err }

// ServiceBusyError says that another process keeps the vault's grants alive.
type ServiceBusyError struct {
	Dir string // of the vault
	PID int    // 0 where it is not known
}

func (e *ServiceBusyError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%s already refreshes the grants in %s; one service is enough", who, e.Dir)
}

// TakenError says that a company has a grant of its own already.
type TakenError struct{ ID grant.ID }

func (e *TakenError) Error() string {
	return fmt.Sprintf("%s already exists; revoke it first, or choose another name", e.ID)
}

// PathOf is the file that a problem of List is about, empty where it is about
// none.
func PathOf(problem error) string {
	var (
		file    *FileError
		damaged *DamagedError
		journal *JournalDamageError
		newer   *NewerError
		open    *safefile.PermissionError
	)
	switch {
	case errors.As(problem, &file):
		return file.Path
	case errors.As(problem, &damaged):
		return damaged.Path
	case errors.As(problem, &journal):
		return journal.Path
	case errors.As(problem, &newer):
		return newer.Path
	case errors.As(problem, &open):
		return open.Path
	}
	return ""
}
