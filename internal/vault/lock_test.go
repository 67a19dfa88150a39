package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// wantLocked checks that nobody else gets the lock for now.
func wantLocked(t *testing.T, v *vault.Vault, id grant.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if unlock, err := v.Lock(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was to be had: %v", err)
		if err == nil {
			unlock()
		}
	}
}

// The lock is the same for every way to write the company.
func TestLockIsTheCompanysWhateverItIsCalled(t *testing.T) {
	w := newWorld(t)
	unlock := mustLock(t, w.open(), grant.ID{Company: "Caf\u00e9", Application: "a", Environment: "e"})
	wantLocked(t, w.open(), grant.ID{Company: " CAFE\u0301", Application: "a", Environment: "e"})
	unlock()
}

func TestWaitingForALockEndsWithTheContext(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		unlock := mustLock(t, w.open(), acme)
		for name, test := range map[string]struct {
			context func() (context.Context, context.CancelFunc)
			want    error
			after   time.Duration
		}{
			"a deadline":        {func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Second) }, context.DeadlineExceeded, time.Second},
			"a deadline past":   {func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), -1) }, context.DeadlineExceeded, 0},
			"an interruption":   {func() (context.Context, context.CancelFunc) { return interruptedAfter(t, time.Second) }, context.Canceled, time.Second},
			"one that was so":   {func() (context.Context, context.CancelFunc) { return interruptedAfter(t, 0) }, context.Canceled, 0},
			"one in an instant": {func() (context.Context, context.CancelFunc) { return interruptedAfter(t, time.Nanosecond) }, context.Canceled, time.Nanosecond},
		} {
			ctx, cancel := test.context()
			synctest.Wait()
			start := time.Now()
			_, err := w.open().Lock(ctx, acme)
			if !errors.Is(err, test.want) || time.Since(start) > test.after {
				t.Errorf("%s: %v after %s", name, err, time.Since(start))
			}
			cancel()
		}
		// Who waits gets it soon after it is free.
		got := make(chan time.Time)
		go func() {
			unlock, err := w.open().Lock(t.Context(), acme)
			got <- time.Now()
			if err != nil {
				t.Error(err)
				return
			}
			unlock()
		}()
		time.Sleep(time.Minute)
		freed := time.Now()
		unlock()
		if waited := (<-got).Sub(freed); waited > 100*time.Millisecond {
			t.Errorf("it was had %s after it was free", waited)
		}
	})
}

func interruptedAfter(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(d, cancel)
	return ctx, cancel
}

func TestLockThatCantBeTaken(t *testing.T) {
	w := newWorld(t)
	if w.memory != nil {
		w.memory.Break(errors.New("the database can't be reached"))
	} else {
		w.write(filepath.Join(w.dir, "locks"), []byte("a file is in the way"))
	}
	v := w.open()
	if _, err := v.Lock(t.Context(), acme); err == nil {
		t.Error("it was taken")
	}
	if _, err := v.LockLogin(t.Context(), acme.Company); err == nil {
		t.Error("the login's was taken")
	}
	if w.memory != nil {
		return
	}
	if _, err := w.disk().LockService(); err == nil {
		t.Error("the service's was taken")
	}
}

// A status that looks whether anybody is at work must not be taken for somebody
// who is.
func TestLookingDoesNotGetInTheWay(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyA)
	check(t, v.Claim(t.Context(), &j))
	check(t, v.Seal(t.Context(), &j, nil, []byte(answer)))
	unlock, err := v.LockLogin(t.Context(), acme.Company)
	check(t, err)
	unlock()

	looks := whileItRuns(func() error {
		_, problems, err := w.open().List(t.Context(), "")
		return errors.Join(append(problems, err)...)
	})
	for range 120 {
		unlock, err := v.LockLogin(t.Context(), acme.Company)
		if err != nil {
			t.Error(err)
			break
		}
		unlock()
	}
	check(t, looks())
}

// A status that runs beside refreshes must never call one of them cut off, nor
// stumble over a journal that is gone when it is opened.
func TestRunningRefreshIsNotInterrupted(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	refreshes := whileItRuns(func() error {
		unlock, err := v.Lock(t.Context(), acme)
		if err != nil {
			return err
		}
		defer unlock()
		j := refreshing(g)
		if err := v.Claim(t.Context(), &j); err != nil {
			return err
		}
		j.Over = true
		return v.Mark(t.Context(), &j)
	})
	for range 100 {
		if records := w.list(w.open()); len(records) != 1 || records[0].Interrupted {
			t.Errorf("there are %+v", records)
		}
	}
	check(t, refreshes())
}

// An authorization clears its journal away without the grant's lock, while a
// refresh of the same grant reads what journals there are.
func TestJournalThatGoesWhileItIsLookedFor(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyB)
	check(t, v.Claim(t.Context(), &j))
	comesAndGoes := whileItRuns(func() error {
		if err := v.Forget(t.Context(), j); err != nil {
			return err
		}
		return v.Claim(t.Context(), &j)
	})
	for range 1000 {
		if found, err := w.open().Attempts(t.Context(), acme); err != nil || len(found) > 1 {
			t.Fatalf("there are %v, %v", found, err)
		}
	}
	check(t, comesAndGoes())
}

