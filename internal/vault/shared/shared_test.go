package shared_test

import (
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

func TestTwoHostsShareAGrant(t *testing.T) {
	t.Run("at a socket", func(t *testing.T) { shareAGrant(t, newWorld(t)) })
	t.Run("with TLS and SCRAM", func(t *testing.T) {
		w := newWorld(t)
		w.sql("ALTER ROLE upsauth PASSWORD 'pw'")
		w.address = w.server.URL(postgres.Role, "pw", "postgres")
		shareAGrant(t, w)
	})
	t.Run("behind a pooler in transaction mode", func(t *testing.T) {
		w := newWorld(t)
		w.sql("ALTER ROLE upsauth PASSWORD 'pw'")
		pooler, err := w.server.Pooler(map[string]string{postgres.Role: "pw"})
		must(t, err)
		w.address = pooler.URL(postgres.Role, "postgres")
		shareAGrant(t, w)
	})
}

func shareAGrant(t *testing.T, w *world) {
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := w.host(dirA, "web-1"), w.host(dirB, "web-2")
	first := a.authorize()
	got, err := b.Token(t.Context(), id, time.Minute)
	must(t, err)
	if got.AccessToken != first.AccessToken || got.AccessToken == "" {
		t.Error("the second host has another token")
	}
	w.pass(2 * time.Hour)
	second, err := b.Token(t.Context(), id, time.Minute)
	must(t, err)
	if second.AccessToken == first.AccessToken || second.Generation != 2 {
		t.Errorf("generation %d", second.Generation)
	}
	third, err := a.Token(t.Context(), id, time.Minute)
	must(t, err)
	if third.AccessToken != second.AccessToken {
		t.Error("the first host does not have the token that the second one got")
	}
	for range 3 {
		for _, h := range []*host{a, b} {
			w.pass(time.Minute)
			if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := w.refreshes(); n != 7 {
		t.Errorf("UPS refreshed %d times", n)
	}
}

// Many at once on several hosts make one refresh.
func TestAHerdMakesOneRefresh(t *testing.T) {
	w := newWorld(t)
	w.host(t.TempDir(), "web-0").authorize()
	w.pass(2 * time.Hour)
	var all sync.WaitGroup
	for range 3 {
		dir := t.TempDir()
		for range 4 {
			h := w.host(dir, "web")
			all.Go(func() {
				g, err := h.Token(t.Context(), id, time.Minute)
				if err != nil || g.Generation != 2 {
					t.Errorf("generation %d, %v", g.Generation, err)
				}
			})
		}
	}
	all.Wait()
	if n := w.refreshes(); n != 1 {
		t.Errorf("UPS refreshed %d times", n)
	}
}
