package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// ended is what a home panics with when the process ends within a call: nothing
// that would come after it happens.
type ended struct{ at string }

// cutOffs has f work on copies of a world, in a process that ends before its
// first call of the home, right after it, before the second and so on, and has
// check look at what each left behind. It returns how many calls f makes.
func cutOffs(t *testing.T, base *world, f func(*world, *vault.Vault), check func(t *testing.T, w *world)) int {
	t.Helper()
	for n := 1; ; n++ {
		for _, effect := range []bool{false, true} {
			w := base.clone()
			seen := 0
			end := func(op, account string, after bool) error {
				if seen == n && after == effect {
					panic(ended{op + " " + account})
				}
				return nil
			}
			home := &double{
				Home:   w.home(),
				before: func(op, account string) error { seen++; return end(op, account, false) },
				after:  func(op, account string) error { return end(op, account, true) },
			}
			at := untilItEnds(func() { f(w, w.open(home)) })
			if seen < n {
				return n - 1
			}
			if at == "" {
				continue // a call that failed has no effect
			}
			t.Run(fmt.Sprintf("%d %s %v", n, at, effect), func(t *testing.T) {
				w.t = t
				check(t, w)
			})
		}
	}
}

// untilItEnds returns in which call f ended, empty where it came to its end.
func untilItEnds(f func()) (at string) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case ended:
			at = p.at
		default:
			panic(p)
		}
	}()
	f()
	return ""
}

// seal seals a grant as if it were UPS's answer.
func seal(t testing.TB, v *vault.Vault, j *grant.Journal, g grant.Grant) {
	t.Helper()
	text, err := json.Marshal(g)
	check(t, err)
	check(t, v.Seal(t.Context(), j, nil, text))
}

// A refresh that is cut off leaves the old grant or the new one, and after the
// next command it is the new one: its refresh token is the only one that UPS
// still takes.
func TestRefreshThatIsCutOffAnywhere(t *testing.T) {
	base := newWorld(t)
	old := authorize(t, base.open(), grantOf(acme, keyA, 3))
	fresh := grantOf(acme, keyA, 4)
	fresh.JournalRecipient = old.JournalRecipient
	calls := cutOffs(t, base, func(w *world, v *vault.Vault) {
		check(t, v.Prove(t.Context(), acme, "file", keyA, 500))
		j := refreshing(old)
		check(t, v.Claim(t.Context(), &j))
		seal(t, v, &j, fresh)
		check(t, v.Put(t.Context(), fresh, 3, &j))
	}, func(t *testing.T, w *world) {
		sent := len(w.files("journals/open")) > 0
		v := w.open()
		now := mustGet(t, v, acme)
		wantWhole(t, now)
		if records := w.list(v); len(records) != 1 || records[0].Interrupted != sent {
			t.Errorf("there are %+v", records)
		}
		settle(t, v, acme)
		want := old
		if sent {
			want = fresh
		}
		sameJSON(t, mustGet(t, w.open(), acme), want)
		record, err := v.Record(t.Context(), acme)
		check(t, err)
		sameJSON(t, record, want.Record)
		w.wantFiles("journals/open")
		check(t, v.Delete(t.Context(), acme))
		w.wantNothing()
	})
	if calls < 4 {
		t.Errorf("the home was called %d times", calls)
	}
}

// An authorization that is cut off leaves the earlier grant as it was, or the
// new one and nothing of the earlier.
func TestAuthorizationThatIsCutOffAnywhere(t *testing.T) {
	base := newWorld(t)
	old := authorize(t, base.open(), grantOf(acme, keyA, 3))
	calls := cutOffs(t, base, func(w *world, v *vault.Vault) {
		j := login(acme, keyB)
		j.Replaces = keyA
		check(t, v.Claim(t.Context(), &j))
		check(t, v.Prove(t.Context(), acme, "file", keyB, 500))
		fresh := grantOf(acme, keyB, 1)
		fresh.JournalRecipient = j.Recipient
		seal(t, v, &j, fresh)
		check(t, v.Put(t.Context(), fresh, 0, &j))
	}, func(t *testing.T, w *world) {
		v := w.open()
		wantWhole(t, mustGet(t, v, acme))
		journals, err := v.Attempts(t.Context(), acme)
		check(t, err)
		answered := slices.ContainsFunc(journals, func(j grant.Journal) bool { return j.TokenVaultKey == keyB && j.Answered })
		settle(t, v, acme)
		got := mustGet(t, w.open(), acme)
		wantWhole(t, got)
		w.wantFiles("journals/open")
		if !answered {
			sameJSON(t, got, old)
			w.wantFiles("vault", keyA+".age", "journal/"+keyA+".age")
		} else if got.TokenVaultKey != keyB {
			t.Errorf("the answer is lost: there is %s", got.TokenVaultKey)
		}
		// What a cut left of the earlier grant goes with the next write.
		mustPut(t, v, grantOf(acme, got.TokenVaultKey, got.Generation+1), got.Generation)
		w.wantFiles("vault", got.TokenVaultKey+".age", "journal/"+got.TokenVaultKey+".age")
		check(t, v.Delete(t.Context(), acme))
		w.wantNothing()
	})
	if calls < 7 {
		t.Errorf("the home was called %d times", calls)
	}
}

