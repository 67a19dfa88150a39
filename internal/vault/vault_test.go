package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

func TestLifeOfAGrant(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	if _, err := v.Get(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("before there is one: %v", err)
	}
	if err := v.Delete(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("before there is one: %v", err)
	}
	g := authorize(t, v, grantOf(acme, keyA, 1))
	for generation := int64(2); generation <= 4; generation++ {
		next := grantOf(acme, keyA, generation)
		next.JournalRecipient = g.JournalRecipient
		mustPut(t, v, next, generation-1)
		for _, v := range []*vault.Vault{v, w.open()} {
			sameJSON(t, mustGet(t, v, acme), next)
			record, err := v.Record(t.Context(), acme)
			check(t, err)
			sameJSON(t, record, next.Record)
		}
	}
	w.wantFiles("vault", keyA+".age", "journal/"+keyA+".age")
	other := authorize(t, v, grantOf(apex, keyB, 1))
	check(t, v.Delete(t.Context(), acme))
	if _, err := v.Get(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("after it was removed: %v", err)
	}
	if err := v.Delete(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("removing it again: %v", err)
	}
	sameJSON(t, mustGet(t, v, apex), other)
	check(t, v.Delete(t.Context(), apex))
	w.wantNothing()
}

// Two processes that both read generation 3 must not both write generation 4:
// the second would throw away a refresh token that was never used.
func TestPutOfWhatWasChangedMeanwhile(t *testing.T) {
	tests := []struct {
		name     string
		prepare  func(*testing.T, *world, *vault.Vault)
		put      grant.Grant
		expected int64
	}{
		{"an older generation is expected", nil, grantOf(acme, keyA, 3), 2},
		{"a newer generation is expected", nil, grantOf(acme, keyA, 5), 4},
		{"another key stands there", nil, grantOf(acme, keyB, 4), 3},
		{"no grant is there", nil, grantOf(apex, keyA, 4), 3},
		{"it is being removed", func(t *testing.T, w *world, _ *vault.Vault) {
			dying := &double{Home: w.home(), before: func(op, _ string) error {
				if op == "delete" {
					return errLocked
				}
				return nil
			}}
			wantHomeError(t, w.open(dying).Delete(t.Context(), acme))
		}, grantOf(acme, keyA, 4), 3},
		{"it was removed", func(t *testing.T, _ *world, v *vault.Vault) { check(t, v.Delete(t.Context(), acme)) }, grantOf(acme, keyA, 4), 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			v := w.open()
			mustPut(t, v, grantOf(acme, keyA, 3), 0)
			if test.prepare != nil {
				test.prepare(t, w, v)
			}
			before := [2][]string{w.files("records"), w.files("vault")}
			if err := v.Put(t.Context(), test.put, test.expected, nil); !errors.Is(err, grant.ErrConflict) {
				t.Errorf("got %v", err)
			}
			w.wantFiles("records", before[0]...)
			w.wantFiles("vault", before[1]...)
			if g, err := v.Get(t.Context(), acme); err == nil {
				sameJSON(t, g, grantOf(acme, keyA, 3))
			} else if !errors.Is(err, grant.ErrNoGrant) {
				t.Error(err)
			}
		})
	}
}

func TestNewGrantTakesThePlaceOfTheEarlierOne(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	old := authorize(t, v, grantOf(acme, keyA, 5))
	j := refreshing(old)
	check(t, v.Claim(t.Context(), &j))
	check(t, v.Prove(t.Context(), acme, "file", keyA, 100))

	authorize(t, v, grantOf(acme, keyB, 1))
	g := mustGet(t, v, acme)
	wantWhole(t, g)
	if g.TokenVaultKey != keyB || len(g.Superseded) != 0 {
		t.Errorf("the grant is %s, superseding %v", g.TokenVaultKey, g.Superseded)
	}
	w.wantFiles("vault", keyB+".age", "journal/"+keyB+".age")
	w.wantFiles("journals/open")
	if records := w.list(v); len(records) != 1 {
		t.Errorf("there are %v", records)
	}
}

