package soak

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/upsauth/upsauth/internal/sandbox"
)

// TestDiskTurnsReadOnlyInMidRefresh lets the state's disk become read-only, as a
// file system does at the first fault of its disk, or go away, while UPS's answer
// is on its way. The answer was dropped then, and the next attempt ended the grant.
func TestDiskTurnsReadOnlyInMidRefresh(t *testing.T) {
	for name, trouble := range map[string]struct{ begin, end func(disk string) error }{
		"read-only": {
			func(disk string) error { return syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "") },
			func(disk string) error { return syscall.Mount("", disk, "", syscall.MS_REMOUNT, "") },
		},
		"moved away": {
			func(disk string) error { return os.Rename(filepath.Join(disk, "state"), filepath.Join(disk, "moved")) },
			func(disk string) error { return os.Rename(filepath.Join(disk, "moved"), filepath.Join(disk, "state")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, sandbox.Options{Strict: true})
			disk := mounted(t, "8m")
			p.move(filepath.Join(disk, "state"))
			p.authorize(company)
			said := p.refreshInTrouble(t, func() error { return trouble.begin(disk) }, func(code int, said string) error {
				if code != 5 || !strings.Contains(said, "UPS's answer is sealed in ") {
					t.Errorf("exit code %d: %s", code, said)
				}
				return trouble.end(disk)
			})
			_, path, _ := strings.Cut(said, "UPS's answer is sealed in ")
			path, _, _ = strings.Cut(path, "\n")
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", path, err)
			}
		})
	}
}
