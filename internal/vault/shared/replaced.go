package shared

import (
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
	return s.marks(replacedDir).put(old, "that a grant takes the place of another", []byte(key))
}

// successor is the key of the grant that this host has put in the place of another, empty for none.
func (s *Store) successor(key string) string {
	text, err := safefile.ReadFile(s.marks(replacedDir).path(key))
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
	return s.marks(replacedDir).keys("what was replaced here")
}
