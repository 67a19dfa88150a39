package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/realpart"
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
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
				realpart.Missing(t, fmt.Errorf("a disk can't be mounted here: %w", err))
			}
			t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
			p.move(filepath.Join(disk, "state"))
			p.authorize(company)
			before := p.must("token", "--company", company)
			if err := p.server.AddFault(sandbox.Fault{Endpoint: "refresh", LatencyAfter: 500 * time.Millisecond, Times: 1}); err != nil {
				t.Fatal(err)
			}
			command := p.command("refresh", "--company", company)
			var said strings.Builder
			command.Stderr = &said
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			for p.count("refresh", sandbox.Committed) == 0 {
				time.Sleep(time.Millisecond)
			}
			if err := trouble.begin(disk); err != nil {
				t.Fatal(err)
			}
			_ = command.Wait()
			if code := command.ProcessState.ExitCode(); code != 5 || !strings.Contains(said.String(), "UPS's answer is sealed in ") {
				t.Errorf("exit code %d: %s", code, &said)
			}
			if err := trouble.end(disk); err != nil {
				t.Fatal(err)
			}
			p.must("doctor")
			if after := p.must("token", "--company", company); after == before {
				t.Error("the new token was never put in place")
			}
			if n := p.count("refresh", sandbox.Committed) + p.count("refresh", sandbox.Reused); n != 1 {
				t.Errorf("UPS was asked %d times instead of once", n)
			}
			p.must("refresh", "--company", company)
			_, path, _ := strings.Cut(said.String(), "UPS's answer is sealed in ")
			path, _, _ = strings.Cut(path, "\n")
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", path, err)
			}
		})
	}
}
