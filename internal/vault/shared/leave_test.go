package shared_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

// A vault is moved away from a database that goes back at that moment, and another host has the
// grant's newest token. The grant leaves once that host has told it, and with that token.
func TestNoGrantLeavesADatabaseThatWentBack(t *testing.T) {
	w := newWorld(t)
	dir, dirB := filepath.Join(t.TempDir(), "web-1"), t.TempDir()
	m := w.begin(dir, -1)
	m.host.authorize()
	m.host.authorizeFor(other)
	b := w.host(dirB, "web-2")
	_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	forget := w.remember()
	fresh, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	m.host.db.Close()
	b.db.Close()
	forget()
	m = w.begin(dir, -1)
	if err := m.move(t.Context(), true, w.clock()); !errors.Is(err, grant.ErrConflict) {
		t.Errorf("before this host knows of it: %v", err)
	}
	if err := m.move(t.Context(), true, w.clock()); !is[*ledger.FrozenError](err) {
		t.Errorf("before the other host has told what it has: %v", err)
	}
	_, _ = w.host(dirB, "web-2").Refresh(t.Context(), other, keeper.Need{Always: true})
	w.pass(time.Second)
	must(t, w.begin(dir, -1).move(t.Context(), true, w.clock()))
	if g, err := w.begin(dir, -1).local.Get(t.Context(), id); err != nil || g.RefreshToken != fresh.RefreshToken {
		t.Errorf("generation %d has left, and %d is the newest: %v", g.Generation, fresh.Generation, err)
	}
}

// A grant was moved away, and the database goes back to before that. The host that moved it says so
// at the roll call, and no other host spends what lives in another vault. A grant that has come
// back since stays.
func TestAGrantThatHasLeftStaysAway(t *testing.T) {
	w := newWorld(t)
	dir, dirB := filepath.Join(t.TempDir(), "web-1"), t.TempDir()
	m := w.begin(dir, -1)
	m.host.authorize()
	m.host.authorizeFor(other)
	b := w.host(dirB, "web-2")
	_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	forget := w.remember()
	must(t, m.move(t.Context(), true, w.clock()))
	m.host.db.Close()
	b.db.Close()
	forget()
	w.pass(time.Second)
	w.answered(filepath.Join(dir, "shared"), dirB)
	if g, err := w.begin(dir, -1).local.Get(t.Context(), id); err != nil || g.RefreshToken == "" {
		t.Errorf("where it was moved to: %v", err)
	}
	away := new(vault.MovedError)
	if _, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); !errors.As(err, &away) || away.Moved().Host != "web-1" {
		t.Errorf("where it has left: %v", err)
	}
	must(t, w.begin(dir, -1).move(t.Context(), false, w.clock()))
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	w.answered(filepath.Join(dir, "shared"), dirB)
	if _, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Errorf("once it has come back: %v", err)
	}
}

// A vault is moved in while the database goes back, and another host has signed in for the same
// company since. That host tells it first, and nothing takes the place of its grant.
func TestNothingArrivesInADatabaseThatWentBack(t *testing.T) {
	w := newWorld(t)
	dir, dirB := filepath.Join(t.TempDir(), "web-1"), t.TempDir()
	m, b := w.begin(dir, -1), w.host(dirB, "web-2")
	m.host.authorizeFor(other)
	_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	g := vaulttest.GrantOf(id, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
	g.Home = "file"
	vaulttest.Authorize(t, m.local, g)
	forget := w.remember()
	wanted := b.authorize().TokenVaultKey
	m.host.db.Close()
	b.db.Close()
	forget()
	m = w.begin(dir, -1)
	if err := m.move(t.Context(), false, w.clock()); !errors.Is(err, grant.ErrConflict) {
		t.Errorf("before this host knows of it: %v", err)
	}
	if err := m.move(t.Context(), false, w.clock()); !is[*ledger.FrozenError](err) {
		t.Errorf("before the other host has told what it has: %v", err)
	}
	_, _ = w.host(dirB, "web-2").Refresh(t.Context(), other, keeper.Need{Always: true})
	if err := w.begin(dir, -1).move(t.Context(), false, w.clock()); !is[*vault.OtherHereError](err) {
		t.Errorf("beside another grant: %v", err)
	}
	if got, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || got.TokenVaultKey != wanted {
		t.Errorf("the company has the grant %s, not %s: %v", got.TokenVaultKey, wanted, err)
	}
	if _, err := w.begin(dir, -1).local.Get(t.Context(), id); err != nil {
		t.Errorf("what was to be moved: %v", err)
	}
}

// A host's directory was copied while a grant of it lived in another vault, and the grant has come
// back since. The copy is another host, and says nothing of where the grant lives.
func TestACopyOfADirectoryMovesNothingAway(t *testing.T) {
	w := newWorld(t)
	dir, cloned := filepath.Join(t.TempDir(), "web-1"), t.TempDir()
	m := w.begin(dir, -1)
	m.host.authorize()
	m.host.authorizeFor(other)
	must(t, m.move(t.Context(), true, w.clock()))
	m.host.db.Close()
	must(t, os.CopyFS(cloned, os.DirFS(filepath.Join(dir, "shared"))))
	must(t, filepath.Walk(cloned, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
	w.pass(time.Second)
	must(t, w.begin(dir, -1).move(t.Context(), false, w.clock()))
	_, err := w.host(cloned, "web-9").Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	for _, h := range []*host{w.begin(dir, -1).host, w.host(cloned, "web-9")} {
		_, _ = h.Refresh(t.Context(), other, keeper.Need{Always: true}) // it answers the roll call
	}
	for _, h := range []*host{w.host(cloned, "web-9"), w.begin(dir, -1).host} {
		if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Error(err)
		}
	}
}