// whileItRuns does f over and over, until it fails or stop is called, which
// returns how it failed.
func whileItRuns(f func() error) (stop func() error) {
	told, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-told:
				ended <- nil
				return
			default:
			}
			if err := f(); err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() error { close(told); return <-ended }
}

// A write that timed out may still land. Until this process ends nothing else
// may be written there, by it or by another.
func TestStuckAfterAWriteThatTimedOut(t *testing.T) {
	late := &vault.HomeError{Home: "file", What: "no answer within 10s", TimedOut: true}
	j := login(acme, keyB)
	for name, write := range map[string]struct {
		op, account string
		do          func(v *vault.Vault) error
	}{
		"Put":     {"put", keyA, func(v *vault.Vault) error { return v.Put(context.Background(), grantOf(acme, keyA, 2), 1, nil) }},
		"Prove":   {"put", keyA + "/probe", func(v *vault.Vault) error { return v.Prove(context.Background(), acme, "file", keyA, 1) }},
		"Proved":  {"delete", keyA + "/probe", func(v *vault.Vault) error { return v.Prove(context.Background(), acme, "file", keyA, 1) }},
		"Delete":  {"delete", keyA, func(v *vault.Vault) error { return v.Delete(context.Background(), acme) }},
		"Begin":   {"put", keyB + "/journal", func(v *vault.Vault) error { j := j; return v.Claim(context.Background(), &j) }},
		"Abandon": {"delete", keyB, func(v *vault.Vault) error { return v.Abandon(context.Background(), j) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			// Not t.TempDir: on Windows the lock that is kept can't be removed.
			dir, err := os.MkdirTemp("", "stuck")
			check(t, err)
			defer os.RemoveAll(dir)
			w.dir = dir
			authorize(t, w.open(), grantOf(acme, keyA, 1))
			authorize(t, w.open(), grantOf(apex, keyC, 1))
			home := &double{Home: w.home(), before: func(op, account string) error {
				if op == write.op && account == write.account {
					return late
				}
				return nil
			}}
			v := w.open(home)
			unlock := mustLock(t, v, acme)
			if e := wantHomeError(t, write.do(v)); e != late {
				t.Fatalf("got %v", e)
			}

			if !v.Stuck() || w.open().Stuck() {
				t.Error("the vault does not tell that it is stuck, or another does")
			}

			home.before = nil
			home.calls.Store(0)
			begin := login(acme, keyB)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, lockErr := v.Lock(ctx, acme) // it would wait for itself
			for name, err := range map[string]error{
				"Put":     v.Put(t.Context(), grantOf(acme, keyA, 2), 1, nil),
				"Prove":   v.Prove(t.Context(), acme, "file", keyA, 1),
				"Delete":  v.Delete(t.Context(), acme),
				"Begin":   v.Claim(t.Context(), &begin),
				"Abandon": v.Abandon(t.Context(), j),
				"Lock":    lockErr,
			} {
				if e := wantHomeError(t, err); !e.TimedOut {
					t.Errorf("%s: %v", name, err)
				}
			}
			if home.calls.Load() != 0 {
				t.Errorf("the home was called %d times", home.calls.Load())
			}
			// Other grants are none of its business.
			mustPut(t, v, grantOf(apex, keyC, 2), 1)

			unlock()
			collectGarbage()
			wantLocked(t, w.open(), acme)
			runtime.KeepAlive(v)
		})
	}
}

// collectGarbage runs the finalizers of all that nothing refers to: an open
// file would be closed by its own.
func collectGarbage() {
	for range 2 {
		ran := make(chan struct{})
		marker := new([64]byte)
		runtime.AddCleanup(marker, func(int) { close(ran) }, 0)
		for done := false; !done; {
			runtime.GC()
			select {
			case <-ran:
				done = true
			default:
				runtime.Gosched()
			}
		}
	}
}

// A journal whose identity may still land in the home has to be found again.
func TestBeginThatTimedOutKeepsItsJournal(t *testing.T) {
	w := newWorld(t)
	home := &double{Home: w.home(), after: func(op, _ string) error {
		if op == "put" {
			return &vault.HomeError{Home: "file", What: "late", TimedOut: true}
		}
		return nil
	}}
	j := login(acme, keyA)
	wantHomeError(t, w.open(home).Claim(t.Context(), &j))
	w.wantFiles("vault", "journal/"+keyA+".age")
	// The next process finds it, and clears it away.
	found, err := w.open().Attempts(t.Context(), acme)
	if err != nil || len(found) != 1 {
		t.Fatalf("there are %v, %v", found, err)
	}
	check(t, w.open().Abandon(t.Context(), found[0]))
	w.wantNothing()
}
