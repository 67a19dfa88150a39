package shared_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// A page reads a grant while a process of the same host refreshes it, and is slow. Another host
// renames the company meanwhile. What was read is not what is written: the answer goes to the
// company's new name.
func TestASlowReaderBesideARefreshAndARename(t *testing.T) {
	w := newWorld(t)
	var armed atomic.Bool
	stalled, goOn := make(chan struct{}), make(chan struct{})
	a := w.host(t.TempDir(), "web-1", func(o *shared.Options) {
		now := o.Now
		o.Now = func() time.Time {
			if armed.CompareAndSwap(true, false) {
				close(stalled)
				<-goOn
			}
			return now()
		}
	})
	a.authorize()
	b := w.host(t.TempDir(), "web-2")
	_, err := b.Token(t.Context(), id, 0)
	must(t, err)
	renamed := grant.ID{Company: "Acme Inc", Application: id.Application, Environment: id.Environment}
	read := make(chan struct{})
	a.Vault = wired{a.vault, func(now string) {
		switch now {
		case "before LastLook":
			time.Sleep(300 * time.Millisecond) // what was read before is old
			armed.Store(true)
			go func() {
				defer close(read)
				_, _ = a.store.Grant(t.Context(), id.Slot())
			}()
			<-stalled
			must(t, b.Rename(t.Context(), id, renamed.Company))
		case "after LastLook":
			close(goOn)
			<-read
		}
	}}
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	t.Logf("the refresh: %v", err)
	a.Vault = a.vault
	if g, err := a.Settle(t.Context(), renamed); err != nil || g.Generation != 2 {
		t.Errorf("the answer is not put in place: generation %d, %v", g.Generation, err)
	}
	for _, h := range []*host{w.host(t.TempDir(), "web-3"), b} {
		if g, err := h.vault.Get(t.Context(), renamed); err != nil || g.Generation != 2 {
			t.Errorf("another host: generation %d, %v", g.Generation, err)
		}
	}
}

// A company is renamed by another host right before an answer is put in place.
func TestACompanyIsRenamedBeforeItsAnswerIsPutInPlace(t *testing.T) {
	w := newWorld(t)
	a, b := w.host(t.TempDir(), "web-1"), w.host(t.TempDir(), "web-2")
	a.authorize()
	_, err := b.Token(t.Context(), id, 0)
	must(t, err)
	renamed := grant.ID{Company: "Acme Inc", Application: id.Application, Environment: id.Environment}
	a.Vault = wired{a.vault, func(now string) {
		if now == "before Put" {
			w.sql("UPDATE upsauth.claims SET time = time - interval '11 min'") // so that it may be renamed
			must(t, b.Rename(t.Context(), id, renamed.Company))
		}
	}}
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	t.Logf("the refresh: %v", err)
	a.Vault = a.vault
	if g, err := a.Settle(t.Context(), renamed); err != nil || g.Generation != 2 {
		t.Errorf("the answer is not put in place: generation %d, %v", g.Generation, err)
	}
	if g, err := b.vault.Get(t.Context(), renamed); err != nil || g.Generation != 2 {
		t.Errorf("another host: generation %d, %v", g.Generation, err)
	}
}

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
	for range 4 {
		w.later(2 * time.Minute)
		c := w.host(cloned, "web-1")
		c.store.TakeOver()
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
	dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
	must(t, err)
	for _, id := range ids {
		must(t, a.Revoke(t.Context(), id))
	}
	a.db.Close()
	must(t, w.server.Restore("postgres", dump))
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

// The database has lost the claim of an answer that became a spare. Its host says so at the roll
// call, and the spare is tried before void is said.
func TestASpareWhoseClaimWasLostIsTriedBeforeVoidIsSaid(t *testing.T) {
	w := newWorld(t, func(o *sandbox.Options) { o.Strict, o.Grace = false, 24*time.Hour })
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
	a.authorize()
	a.authorizeFor(other)
	_, err := b.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err)
	dump, err := w.server.Dump("postgres", "--clean", "--if-exists")
	must(t, err)
	w.pass(2 * time.Hour)
	if !b.until("after Seal", func() { _, _ = b.Refresh(t.Context(), id, keeper.Need{Always: true}) }) {
		t.Fatal("it was not ended")
	}
	w.later(61 * time.Second)
	a = w.host(dirA, "web-1")
	a.store.TakeOver()
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	_, err = w.host(dirB, "web-2").Settle(t.Context(), id)
	must(t, err) // a spare now
	a.db.Close()
	b.db.Close()
	must(t, w.server.Restore("postgres", dump))
	a, b = w.host(dirA, "web-1"), w.host(dirB, "web-2")
	_, _ = b.Refresh(t.Context(), other, keeper.Need{Always: true})
	_, err = a.Refresh(t.Context(), other, keeper.Need{Always: true})
	must(t, err) // both have answered
	must(t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 400, Code: "10400", Message: "Invalid Refresh Token", Times: 1}))
	if _, err = a.Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*keeper.ContestedError](err) {
		t.Errorf("UPS refuses the token that stands: %v", err)
	}
	if g, err := w.host(dirB, "web-2").Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
		t.Errorf("the host that has the spare: generation %d, %v", g.Generation, err)
	}
}
