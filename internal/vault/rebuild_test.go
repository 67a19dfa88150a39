package vault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// listed gives a double of a file home its listing back.
type listed struct{ *double }

func (l listed) Accounts(ctx context.Context) ([]string, error) {
	return l.Home.(itemsHome).Accounts(ctx)
}

// openListed is a vault of two homes that can be listed.
func (w *world) openListed() *vault.Vault {
	other := w.homeIn("other")
	return w.open(listed{&double{Home: other, name: "keychain"}}, w.home())
}

func mustLose(t testing.TB, v *vault.Vault) []vault.Lost {
	t.Helper()
	orphans, problems, err := orphansOf(t, v)
	if err != nil || len(problems) != 0 {
		t.Fatalf("%v, %v", problems, err)
	}
	lost, err := v.Lost(t.Context(), orphans)
	check(t, err)
	return lost
}

func kinds(lost []vault.Lost) []vault.LostKind {
	var kinds []vault.LostKind
	for _, l := range lost {
		kinds = append(kinds, l.Kind)
	}
	slices.Sort(kinds)
	return kinds
}

func (w *world) damageRecord(id grant.ID) {
	w.t.Helper()
	if w.memory != nil {
		w.memory.Damage(id.Slot())
	} else {
		text := w.read(w.recordPath(id))
		w.write(w.recordPath(id), text[:len(text)/2])
	}
	if _, problems, err := w.open().List(w.t.Context(), ""); err != nil || len(problems) != 1 {
		w.t.Fatalf("%v, %v", problems, err)
	}
}

// rebuildAll rebuilds what can be, as vault check --repair does.
func rebuildAll(t testing.TB, v *vault.Vault) {
	t.Helper()
	for _, l := range mustLose(t, v) {
		if l.Kind == vault.LostGrant {
			check(t, v.Rebuild(t.Context(), l))
		}
	}
}

// A record is a projection of its grant's item: where it is lost, the item
// gives it back.
func TestRebuild(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	want := authorize(t, v, grantOf(acme, keyA, 4))
	authorize(t, v, grantOf(apex, keyB, 1))
	w.damageRecord(acme)
	lost := mustLose(t, v)
	if len(lost) != 1 || lost[0].ID != acme || lost[0].Kind != vault.LostGrant {
		t.Fatalf("lost: %+v", lost)
	}
	check(t, v.Rebuild(t.Context(), lost[0]))
	sameJSON(t, mustGet(t, w.open(), acme), want)
	if got := w.list(w.open()); len(got) != 2 {
		t.Errorf("%d records", len(got))
	}
	if again := mustLose(t, v); len(again) != 0 {
		t.Errorf("still lost: %+v", again)
	}
	if err := v.Rebuild(t.Context(), lost[0]); !errors.As(err, new(*vault.TakenError)) {
		t.Errorf("a record was written over: %v", err)
	}
}

// Of several copies the latest has the refresh token that UPS takes; with
// another one the grant would be lost.
func TestRebuildTakesTheLatestCopy(t *testing.T) {
	w := newWorld(t)
	old := authorize(t, w.openListed(), grantOf(acme, keyA, 1))
	mustMove(t, w.openListed(), acme, "keychain")
	check(t, w.home().Put(t.Context(), keyA, 1, []byte(mustJSON(t, old)))) // what a home did not let go
	fresh := grantOf(acme, keyA, 3)
	fresh.Home, fresh.JournalRecipient = "keychain", old.JournalRecipient
	mustPut(t, w.openListed(), fresh, 1)
	w.damageRecord(acme)

	lost := mustLose(t, w.openListed())
	if len(lost) != 1 || lost[0].Home != "keychain" || !slices.Equal(lost[0].Copies, []grant.Place{{TokenVaultKey: keyA, Home: "file"}}) {
		t.Fatalf("lost: %+v", lost)
	}
	check(t, w.openListed().Rebuild(t.Context(), lost[0]))
	if got := mustGet(t, w.openListed(), acme); got.Generation != 3 {
		t.Errorf("generation %d", got.Generation)
	}
	check(t, finishRemovals(t.Context(), w.openListed()))
	w.wantOnly("keychain", keyA)
}

