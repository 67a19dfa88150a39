package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/upsauth/upsauth/internal/grant"
)

// neverUsed says that the state directory never had a company in it, and is empty
// where it had one. What can't be looked at is not absent: whoever reads it tells.
func (s *session) neverUsed() string {
	dir := s.config.Paths.State
	absent := func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	switch {
	case absent(dir):
		return fmt.Sprintf("the state directory %s was never used: it does not exist", dir)
	case absent(filepath.Join(dir, "records")) && absent(filepath.Join(dir, "companies")):
		return fmt.Sprintf("the state directory %s was never used: it has no company", dir)
	}
	return ""
}

const unusedAdvice = "Begin with: upsauth authorize --company NAME\n" +
	"  If companies are authorized already: run this as their user, with their UPSAUTH_STATE_DIR."

// tellUnused says on standard error why there is no company.
func (s *session) tellUnused(records []grant.Record) {
	if len(records) > 0 || len(s.problems) > 0 {
		return
	}
	if text := s.neverUsed(); text != "" {
		fmt.Fprintln(s.env.Err, sentence(text))
	}
}
