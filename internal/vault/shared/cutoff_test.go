package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
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

// Of two answers to the same request the later one stands. The earlier one stays with its
// host, and is tried once UPS refuses the token that stands.
func TestASpareIsTriedBeforeVoidIsSaid(t *testing.T) {
	w := newWorld(t, func(o *sandbox.Options) { o.Strict, o.Grace = false, 24*time.Hour })
	dirA, dirB := t.TempDir(), t.TempDir()
	a := w.host(dirA, "web-1")
	a.authorize()
	w.pass(2 * time.Hour)
	if !a.until("after Seal", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	b := w.host(dirB, "web-2")
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*ledger.ClaimedError](err) {
		t.Fatalf("while the other host's answer is awaited: %v", err)
	}
	// Before the time is over, a person may take over, and no sooner than a call can last.
	b = w.host(dirB, "web-2")
	b.store.TakeOver()
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*ledger.ClaimedError](err) {
		t.Fatalf("sooner than a call can last: %v", err)
	}
	w.later(61 * time.Second)
	b = w.host(dirB, "web-2")
	b.store.TakeOver()
	taken, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	a = w.host(dirA, "web-1")
	got, err := a.Token(t.Context(), id, time.Minute)
	must(t, err)
	if got.AccessToken != taken.AccessToken || got.Generation != 2 {
		t.Errorf("the late answer stands, of generation %d", got.Generation)
	}
	must(t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 400, Code: "10400", Message: "Invalid Refresh Token", Times: 1}))
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.ContestedError](err) {
		t.Fatalf("UPS refuses the token that stands: %v", err)
	}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.ContestedError](err) {
		t.Errorf("the host without a spare: %v", err)
	}
	sent := len(w.ups.Refreshes())
	spare, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
	if err != nil || spare.Generation != 3 || len(w.ups.Refreshes()) != sent+1 {
		t.Fatalf("the spare: generation %d, %v", spare.Generation, err)
	}
	got, err = b.Token(t.Context(), id, time.Minute)
	if err != nil || got.AccessToken != spare.AccessToken {
		t.Errorf("the other host does not have it: %v", err)
	}
}