func TestRebuildTakesTheLatestAuthorization(t *testing.T) {
	for _, keys := range [][2]string{{keyA, keyB}, {keyB, keyA}} {
		w := newWorld(t)
		for i, key := range keys {
			g := grantOf(acme, key, int64(i)+1)
			check(t, w.home().Put(t.Context(), key, g.Generation, []byte(mustJSON(t, g))))
		}
		lost := mustLose(t, w.open())
		if got := kinds(lost); !slices.Equal(got, []vault.LostKind{vault.LostGrant, vault.LostOther}) {
			t.Fatalf("lost: %+v", lost)
		}
		rebuildAll(t, w.open())
		if got := mustGet(t, w.open(), acme); got.TokenVaultKey != keys[1] {
			t.Errorf("the older authorization has the record")
		}
	}
}

// A company that was renamed has its old name in the item until its next
// refresh.
func TestRebuildAfterARename(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.open(), grantOf(acme, keyA, 1))
	zeta := acme
	zeta.Company = "Zeta \"& Söhne\""
	check(t, w.open().Rename(t.Context(), acme, zeta))
	authorize(t, w.open(), grantOf(acme, keyB, 1)) // the old name is taken anew
	w.damageRecord(zeta)
	rebuildAll(t, w.open())
	if got := mustGet(t, w.open(), zeta); got.TokenVaultKey != keyA || got.Company != zeta.Company {
		t.Errorf("%+v", got.Record)
	}
	if got := mustGet(t, w.open(), acme); got.TokenVaultKey != keyB {
		t.Errorf("%+v", got.Record)
	}
	if got := w.list(w.open()); len(got) != 2 {
		t.Errorf("%d records", len(got))
	}
}

// What has a record under any name is not lost, however its item calls it.
func TestRebuildNeverMakesASecondRecord(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.open(), grantOf(acme, keyA, 1))
	zeta := acme
	zeta.Company = "Zeta"
	check(t, w.open().Rename(t.Context(), acme, zeta))
	stale := vault.Lost{ID: acme, Place: g.Place(), Kind: vault.LostGrant} // found before the rename
	if err := w.open().Rebuild(t.Context(), stale); !errors.As(err, new(*vault.TakenError)) {
		t.Errorf("got %v", err)
	}
	if got := w.list(w.open()); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
}

// TestRenameHidesNothing guards a grant from being called an orphan because its
// record is being renamed right now.
func TestRenameHidesNothing(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.open(), grantOf(acme, keyA, 1))
	zeta := acme
	zeta.Company = "Zeta"
	done := make(chan struct{})
	go func() {
		defer close(done)
		v := w.open()
		for n := range 300 {
			from, to := acme, zeta
			if n%2 == 1 {
				from, to = zeta, acme
			}
			if err := v.Rename(t.Context(), from, to); err != nil {
				t.Error(err)
			}
		}
	}()
	for looking := true; looking; {
		select {
		case <-done:
			looking = false
		default:
		}
		if orphans, _, err := orphansOf(t, w.open()); err != nil || len(orphans) != 0 {
			t.Fatalf("%+v, %v", orphans, err)
		}
	}
}

func TestLostKinds(t *testing.T) {
	w := newWorld(t)
	tombstone := authorize(t, w.openListed(), grantOf(apex, keyC, 1))
	check(t, w.open().Note(t.Context(), tombstone.ID, func(l *grant.Local) { l.Removing = true }))
	check(t, w.home().Put(t.Context(), keyA+"/journal", 0, []byte("{}")))
	for name, content := range map[string]string{
		"not JSON":       "{",
		"another's":      mustJSON(t, grantOf(acme, keyC, 1)),
		"no company":     mustJSON(t, grantOf(grant.ID{Application: "a", Environment: "b"}, keyB, 1)),
		"an odd name":    mustJSON(t, grantOf(grant.ID{Company: "x", Application: "../a", Environment: "b"}, keyB, 1)),
		"no generation":  mustJSON(t, grantOf(acme, keyB, 0)),
		"newer upsauth":  `{"version":99}`,
		"a stray record": `{"version":1,"token_vault_key":"` + keyB + `"}`,
	} {
		check(t, w.home().Put(t.Context(), keyB, 1, []byte(content)))
		lost := mustLose(t, w.open())
		if got := kinds(lost); !slices.Equal(got, []vault.LostKind{vault.LostRemains, vault.LostUnreadable}) {
			t.Errorf("%s: %+v", name, lost)
		}
		for _, l := range lost {
			if l.Kind == vault.LostUnreadable && (l.Err == nil || strings.Contains(l.Err.Error(), "s3cret")) {
				t.Errorf("%s: %v", name, l.Err)
			}
		}
	}
}

