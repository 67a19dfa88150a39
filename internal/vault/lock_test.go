package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
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

func TestLockExcludesOtherProcesses(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	holder := startChild(t, w, task{Op: "lock"})
	holder.wait("locked")
	wantLocked(t, v, acme)
	// Another grant's is free, even the same company's.
	cie := acme
	cie.Environment = "cie"
	mustLock(t, v, apex)()
	mustLock(t, v, cie)()
	holder.end()
	mustLock(t, v, acme)()

	// A process that is killed leaves no lock behind.
	holder = startChild(t, w, task{Op: "lock"})
	holder.wait("locked")
	holder.kill()
	mustLock(t, v, acme)()
}

// The lock is the same for every way to write the company.
func TestLockIsTheCompanysWhateverItIsCalled(t *testing.T) {
	w := newWorld(t)
	unlock := mustLock(t, w.open(), grant.ID{Company: "Caf\u00e9", Application: "a", Environment: "e"})
	wantLocked(t, w.open(), grant.ID{Company: " CAFE\u0301", Application: "a", Environment: "e"})
	unlock()
}

func TestOneHolderAtATime(t *testing.T) {
	const processes, times = 4, 25
	w := newWorld(t)
	var all []*child
	for range processes {
		all = append(all, startChild(t, w, task{Op: "count", Times: times}))
	}
	// And goroutines of one process, with vaults of their own or not.
	v := w.open()
	var users sync.WaitGroup
	for n := range 4 {
		users.Go(func() {
			if n%2 == 0 {
				count(v, task{Dir: w.dir, Times: times})
			} else {
				count(w.open(), task{Dir: w.dir, Times: times})
			}
		})
	}
	users.Wait()
	for _, c := range all {
		c.end()
	}
	if got := string(w.read(filepath.Join(w.dir, "count"))); got != strconv.Itoa((processes+4)*times) {
		t.Errorf("%s times, want %d", got, (processes+4)*times)
	}
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
	w.write(filepath.Join(w.dir, "locks"), []byte("a file is in the way"))
	v := w.open()
	if _, err := v.Lock(t.Context(), acme); err == nil {
		t.Error("it was taken")
	}
	if _, err := v.LockLogin(acme.Company); err == nil {
		t.Error("the login's was taken")
	}
	if _, err := v.LockService(); err == nil {
		t.Error("the service's was taken")
	}
}

func TestLoginLockSaysWhoHoldsIt(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	holder := startChild(t, w, task{Op: "login"})
	holder.wait("locked")
	var busy *vault.LoginBusyError
	if _, err := v.LockLogin(" ACME corp"); !errors.As(err, &busy) || !errors.Is(err, grant.ErrLoginBusy) {
		t.Fatalf("got %v", err)
	}
	if busy.PID != holder.cmd.Process.Pid || busy.Error() != fmt.Sprintf(" ACME corp is being authorized by another upsauth (process %d) right now", busy.PID) {
		t.Errorf("it says %v", busy)
	}
	// Other companies, and the grant's own lock, are free.
	unlock, err := v.LockLogin(apex.Company)
	check(t, err)
	unlock()
	mustLock(t, v, acme)()

	// One that was killed leaves no lock behind, only its number.
	holder.kill()
	unlock, err = v.LockLogin(acme.Company)
	check(t, err)
	if _, err := w.open().LockLogin(acme.Company); !errors.As(err, &busy) || busy.PID != os.Getpid() {
		t.Errorf("got %v", err)
	}
	unlock()
	// Who holds it may not have come to write who it is.
	unlock, err = v.LockLogin(acme.Company)
	check(t, err)
	holders, err := filepath.Glob(filepath.Join(w.dir, "locks", "*.pid"))
	check(t, err)
	for _, path := range holders {
		w.write(path, []byte("nonsense"))
	}
	if _, err := w.open().LockLogin(acme.Company); !errors.As(err, &busy) || busy.PID != 0 || busy.Error() != "Acme Corp is being authorized by another upsauth right now" {
		t.Errorf("got %v", err)
	}
	unlock()
}

