package shared_test

import (
	"context"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/shared"
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
	forget := w.remember()
	wanted := b.authorize().TokenVaultKey
	a.db.Close()
	b.db.Close()
	forget()
	g := vaulttest.GrantOf(id, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
	g.Home = shared.HomeName
	if _, err := w.host(dirA, "web-1").Import(t.Context(), g); !is[*ledger.FrozenError](err) {
		t.Errorf("before every host has answered: %v", err)
	}
	w.answered(dirA, dirB)
	if got, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || got.TokenVaultKey != wanted {
		t.Errorf("the company has the grant %s, not %s: %v", got.TokenVaultKey, wanted, err)
	}
}

// An import of an interrupted grant is an attempt of this host, which keeps the roll call waiting.
// It does not wait for itself where the host has to answer first.
func TestAnInterruptedGrantIsImportedInADatabaseThatChangedHands(t *testing.T) {
	w := newWorld(t)
	a := w.host(t.TempDir(), "web-1")
	a.authorizeFor(other)
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	g := vaulttest.GrantOf(id, "AAAAAAAA-3C21-4F7E-B122-8BF55EA80CDA", 3)
	g.Home = shared.HomeName
	pending := grant.Journal{
		ID: id, Nonce: "0123456789abcdef0123456789abcdef", Purpose: grant.Refreshing, TokenVaultKey: g.TokenVaultKey, Generation: 4, Attempt: 1,
		Fate: grant.Fate{Time: w.clock(), Outcome: "cut off"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := a.Import(ctx, g, pending); err != nil {
		t.Fatal(err)
	}
	if r, err := a.vault.Record(t.Context(), id); err != nil || r.TokenVaultKey != g.TokenVaultKey {
		t.Errorf("the record is %+v, %v", r, err)
	}
}

// An import came to nothing, as a host has not answered. What was revoked stays so.
func TestAnImportThatCameToNothingTakesNoRevokeBack(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	_, b := w.sharing(dirA, dirB)
	g, err := b.vault.Get(t.Context(), id)
	must(t, err)
	forget := w.remember()
	must(t, b.Revoke(t.Context(), id))
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	g.Revision, g.JournalRecipient = 0, ""
	if _, err = b.Import(t.Context(), g); !is[*ledger.FrozenError](err) {
		t.Fatalf("the import: %v", err)
	}
	b.db.Close()
	forget()
	w.answered(dirA, dirB)
	for _, h := range []*host{w.host(dirA, "web-1"), w.host(dirB, "web-2")} {
		if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
			t.Error("it is refreshed")
		}
	}
}