func TestRebuildTrustsNoMachineState(t *testing.T) {
	w := newWorld(t)
	g := grantOf(acme, keyA, 1)
	g.Superseded = []grant.Place{{TokenVaultKey: "../../x", Home: "file"}}
	g.Removing, g.Was, g.Home = true, "Other", "keychain"
	check(t, w.home().Put(t.Context(), keyA, 1, []byte(mustJSON(t, g))))
	rebuildAll(t, w.open())
	record, err := w.open().Record(t.Context(), acme)
	if err != nil || len(record.Superseded) != 0 || record.Was != "" || record.Home != "file" {
		t.Errorf("%+v, %v", record, err)
	}
}

// One home that is gone must not keep the others from letting go.
func TestADeadHomeBlocksNoOther(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.openTwo(), grantOf(acme, keyA, 1))
	check(t, w.home().Put(t.Context(), keyB, 1, []byte("{}")))
	check(t, w.open().Note(t.Context(), g.ID, func(l *grant.Local) {
		l.Superseded = []grant.Place{{TokenVaultKey: keyC, Home: "keychain"}, {TokenVaultKey: keyB, Home: "file"}}
	}))
	homes := w.twoHomes(nil, nil)
	homes[1].(*double).before = func(string, string) error {
		return &vault.HomeError{Home: "keychain", What: "There is no keychain here."}
	}
	if err := finishRemovals(t.Context(), w.open(homes...)); err == nil {
		t.Error("nothing is said of the keychain")
	}
	w.wantFiles("vault", keyA+".age", "journal/"+keyA+".age")

	// A revoke removes what it can, and says what it can't.
	var left *vault.LeftError
	if err := w.open(homes...).Delete(t.Context(), acme); !errors.As(err, &left) || !strings.Contains(err.Error(), "no keychain") {
		t.Errorf("got %v", err)
	}
	w.wantFiles("vault")
	if got := w.list(w.open()); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	check(t, finishRemovals(t.Context(), w.openTwo()))
	w.wantNothing()
}

func TestMoveThatDoesNotReadBack(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.openTwo(), grantOf(acme, keyA, 1))
	homes := w.twoHomes(nil, nil)
	homes[1].(*double).after = func(op, _ string) error {
		if op == "put" {
			return errLocked // it was written and can't be read back
		}
		return nil
	}
	_, err := w.open(homes...).Move(t.Context(), acme, "keychain")
	wantHomeError(t, err)
	w.wantOnly("file", keyA)
	wantWhole(t, mustGet(t, w.openTwo(), acme))
}

