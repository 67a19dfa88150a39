package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

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

// Rehearse does with files of its own what a refresh does with a grant's: it
// takes a lock, writes a journal with room for the answer, writes into that, and
// writes a record, each synced to the disk. Nothing is left of it, directories
// that it had to make included. Errors are *RehearsalError.
func (v *Vault) Rehearse() (err error) {
	v.sweepRehearsals()
	undo, err := v.makeDirs()
	defer undo()
	if err != nil {
		return &RehearsalError{Dir: v.dir, Step: "its directories can't be made", Err: err}
	}
	name, unlock, err := v.lockRehearsal()
	if err != nil {
		return &RehearsalError{Dir: v.dir, Step: "no lock can be taken", Err: err}
	}
	defer unlock()
	j := grant.Journal{Version: grant.RecordVersion, ID: grant.ID{Company: name, Application: name, Environment: name}, TokenVaultKey: name, Purpose: grant.Refreshing}
	header, err := headerOf(j)
	journal := filepath.Join(v.dir, "journals", name)
	if err == nil {
		defer func() { err = v.cleared(err, journal) }()
		err = safefile.Write(journal, append(header, make([]byte, lengthSize+answerRoom)...))
	}
	if err != nil {
		return &RehearsalError{Dir: v.dir, Step: "no journal can be written", Err: err}
	}
	if err := rewrite(journal, headerRoom+lengthSize, make([]byte, answerRoom)); err != nil {
		return &RehearsalError{Dir: v.dir, Step: "an answer of UPS's could not be saved in a journal", Err: err}
	}
	record := v.recordPath(name)
	defer func() { err = v.cleared(err, record) }()
	if err := writeRecordTo(record, grant.Record{ID: j.ID, TokenVaultKey: name}); err != nil {
		return &RehearsalError{Dir: v.dir, Step: "no record can be written", Err: err}
	}
	return nil
}

// lockRehearsal takes the lock of a new rehearsal, which nobody clears away as long as
// it is held.
func (v *Vault) lockRehearsal() (name string, unlock func(), err error) {
	for range 100 {
		name = rehearsalPrefix + strings.ToLower(uuid.NewString())
		lock, err := v.openLock(name)
		if err != nil {
			return "", nil, err
		}
		unlock = func() {
			_ = lock.Close()
			_ = os.Remove(v.lockPath(name))
		}
		got, err := tryLock(lock)
		if err != nil {
			unlock()
			if os.IsNotExist(err) {
				continue // another rehearsal removed the directory that it had made
			}
			return "", nil, err
		}
		// Before it was locked, the file may have been cleared away: then the lock holds
		// nobody off.
		if got && v.busy(name) {
			return name, unlock, nil
		}
		unlock()
	}
	return "", nil, errors.New("others clear it away again and again")
}

const (
	rehearsalPrefix = ".rehearsal-"
	rehearsalName   = len(rehearsalPrefix) + 36 // characters, with the UUID
)

// sweepRehearsals removes the files of rehearsals that were cut off.
func (v *Vault) sweepRehearsals() {
	for _, dir := range []string{"journals", "records", "locks"} {
		entries, err := os.ReadDir(filepath.Join(v.dir, dir))
		if err != nil {
			continue
		}
		for _, entry := range entries {
			// A temporary file has one more dot before its name, and a number behind it.
			name := "." + strings.TrimLeft(entry.Name(), ".")
			if !strings.HasPrefix(name, rehearsalPrefix) || len(name) < rehearsalName {
				continue
			}
			// A rehearsal holds its lock from before its first file until after its last.
			if done, free, _ := v.look(name[:rehearsalName]); free {
				_ = os.Remove(filepath.Join(v.dir, dir, entry.Name()))
				done()
			}
		}
	}
}

// cleared removes a file of a rehearsal; err is what went wrong before.
func (v *Vault) cleared(err error, path string) error {
	if removeErr := safefile.Remove(path); err == nil && removeErr != nil {
		return &RehearsalError{Dir: v.dir, Step: "a file can't be removed again", Err: removeErr}
	}
	return err
}

// makeDirs makes the directories that are missing; undo removes those again that
// nobody has used meanwhile.
func (v *Vault) makeDirs() (undo func(), err error) {
	var made []string
	undo = func() {
		for i := len(made) - 1; i >= 0; i-- {
			_ = os.Remove(made[i]) // only where it is empty
		}
	}
	for _, name := range []string{"locks", "journals", "records"} {
		dir := filepath.Join(v.dir, name)
		var missing []string
		for d := dir; ; d = filepath.Dir(d) {
			if _, err := os.Lstat(d); !os.IsNotExist(err) || filepath.Dir(d) == d {
				break
			}
			missing = append([]string{d}, missing...)
		}
		made = append(made, missing...)
		if err := safefile.MkdirAll(dir); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

func rewrite(path string, offset int64, data []byte) error {
	file, err := safefile.OpenFile(path, os.O_RDWR)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, offset)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
