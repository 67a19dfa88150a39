package shared_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
)

// epoch is the database's.
func (w *world) epoch() int {
	w.t.Helper()
	rows, err := w.server.SQL("postgres", "SELECT epoch FROM upsauth.meta")
	must(w.t, err)
	n, err := strconv.Atoi(rows[0][0])
	must(w.t, err)
	return n
}

// until does something again and again.
func until(done <-chan struct{}, do func()) {
	for {
		select {
		case <-done:
			return
		default:
			do()
		}
	}
}

// A process that reads a grant while another one of its host refreshes it may have read an
// older token than the host knows once it looks. That is no sign that the database went back:
// everybody would wait for every host.
func TestAReaderBesideARefreshBeginsNoEpoch(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	a.authorize()
	before := w.epoch()
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		reader := w.host(dir, "web-1")
		all.Go(func() {
			until(done, func() {
				if _, err := reader.vault.Record(t.Context(), id); err != nil {
					t.Errorf("a reader: %v", err)
				}
			})
		})
	}
	for range 20 {
		w.pass(time.Minute)
		if _, err := a.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Error(err)
		}
	}
	close(done)
	all.Wait()
	if after := w.epoch(); after != before {
		t.Errorf("%d epochs began", after-before)
	}
}

// Several processes of a host find at once that the database went back: that is one epoch.
func TestManyProcessesBeginOneEpoch(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	a.authorize()
	dump, err := w.server.SQL("postgres", "SELECT generation, attempt, item, mac FROM upsauth.grants")
	must(t, err)
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	before := w.epoch()
	old := dump[0]
	_, err = w.server.SQL("postgres", "UPDATE upsauth.grants SET generation = "+old[0]+", attempt = "+old[1]+", item = '"+old[2]+"', mac = '"+old[3]+"'")
	must(t, err)
	var all sync.WaitGroup
	for range 8 {
		reader := w.host(dir, "web-1")
		all.Go(func() {
			if r, err := reader.vault.Record(t.Context(), id); err != nil || r.Generation != 2 {
				t.Errorf("generation %d, %v", r.Generation, err)
			}
		})
	}
	all.Wait()
	if after := w.epoch(); after != before+1 {
		t.Errorf("%d epochs began", after-before)
	}
}

// A host refreshes many grants at once, each as soon as another is done. A roll call of its own
// comes to its turn.
func TestARollCallComesToItsTurn(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	a := w.host(dir, "web-1")
	a.authorize()
	a.authorizeFor(other)
	var all sync.WaitGroup
	done := make(chan struct{})
	for _, id := range []grant.ID{id, other} {
		busy := w.host(dir, "web-1")
		all.Go(func() {
			until(done, func() { _, _ = busy.Refresh(t.Context(), id, keeper.Need{Always: true}) })
		})
	}
	for range 5 {
		w.sql("UPDATE upsauth.meta SET timeline = timeline + 7")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		for {
			_, err := w.host(dir, "web-1").store.Grant(ctx, id.Slot())
			must(t, err)
			if rows := w.sql("SELECT count(*) FROM upsauth.meta m, upsauth.hosts h WHERE h.epoch = m.epoch AND m.timeline < 7"); rows[0][0] == "1" {
				break
			}
			if ctx.Err() != nil {
				t.Fatal("nobody answers the roll call")
			}
		}
		cancel()
	}
	close(done)
	all.Wait()
}
