// Package safefile writes files that are whole at every instant and keeps what
// is private from other users of the machine.
package safefile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WriteError says what upsauth can't write, rename or remove among its own files on this
// machine.
type WriteError struct {
	What string // a clause: "the journal can't be written"
	Err  error
}

func (e *WriteError) Error() string { return fmt.Sprintf("%s: %v", e.What, e.Err) }

func (e *WriteError) Unwrap() error { return e.Err }

// KindError says that something else lies where a regular file should.
type KindError struct {
	Kind string // such as "a directory"
}

func (e *KindError) Error() string { return "it is " + e.Kind + ", not a regular file" }

// checkKind reports what lies at a path instead of a regular file.
func checkKind(path string, mode os.FileMode) error {
	var kind string
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&os.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&os.ModeSocket != 0:
		kind = "a socket"
	case mode&os.ModeDevice != 0:
		kind = "a device"
	case mode&os.ModeSymlink != 0:
		kind = "a link"
	default:
		kind = "something else"
	}
	return &os.PathError{Op: "read", Path: path, Err: &KindError{kind}}
}

// CheckFile reports what lies at a path instead of a regular file, nil where there is
// nothing, or nobody can tell.
func CheckFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil //nolint:nilerr // whoever reads it says so
	}
	return checkKind(path, info.Mode())
}

// checkOpen reports what an open file is instead of a regular one.
func checkOpen(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return checkKind(file.Name(), info.Mode())
}

// ReadFile is os.ReadFile for a regular file, and on Windows does not keep others from
// replacing the file meanwhile. Anything else is a *KindError.
func ReadFile(path string) ([]byte, error) { return Read(path, nil) }

