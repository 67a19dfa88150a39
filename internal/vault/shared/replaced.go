package shared

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// replacedDir has a file for each grant that this host has put another in the place of, with the
// key of that one: a database that went back may have the earlier grant alive. The journal of the
// sign-in tells it too, for as long as nobody refreshes.
const replacedDir = "replaced"

// noteReplaced notes on this disk that a grant takes the place of another, and returns when that is
// durable. That it does not come to it does no harm: nobody has such a grant.
func (s *Store) noteReplaced(old, key string) error {
	dir := filepath.Join(s.dir, replacedDir)
	if err := safefile.MkdirAll(dir); err != nil {
		return err
	}
	if err := safefile.Write(filepath.Join(dir, old), []byte(key)); err != nil {
		return &safefile.WriteError{What: "that a grant takes the place of another can't be noted", Err: err}
	}
	return nil
}

// successor is the key of the grant that this host has put in the place of another, empty for none.
func (s *Store) successor(key string) string {
	text, err := safefile.ReadFile(filepath.Join(s.dir, replacedDir, key))
	if err != nil || grant.CheckTokenVaultKey(string(text)) != nil {
		return ""
	}
	return string(text)
}

// successors are the keys of the grants that came after another, one in the place of the other.
func (s *Store) successors(key string) (keys []string) {
	for next := s.successor(key); next != "" && next != key && !slices.Contains(keys, next); next = s.successor(next) {
		keys = append(keys, next)
	}
	return keys
}

// replaced are the keys of the grants in whose place this host has put another.
func (s *Store) replaced() ([]string, error) {
	names, err := safefile.ReadDir(filepath.Join(s.dir, replacedDir))
	if err != nil {
		return nil, fmt.Errorf("what was replaced here can't be read: %w", err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return grant.CheckTokenVaultKey(name) != nil }), nil
}
