package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// A process ends at any moment of a refresh. The other host serves nothing wrong, waits for
// what may have been answered, and takes over after the time; the answer that was sealed is
// put in place by the next process of its host. Only a token that was sent and whose answer
// was not sealed is lost: window (a).
func TestRefreshIsCutOffAndAnotherHostComes(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	w.host(dirA, "web-1").authorize()
	w.pass(2 * time.Hour)
	var all []string
	counting := w.host(dirA, "web-1")
	counting.Vault = wired{counting.vault, func(moment string) { all = append(all, moment) }}
	_, err := counting.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	seen := map[string]bool{}
	for _, moment := range all {
		if seen[moment] {
			continue
		}
		seen[moment] = true
		for _, comes := range []string{"web-1", "web-2"} {
			t.Run(moment+", then "+comes, func(t *testing.T) {
				w.t = t
				which := grant.ID{Company: moment + " " + comes, Application: id.Application, Environment: id.Environment}
				a := w.host(dirA, "web-1")
				a.authorizeFor(which)
				w.pass(2 * time.Hour)
				spent, reused := w.refreshes(), w.reused()
				if !a.until(moment, func() { _, _ = a.Refresh(t.Context(), which, keeper.Need{Always: true}) }) {
					t.Fatal("it was not ended")
				}
				lost := moment == "before Seal" // UPS has answered, and nobody has the answer
				sent := w.refreshes() > spent
				if lost != (sent && moment == "before Seal") {
					t.Fatalf("sent: %t", sent)
				}
				next := w.host(dirA, "web-1")
				if comes == "web-2" {
					next = w.host(dirB, "web-2")
				}
				g, err := next.Token(t.Context(), which, time.Minute)
				for range 2 {
					if err == nil {
						break
					}
					// Somebody may have an answer yet.
					if !is[*ledger.ClaimedError](err) && !is[*keeper.PendingError](err) {
						t.Fatal(err)
					}
					if sent && !lost && comes == "web-2" {
						// The host that has the answer delivers it.
						back := w.host(dirA, "web-1")
						if _, err := back.Token(t.Context(), which, time.Minute); err != nil {
							t.Fatalf("the host that has the answer: %v", err)
						}
					} else {
						w.later(11 * time.Minute)
						w.pass(11 * time.Minute)
					}
					g, err = next.Token(t.Context(), which, time.Minute)
					if lost {
						break
					}
				}
				if lost {
					if !is[*keeper.GoneError](err) && !is[*keeper.ContestedError](err) {
						t.Errorf("a token that was lost: %v", err)
					}
					if n := w.reused() - reused; n != 1 {
						t.Errorf("%d tokens were sent again", n)
					}
					return
				}
				if err != nil || g.Generation != 2 || w.reused() != reused || w.refreshes() != spent+1 {
					t.Errorf("generation %d, %v; %d refreshes, %d tokens sent again", g.Generation, err, w.refreshes()-spent, w.reused()-reused)
				}
				// Both hosts go on.
				for _, h := range []*host{w.host(dirA, "web-1"), w.host(dirB, "web-2")} {
					w.pass(2 * time.Hour)
					if _, err := h.Token(t.Context(), which, time.Minute); err != nil {
						t.Errorf("afterwards: %v", err)
					}
				}
				if w.reused() != reused {
					t.Error("afterwards a token was sent again")
				}
			})
		}
	}
	if len(seen) < 14 {
		t.Errorf("only %d moments", len(seen))
	}
}
