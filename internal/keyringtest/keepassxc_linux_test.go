package keyringtest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/godbus/dbus/v5"
)

func TestKeePassXC(t *testing.T) {
	t.Parallel()
	k := StartKeePassXC(t)
	for _, state := range []DatabaseState{Open, Asking, Locked, NoDatabase, Open} {
		check(t, k.Restart(state))
	}
	items, err := k.Items("upsauth")
	check(t, err)
	if len(items) != 0 {
		t.Errorf("there are %q", items)
	}
	check(t, k.Stop())
	check(t, k.Stop())
	if _, err := k.Items("upsauth"); err == nil {
		t.Error("there are items without KeePassXC")
	}
}

// Two at once must not hand their databases to each other, as two of a user's
// would.
func TestKeePassXCsAreOnTheirOwn(t *testing.T) {
	t.Parallel()
	a, b := StartKeePassXC(t), StartKeePassXC(t)
	for _, k := range []*KeePassXC{a, b} {
		var collections []dbus.ObjectPath
		check(t, k.object(service).StoreProperty("org.freedesktop.Secret.Service.Collections", &collections))
		if len(collections) != 1 {
			t.Errorf("there are %v", collections)
		}
	}
	check(t, a.Restart(Locked))
	check(t, b.ready())
}

func TestCloseLeavesNoKeePassXC(t *testing.T) {
	t.Parallel()
	k := StartKeePassXC(t)
	processes := []*process{k.process, k.program}
	check(t, k.Close())
	for _, p := range processes {
		if err := p.cmd.Process.Signal(os.Kill); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s still runs (%v)", filepath.Base(p.cmd.Path), err)
		}
	}
	if _, err := os.Stat(k.dir); !os.IsNotExist(err) {
		t.Errorf("its directory is left: %v", err)
	}
}
