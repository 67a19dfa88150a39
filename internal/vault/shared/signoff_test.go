package shared_test

import (
	"testing"

	"github.com/upsauth/upsauth/internal/keeper"
)

// A host signs off once it has told all that it holds. It is back before its next request, so that
// a roll call waits for what comes of that.
func TestAHostSignsOffOnceItHoldsNothing(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	signsOff := func(want bool) {
		t.Helper()
		off, err := w.host(dir, "web-1").store.SignOff(t.Context())
		if err != nil || off != want {
			t.Errorf("it signs off: %t, %v", off, err)
		}
		if rows := w.sql("SELECT count(*) FROM upsauth.hosts WHERE signed_off IS NOT NULL"); (rows[0][0] == "1") != want {
			t.Errorf("%s hosts have signed off", rows[0][0])
		}
	}
	signsOff(false) // it is no host yet
	w.host(dir, "web-1").authorize()
	w.host(dir, "web-1").sealed(id)
	signsOff(false)
	_, err := w.host(dir, "web-1").Settle(t.Context(), id)
	must(t, err)
	signsOff(true)
	a := w.host(dir, "web-1")
	back := false
	a.Vault = wired{a.vault, func(now string) {
		if now == "before Seal" {
			back = w.sql("SELECT signed_off IS NULL FROM upsauth.hosts")[0][0] == "t"
			signsOff(false) // a process is at work
		}
	}}
	_, err = a.Refresh(t.Context(), id, keeper.Need{Always: true})
	must(t, err)
	if !back {
		t.Error("it asks UPS, and has not come back")
	}
	signsOff(true)
}
