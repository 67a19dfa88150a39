package files_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/vault/files"
)

// Whoever is at work must not have it finished by somebody else.
func TestWorkThatIsUnderWayIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	disk := w.disk()
	work := files.Work{Kind: files.WorkRename, Company: "Acme", To: "Zeta"}
	first, err := disk.Announce(t.Context(), work)
	check(t, err)
	second, err := disk.Announce(t.Context(), work)
	check(t, err)
	var seen []files.Work
	finish := func() []files.Work {
		t.Helper()
		seen = nil
		done, err := w.disk().FinishWork(t.Context(), func(w files.Work) error { seen = append(seen, w); return nil })
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
	left, err := disk.Announce(t.Context(), work)
	check(t, err)
	left.Leave()
	_, err = w.disk().FinishWork(t.Context(), func(files.Work) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := disk.Announce(ctx, work); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it was begun meanwhile: %v", err)
		}
		return files.ErrLater
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
		done, err := w.disk().FinishWork(t.Context(), func(files.Work) error { t.Errorf("%s is done", text); return nil })
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
	unlock, err := v.LockLogin(t.Context(), "Acme Corp")
	check(t, err)
	before := w.files("")
	for _, name := range []string{
		"records/." + acme.Slot() + ".json1", "journals/." + acme.Slot() + "." + keyB + ".journal22", "companies/.x.log3",
		"vault/." + keyB + ".age4", "vault/journal/." + keyA + ".age5", "vault/.identity.age6", "locks/service.lock.pid",
	} {
		w.write(filepath.Join(w.dir, filepath.FromSlash(name)), []byte("left"))
	}
	check(t, os.MkdirAll(filepath.Join(w.dir, "vault", "app", "lab"), 0o700))
	if n, err := w.disk().Sweep(); err != nil || n != 9 {
		t.Errorf("%d, %v", n, err)
	}
	w.wantFiles("", before...)
	unlock()
	if n, err := w.disk().Sweep(); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
}

// A journal into which nothing was written before its writer was killed is nobody's,
// unless it is the grant's own.
func TestSweepOfBlankJournals(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	signIn := func() (unlock func()) {
		unlock, err := v.LockLogin(t.Context(), acme.Company)
		check(t, err)
		return unlock
	}
	signIn()()
	before := w.files("")
	for _, key := range []string{keyA, keyB} {
		w.write(filepath.Join(w.dir, "journals", "open", acme.Slot()+"."+key), nil)
	}
	slots := filepath.Join(w.dir, "journals", "slots")
	w.write(filepath.Join(slots, keyB), make([]byte, 32<<10))
	w.write(filepath.Join(slots, keyA), make([]byte, 32<<10))
	unlock := signIn()
	if n, err := w.disk().Sweep(); err != nil || n != 0 {
		t.Errorf("while somebody signs in: %d, %v", n, err)
	}
	unlock()
	if n, err := w.disk().Sweep(); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	w.wantFiles("", before...)
}

// A note beside a journal in which there is no news for its grant goes.
func TestSweepOfIdleNotes(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	before := w.files("")
	w.write(filepath.Join(w.dir, "journals", "open", acme.Slot()+"."+keyA), nil)
	if n, err := w.disk().Sweep(); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	w.wantFiles("", before...)
}
