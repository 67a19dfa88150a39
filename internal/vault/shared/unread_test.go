package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// UPS's answer comes without a token that can be read: its host keeps it sealed, and nobody waits
// for it. Another host sends the token again, UPS refuses it, and the grant is void.
func TestNobodyWaitsForAnAnswerWithoutTokens(t *testing.T) {
	for _, moment := range []string{"", "after Seal", "before Mark", "after Mark"} {
		t.Run("its process is ended "+moment, func(t *testing.T) {
			w := newWorld(t)
			dirA, dirB := t.TempDir(), t.TempDir()
			a, b := w.sharing(dirA, dirB)
			must(t, w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Omit: []string{"access_token", "refresh_token"}, Times: 1}))
			var err error
			ended := b.until(moment, func() { _, err = b.Refresh(t.Context(), id, keeper.Need{Always: true}) })
			if ended != (moment != "") || !ended && !is[*keeper.UnreadError](err) {
				t.Fatalf("it was ended: %t, %v", ended, err)
			}
			for range 3 {
				w.wait(11 * time.Minute)
				for _, h := range []*host{w.host(dirB, "web-2"), a} {
					_, err = h.Refresh(t.Context(), id, keeper.Need{Always: true})
				}
			}
			if !is[*keeper.GoneError](err) {
				t.Errorf("nobody has another token: %v", err)
			}
		})
	}
}
