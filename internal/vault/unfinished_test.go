package vault_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
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
		journals, err := v.Journals(acme)
		check(t, err)
		for _, j := range journals {
			// As the keeper finishes an authorization without a sealed answer.
			got, err := v.Announced(t.Context(), j)
			if errors.Is(err, grant.ErrNoSecrets) {
				check(t, v.Abandon(t.Context(), j))
				continue
			}
			check(t, err)
			check(t, v.Put(t.Context(), got, 0))
			check(t, v.DropJournal(j))
		}
		w.wantFiles("journals")
		if _, err := v.Record(acme); errors.Is(err, grant.ErrNoGrant) {
			w.wantNothing()
		} else {
			finished++
			wantWhole(t, mustGet(t, v, acme))
			check(t, v.Check(t.Context(), acme))
			w.wantOnly("file", keyA)
		}
		check(t, v.Import(t.Context(), g, noon, nil))
		w.wantFiles("journals")
		w.wantOnly("file", keyA)
	})
	if calls < 4 || finished == 0 {
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

// A probe under a key that only its process knew stayed in a keychain for ever.
func TestProbeThatIsCutOffAnywhere(t *testing.T) {
	base := newWorld(t)
	check(t, os.MkdirAll(base.dir, 0o700))
	calls := cutOffs(t, base, func(w *world, v *vault.Vault) {
		check(t, v.Probe(t.Context(), "file", 100))
	}, func(t *testing.T, w *world) {
		v := w.open()
		noted := len(w.files("unfinished"))
		if noted == 0 && len(w.files("vault")) > 0 {
			t.Error("there is something that nothing tells of")
		}
		done, err := v.FinishWork(t.Context(), func(vault.Work) error { t.Error("a probe needs nobody"); return nil })
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
	check(t, w.open().Probe(t.Context(), "file", 100))
	w.wantNothing()
	w.wantFiles("unfinished")
}

// Whoever is at work must not have it finished by somebody else.
func TestWorkThatIsUnderWayIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	work := vault.Work{Kind: vault.WorkRename, Company: "Acme", To: "Zeta"}
	first, err := v.Announce(t.Context(), work)
	check(t, err)
	second, err := v.Announce(t.Context(), work)
	check(t, err)
	var seen []vault.Work
	finish := func() []vault.Work {
		t.Helper()
		seen = nil
		done, err := w.open().FinishWork(t.Context(), func(w vault.Work) error { seen = append(seen, w); return nil })
		check(t, err)
		return done
	}
	if done := finish(); len(done)+len(seen) > 0 {
		t.Errorf("%v, %v", done, seen)
	}
	first.Done()
	second.Leave()
	if done := finish(); len(done) != 1 || len(seen) != 1 || seen[0].Company != "Acme" || seen[0].To != "Zeta" {
		t.Errorf("%v, %v", done, seen)
	}
	w.wantFiles("unfinished")
	// Whoever begins waits for whoever finishes.
	left, err := v.Announce(t.Context(), work)
	check(t, err)
	left.Leave()
	_, err = w.open().FinishWork(t.Context(), func(vault.Work) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := v.Announce(ctx, work); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it was begun meanwhile: %v", err)
		}
		return vault.ErrLater
	})
	check(t, err)
	if len(w.files("unfinished")) != 1 {
		t.Error("what is for later is gone")
	}
}

// What is noted comes from a disk, like everything.
func TestWorkThatNobodyNoted(t *testing.T) {
	for _, text := range []string{
		`{"version":1,"kind":"probe","vault":"file","account":"../../identity"}`,
		`{"version":1,"kind":"client secret","vault":"file","account":"app/../../x"}`,
		`{"version":1,"kind":"client secret","vault":"file","account":"` + keyA + `"}`,
		`{"version":1,"kind":"rename","company":"Acme","to":" "}`,
		`{"version":1,"kind":"export","path":"relative"}`,
		`{"version":1,"kind":"anything"}`,
		`{"version":2,"kind":"rename","company":"A","to":"B"}`,
		`no JSON`, ``,
	} {
		w := newWorld(t)
		path := filepath.Join(w.dir, "unfinished", "x.json")
		w.write(path, []byte(text))
		w.write(filepath.Join(w.dir, "identity.age"), []byte("precious"))
		done, err := w.open().FinishWork(t.Context(), func(vault.Work) error { t.Errorf("%s is done", text); return nil })
		if err == nil || len(done) > 0 {
			t.Errorf("%s: %v, %v", text, done, err)
		}
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: it says %v", text, err)
		}
		if got := w.files(""); len(got) != 3 { // with the lock
			t.Errorf("%s: there are %q", text, got)
		}
	}
}

// Sweep takes what is nobody's, and no more.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	unlock, err := v.LockLogin("Acme Corp")
	check(t, err)
	before := w.files("")
	for _, name := range []string{
		"records/." + acme.Slot() + ".json1", "journals/." + acme.Slot() + "." + keyB + ".journal22", "companies/.x.log3",
		"vault/." + keyB + ".age4", "vault/" + keyA + "/.journal.age5", "vault/.identity.age6", "locks/service.lock.pid",
	} {
		w.write(filepath.Join(w.dir, filepath.FromSlash(name)), []byte("left"))
	}
	check(t, os.MkdirAll(filepath.Join(w.dir, "vault", "app", "lab"), 0o700))
	if n, err := v.Sweep(); err != nil || n != 9 {
		t.Errorf("%d, %v", n, err)
	}
	w.wantFiles("", before...)
	unlock()
	if n, err := v.Sweep(); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
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
	ofGrants, ofNobody, err := v.Probes(v.ListHomes(t.Context()))
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

// A record that a rename left with two names gets one by the next removal.
func TestRenameIsFinished(t *testing.T) {
	for _, moved := range []bool{false, true} {
		w := newWorld(t)
		v := w.open()
		g := authorize(t, v, grantOf(acme, keyA, 1))
		zeta := acme
		zeta.Company = "Zeta"
		record := g.Record
		record.Was, record.Company = acme.Company, zeta.Company
		path, at := w.recordPath(acme), acme
		if moved {
			check(t, os.Remove(path))
			path, at = w.recordPath(zeta), zeta
		}
		unread := filepath.Join(w.dir, "journals", acme.Slot()+"."+keyA+".journal.1.unread")
		w.write(unread, []byte("sealed"))
		w.write(path, []byte(recordJSON(t, record)))
		check(t, finishRemovals(t.Context(), v))
		got, err := v.Record(at)
		check(t, err)
		if got.Was != "" || got.ID != at {
			t.Errorf("moved %v: %+v", moved, got)
		}
		w.wantFiles("journals", at.Slot()+"."+keyA+".journal.1.unread")
		check(t, v.Delete(t.Context(), at))
		w.wantNothing()
	}
}

func recordJSON(t testing.TB, r grant.Record) string {
	t.Helper()
	text, err := json.Marshal(r)
	check(t, err)
	return string(text)
}
