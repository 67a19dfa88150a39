package vault_test

import (
	"errors"
	"os"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// An import that is cut off is told of by its journal: what lies in the home is
// no orphan, and is put in place or cleared away.
func TestImportThatIsCutOffAnywhere(t *testing.T) {
	base := newWorld(t)
	check(t, os.MkdirAll(base.dir, 0o700))
	g := grantOf(acme, keyA, 3)
	finished := 0
	calls := cutOffs(t, base, func(w *world, v *vault.Vault) {
		unlock := mustLock(t, v, acme)
		defer unlock()
		check(t, v.Import(t.Context(), g, noon, nil))
	}, func(t *testing.T, w *world) {
		v := w.open(listed{&double{Home: w.home()}})
		wantOrphans(t, v)
		unlock := mustLock(t, v, acme)
		defer unlock()
		journals, err := v.Attempts(t.Context(), acme)
		check(t, err)
		for _, j := range journals {
			// As the keeper finishes an authorization without a sealed answer.
			got, err := v.Announced(t.Context(), j)
			if errors.Is(err, grant.ErrNoSecrets) {
				check(t, v.Abandon(t.Context(), j))
				continue
			}
			check(t, err)
			check(t, v.Put(t.Context(), got, 0, &j))
		}
		w.wantFiles("journals/open")
		if _, err := v.Record(t.Context(), acme); errors.Is(err, grant.ErrNoGrant) {
			w.wantNothing()
		} else {
			finished++
			wantWhole(t, mustGet(t, v, acme))
			check(t, v.Check(t.Context(), acme))
			w.wantOnly("file", keyA)
		}
		check(t, v.Import(t.Context(), g, noon, nil))
		w.wantFiles("journals/open")
		w.wantOnly("file", keyA)
	})
	// Where item and record are one change, none is there without the other.
	if calls < 4 || finished == 0 && base.memory == nil {
		t.Errorf("the home was called %d times, %d imports were finished", calls, finished)
	}
}

// An import that fails takes back what it wrote, and nothing that was here.
func TestImportThatFailsLeavesNothing(t *testing.T) {
	w := newWorld(t)
	full := &double{Home: w.home(), before: func(op, account string) error {
		if op == "put" && account == keyA {
			return errLocked
		}
		return nil
	}}
	wantHomeError(t, w.open(full).Import(t.Context(), grantOf(acme, keyA, 1), noon, nil))
	w.wantNothing()
	check(t, w.home().Put(t.Context(), keyA, 1, []byte(mustJSON(t, grantOf(acme, keyA, 1)))))
	wantHomeError(t, w.open(full).Import(t.Context(), grantOf(acme, keyA, 1), noon, nil))
	if _, err := w.home().Get(t.Context(), keyA); err != nil {
		t.Errorf("what was here is gone: %v", err)
	}
}

// A refresh that is killed leaves its probe beside the grant until the next one.
func TestProbesAreFoundAndDropped(t *testing.T) {
	w := newWorld(t)
	home := listed{&double{Home: w.home()}}
	v := w.open(home)
	authorize(t, v, grantOf(acme, keyA, 1))
	for _, key := range []string{keyA, keyB} {
		check(t, w.home().Put(t.Context(), key+"/probe", 0, []byte("{}")))
	}
	ofGrants, ofNobody, err := v.Probes(t.Context(), v.ListHomes(t.Context()), func(string) bool { return false })
	if err != nil || len(ofGrants) != 1 || ofGrants[0].TokenVaultKey != keyA || len(ofNobody) != 1 || ofNobody[0].TokenVaultKey != keyB {
		t.Errorf("%v, %v, %v", ofGrants, ofNobody, err)
	}
	// A refresh holds the lock from before its probe.
	unlock := mustLock(t, v, acme)
	if n, err := w.open(home).DropProbes(t.Context(), ofGrants); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	unlock()
	if n, err := v.DropProbes(t.Context(), append(ofGrants, ofNobody...)); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	w.wantOnly("file", keyA)
}

// A probe under a key that only its process knew stayed in a keychain for ever.
func TestProbeThatIsCutOffAnywhere(t *testing.T) {
	onDisk(t, "unfinished work is noted in files")
	base := newWorld(t)
	check(t, os.MkdirAll(base.dir, 0o700))
	calls := cutOffs(t, base, func(w *world, v *vault.Vault) {
		check(t, w.disk().Probe(t.Context(), v, "file", 100))
	}, func(t *testing.T, w *world) {
		v := w.open()
		noted := len(w.files("unfinished"))
		if noted == 0 && len(w.files("vault")) > 0 {
			t.Error("there is something that nothing tells of")
		}
		done, err := w.disk().FinishWork(t.Context(), func(f files.Work) error { return v.DropProbe(t.Context(), f.Home, f.Account) })
		if err != nil || len(done) != noted {
			t.Errorf("%v, %v", done, err)
		}
		w.wantNothing()
		w.wantFiles("unfinished")
	})
	if calls != 3 {
		t.Errorf("the home was called %d times", calls)
	}
	w := newWorld(t)
	check(t, w.disk().Probe(t.Context(), w.open(), "file", 100))
	w.wantNothing()
	w.wantFiles("unfinished")
}
