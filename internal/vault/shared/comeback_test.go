package shared_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

// A grant was moved into the vault, or imported, and the database goes back to before that. The
// old vault has a tombstone alone; a host that has seen the grant brings it back.
func TestAGrantThatArrivedComesBack(t *testing.T) {
	for how, arrive := range map[string]func(w *world, m *both, g grant.Grant){
		"moved": func(w *world, m *both, g grant.Grant) {
			vaulttest.Authorize(t, m.local, g)
			must(t, m.move(t.Context(), false, w.clock()))
		},
		"imported": func(_ *world, m *both, g grant.Grant) {
			g.Home = "shared"
			_, err := m.host.Import(t.Context(), g)
			must(t, err)
		},
	} {
		for _, first := range []string{"web-1", "web-2"} {
			t.Run(how+", and "+first+" answers first", func(t *testing.T) {
				w := newWorld(t)
				dir, dirB := filepath.Join(t.TempDir(), "web-1"), t.TempDir()
				m, b := w.begin(dir, -1), w.host(dirB, "web-2")
				m.host.authorizeFor(other)
				_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
				must(t, err)
				forget := w.remember()
				g := vaulttest.GrantOf(id, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
				g.Home = "file"
				arrive(w, m, g)
				_, err = b.vault.Get(t.Context(), id)
				must(t, err)
				m.host.db.Close()
				b.db.Close()
				forget()
				if first == "web-2" {
					_, _ = w.host(dirB, "web-2").Refresh(t.Context(), other, keeper.Need{Always: true})
				}
				w.answered(filepath.Join(dir, "shared"), dirB)
				for _, h := range []*host{w.begin(dir, -1).host, w.host(dirB, "web-2"), w.host(t.TempDir(), "web-3")} {
					if got, err := h.vault.Get(t.Context(), id); err != nil || got.RefreshToken != g.RefreshToken {
						t.Errorf("generation %d, %v", got.Generation, err)
					}
				}
			})
		}
	}
}

// The database goes back to before a sign-in. The host that has refreshed the grant since is gone
// and was removed; a third one has read the newest token. It answers the roll call before the one
// that signed in, which knows an older token alone: that is not sent again.
func TestTheNewestCopyOfASignInThatWasTakenBack(t *testing.T) {
	w := newWorld(t)
	dirA, dirC := t.TempDir(), t.TempDir()
	a, b := w.sharing(dirA, t.TempDir())
	c := w.host(dirC, "web-3")
	_, err := c.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	forget := w.remember()
	latest := named("Latest Ltd")
	a.authorizeFor(latest)
	_, err = b.Refresh(t.Context(), latest, keeper.Need{Always: true})
	must(t, err)
	_, err = c.Token(t.Context(), latest, 0)
	must(t, err)
	for _, h := range []*host{a, b, c} {
		h.db.Close()
	}
	forget()
	w.sql("UPDATE upsauth.hosts SET removed = now() WHERE name = 'web-2'")
	_, _ = w.host(dirC, "web-3").Refresh(t.Context(), other, keeper.Need{Always: true})
	_, _ = w.host(dirA, "web-1").Refresh(t.Context(), other, keeper.Need{Always: true})
	if g, err := w.host(dirA, "web-1").Refresh(t.Context(), latest, keeper.Need{Always: true}); err != nil || g.Generation != 3 {
		t.Errorf("generation %d, %v", g.Generation, err)
	}
	if w.reused() > 0 {
		t.Errorf("%d tokens were sent twice", w.reused())
	}
}

// A grant was signed in for and revoked by one host, and another one has a copy of it yet. The
// database goes back to before the sign-in. Whoever answers the roll call first, nothing of the
// grant comes back.
func TestACopyOfARevokedGrantStaysACopy(t *testing.T) {
	for _, first := range []string{"web-1", "web-2"} {
		t.Run(first+" answers first", func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			forget := w.remember()
			latest := named("Latest Ltd")
			a.authorizeFor(latest)
			_, err := b.Token(t.Context(), latest, 0)
			must(t, err)
			must(t, a.Revoke(t.Context(), latest))
			a.db.Close()
			b.db.Close()
			forget()
			if first == "web-2" {
				_, _ = w.host(dirB, "web-2").Refresh(t.Context(), other, keeper.Need{Always: true})
			}
			w.answered(dirA, dirB)
			asked := len(w.ups.Refreshes())
			for _, h := range []*host{w.host(dirB, "web-2"), w.host(dirA, "web-1"), w.host(dirB, "web-2")} {
				if _, err := h.Refresh(t.Context(), latest, keeper.Need{Always: true}); err == nil || len(w.ups.Refreshes()) > asked {
					t.Errorf("it is refreshed: %v", err)
				}
				if _, err := h.Token(t.Context(), latest, 0); err == nil {
					t.Error("it is served")
				}
			}
		})
	}
}

// A host that was off for months has a copy of a grant that was revoked since, and the database no
// longer knows that. The copy does not take the place of the earlier grant, which a person imported.
func TestAnExpiredCopyTakesNobodysPlace(t *testing.T) {
	w := newWorld(t)
	dirB := t.TempDir()
	a, b := w.sharing(t.TempDir(), dirB)
	g, err := a.vault.Get(t.Context(), id)
	must(t, err)
	a.authorize()
	_, err = b.Settle(t.Context(), id) // its copy
	must(t, err)
	b.db.Close()
	must(t, a.Revoke(t.Context(), id))
	g.Revision, g.JournalRecipient = 0, ""
	_, err = a.Import(t.Context(), g)
	must(t, err)
	w.pass(91 * 24 * time.Hour)
	w.sql("DELETE FROM upsauth.gone; UPDATE upsauth.meta SET timeline = timeline + 7")
	_ = w.host(dirB, "web-2").vault.Ready(t.Context()) // it answers the roll call
	must(t, a.vault.Ready(t.Context()))
	if rows := w.sql("SELECT token_vault_key FROM upsauth.grants WHERE slot = '" + id.Slot() + "'"); len(rows) != 1 || rows[0][0] != g.TokenVaultKey {
		t.Errorf("the company has the grant %v, not %s", rows, g.TokenVaultKey)
	}
}
