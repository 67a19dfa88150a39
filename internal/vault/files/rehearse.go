package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// Rehearse does with files of its own what a refresh does with a grant's: it
// takes a lock, writes a journal with room for the answer, writes into that, and
// writes a record, each synced to the disk. Nothing is left of it, directories
// that it had to make included. Errors are *RehearsalError.
func (s *Store) Rehearse() (err error) {
	s.sweepRehearsals()
	undo, err := s.makeDirs()
	defer undo()
	if err != nil {
		return &vault.RehearsalError{Dir: s.dir, Step: "its directories can't be made", Err: err}
	}
	name, unlock, err := s.lockRehearsal()
	if err != nil {
		return &vault.RehearsalError{Dir: s.dir, Step: "no lock can be taken", Err: err}
	}
	defer unlock()
	journal := s.slotsPath(name)
	defer func() { err = s.cleared(err, journal) }()
	if err := safefile.Write(journal, make([]byte, slotsAhead*slotSize)); err != nil {
		return &vault.RehearsalError{Dir: s.dir, Step: "no journal can be written", Err: err}
	}
	if err := rewrite(journal, answerAt, make([]byte, answerRoom)); err != nil {
		return &vault.RehearsalError{Dir: s.dir, Step: "an answer of UPS's could not be saved in a journal", Err: err}
	}
	record := s.recordPath(name)
	defer func() { err = s.cleared(err, record) }()
	id := grant.ID{Company: name, Application: name, Environment: name}
	if _, err := s.writeRecordTo(record, grant.Record{Facts: grant.Facts{ID: id, TokenVaultKey: name}}, safefile.Write); err != nil {
		return &vault.RehearsalError{Dir: s.dir, Step: "no record can be written", Err: err}
	}
	return nil
}

// lockRehearsal takes the lock of a new rehearsal, which nobody clears away as long as
// it is held.
func (s *Store) lockRehearsal() (name string, unlock func(), err error) {
	for range 100 {
		name = rehearsalPrefix + strings.ToLower(uuid.NewString())
		lock, err := s.openLock(name)
		if err != nil {
			return "", nil, err
		}
		unlock = func() {
			_ = lock.Close()
			_ = os.Remove(s.lockPath(name))
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
		if got && s.busy(name) {
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
func (s *Store) sweepRehearsals() {
	for _, dir := range []string{filepath.Join("journals", slotsDir), "records", "locks"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
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
			if done, free, _ := s.look(name[:rehearsalName]); free {
				_ = os.Remove(filepath.Join(s.dir, dir, entry.Name()))
				done()
			}
		}
	}
}

// cleared removes a file of a rehearsal; err is what went wrong before.
func (s *Store) cleared(err error, path string) error {
	if removeErr := safefile.Remove(path); err == nil && removeErr != nil {
		return &vault.RehearsalError{Dir: s.dir, Step: "a file can't be removed again", Err: removeErr}
	}
	return err
}

// makeDirs makes the directories that are missing; undo removes those again that
// nobody has used meanwhile.
func (s *Store) makeDirs() (undo func(), err error) {
	var made []string
	undo = func() {
		for i := len(made) - 1; i >= 0; i-- {
			_ = os.Remove(made[i]) // only where it is empty
		}
	}
	for _, name := range []string{"locks", filepath.Join("journals", slotsDir), "records"} {
		dir := filepath.Join(s.dir, name)
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
		err = safefile.SyncData(file)
	}
	return errors.Join(err, file.Close())
}
