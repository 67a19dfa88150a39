package safefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// How long somebody who has a file open is waited for: virus scanners and
// indexers look at every new file, and a reader may be as slow as it likes.
const (
	patience = 2 * time.Second
	// deniedPatience is shorter, as a denial may well be meant: Windows says the
	// same of a file that is about to vanish and of one that is somebody else's.
	deniedPatience = 200 * time.Millisecond
)

// pending is a temporary file that is to take the place of another.
type pending struct {
	*os.File
	path string
}

// newPending has no use for the mode: the access list is that of the directory.
func newPending(path string, _ os.FileMode) (*pending, error) {
	file, err := createHeld(path)
	if err != nil {
		return nil, err
	}
	return &pending{file, path}, nil
}

// replace gives the file its name, once what is in it is on disk.
func (p *pending) replace() error {
	if err := p.Sync(); err != nil {
		return err
	}
	// Closed, it could be swept away before it has its name.
	return Rename(p.Name(), p.path)
}

// rest and wake have nothing to do: closed, the file could be swept away.
func (p *pending) rest() error { return nil }
func (p *pending) wake() error { return nil }

// end removes the file unless it has its name.
func (p *pending) end() {
	_ = p.Close()
	_ = os.Remove(p.Name())
}

// createHeld makes a temporary file beside another, with a name that sweep knows,
// and holds it until it is closed.
func createHeld(path string) (*os.File, error) {
	temp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s%d", filepath.Base(path), rand.Uint64()))
	handle, err := create(temp, syscall.GENERIC_READ|syscall.GENERIC_WRITE, syscall.CREATE_NEW)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: temp, Err: err}
	}
	if held, err := hold(handle); err == nil && !held {
		// Somebody who sweeps was faster, and removes it.
		_ = syscall.CloseHandle(handle)
		return nil, &os.PathError{Op: "lock", Path: temp, Err: fs.ErrNotExist}
	}
	// Where files can't be locked, nobody can sweep either.
	return os.NewFile(uintptr(handle), temp), nil
}

// create opens a file so that others can read, write, rename and remove it meanwhile.
func create(path string, access, disposition uint32) (syscall.Handle, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return syscall.InvalidHandle, err
	}
	return syscall.CreateFile(name, access, syscall.FILE_SHARE_READ|syscall.FILE_SHARE_WRITE|syscall.FILE_SHARE_DELETE,
		nil, disposition, syscall.FILE_ATTRIBUTE_NORMAL, 0)
}

// hold locks a byte that no file is long enough to have, for as long as the handle is
// open, and reports whether nobody else holds it. An error says that nothing can be
// locked there.
func hold(handle syscall.Handle) (bool, error) {
	at := windows.Overlapped{OffsetHigh: 1 << 30}
	err := windows.LockFileEx(windows.Handle(handle), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// removeAbandoned removes a temporary file unless somebody holds it, or has it open
// and lets nobody remove it.
func removeAbandoned(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	handle, err := create(path, syscall.GENERIC_READ, syscall.OPEN_EXISTING)
	if err == nil {
		defer func() { _ = syscall.CloseHandle(handle) }()
		if held, err := hold(handle); !held || err != nil {
			return false, nil //nolint:nilerr // somebody holds it, or nobody can tell
		}
		err = os.Remove(path)
	}
	if inUse(err) {
		return false, nil
	}
	return err == nil, err
}

// Rename moves a file, over another where there is one.
func Rename(from, to string) error {
	return insist(patience, func() error {
		if filepath.Dir(from) != filepath.Dir(to) {
			return os.Rename(from, to)
		}
		// Within a directory that it has open, Go asks for the renaming of POSIX,
		// which replaces a file that readers have open and leaves no instant
		// without one. os.Rename does neither.
		dir, err := os.OpenRoot(filepath.Dir(from))
		if err != nil {
			return err
		}
		defer func() { _ = dir.Close() }()
		return dir.Rename(filepath.Base(from), filepath.Base(to))
	})
}

// OpenFile opens a file that exists, and unlike os.OpenFile does not keep others
// from replacing or removing it meanwhile.
func OpenFile(path string, flag int) (*os.File, error) {
	access := uint32(syscall.GENERIC_READ)
	if flag&os.O_RDWR != 0 {
		access |= syscall.GENERIC_WRITE
	}
	var handle syscall.Handle
	open := func() (err error) {
		handle, err = create(path, access, syscall.OPEN_EXISTING)
		return err
	}
	err := insist(deniedPatience, open)
	if errors.Is(err, errSharingViolation) {
		err = insist(patience, open)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}

// Read returns what is in a file, opened as by OpenFile; errors are those of
// os.ReadFile.
func Read(path string, _ []byte) ([]byte, error) {
	file, err := OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := checkOpen(file); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}

// ReadIn is ReadFile for a file below a directory. What leads out of that, by its
// name or by a link, is not read. It does not open the file within the directory,
// as os.Root keeps others from replacing what it has open.
func ReadIn(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, Explain(dir, err)
	}
	defer root.Close()
	if _, err := root.Stat(name); err != nil && !os.IsPermission(err) {
		return nil, Explain(filepath.Join(dir, name), err)
	}
	return Read(filepath.Join(dir, name), nil)
}

// openDir opens a directory to be listed.
func openDir(path string) (*os.File, error) { return os.Open(path) }

// openDirIn is openDir for a directory in another one, which was found not to be a
// link.
func openDirIn(dir *os.File, name string) (*os.File, error) {
	return os.Open(filepath.Join(dir.Name(), name))
}

func remove(path string) error {
	return insist(patience, func() error { return os.Remove(path) })
}

// insist tries for a while what fails because somebody has a file open, first
// soon and then less often.
func insist(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, 10*time.Millisecond) {
		err := f()
		if err == nil || !inUse(err) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(wait)
	}
}

// errSharingViolation says that somebody has the file open who does not share it.
const errSharingViolation = syscall.Errno(32)

func inUse(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, errSharingViolation)
}

// SyncDir has nothing to do: NTFS keeps renames in its own journal.
func SyncDir(string) error { return nil }

// Writable is nil on Windows, where only an attempt tells.
func Writable(string) error { return nil }

// openRegular is OpenFile, to be read, for a file that is a regular one.
func openRegular(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY) }
