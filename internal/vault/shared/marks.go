package shared

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// marks is a directory of this host with a file for each grant that it did something to, by the
// Token Vault Key: it tells that a database that went back.
type marks string

func (s *Store) marks(dir string) marks { return marks(filepath.Join(s.dir, dir)) }

func (m marks) path(key string) string { return filepath.Join(string(m), key) }

// put returns when a mark is durable. What says what can't be noted otherwise.
func (m marks) put(key, what string, text []byte) error {
	if err := safefile.MkdirAll(string(m)); err != nil {
		return err
	}
	if err := safefile.Write(m.path(key), text); err != nil {
		return &safefile.WriteError{What: what + " can't be noted", Err: err}
	}
	return nil
}

func (m marks) drop(key string) error { return safefile.Unlink(m.path(key)) }

// keys are those of the grants with a mark. What says what can't be read otherwise.
func (m marks) keys(what string) ([]string, error) {
	names, err := safefile.ReadDir(string(m))
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", what, err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return grant.CheckTokenVaultKey(name) != nil }), nil
}