// The company was authorized in the keychain, and now in a session that has
// none: the new grant counts at once, what is left of the old one goes when its
// home can be opened again.
func TestSupersededItemsWaitForTheirHome(t *testing.T) {
	w := newWorld(t)
	elsewhere := newWorld(t)
	keychain := &double{Home: elsewhere.home(), name: "keychain"}
	file := w.home()
	inKeychain := grantOf(acme, keyA, 5)
	inKeychain.Home = "keychain"
	inKeychain = authorize(t, w.open(keychain, file), inKeychain)
	pending := refreshing(inKeychain)
	check(t, w.open(keychain, file).Claim(t.Context(), &pending))

	closed := locked(elsewhere.home())
	closed.name = "keychain"
	v := w.open(file, closed)
	authorize(t, v, grantOf(acme, keyB, 1))
	g := mustGet(t, v, acme)
	if wantWhole(t, g); g.TokenVaultKey != keyB || len(g.Superseded) != 1 || g.Superseded[0].TokenVaultKey != keyA {
		t.Fatalf("the grant is %s, superseding %v", g.TokenVaultKey, g.Superseded)
	}
	elsewhere.wantFiles("vault", keyA+".age", "journal/"+keyA+".age")
	// The old grant's cut-off refresh means nothing for the new one.
	if records := w.list(v); len(records) != 1 || records[0].Interrupted {
		t.Errorf("there are %+v", records)
	}

	v = w.open(file, keychain)
	mustPut(t, v, grantOf(acme, keyB, 2), 1)
	g = mustGet(t, v, acme)
	if wantWhole(t, g); g.Generation != 2 || len(g.Superseded) != 0 {
		t.Errorf("the grant is generation %d, superseding %v", g.Generation, g.Superseded)
	}
	elsewhere.wantFiles("vault")
	w.wantFiles("journals/open")
}

func TestDeleteRemovesSupersededItemsToo(t *testing.T) {
	w, elsewhere := newWorld(t), newWorld(t)
	keychain := &double{Home: elsewhere.home(), name: "keychain"}
	inKeychain := grantOf(acme, keyA, 1)
	inKeychain.Home = "keychain"
	authorize(t, w.open(keychain), inKeychain)
	closed := locked(elsewhere.home())
	closed.name = "keychain"
	authorize(t, w.open(w.home(), closed), grantOf(acme, keyB, 1))

	// While the old home is closed the removal is begun, and the grant is gone.
	wantHomeError(t, w.open(w.home(), closed).Delete(t.Context(), acme))
	if records := w.list(w.open()); len(records) != 0 {
		t.Errorf("there are %v", records)
	}
	check(t, finishRemovals(t.Context(), w.open(w.home(), keychain)))
	w.wantNothing()
	elsewhere.wantNothing()
}

// What a record says beside the grant's state is never taken over from what a caller
// hands in.
func TestPutMakesAFreshRecord(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := grantOf(acme, keyA, 1)
	g.Void, g.Removing, g.Was, g.Interrupted = true, true, "Old Name", true
	g.LastError = &grant.LastError{Code: "x"}
	g.Superseded = []grant.Place{{TokenVaultKey: keyB, Home: "file"}}
	mustPut(t, v, g, 0)
	want := grantOf(acme, keyA, 1)
	want.Void, want.LastError = g.Void, g.LastError
	sameJSON(t, mustGet(t, v, acme), want)
}

