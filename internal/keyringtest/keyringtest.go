// Package keyringtest runs a real gnome-keyring on a private session bus for
// tests, in directories of its own, so that nothing of the user's is touched.
package keyringtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	secrets  = "org.freedesktop.secrets"
	service  = dbus.ObjectPath("/org/freedesktop/secrets")
	login    = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	password = "the login keyring's password"

	// patience is for what must happen, on the slowest machine.
	patience = 20 * time.Second
)

// busConfig offers no service that the bus would start by itself: a keyring
// that was stopped stays away, and no window can open.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// MissingError says that a program is not installed.
type MissingError struct {
	Program, Package string // the package is Debian's
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("there is no %s (Debian: apt-get install %s)", e.Program, e.Package)
}

// Keyring is a session bus and a gnome-keyring-daemon on it. Its methods are
// for one goroutine.
type Keyring struct {
	dir     string
	address string
	bus     *process
	daemon  *process
	conn    *dbus.Conn // ours, to look at it and to steer it
	away    *dbus.Conn // holds the prompter's name, see LeavePrompts
}

// Start returns a keyring that is unlocked and stopped when the test ends.
// Where its programs are missing the test is skipped, in CI it fails.
func Start(tb testing.TB) *Keyring {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("gnome-keyring is tested on Linux only")
	}
	k, err := Launch()
	var missing *MissingError
	if errors.As(err, &missing) && os.Getenv("CI") == "" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := k.Close(); err != nil {
			tb.Error(err)
		}
	})
	return k
}

// Launch is Start for where there is no test, as in TestMain. The caller
// closes the keyring. The error is a *MissingError where a program is.
func Launch() (*Keyring, error) {
	for program, pkg := range map[string]string{"dbus-daemon": "dbus-daemon", "gnome-keyring-daemon": "gnome-keyring"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, &MissingError{Program: program, Package: pkg}
		}
	}
	// Not the test's own directory: the path of a socket has a hundred
	// characters at most.
	dir, err := os.MkdirTemp("", "keyring")
	if err != nil {
		return nil, err
	}
	k := &Keyring{dir: dir}
	if err := k.launch(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (k *Keyring) launch() error {
	for _, name := range []string{"home", "run", "data"} {
		if err := os.Mkdir(filepath.Join(k.dir, name), 0o700); err != nil {
			return err
		}
	}
	config := filepath.Join(k.dir, "bus.conf")
	socket := dbus.EscapeBusAddressValue(filepath.Join(k.dir, "bus"))
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, socket), 0o600); err != nil {
		return err
	}
	bus := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nosyslog", "--print-address=1")
	bus.Env = k.environ()
	out, err := bus.StdoutPipe()
	if err != nil {
		return err
	}
	if k.bus, err = start(bus, filepath.Join(k.dir, "bus.log")); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the bus did not come up: %w\n%s", err, k.bus.log())
	}
	k.address = strings.TrimSpace(line)
	if k.conn, err = dbus.Connect(k.address); err != nil {
		return fmt.Errorf("the bus can't be used: %w", err)
	}
	return k.startDaemon()
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
	giveUp := time.After(patience)
	for {
		locked, err := k.locked()
		if err == nil && !locked {
			return nil
		}
		select {
		case <-k.daemon.done:
			return fmt.Errorf("gnome-keyring-daemon ended: %s", k.daemon.log())
		case <-giveUp:
			return fmt.Errorf("gnome-keyring-daemon gives no unlocked keyring (locked: %v, %w): %s", locked, err, k.daemon.log())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Env are the entries that put a child process on the bus of the keyring.
func (k *Keyring) Env() []string {
	return []string{
		"DBUS_SESSION_BUS_ADDRESS=" + k.address,
		"HOME=" + filepath.Join(k.dir, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(k.dir, "run"),
		"XDG_DATA_HOME=" + filepath.Join(k.dir, "data"),
		"DISPLAY=", "WAYLAND_DISPLAY=",
	}
}

func (k *Keyring) environ() []string { return append(os.Environ(), k.Env()...) }

func (k *Keyring) object(path dbus.ObjectPath) dbus.BusObject { return k.conn.Object(secrets, path) }

func (k *Keyring) locked() (bool, error) {
	var locked bool
	err := k.object(login).StoreProperty("org.freedesktop.Secret.Collection.Locked", &locked)
	return locked, err
}

// Lock locks the login keyring. Who wants something of it then makes the
// daemon ask for its password, and as nobody is there to show the question, it
// counts as dismissed at once.
func (k *Keyring) Lock() error {
	var done []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := k.object(service).Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{login}).Store(&done, &prompt); err != nil {
		return err
	}
	if len(done) != 1 {
		return fmt.Errorf("the login keyring was not locked (%v, %v)", done, prompt)
	}
	return nil
}

// Unlock unlocks it again without a question.
func (k *Keyring) Unlock() error {
	s, err := k.secret([]byte(password))
	if err != nil {
		return err
	}
	return k.object(service).Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.UnlockWithMasterPassword", 0, login, s).Err
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
func (k *Keyring) StopBus() error { return errors.Join(k.daemon.stop(), k.bus.stop()) }

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

// Items returns the account names of a service's items in order, whether they
// are locked or not.
func (k *Keyring) Items(name string) ([]string, error) {
	var open, locked []dbus.ObjectPath
	search := map[string]string{"service": name}
	if err := k.object(service).Call("org.freedesktop.Secret.Service.SearchItems", 0, search).Store(&open, &locked); err != nil {
		return nil, err
	}
	accounts := []string{}
	for _, item := range append(open, locked...) {
		var attributes map[string]string
		if err := k.object(item).StoreProperty("org.freedesktop.Secret.Item.Attributes", &attributes); err != nil {
			return nil, err
		}
		accounts = append(accounts, attributes["username"])
	}
	slices.Sort(accounts)
	return accounts, nil
}

// Close ends everything and removes the directories.
func (k *Keyring) Close() error {
	err := k.StopBus()
	for _, conn := range []*dbus.Conn{k.conn, k.away} {
		if conn != nil {
			_ = conn.Close()
		}
	}
	return errors.Join(err, os.RemoveAll(k.dir))
}
