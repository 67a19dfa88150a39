//go:build !windows

package safefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// pending is a temporary file that is to take the place of another.
type pending struct {
	*renameio.PendingFile
	release func()
}

// newPending does not use renameio.WriteFile, which gives the new file the mode of
// the old one.
func newPending(path string, mode os.FileMode) (*pending, error) {
	file, err := renameio.NewPendingFile(path,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
	if err != nil {
		return nil, err
	}
	return &pending{PendingFile: file, release: hold(file.File)}, nil
}

// replace gives the file its name, once what is in it is on disk.
func (p *pending) replace() error { return p.CloseAtomicallyReplace() }

// rest closes the file, which stays held, until wake: one that is open to be written keeps
// its disk from being made read-only or taken away.
func (p *pending) rest() error {
	held, err := open(p.Name(), syscall.O_RDONLY|syscall.O_NOFOLLOW)
	if err != nil {
		return err
	}
	err = p.Close()
	p.release()
	_ = syscall.Flock(int(held.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // who swept in between has removed it
	p.release = func() { _ = held.Close() }
	return err
}

// wake opens a file that rests; os.ErrNotExist where somebody has swept it away.
func (p *pending) wake() error {
	file, err := open(p.Name(), syscall.O_WRONLY|syscall.O_NOFOLLOW)
	if err == nil {
		p.File = file
	}
	return err
}

// end removes the file unless it has its name.
func (p *pending) end() {
	_ = p.Cleanup()
	p.release()
}

// hold keeps others from sweeping a temporary file away, until release is called
// or the process ends: also after the file was closed, as it is renamed only then.
// Where files can't be locked nobody can sweep either.
func hold(file *os.File) (release func()) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	_ = syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
	return func() { _ = syscall.Close(fd) }
}

// removeAbandoned removes a temporary file unless somebody holds it.
func removeAbandoned(path string) (bool, error) {
	fd, err := again(func() (int, error) {
		return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	})
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = syscall.Close(fd) }()
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return false, err
	}
	if syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false, nil
	}
	return true, remove(path)
}

// Read returns what is in a file, in buf where that is large enough; errors are
// those of os.ReadFile or of Explain, or a *KindError. What is no regular file is not
// read: a pipe would be waited for, and a device may never end.
func Read(path string, buf []byte) ([]byte, error) {
	open := func() (int, error) {
		return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	}
	fd, err := again(open)
	if err != nil {
		return nil, notOpened(path, err)
	}
	defer func() { _ = syscall.Close(fd) }()
	size, err := regular(fd, path)
	if err != nil {
		return nil, err
	}
	return readAll(fd, path, size, buf)
}

// notOpened is the error of a file that could not be opened. A socket can't, and the
// system says that it is no device.
func notOpened(path string, err error) error {
	if errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.EOPNOTSUPP) {
		if info, statErr := os.Stat(path); statErr == nil {
			if err := checkKind(path, info.Mode()); err != nil {
				return err
			}
		}
	}
	return Explain(path, &os.PathError{Op: "open", Path: path, Err: err})
}

// regular returns the size of an open file, in bytes, or what it is instead of a regular
// one.
func regular(fd int, path string) (int64, error) {
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return stat.Size, checkKind(path, kindIn(uint32(stat.Mode))) //nolint:unconvert // other systems have other types
}

// kindIn is what os calls the kind of a file.
func kindIn(mode uint32) os.FileMode {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return 0
	case syscall.S_IFDIR:
		return os.ModeDir
	case syscall.S_IFIFO:
		return os.ModeNamedPipe
	case syscall.S_IFSOCK:
		return os.ModeSocket
	case syscall.S_IFLNK:
		return os.ModeSymlink
	}
	return os.ModeDevice
}

