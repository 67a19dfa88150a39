package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
)

// A host has signed in for a company that had a grant, and the database goes back to before that.
// Whatever happened since, and whatever the database had of the earlier grant, the later one comes
// back.
func TestTheLatestSignInComesBack(t *testing.T) {
	for _, how := range []string{"signed in twice", "refreshed since", "a request of the earlier grant is open"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			always := keeper.Need{Always: true}
			if how == "a request of the earlier grant is open" {
				if !b.until("before Seal", func() { _, _ = b.Refresh(t.Context(), id, always) }) {
					t.Fatal("it was not ended")
				}
			}
			forget := w.remember()
			w.later(11 * time.Minute)
			wanted := a.authorize().TokenVaultKey
			switch how {
			case "signed in twice":
				wanted = a.authorize().TokenVaultKey
			case "refreshed since":
				for range 3 {
					_, err := a.Refresh(t.Context(), id, always)
					must(t, err)
				}
			}
			a.db.Close()
			b.db.Close()
			forget()
			w.answered(dirA, dirB)
			for _, h := range []*host{w.host(dirA, "web-1"), w.host(dirB, "web-2")} {
				if g, err := h.Refresh(t.Context(), id, always); err != nil || g.TokenVaultKey != wanted {
					t.Errorf("it has the grant %s, not %s: %v", g.TokenVaultKey, wanted, err)
				}
			}
			if w.reused() > 0 {
				t.Errorf("%d tokens were sent twice", w.reused())
			}
		})
	}
}

// A company signs in again and is revoked, and the database goes back to before both. The earlier
// grant, which nobody would have again, does not come back either.
func TestWhatARevokedGrantReplacedStaysAway(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.sharing(dirA, dirB)
	forget := w.remember()
	a.authorize()
	must(t, a.Revoke(t.Context(), id))
	a.db.Close()
	b.db.Close()
	forget()
	w.answered(dirA, dirB)
	asked := len(w.ups.Refreshes())
	for _, h := range []*host{w.host(dirB, "web-2"), w.host(dirA, "web-1"), w.host(dirB, "web-2")} {
		if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil || len(w.ups.Refreshes()) > asked {
			t.Errorf("it is refreshed: %v", err)
		}
	}
	// A person may sign in again.
	a = w.host(dirA, "web-1")
	_, err := a.vault.FinishRemovals(t.Context())
	must(t, err)
	a.authorize()
	for _, h := range []*host{w.host(dirB, "web-2"), w.host(dirA, "web-1")} {
		if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Errorf("once somebody has signed in again: %v", err)
		}
	}
}
