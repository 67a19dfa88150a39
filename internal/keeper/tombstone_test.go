package keeper_test

import (
	"errors"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
)

// A revoke that is cut off right behind its tombstone leaves the whole journal, with all
// that makes the grant again. The next use must not make it.
func TestJournalBringsNoRevokedGrantBack(t *testing.T) {
	for name, refresh := range map[string]bool{"authorized": false, "refreshed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.authorize()
			if refresh {
				w.refresh()
			}
			v := w.start(nil).vault
			if err := v.Note(t.Context(), w.id, func(l *grant.Local) { l.Removing = true }); err != nil {
				t.Fatal(err)
			}
			if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}); !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("the revoked grant: %v; want none", err)
			}
			if err := w.start(nil).SettleLogins(t.Context(), w.id); err != nil {
				t.Error(err)
			}
			if _, err := v.Record(t.Context(), w.id); !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("the record: %v; want none", err)
			}
			w.authorize()
		})
	}
}
