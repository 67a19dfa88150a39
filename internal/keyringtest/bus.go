package keyringtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/upsauth/upsauth/internal/realpart"
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

// bus is a session bus in a directory of its own.
type bus struct {
	dir     string
	address string
	process *process
	conn    *dbus.Conn // ours, to look at what is on it and to steer that
}

// startBus starts a bus for the programs of a package.
func startBus(pkg string, programs ...string) (*bus, error) {
	if err := find("dbus-daemon", "dbus-daemon"); err != nil {
		return nil, err
	}
	for _, program := range programs {
		if err := find(pkg, program); err != nil {
			return nil, err
		}
	}
	// Not the test's own directory: the path of a socket has a hundred
	// characters at most.
	dir, err := os.MkdirTemp("", "keyring")
	if err != nil {
		return nil, err
	}
	b := &bus{dir: dir}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func find(pkg, program string) error {
	if _, err := exec.LookPath(program); err != nil {
		return &realpart.MissingError{Program: program, Package: pkg}
	}
	return nil
}

func (b *bus) start() error {
	for _, name := range []string{"home", "run", "data"} {
		if err := os.Mkdir(filepath.Join(b.dir, name), 0o700); err != nil {
			return err
		}
	}
	config := filepath.Join(b.dir, "bus.conf")
	socket := dbus.EscapeBusAddressValue(filepath.Join(b.dir, "bus"))
	if err := os.WriteFile(config, fmt.Appendf(nil, busConfig, socket), 0o600); err != nil {
		return err
	}
	daemon := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nosyslog", "--print-address=1")
	daemon.Env = b.environ()
	out, err := daemon.StdoutPipe()
	if err != nil {
		return err
	}
	if b.process, err = start(daemon, filepath.Join(b.dir, "bus.log")); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the bus did not come up: %w\n%s", err, b.process.log())
	}
	b.address = strings.TrimSpace(line)
	if b.conn, err = dbus.Connect(b.address); err != nil {
		return fmt.Errorf("the bus can't be used: %w", err)
	}
	return nil
}

func (b *bus) close() error {
	err := b.process.stop()
	if b.conn != nil {
		_ = b.conn.Close()
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// Env are the entries that put a child process on the bus.
func (b *bus) Env() []string {
	return []string{
		"DBUS_SESSION_BUS_ADDRESS=" + b.address,
		"HOME=" + filepath.Join(b.dir, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(b.dir, "run"),
		"XDG_DATA_HOME=" + filepath.Join(b.dir, "data"),
		"DISPLAY=", "WAYLAND_DISPLAY=",
	}
}

func (b *bus) environ() []string { return append(os.Environ(), b.Env()...) }

func (b *bus) object(path dbus.ObjectPath) dbus.BusObject { return b.conn.Object(secrets, path) }

// Items returns the account names of a service's items in order, whether they
// are locked or not.
func (b *bus) Items(name string) ([]string, error) {
	return b.items(name, func(dbus.ObjectPath) bool { return true })
}

func (b *bus) items(name string, wanted func(dbus.ObjectPath) bool) ([]string, error) {
	var open, locked []dbus.ObjectPath
	search := map[string]string{"service": name}
	if err := b.object(service).Call("org.freedesktop.Secret.Service.SearchItems", 0, search).Store(&open, &locked); err != nil {
		return nil, err
	}
	accounts := []string{}
	for _, item := range append(open, locked...) {
		if !wanted(item) {
			continue
		}
		var attributes map[string]string
		if err := b.object(item).StoreProperty("org.freedesktop.Secret.Item.Attributes", &attributes); err != nil {
			return nil, err
		}
		accounts = append(accounts, attributes["username"])
	}
	slices.Sort(accounts)
	return accounts, nil
}

// await returns once a service is ready, which is once ready has no error.
func await(p *process, name string, ready func() error) error {
	giveUp := time.After(patience)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", name, p.log())
		case <-giveUp:
			return fmt.Errorf("%s is not ready: %w: %s", name, err, p.log())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
