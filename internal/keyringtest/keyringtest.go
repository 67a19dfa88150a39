// Package keyringtest runs a real gnome-keyring or KeePassXC on a private
// session bus for tests, in directories of its own, so that nothing of the
// user's is touched.
package keyringtest

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upsauth/upsauth/internal/realpart"
)

const (
	secrets  = "org.freedesktop.secrets"
	service  = dbus.ObjectPath("/org/freedesktop/secrets")
	login    = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	password = "the login keyring's password"

	// patience is for what must happen, on the slowest machine.
	patience = 20 * time.Second
)

// Keyring is a session bus and a gnome-keyring-daemon on it. Its methods are
// for one goroutine.
type Keyring struct {
	*bus
	daemon *process
	away   *dbus.Conn // holds the prompter's name, see LeavePrompts
	// collections are those that a test added, and login, by their labels.
	collections map[string]dbus.ObjectPath
}

// Start returns a keyring that is unlocked and stopped when the test ends.
// Where its programs are missing the test is skipped, in CI it fails.
func Start(tb testing.TB) *Keyring {
	tb.Helper()
	return forTest(tb, Launch)
}

// forTest launches a service for as long as a test runs.
func forTest[S interface{ Close() error }](tb testing.TB, launch func() (S, error)) S {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("real keychains are tested on Linux only")
	}
	realpart.Wanted(tb)
	s, err := launch()
	realpart.Must(tb, err)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Launch is Start for where there is no test, as in TestMain. The caller
// closes the keyring. The error is a *realpart.MissingError where a program is.
func Launch() (*Keyring, error) {
	b, err := startBus("gnome-keyring", "gnome-keyring-daemon")
	if err != nil {
		return nil, err
	}
	k := &Keyring{bus: b}
	if err := k.startDaemon(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (k *Keyring) startDaemon() error {
	daemon := exec.Command("gnome-keyring-daemon", "--unlock", "--components=secrets", "--foreground")
	daemon.Env = k.environ()
	daemon.Stdin = strings.NewReader(password)
	var err error
	if k.daemon, err = start(daemon, filepath.Join(k.dir, "daemon.log")); err != nil {
		return err
	}
	// It has the name on the bus before it has the keyring.
	return await(k.daemon, "gnome-keyring-daemon", func() error {
		locked, err := k.locked()
		if err == nil && locked {
			err = errors.New("its keyring is locked")
		}
		return err
	})
}

func (k *Keyring) locked() (bool, error) {
	var locked bool
	err := k.object(login).StoreProperty("org.freedesktop.Secret.Collection.Locked", &locked)
	return locked, err
}

// Lock locks the login keyring. Who wants something of it then makes the
// daemon ask for its password, and as nobody is there to show the question, it
// counts as dismissed at once.
func (k *Keyring) Lock() error { return k.lock(login) }

func (k *Keyring) lock(collection dbus.ObjectPath) error {
	var done []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := k.object(service).Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{collection}).Store(&done, &prompt); err != nil {
		return err
	}
	if len(done) != 1 {
		return fmt.Errorf("%s was not locked (%v, %v)", collection, done, prompt)
	}
	return nil
}

// Unlock unlocks it again without a question.
func (k *Keyring) Unlock() error { return k.unlock(login) }

func (k *Keyring) unlock(collection dbus.ObjectPath) error {
	s, err := k.secret([]byte(password))
	if err != nil {
		return err
	}
	return k.object(service).Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.UnlockWithMasterPassword", 0, collection, s).Err
}

// secret is a secret as the Secret Service takes it.
type secret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

func (k *Keyring) secret(value []byte) (secret, error) {
	s := secret{Value: value, ContentType: "text/plain"}
	var output dbus.Variant
	err := k.object(service).Call("org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&output, &s.Session)
	return s, err
}

// Pause stops the daemon where it is, as a machine under heavy load would: it
// stays on the bus and answers nobody until Resume.
func (k *Keyring) Pause() error { return k.daemon.pause() }

// Resume lets it go on, with what was asked of it meanwhile.
func (k *Keyring) Resume() error { return k.daemon.resume() }

// Stop ends the daemon. The bus stays, and nothing on it keeps secrets.
func (k *Keyring) Stop() error { return k.daemon.stop() }

// Restart ends the daemon, if it runs, and starts it again, unlocked. The items
// are the same as before.
func (k *Keyring) Restart() error {
	if err := k.Stop(); err != nil {
		return err
	}
	return k.startDaemon()
}

// StopBus ends the bus, and with it the daemon.
func (k *Keyring) StopBus() error { return errors.Join(k.daemon.stop(), k.process.stop()) }

// LeavePrompts has the daemon's questions shown to nobody and never answered,
// as on a desktop whose user is away. Without it they are dismissed at once.
func (k *Keyring) LeavePrompts() error {
	conn, err := dbus.Connect(k.address)
	if err != nil {
		return err
	}
	k.away = conn
	const prompter = "org.gnome.keyring.internal.Prompter"
	if err := conn.Export(nobody{}, "/org/gnome/keyring/Prompter", prompter); err != nil {
		return err
	}
	_, err = conn.RequestName("org.gnome.keyring.SystemPrompter", dbus.NameFlagDoNotQueue)
	return err
}

// nobody is a prompter that never says it is ready.
type nobody struct{}

func (nobody) BeginPrompting(dbus.ObjectPath) *dbus.Error { return nil }
func (nobody) StopPrompting(dbus.ObjectPath) *dbus.Error  { return nil }

// Close ends everything and removes the directories.
func (k *Keyring) Close() error {
	err := k.daemon.stop()
	if k.away != nil {
		_ = k.away.Close()
	}
	return errors.Join(err, k.close())
}
