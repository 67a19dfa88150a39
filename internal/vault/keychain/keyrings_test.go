package keychain

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keyringtest"
)

// A keychain may have several keyrings. go-keyring changes over to the one named
// login as soon as there is one: what was saved before that is neither lost nor
// left behind.
func TestSeveralKeyrings(t *testing.T) {
	t.Parallel()
	const other, another, secret = "Default keyring", "Work", "the secret"
	ok := func(t *testing.T, o outcome) outcome {
		t.Helper()
		if o.Err != "" {
			t.Fatalf("got %+v", o)
		}
		return o
	}
	// start returns a keyring with a secret in the collection other, and none in
	// the one that gets what is new.
	start := func(t *testing.T) *keyringtest.Keyring {
		t.Parallel()
		k := keyringtest.Start(t)
		check(t, k.AddCollection(other))
		check(t, k.AddCollection(another))
		ok(t, inChild(t, k.Env(), task{Op: "put", Account: key, Secret: secret}))
		check(t, k.Move(Service, "login", other))
		return k
	}
	wantIn := func(t *testing.T, k *keyringtest.Keyring, label string, want ...string) {
		t.Helper()
		got, err := k.ItemsIn(Service, label)
		check(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", label, got, want)
		}
	}
	wantSecret := func(t *testing.T, k *keyringtest.Keyring, want string) {
		t.Helper()
		if o := inChild(t, k.Env(), task{Op: "get", Account: key}); o.Secret != want || o.Err != "" {
			t.Errorf("it reads %+v, want %q", o, want)
		}
	}

	t.Run("an item is read, replaced and removed where it is", func(t *testing.T) {
		k := start(t)
		wantSecret(t, k, secret)
		ok(t, inChild(t, k.Env(), task{Op: "put", Account: key, Generation: 2, Secret: "the next"}))
		wantSecret(t, k, "the next")
		wantIn(t, k, other, key)
		wantIn(t, k, "login")
		ok(t, inChild(t, k.Env(), task{Op: "put", Account: "new", Secret: "of later"}))
		wantIn(t, k, "login", "new")
		ok(t, inChild(t, k.Env(), task{Op: "delete", Account: key}))
		wantIn(t, k, other)
		if o := inChild(t, k.Env(), task{Op: "can delete", Account: key}); !o.NoItem {
			t.Errorf("what is removed can be removed: %+v", o)
		}
	})
	t.Run("it works while the keyring for what is new is locked", func(t *testing.T) {
		k := start(t)
		check(t, k.LeavePrompts()) // a question would hang
		check(t, k.Lock())
		wantSecret(t, k, secret)
		ok(t, inChild(t, k.Env(), task{Op: "put", Account: key, Generation: 2, Secret: "the next"}))
		wantSecret(t, k, "the next")
		ok(t, inChild(t, k.Env(), task{Op: "delete", Account: key, Deadline: 20 * time.Second}))
	})
	t.Run("of several copies go-keyring's counts, and all are removed", func(t *testing.T) {
		k := start(t)
		check(t, k.Copy(Service, other, another))
		check(t, k.Copy(Service, other, "login"))
		ok(t, inChild(t, k.Env(), task{Op: "put", Account: key, Generation: 2, Secret: "the next"}))
		wantSecret(t, k, "the next")
		ok(t, inChild(t, k.Env(), task{Op: "delete", Account: key}))
		for _, label := range []string{"login", other, another} {
			wantIn(t, k, label)
		}
	})
	t.Run("a locked keyring keeps its item, and that is said", func(t *testing.T) {
		k := start(t)
		check(t, k.LockCollection(other))
		for _, op := range []string{"get", "put", "delete", "can delete"} {
			o := inChild(t, k.Env(), task{Op: op, Account: key, Generation: 2, Secret: "another"})
			if !o.HomeError || o.NoItem || !strings.Contains(o.Err, saysLocked) {
				t.Errorf("%s: %+v", op, o)
			}
		}
		check(t, k.UnlockCollection(other))
		wantSecret(t, k, secret)
	})
	t.Run("one of two copies is locked: neither is removed", func(t *testing.T) {
		k := start(t)
		check(t, k.Copy(Service, other, "login"))
		check(t, k.LockCollection(other))
		if o := inChild(t, k.Env(), task{Op: "delete", Account: key}); !o.HomeError || !strings.Contains(o.Err, saysLocked) {
			t.Errorf("got %+v", o)
		}
		wantIn(t, k, "login", key)
		wantIn(t, k, other, key)
	})
	t.Run("what is nowhere may be in a keyring that can't be searched", func(t *testing.T) {
		k := start(t)
		check(t, k.LockCollection(another)) // gnome-keyring tells as little of an empty one
		for _, op := range []string{"get", "can delete"} {
			o := inChild(t, k.Env(), task{Op: op, Account: "no such item"})
			if !o.HomeError || o.NoItem || !strings.Contains(o.Err, another) {
				t.Errorf("%s: %+v", op, o)
			}
		}
		// What was there and is removed is removed.
		ok(t, inChild(t, k.Env(), task{Op: "delete", Account: key}))
		wantIn(t, k, other)
	})
	t.Run("which keyrings have items is told", func(t *testing.T) {
		k := start(t)
		ok(t, inChild(t, k.Env(), task{Op: "put", Account: "new", Secret: "of later"}))
		check(t, k.LockCollection(other))
		o := ok(t, inChild(t, k.Env(), task{Op: "keyrings"}))
		slices.SortFunc(o.Keyrings, func(a, b Keyring) int { return strings.Compare(a.Label, b.Label) })
		want := []Keyring{{Label: other, Items: 1, Locked: true}, {Label: "Login", Items: 1, New: true}}
		if !slices.Equal(o.Keyrings, want) {
			t.Errorf("they are %+v, want %+v", o.Keyrings, want)
		}
		check(t, k.UnlockCollection(other))
		if o := ok(t, inChild(t, k.Env(), task{Op: "list"})); !slices.Equal(o.Accounts, []string{key, "new"}) {
			t.Errorf("it lists %q", o.Accounts)
		}
	})
}
