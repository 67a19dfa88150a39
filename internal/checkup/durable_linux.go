package checkup

import (
	"path/filepath"
	"syscall"
)

// passing says what kind of file system a directory is on, where that does not outlast a
// restart; empty where it does, or nobody can tell. A directory that is not there yet is
// on its parent's.
func passing(dir string) string {
	var fs syscall.Statfs_t
	for syscall.Statfs(dir, &fs) != nil {
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
	return kindOf(int64(fs.Type)) //nolint:unconvert // its size is the processor's
}

// kindOf are the kinds in linux/magic.h whose files are gone at the end.
func kindOf(magic int64) string {
	switch magic {
	case 0x01021994:
		return "a tmpfs, which is in memory"
	case 0x858458f6:
		return "a ramfs, which is in memory"
	case 0x794c7630:
		return "an overlay, as a container without a volume has it"
	}
	return ""
}