// Write puts data in the file at path, mode 0600, making its directory, 0700,
// where there is none. A reader sees the old content or the new, never a part,
// and when Write returns nil the new content survives a loss of power.
func Write(path string, data []byte) error {
	if err := WriteCovered(path, data); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteCovered is Write for what is on disk elsewhere as well: when it returns nil the
// new content is on disk, and until SyncDir a loss of power may give the file its old
// content again, or none where there was none.
func WriteCovered(path string, data []byte) error {
	return insistOn(path, MkdirAll, func() error { return replace(path, data, 0o600) })
}

// WritePassing is Write for what nobody misses after a loss of power: nothing is waited
// for.
func WritePassing(path string, data []byte) error {
	return insistOn(path, MkdirAllCovered, func() error { return writePassing(path, data) })
}

func replace(path string, data []byte, mode os.FileMode) error {
	file, err := newPending(path, mode)
	if err != nil {
		return err
	}
	defer file.end()
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.replace()
}

// Room is a write that has begun, with room on the disk for what is to be written.
type Room struct {
	path string
	size int64
	file *pending
}

// Reserve begins a write of the file at path by writing something as long as what Fill
// is to write. The file stays as it is until then. Whoever reserves calls Fill or Drop; if
// the process ends before, Sweep removes what is left.
func Reserve(path string, filler []byte) (*Room, error) {
	var file *pending
	err := insistOn(path, MkdirAll, func() (err error) {
		if file, err = newPending(path, 0o600); err != nil {
			return err
		}
		back := make([]byte, len(filler))
		if _, err = file.Write(filler); err == nil {
			_, err = file.ReadAt(back, 0)
		}
		if err == nil && !bytes.Equal(back, filler) {
			err = errors.New("it does not read back as it was written")
		}
		if err == nil {
			err = file.rest()
		}
		if err != nil {
			file.end()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Room{path: path, size: int64(len(filler)), file: file}, nil
}

// Fill is WriteCovered of the file for which there is room.
func (r *Room) Fill(data []byte) error {
	defer r.file.end()
	err := r.file.wake()
	if err == nil {
		_, err = r.file.WriteAt(data, 0)
	}
	if err == nil && int64(len(data)) < r.size {
		err = r.file.Truncate(int64(len(data)))
	}
	if err == nil {
		err = r.file.replace()
	}
	if err != nil {
		return &WriteError{What: r.path + " can't be written", Err: err}
	}
	return nil
}

// Drop gives the room back.
func (r *Room) Drop() { r.file.end() }

// insistOn writes a file and makes its directory where there is none.
func insistOn(path string, mkdirAll func(dir string) error, write func() error) error {
	err := write()
	// Somebody may remove the directory again, as an empty one, before there is
	// a file in it, or sweep the temporary file away before it is held.
	for attempt := 0; os.IsNotExist(err) && attempt < 100; attempt++ {
		if err := mkdirAll(filepath.Dir(path)); err != nil {
			return err
		}
		err = write()
	}
	if err != nil {
		return &WriteError{What: path + " can't be written", Err: err}
	}
	return nil
}

func writePassing(path string, data []byte) error {
	file, err := OpenOwn(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// WritePublic does the same as Write for a file that other users may read, mode
// 0644, in a directory that must exist. WritePublic first removes the leftovers of
// interrupted writes of the same file, because nothing else cleans that directory.
func WritePublic(path string, data []byte) error {
	if err := Sweep(path); err != nil {
		return err
	}
	err := replace(path, data, 0o644)
	for attempt := 0; os.IsNotExist(err) && attempt < 100; attempt++ {
		if _, statErr := os.Stat(filepath.Dir(path)); statErr != nil {
			break
		}
		err = replace(path, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("%s can't be written: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes a directory and its missing parents, mode 0700, so that they
// survive a loss of power.
func MkdirAll(dir string) error { return insistOnDir(dir, makeAll) }

// MkdirAllCovered is MkdirAll for what need not survive a loss of power, or is made so by
// SyncDir.
func MkdirAllCovered(dir string) error { return insistOnDir(dir, mkdirAll) }

func insistOnDir(dir string, makeAll func(string) error) error {
	err := makeAll(dir)
	// The directory, or one above it, may be removed, as an empty one, right after it
	// was found to be there or was made.
	for attempt := 0; (os.IsExist(err) || os.IsNotExist(err)) && attempt < 100; attempt++ {
		if info, statErr := os.Lstat(dir); statErr == nil && !info.IsDir() {
			break
		}
		err = makeAll(dir)
	}
	if err != nil {
		return &WriteError{What: fmt.Sprintf("the directory %s can't be made", dir), Err: err}
	}
	return nil
}

// makeAll is one attempt of MkdirAll; its error is the system's.
func makeAll(dir string) error {
	var parents []string
	for d := filepath.Clean(dir); filepath.Dir(d) != d; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); err == nil {
			break
		}
		parents = append(parents, filepath.Dir(d))
	}
	if err := mkdirAll(dir); err != nil {
		return err
	}
	for _, parent := range parents {
		if err := SyncDir(parent); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes a file for good, and what writes of it left that were cut off;
// one that is not there is no error.
func Remove(path string) error {
	gone, err := removeSwept(path)
	if err != nil || !gone {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// RemoveCovered is Remove for what does no harm should it come back with a loss of
// power.
func RemoveCovered(path string) error {
	_, err := removeSwept(path)
	return err
}

// Unlink is RemoveCovered for a file that is written in place, so that no write can have
// left anything beside it: the directory is not read.
func Unlink(path string) error {
	if err := remove(path); err != nil && !os.IsNotExist(err) {
		return &WriteError{What: path + " can't be removed", Err: err}
	}
	return nil
}

func removeSwept(path string) (gone bool, err error) {
	if err := Sweep(path); err != nil {
		return false, err
	}
	switch err := remove(path); {
	case os.IsNotExist(err):
		return false, nil
	case err != nil:
		return false, &WriteError{What: path + " can't be removed", Err: err}
	}
	return true, nil
}

// Sweep removes what writes of a file left that were cut off. A write that is
// under way is left alone, in whatever process it is.
func Sweep(path string) error {
	_, err := sweep(filepath.Dir(path), func(written string) bool { return written == filepath.Base(path) })
	return err
}

// SweepDir is Sweep for all files of a directory in which upsauth alone writes,
// and returns how many it removed. A directory that is not there has none.
func SweepDir(dir string) (int, error) {
	return sweep(dir, func(written string) bool {
		// A network file system has temporary files of its own (.nfs0123), without
		// an ending.
		ending := strings.TrimPrefix(filepath.Ext(written), ".")
		return ending != "" && ending != written && strings.Trim(ending, "abcdefghijklmnopqrstuvwxyz") == ""
	})
}

// sweep removes the temporary files of writes that are over and never came to
// their end: the name of the file to be written with a dot before it and a number
// behind it. Whoever writes one holds it, and the system lets it go with the
// process; so what nobody holds can't be wanted any more. A writer that was only
// about to take hold finds its file gone, and Write begins anew.
func sweep(dir string, wanted func(written string) bool) (removed int, err error) {
	d, err := openDir(dir)
	if err != nil {
		return 0, nil //nolint:nilerr // whoever needs the directory says what is wrong
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return 0, nil //nolint:nilerr // as above
	}
	for _, name := range names {
		rest, hidden := strings.CutPrefix(name, ".")
		written := strings.TrimRight(rest, "0123456789")
		// The written file's own name may end in digits.
		for end := len(written); hidden && end < len(rest); end++ {
			if !wanted(rest[:end]) {
				continue
			}
			path := filepath.Join(dir, name)
			gone, err := removeAbandoned(path)
			if err != nil && !os.IsNotExist(err) {
				return removed, &WriteError{What: path + " can't be removed", Err: err}
			}
			if gone {
				removed++
			}
			break
		}
	}
	return removed, nil
}

// CheckIn refuses a file's name that would lead out of its directory, by itself or
// by a link on the way. Neither need be there.
func CheckIn(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if absent(dir, err) {
		return nil
	}
	if err != nil {
		return Explain(dir, err)
	}
	defer func() { _ = root.Close() }()
	if _, err := root.Stat(filepath.Dir(name)); err != nil && !os.IsNotExist(err) {
		return Explain(filepath.Join(dir, filepath.Dir(name)), err)
	}
	return nil
}
