package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/signin/pages"
)

type authorizeOptions struct {
	target
	env           *Env
	CompaniesFile string
	ExpectUser    string
	expectSet     bool
	timeoutSet    bool
	NoBrowser     bool
	NoPreflight   bool
	Listen        string
	TLSCert       string
	TLSKey        string
	Timeout       time.Duration
	Yes           bool
}

func newAuthorizeCmd(env *Env) *cobra.Command {
	opts := authorizeOptions{env: env}
	cmd := &cobra.Command{
		Use:   "authorize",
		Short: "Authorize a company: sign in at ups.com in the browser (Authorize Customer)",
		Long: `Opens UPS's consent page in the browser and receives the code that UPS sends back
to this machine. Then exchanges the code for tokens and saves them in the vault.

If the browser is on another machine, or the redirect URI leads elsewhere, copy the
address of the browser's last page and paste it here.

The company's earlier authorization works until the new one is saved.`,
		Example: `  upsauth authorize --company "Acme Corp"
  upsauth authorize --company "Acme Corp" --app batch-suite --env cie
  upsauth authorize --company "Acme Corp" --env sandbox
  upsauth authorize --company "Acme Corp" --no-browser --timeout 10m
  upsauth authorize --company "Acme Corp" --expect-user jane@acme.example
  upsauth authorize --companies-file companies.txt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			opts.expectSet, opts.timeoutSet = cmd.Flags().Changed("expect-user"), cmd.Flags().Changed("timeout")
			return runAuthorize(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().StringVar(&opts.CompaniesFile, "companies-file", "", "authorize the companies in a file, one company on each line (- for standard input); skip the companies that need no authorization")
	cmd.Flags().StringVar(&opts.ExpectUser, "expect-user", "", "the ups.com user who must sign in; if anybody else signs in, nothing is saved")
	cmd.Flags().BoolVar(&opts.NoBrowser, "no-browser", false, "print the address and start no browser; also read the address of the browser's last page from standard input")
	cmd.Flags().BoolVar(&opts.NoPreflight, "no-preflight", false, "do not check first whether UPS knows the application and its redirect URI")
	cmd.Flags().StringVar(&opts.Listen, "listen", "", "the loopback address to listen on, such as 127.0.0.1:8400, if the redirect URI reaches this machine through a tunnel")
	cmd.Flags().StringVar(&opts.TLSCert, "tls-cert", "", "the certificate for an https redirect URI on loopback, a PEM file")
	cmd.Flags().StringVar(&opts.TLSKey, "tls-key", "", "the private key of that certificate, a PEM file")
	cmd.Flags().Var(newSpan(&opts.Timeout, 3*time.Minute), "timeout", "how long to wait for the sign-in in total, including attempts that were declined")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask, even if the company is already authorized or somebody else signed in")
	return cmd
}

func runAuthorize(ctx context.Context, opts authorizeOptions) error {
	env := opts.env
	switch {
	case opts.Timeout <= 0:
		return usagef("--timeout must be more than zero")
	case opts.expectSet && strings.TrimSpace(opts.ExpectUser) == "":
		// An empty variable in a script must not mean anybody.
		return usagef("--expect-user is empty: name the user")
	case opts.CompaniesFile == "-" && opts.NoBrowser:
		return usagef("standard input can't provide both the companies and the pasted addresses: put the companies in a file")
	case opts.CompaniesFile != "" && opts.Company != "":
		return usagef("--company and --companies-file can't be combined")
	case opts.CompaniesFile != "" && opts.ExpectUser != "":
		return usagef("--expect-user and --companies-file can't be combined: the user is for one company")
	case opts.CompaniesFile == "" && strings.TrimSpace(opts.Company) == "" && !opts.offers():
		return usagef("--company is missing: name the company to authorize")
	}
	var companies []string
	var err error
	if opts.CompaniesFile != "" {
		companies, err = readCompanies(ctx, env, opts.CompaniesFile)
	} else if opts.Company != "" {
		if opts.Company, err = typedCompany(env, opts.Company); err != nil {
			err = usagef("%v", err)
		}
	}
	if err != nil {
		return err
	}
	s, err := openJob(env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.FinishRemovals(ctx)
	if opts.CompaniesFile == "" && opts.Company == "" {
		if err := s.offer(ctx, &opts.target); err != nil {
			return err
		}
	}
	a, err := s.prepareSignIn(ctx, opts)
	if err != nil {
		return err
	}
	if opts.CompaniesFile != "" {
		return a.many(ctx, companies)
	}
	return a.one(ctx, opts.Company)
}

// signIn is what the sign-ins of one command have in common.
type signIn struct {
	*session.Authorizing
	s        *job
	opts     authorizeOptions
	callback signin.Callback
	hinted   bool
	begun    bool // a company was begun with
	doubtful int  // companies that perhaps the wrong person signed in for
}

func (s *job) prepareSignIn(ctx context.Context, opts authorizeOptions) (*signIn, error) {
	authorizing, err := s.Authorizing(ctx, opts.Target)
	if err != nil {
		return nil, err
	}
	a := &signIn{Authorizing: authorizing, s: s, opts: opts}
	if err := a.prepareCallback(ctx); err != nil {
		return nil, err
	}
	if err := a.Ready(ctx); err != nil {
		return nil, err
	}
	return a, s.warnOfSharedRedirect(ctx, a.Registration)
}

// prepareCallback finds out where and how to listen. What config.toml says counts
// where it fits the redirect URI: an address to listen on for one that a tunnel
// brings, a certificate for https on this machine.
func (a *signIn) prepareCallback(ctx context.Context) error {
	uri, configured := a.Registration.RedirectURI, a.s.Config.Callback
	if a.opts.Listen != "" {
		if err := loopback.CheckListen(a.opts.Listen); err != nil {
			return usagef("--listen: %v", err)
		}
	}
	flags := a.opts.TLSCert != "" || a.opts.TLSKey != ""
	switch {
	case flags && (a.opts.TLSCert == "" || a.opts.TLSKey == ""):
		return usagef("--tls-cert and --tls-key must be given together")
	case flags && !(signin.Callback{RedirectURI: uri}).IsHTTPS():
		return usagef("--tls-cert and --tls-key are for https, and the redirect URI is %s", uri)
	case flags:
		configured.TLSCert, configured.TLSKey = "", ""
	}
	var err error
	if a.callback, err = signin.CallbackFor(a.s.Places, uri, configured); err != nil {
		return err
	}
	if a.opts.Listen != "" {
		a.callback.Listen = a.opts.Listen
	}
	if flags {
		if a.callback.TLS, err = signin.ReadCertificate(ctx, a.s.Places, a.opts.TLSCert, a.opts.TLSKey); err != nil {
			return err
		}
	}
	switch {
	case a.callback.LeadsHere(), a.canPaste():
		return nil
	case a.callback.IsLoopback():
		return usagef("the redirect URI %s is https: give its certificate with --tls-cert and --tls-key, or use --no-browser and paste the address of the browser's last page", uri)
	}
	return usagef("the redirect URI %s does not lead to this machine: give the loopback address of a tunnel with --listen, or paste the address of the browser's last page with --no-browser", uri)
}

// one authorizes one company and shows its panel.
func (a *signIn) one(ctx context.Context, company string) error {
	env := a.opts.env
	id, err := a.ID(ctx, company)
	if err != nil {
		return err
	}
	before, err := a.s.Vault.Record(ctx, id)
	if err == nil && a.s.Good(ctx, before) && a.opts.CompaniesFile == "" {
		question := fmt.Sprintf("%s is %s until %s. Authorize the company again?", id, grant.Authorized, render.UPSTime(before.RefreshTokenExpires))
		if err := confirm(ctx, env, question, a.opts.Yes); err != nil {
			return err
		}
	}
	if err := a.s.askAboutNear(ctx, []string{id.Company}, "", a.opts.Yes); err != nil {
		return err
	}
	narrator := &narrator{
		env: env, opts: a.opts, client: a.Client(), listen: a.callback.Listen, home: a.s.Config.Vault, quiet: a.begun,
		leaves: a.opts.CompaniesFile != "" && a.opts.CompaniesFile != "-" && env.attended(),
		people: func() session.People { return a.s.People(ctx, id) },
	}
	a.begun = true
	defer narrator.close()
	narrator.begin(id)
	if contact := a.s.Contact(ctx, id.Company); contact != "" {
		fmt.Fprintf(env.Err, "Contact for %s: %s\n\n", render.Text(id.Company), render.Text(contact))
	}
	if doubt := a.callback.Doubt(env.Now()); doubt != "" {
		fmt.Fprintf(env.Err, "Warning: %s\n", doubt)
	}
	g, err := a.signIn(ctx, id, narrator)
	narrator.stopWaiting()
	var saved *keeper.SavedError
	if err != nil && !errors.As(err, &saved) {
		return a.opts.advised(err)
	}
	if len(narrator.doubtsOf(g.User)) > 0 {
		a.doubtful++
	}
	untried := !a.hinted && a.SecretUntried(ctx)
	a.hinted = true
	if untried {
		fmt.Fprintf(env.Err, "   upsauth has not used the client secret yet. To check the secret, run: %s\n", companyCommand("refresh", g.ID))
	}
	fmt.Fprintln(env.Err)
	if a.opts.CompaniesFile != "" {
		fmt.Fprintf(env.Out, "%s\n", id)
		defer fmt.Fprintln(env.Out)
	}
	if panelErr := showPanel(env, g.Record); panelErr != nil {
		return panelErr
	}
	return err
}

// advised says what to do where nobody finished the sign-in, without what was done
// already.
func (opts authorizeOptions) advised(err error) error {
	if !errors.As(err, new(*signin.NobodyError)) {
		return err
	}
	advice := "To wait longer, give --timeout"
	if opts.timeoutSet {
		advice = fmt.Sprintf("To wait longer, give a --timeout of more than %s", opts.Timeout)
	}
	if !opts.NoBrowser {
		advice += "; to paste the address, give --no-browser"
	}
	return &advisedError{err, advice + ". If the browser showed an error page, the page says what UPS refuses."}
}

// signIn has somebody sign in for a company, and keeps the new grant unless they are
// the wrong person.
func (a *signIn) signIn(ctx context.Context, id grant.ID, narrator *narrator) (grant.Grant, error) {
	page := func(g grant.Grant, err error) loopback.Page {
		return pages.Done(id, g, err, narrator.user, a.opts.ExpectUser)
	}
	options := signin.Options{
		Callback: a.callback, Ports: a.s.Disk, NoPreflight: a.opts.NoPreflight,
		Timeout: a.opts.Timeout, Log: a.s.log,
		Page: func(awaited *keeper.AwaitedError) loopback.Page {
			return pages.Awaited(id, awaited, true, narrator.user, a.opts.ExpectUser)
		},
		Step: func(step signin.Step) {
			if step.Kind == signin.Learned {
				a.learn(ctx, step.NeedsBasic)
				return
			}
			narrator.step(step)
		},
	}
	if a.canPaste() {
		narrator.pasting = true
		options.Paste = narrator.paste
	} else if narrator.leaves {
		options.GiveUp = narrator.giveUp
	}
	login, err := signin.Begin(ctx, a.s.Keeper, keeper.Request{
		ID: id, Home: a.s.Config.Vault, Client: a.Client(), ExpectUser: a.opts.ExpectUser, Asks: narrator.asks(), Lasts: a.opts.Timeout,
	}, options)
	if err != nil {
		return grant.Grant{}, err
	}
	defer login.Close(ctx)
	outcome, err := login.Await(ctx)
	var g grant.Grant
	if err == nil {
		g, err = narrator.decide(ctx, login, outcome.User)
	} else if outcome.SignedIn {
		narrator.signedIn(outcome.User)
	}
	var saved *keeper.SavedError
	if errors.As(err, &saved) {
		login.Show(ctx, page(g, nil))
		return g, err
	}
	login.Show(ctx, page(g, err))
	if err == nil && ctx.Err() != nil {
		err = &keeper.SavedError{Err: ctx.Err()}
	}
	return g, err
}

// learn notes whether UPS wants the Authorization header beside the verifier.
func (a *signIn) learn(ctx context.Context, needsBasic bool) {
	if !needsBasic {
		fmt.Fprintln(a.opts.env.Err, "UPS refused the Authorization header, although UPS asked for it before. The next sign-in sends no such header.")
	}
	if err := a.Learn(ctx, needsBasic); err != nil {
		a.s.log(message(err))
	}
}

// canPaste reports whether an address is taken from standard input: where it was
// asked for, or where a person sits there and nothing else would do.
func (a *signIn) canPaste() bool {
	if a.opts.CompaniesFile == "-" {
		return false // standard input has the companies
	}
	return a.opts.NoBrowser || !a.callback.LeadsHere() && a.opts.env.attended()
}
