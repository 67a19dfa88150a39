package shared_test

import (
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/vaulttest"
)

// The database goes back, and a backup is imported before another host has told that it has signed
// in for the same company since. What is imported does not take the place of that.
func TestNoImportTakesTheSlotOfAGrantThatComesBack(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
	a.authorizeFor(other)
	_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
	must(t, err)
	wanted := b.authorize().TokenVaultKey
	a.db.Close()
	b.db.Close()
	must(t, w.server.Restore("postgres", dump))
	g := vaulttest.GrantOf(id, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
	g.Home = "shared"
	_, err = w.host(dirA, "web-1").Import(t.Context(), g)
	t.Logf("the import: %v", err)
	w.answered(dirA, dirB)
	if got, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || got.TokenVaultKey != wanted {
		t.Errorf("the company has the grant %s, not %s: %v", got.TokenVaultKey, wanted, err)
	}
}
