package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/ledger"
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

// A sign-in was lost, and so was that it had an end. Another host than the one that signed in puts the
// grant back first, and knows no key of its journals. Nobody makes another key before all have
// answered, and nobody waits for the sign-in.
func TestAnotherHostPutsASignInBack(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.sharing(dirA, dirB)
	forget := w.remember()
	w.later(11 * time.Minute)
	key := a.authorize().TokenVaultKey
	w.sql("CREATE TABLE kept AS SELECT * FROM upsauth.claims WHERE token_vault_key = '" + key + "'")
	_, err := b.vault.Record(t.Context(), id) // its copy
	must(t, err)
	a.sealed(id)
	b.db.Close()
	forget()
	w.sql(`INSERT INTO upsauth.claims SELECT * FROM kept; UPDATE upsauth.meta SET highest = (SELECT max(number) FROM upsauth.claims);
		UPDATE upsauth.claims SET outcome = NULL, ended = NULL WHERE purpose = 'authorize' AND token_vault_key = '` + key + "'")
	b = w.host(dirB, "web-2")
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*ledger.FrozenError](err) {
		t.Errorf("before all have answered: %v", err)
	}
	if rows := w.sql("SELECT token_vault_key FROM upsauth.grants WHERE slot = '" + id.Slot() + "'"); len(rows) != 1 || rows[0][0] != key {
		t.Fatalf("it does not put the grant %s back: %v", key, rows)
	}
	w.answered(dirA, dirB)
	if rows := w.sql("SELECT outcome FROM upsauth.claims WHERE purpose = 'authorize' AND token_vault_key = '" + key + "'"); len(rows) != 1 || rows[0][0] != "granted" {
		t.Errorf("the sign-in is %v", rows)
	}
	w.host(dirA, "web-1").deliver()
	for _, h := range []*host{w.host(dirB, "web-2"), w.host(dirA, "web-1")} {
		if g, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || g.TokenVaultKey != key {
			t.Errorf("it has the grant %s, not %s: %v", g.TokenVaultKey, key, err)
		}
	}
	if w.reused() > 0 {
		t.Errorf("%d tokens were sent twice", w.reused())
	}
}
