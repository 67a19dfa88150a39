package keeper_test

import (
	"errors"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
)

func TestMoveWaitsForARefreshOfUnknownFate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	w.pass(2 * time.Hour)
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503, Times: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err == nil {
		t.Fatal("the refresh worked")
	}
	_, err := w.start(nil).Move(t.Context(), w.id, "keychain")
	if !errors.As(err, new(*keeper.PendingError)) {
		t.Errorf("got %v", err)
	}
}
