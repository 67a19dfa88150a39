package shared_test

import (
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
)

// Two hosts have signed in one after the other, and the database goes back to before both. The
// later sign-in comes back, whoever answers the roll call first.
func TestTheLaterOfTwoHostsSignInsComesBack(t *testing.T) {
	for _, first := range []string{"web-1", "web-2"} {
		t.Run(first+" answers first", func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			forget := w.remember()
			a.authorize()
			wanted := b.authorize().TokenVaultKey
			a.db.Close()
			b.db.Close()
			forget()
			if first == "web-2" {
				_, _ = w.host(dirB, "web-2").Refresh(t.Context(), other, keeper.Need{Always: true})
			}
			w.answered(dirA, dirB)
			if g, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || g.TokenVaultKey != wanted {
				t.Errorf("it has the grant %s, not %s: %v", g.TokenVaultKey, wanted, err)
			}
		})
	}
}

// A host has revoked a grant, which is imported on another host. The database changes hands, and
// loses nothing, before the first host has looked at the grant.
func TestAnImportBeforeAFailoverIsNotRevoked(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.sharing(dirA, dirB)
	g, err := b.vault.Get(t.Context(), id)
	must(t, err)
	must(t, b.Revoke(t.Context(), id))
	g.Revision, g.JournalRecipient = 0, ""
	_, err = a.Import(t.Context(), g)
	must(t, err)
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	w.answered(dirA, dirB)
	if _, err := w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Error(err)
	}
}
