package shared_test

import (
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
)

// Whoever looks for a host that is off for good, and a host that is new, go by when the others
// were seen last. A host that refreshes is seen.
func TestAHostThatWorksIsSeen(t *testing.T) {
	w := newWorld(t)
	a := w.host(t.TempDir(), "web-1")
	a.authorize()
	w.sql("UPDATE upsauth.hosts SET seen = seen - interval '2 days'")
	_, err := a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	if rows := w.sql("SELECT clock_timestamp() - seen < interval '1 minute' FROM upsauth.hosts"); rows[0][0] != "t" {
		t.Error("it was seen two days ago")
	}
}
