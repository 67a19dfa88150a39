package safefile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// How long somebody who has a file open is waited for: virus scanners and
// indexers look at every new file, and a reader may be as slow as it likes.
const (
	patience = 2 * time.Second
	// deniedPatience is shorter, as a denial may well be meant: Windows says the
	// same of a file that is about to vanish and of one that is somebody else's.
	deniedPatience = 200 * time.Millisecond
)

// replace has no use for the mode: the access list is that of the directory.
func replace(path string, data []byte, _ os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
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
	return Rename(file.Name(), path)
}

// removeAbandoned removes a temporary file unless somebody has it open: Go opens
// files so that nobody else can remove them.
func removeAbandoned(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	err = os.Remove(path)
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
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	access := uint32(syscall.GENERIC_READ)
	if flag&os.O_RDWR != 0 {
		access |= syscall.GENERIC_WRITE
	}
	var handle syscall.Handle
	open := func() (err error) {
		handle, err = syscall.CreateFile(name, access,
			syscall.FILE_SHARE_READ|syscall.FILE_SHARE_WRITE|syscall.FILE_SHARE_DELETE,
			nil, syscall.OPEN_EXISTING, syscall.FILE_ATTRIBUTE_NORMAL, 0)
		return err
	}
	err = insist(deniedPatience, open)
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