func TestGrantWhoseItemCantBeRead(t *testing.T) {
	tests := []struct {
		name      string
		item      func(w *world) error
		home      func(w *world) vault.Home
		noSecrets bool // what a journal has may make up for it
		missing   bool
		says      string
	}{
		{"gone", func(w *world) error { return w.home().Delete(context.Background(), keyA) }, nil, true, true, "Acme Corp"},
		{"damaged in its home", func(w *world) error {
			onDisk(w.t, "an age file that is damaged")
			w.write(w.dir+"/vault/"+keyA+".age", []byte("x"))
			return nil
		}, nil, true, false, "damaged"},
		{"damaged when it was written", func(w *world) error { return w.home().Put(context.Background(), keyA, 1, []byte(`{"tokens-s3cret`)) }, nil, true, false, "Acme Corp"},
		{"another grant's", func(w *world) error {
			return w.home().Put(context.Background(), keyA, 1, []byte(`{"version":1,"token_vault_key":"`+keyB+`"}`))
		}, nil, true, false, keyA},
		{"in a home that is locked", nil, func(w *world) vault.Home { return locked(w.home()) }, false, false, "locked"},
		{"in a home that there is not", nil, func(w *world) vault.Home { return &double{Home: w.home(), name: "keychain"} }, false, false, `"file"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			g := authorize(t, w.open(), grantOf(acme, keyA, 1))
			if test.item != nil {
				check(t, test.item(w))
			}
			v := w.open()
			if test.home != nil {
				v = w.open(test.home(w))
			}
			_, err := v.Get(t.Context(), acme)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
			if got := errors.Is(err, grant.ErrNoSecrets); got != test.noSecrets {
				t.Errorf("ErrNoSecrets: %v, of %v", got, err)
			}
			var missing *vault.MissingError
			if got := errors.As(err, &missing); got != test.missing {
				t.Errorf("MissingError: %v, of %v", got, err)
			}
			if records := w.list(v); len(records) != 1 {
				t.Errorf("there are %v", records)
			}
			if !test.noSecrets {
				return
			}
			// The answer of its last refresh is put in its place, or the grant is
			// removed: neither may need the item.
			removed := w.clone()
			err = removed.open().Delete(t.Context(), acme)
			if errors.Is(err, grant.ErrNothingThere) != test.missing || err != nil && !test.missing {
				t.Errorf("the removal says %v", err)
			}
			removed.wantNothing()
			next := grantOf(acme, keyA, 2)
			next.JournalRecipient = g.JournalRecipient
			mustPut(t, v, next, 0)
			sameJSON(t, mustGet(t, v, acme), next)
		})
	}
}

func TestHomeThatThereIsNot(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := grantOf(acme, keyA, 1)
	g.Home = "paper"
	j := grant.Journal{ID: acme, TokenVaultKey: keyA, Home: "paper"}
	_, secretErr := v.Secret(t.Context(), "paper", "app/x/y")
	_, answerErr := v.Answer(t.Context(), j)
	for name, err := range map[string]error{
		"Put": v.Put(t.Context(), g, 0, nil), "Begin": v.Claim(t.Context(), &j), "Prove": v.Prove(t.Context(), acme, "paper", keyA, 1), "Answer": answerErr, "Secret": secretErr,
		"PutSecret": v.PutSecret(t.Context(), "paper", "app/x/y", "z"), "DeleteSecret": v.DeleteSecret(t.Context(), "paper", "app/x/y"),
	} {
		if err == nil || !strings.Contains(err.Error(), `"paper"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.wantNothing()
}

// Nothing is spent before the home has shown that it can be written.
func TestProve(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.open(), grantOf(acme, keyA, 1))
	var size int
	home := &double{Home: w.home()}
	home.after = func(op, account string) error {
		if op == "put" {
			probe, err := w.home().Get(t.Context(), account)
			size = len(probe)
			return err
		}
		return nil
	}
	v := w.open(home)
	check(t, v.Prove(t.Context(), acme, "file", keyA, 5000))
	if size < 5000 {
		t.Errorf("the probe had %d bytes", size)
	}
	w.wantFiles("vault", keyA+".age", "journal/"+keyA+".age")
	sameJSON(t, mustGet(t, v, acme), g)

	for _, refused := range []string{"put", "delete"} {
		home.before = func(op, _ string) error {
			if op == refused {
				return errLocked
			}
			return nil
		}
		wantHomeError(t, v.Prove(t.Context(), acme, "file", keyA, 10))
		sameJSON(t, mustGet(t, v, acme), g)
	}
	// What a proof left behind goes with the grant.
	home.before = nil
	check(t, v.Delete(t.Context(), acme))
	w.wantNothing()
}

func TestClientSecrets(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	const account = "app/production/intelligent-rating"
	if _, err := v.Secret(t.Context(), "file", account); !errors.Is(err, vault.ErrNoItem) {
		t.Errorf("before there is one: %v", err)
	}
	for _, secret := range []string{"first", "rotated", "with \"quotes\" and é", strings.Repeat("long", 5000), ""} {
		check(t, v.PutSecret(t.Context(), "file", account, secret))
		if got, err := w.open().Secret(t.Context(), "file", account); err != nil || got != secret {
			t.Errorf("%q came back as %q, %v", secret, got, err)
		}
	}
	check(t, w.home().Put(t.Context(), account, 0, []byte(`{"client_secret": s3cret`)))
	if got, err := v.Secret(t.Context(), "file", account); err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), account) {
		t.Errorf("damaged: %q, %v", got, err)
	}
	check(t, v.DeleteSecret(t.Context(), "file", account))
	if err := v.DeleteSecret(t.Context(), "file", account); !errors.Is(err, vault.ErrNoItem) {
		t.Errorf("what is not there was deleted: %v", err)
	}
	w.wantNothing()
}

func TestDeleteTellsOfAClosedHomeBeforeItChangesAnything(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.open(), grantOf(acme, keyA, 1))
	record, err := w.open().Record(t.Context(), acme)
	check(t, err)
	wantHomeError(t, w.open(locked(w.home())).Delete(t.Context(), acme))
	now, err := w.open().Record(t.Context(), acme)
	check(t, err)
	sameJSON(t, now, record)
	sameJSON(t, mustGet(t, w.open(), acme), g)
}

// An authorization was cut off between item and record: the item is as good as
// the answer, which may be gone.
func TestAnnounced(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyB)
	check(t, v.Claim(t.Context(), &j))
	if _, err := v.Announced(t.Context(), j); !errors.Is(err, grant.ErrNoSecrets) {
		t.Errorf("before there is an item: %v", err)
	}
	want := grantOf(acme, keyB, 1)
	mustPut(t, v, want, 0)
	w.loseRecord(acme)
	got, err := v.Announced(t.Context(), j)
	check(t, err)
	sameJSON(t, got, want)
	_, err = w.open(locked(w.home())).Announced(t.Context(), j)
	wantHomeError(t, err)
}

