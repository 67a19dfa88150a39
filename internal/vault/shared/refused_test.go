package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
)

// A process is cut off before UPS's answer is sealed, and the next one while it notes that UPS
// refused the same token. Whoever comes then finds the grant void, and waits for nobody.
func TestARefusalThatIsCutOffIsVoidInTheEnd(t *testing.T) {
	for _, moment := range []string{"before Note", "after Note", "before Mark", "after Mark"} {
		for _, next := range []string{"the same host", "another host"} {
			t.Run(moment+", "+next, func(t *testing.T) {
				w := newWorld(t)
				dirA, dirB := t.TempDir(), t.TempDir()
				w.host(dirA, "web-1").authorize()
				_, err := w.host(dirB, "web-2").Token(t.Context(), id, time.Minute)
				must(t, err)
				w.pass(2 * time.Hour)
				refresh := func(h *host) error {
					_, err := h.Refresh(t.Context(), id, keeper.Need{Always: true})
					return err
				}
				a := w.host(dirA, "web-1")
				if !a.until("before Seal", func() { _ = refresh(a) }) {
					t.Fatal("it was not ended")
				}
				w.later(11 * time.Minute)
				w.pass(11 * time.Minute)
				a = w.host(dirA, "web-1")
				if !a.until(moment, func() { _ = refresh(a) }) {
					t.Fatal("the refusal was not ended")
				}
				names := []string{"web-1", "web-2"}
				if next == "another host" {
					names = []string{"web-2", "web-1"}
				}
				var last error
				for range 2 {
					for _, name := range names {
						w.later(11 * time.Minute)
						w.pass(11 * time.Minute)
						last = refresh(w.host(map[string]string{"web-1": dirA, "web-2": dirB}[name], name))
						t.Logf("%v", last)
					}
				}
				if !is[*keeper.GoneError](last) {
					t.Errorf("at the end: %v", last)
				}
				if rows := w.sql("SELECT state FROM upsauth.grants"); rows[0][0] != "void" {
					t.Errorf("it is %s", rows[0][0])
				}
				t.Logf("%v", w.sql("SELECT generation, attempt, host, outcome FROM upsauth.claims ORDER BY number"))
			})
		}
	}
}

// The database goes away between a request and its refusal. Another host may have the next token,
// so nobody is told that the company must authorize again.
func TestARefusalIsNoVoidWhileTheDatabaseIsAway(t *testing.T) {
	for _, moment := range []string{"before Note", "before Mark", "after Mark"} {
		t.Run(moment, func(t *testing.T) {
			w := newWorld(t)
			a := w.host(t.TempDir(), "web-1")
			a.authorize()
			must(t, w.ups.ChangePassword(jane))
			marked := false
			a.Vault = wired{a.vault, func(now string) {
				if now == moment && !marked {
					marked = true
					must(t, w.server.Stop())
				}
			}}
			_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
			if !is[*keeper.ContestedError](err) || is[*keeper.GoneError](err) {
				t.Errorf("the database is away: %v", err)
			}
			must(t, w.server.Restart())
			w.later(2 * time.Minute)
			w.pass(2 * time.Minute)
			if _, err := a.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.GoneError](err) {
				t.Errorf("the database is back: %v", err)
			}
		})
	}
}

// A process is cut off after it noted what became of its attempt on this disk, and before the
// database was told. The next process of the host tells it.
func TestWhatIsNotedHereIsToldWhateverCutsItOff(t *testing.T) {
	for fate, outcome := range map[string]string{"over": "refused", "unsent": "unsent"} {
		t.Run(fate, func(t *testing.T) {
			w := newWorld(t)
			dir := t.TempDir()
			w.host(dir, "web-1").authorize()
			a := w.host(dir, "web-1")
			if !a.until("before Seal", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
				t.Fatal("it was not ended")
			}
			attempts, err := a.vault.Attempts(t.Context(), id)
			must(t, err)
			j := attempts[0]
			if j.Purpose != grant.Refreshing {
				t.Fatalf("the attempt is %+v", j)
			}
			j.Over, j.Unsent = fate == "over", fate == "unsent"
			must(t, a.store.Disk().Mark(t.Context(), &j))
			_, _ = w.host(dir, "web-1").Settle(t.Context(), id)
			if rows := w.sql("SELECT outcome FROM upsauth.claims WHERE generation = 2"); rows[0][0] != outcome {
				t.Errorf("it is told as %q", rows[0][0])
			}
		})
	}
}
