package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/upsauth/upsauth/internal/browser"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/process"
	"github.com/upsauth/upsauth/internal/terminal"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault/keychain"
)

// Env is everything outside the program that commands touch.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	// Environ is the whole environment, for the programs that are started.
	Environ func() []string
	Now     func() time.Time
	// Zone is the reader's time zone.
	Zone *time.Location
	// InTerminal, OutTerminal and ErrTerminal say where a person is.
	InTerminal, OutTerminal, ErrTerminal bool
	// NoEscapes says that the terminal writes escape sequences out as they are.
	NoEscapes bool
	// Columns is how wide the terminal of standard output or else of standard error
	// is, 0 where that is not known.
	Columns func() int
	// ReadPassword reads a line from the terminal without showing it.
	ReadPassword func(context.Context) (string, error)
	// OpenBrowser opens an address and does not wait for the browser, which
	// outlives the context: that ends when nobody waits for the sign-in any more.
	OpenBrowser func(ctx context.Context, address string, failed func(program string, err error)) error
	// Transport carries the requests to UPS.
	Transport http.RoundTripper
	Keychain  keychain.Ring
	// WorkFactor is the cost of guessing passphrases, as a power of two; zero is
	// what is usual.
	WorkFactor int

	// After waits, for what goes on for months; it may be early.
	After func(time.Duration) <-chan time.Time
	// Hangups are the hangups from now on, which then no longer end the process.
	Hangups func() <-chan os.Signal
	// Systemd takes what systemd says to a service out of the environment, where
	// programs that are started would find it: notify tells it of the service's
	// state, and is without effect elsewhere; it wants to be told that all is well
	// within every watchdog, zero where it does not.
	Systemd func() (notify func(state string), watchdog time.Duration)
	// ErrJournal says that standard error goes to systemd's journal.
	ErrJournal bool

	lines *terminal.Lines // who reads In, line by line
	// allowCoreDumps gives programs that are started back what was taken from this
	// process; nil where nothing was.
	allowCoreDumps func()
}

// SystemEnv is the Env of a real process.
func SystemEnv() *Env {
	getenv := process.TakeVariables(secretVariables[:]...)
	env := &Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Getenv: getenv, Environ: os.Environ,
		Now: time.Now, Zone: time.Local,
		InTerminal:   terminal.Is(os.Stdin),
		OutTerminal:  terminal.Is(os.Stdout),
		ErrTerminal:  terminal.Is(os.Stderr),
		NoEscapes:    !terminal.TakeEscapes(os.Stdout) || !terminal.TakeEscapes(os.Stderr),
		Columns:      func() int { return terminal.Columns(os.Stdout, os.Stderr) },
		ReadPassword: terminal.ReadPassword,
		Transport:    ups.NewTransport(),
		Keychain:     keychain.System{},
		After:        time.After,
		Hangups:      process.Hangups,
		Systemd:      process.TakeSystemd,
	}
	env.ErrJournal, _ = journal.StderrIsJournalStream()
	env.OpenBrowser = func(ctx context.Context, address string, failed func(program string, err error)) error {
		return browser.Opener{
			Programs: env.Getenv("BROWSER"), Environ: childEnviron(env.Environ()), Output: env.stderr(), Failed: failed,
		}.Open(ctx, address)
	}
	return env
}

// secretVariables are the environment variables that no child process gets.
var secretVariables = [...]string{config.EnvClientSecret, config.EnvPassphrase, config.EnvPassphraseFile, config.EnvDatabaseURL}

// childEnviron is the environment for programs that upsauth starts.
func childEnviron(environ []string) []string {
	return process.Without(environ, secretVariables[:]...)
}

// width is how many columns a table may have, 0 for any number.
func (env *Env) width() int {
	if !env.OutTerminal || env.Columns == nil {
		return 0
	}
	return env.Columns()
}

// Main runs the process's command line and returns its exit code. A signal that
// would end the process cancels the context and never ends the process by itself, so that tokens in
// flight are saved first.
func Main() int { return runProcess(SystemEnv()) }

func runProcess(env *Env) int {
	env.allowCoreDumps = process.NoCoreDumps()
	return Run(process.Interruptible{Start: sync.OnceValue(process.Interrupts)}, env, os.Args[1:])
}

// Run runs one command line and returns its exit code.
func Run(ctx context.Context, env *Env, args []string) int {
	if env.lines == nil {
		env.lines = terminal.NewLines(env.In)
	}
	shown := *env
	shown.Err = terminal.OnlyShown(env.Err)
	if env.OutTerminal {
		shown.Out = terminal.OnlyShown(env.Out)
	}
	env = &shown
	env.fitErr()
	root := newRootCmd(env, args...)
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if err.Error() == "" || process.NobodyReads(err) {
		return code // all was said already, or nobody reads it
	}
	fmt.Fprintf(env.Err, "upsauth: %s\n", message(err))
	if text := advice(err); text != "" {
		fmt.Fprintf(env.Err, "  %s\n", text)
	}
	return code
}
