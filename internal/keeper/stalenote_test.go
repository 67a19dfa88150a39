package keeper_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
)

// A loss of power may bring back the note that a company's earlier name had news of a
// grant. Neither a use of that name nor a new company of that name may touch the grant.
func TestNoteUnderAnEarlierName(t *testing.T) {
	onDisk(t, "what lies in its directories is changed")
	w := newWorld(t)
	w.authorize()
	before := w.refresh()
	if err := w.start(nil).Rename(t.Context(), w.id, "Other Corp"); err != nil {
		t.Fatal(err)
	}
	journals := filepath.Join(w.dir, "journals")
	if err := os.WriteFile(filepath.Join(journals, "open", w.id.Slot()+"."+before.TokenVaultKey), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("the earlier name: %v; want no grant", err)
	}
	w.authorize() // another company of that name
	if _, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{Always: true}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(journals, "slots", before.TokenVaultKey)); err != nil {
		t.Errorf("the renamed company has lost its journal: %v", err)
	}
	renamed := w.id
	renamed.Company = "Other Corp"
	if _, err := w.start(nil).Refresh(t.Context(), renamed, keeper.Need{Always: true}); err != nil {
		t.Errorf("the renamed company: %v", err)
	}
}
