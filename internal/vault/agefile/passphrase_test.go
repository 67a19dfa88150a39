package agefile

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/upsauth/upsauth/internal/vault"
)

// locked is a home that a passphrase opens, quickly; without one nobody can be
// asked.
func locked(dir, identity, passphrase string) *Home {
	h := New(dir, identity)
	h.WorkFactor = 8
	h.Passphrase = func(context.Context, bool) (string, error) {
		if passphrase == "" {
			return "", ErrNoPassphrase
		}
		return passphrase, nil
	}
	return h
}

func TestPassphraseOpensWhatItMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	first := locked(dir, "", "open sesame")
	mustPut(t, first, key, secret)
	mustPut(t, first, "app/production/batch-suite", "other")
	again := locked(dir, "", "open sesame")
	if got := mustGet(t, again, key); got != secret {
		t.Errorf("there is %q", got)
	}
	if got := mustGet(t, again, "app/production/batch-suite"); got != "other" {
		t.Errorf("there is %q", got)
	}
	accounts, err := again.Accounts(t.Context())
	if err != nil || len(accounts) != 2 {
		t.Errorf("the identity counts as an item: %q, %v", accounts, err)
	}
	for _, path := range files(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, readable := range []string{"AGE-SECRET-KEY", "open sesame", secret} {
			if bytes.Contains(content, []byte(readable)) {
				t.Errorf("%s has %q in it", path, readable)
			}
		}
	}
}

// What a passphrase opens costs time and memory: once for all items, and once
// only where it is wrong.
func TestPassphraseIsAskedForOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	mustPut(t, locked(dir, "", "open sesame"), key, secret)
	for _, passphrase := range []string{"open sesame", "wrong"} {
		h := locked(dir, "", passphrase)
		var asked atomic.Int64
		h.Passphrase = func(_ context.Context, fresh bool) (string, error) {
			asked.Add(1)
			if fresh {
				t.Error("a fresh one was asked for")
			}
			return passphrase, nil
		}
		var users sync.WaitGroup
		for range 8 {
			users.Go(func() { _, _ = h.Get(t.Context(), key) })
		}
		users.Wait()
		if asked.Load() != 1 {
			t.Errorf("%q was asked for %d times", passphrase, asked.Load())
		}
	}
}

func TestPassphraseThatDoesNotOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	mustPut(t, locked(dir, "", "open sesame"), key, secret)
	sealed := read(t, filepath.Join(dir, "identity.age"))
	broken := errors.New("the file is not there")
	tests := []struct {
		name         string
		change       func(*Home)
		content      string
		what, advice string
		do           vault.Act
	}{
		{"wrong", func(h *Home) { h.Passphrase = always("Open Sesame", nil) }, sealed, "does not open", "passphrase of that identity", vault.OtherPassphrase},
		{"nobody to ask", func(h *Home) { h.Passphrase = nil }, sealed, "locked by a passphrase", "", vault.GivePassphrase},
		{"empty", func(h *Home) { h.Passphrase = always("", nil) }, sealed, "is empty", "", vault.GivePassphrase},
		{"can't be read", func(h *Home) { h.Passphrase = always("", broken) }, sealed, broken.Error(), "", ""},
		{"damaged", func(*Home) {}, sealed[:len(sealed)-3], "damaged", "backup", ""},
		{"cut within the header", func(*Home) {}, sealed[:len(sealed)/4], "damaged", "backup", ""},
		{"empty file", func(*Home) {}, "", "no age identity", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "identity.age"), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			h := locked(dir, "", "open sesame")
			test.change(h)
			_, getErr := h.Get(t.Context(), key)
			for _, err := range []error{getErr, h.Put(t.Context(), key, 2, []byte("new"))} {
				e := homeError(t, err)
				if !strings.Contains(e.What, test.what) || !strings.Contains(e.Advice, test.advice) || test.do != "" && !advises(e, test.do) || e.Damaged {
					t.Errorf("got %+v", e)
				}
			}
			if got := read(t, filepath.Join(dir, "identity.age")); got != test.content {
				t.Error("the identity was written over")
			}
		})
	}
}

func always(passphrase string, err error) func(context.Context, bool) (string, error) {
	return func(context.Context, bool) (string, error) { return passphrase, err }
}

