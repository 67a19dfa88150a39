package shared_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault"
)

// A clone of a machine, which kept its machine ID, has become what the original was. It does not
// say in the time in which others wait for the original that there is no answer.
func TestACloneOfTheMachineDoesNotSpeakForTheOriginal(t *testing.T) {
	w := newWorld(t, func(o *sandbox.Options) { o.Strict, o.Grace = false, 24*time.Hour })
	dir, cloned := t.TempDir(), filepath.Join(t.TempDir(), "clone")
	a := w.host(dir, "web-1")
	a.authorize()
	w.pass(2 * time.Hour)
	a.db.Close()
	must(t, os.CopyFS(cloned, os.DirFS(dir)))
	must(t, filepath.Walk(cloned, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
	a = w.host(dir, "web-1")
	if !a.until("after Seal", func() { _, _ = a.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	path := filepath.Join(cloned, "host.json")
	text, err := os.ReadFile(path)
	must(t, err)
	_, boot, _ := strings.Cut(string(text), `"boot": "`)
	boot, _, _ = strings.Cut(boot, `"`)
	must(t, os.WriteFile(path, []byte(strings.Replace(string(text), boot, "the original's", 1)), 0o600))
	w.sql("UPDATE upsauth.hosts SET boot = 'the original''s'")
	must(t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 400, Code: "10400", Message: "Invalid Refresh Token", Times: 1}))
	for tries := range 4 {
		w.later(2 * time.Minute)
		c := w.host(cloned, "web-1")
		if tries == 0 {
			c.store.TakeOver() // a person lets it ask UPS, who refuses
		}
		_, err := c.Refresh(t.Context(), id, keeper.Need{Always: true})
		t.Logf("the clone: %v", err)
		if rows := w.sql("SELECT state FROM upsauth.grants"); rows[0][0] == "void" {
			t.Fatal("it is void, and the original has a sealed answer")
		}
	}
	if g, err := w.host(dir, "web-1").Settle(t.Context(), id); err != nil || g.Generation != 2 {
		t.Errorf("the original: generation %d, %v", g.Generation, err)
	}
}

// The roll call looks at a journal that is damaged. The next use of the grant tells it all the
// same, and sends nothing.
func TestADamagedJournalIsToldAfterTheRollCall(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	key := a.authorize().TokenVaultKey
	a.authorizeFor(other)
	a.sealed(id)
	path := filepath.Join(dir, "journals", "slots", key)
	text, err := os.ReadFile(path)
	must(t, err)
	for i := range text {
		if text[i] != 0 {
			text[i] ^= 0x55
		}
	}
	must(t, os.WriteFile(path, text, 0o600))
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	_, _ = w.host(dir, "web-1").Refresh(t.Context(), other, keeper.Need{Always: true})
	w.wait(11 * time.Minute)
	if _, err := w.host(dir, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*vault.DamagedError](err) || w.reused() > 0 {
		t.Errorf("%d tokens were sent twice, %v", w.reused(), err)
	}
}

// A journal that can't be read now may have a request without an end. Its host does not answer the
// roll call, as nobody else can tell of that.
func TestNoRollCallIsAnsweredWithoutAJournal(t *testing.T) {
	w := newWorld(t)
	dir, dirB := t.TempDir(), t.TempDir()
	a, b := w.sharing(dir, dirB)
	forget := w.remember()
	a.sealed(id)
	b.db.Close()
	forget()
	g, err := w.host(dirB, "web-2").Settle(t.Context(), id)
	must(t, err)
	path := filepath.Join(dir, "journals", "slots", g.TokenVaultKey)
	must(t, os.Rename(path, path+".away"))
	must(t, os.Mkdir(path, 0o700))
	w.wait(11 * time.Minute)
	for range 2 {
		for d, name := range map[string]string{dir: "web-1", dirB: "web-2"} {
			if _, err := w.host(d, name).Refresh(t.Context(), other, keeper.Need{Always: true}); err == nil {
				t.Errorf("%s refreshes, and web-1 has not told all", name)
			}
		}
	}
	must(t, os.Remove(path))
	must(t, os.Rename(path+".away", path))
	w.answered(dir, dirB)
	w.host(dir, "web-1").deliver()
	if _, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || w.reused() > 0 {
		t.Errorf("%d tokens were sent twice, %v", w.reused(), err)
	}
}

// A database that went back has lost a sign-in, and another host has the next token of its grant.
// That host answers the roll call before the one that signed in brings the grant back.
func TestATokenOfASignInThatWasTakenBack(t *testing.T) {
	for _, how := range []string{"delivered", "sealed", "sealed, and its host knows no key"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			forget := w.remember()
			wanted := a.authorize().TokenVaultKey
			if how != "delivered" {
				b.sealed(id)
			} else {
				_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
				must(t, err)
			}
			a.db.Close()
			b.db.Close()
			forget()
			if how == "sealed, and its host knows no key" {
				must(t, os.Remove(filepath.Join(dirB, "copies", id.Slot()+".json")))
			}
			b = w.host(dirB, "web-2")
			_, _ = b.Refresh(t.Context(), other, keeper.Need{Always: true}) // it answers the roll call
			_, _ = b.Settle(t.Context(), id)                                // and finds the earlier grant
			_, err := w.host(dirA, "web-1").Refresh(t.Context(), other, keeper.Need{Always: true})
			must(t, err)
			_, _ = w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true})
			w.host(dirB, "web-2").deliver()
			if g, err := w.host(dirA, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil || g.TokenVaultKey != wanted {
				t.Errorf("it has the grant %s, not %s: %v", g.TokenVaultKey, wanted, err)
			}
			if w.reused() > 0 {
				t.Errorf("%d tokens were sent twice", w.reused())
			}
		})
	}
}
