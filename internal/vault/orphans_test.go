package vault_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// What a record or a journal speaks of is no orphan, and neither are client
// secrets.
func TestOrphans(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	j := login(apex, keyB)
	check(t, v.Begin(t.Context(), &j))
	check(t, v.PutSecret(t.Context(), "file", "app/production/x", "s3cret"))
	if orphans, err := v.Orphans(t.Context()); err != nil || len(orphans) != 0 {
		t.Fatalf("%+v, %v", orphans, err)
	}
	check(t, w.home().Put(t.Context(), keyC+"/journal", 0, []byte(`{}`)))
	check(t, w.home().Put(t.Context(), keyC, 1, []byte(`{}`)))
	orphans, err := v.Orphans(t.Context())
	if want := (grant.Superseded{TokenVaultKey: keyC, Vault: "file"}); err != nil || len(orphans) != 1 || orphans[0] != want {
		t.Errorf("%+v, %v; want %+v", orphans, err, want)
	}
}

// doctor says that orphans may be deleted: no living grant may be called one,
// wherever the state directory is and whoever wrote the record.
func TestLivingGrantsAreNoOrphans(t *testing.T) {
	w := newWorld(t)
	w.dir += "/[state] *?" // which is no pattern
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	j := login(acme, keyB)
	check(t, v.Begin(t.Context(), &j))
	if orphans, err := v.Orphans(t.Context()); err != nil || len(orphans) != 0 {
		t.Errorf("%+v, %v", orphans, err)
	}
	path := w.recordPath(acme)
	w.write(path, bytes.Replace(w.read(path), []byte(`"version": 1`), []byte(`"version": 2`), 1))
	var newer *vault.NewerError
	if orphans, err := v.Orphans(t.Context()); !errors.As(err, &newer) || len(orphans) != 0 {
		t.Errorf("with a newer record: %+v, %v", orphans, err)
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	authorize(t, v, grantOf(apex, keyB, 1))

	var taken *vault.TakenError
	if err := v.Rename(acme, apex); !errors.As(err, &taken) || taken.ID != apex {
		t.Errorf("onto another company: %v", err)
	}
	zeta := acme
	zeta.Company = "Zeta"
	check(t, v.Rename(acme, zeta))
	if _, err := v.Record(acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("the old name: %v", err)
	}
	if got := mustGet(t, w.open(), zeta); got.RefreshToken != g.RefreshToken || got.Company != "Zeta" {
		t.Errorf("under the new name: %+v", got.Record)
	}
	louder := zeta
	louder.Company = "ZETA"
	check(t, v.Rename(zeta, louder))
	if record, err := v.Record(zeta); err != nil || record.Company != "ZETA" || record.Was != "" {
		t.Errorf("%+v, %v", record, err)
	}
	if err := v.Rename(acme, zeta); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("a name that is gone: %v", err)
	}
}

// An answer that nobody could use yet belongs to its grant, whatever that is
// called now.
func TestRenameTakesUnreadAnswersAlong(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	j := refreshing(authorize(t, v, grantOf(acme, keyA, 1)))
	for range 2 {
		check(t, v.Begin(t.Context(), &j))
		check(t, v.Seal(&j, []byte(answer)))
	}
	check(t, v.Settle(j))
	w.wantFiles("journals", acme.Slot()+"."+keyA+".journal.1.unread")
	zeta := acme
	zeta.Company = "Zeta"
	check(t, v.Rename(acme, zeta))
	w.wantFiles("journals", zeta.Slot()+"."+keyA+".journal.1.unread")
	check(t, v.Delete(t.Context(), zeta))
	w.wantNothing()
}
