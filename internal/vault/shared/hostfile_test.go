package shared_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Who this host is can't be read any more. Nothing is sent until a person removes the file; then
// the machine is a new host, and delivers what the earlier one has sealed.
func TestADamagedHostFile(t *testing.T) {
	w := newWorld(t)
	dir, dirB := t.TempDir(), t.TempDir()
	a, b := w.sharing(dir, dirB)
	a.sealed(id)
	path := filepath.Join(dir, "host.json")
	must(t, os.WriteFile(path, []byte(`{"version":`), 0o600))
	if _, err := w.host(dir, "web-1").Refresh(t.Context(), id, keeper.Need{Always: true}); !is[*shared.HostFileError](err) {
		t.Errorf("it is damaged: %v", err)
	}
	must(t, os.Remove(path))
	w.host(dir, "web-1").deliver()
	w.wait(time.Minute)
	for _, h := range []*host{w.host(dir, "web-1"), b} {
		if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
			t.Errorf("once it is removed: %v", err)
		}
	}
	if w.reused() > 0 {
		t.Errorf("%d tokens were sent twice", w.reused())
	}
}