// A removal that has begun is finished by whatever command comes next, and what
// it removed never comes back.
func TestRemovalThatIsCutOffAnywhere(t *testing.T) {
	base := newWorld(t)
	g := authorize(t, base.open(), grantOf(acme, keyA, 3))
	j := refreshing(g)
	check(t, base.open().Claim(t.Context(), &j))
	seal(t, base.open(), &j, grantOf(acme, keyA, 4))
	abandoned := login(acme, keyC)
	check(t, base.open().Claim(t.Context(), &abandoned))
	seal(t, base.open(), &abandoned, grantOf(acme, keyC, 1))
	neighbour := authorize(t, base.open(), grantOf(apex, keyB, 1))

	finish := map[string]func(*testing.T, *vault.Vault){
		"the next removal of any company": func(t *testing.T, v *vault.Vault) { check(t, finishRemovals(t.Context(), v)) },
		"removing it again": func(t *testing.T, v *vault.Vault) {
			unlock := mustLock(t, v, acme)
			defer unlock()
			check(t, v.Delete(t.Context(), acme))
		},
		"authorizing the company again": func(t *testing.T, v *vault.Vault) {
			fresh := "DDDDDDDD-3C21-4F7E-B122-8BF55EA80CDA"
			settle(t, v, acme)
			authorize(t, v, grantOf(acme, fresh, 1))
			if got := mustGet(t, v, acme); got.TokenVaultKey != fresh {
				t.Errorf("there is %s", got.TokenVaultKey)
			}
			check(t, v.Delete(t.Context(), acme))
		},
	}
	calls := cutOffs(t, base, func(w *world, v *vault.Vault) {
		unlock := mustLock(t, v, acme)
		defer unlock()
		check(t, v.Delete(t.Context(), acme))
	}, func(t *testing.T, w *world) {
		v := w.open()
		if _, err := v.Record(t.Context(), acme); err == nil {
			// It was cut off before it began, and all is as it was.
			wantWhole(t, mustGet(t, v, acme))
			if got, err := v.Answer(t.Context(), j); err != nil || len(got.Text) == 0 {
				t.Errorf("the journal is lost: %v", err)
			}
			return
		} else if !errors.Is(err, grant.ErrNoGrant) {
			t.Fatal(err)
		}
		// A sealed authorization behind a tombstone would be put in place.
		if journals, err := v.Attempts(t.Context(), acme); err != nil || slices.ContainsFunc(journals, func(j grant.Journal) bool { return j.Purpose == grant.Authorizing }) {
			t.Errorf("the journals are %+v, %v", journals, err)
		}
		if records := w.list(v); len(records) != 1 || records[0].ID != apex {
			t.Errorf("there are %+v", records)
		}
		if _, err := v.Get(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
			t.Errorf("Get: %v", err)
		}
		if err := v.Put(t.Context(), grantOf(acme, keyA, 4), 3, nil); !errors.Is(err, grant.ErrConflict) {
			t.Errorf("a late refresh brings it back: %v", err)
		}
		for name, f := range finish {
			t.Run(name, func(t *testing.T) {
				w := w.clone()
				w.t = t
				v := w.open()
				f(t, v)
				sameJSON(t, mustGet(t, v, apex), neighbour)
				check(t, v.Delete(t.Context(), apex))
				w.wantNothing()
			})
		}
	})
	if calls < 4 {
		t.Errorf("the home was called %d times", calls)
	}
}
