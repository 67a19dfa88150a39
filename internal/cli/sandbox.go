package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/address"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/sandbox"
)

type sandboxOptions struct {
	env     *Env
	Listen  string
	State   string
	Clients []string
	Users   string
	Faults  []string

	Strict, AllowRemote                 bool
	Grace, Code, Access, Refresh, Clock time.Duration
}

func newSandboxCmd(env *Env) *cobra.Command {
	opts := sandboxOptions{env: env}
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run the embedded UPS authorization server, for testing any client",
		Long: `Runs an authorization server that speaks UPS's protocol, with UPS's two sign-in
pages, on this machine alone. It needs no account and no network. Any client with a
redirect URI on loopback can use it, unless --client lists the clients. The sandbox
prints its address and a session with curl, ready to paste. It writes one line for
each request to standard error, without secrets.

--fault chooses what goes wrong; POST /sandbox/faults does so while the sandbox
runs. docs/sandbox.md lists the faults. Nothing in the sandbox is real: never type a
real password or client secret there.

Commands with --env sandbox start the same server by themselves while they run.`,
		Example: `  upsauth sandbox
  upsauth sandbox --listen 127.0.0.1:8484 --client my-id:my-secret:http://localhost:5001
  upsauth sandbox --strict --access-lifetime 2m
  upsauth sandbox --fault '{"endpoint":"refresh","status":429,"retry_after":1,"times":2}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSandbox(cmd.Context(), opts) },
	}
	cmd.Flags().StringVar(&opts.Listen, "listen", "127.0.0.1:8484", "the address to listen on, loopback only; port 0 is any free one")
	cmd.Flags().StringVar(&opts.State, "state", "", "where codes and refresh tokens are kept, as digests: a directory, or memory (default: in the state directory)")
	cmd.Flags().StringArrayVar(&opts.Clients, "client", nil, "a client that the sandbox accepts, as ID:SECRET:REDIRECT_URI; repeat it for more clients or redirect URIs; use a made-up secret, as it is printed")
	cmd.Flags().StringVar(&opts.Users, "users", "", "a JSON file with the only people who may sign in: [{\"name\":…,\"password\":…}]")
	cmd.Flags().StringArrayVar(&opts.Faults, "fault", nil, "what goes wrong, as POST /sandbox/faults takes it (may be repeated)")
	cmd.Flags().BoolVar(&opts.Strict, "strict", false, "a refresh token that is sent a second time voids all tokens of its sign-in")
	cmd.Flags().Var(newSpan(&opts.Grace, 0), "grace", "how long a refresh token still works after its first use")
	cmd.Flags().Var(newSpan(&opts.Code, 30*time.Second), "code-lifetime", "how long an authorization code is valid")
	cmd.Flags().Var(newSpan(&opts.Access, time.Hour), "access-lifetime", "how long an access token is valid")
	cmd.Flags().Var(newSpan(&opts.Refresh, 60*24*time.Hour), "refresh-lifetime", "how long a refresh token is valid")
	cmd.Flags().Var(newSpan(&opts.Clock, 0), "clock", "how far the sandbox's clock is ahead; a negative value puts it behind")
	cmd.Flags().BoolVar(&opts.AllowRemote, "allow-remote", false, "allow an address that other machines can reach, although the sandbox accepts any password")
	return cmd
}

func runSandbox(ctx context.Context, opts sandboxOptions) error {
	host, err := opts.check()
	if err != nil {
		return err
	}
	options, err := opts.server(ctx)
	if err != nil {
		return err
	}
	if opts.env.allowCoreDumps != nil {
		opts.env.allowCoreDumps() // nothing here is worth hiding, and who has the port can be found
	}
	handler, err := sandbox.New(options)
	if err != nil {
		return err
	}
	listener, err := handler.Listen(opts.Listen)
	if err != nil {
		return fmt.Errorf("the sandbox can't listen on %s: %w; choose another address with --listen", opts.Listen, err)
	}
	defer listener.Close()
	for _, text := range opts.Faults {
		fault, err := sandbox.ParseFault(text)
		if err == nil {
			err = handler.AddFault(fault)
		}
		if err != nil {
			return usagef("--fault %s: %v", text, err)
		}
	}
	server := sandbox.NewServer(listener.Addr().String(), handler)
	opts.greet(host, server.Addr, handler)
	return answerUntilEnd(ctx, server, listener)
}

// check says what is wrong with the flags. The host is that of --listen.
func (opts sandboxOptions) check() (host string, err error) {
	host, port, err := net.SplitHostPort(opts.Listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return "", usagef("--listen %q is not an address such as 127.0.0.1:8484", opts.Listen)
	}
	switch {
	case address.IsLoopback(host):
	case !opts.AllowRemote:
		return "", usagef("--listen %q is not on this machine: the sandbox accepts any password, so it listens on loopback only, or elsewhere with --allow-remote", opts.Listen)
	default:
		fmt.Fprintf(opts.env.Err, "Warning: anybody who reaches %s can use this sandbox. Never give it anything real.\n", opts.Listen)
	}
	if opts.Clock != 0 && opts.State == "" {
		return "", usagef("--clock needs --state memory or a directory of its own: otherwise it could end grants of other commands with --env sandbox")
	}
	for name, d := range map[string]time.Duration{"grace": opts.Grace, "code-lifetime": opts.Code, "access-lifetime": opts.Access, "refresh-lifetime": opts.Refresh} {
		switch {
		case d < 0:
			return "", usagef("--%s can't be negative: it is a length of time", name)
		case d == 0 && name != "grace":
			return "", usagef("--%s must be more than zero", name)
		}
	}
	return host, nil
}

// server is how the sandbox is to be, with the files that the flags name read.
func (opts sandboxOptions) server(ctx context.Context) (sandbox.Options, error) {
	options := sandbox.Options{
		Now:    func() time.Time { return opts.env.Now().Add(opts.Clock) },
		Log:    func(line string) { fmt.Fprintln(opts.env.Err, line) },
		Strict: opts.Strict, Grace: opts.Grace,
		CodeLifetime: opts.Code, AccessLifetime: opts.Access, RefreshLifetime: opts.Refresh,
	}
	if opts.Users != "" {
		text, err := safefile.ReadSmall(ctx, opts.Users)
		if err == nil {
			options.Users, err = sandbox.ParseUsers(text)
		}
		if ctx.Err() != nil {
			return options, ctx.Err()
		}
		if err != nil {
			return options, usagef("--users %s: %v", opts.Users, err)
		}
	}
	for _, text := range opts.Clients {
		client, err := sandbox.ParseClient(text)
		if err != nil {
			return options, usagef("%v", err)
		}
		options.Clients = append(options.Clients, client)
	}
	switch opts.State {
	case "memory":
	case "":
		paths, err := config.FindPaths(opts.env.Getenv)
		if err != nil {
			return options, err
		}
		options.Dir = filepath.Join(paths.State, "sandbox")
	default:
		options.Dir = opts.State
	}
	if options.Dir == "" {
		return options, nil
	}
	return options, checkPlace(opts.env, options.Dir)
}

// greet says where the sandbox is and how it is used.
func (opts sandboxOptions) greet(host, at string, handler *sandbox.Server) {
	base := "http://" + at
	if _, port, err := net.SplitHostPort(at); err == nil && !address.IsLoopback(host) && (host == "" || net.ParseIP(host).IsUnspecified()) {
		base = "http://localhost:" + port
	}
	who := "type any name and any password, never real ones"
	if opts.Users != "" {
		who = "only those in " + opts.Users + " can sign in"
	}
	fmt.Fprintf(opts.env.Out, "The sandbox is at %s\nIt is not ups.com: %s. Ctrl-C ends it.\n", base, who)
	if session := handler.CurlSession(base); session != "" {
		fmt.Fprintf(opts.env.Out, "\nThe whole life of a grant with curl:\n\n%s\n", session)
	}
}

// answerUntilEnd answers until the context ends, and then what has begun.
func answerUntilEnd(ctx context.Context, server *http.Server, listener net.Listener) error {
	answered := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(answered)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(closing) != nil {
			_ = server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the sandbox ended: %w", err)
	}
	// Serve returns when closing begins. Being interrupted is how a server ends.
	<-answered
	return nil
}
