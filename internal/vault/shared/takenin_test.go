package shared_test

import (
	"slices"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
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
