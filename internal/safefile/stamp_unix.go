//go:build !windows

package safefile

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stamp is what changes with a directory: which one it is, and when names in it did; or
// with a file: which one it is, and when its text or the rights to it did. The second time
// is the system's own, which nobody can set back.
type stamp struct {
	dev, ino         uint64
	modified, status unix.Timespec
}

// stampOf returns a directory's stamp, and whether there is one.
func stampOf(path string) (stamp, bool) {
	var stat unix.Stat_t
	if _, err := again(func() (int, error) { return 0, unix.Stat(path, &stat) }); err != nil {
		return stamp{}, false
	}
	return stampIn(&stat), true
}

// stamps are those of a directory's files.
type stamps struct{ dir *os.File }

// stampsIn opens a directory, nil where that can't be done.
func stampsIn(path string) *stamps {
	dir, err := openDir(path)
	if err != nil {
		return nil
	}
	return &stamps{dir}
}

// of returns the stamp of a file that is no link, and whether there is one.
func (s *stamps) of(name string) (stamp, bool) {
	var stat unix.Stat_t
	if _, err := again(func() (int, error) {
		return 0, unix.Fstatat(int(s.dir.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	}); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return stamp{}, false
	}
	return stampIn(&stat), true
}

func (s *stamps) close() {
	if s != nil {
		_ = s.dir.Close()
	}
}

func stampIn(stat *unix.Stat_t) stamp {
	return stamp{dev: uint64(stat.Dev), ino: uint64(stat.Ino), modified: stat.Mtim, status: stat.Ctim} //nolint:unconvert // other systems have other types
}

// settledAt reports whether a later change shows in another stamp for sure.
func (s stamp) settledAt(now time.Time) bool {
	return overAt(time.Unix(s.modified.Unix()), now) && overAt(time.Unix(s.status.Unix()), now)
}