// readAll reads an open file, in buf where that is large enough. A file of a disk that has
// given as many bytes as it has is not asked for more; those of the kernel's say that they
// have none.
func readAll(fd int, path string, size int64, buf []byte) ([]byte, error) {
	for data := buf[:0]; ; {
		if len(data) == cap(data) {
			data = slices.Grow(data, 2<<10)
		}
		n, err := again(func() (int, error) { return syscall.Read(fd, data[len(data):cap(data)]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		data = data[:len(data)+n]
		if n == 0 || int64(len(data)) == size {
			return data, nil
		}
	}
}

// again makes a call until no signal interrupts it.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// Rename moves a file, over another where there is one.
func Rename(from, to string) error { return os.Rename(from, to) }

// OpenFile opens a file that exists. On Windows it does what os.OpenFile does
// not: others may replace or remove the file meanwhile.
func OpenFile(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag, 0)
	return file, Explain(path, err)
}

// openRegular is OpenFile, to be read, for a file that is a regular one.
func openRegular(path string) (*os.File, error) {
	file, err := open(path, syscall.O_RDONLY)
	return file, Explain(path, err)
}

// Writable returns why this process may not make files in a directory, as far as the
// system tells without making one.
func Writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return &os.PathError{Op: "write", Path: dir, Err: err}
	}
	return nil
}

func mkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func remove(path string) error { return os.Remove(path) }

// SyncDir makes what was renamed or removed in dir survive a loss of power.
func SyncDir(dir string) error {
	d, err := openDir(dir)
	if os.IsNotExist(err) {
		// It was removed since, which its own parent knows.
		return nil
	}
	if err != nil {
		return fmt.Errorf("the directory %s can't be opened: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("the directory %s can't be written to disk: %w", dir, err)
	}
	return nil
}

// ReadIn is ReadFile for a file below a directory. What leads out of that, by its
// name or by a link, is not read.
func ReadIn(dir, name string) ([]byte, error) {
	if !filepath.IsLocal(name) {
		return readInRoot(dir, name) // which refuses it
	}
	path := filepath.Join(dir, name)
	fd, err := openIn(dir, filepath.Clean(name))
	switch {
	case errors.Is(err, syscall.ENOENT):
		return nil, Explain(path, &os.PathError{Op: "open", Path: path, Err: err})
	case err != nil:
		return readInRoot(dir, name) // a link, or what is to be explained
	}
	defer func() { _ = syscall.Close(fd) }()
	size, err := regular(fd, path)
	if err != nil {
		return nil, err
	}
	return readAll(fd, path, size, nil)
}

// openIn opens a file below a directory step by step, and follows no link. Where a
// file is one of thousands that takes a third of the time of os.Root, which first
// tries at each step whether what it opens can be waited for.
func openIn(dir, name string) (int, error) {
	const flags = syscall.O_RDONLY | syscall.O_CLOEXEC
	at, err := again(func() (int, error) { return syscall.Open(dir, flags|syscall.O_DIRECTORY, 0) })
	for err == nil {
		step, rest, below := strings.Cut(name, string(filepath.Separator))
		how := flags | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
		if below {
			how = flags | syscall.O_NOFOLLOW | syscall.O_DIRECTORY
		}
		var next int
		next, err = again(func() (int, error) { return unix.Openat(at, step, how, 0) })
		_ = syscall.Close(at)
		if err == nil && !below {
			return next, nil
		}
		at, name = next, rest
	}
	return -1, err
}

// open is os.OpenFile, mode 0600, for what lies on a disk: os.OpenFile first tries in
// four more calls whether it can be waited for.
func open(path string, flag int) (*os.File, error) {
	fd, err := again(func() (int, error) { return syscall.Open(path, flag|syscall.O_CLOEXEC, 0o600) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openDir opens a directory to be listed.
func openDir(path string) (*os.File, error) {
	return open(path, syscall.O_RDONLY|syscall.O_DIRECTORY)
}

// openDirIn is openDir for a directory in another one. It follows no link.
func openDirIn(dir *os.File, name string) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := again(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readInRoot is ReadIn for what is out of the ordinary: a link that stays within
// the directory, and whatever can't be read.
func readInRoot(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, Explain(dir, err)
	}
	defer func() { _ = root.Close() }()
	path := filepath.Join(dir, name)
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		if info, statErr := root.Stat(name); statErr == nil {
			if err := checkKind(path, info.Mode()); err != nil {
				return nil, err
			}
		}
		return nil, Explain(path, err)
	}
	defer func() { _ = file.Close() }()
	if err := checkOpen(file); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	return data, Explain(path, err)
}
