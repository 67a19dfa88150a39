package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

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
		if input != "" && safefile.SamePlace(o.path, input) {
			return usagef("%s %s would write over %s, which upsauth reads: name another file", o.flag, o.path, input)
		}
	}
	real, err := safefile.RealPath(o.path)
	if err != nil {
		return usagef("%s: %v", o.flag, err)
	}
	for _, dir := range []string{s.Config.Paths.State, s.Config.Paths.Config} {
		if safefile.IsBelow(real, dir) {
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
		return usagef("%s %s already exists: name another file, or add --force to replace it", o.flag, o.path)
	}
	file, err := safefile.OpenNamed(ctx, o.path)
	if err != nil {
		return usagef("%s: %v", o.flag, err)
	}
	defer file.Close()
	start := make([]byte, len(o.own))
	n, err := io.ReadFull(file, start)
	if n > 0 && !bytes.Equal(start, []byte(o.own)) || n == 0 && !errors.Is(err, io.EOF) {
		return usagef("%s %s already exists, and upsauth did not write it: name another file", o.flag, o.path)
	}
	return nil
}

// prometheusStart is how upsauth's own metrics begin.
const prometheusStart = "# HELP upsauth_"
