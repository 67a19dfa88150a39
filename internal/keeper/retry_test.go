package keeper_test

import (
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
)

// What status and doctor say of a refresh that went through a proxy, from its record
// alone, is what a refresh would: the access token is used to its end first.
func TestPendingThroughAProxyIsToldAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.authorize()
	j := grant.Journal{ID: w.id, Purpose: grant.Refreshing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation + 1,
		Attempt: 1, Fate: grant.Fate{Time: w.clock.Now()}, BaseURL: g.BaseURL, Proxied: true}
	if got := w.start(nil).Pending(g.Record, j, nil).Again; got != lifetime {
		t.Errorf("the same token may send the same token again in %s, want %s", got, lifetime)
	}
}
