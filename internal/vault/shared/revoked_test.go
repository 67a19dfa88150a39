package shared_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Many grants were revoked before the database went back, and many goroutines find that out at
// once: a process has two connections.
func TestManyRevokesThatWereTakenBack(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	var ids []grant.ID
	for i := range 6 {
		ids = append(ids, grant.ID{Company: fmt.Sprintf("Company %d", i), Application: id.Application, Environment: id.Environment})
		a.authorizeFor(ids[i])
	}
	forget := w.remember()
	for _, id := range ids {
		must(t, a.Revoke(t.Context(), id))
	}
	a.db.Close()
	forget()
	a = w.host(dir, "web-1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	said := make(chan error, len(ids))
	for _, id := range ids {
		go func() {
			_, err := a.store.Grant(ctx, id.Slot())
			said <- err
		}()
	}
	for range ids {
		if err := <-said; ctx.Err() != nil {
			t.Fatalf("they wait for each other: %v", err)
		}
	}
	if rows := w.sql("SELECT DISTINCT state FROM upsauth.grants"); len(rows) != 1 || rows[0][0] != "removing" {
		t.Errorf("the grants are %v", rows)
	}
}

// Another host has revoked a grant whose journal is looked at again after a start of the system.
// The answers of other grants are delivered all the same.
func TestAnAnswerIsDeliveredBesideARevokedGrant(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(dir, "web-1"), w.host(t.TempDir(), "web-2")
	later := behind(id)
	a.authorize()
	a.authorizeFor(later)
	_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	must(t, b.Revoke(t.Context(), id))
	must(t, os.Remove(filepath.Join(dir, "journals", ".boot")))
	w.host(dir, "web-1").sealed(later)
	w.host(dir, "web-1").deliver()
	w.later(11 * time.Minute)
	if _, err := b.Refresh(t.Context(), later, keeper.Need{Always: true}); err != nil || w.reused() > 0 {
		t.Errorf("%d tokens were sent twice, %v", w.reused(), err)
	}
}

// A grant was revoked, and the database changes hands and has lost nothing. The host that signed
// in, and one that has refreshed it, have a copy and a journal of it yet: nothing of that comes back.
func TestARevokedGrantDoesNotComeBack(t *testing.T) {
	for _, revoker := range []string{"the host that signed in", "another host"} {
		t.Run(revoker, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			if revoker == "another host" {
				must(t, b.Revoke(t.Context(), id))
			} else {
				must(t, a.Revoke(t.Context(), id))
			}
			w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
			for range 2 {
				for dir, name := range map[string]string{dirB: "web-2", dirA: "web-1"} {
					_, _ = w.host(dir, name).Refresh(t.Context(), other, keeper.Need{Always: true})
					w.host(dir, name).deliver()
				}
			}
			for dir, name := range map[string]string{dirB: "web-2", dirA: "web-1"} {
				h := w.host(dir, name)
				if list, _, err := h.vault.List(t.Context(), id.Company); err != nil || len(list) > 0 {
					t.Errorf("%s lists %v, %v", name, list, err)
				}
				if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
					t.Errorf("%s refreshes it", name)
				}
			}
			if rows := w.sql("SELECT slot FROM upsauth.grants"); len(rows) != 1 {
				t.Errorf("the grants are %v", rows)
			}
			if rows := w.sql("SELECT account FROM upsauth.secrets s WHERE NOT EXISTS (SELECT FROM upsauth.grants g WHERE s.account LIKE g.token_vault_key || '%')"); len(rows) > 0 {
				t.Errorf("secrets of nothing: %v", rows)
			}
		})
	}
}

// A host is killed after it has sealed an answer, and another one revokes the grant: what this
// host has of it goes, and nobody is told of it for ever.
func TestAnAnswerOfARevokedGrantGoes(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(t.TempDir(), "web-1")
	key := a.authorize().TokenVaultKey
	_, err := w.host(dir, "web-2").Token(t.Context(), id, 0)
	must(t, err)
	w.host(dir, "web-2").sealed(id)
	must(t, a.Revoke(t.Context(), id))
	w.host(dir, "web-2").deliver()
	if list, _, err := w.host(dir, "web-2").vault.List(t.Context(), ""); err != nil || len(list) > 0 {
		t.Errorf("it lists %v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "journals", "slots", key)); !os.IsNotExist(err) {
		t.Errorf("the journal is there: %v", err)
	}
}

// Another host signs the company in again. After the next start of the system this host removes
// what it has of the earlier grant.
func TestJournalsOfAReplacedGrantGo(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(t.TempDir(), "web-1"), w.host(dir, "web-2")
	key := a.authorize().TokenVaultKey
	_, err := b.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	a.authorize()
	must(t, os.Remove(filepath.Join(dir, "journals", ".boot")))
	b = w.host(dir, "web-2")
	b.deliver()
	if _, err := os.Stat(filepath.Join(dir, "journals", "slots", key)); !os.IsNotExist(err) {
		t.Errorf("the journal is there: %v", err)
	}
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Error(err)
	}
}

// The database has lost its last commits and is still the same one: a grant lives again that this
// host has revoked, in whose slot it has signed in since. Nobody is given its token.
func TestARevokedGrantIsNotServedOnceMore(t *testing.T) {
	w := newWorld(t)
	a := w.host(t.TempDir(), "web-1")
	revoked := a.authorize().TokenVaultKey
	w.sql("CREATE TABLE kept AS SELECT * FROM upsauth.grants; CREATE TABLE kept_secrets AS SELECT * FROM upsauth.secrets")
	must(t, a.Revoke(t.Context(), id))
	a.authorize()
	w.sql(`DELETE FROM upsauth.grants; INSERT INTO upsauth.grants SELECT * FROM kept;
		DELETE FROM upsauth.secrets; INSERT INTO upsauth.secrets SELECT * FROM kept_secrets`)
	w.pass(shared.RecentFor) // no copy is served without a look
	if g, err := a.Token(t.Context(), id, 0); err == nil {
		t.Errorf("the token of the grant %s is served, and %s was revoked", g.TokenVaultKey, revoked)
	}
}
