package shared_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
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

// Another host renames the companies whose answers are sealed here. They are delivered by this
// host's next command, whatever that is about.
func TestAnAnswerFollowsItsGrant(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a, b := w.host(dir, "web-1"), w.host(t.TempDir(), "web-2")
	later := behind(id)
	a.authorize()
	a.authorizeFor(later)
	_, err := b.Token(t.Context(), id, 0)
	must(t, err)
	for _, id := range []grant.ID{id, later} {
		w.host(dir, "web-1").sealed(id)
	}
	w.later(11 * time.Minute)
	renamed := named("Acme Inc")
	must(t, b.Rename(t.Context(), id, renamed.Company))
	w.host(dir, "web-1").deliver()
	for _, id := range []grant.ID{renamed, later} {
		if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Error(err)
		}
	}
	if w.reused() > 0 {
		t.Errorf("%d tokens were sent twice", w.reused())
	}
}

// A database that went back has an older token. A host renames the company before the one that has
// read the newer token answers the roll call. The newer token is put back under the new name.
func TestACompanyIsRenamedBeforeItsTokenIsPutBack(t *testing.T) {
	w := newWorld(t)
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b, lost := w.host(dirA, "web-1"), w.host(dirB, "web-2"), w.host(t.TempDir(), "web-3")
	for i, h := range []*host{a, b, lost} {
		h.authorizeFor(named(fmt.Sprintf("Company of web-%d", i+1))) // it is in the list of hosts
	}
	b.authorize()
	forget := w.remember()
	_, err := lost.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	newer, err := a.Token(t.Context(), id, 0)
	must(t, err)
	for _, h := range []*host{a, b, lost} {
		h.db.Close()
	}
	forget()
	w.sql("UPDATE upsauth.hosts SET removed = now() WHERE name = 'web-3'")
	b = w.host(dirB, "web-2")
	if _, err := b.Refresh(t.Context(), id, keeper.Need{Always: true}); err == nil {
		t.Error("an older token was sent")
	}
	renamed := named("Acme Inc")
	must(t, b.Rename(t.Context(), id, renamed.Company))
	a = w.host(dirA, "web-1")
	_, err = a.Refresh(t.Context(), named("Company of web-1"), keeper.Need{Always: true}) // it answers the roll call
	must(t, err)
	for _, h := range []*host{a, b, w.host(t.TempDir(), "web-4")} {
		if got, err := h.Token(t.Context(), renamed, time.Minute); err != nil || got.AccessToken != newer.AccessToken {
			t.Errorf("generation %d, %v", got.Generation, err)
		}
	}
	if _, err := b.Refresh(t.Context(), renamed, keeper.Need{Always: true}); err != nil || w.reused() != 0 {
		t.Errorf("%d tokens were sent again: %v", w.reused(), err)
	}
}
