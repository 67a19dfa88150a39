package shared_test

import (
	"fmt"
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
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := reader.vault.Record(t.Context(), id); err != nil {
					t.Errorf("a reader: %v", err)
					return
				}
			}
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

// A host has signed off, and refreshes many grants at once. One goroutine answers the roll call for
// all, and the others spend. If each of them did, it would wait for a moment in which none spends.
func TestManyRefreshesAnswerTheRollCallOnce(t *testing.T) {
	w := newWorld(t)
	a := w.host(t.TempDir(), "web-1")
	var ids []grant.ID
	for i := range 16 {
		ids = append(ids, named(fmt.Sprintf("Company %d", i)))
		a.authorizeFor(ids[i])
	}
	w.sql(`UPDATE upsauth.hosts SET signed_off = now();
		CREATE TABLE public.answers (epoch bigint);
		CREATE FUNCTION public.answered() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
		$$ BEGIN INSERT INTO public.answers VALUES (NEW.epoch); RETURN NULL; END $$;
		CREATE TRIGGER answered AFTER UPDATE OF epoch ON upsauth.hosts FOR EACH ROW EXECUTE FUNCTION public.answered()`)
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() {
			if _, err := a.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if rows := w.sql("SELECT epoch FROM public.answers"); len(rows) != 1 {
		t.Errorf("it answered %d times", len(rows))
	}
}
