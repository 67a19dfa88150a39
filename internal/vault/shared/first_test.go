package shared_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Many goroutines refresh at once on a host that the database does not know yet. Each finds that out,
// and one makes the host known: the others don't wait for the first one's refresh to end.
func TestTheFirstRefreshesOfAHostDoNotWaitForEachOther(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	ids := []grant.ID{id, other}
	a := w.host(t.TempDir(), "web-1")
	for _, id := range ids {
		a.authorizeFor(id)
	}
	b := w.host(dir, "web-2")
	must(t, safefile.MkdirAll(filepath.Join(dir, "locks")))
	lock := safefile.NewLock(filepath.Join(dir, "locks", "host.lock"))
	if held, err := lock.TryLock(); err != nil || !held {
		t.Fatalf("the lock: %t, %v", held, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var claiming, all sync.WaitGroup
	claiming.Add(len(ids))
	answered, together := make(chan bool, len(ids)), make(chan bool)
	b.Vault = wired{b.vault, func(now string) {
		switch now {
		case "before Claim":
			claiming.Done()
		case "before Seal":
			answered <- true
			<-together
		}
	}}
	for _, id := range ids {
		all.Go(func() {
			if _, err := b.Refresh(ctx, id, keeper.Need{Always: true}); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	claiming.Wait()
	must(t, lock.Unlock())
	for range ids {
		select {
		case <-answered:
		case <-ctx.Done():
			t.Error("one waits until another has ended")
		}
	}
	close(together)
	all.Wait()
}
