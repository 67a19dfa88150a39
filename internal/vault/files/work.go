package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// Work is what a command is about to do in steps of which the records and
// journals would not tell, were it cut off between two of them. It is on disk
// before the first step and gone after the last one, and has no secrets. Whoever
// finds it later finishes it or clears away what it left.
type Work struct {
	Version int      `json:"version"`
	Kind    WorkKind `json:"kind"`

	// Home and Account are the item that a WorkProbe or a WorkSecret writes,
	// Config is the directory whose applications a WorkSecret is of.
	Home    string `json:"vault,omitempty"`
	Account string `json:"account,omitempty"`
	Config  string `json:"config,omitempty"`
	// Company is what a WorkRename or WorkForget is about, To its new name, and
	// Keys are the Token Vault Keys of the grants that go with it.
	Company string   `json:"company,omitempty"`
	To      string   `json:"to,omitempty"`
	Keys    []string `json:"keys,omitempty"`
	// Path is the file that a WorkExport writes.
	Path string `json:"path,omitempty"`
}

// WorkKind says which command it is.
type WorkKind string

const (
	// WorkProbe tries a home with an item under a key of its own.
	WorkProbe WorkKind = "probe"
	// WorkSecret writes a client secret and then its registration, or takes away
	// the registration and then the secret. What replaces a secret is written beside
	// it first.
	WorkSecret WorkKind = "client secret"
	// WorkRename renames a company with its grants and its history.
	WorkRename WorkKind = "rename"
	// WorkForget removes a company with its grants and its history.
	WorkForget WorkKind = "forget"
	// WorkExport writes a file outside of upsauth's directories.
	WorkExport WorkKind = "export"
)

const workVersion = 1

func (w Work) String() string {
	switch w.Kind {
	case WorkProbe:
		return fmt.Sprintf("a probe of the %s", vault.Describe(w.Home))
	case WorkSecret:
		return fmt.Sprintf("a change of the client secret %s in the %s", w.Account, vault.Describe(w.Home))
	case WorkRename:
		return fmt.Sprintf("the renaming of %s to %s", w.Company, w.To)
	case WorkForget:
		return "the removal of " + w.Company
	case WorkExport:
		return "an export to " + w.Path
	}
	return string(w.Kind)
}

// check refuses what no command writes: it comes from a file.
func (w Work) check() error {
	clean := func(name string) error {
		if cleaned, err := grant.CleanCompany(name); err != nil || cleaned != name {
			return fmt.Errorf("%q is no name of a company", name)
		}
		return nil
	}
	switch w.Kind {
	case WorkProbe:
		if grant.CheckTokenVaultKey(w.Account) != nil {
			return fmt.Errorf("%q is no Token Vault Key", w.Account)
		}
		return nil
	case WorkSecret:
		parts := strings.Split(strings.TrimSuffix(w.Account, "/new"), "/")
		if len(parts) != 3 || parts[0] != "app" {
			return fmt.Errorf("%q is no client secret's", w.Account)
		}
		_, environmentErr := grant.CleanName("environment", parts[1])
		_, nameErr := grant.CleanName("application", parts[2])
		return errors.Join(environmentErr, nameErr)
	case WorkRename:
		return errors.Join(clean(w.Company), clean(w.To))
	case WorkForget:
		return clean(w.Company)
	case WorkExport:
		if !filepath.IsAbs(w.Path) {
			return fmt.Errorf("%q is no whole path", w.Path)
		}
		return nil
	}
	return fmt.Errorf("%q is nothing that upsauth does", w.Kind)
}

// workLock is held by all that are at work, together, and alone by whoever
// finishes what others left: then nobody is at work.
const workLock = "work"

func (s *Store) workDir() string { return filepath.Join(s.dir, "unfinished") }

// AnnouncedWork is under way until one of its methods is called, or its process
// ends.
type AnnouncedWork struct {
	path string
	lock *flock.Flock
}

