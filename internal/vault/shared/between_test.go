package shared_test

import (
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
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
