package soak

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keyringtest"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// TestFullDisk refreshes on a disk with less and less room: either it is told
// before anything is sent, or the refresh succeeds. A token is never spent whose
// answer finds no room.
func TestFullDisk(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	disk := mounted(t, "1m")
	p.move(filepath.Join(disk, "state"))
	p.authorize(company)
	filler := filepath.Join(disk, "filler")
	r := report{operation: "refresh, disk full"}
	for room := int64(0); room <= 420<<10; room += 12 << 10 {
		fill(t, disk, filler, room)
		before := p.count("refresh", sandbox.Committed)
		code, out := p.run("refresh", "--company", company)
		spent := p.count("refresh", sandbox.Committed) - before
		r.kills++
		if code != 0 && spent > 0 {
			t.Logf("with %d bytes of room: exit code %d although UPS was asked\n%s", room, code, out)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if code, out := p.run("refresh", "--company", company); code != 0 {
			r.lost++
			t.Errorf("after %d bytes of room: exit code %d\n%s", room, code, out)
			p.authorize(company)
		}
	}
	if r.double = p.count("refresh", sandbox.Reused); r.double > 0 {
		t.Errorf("%d refresh tokens were spent twice", r.double)
	}
	t.Logf("\n%s\n%s", header, r)
}

// mounted is a disk of its own of a size.
func mounted(t *testing.T, size string) string {
	t.Helper()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		realpart.Missing(t, fmt.Errorf("a disk can't be mounted here: %w", err))
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	return disk
}

// refreshInTrouble lets trouble begin while UPS's answer to a refresh is on its way,
// and returns what the refresh said. End is given that and its exit code, and ends the
// trouble; afterwards the new token is put in place, and UPS was asked once.
func (p *place) refreshInTrouble(t *testing.T, begin func() error, end func(code int, said string) error) string {
	t.Helper()
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
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	if err := end(command.ProcessState.ExitCode(), said.String()); err != nil {
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
	return said.String()
}

// fill leaves so many bytes of room on a disk.
func fill(t *testing.T, disk, filler string, room int64) {
	t.Helper()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(disk, &stat); err != nil {
		t.Fatal(err)
	}
	size := int64(stat.Bavail)*stat.Bsize - room
	if size <= 0 {
		size = 0
	}
	// Others may take room meanwhile: then the disk is full as well.
	if err := os.WriteFile(filler, make([]byte, size), 0o600); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// move puts the state elsewhere.
func (p *place) move(state string) {
	for i, entry := range p.env {
		if strings.HasPrefix(entry, "UPSAUTH_STATE_DIR=") {
			p.env[i] = "UPSAUTH_STATE_DIR=" + state
		}
	}
	p.state = state
	p.vault = vault.New(files.New(state, vault.Homes{agefile.New(filepath.Join(state, "vault"), "")}))
}

// TestKeychainStopsInMidRefresh locks or stops the keychain while UPS's answer
// is on its way: the answer waits in the journal, and the next command puts it
// in place without asking UPS for anything.
func TestKeychainStopsInMidRefresh(t *testing.T) {
	k := keyringtest.Start(t)
	for name, trouble := range map[string]struct{ begin, end func() error }{
		"locked":  {k.Lock, k.Unlock},
		"stopped": {k.Pause, k.Resume},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, sandbox.Options{Strict: true})
			p.env = append(p.env, k.Env()...)
			p.env = append(p.env, "UPSAUTH_VAULT=keychain")
			p.authorize(company)
			p.refreshInTrouble(t, trouble.begin, func(code int, said string) error {
				if code != 5 {
					t.Errorf("exit code %d instead of 5: %s", code, said)
				}
				if out := p.must("status", "-o", "json"); !strings.Contains(out, `"state": "interrupted"`) {
					t.Errorf("the refresh does not show as interrupted:\n%s", out)
				}
				return trouble.end()
			})
		})
	}
}
