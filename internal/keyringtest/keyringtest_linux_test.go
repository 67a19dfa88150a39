package keyringtest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/realpart"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put stores an item as go-keyring does.
func put(t *testing.T, k *Keyring, service, account string) error {
	t.Helper()
	s, err := k.secret([]byte("a secret"))
	check(t, err)
	properties := map[string]dbus.Variant{
		"org.freedesktop.Secret.Item.Label":      dbus.MakeVariant("a test's"),
		"org.freedesktop.Secret.Item.Attributes": dbus.MakeVariant(map[string]string{"service": service, "username": account}),
	}
	return k.object(login).Call("org.freedesktop.Secret.Collection.CreateItem", 0, properties, s, true).Err
}

func wantItems(t *testing.T, k *Keyring, want ...string) {
	t.Helper()
	got, err := k.Items("upsauth")
	check(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

func TestKeyring(t *testing.T) {
	k := Start(t)
	wantItems(t, k)
	for _, account := range []string{"b", "a", "Ünï 📦"} {
		check(t, put(t, k, "upsauth", account))
	}
	check(t, put(t, k, "another service", "c"))
	wantItems(t, k, "a", "b", "Ünï 📦")

	check(t, k.Lock())
	if locked, err := k.locked(); err != nil || !locked {
		t.Errorf("locked: %v, %v", locked, err)
	}
	wantItems(t, k, "a", "b", "Ünï 📦") // their names are no secret
	if err := put(t, k, "upsauth", "d"); err == nil {
		t.Error("an item could be stored while it was locked")
	}
	check(t, k.Unlock())
	check(t, put(t, k, "upsauth", "d"))

	check(t, k.Restart())
	wantItems(t, k, "a", "b", "d", "Ünï 📦")

	check(t, k.Stop())
	check(t, k.Stop())
	if _, err := k.Items("upsauth"); err == nil {
		t.Error("there are items without a daemon")
	}
	check(t, k.Restart())
	wantItems(t, k, "a", "b", "d", "Ünï 📦")
}

func TestPausedKeyringAnswersNobody(t *testing.T) {
	k := Start(t)
	check(t, k.Pause())
	answered := make(chan error, 1)
	go func() { _, err := k.locked(); answered <- err }()
	select {
	case err := <-answered:
		t.Errorf("it answered (%v)", err)
	case <-time.After(50 * time.Millisecond):
	}
	check(t, k.Resume())
	if !t.Failed() {
		check(t, <-answered)
	}

	// It can be ended in that state as well.
	check(t, k.Pause())
	check(t, k.Stop())
}

// Two tests at once must not see each other's items, and neither the user's.
func TestKeyringsAreOnTheirOwn(t *testing.T) {
	a, b := Start(t), Start(t)
	check(t, put(t, a, "upsauth", "a"))
	wantItems(t, a, "a")
	wantItems(t, b)
	for _, entry := range a.Env() {
		name, value, _ := strings.Cut(entry, "=")
		if slices.Contains(b.Env(), entry) && value != "" {
			t.Errorf("both have %s", entry)
		}
		if value != "" && !strings.Contains(value, a.dir) {
			t.Errorf("%s is the user's own: %s", name, value)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	Start(t) // or skip
	for name, end := range map[string]func(*Keyring) error{
		"as it is":        func(*Keyring) error { return nil },
		"locked":          (*Keyring).Lock,
		"paused":          (*Keyring).Pause,
		"stopped":         (*Keyring).Stop,
		"without its bus": (*Keyring).StopBus,
		"at the prompt":   (*Keyring).LeavePrompts,
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Launch()
			check(t, err)
			processes := []*process{k.process, k.daemon}
			check(t, end(k))
			check(t, k.Close())
			for _, p := range processes {
				if err := p.cmd.Process.Signal(os.Kill); !errors.Is(err, os.ErrProcessDone) {
					t.Errorf("%s still runs (%v)", filepath.Base(p.cmd.Path), err)
				}
			}
			if _, err := os.Stat(k.dir); !os.IsNotExist(err) {
				t.Errorf("its directory is left: %v", err)
			}
		})
	}
}

func TestMissingProgramIsNamedWithItsPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Launch()
	var missing *realpart.MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "apt-get install "+missing.Package) {
		t.Errorf("got %v", err)
	}
}