func TestInterruptAtThePassphrase(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := locked(filepath.Join(t.TempDir(), "vault"), "", "")
	h.Passphrase = func(context.Context, bool) (string, error) {
		cancel()
		return "", ctx.Err()
	}
	if err := h.Put(ctx, key, 1, []byte(secret)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Secrets that an identity file opens must not be joined by others that only a
// new identity opens, just because the variable was forgotten once.
func TestNoSecondIdentityBesideSecrets(t *testing.T) {
	h, dir, _ := newHome(t)
	mustPut(t, h, key, secret)
	err := locked(dir, "", "open sesame").Put(t.Context(), "app/production/other", 0, []byte("x"))
	if e := homeError(t, err); !strings.Contains(e.What, NoIdentityNamed) || !advises(e, vault.NameIdentity) {
		t.Errorf("got %+v", e)
	}
}

// TestFirstRunsAgree guards the files of one of two processes that begin at the
// same time from being encrypted to an identity that the other one replaced.
func TestFirstRunsAgree(t *testing.T) {
	for range 20 {
		dir := filepath.Join(t.TempDir(), "vault")
		var runs sync.WaitGroup
		for n := range 6 {
			runs.Go(func() {
				if err := locked(dir, "", "open sesame").Put(t.Context(), account(n), 1, []byte(secret)); err != nil {
					t.Error(err)
				}
			})
		}
		runs.Wait()
		h := locked(dir, "", "open sesame")
		for n := range 6 {
			if got := mustGet(t, h, account(n)); got != secret {
				t.Errorf("%d: there is %q", n, got)
			}
		}
	}
}

func account(n int) string { return key[:len(key)-1] + string(rune('A'+n)) }

func TestIdentityFileWithPassphrase(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, armored := range []bool{false, true} {
		sealed, err := locked("", "", "").seal([]byte("# mine\n"+identity.String()+"\n"), "open sesame")
		if err != nil {
			t.Fatal(err)
		}
		if armored {
			var text bytes.Buffer
			w := armor.NewWriter(&text)
			if _, err := w.Write(sealed); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			sealed = text.Bytes()
		}
		dir, path := filepath.Join(t.TempDir(), "vault"), writeIdentity(t, string(sealed))
		mustPut(t, locked(dir, path, "open sesame"), key, secret)
		if got := mustGet(t, New(dir, writeIdentity(t, identity.String()+"\n")), key); got != secret {
			t.Errorf("armored %v: there is %q", armored, got)
		}
		_, err = locked(dir, path, "wrong").Get(t.Context(), key)
		if e := homeError(t, err); !strings.Contains(e.What, path) {
			t.Errorf("armored %v: %+v", armored, e)
		}
	}
}

func TestChangePassphrase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	next := func(passphrase string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return passphrase, nil }
	}
	// A vault that is not there yet is made with the new one.
	if err := locked(dir, "", "").ChangePassphrase(t.Context(), next("first")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, locked(dir, "", "first"), key, secret)
	if err := locked(dir, "", "first").ChangePassphrase(t.Context(), next("second")); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, locked(dir, "", "second"), key); got != secret {
		t.Errorf("there is %q", got)
	}
	before := read(t, filepath.Join(dir, "identity.age"))
	for _, old := range []string{"first", ""} {
		_, err := locked(dir, "", old).Get(t.Context(), key)
		homeError(t, err)
		homeError(t, locked(dir, "", old).ChangePassphrase(t.Context(), next("third")))
	}
	declined := errors.New("declined")
	if err := locked(dir, "", "second").ChangePassphrase(t.Context(), func(context.Context) (string, error) { return "", declined }); !errors.Is(err, declined) {
		t.Errorf("got %v", err)
	}
	if read(t, filepath.Join(dir, "identity.age")) != before {
		t.Error("a change that failed changed the file")
	}
	if err := New(dir, newIdentity(t)).ChangePassphrase(t.Context(), next("x")); !errors.Is(err, ErrNotByPassphrase) {
		t.Errorf("with an identity file: %v", err)
	}
}

func TestIdentitiesMakeNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	identities, err := locked(dir, "", "open sesame").Identities(t.Context())
	if err != nil || len(identities) != 0 || len(files(t, dir)) != 0 {
		t.Errorf("%d identities, %v, files %q", len(identities), err, files(t, dir))
	}
	mustPut(t, locked(dir, "", "open sesame"), key, secret)
	if identities, err = locked(dir, "", "open sesame").Identities(t.Context()); err != nil || len(identities) != 1 {
		t.Errorf("%d identities, %v", len(identities), err)
	}
}

// A host that shares a vault must not be told to make an identity of its own.
func TestSharedVaultNeedsTheIdentityOfAllHosts(t *testing.T) {
	h := New(filepath.Join(t.TempDir(), "vault"), "")
	h.Shared = true
	h.Passphrase = func(context.Context, bool) (string, error) { return "", ErrNoPassphrase }
	e := homeError(t, h.Put(t.Context(), key, 1, []byte(secret)))
	if !strings.Contains(e.What, "several hosts share") || !advises(e, vault.NameIdentity) || advises(e, vault.MakeFileVault) {
		t.Errorf("got %+v", e)
	}
}
