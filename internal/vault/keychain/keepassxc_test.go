package keychain

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upsauth/upsauth/internal/keyringtest"
	"github.com/upsauth/upsauth/internal/vault"
)

const insideVariable = "UPSAUTH_KEEPASSXC_TEST"

// TestKeePassXC uses a Secret Service that differs from gnome-keyring in all
// that the specification leaves open: it has no keyring named login, every
// write and removal goes through a prompt, and it keeps text only.
func TestKeePassXC(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		testInsideKeePassXC(t)
		return
	}
	t.Parallel()
	k := keyringtest.StartKeePassXC(t)
	const short = 300 * time.Millisecond
	allFail := func(t *testing.T, wants string, timedOut bool) {
		deadline := 20 * time.Second
		if timedOut {
			deadline = short
		}
		for _, op := range []string{"get", "put", "delete"} {
			t.Run(op, func(t *testing.T) {
				t.Parallel()
				o := inChild(t, k.Env(), task{Op: op, Account: key, Secret: "another", Deadline: deadline})
				if !o.HomeError || o.NoItem || o.TimedOut != timedOut || !strings.Contains(o.Err, wants) || !slices.Contains(o.Do, vault.UseFileVault) {
					t.Errorf("got %+v", o)
				}
				if timedOut && o.Took < deadline || o.Took > 20*time.Second {
					t.Errorf("it took %s", o.Took)
				}
			})
		}
	}
	const noAnswer = "no answer within 300ms"

	t.Run("open", func(t *testing.T) {
		inside := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeePassXC$")
		inside.Env = append(append(os.Environ(), k.Env()...), insideVariable+"=1", "GORACE=atexit_sleep_ms=0")
		if out, err := inside.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	})
	t.Run("asking, and nobody there", func(t *testing.T) {
		check(t, k.Restart(keyringtest.Asking))
		allFail(t, noAnswer, true)
	})
	t.Run("locked, and nobody there", func(t *testing.T) {
		check(t, k.Restart(keyringtest.Locked))
		allFail(t, noAnswer, true)
	})
	t.Run("no database", func(t *testing.T) {
		check(t, k.Restart(keyringtest.NoDatabase))
		allFail(t, saysNoKeyring, false)
	})
	t.Run("stopped", func(t *testing.T) {
		check(t, k.Stop())
		allFail(t, saysNoService, false)
	})
	t.Run("open again", func(t *testing.T) {
		check(t, k.Restart(keyringtest.Open))
		if o := inChild(t, k.Env(), task{Op: "get", Account: key}); o.Secret != "kept" || o.Err != "" {
			t.Errorf("there is %+v", o)
		}
		items, err := k.Items(Service)
		check(t, err)
		if !slices.Equal(items, []string{key}) {
			t.Errorf("there are %q", items)
		}
	})
}

// testInsideKeePassXC has a process to itself, as go-keyring keeps the bus that
// it used first, and as KeePassXC may ask when one process changes what another
// wrote.
func testInsideKeePassXC(t *testing.T) {
	t.Cleanup(func() {
		conn, err := dbus.SessionBus()
		check(t, err)
		check(t, conn.Close())
	})
	h := New(System{}, 0, 0, nil)
	secrets := []string{"{}", secretOf(1, 2000, "x"), secretOf(2, 8<<10, "é€😀"), "two\nlines", " space ", "秘密"}
	accounts := []string{key, "app/production/batch-suite", "Ünïcödé 名前 📦", "a'b\"c\\d $e"}
	for _, account := range accounts {
		if _, err := h.Get(t.Context(), account); !errors.Is(err, vault.ErrNoItem) {
			t.Errorf("%q is there before it was put: %v", account, err)
		}
		for _, secret := range secrets {
			mustPut(t, h, account, 1, secret)
			if got := mustGet(t, h, account); got != secret {
				t.Errorf("under %q: %d bytes came back of %d", account, len(got), len(secret))
			}
		}
	}
	for _, account := range accounts {
		check(t, h.Delete(t.Context(), account))
		check(t, h.Delete(t.Context(), account))
		// Its recycle bin has the item and must not give it back.
		if _, err := h.Get(t.Context(), account); !errors.Is(err, vault.ErrNoItem) {
			t.Errorf("%q is there after it was deleted: %v", account, err)
		}
	}
	// It replaces what is no text and what looks like one of its placeholders.
	// No secret of upsauth is like that, but none may be lost without a word.
	for _, secret := range []string{"\xff", "{TITLE}"} {
		e := homeError(t, h.Put(t.Context(), key, 1, []byte(secret)))
		if !strings.Contains(e.What, "does not return it") || e.TimedOut {
			t.Errorf("%q: %+v", secret, e)
		}
	}
	mustPut(t, h, key, 2, "kept")
}
