package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/serve"
	"github.com/upsauth/upsauth/internal/serve/control"
	"github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// defaultManager is where the company manager listens, where nobody says otherwise.
const defaultManager = "127.0.0.1:8488"

type serveOptions struct {
	refreshOptions
	Listen         string
	Open           bool
	PublicListen   string
	ProgramsListen string
	TLSCert        string
	TLSKey         string
}

func newServeCmd(env *Env) *cobra.Command {
	opts := serveOptions{refreshOptions: refreshOptions{env: env}}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "The company manager as a page, and tokens for programs",
		Long: `Keeps running as a service, and does what upsauth refresh --every does. Beside that,
it serves the company manager as a page, and tokens for programs.

The company manager listens on this machine only: at 127.0.0.1:8488, or where --listen
or listen under [serve] in config.toml says. upsauth serve link prints an address that
opens it, once. --open opens it in a browser.

Programs ask for tokens at a socket: programs/serve.sock in the state directory, or the
path in UPSAUTH_SOCKET. Only this user can use the socket, and the group that
socket_group under [serve] names. With --programs-listen, programs on other machines can
ask by TLS, with a key: upsauth serve key add. On Windows, programs ask at
127.0.0.1:8490, with a key.

Customers who were invited (upsauth invite) come to a server of their own, which
--public-listen or public_listen under [serve] in config.toml names. A proxy brings them
there from public_url, by TLS.

The service runs the command under [events] in config.toml when something happens to an
authorization, such as a refusal by UPS. The event is JSON on standard input.

Each vault can have one service. SIGHUP starts a round at once, and the service reads
config.toml again. A change of listen, public_listen, manager_url or socket_group takes
effect when the service is restarted, and the log says so. After SIGTERM or Ctrl-C, the service finishes
and saves its requests to UPS, and then ends with exit code 0.`,
		Example: `  upsauth serve --open
  upsauth serve --every 5m
  upsauth serve --programs-listen 10.0.0.5:8490 --tls-cert cert.pem --tls-key key.pem
  upsauth serve link`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose, opts.Stay = verbose(cmd), true
			if err := noEmpty(cmd, "listen", "public-listen", "programs-listen", "tls-cert", "tls-key", "prometheus-file"); err != nil {
				return err
			}
			return runServe(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringVar(&opts.Listen, "listen", "", "the address of the company manager on this machine, host:port (default "+defaultManager+")")
	cmd.Flags().BoolVar(&opts.Open, "open", false, "open the company manager in a browser")
	cmd.Flags().Var(newSpan(&opts.Every, 10*time.Minute), "every", "refresh due tokens at this interval; a round may begin up to a tenth of the interval later")
	cmd.Flags().Var(newSpan(&opts.Within, 15*time.Minute), "within", "refresh tokens that expire within this time")
	cmd.Flags().IntVar(&opts.Jobs, "jobs", 8, "how many companies a round refreshes at the same time")
	cmd.Flags().StringVar(&opts.PublicListen, "public-listen", "", "where a proxy brings customers who were invited, host:port")
	cmd.Flags().StringVar(&opts.ProgramsListen, "programs-listen", "", "where programs on other machines ask for tokens, by TLS and with a key, host:port")
	cmd.Flags().StringVar(&opts.TLSCert, "tls-cert", "", "with --programs-listen: the certificate, a PEM file")
	cmd.Flags().StringVar(&opts.TLSKey, "tls-key", "", "with --programs-listen: the key of the certificate, a PEM file")
	cmd.Flags().StringVar(&opts.PrometheusFile, "prometheus-file", "", "after each round, write the output of upsauth status -o prometheus to this file")
	cmd.AddCommand(newServeLinkCmd(env), newServeKeyCmd(env))
	return cmd
}

func (opts serveOptions) check() error {
	if err := opts.refreshOptions.check(); err != nil {
		return err
	}
	if err := opts.checkEvery(); err != nil {
		return err
	}
	if opts.Listen != "" {
		if err := config.CheckManagerListen(opts.Listen); err != nil {
			return usagef("--listen: %v", err)
		}
	}
	if opts.PublicListen != "" {
		if err := config.CheckHostPort(opts.PublicListen); err != nil {
			return usagef("--public-listen: %v", err)
		}
	}
	if opts.ProgramsListen != "" {
		if err := config.CheckHostPort(opts.ProgramsListen); err != nil {
			return usagef("--programs-listen: %v", err)
		}
	}
	switch secure := opts.TLSCert != "" && opts.TLSKey != ""; {
	case opts.ProgramsListen != "" && !secure:
		return usagef("--programs-listen needs --tls-cert and --tls-key: tokens never leave this machine in the clear")
	case opts.ProgramsListen == "" && (opts.TLSCert != "" || opts.TLSKey != ""):
		return usagef("--tls-cert and --tls-key need --programs-listen")
	}
	return nil
}

func runServe(ctx context.Context, opts serveOptions) error {
	if err := opts.check(); err != nil {
		return err
	}
	v, o := newEvery(opts.refreshOptions)
	s, err := openJob(v.env, false)
	if err != nil {
		return err
	}
	defer s.Close()
	places, err := serve.FindPlaces(v.env.Getenv, s.Config.Paths.State)
	if err != nil {
		return err
	}
	unlock, err := v.lock(ctx, s)
	if err != nil {
		return busyAdvice(ctx, v.env, err)
	}
	defer unlock()
	if o.Events, err = v.events(s.Session); err != nil {
		return err
	}
	if v.env.Getenv("GOGC") == "" {
		// A service has its memory for weeks, and little to collect: half of what is in use
		// may be garbage, not as much again.
		defer debug.SetGCPercent(debug.SetGCPercent(50))
	}
	settings := s.Config.Serve
	all := serve.Options{
		Rounds: o, Hangups: o.Hangups, Began: v.began, Settings: settings, ListenGiven: opts.Listen != "", Version: buildVersion().Version,
		Open: func() (*session.Session, error) {
			return v.open(func(o *session.Options) { o.LockPatience, o.Remember = service.LockPatience, true })
		},
		Getenv: v.env.Getenv, Guard: s.Places, State: s.Config.Paths.State, Places: places,
		PublicListen:   cmp.Or(opts.PublicListen, settings.PublicListen),
		Listen:         cmp.Or(opts.Listen, settings.Listen, defaultManager),
		ProgramsListen: opts.ProgramsListen, Certificate: opts.TLSCert, Key: opts.TLSKey,
		Holder: signin.Holder(s.Disk), Doctor: v.doctor, Words: controlWords, Opening: "upsauth serve link prints an address that opens the company manager",
		NewAddress: "To get a new address, run: upsauth serve link",
	}
	if opts.Open {
		all.OpenBrowser = func(ctx context.Context, address string) error {
			return v.env.OpenBrowser(ctx, address, func(program string, err error) {
				v.log.Event("the browser %s ended with an error: %v; %s", program, err, all.Opening)
			})
		}
	}
	return addressAdvice(serve.Run(ctx, all))
}

// doctor looks whether all is well, for a page.
func (v *every) doctor(ctx context.Context, s *session.Session) ([]checkup.Finding, error) {
	o := (&job{Session: s, env: v.env, verbose: v.opts.Verbose}).checkup()
	o.Progress, o.Words.Time = nil, render.UTCTime
	return checkup.Machine(ctx, s, o)
}

// addressAdvice adds what to do where a port is taken.
func addressAdvice(err error) error {
	var at *serve.AddressError
	switch {
	case !errors.As(err, &at):
		return err
	case at.Face == serve.CustomersServer:
		return &advisedError{err, "End the program that has the port, or choose another address: --public-listen, or public_listen under [serve] in config.toml. The proxy must lead to the same address."}
	case !errors.As(at.Err, new(*loopback.PortError)):
		return err
	}
	return &advisedError{err, "End that program, or choose another port: --listen, or listen under [serve] in config.toml."}
}

// controlWords are an error in the words of a command that has asked the service.
func controlWords(err error) control.Error {
	return control.Error{ExitCode: exitCode(err), Message: message(err), Advice: advice(err)}
}

// asker is how a command asks the service of its vault. It needs the state directory
// alone: a configuration that is damaged elsewhere keeps nobody from asking.
type asker struct {
	*control.Client
	state string
	// disk has the lock of a service, or shared where the vault is one of several hosts.
	disk, shared *files.Store
}

func newAsker(env *Env) (*asker, error) {
	paths, err := config.FindPaths(env.Getenv)
	if err != nil {
		return nil, err
	}
	guard, err := config.FindPlaces(env.Getenv)
	if err != nil {
		return nil, err
	}
	places, err := serve.FindPlaces(env.Getenv, paths.State)
	if err != nil {
		return nil, err
	}
	// Whoever could put a socket of their own there would hand out addresses and keys.
	for _, place := range []string{paths.State, filepath.Dir(places.Control)} {
		if err := guard.Check(place); err != nil {
			return nil, &config.Error{Path: place, Err: err}
		}
	}
	disk, shared := files.New(paths.State, nil), files.New(filepath.Join(paths.State, session.SharedDir), nil)
	disk.Places, shared.Places = guard, guard
	return &asker{control.NewClient(places.Control), paths.State, disk, shared}, nil
}

// idle reports whether no service runs, of a vault of this machine's or of a shared one.
func (a *asker) idle(ctx context.Context) bool {
	for _, disk := range []*files.Store{a.disk, a.shared} {
		done, free, _ := disk.Look(ctx, "service")
		if !free {
			return false
		}
		done()
	}
	return true
}

// told is the error of a command whose work the service did.
func (a *asker) told(ctx context.Context, err error) error {
	var refused *control.Error
	switch {
	case errors.As(err, &refused):
		return &advisedError{&statusError{code: refused.ExitCode, what: refused.Message}, refused.Advice}
	case !errors.Is(err, control.ErrNoService):
		return err
	}
	if a.idle(ctx) {
		return &advisedError{&statusError{code: exitFailed, what: "no service runs for the vault in " + a.state}, "Start one: upsauth serve"}
	}
	return &advisedError{
		&statusError{code: exitFailed, what: "the service of the vault in " + a.state + " does not answer commands"},
		"If it is upsauth refresh --every, start upsauth serve instead. If it is upsauth serve, look whether it has just begun, and has the same XDG_RUNTIME_DIR.",
	}
}

func newServeLinkCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "link",
		Short: "Print an address that opens the company manager, once",
		Long: `Asks the service that runs for an address of the company manager, and prints it. The
address works once, and for ten minutes. Open it in a browser on this machine. If the
browser is on another machine, first forward the port: ssh -L 8488:127.0.0.1:8488 HOST.`,
		Example: "  upsauth serve link",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServeLink(cmd.Context(), env)
		},
	}
}

func runServeLink(ctx context.Context, env *Env) error {
	service, err := newAsker(env)
	if err != nil {
		return err
	}
	link, err := service.Link(ctx)
	if err != nil {
		return service.told(ctx, err)
	}
	fmt.Fprintf(env.Out, "%s\n", link.Address)
	fmt.Fprintf(env.Err, "The address works once, until %s.\n", link.Expires.In(env.Zone).Format("15:04"))
	return nil
}