// Done says that all of it is done, or undone.
func (a *AnnouncedWork) Done() {
	// One that stays is found to be done already.
	_ = safefile.Remove(a.path)
	_ = os.Remove(filepath.Dir(a.path)) // where it was the last
	_ = a.lock.Close()
}

// Leave says that a part of it is to be done yet, by another command.
func (a *AnnouncedWork) Leave() { _ = a.lock.Close() }

// Announce notes work on disk, before its first step. It waits while somebody
// finishes what others left, as long as the context lasts, so no lock that this
// may need is held by the caller.
func (s *Store) Announce(ctx context.Context, w Work) (*AnnouncedWork, error) {
	w.Version = workVersion
	data, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("the note of unfinished work can't be written: %w", err)
	}
	lock, err := s.openLock(workLock)
	if err != nil {
		return nil, err
	}
	if _, err := lock.TryRLockContext(ctx, lockPoll); err != nil {
		_ = lock.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &vault.LockError{Of: "unfinished work", Err: safefile.Explain(s.lockPath(workLock), err)}
	}
	a := &AnnouncedWork{path: filepath.Join(s.workDir(), uuid.NewString()+".json"), lock: lock}
	if err := safefile.Write(a.path, append(data, '\n')); err != nil {
		a.Leave()
		return nil, err
	}
	return a, nil
}

// UnfinishedWork returns the work that is under way or was cut off. What can't be
// read is a problem.
func (s *Store) UnfinishedWork() (all []Work, problems error) {
	names, err := s.workNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		w, err := s.readWork(name)
		switch {
		case errors.Is(err, os.ErrNotExist): // done meanwhile
		case err != nil:
			problems = errors.Join(problems, err)
		default:
			all = append(all, w)
		}
	}
	return all, problems
}

func (s *Store) workNames() ([]string, error) {
	entries, err := os.ReadDir(s.workDir())
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("the notes of unfinished work can't be read: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".json") && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, nil
}

func (s *Store) readWork(name string) (Work, error) {
	path := filepath.Join(s.workDir(), name)
	data, err := s.Places.Read(path, nil)
	if err != nil {
		return Work{}, fmt.Errorf("the notes of unfinished work can't be read: %w", err)
	}
	if version := grant.FormatOf(data); version > workVersion {
		return Work{}, &vault.NewerError{Path: path, Version: version}
	}
	var w Work
	if err := json.Unmarshal(data, &w); err != nil {
		return Work{}, fmt.Errorf("%s can't be used (%w). Delete it", path, err)
	}
	if err := w.check(); err != nil {
		return Work{}, fmt.Errorf("%s can't be used (%w). Delete it", path, err)
	}
	return w, nil
}

// ErrLater says that work that was cut off is for another command to finish.
var ErrLater = errors.New("it is for a later command")

// FinishWork has finish called for all that was cut off, and returns what it
// finished. Where somebody is at work it does nothing: the next command will.
// finish must be able to do again what was done already, and says ErrLater of
// what it has to leave.
func (s *Store) FinishWork(ctx context.Context, finish func(Work) error) (done []Work, problems error) {
	if names, err := s.workNames(); err != nil || len(names) == 0 {
		return nil, err
	}
	lock, err := s.openLock(workLock)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	if got, err := lock.TryLock(); err != nil || !got {
		return nil, err
	}
	if _, err := safefile.SweepDir(s.workDir()); err != nil {
		problems = err
	}
	names, err := s.workNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return done, errors.Join(problems, ctx.Err())
		}
		w, err := s.readWork(name)
		if err == nil {
			err = finish(w)
		}
		if err == nil {
			err = safefile.Remove(filepath.Join(s.workDir(), name))
		}
		switch {
		case errors.Is(err, ErrLater):
		case err != nil:
			problems = errors.Join(problems, err)
		default:
			done = append(done, w)
		}
	}
	_ = os.Remove(s.workDir()) // where that was all
	return done, problems
}

