//go:build !windows

package safefile

import (
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

// fileStampOf returns the stamp of a file that is no link, and whether there is one.
func fileStampOf(path string) (stamp, bool) {
	var stat unix.Stat_t
	if _, err := again(func() (int, error) { return 0, unix.Lstat(path, &stat) }); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return stamp{}, false
	}
	return stampIn(&stat), true
}

func stampIn(stat *unix.Stat_t) stamp {
	return stamp{dev: uint64(stat.Dev), ino: uint64(stat.Ino), modified: stat.Mtim, status: stat.Ctim} //nolint:unconvert // other systems have other types
}

// settledAt reports whether a later change shows in another stamp for sure.
func (s stamp) settledAt(now time.Time) bool {
	return overAt(time.Unix(s.modified.Unix()), now) && overAt(time.Unix(s.status.Unix()), now)
}
