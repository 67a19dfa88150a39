package shared_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// smallDisk is a disk of its own of a megabyte, and a way to fill it up.
func smallDisk(t *testing.T) (disk string, fill func() (free func())) {
	t.Helper()
	disk = t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		realpart.Missing(t, fmt.Errorf("a disk can't be mounted here: %w", err))
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	return disk, func() func() {
		path := filepath.Join(disk, "filler")
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 2<<20), 0o600); err == nil {
			t.Error("the disk is not full")
		}
		return func() { must(t, os.Remove(path)) }
	}
}

// A host's disk is full when its answer has been put in place: it can't note that it has seen
// the new token. Should the database go back now, it is the only one that has it.
func TestAnAnswerThatIsNotedNowhereElseStaysNews(t *testing.T) {
	for _, what := range []string{"refresh", "sign-in"} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			disk, fill := smallDisk(t)
			dir := filepath.Join(disk, "state")
			elsewhere := t.TempDir()
			a, b := w.host(dir, "web-1"), w.host(elsewhere, "web-2")
			a.authorize()
			a.authorizeFor(other)
			_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
			must(t, err)
			_, err = a.Token(t.Context(), id, 0)
			must(t, err)
			forget := w.remember()
			var free func()
			a.Vault = wired{a.vault, func(now string) {
				if now == "before Put" && free == nil {
					free = fill()
				}
			}}
			var wanted string
			if what == "refresh" {
				g, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
				must(t, err)
				wanted = g.TokenVaultKey
			} else {
				wanted = a.authorize().TokenVaultKey
			}
			free()
			a.db.Close()
			b.db.Close()
			forget()
			a, b = w.host(dir, "web-1"), w.host(elsewhere, "web-2")
			_, _ = b.Refresh(t.Context(), id, keeper.Need{Always: true}) // the roll call begins
			_, err = a.Refresh(t.Context(), other, keeper.Need{Always: true})
			must(t, err)
			if what == "refresh" {
				if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*ledger.ClaimedError](err) {
					t.Errorf("the other host does not wait for the answer: %v", err)
				}
			}
			// What this host has and the database lost, its next command puts in place.
			_, err = a.Settle(t.Context(), id)
			must(t, err)
			if g, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || g.TokenVaultKey != wanted {
				t.Errorf("the other host has the grant %s, wanted %s, %v", g.TokenVaultKey, wanted, err)
			}
			if news, err := a.vault.Attempts(t.Context(), id); err != nil || slices.ContainsFunc(news, func(j grant.Journal) bool { return j.News }) {
				t.Errorf("it is still news: %+v, %v", news, err)
			}
			if w.reused() != 0 {
				t.Errorf("%d tokens were sent again", w.reused())
			}
		})
	}
}
