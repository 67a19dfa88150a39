package files

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/upsauth/upsauth/internal/safefile"
)

// Where a file system writes everything to a new place, the room in a journal is no room
// on the disk. There a file of this many bytes is kept, to be given up for an answer that
// the disk is too full for.
const (
	reserveName = ".reserve"
	reserveSize = 256 << 10
)

func (s *Store) reservePath() string { return filepath.Join(s.dir, "journals", reserveName) }

// reserve makes the reserve where the file system needs one and there is none.
func (s *Store) reserve() error {
	path := s.reservePath()
	if _, err := os.Lstat(path); err == nil || !copiesOnWrite(filepath.Dir(path)) {
		return nil
	}
	return safefile.Write(path, make([]byte, reserveSize))
}

// useReserve gives the reserve up, and reports whether there was one.
func (s *Store) useReserve() bool { return os.Remove(s.reservePath()) == nil }

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || isDiskFull(err)
}
