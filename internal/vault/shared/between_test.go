package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// TestARefreshBetweenTwoReadsIsFresh has another host refresh a grant at each moment of a
// refresh before its claim: whoever asked for a fresh token has one then, and UPS is not asked
// again. Three hosts that went through one list asked it half as often again.
func TestARefreshBetweenTwoReadsIsFresh(t *testing.T) {
	w := newWorld(t)
	a, b := w.host(t.TempDir(), "web-1"), w.host(t.TempDir(), "web-2")
	a.authorize()
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Fatal(err)
	}
	for at := 0; ; at++ {
		record, err := a.vault.Record(t.Context(), id)
		must(t, err)
		before, reads, refreshed := w.refreshes(), 0, false
		a.Vault = wired{a.vault, func(now string) {
			switch {
			case now == "before Claim":
				reads = -1 << 30 // what comes then, the claim finds out
			case now == "after Record" || now == "after Attempts":
				reads++
			}
			if reads == at+1 && !refreshed {
				refreshed = true
				if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
					t.Error(err)
				}
			}
		}}
		got, err := a.Refresh(t.Context(), id, keeper.Need{Always: true, Seen: keeper.SeenIn(record)})
		must(t, err)
		if !refreshed {
			if at < 2 {
				t.Errorf("a refresh has %d reads", at)
			}
			return
		}
		if n := w.refreshes() - before; n != 1 || got.Refreshed {
			t.Errorf("at read %d: UPS granted %d refreshes", at, n)
		}
	}
}

// TestARequestThatIsLateIsNotSent suspends the machine between the claim and the first byte: before
// the database has looked, and while its answer is on the way.
func TestARequestThatIsLateIsNotSent(t *testing.T) {
	for when, look := range map[string]int{"before the database looks": 2, "after it has looked": 3} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			looking := 0 // looks at the clock from the claim on, zero before
			a := w.host(t.TempDir(), "web-1", func(o *shared.Options) {
				elapsed := o.Elapsed
				o.Elapsed = func() time.Duration {
					if looking == 0 {
						return elapsed()
					}
					if looking++; looking > look {
						return elapsed() + ledger.SendWithin
					}
					return elapsed()
				}
			})
			a.authorize()
			a.Vault = wired{a.vault, func(now string) {
				switch now {
				case "before LastLook":
					looking = 1
				case "after LastLook":
					looking = 0
				}
			}}
			_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
			if !is[*ledger.LateError](err) || w.refreshes() != 0 {
				t.Errorf("UPS granted %d refreshes: %v", w.refreshes(), err)
			}
			if rows := w.sql("SELECT outcome FROM upsauth.claims WHERE purpose = 'refresh'"); len(rows) != 1 || rows[0][0] != "unsent" {
				t.Errorf("the claims are %v", rows)
			}
			a.Vault = a.vault
			if _, err := a.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
				t.Error(err)
			}
		})
	}
}
