package keeper_test

import (
	"errors"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// At every instant there is one record of the grant, under the one name or the
// other, and it works.
func TestRenameCutOffAtEveryMoment(t *testing.T) {
	wantsAll(t)
	t.Parallel()
	for _, interrupted := range []bool{false, true} {
		w := newWorld(t)
		w.authorize()
		other := w.id
		other.Company = "Ätna AG"
		prepare := func() {
			if interrupted {
				w.pass(2 * time.Hour)
				w.seal()
			}
		}
		done := false
		do := func(p *process) { done = p.Rename(t.Context(), w.id, other.Company) == nil }
		check := func(t *testing.T, _ moment) {
			records, problems, err := w.start(nil).vault.List(w.t.Context(), "")
			if err != nil || len(problems) > 0 || len(records) != 1 {
				t.Fatalf("%d records, %v, %v", len(records), problems, err)
			}
			if w.id.Company != records[0].Company {
				w.id, other = other, w.id
			}
			if w.id.Company != records[0].Company {
				t.Fatalf("the company is called %q", records[0].Company)
			}
			if result, err := w.start(nil).Refresh(t.Context(), w.id, always); err != nil || !result.Refreshed {
				t.Errorf("refreshed %t, %v", result.Refreshed, err)
			}
		}
		// A rename of few moments: there is nothing to open without a journal.
		for n := 1; n < 40 && !done; n++ {
			prepare()
			passed := 0
			p := w.start(func(moment) error {
				if passed++; passed == n {
					panic(ended{})
				}
				return nil
			})
			if p.run(func() { do(p) }) {
				check(t, moment{})
			}
		}
		if !done {
			t.Fatal("the rename never came to its end")
		}
		if n := w.outcomes(sandbox.Reused); n > 0 {
			t.Errorf("%d refresh tokens were spent twice", n)
		}
	}
}

// A rename waits for nobody to lose by it.
func TestRenameRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	p := w.start(nil)
	unlock, err := p.vault.LockLogin(t.Context(), "Ätna AG")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.start(nil).Rename(t.Context(), w.id, "Ätna AG"); !errors.Is(err, grant.ErrLoginBusy) {
		t.Errorf("while the new name is being authorized: %v", err)
	}
	unlock()
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503, Times: 1}); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}); err == nil {
		t.Fatal("the refresh succeeded")
	}
	var pending *keeper.PendingError
	if err := w.start(nil).Rename(t.Context(), w.id, "Ätna AG"); !errors.As(err, &pending) {
		t.Errorf("while the fate of a refresh is unknown: %v", err)
	}
	w.pass(retryUnknownAfter)
	w.wantNextRefresh()
	if err := w.start(nil).Rename(t.Context(), grant.ID{Company: "Nobody", Application: "a", Environment: "e"}, "Ätna AG"); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("a company that there is not: %v", err)
	}
}
