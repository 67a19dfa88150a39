package vault_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// twoHomes are the file home and one that calls itself keychain, with a test in
// the way of both.
func (w *world) twoHomes(before, after func(op, account string) error) []vault.Home {
	other := w.homeIn("other")
	return []vault.Home{
		&double{Home: w.home(), before: before, after: after},
		&double{Home: other, name: "keychain", before: before, after: after},
	}
}

func (w *world) openTwo() *vault.Vault { return w.open(w.twoHomes(nil, nil)...) }

func mustMove(t testing.TB, v *vault.Vault, id grant.ID, to string) grant.Record {
	t.Helper()
	unlock := mustLock(t, v, id)
	defer unlock()
	record, err := v.Move(t.Context(), id, to)
	check(t, err)
	return record
}

// wantOnly checks that all of a grant is in one home and nothing in the other.
func (w *world) wantOnly(home, key string) {
	w.t.Helper()
	full, empty := "vault", "other"
	if home == "keychain" {
		full, empty = empty, full
	}
	w.wantFiles(full, key+".age", "journal/"+key+".age")
	w.wantFiles(empty)
}

func TestMoveThereAndBack(t *testing.T) {
	w := newWorld(t)
	v := w.openTwo()
	g := authorize(t, v, grantOf(acme, keyA, 3))
	for _, to := range []string{"keychain", "keychain", "file"} {
		record := mustMove(t, v, acme, to)
		if record.Home != to || len(record.Superseded) != 0 {
			t.Errorf("the record is %+v", record)
		}
		w.wantOnly(to, keyA)
		v = w.openTwo()
		got := mustGet(t, v, acme)
		wantWhole(t, got)
		g.Home = to
		sameJSON(t, got, g)
		check(t, v.Check(t.Context(), acme))
	}
}

func TestMoveKeepsWhatTheRecordSays(t *testing.T) {
	w := newWorld(t)
	v := w.openTwo()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	check(t, v.Note(t.Context(), g.ID, func(l *grant.Local) {
		l.Void, l.LastError = true, &grant.LastError{Code: "10400", Message: "refused", Time: noon}
	}))
	mustMove(t, v, acme, "keychain")
	if got := mustGet(t, v, acme); !got.Void || got.LastError == nil || got.LastError.Code != "10400" {
		t.Errorf("got %+v", got.Record)
	}
}

// TestMoveCutOff guards a grant from being nowhere, or in two homes for good,
// wherever a move ends.
func TestMoveCutOff(t *testing.T) {
	base := newWorld(t)
	authorize(t, base.openTwo(), grantOf(acme, keyA, 2))
	moves := func(w *world, n int, effect bool) (at string) {
		seen := 0
		count := func(op, account string) error {
			if seen++; seen == n {
				panic(ended{op + " " + account})
			}
			return nil
		}
		homes := w.twoHomes(count, nil)
		if effect {
			homes = w.twoHomes(nil, count)
		}
		return untilItEnds(func() { mustMove(t, w.open(homes...), acme, "keychain") })
	}
	for n := 1; ; n++ {
		for _, effect := range []bool{false, true} {
			w := base.clone()
			at := moves(w, n, effect)
			if at == "" {
				if n < 8 {
					t.Errorf("a move makes only %d calls of homes", n-1)
				}
				return
			}
			t.Run(fmt.Sprintf("%d %s %v", n, at, effect), func(t *testing.T) {
				w.t = t
				got := mustGet(t, w.openTwo(), acme)
				wantWhole(t, got)
				check(t, w.openTwo().Check(t.Context(), acme))

				// The next command clears away what is in the other home.
				cleared := w.clone()
				check(t, finishRemovals(t.Context(), cleared.openTwo()))
				cleared.wantOnly(got.Home, keyA)

				// So does a refresh, whose journal must not go with it.
				refreshed := w.clone()
				v := refreshed.openTwo()
				j := refreshing(got)
				check(t, v.Claim(t.Context(), &j))
				fresh := grantOf(acme, keyA, 3)
				fresh.JournalRecipient, fresh.Home = got.JournalRecipient, got.Home
				seal(t, v, &j, fresh)
				check(t, finishRemovals(t.Context(), refreshed.openTwo()))
				settle(t, refreshed.openTwo(), acme)
				if got := mustGet(t, refreshed.openTwo(), acme); got.Generation != 3 {
					t.Errorf("the refresh is lost: generation %d", got.Generation)
				}
				refreshed.wantOnly(got.Home, keyA)

				// And the move can be made again, as can a revoke.
				moved := w.clone()
				mustMove(t, moved.openTwo(), acme, "keychain")
				check(t, finishRemovals(t.Context(), moved.openTwo()))
				moved.wantOnly("keychain", keyA)
				check(t, w.openTwo().Delete(t.Context(), acme))
				w.wantNothing()
				w.wantFiles("other")
			})
		}
	}
}