func TestImportBesideWhatIsHere(t *testing.T) {
	elsewhere := func(home string) func(*world) {
		return func(w *world) {
			authorize(w.t, w.openTwo(), grantOf(acme, keyA, 2))
			if home == "keychain" {
				mustMove(w.t, w.openTwo(), acme, "keychain")
			}
		}
	}
	tests := []struct {
		name    string
		prepare func(*world)
		says    string
	}{
		{"a record that is damaged", func(w *world) { elsewhere("file")(w); w.damageRecord(acme) }, "damaged record"},
		{"a record of another name", func(w *world) {
			elsewhere("file")(w)
			zeta := acme
			zeta.Company = "Zeta"
			check(w.t, w.open().Rename(t.Context(), acme, zeta))
		}, "under the name Zeta"},
		{"an item in the same home", func(w *world) {
			check(w.t, w.home().Put(w.t.Context(), keyA, 2, []byte(mustJSON(w.t, grantOf(acme, keyA, 2)))))
		}, "in the file vault and without a record"},
		{"an item in another home", func(w *world) {
			other := w.homeIn("other")
			check(w.t, other.Put(w.t.Context(), keyA, 1, []byte(mustJSON(w.t, grantOf(acme, keyA, 1)))))
		}, "in the keychain and without a record"},
		{"its own first half", func(w *world) {
			check(w.t, w.home().Put(w.t.Context(), keyA, 1, []byte(mustJSON(w.t, grantOf(acme, keyA, 1)))))
		}, ""},
		{"nothing", func(*world) {}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.prepare(w)
			err := w.openTwo().Import(t.Context(), grantOf(acme, keyA, 1), noon, nil)
			if test.says == "" {
				check(t, err)
				wantWhole(t, mustGet(t, w.openTwo(), acme))
				check(t, w.openTwo().Check(t.Context(), acme))
				return
			}
			var present *vault.PresentError
			if !errors.As(err, &present) || !strings.Contains(fmt.Sprint(err), test.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestANewerJournalKeyIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.open(), grantOf(acme, keyA, 1))
	check(t, w.home().Put(t.Context(), keyA+"/journal", 0, []byte(`{"version":99}`)))
	var newer *vault.NewerError
	for _, err := range []error{w.open().Check(t.Context(), acme), w.open().RepairJournalKey(t.Context(), acme)} {
		if !errors.As(err, &newer) {
			t.Errorf("got %v", err)
		}
	}
}

// A key that is good is kept, and so is one that an answer which nobody could
// use still needs.
func TestRepairKeepsAGoodJournalKey(t *testing.T) {
	w := newWorld(t)
	before := authorize(t, w.open(), grantOf(acme, keyA, 1))
	check(t, w.open().RepairJournalKey(t.Context(), acme))
	sameJSON(t, mustGet(t, w.open(), acme), before)
}

func mustJSON(t testing.TB, g grant.Grant) string {
	t.Helper()
	text, err := json.Marshal(g)
	check(t, err)
	return string(text)
}

// A place that is listed and can't be read may have the latest copy: with an
// older one the grant would be lost.
func TestRebuildWaitsForAPlaceThatCantBeRead(t *testing.T) {
	for _, order := range []int{0, 1} {
		w := newWorld(t)
		old, fresh := grantOf(acme, keyA, 1), grantOf(acme, keyA, 3)
		other := w.homeIn("other")
		check(t, other.Put(t.Context(), keyA, 1, []byte(mustJSON(t, old))))
		check(t, w.home().Put(t.Context(), keyA, 3, []byte(mustJSON(t, fresh))))
		closed := func(op, _ string) error {
			if op == "get" {
				return errLocked
			}
			return nil
		}
		homes := []vault.Home{listed{&double{Home: other, name: "keychain"}}, listed{&double{Home: w.home(), before: closed}}}
		if order == 1 {
			slices.Reverse(homes)
		}
		lost := mustLose(t, w.open(homes...))
		if len(lost) != 1 || lost[0].Kind != vault.LostUnreadable {
			t.Errorf("order %d: %+v", order, lost)
		}
	}
}

// What is left of a damaged record tells how new the grant was.
func TestRebuildTakesNothingOlderThanTheRecord(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.open(), grantOf(acme, keyA, 5))
	w.damageRecord(acme)
	check(t, w.home().Put(t.Context(), keyA, 4, []byte(mustJSON(t, grantOf(acme, keyA, 4)))))
	if lost := mustLose(t, w.open()); len(lost) != 1 || lost[0].Kind != vault.LostUnreadable {
		t.Errorf("%+v", lost)
	}
	check(t, w.home().Put(t.Context(), keyA, 5, []byte(mustJSON(t, g))))
	if lost := mustLose(t, w.open()); len(lost) != 1 || lost[0].Kind != vault.LostGrant {
		t.Errorf("%+v", lost)
	}
}
