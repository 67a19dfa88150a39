package shared_test

import (
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
)

// A company is renamed, and the database goes back: to before the rename, or to before a refresh
// that another host then puts back. The token goes to the name that the grant has by then, and
// every host can use it.
func TestATokenIsPutBackUnderTheNameThatItsGrantHas(t *testing.T) {
	for _, renamed := range []string{"before the refresh", "after the database went back"} {
		t.Run(renamed, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			forget := w.remember()
			which, next := id, named("Acme Inc")
			if renamed == "before the refresh" {
				must(t, a.Rename(t.Context(), id, next.Company))
				which, next = next, id
			}
			_, err := b.Refresh(t.Context(), which, keeper.Need{Always: true})
			must(t, err)
			a.db.Close()
			b.db.Close()
			forget()
			if renamed == "after the database went back" {
				must(t, w.host(dirA, "web-1").Rename(t.Context(), id, next.Company))
			}
			w.answered(dirA, dirB)
			for _, h := range []*host{w.host(dirA, "web-1"), w.host(dirB, "web-2"), w.host(t.TempDir(), "web-3")} {
				if _, err := h.Refresh(t.Context(), next, keeper.Need{Always: true}); err != nil {
					t.Error(err)
				}
			}
			if w.reused() > 0 {
				t.Errorf("%d tokens were sent twice", w.reused())
			}
		})
	}
}
