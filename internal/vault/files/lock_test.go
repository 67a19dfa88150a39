package files_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

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

func TestLoginLockSaysWhoHoldsIt(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	holder := startChild(t, w, task{Op: "login"})
	holder.wait("locked")
	var busy *vault.LoginBusyError
	if _, err := v.LockLogin(t.Context(), " ACME corp"); !errors.As(err, &busy) || !errors.Is(err, grant.ErrLoginBusy) {
		t.Fatalf("got %v", err)
	}
	if busy.PID != holder.cmd.Process.Pid || busy.Error() != fmt.Sprintf(" ACME corp is being authorized by another upsauth (process %d) right now", busy.PID) {
		t.Errorf("it says %v", busy)
	}
	// Other companies, and the grant's own lock, are free.
	unlock, err := v.LockLogin(t.Context(), apex.Company)
	check(t, err)
	unlock()
	mustLock(t, v, acme)()

	// One that was killed leaves no lock behind, only its number.
	holder.kill()
	unlock, err = v.LockLogin(t.Context(), acme.Company)
	check(t, err)
	if _, err := w.open().LockLogin(t.Context(), acme.Company); !errors.As(err, &busy) || busy.PID != os.Getpid() {
		t.Errorf("got %v", err)
	}
	unlock()
	// Who holds it may not have come to write who it is.
	unlock, err = v.LockLogin(t.Context(), acme.Company)
	check(t, err)
	holders, err := filepath.Glob(filepath.Join(w.dir, "locks", "*.pid"))
	check(t, err)
	for _, path := range holders {
		w.write(path, []byte("nonsense"))
	}
	if _, err := w.open().LockLogin(t.Context(), acme.Company); !errors.As(err, &busy) || busy.PID != 0 || busy.Error() != "Acme Corp is being authorized by another upsauth right now" {
		t.Errorf("got %v", err)
	}
	unlock()
}

// Two that refresh everything over and over would be twice the load for UPS.
func TestServiceLockIsHadOnce(t *testing.T) {
	w := newWorld(t)
	unlock, err := w.disk().LockService()
	check(t, err)
	var busy *vault.ServiceBusyError
	if _, err := w.disk().LockService(); !errors.As(err, &busy) || busy.PID != os.Getpid() || !strings.Contains(err.Error(), w.dir) {
		t.Errorf("got %v", err)
	}
	// Grants and logins are as free as ever.
	mustLock(t, w.open(), acme)()
	unlockLogin, err := w.open().LockLogin(t.Context(), acme.Company)
	check(t, err)
	unlockLogin()
	unlock()
	unlock, err = w.disk().LockService()
	check(t, err)
	unlock()
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
		finishRemovals(t, v)
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
			w.wantFiles("journals/open")
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
