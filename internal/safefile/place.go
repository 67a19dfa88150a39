package safefile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gofrs/flock"
)

// Places is the one rule for every file and directory that upsauth goes by or
// keeps something in: nobody but this user and root may be able to change it, or
// to put something else in its place. The zero value is the rule without
// exceptions. A directory that was found to be good is not looked at again.
type Places struct {
	// Named are the directories that the environment names for upsauth alone.
	// One that is root's may be writable to its group.
	Named []string
	// Trusted are directories that the user vouches for, with all that is below.
	Trusted []string
	// Credentials is where a service manager keeps secrets for this process alone,
	// empty for nowhere. An access list there looks like a right of the group.
	Credentials string

	mu    sync.Mutex
	good  map[string]bool // directories that what is in them can be trusted to
	whole map[string]bool // those that were places themselves, and no link led there
	us    *identity       // who this process is
}

// Check refuses a file or directory that others could change or replace, with a
// *PermissionError. One that is not there is no error; a link that leads to
// nothing is one. A pipe or a device has nothing to be read later and passes.
func (p *Places) Check(path string) error { return p.look(path, false) }

// CheckSecret is Check for what holds secrets or opens them: others must not be
// able to read it either.
func (p *Places) CheckSecret(path string) error { return p.look(path, true) }

func (p *Places) look(path string, secret bool) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("%s can't be found: %w", path, err)
	}
	if !secret && p.isGood(path) {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.good == nil {
		p.good, p.whole = map[string]bool{}, map[string]bool{}
	}
	return p.walk(path, secret)
}

// isGood reports whether a path is a directory that was looked at.
func (p *Places) isGood(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.whole[path]
}

func (p *Places) trusts(path string) bool {
	for _, dir := range p.Trusted {
		rest, err := filepath.Rel(dir, path)
		if err == nil && filepath.IsLocal(rest) {
			return true
		}
	}
	return false
}

func (p *Places) names(path string) bool {
	for _, dir := range p.Named {
		if real, err := filepath.EvalSymlinks(dir); err == nil && real == path {
			return true
		}
	}
	return false
}

// PermissionError says that others could change or read a file or directory, and
// what mends that.
type PermissionError struct {
	Path   string
	Mode   os.FileMode // 0 where it is not the mode that is wrong, and on Windows
	Owner  string      // whose it is, where that is what is wrong
	Remedy string      // a command
	why    string
}

func (e *PermissionError) Error() string {
	if e.Owner != "" {
		return fmt.Sprintf("%s belongs to %s, %s. Run: %s", e.Path, e.Owner, e.why, e.Remedy)
	}
	mode := ""
	if e.Mode != 0 {
		mode = fmt.Sprintf(" (mode %04o)", e.Mode.Perm())
	}
	return fmt.Sprintf("%s can be used by other users of this machine%s. Run: %s", e.Path, mode, e.Remedy)
}

// AccessError says whose right it is that keeps this user from a file or
// directory, and what mends that. It is the fs.ErrPermission that it was.
type AccessError struct {
	Path   string // what is kept from this user: the file, or a directory above it
	Owner  string
	Mode   os.FileMode
	Remedy string
	Err    error
}

func (e *AccessError) Error() string {
	return fmt.Sprintf("%s belongs to %s (mode %04o), and this user has no access. Run: %s", e.Path, e.Owner, e.Mode.Perm(), e.Remedy)
}

func (e *AccessError) Unwrap() error { return e.Err }

// LinkError says that a link stands where something else must, or leads to
// nothing: what is behind it is not known not to be there.
type LinkError struct {
	Path   string
	Target string // where it leads, for a link that leads to nothing
}

func (e *LinkError) Error() string {
	if e.Target == "" {
		return fmt.Sprintf("%s is a link, and a file of its own is needed there. Remove the link", e.Path)
	}
	return fmt.Sprintf("%s is a link to %s, which is not there. Restore that, or remove the link", e.Path, e.Target)
}

// absent reports whether an error says that a file is not there, as opposed to
// all errors that say that it can't be read.
func absent(path string, err error) bool {
	if !os.IsNotExist(err) {
		return false
	}
	info, lstatErr := os.Lstat(path)
	return lstatErr != nil || info.Mode()&fs.ModeSymlink == 0
}

// Explain says more about an error of the system's from the use of a path: whose
// the file is that this user may not use, and where a link leads that leads to
// nothing. It returns other errors as they are.
func Explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case os.IsPermission(err):
		if e := denied(path, err); e != nil {
			return e
		}
	case os.IsNotExist(err) && !absent(path, err):
		target, _ := os.Readlink(path)
		return &LinkError{Path: path, Target: target}
	case isLink(err):
		return &LinkError{Path: path}
	}
	return err
}

// NewLock is a lock on a file, which it makes where there is none. It follows no
// link: to make a file is to write.
func NewLock(path string) *flock.Flock {
	return flock.New(path, flock.SetPermissions(0o600), flock.SetFlag(os.O_CREATE|os.O_RDONLY|NoLink))
}

// ReadDir lists the names in a directory, in no order; nil where there is none.
func ReadDir(path string) ([]string, error) {
	dir, err := openDir(path)
	if absent(path, err) {
		return nil, nil
	}
	if err != nil {
		return nil, Explain(path, err)
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// shellQuote makes a path one word of a POSIX shell's command, whatever is in it.
func shellQuote(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
