package shared_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
)

// What was revoked here can't be read: another user's directory, or a process that has no more files.
// Nothing is taken for revoked because of that.
func TestNothingIsRevokedAsTheMarksCantBeRead(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	w.sharing(dirA, dirB)
	must(t, os.Symlink("revoked", filepath.Join(dirB, "revoked"))) // it leads to itself
	b := w.host(dirB, "web-2")
	if _, err := b.store.Grant(t.Context(), id.Slot()); err == nil {
		t.Error("the grant is read")
	}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
		t.Error("it is refreshed")
	}
	w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
	if _, err := b.Refresh(t.Context(), other, keeper.Need{Always: true}); err == nil {
		t.Error("the roll call is answered")
	}
	must(t, os.Remove(filepath.Join(dirB, "revoked")))
	if rows := w.sql("SELECT DISTINCT state FROM upsauth.grants"); len(rows) != 1 || rows[0][0] != "live" {
		t.Errorf("the grants are %v", rows)
	}
}

// takenIn has web-2 revoke a grant and web-1 import it.
func (w *world) takenIn(dirA, dirB string) (a, b *host) {
	t := w.t
	t.Helper()
	a, b = w.host(dirA, "web-1"), w.host(dirB, "web-2")
	g, err := b.vault.Get(t.Context(), id)
	must(t, err)
	must(t, b.Revoke(t.Context(), id))
	g.Revision, g.JournalRecipient = 0, ""
	home, err := a.Import(t.Context(), g)
	must(t, err)
	if home == "" {
		t.Fatal("it is not imported")
	}
	return a, b
}

// A grant that was revoked here and imported on another host is in the lists of this one, of which its
// rounds are made.
func TestWhatIsTakenInIsListedWhereItWasRevoked(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	w.sharing(dirA, dirB)
	_, b := w.takenIn(dirA, dirB)
	_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	for _, company := range []string{"", id.Company} {
		list, _, err := b.vault.List(t.Context(), company)
		must(t, err)
		found := false
		for _, r := range list {
			found = found || r.ID == id
		}
		if !found {
			t.Errorf("the list of %q has %d, and not %s", company, len(list), id)
		}
	}
}

// A grant was revoked, imported on another host and revoked again. The database goes back to before all
// of that: it stays revoked.
func TestWhatWasRevokedTwiceStaysRevoked(t *testing.T) {
	for _, how := range []string{"revoked again", "signed in, and that is revoked"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			w.sharing(dirA, dirB)
			forget := w.remember()
			a, b := w.takenIn(dirA, dirB)
			if how != "revoked again" {
				a.authorize()
			}
			must(t, b.Revoke(t.Context(), id))
			if _, err := a.store.Grant(t.Context(), id.Slot()); err == nil {
				t.Error("the other host has it")
			}
			a.db.Close()
			b.db.Close()
			forget()
			w.answered(dirA, dirB)
			for _, h := range []*host{w.host(dirA, "web-1"), w.host(dirB, "web-2"), w.host(dirA, "web-1")} {
				if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
					t.Error("it is refreshed")
				}
			}
		})
	}
}