func TestFinishRemovalsDoesWhatItCan(t *testing.T) {
	w, elsewhere := newWorld(t), newWorld(t)
	keychain := &double{Home: elsewhere.home(), name: "keychain"}
	ids := map[string]grant.ID{}
	for i, name := range []string{"A", "B", "C", "D", "E", "F"} {
		id := grant.ID{Company: name, Application: "batch-suite", Environment: "cie"}
		ids[name] = id
		g := grantOf(id, strings.Repeat(name, 8)+"-3C21-4F7E-B122-8BF55EA80CDA", 1)
		if i%2 == 0 {
			g.Home = "keychain"
		}
		authorize(t, w.open(w.home(), keychain), g)
	}
	// All but F are being removed, and somebody is at work on E.
	stop := func(h vault.Home, name string) *double {
		return &double{Home: h, name: name, before: func(op, _ string) error {
			if op == "delete" {
				return errLocked
			}
			return nil
		}}
	}
	for _, name := range []string{"A", "B", "C", "D", "E"} {
		wantHomeError(t, w.open(stop(w.home(), "file"), stop(elsewhere.home(), "keychain")).Delete(t.Context(), ids[name]))
	}
	unlock := mustLock(t, w.open(), ids["E"])
	closed := locked(elsewhere.home())
	closed.name = "keychain"

	wantHomeError(t, finishRemovals(t.Context(), w.open(w.home(), closed)))
	w.wantFiles("vault", strings.Repeat("F", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age", "journal/"+strings.Repeat("F", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age")
	if closed.calls.Load() != 1 {
		t.Errorf("the closed home was asked %d times", closed.calls.Load())
	}
	elsewhere.wantFiles("vault", strings.Repeat("A", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age", "journal/"+strings.Repeat("A", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age", strings.Repeat("C", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age", "journal/"+strings.Repeat("C", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age", strings.Repeat("E", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age", "journal/"+strings.Repeat("E", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age")

	check(t, finishRemovals(t.Context(), w.open(w.home(), keychain)))
	elsewhere.wantFiles("vault", strings.Repeat("E", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age", "journal/"+strings.Repeat("E", 8)+"-3C21-4F7E-B122-8BF55EA80CDA.age")
	unlock()
	check(t, finishRemovals(t.Context(), w.open(w.home(), keychain)))
	elsewhere.wantNothing()
	if records := w.list(w.open()); len(records) != 1 || records[0].ID != ids["F"] {
		t.Errorf("there are %v", records)
	}
}

func TestFinishRemovalsEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.open(), grantOf(acme, keyA, 1))
	wantHomeError(t, w.open(&double{Home: w.home(), before: func(op, _ string) error {
		if op == "delete" {
			return errLocked
		}
		return nil
	}}).Delete(t.Context(), acme))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := finishRemovals(ctx, w.open()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// An item is not opened again that is as it was when it was read. Another process may have
// put a newer one in its place.
func TestPutComparesWithTheItemOfNow(t *testing.T) {
	onDisk(t, "the file vault's items have revisions")
	w := newWorld(t)
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	path := filepath.Join(t.TempDir(), "identity")
	check(t, os.WriteFile(path, []byte(identity.String()), 0o600))
	open := func() *vault.Vault { return w.open(agefile.New(filepath.Join(w.dir, "vault"), path)) }
	v := open()
	mustPut(t, v, grantOf(acme, keyA, 3), 0)
	mustGet(t, v, acme)
	mustPut(t, v, grantOf(acme, keyA, 4), 3)
	mustGet(t, v, acme)

	other := open()
	mustGet(t, other, acme)
	mustPut(t, other, grantOf(acme, keyA, 5), 4)
	if err := v.Put(t.Context(), grantOf(acme, keyA, 5), 4, nil); !errors.Is(err, grant.ErrConflict) {
		t.Errorf("a newer item was replaced: %v", err)
	}
	// An older one that came back is not taken for the one that was read either.
	newer := w.read(filepath.Join(w.dir, "vault", keyA+".age"))
	mustGet(t, v, acme)
	mustPut(t, other, grantOf(acme, keyA, 6), 5)
	mustGet(t, other, acme)
	w.write(filepath.Join(w.dir, "vault", keyA+".age"), newer)
	if err := other.Put(t.Context(), grantOf(acme, keyA, 7), 6, nil); !errors.Is(err, grant.ErrConflict) {
		t.Errorf("an item of another generation was replaced: %v", err)
	}
}