// Probe shows that a home takes a secret of so many bytes, gives it back and
// forgets it. It takes a key of its own, as somebody else may be probing too; so
// that key is noted first, or nobody would know it after a cut-off.
func (s *Store) Probe(ctx context.Context, v *vault.Vault, home string, size int) error {
	key := strings.ToUpper(uuid.NewString())
	// Where the home can't be reached there will be nothing to clear away.
	if err := v.CanProbe(ctx, home, key); err != nil {
		return err
	}
	work, err := s.Announce(ctx, Work{Kind: WorkProbe, Home: home, Account: key})
	if err != nil {
		return err
	}
	defer work.Leave()
	id := grant.ID{Company: "upsauth probe " + key, Application: "probe", Environment: "probe"}
	if err := v.Prove(ctx, id, home, key, size); err != nil {
		// What was written may still be there, or land later.
		var homeErr *vault.HomeError
		if (!errors.As(err, &homeErr) || !homeErr.TimedOut) && v.DropProbe(ctx, home, key) == nil {
			work.Done()
		}
		return err
	}
	work.Done()
	return nil
}

// SweepWrites removes what writes of records, journals and grants' items left that were cut
// off.
func (s *Store) SweepWrites() error {
	var problems error
	for _, part := range []string{"records", "journals", "vault"} {
		_, err := safefile.SweepDir(filepath.Join(s.dir, part))
		problems = errors.Join(problems, err)
	}
	return problems
}

// Sweep removes what is of no use to anybody in the vault's directory: temporary
// files of writes that were cut off, notes of who holds a lock that nobody holds,
// and empty directories of items. It returns how many. Whoever is at work is not
// disturbed: their files are held, their locks are taken, and a directory that
// goes is made again by whoever writes into it.
func (s *Store) Sweep() (removed int, problems error) {
	removed, _, problems = s.sweepBelow(s.dir)
	removed += s.sweepNews()
	locks, _ := os.ReadDir(filepath.Join(s.dir, "locks"))
	for _, entry := range locks {
		name, ok := strings.CutSuffix(entry.Name(), ".lock.pid")
		if !ok {
			continue
		}
		// Looking keeps the lock free until the note is gone.
		done, free, _ := s.look(name)
		if !free {
			continue
		}
		if os.Remove(s.holderPath(name)) == nil {
			removed++
		}
		done()
	}
	return removed, problems
}

// sweepNews removes the notes of news without a journal, beside which nobody is at work.
func (s *Store) sweepNews() (removed int) {
	names, err := s.newsNames("")
	if err != nil {
		return 0 // whoever needs them says what is wrong
	}
	for _, name := range names {
		slot, key, _ := strings.Cut(name, ".")
		done, free, _ := s.look(slot)
		if !free {
			continue
		}
		s.dropIdleNews(slot, key)
		if _, err := os.Lstat(s.newsPath(slot, key)); os.IsNotExist(err) {
			removed++
		}
		done()
	}
	return removed
}

// sweepBelow sweeps a directory and those in it, each of which it reads once unless
// something in it may have to go. Gone says that the directory itself was empty and
// is removed.
func (s *Store) sweepBelow(dir string) (removed int, gone bool, problems error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, false, nil //nolint:nilerr // whoever needs the directory says what is wrong
	}
	stays, hidden := false, false
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch {
		case entry.IsDir() && path == filepath.Join(s.dir, "sandbox"):
			stays = true // the sandbox's own
		case entry.IsDir():
			n, gone, err := s.sweepBelow(path)
			removed += n
			problems = errors.Join(problems, err)
			stays = stays || !gone
		case strings.HasPrefix(entry.Name(), "."):
			hidden = true
		default:
			stays = true
		}
	}
	if hidden {
		n, err := safefile.SweepDir(dir)
		removed += n
		problems = errors.Join(problems, err)
	}
	items := filepath.Join(s.dir, "vault") + string(filepath.Separator)
	if !stays && strings.HasPrefix(dir, items) && os.Remove(dir) == nil {
		removed++
		gone = true
	}
	return removed, gone, problems
}