func TestMoveOutOfAHomeThatLetsNothingGo(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.openTwo(), grantOf(acme, keyA, 1))
	stubborn := w.twoHomes(func(op, _ string) error {
		if op == "delete" {
			return errLocked
		}
		return nil
	}, nil)
	record := mustMove(t, w.open(stubborn...), acme, "keychain")
	if record.Home != "keychain" || len(record.Superseded) != 1 {
		t.Errorf("the record is %+v", record)
	}
	wantWhole(t, mustGet(t, w.open(stubborn...), acme))
	if err := finishRemovals(t.Context(), w.open(stubborn...)); err == nil {
		t.Error("the home lets go what it does not")
	}
	check(t, finishRemovals(t.Context(), w.openTwo()))
	w.wantOnly("keychain", keyA)
}

func TestMoveIntoAHomeThatCantBeWritten(t *testing.T) {
	for _, fail := range []string{"/journal", ""} {
		w := newWorld(t)
		g := authorize(t, w.openTwo(), grantOf(acme, keyA, 1))
		homes := w.twoHomes(nil, nil)
		homes[1].(*double).before = func(op, account string) error {
			if op == "put" && account == keyA+fail {
				return errLocked
			}
			return nil
		}
		v := w.open(homes...)
		_, err := v.Move(t.Context(), acme, "keychain")
		wantHomeError(t, err)
		wantWhole(t, mustGet(t, w.openTwo(), acme))
		check(t, finishRemovals(t.Context(), w.openTwo()))
		sameJSON(t, mustGet(t, w.openTwo(), acme), g)
		w.wantOnly("file", keyA)
	}
}

func TestMoveMakesAJournalKeyThatIsMissing(t *testing.T) {
	w := newWorld(t)
	v := w.openTwo()
	authorize(t, v, grantOf(acme, keyA, 1))
	check(t, w.home().Delete(t.Context(), keyA+"/journal"))
	if err := v.Check(t.Context(), acme); err == nil || !strings.Contains(err.Error(), "journal of Acme Corp") {
		t.Errorf("Check: %v", err)
	}
	mustMove(t, v, acme, "keychain")
	check(t, v.Check(t.Context(), acme))
}

func TestRepairJournalKey(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	before := authorize(t, v, grantOf(acme, keyA, 1))
	check(t, w.home().Delete(t.Context(), keyA+"/journal"))
	j := refreshing(before)
	check(t, v.Claim(t.Context(), &j))
	if err := v.RepairJournalKey(t.Context(), acme); err == nil {
		t.Error("the key was replaced beside a journal that needs the old one")
	}
	over(t, v, j)
	check(t, v.RepairJournalKey(t.Context(), acme))
	check(t, v.Check(t.Context(), acme))
	got := mustGet(t, v, acme)
	if got.JournalRecipient == before.JournalRecipient {
		t.Error("the recipient is the old one")
	}
	j = refreshing(got)
	check(t, v.Claim(t.Context(), &j))
	seal(t, v, &j, grantOf(acme, keyA, 2))
	if _, err := v.Answer(t.Context(), j); err != nil {
		t.Errorf("the new key opens nothing: %v", err)
	}
}
