package shared_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault"
)

// A host has revoked a grant, and a person imports it again on another one. The first one takes
// that for what it is, and not for a database that went back.
func TestARevokedGrantIsTakenInByAnotherHost(t *testing.T) {
	for _, since := range []string{"nothing since", "a failover since", "a failover that took the revoke back since"} {
		t.Run(since, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			g, err := b.vault.Get(t.Context(), id)
			must(t, err)
			forget := w.remember()
			must(t, b.Revoke(t.Context(), id))
			if since != "nothing since" {
				a.db.Close()
				b.db.Close()
				if since == "a failover since" {
					w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
				} else {
					forget()
				}
				w.answered(dirA, dirB)
				_, err := w.host(dirB, "web-2").vault.FinishRemovals(t.Context())
				must(t, err)
			}
			g.Revision, g.JournalRecipient = 0, ""
			if home, err := w.host(dirA, "web-1").Import(t.Context(), g); err != nil || home == "" {
				t.Fatalf("it is not imported: %v", err)
			}
			b = w.host(dirB, "web-2")
			_, err = b.vault.FinishRemovals(t.Context())
			must(t, err)
			for _, h := range []*host{b, w.host(dirA, "web-1")} {
				records, problems, err := h.vault.List(t.Context(), "")
				if err != nil || len(problems) > 0 || !slices.ContainsFunc(records, func(r grant.Record) bool { return r.TokenVaultKey == g.TokenVaultKey }) {
					t.Errorf("it is not in the list %v: %v, %v", records, problems, err)
				}
			}
			for _, h := range []*host{b, w.host(dirA, "web-1"), b} {
				if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
					t.Error(err)
				}
			}
			// The one that took it in revokes it as well as anybody.
			must(t, b.Revoke(t.Context(), id))
			w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
			w.answered(dirA, dirB)
			if _, err := w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
				t.Error("it is refreshed once it is revoked again")
			}
		})
	}
}

// Two hosts revoke a grant at once, and the later one finds no row of it any more. What a person
// imports then is none of what it has revoked.
func TestAGrantThatTwoHostsRevokedIsTakenIn(t *testing.T) {
	w := newWorld(t)
	a, b := w.sharing(t.TempDir(), t.TempDir())
	g, err := b.vault.Get(t.Context(), id)
	must(t, err)
	r, err := a.vault.Record(t.Context(), id)
	must(t, err)
	must(t, b.Revoke(t.Context(), id))
	r.Removing = true
	for range 2 { // the second time, nothing is remembered of the row
		if _, err := a.store.Commit(t.Context(), vault.Change{Record: r}); !errors.Is(err, grant.ErrConflict) {
			t.Fatalf("it is revoked once more: %v", err)
		}
	}
	g.Revision, g.JournalRecipient = 0, ""
	_, err = b.Import(t.Context(), g)
	must(t, err)
	for _, h := range []*host{a, b} {
		if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Error(err)
		}
	}
}

// A grant was revoked, imported on another host and refreshed there, and the database goes back to
// before all of that. The host with the newest token tells it first. It puts back the key of the journals
// too: the grant is what was imported, and not what was revoked.
func TestWhatIsTakenInIsPutBackAsWhatItIs(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	w.sharing(dirA, dirB)
	forget := w.remember()
	a, b := w.takenIn(dirA, dirB)
	_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	a.db.Close()
	b.db.Close()
	forget()
	w.answered(dirA, dirB)
	for _, h := range []*host{w.host(dirA, "web-1"), w.host(dirB, "web-2"), w.host(dirA, "web-1")} {
		if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Error(err)
		}
	}
	if w.reused() > 0 {
		t.Errorf("%d tokens were sent twice", w.reused())
	}
}
