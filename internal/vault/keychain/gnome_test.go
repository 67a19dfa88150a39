package keychain

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/upsauth/upsauth/internal/keyringtest"
	"github.com/upsauth/upsauth/internal/vault"
)

// TestGnomeKeyring uses a real keychain, through go-keyring, in this process.
// It is one test as go-keyring keeps its connection: all of it has to be on the
// same bus.
func TestGnomeKeyring(t *testing.T) {
	k := keyringtest.Start(t)
	for _, entry := range k.Env() {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}

	t.Run("keeps every secret under every account", func(t *testing.T) {
		h := New(System{}, 0, 0, nil)
		secrets := []string{
			"{}", secretOf(1, 2000, "x"), secretOf(1, 8<<10, "é€😀"), secretOf(1, 20<<10, "x"),
			"two\nlines", " space ", "NUL\x00 and \xff\xfe", "秘密",
		}
		accounts := []string{key, "app/production/batch-suite", "Ünïcödé 名前 📦", "a'b\"c\\d $e"}
		for _, account := range accounts {
			for _, secret := range secrets {
				mustPut(t, h, account, 1, secret)
				if got := mustGet(t, h, account); got != secret {
					t.Errorf("under %q: %d bytes came back of %d", account, len(got), len(secret))
				}
			}
		}
		if items, want := mustItems(t, k), slices.Sorted(slices.Values(accounts)); !slices.Equal(items, want) {
			t.Errorf("there are %q, want %q", items, want)
		}
		for _, account := range accounts {
			check(t, h.Delete(t.Context(), account))
		}
		if left := mustItems(t, k); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
		check(t, h.Delete(t.Context(), key))
	})

	t.Run("keeps parts and removes the old ones", func(t *testing.T) {
		h := New(System{}, windowsLimit, 0, nil)
		for generation, size := range []int{8 << 10, 20 << 10, 1 << 10, 8 << 10} {
			generation := int64(generation) + 1
			secret := secretOf(generation, size, "é€😀")
			mustPut(t, h, key, generation, secret)
			if mustGet(t, h, key) != secret {
				t.Errorf("generation %d does not come back", generation)
			}
		}
		want := []string{key, key + "/g4/1", key + "/g4/2", key + "/g4/3", key + "/g4/4"}
		if items := mustItems(t, k); !slices.Equal(items, want) {
			t.Errorf("there are %q, want %q", items, want)
		}
		check(t, h.Delete(t.Context(), key))
		if left := mustItems(t, k); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})

	t.Run("serves goroutines at once", func(t *testing.T) {
		h := New(System{}, windowsLimit, 0, nil)
		var users sync.WaitGroup
		for n := range 4 {
			users.Go(func() {
				account := fmt.Sprint("account ", n)
				for generation := range int64(2) {
					secret := secretOf(generation, windowsLimit+1, account)
					if err := h.Put(background(), account, generation, []byte(secret)); err != nil {
						t.Error(err)
					}
					if got, err := h.Get(background(), account); err != nil || string(got) != secret {
						t.Errorf("%s came back with %d bytes, %v", account, len(got), err)
					}
				}
				if err := h.Delete(background(), account); err != nil {
					t.Error(err)
				}
			})
		}
		users.Wait()
		if left := mustItems(t, k); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})

	t.Run("serves processes at once", func(t *testing.T) {
		var users sync.WaitGroup
		for n := range 4 {
			users.Go(func() {
				account := fmt.Sprint("process ", n)
				secret := secretOf(1, 8<<10, account)
				if o := inChild(t, nil, task{Op: "put", Account: account, Generation: 1, Secret: secret, Limit: windowsLimit}); o.Err != "" {
					t.Errorf("%s: %s", account, o.Err)
				}
				if o := inChild(t, nil, task{Op: "get", Account: account}); o.Secret != secret {
					t.Errorf("%s: %+v", account, o)
				}
			})
		}
		users.Wait()
	})

	t.Run("is found again after its daemon was started anew", func(t *testing.T) {
		h := New(System{}, 0, 0, nil)
		mustPut(t, h, key, 1, "kept")
		check(t, k.Restart())
		if got := mustGet(t, h, key); got != "kept" {
			t.Errorf("there is %q", got)
		}
		mustPut(t, h, key, 2, "changed")
	})

	accounts := []string{key, key + "/g1/1", key + "/g1/2", "app/production/batch-suite", "Ünïcödé 名前 📦"}
	wantAccounts := func(t *testing.T, want []string) {
		t.Helper()
		got, err := New(System{}, 0, 0, nil).Accounts(t.Context())
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("it lists %q, %v; want %q", got, err, want)
		}
	}
	t.Run("lists upsauth's items and no others", func(t *testing.T) {
		h := New(System{}, windowsLimit, 0, nil)
		for _, account := range mustItems(t, k) {
			check(t, h.Delete(t.Context(), account))
		}
		check(t, keyring.Set("another service", key, "{}"))
		wantAccounts(t, nil)
		mustPut(t, h, key, 1, secretOf(1, windowsLimit+1, "x"))
		mustPut(t, h, accounts[3], 0, "{}")
		mustPut(t, h, accounts[4], 0, "{}")
		wantAccounts(t, accounts)
	})

	t.Run("lists what is locked without asking anybody", func(t *testing.T) {
		check(t, k.Lock())
		wantAccounts(t, accounts)
		check(t, k.Unlock())
	})

	// A list with items missing would be worse than none.
	t.Run("lists all or says why not", func(t *testing.T) {
		wantProblem := func(wants string, deadline time.Duration) {
			t.Helper()
			start := time.Now()
			got, err := New(System{}, 0, deadline, nil).Accounts(t.Context())
			if e := homeError(t, err); got != nil || !strings.Contains(e.What, wants) || !slices.Contains(e.Do, vault.UseFileVault) {
				t.Errorf("it lists %q, %+v", got, e)
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("it took %s", took)
			}
		}
		check(t, k.Pause())
		wantProblem("no answer within 300ms", 300*time.Millisecond)
		check(t, k.Resume())
		wantAccounts(t, accounts)

		check(t, k.Stop())
		wantProblem(saysNoService, 0)
		stop := startLocked(t, k, len(accounts))
		wantProblem(saysLocked, 0)
		stop()
		check(t, k.Restart())
		wantAccounts(t, accounts)

		o := inChild(t, []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent/bus"}, task{Op: "list"})
		if !o.HomeError || o.Accounts != nil || !strings.Contains(o.Err, saysNoBus) {
			t.Errorf("without a bus it lists %+v", o)
		}
	})

	// Another process may remove an item between the search and the look at it.
	t.Run("lists while items come and go", func(t *testing.T) {
		writer := startChurn(t, nil, task{Account: "churn", Size: 8 << 10, Limit: windowsLimit})
		for range 300 {
			got, err := New(System{}, 0, 0, nil).Accounts(t.Context())
			for _, account := range accounts {
				if err != nil || !slices.Contains(got, account) {
					t.Fatalf("it lists %q, %v; %q is missing", got, err, account)
				}
			}
		}
		check(t, writer.cmd.Process.Kill())
		_ = writer.cmd.Wait()
	})
}

