package keyringtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

const defaultCollection = service + "/aliases/default"

// DatabaseState is what a KeePassXC has to offer.
type DatabaseState string

const (
	// Open is a database that any program may use.
	Open DatabaseState = "open"
	// Asking is an open database whose user is asked about each program and is
	// away.
	Asking DatabaseState = "asking"
	// Locked is a database whose password nobody enters.
	Locked DatabaseState = "locked"
	// NoDatabase is a KeePassXC that runs and has nothing open.
	NoDatabase DatabaseState = "no database"
)

// keepassConfig leaves no question at start, opens nothing but what the command
// line says, and saves when the database is locked only: a change during a save
// can get lost, or end KeePassXC 2.7.4.
const keepassConfig = `[General]
AutoSaveAfterEveryChange=false
AutoSaveOnExit=true
OpenPreviousDatabasesOnStartup=false
RememberLastDatabases=false
UpdateCheckMessageShown=true

[GUI]
CheckForUpdates=false

[FdoSecrets]
Enabled=true
ShowNotification=false
ConfirmAccessItem=%[1]t
ConfirmDeleteItem=%[1]t

[Security]
NoConfirmMoveEntryToRecycleBin=%[2]t
`

// keepassDatabase is an empty database which exposes all of itself to the
// Secret Service: both values are one UUID.
const keepassDatabase = `<KeePassFile>
  <Meta>
    <CustomData>
      <Item>
        <Key>FDO_SECRETS_EXPOSED_GROUP</Key>
        <Value>{75707361-7574-6820-7465-737420726f6f}</Value>
      </Item>
    </CustomData>
  </Meta>
  <Root>
    <Group>
      <UUID>dXBzYXV0aCB0ZXN0IHJvbw==</UUID>
      <Name>Root</Name>
    </Group>
  </Root>
</KeePassFile>
`

// KeePassXC is a session bus and a KeePassXC without a screen on it. Its
// database is not named login, so that it is found as the default collection
// only. Its methods are for one goroutine.
type KeePassXC struct {
	*bus
	program  *process
	state    DatabaseState
	database string
}

// StartKeePassXC returns a KeePassXC whose database is open, and which is
// stopped when the test ends. Where it is missing the test is skipped, in CI it
// fails.
func StartKeePassXC(tb testing.TB) *KeePassXC {
	tb.Helper()
	return forTest(tb, launchKeePassXC)
}

func launchKeePassXC() (*KeePassXC, error) {
	b, err := startBus("keepassxc", "keepassxc", "keepassxc-cli")
	if err != nil {
		return nil, err
	}
	k := &KeePassXC{bus: b, database: filepath.Join(b.dir, "Passwords.kdbx")}
	if err := k.createDatabase(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	if err := k.start(Open); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// createDatabase imports the database, as no command sets the group that is
// exposed.
func (k *KeePassXC) createDatabase() error {
	source := filepath.Join(k.dir, "database.xml")
	if err := os.WriteFile(source, []byte(keepassDatabase), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// The shortest decryption time that it takes.
	create := exec.CommandContext(ctx, "keepassxc-cli", "import", "--set-password", "--decryption-time", "100", source, k.database)
	create.Env = k.environ()
	create.Stdin = strings.NewReader(password + "\n" + password + "\n")
	if out, err := create.CombinedOutput(); err != nil {
		return fmt.Errorf("there is no database: %w\n%s", err, out)
	}
	return nil
}

func (k *KeePassXC) environ() []string {
	return append(k.bus.environ(),
		"QT_QPA_PLATFORM=offscreen",
		"XDG_CONFIG_HOME="+filepath.Join(k.dir, "home"),
		"XDG_CACHE_HOME="+filepath.Join(k.dir, "home"),
		// Where it looks for another instance, to hand over the database to.
		"TMPDIR="+filepath.Join(k.dir, "run"),
	)
}

func (k *KeePassXC) start(state DatabaseState) error {
	config := filepath.Join(k.dir, "keepassxc.ini")
	if err := os.WriteFile(config, fmt.Appendf(nil, keepassConfig, state == Asking, state != Asking), 0o600); err != nil {
		return err
	}
	program := exec.Command("keepassxc", "--config", config, "--localconfig", filepath.Join(k.dir, "local.ini"))
	program.Env = k.environ()
	switch state {
	case Open, Asking:
		program.Args = append(program.Args, "--pw-stdin", k.database)
		program.Stdin = strings.NewReader(password + "\n")
	case Locked:
		program.Args = append(program.Args, k.database)
	}
	var err error
	if k.program, err = start(program, filepath.Join(k.dir, "keepassxc.log")); err != nil {
		return err
	}
	k.state = state
	return await(k.program, "keepassxc", k.ready)
}

// ready reports in how far the state is another than that it was started for:
// a database is there before it is open.
func (k *KeePassXC) ready() error {
	var collections []dbus.ObjectPath
	if err := k.object(service).StoreProperty("org.freedesktop.Secret.Service.Collections", &collections); err != nil {
		return err
	}
	if k.state == NoDatabase {
		return nil
	}
	var locked bool
	if err := k.object(defaultCollection).StoreProperty("org.freedesktop.Secret.Collection.Locked", &locked); err != nil {
		return err
	}
	if locked != (k.state == Locked) {
		return fmt.Errorf("the database is locked: %t", locked)
	}
	return nil
}

// Restart ends it, if it runs, and starts it again with the database in a
// state. The items are the same as before.
func (k *KeePassXC) Restart(state DatabaseState) error {
	if err := k.Stop(); err != nil {
		return err
	}
	return k.start(state)
}

// Stop ends it, with everything saved. The bus stays, and nothing on it keeps
// secrets.
func (k *KeePassXC) Stop() error {
	if k.state == Open {
		// Unlike a signal to end, this can't be put off by a save.
		if err := k.lock(); err != nil {
			return err
		}
	}
	return k.program.kill()
}

func (k *KeePassXC) lock() error {
	var done []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := k.object(service).Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{defaultCollection}).Store(&done, &prompt); err != nil {
		return err
	}
	if err := k.object(prompt).Call("org.freedesktop.Secret.Prompt.Prompt", 0, "").Err; err != nil {
		return err
	}
	k.state = Locked
	return await(k.program, "keepassxc", k.ready)
}

// Close ends everything and removes the directories.
func (k *KeePassXC) Close() error { return errors.Join(k.program.kill(), k.close()) }