// A status that looks whether anybody is at work must not be taken for somebody
// who is.
func TestLookingDoesNotGetInTheWay(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := login(acme, keyA)
	check(t, v.Begin(t.Context(), &j))
	check(t, v.Seal(&j, []byte(answer)))
	unlock, err := v.LockLogin(acme.Company)
	check(t, err)
	unlock()

	looks := whileItRuns(func() error {
		_, problems, err := w.open().List("")
		return errors.Join(append(problems, err)...)
	})
	for range 120 {
		unlock, err := v.LockLogin(acme.Company)
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
		if err := v.Begin(t.Context(), &j); err != nil {
			return err
		}
		return v.DropJournal(j)
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
	check(t, v.Begin(t.Context(), &j))
	comesAndGoes := whileItRuns(func() error {
		if err := v.DropJournal(j); err != nil {
			return err
		}
		return v.Begin(t.Context(), &j)
	})
	for range 1000 {
		if found, err := w.open().Journals(acme); err != nil || len(found) > 1 {
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

// Two that refresh everything over and over would be twice the load for UPS.
func TestServiceLockIsHadOnce(t *testing.T) {
	w := newWorld(t)
	unlock, err := w.open().LockService()
	check(t, err)
	var busy *vault.ServiceBusyError
	if _, err := w.open().LockService(); !errors.As(err, &busy) || busy.PID != os.Getpid() || !strings.Contains(err.Error(), w.dir) {
		t.Errorf("got %v", err)
	}
	// Grants and logins are as free as ever.
	mustLock(t, w.open(), acme)()
	unlockLogin, err := w.open().LockLogin(acme.Company)
	check(t, err)
	unlockLogin()
	unlock()
	unlock, err = w.open().LockService()
	check(t, err)
	unlock()
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
		"Put":     {"put", keyA, func(v *vault.Vault) error { return v.Put(context.Background(), grantOf(acme, keyA, 2), 1) }},
		"Prove":   {"put", keyA + "/probe", func(v *vault.Vault) error { return v.Prove(context.Background(), acme, "file", keyA, 1) }},
		"Proved":  {"delete", keyA + "/probe", func(v *vault.Vault) error { return v.Prove(context.Background(), acme, "file", keyA, 1) }},
		"Delete":  {"delete", keyA, func(v *vault.Vault) error { return v.Delete(context.Background(), acme) }},
		"Begin":   {"put", keyB + "/journal", func(v *vault.Vault) error { j := j; return v.Begin(context.Background(), &j) }},
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
				"Put":     v.Put(t.Context(), grantOf(acme, keyA, 2), 1),
				"Prove":   v.Prove(t.Context(), acme, "file", keyA, 1),
				"Delete":  v.Delete(t.Context(), acme),
				"Begin":   v.Begin(t.Context(), &begin),
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
	wantHomeError(t, w.open(home).Begin(t.Context(), &j))
	w.wantFiles("vault", keyA+"/journal.age")
	// The next process finds it, and clears it away.
	found, err := w.open().Journals(acme)
	if err != nil || len(found) != 1 {
		t.Fatalf("there are %v, %v", found, err)
	}
	check(t, w.open().Abandon(t.Context(), found[0]))
	w.wantNothing()
}

// SIGKILL, at moments that nobody chose: no refresh token that UPS gave is lost,
// no removal comes undone, and the next command finds all in order.
func TestProcessThatIsKilled(t *testing.T) {
	w := newWorld(t)
	for round := range 8 {
		c := startChild(t, w, task{Op: "churn"})
		lines := []string{}
		for range 1 + 5*round%7 {
			if !c.out.Scan() {
				t.Fatalf("the child says no more: %v", c.out.Err())
			}
			lines = append(lines, c.out.Text())
		}
		lines = append(lines, c.kill()...)
		want, mayBeGone := after(lines)

		v := w.open()
		w.list(v)
		settle(t, v, acme)
		check(t, finishRemovals(t.Context(), v))
		got, err := v.Get(t.Context(), acme)
		switch {
		case errors.Is(err, grant.ErrNoGrant):
			if !mayBeGone {
				t.Errorf("round %d: the grant is gone after %q", round, lines)
			}
			w.wantNothing()
		case err != nil:
			t.Errorf("round %d: %v after %q", round, err, lines)
		default:
			wantWhole(t, got)
			if got.TokenVaultKey < want.TokenVaultKey || got.TokenVaultKey == want.TokenVaultKey && got.Generation < want.Generation {
				t.Errorf("round %d: there is generation %d of %s after %q", round, got.Generation, got.TokenVaultKey, lines)
			}
			w.wantFiles("journals")
			unlock := mustLock(t, v, acme)
			check(t, v.Delete(t.Context(), acme))
			unlock()
			w.wantNothing()
		}
		if t.Failed() {
			return
		}
	}
}
