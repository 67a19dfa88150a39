package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/safefile"
)

// output is a file that a flag names to be written.
type output struct {
	flag, path string
	// inputs are what else the command line names to be read.
	inputs []string
	// force replaces whatever file is there.
	force bool
	// own, where it is not empty, is how a file begins that an earlier run of the same
	// command has written: that one is replaced.
	own string
}

// mayWrite refuses a path at which something would be lost: what the vault is opened
// with, what the command reads, upsauth's own files, and any other file that nobody
// said to replace. Links and hard links count as what they lead to.
func (s *job) mayWrite(ctx context.Context, o output) error {
	inputs := append([]string{
		s.Config.Identity, s.env.Getenv(config.EnvPassphraseFile), s.Config.Callback.TLSCert, s.Config.Callback.TLSKey,
	}, o.inputs...)
	for _, input := range inputs {
		if input != "" && samePlace(o.path, input) {
			return usagef("%s %s would write over %s, which upsauth reads: name another file", o.flag, o.path, input)
		}
	}
	real, err := realPath(o.path)
	if err != nil {
		return usagef("%s: %v", o.flag, err)
	}
	for _, dir := range []string{s.Config.Paths.State, s.Config.Paths.Config} {
		if isBelow(real, dir) {
			return usagef("%s %s lies in %s, where upsauth keeps its own files: name another place", o.flag, o.path, dir)
		}
	}
	info, err := os.Stat(o.path)
	switch {
	case os.IsNotExist(err), err == nil && !info.Mode().IsRegular() && !info.IsDir(), o.force && err == nil && !info.IsDir():
		return nil
	case err != nil:
		return usagef("%s: %v", o.flag, err)
	case info.IsDir():
		return usagef("%s %s is a directory: name a file", o.flag, o.path)
	case o.own == "":
		return usagef("%s %s exists already and was left as it is: name another file, or add --force to replace it", o.flag, o.path)
	}
	file, err := safefile.OpenNamed(ctx, o.path)
	if err != nil {
		return usagef("%s: %v", o.flag, err)
	}
	defer file.Close()
	start := make([]byte, len(o.own))
	n, err := io.ReadFull(file, start)
	if n > 0 && !bytes.Equal(start, []byte(o.own)) || n == 0 && err != io.EOF {
		return usagef("%s %s exists already, and upsauth did not write it: name another file", o.flag, o.path)
	}
	return nil
}

// samePlace reports whether two paths lead to one file, also where there is none yet.
func samePlace(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA == nil && errB == nil {
		return os.SameFile(infoA, infoB)
	}
	realA, errA := realPath(a)
	realB, errB := realPath(b)
	return errA == nil && errB == nil && realA == realB
}

// realPath is where a path leads, through links, also where there is no file yet.
func realPath(path string) (string, error) {
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

// isBelow reports whether a real path lies in a directory, however that is called.
func isBelow(path, dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		real, err := realPath(dir)
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

// prometheusStart is how upsauth's own metrics begin.
const prometheusStart = "# HELP upsauth_"
