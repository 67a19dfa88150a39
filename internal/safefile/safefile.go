// Package safefile writes files that are whole at every instant and keeps what
// is private from other users of the machine.
package safefile

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ReadFile is os.ReadFile, and on Windows does not keep others from replacing the
// file meanwhile.
func ReadFile(path string) ([]byte, error) { return Read(path, nil) }

// Write puts data in the file at path, mode 0600, making its directory, 0700,
// where there is none. A reader sees the old content or the new, never a part,
// and when Write returns nil the new content survives a loss of power.
func Write(path string, data []byte) error {
	dir := filepath.Dir(path)
	err := replace(path, data, 0o600)
	// Somebody may remove the directory again, as an empty one, before there is
	// a file in it.
	for attempt := 0; os.IsNotExist(err) && attempt < 100; attempt++ {
		if err := MkdirAll(dir); err != nil {
			return err
		}
		err = replace(path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("%s can't be written: %w", path, err)
	}
	return SyncDir(dir)
}

// WritePublic is Write for a file that other users are to read, mode 0644, in a
// directory that has to be there.
func WritePublic(path string, data []byte) error {
	if err := replace(path, data, 0o644); err != nil {
		return fmt.Errorf("%s can't be written: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes a directory and its missing parents, mode 0700, so that they
// survive a loss of power.
func MkdirAll(dir string) error {
	var parents []string
	for d := filepath.Clean(dir); filepath.Dir(d) != d; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); err == nil {
			break
		}
		parents = append(parents, filepath.Dir(d))
	}
	err := mkdirAll(dir)
	// It may be removed, as an empty one, right after it was found to be there.
	for attempt := 0; os.IsExist(err) && attempt < 100; attempt++ {
		if info, statErr := os.Lstat(dir); statErr == nil && !info.IsDir() {
			break
		}
		err = mkdirAll(dir)
	}
	if err != nil {
		return fmt.Errorf("the directory %s can't be made: %w", dir, err)
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
	removed := false
	for _, name := range append(leftovers(path), path) {
		err := remove(name)
		if err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("%s can't be removed: %w", name, err)
		}
		removed = removed || err == nil
	}
	if !removed {
		return nil
	}
	return SyncDir(filepath.Dir(path))
}

// Sweep removes what writes of a file left that were cut off. Nobody may be
// writing it.
func Sweep(path string) error {
	for _, name := range leftovers(path) {
		if err := remove(name); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("%s can't be removed: %w", name, err)
		}
	}
	return nil
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

// maxSmall is the most bytes that ReadSmall takes.
const maxSmall = 64 << 10

// ReadSmall reads a file that a person names, of at most 64 KB. It may be a pipe,
// which is waited for no longer than the context lasts.
func ReadSmall(ctx context.Context, path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return readSmall(path)
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := readSmall(path)
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func readSmall(path string) ([]byte, error) {
	file, err := OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSmall+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSmall {
		return nil, fmt.Errorf("%s has more than %d KB", path, maxSmall>>10)
	}
	return data, nil
}

// leftovers are the temporary files of writes that never came to their end: the
// file's name with a dot before it and a number behind it.
func leftovers(path string) []string {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil // removing the file itself says what is wrong
	}
	var found []string
	for _, entry := range entries {
		number, ok := strings.CutPrefix(entry.Name(), "."+base)
		if ok && number != "" && strings.Trim(number, "0123456789") == "" {
			found = append(found, filepath.Join(dir, entry.Name()))
		}
	}
	return found
}
