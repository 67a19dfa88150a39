package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// WalkIn calls found with one file after another below a directory, by its path
// from there with slashes, until it returns false. Each directory is read once, in
// the order of names. Links are not followed. A directory that is not there, or
// goes meanwhile, has no files; errors are those of Explain.
func WalkIn(dir string, found func(path string) (more bool)) error {
	root, err := openDir(dir)
	if absent(dir, err) {
		return nil
	}
	if err != nil {
		return Explain(dir, err)
	}
	_, err = walkIn(root, "", found)
	return err
}

// walkIn closes the directory, whose path from the first one ends in a slash.
func walkIn(dir *os.File, prefix string, found func(string) bool) (more bool, err error) {
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return false, Explain(dir.Name(), err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, entry := range entries {
		path := prefix + entry.Name()
		if !entry.IsDir() {
			if !found(path) {
				return false, nil
			}
			continue
		}
		sub, err := openDirIn(dir, entry.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return false, Explain(filepath.Join(dir.Name(), entry.Name()), err)
		}
		if more, err := walkIn(sub, path+"/", found); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}
