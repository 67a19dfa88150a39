package safefile

import (
	"os"
	"path/filepath"
)

// SamePlace reports whether two paths lead to one file, also where there is none yet.
func SamePlace(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA == nil && errB == nil {
		return os.SameFile(infoA, infoB)
	}
	realA, errA := RealPath(a)
	realB, errB := RealPath(b)
	return errA == nil && errB == nil && realA == realB
}

// RealPath is where a path leads, through links, also where there is no file yet.
func RealPath(path string) (string, error) {
	const most = 40 // links, as many as systems follow
	for range most {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Abs(real)
		}
		link, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	return path, nil
}

// IsBelow reports whether a real path lies in a directory, however that is called.
func IsBelow(path, dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		real, err := RealPath(dir)
		if err != nil {
			return false
		}
		relative, err := filepath.Rel(real, path)
		return err == nil && filepath.IsLocal(relative)
	}
	for parent := path; ; parent = filepath.Dir(parent) {
		if there, err := os.Stat(parent); err == nil && os.SameFile(there, info) {
			return true
		}
		if parent == filepath.Dir(parent) {
			return false
		}
	}
}