// startLocked starts another daemon on the keyring's bus that was never given
// its password, and returns once it has so many items.
func startLocked(t *testing.T, k *keyringtest.Keyring, items int) (stop func()) {
	t.Helper()
	daemon := exec.CommandContext(t.Context(), "gnome-keyring-daemon", "--components=secrets", "--foreground")
	check(t, daemon.Start())
	stop = func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	}
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(2 * time.Millisecond) {
		if found, err := k.Items(Service); err == nil && len(found) == items {
			return stop
		}
	}
	stop()
	t.Fatal("the daemon gives no items")
	return nil
}

// Whatever state a keychain is in, a command gets a *vault.HomeError, and in
// time: it never hangs, and it never takes what it can't read for missing,
// which would have a company authorized again for nothing.
func TestGnomeKeyringThatCantBeUsed(t *testing.T) {
	t.Parallel()
	const secret = "the secret"
	k := keyringtest.Start(t)

	const short = 300 * time.Millisecond
	allFail := func(t *testing.T, env []string, wants string, timedOut bool) {
		t.Helper()
		deadline := 20 * time.Second
		if timedOut {
			deadline = short
		}
		for _, do := range []task{
			{Op: "get", Account: key}, {Op: "get", Account: "no such item"}, {Op: "delete", Account: key},
			{Op: "put", Account: key, Secret: "another"}, {Op: "put", Account: "new", Secret: "another"},
		} {
			do.Deadline = deadline
			o := inChild(t, env, do)
			if !o.HomeError || o.NoItem || o.TimedOut != timedOut || !strings.Contains(o.Err, wants) || !slices.Contains(o.Do, vault.UseFileVault) {
				t.Errorf("%s %s: %+v", do.Op, do.Account, o)
			}
			if timedOut && o.Took < deadline || o.Took > 20*time.Second {
				t.Errorf("%s %s took %s", do.Op, do.Account, o.Took)
			}
		}
	}
	stillThere := func(t *testing.T) {
		t.Helper()
		if o := inChild(t, k.Env(), task{Op: "get", Account: key}); o.Secret != secret || o.Err != "" {
			t.Errorf("afterwards there is %+v", o)
		}
		if items := mustItems(t, k); !slices.Equal(items, []string{key}) {
			t.Errorf("afterwards there are %q", items)
		}
	}
	if o := inChild(t, k.Env(), task{Op: "put", Account: key, Secret: secret}); o.Err != "" {
		t.Fatal(o.Err)
	}

	t.Run("locked, and the prompt dismissed", func(t *testing.T) {
		check(t, k.Lock())
		allFail(t, k.Env(), saysLocked, false)
		check(t, k.Unlock())
		stillThere(t)
	})
	t.Run("no service on the bus", func(t *testing.T) {
		check(t, k.Stop())
		allFail(t, k.Env(), saysNoService, false)
		check(t, k.Restart())
		stillThere(t)
	})
	t.Run("no bus at the address", func(t *testing.T) {
		allFail(t, []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent/bus"}, saysNoBus, false)
	})
	t.Run("the bus is gone", func(t *testing.T) {
		other := keyringtest.Start(t)
		check(t, other.StopBus())
		allFail(t, other.Env(), saysNoBus, false)
	})
	t.Run("the daemon answers nobody", func(t *testing.T) {
		check(t, k.Pause())
		if o := inChild(t, k.Env(), task{Op: "get", Account: key, Deadline: short}); !o.HomeError || !o.TimedOut || o.NoItem || o.Took < short {
			t.Errorf("got %+v", o)
		}
		check(t, k.Resume())
		stillThere(t)
	})
	// The last, as the daemon keeps the question open.
	t.Run("locked, and nobody at the prompt", func(t *testing.T) {
		check(t, k.Lock())
		check(t, k.LeavePrompts())
		allFail(t, k.Env(), "no answer within 300ms", true)
		check(t, k.Unlock())
		stillThere(t)
	})
}

// The keychain is taken away in the middle of a write: the secret is there
// afterwards, of one generation and whole.
func TestGnomeKeyringThatGoesInMidWrite(t *testing.T) {
	t.Parallel()
	k := keyringtest.Start(t)
	tests := []struct {
		name     string
		do, undo func() error
		timedOut bool
	}{
		{"paused", k.Pause, k.Resume, true},
		{"stopped", k.Stop, k.Restart, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			writer := startChurn(t, k.Env(), task{Account: key, Size: 8 << 10, Limit: windowsLimit, Deadline: time.Second})
			check(t, test.do())
			o := writer.end()
			if !o.HomeError || o.TimedOut != test.timedOut || o.Damaged {
				t.Errorf("the writer got %+v", o)
			}
			check(t, test.undo())

			o = inChild(t, k.Env(), task{Op: "get", Account: key})
			if o.Err != "" {
				t.Fatal(o.Err)
			}
			generation := generationOf(t, o.Secret)
			if generation < 3 || o.Secret != secretOf(generation, 8<<10, "churn") {
				t.Errorf("there is %.40s…", o.Secret)
			}
			if o := inChild(t, k.Env(), task{Op: "delete", Account: key, Limit: windowsLimit}); o.Err != "" {
				t.Error(o.Err)
			}
			if left := mustItems(t, k); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
	t.Run("the whole session ends", func(t *testing.T) {
		writer := startChurn(t, k.Env(), task{Account: key, Size: 8 << 10, Limit: windowsLimit, Deadline: 10 * time.Second})
		check(t, k.StopBus())
		if o := writer.end(); !o.HomeError || o.Damaged {
			t.Errorf("the writer got %+v", o)
		}
	})
}
