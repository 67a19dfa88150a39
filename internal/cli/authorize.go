package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/ups"
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
		Long: `Opens the browser at UPS's consent page, catches the code that UPS sends back
to this machine, exchanges it for tokens and saves them in the vault.

Where the browser is on another machine, or the redirect URI does not lead to
this one, copy the address that the browser ends on and paste it here.

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
	cmd.Flags().StringVar(&opts.CompaniesFile, "companies-file", "", "authorize the companies in a file, one on each line (- for standard input), one after another, and pass over those in good state")
	cmd.Flags().StringVar(&opts.ExpectUser, "expect-user", "", "the ups.com user who has to sign in; of anybody else nothing is stored")
	cmd.Flags().BoolVar(&opts.NoBrowser, "no-browser", false, "only print the address, and take the address that the browser ends on from standard input as well")
	cmd.Flags().BoolVar(&opts.NoPreflight, "no-preflight", false, "do not ask UPS beforehand whether it knows the application and its redirect URI")
	cmd.Flags().StringVar(&opts.Listen, "listen", "", "where to listen on loopback, for a redirect URI that a tunnel brings to this machine, such as 127.0.0.1:8400")
	cmd.Flags().StringVar(&opts.TLSCert, "tls-cert", "", "the certificate for an https redirect URI on loopback, a PEM file")
	cmd.Flags().StringVar(&opts.TLSKey, "tls-key", "", "the private key of that certificate, a PEM file")
	cmd.Flags().Var(newSpan(&opts.Timeout, 3*time.Minute), "timeout", "how long to wait for the sign-in, declined consents included")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask, also where the company is authorized already or somebody else signed in")
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
		return usagef("standard input can't have both the companies and pasted addresses: name the companies' file")
	case opts.CompaniesFile != "" && opts.Company != "":
		return usagef("--company and --companies-file can't go together")
	case opts.CompaniesFile != "" && opts.ExpectUser != "":
		return usagef("--expect-user is about one company, and --companies-file about many")
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
	s            *job
	opts         authorizeOptions
	registration config.Registration
	client       *ups.Client
	certificate  *tls.Config
	hinted       bool
	begun        bool // a company was begun with
	doubtful     int  // companies that perhaps the wrong person signed in for
}

func (s *job) prepareSignIn(ctx context.Context, opts authorizeOptions) (*signIn, error) {
	a := &signIn{s: s, opts: opts}
	var err error
	if a.registration, err = s.PickApplication(ctx, opts.Target); err != nil {
		return nil, err
	}
	if a.registration.RedirectURI == "" {
		return nil, usagef("the redirect URI is missing: set %s, or register the application with upsauth app add", config.EnvRedirectURI)
	}
	if err := a.prepareCallback(ctx); err != nil {
		return nil, err
	}
	if err := s.Vault.Make(ctx, s.Config.Vault); err != nil {
		return nil, err
	}
	a.client, err = s.Client(ctx, a.registration)
	if err == nil {
		err = s.warnOfSharedRedirect(a.registration)
	}
	return a, err
}

// prepareCallback finds out where and how to listen. What config.toml says counts
// where it fits the redirect URI: an address to listen on for one that a tunnel
// brings, a certificate for https on this machine.
func (a *signIn) prepareCallback(ctx context.Context) error {
	uri, configured := a.registration.RedirectURI, a.s.Config.Callback
	here, https := loopback.IsLoopback(uri), strings.HasPrefix(strings.ToLower(uri), "https:")
	if a.opts.Listen == "" && !here {
		a.opts.Listen = configured.Listen
	}
	if a.opts.Listen != "" {
		if err := loopback.CheckListen(a.opts.Listen); err != nil {
			return usagef("--listen: %v", err)
		}
	}
	flags := a.opts.TLSCert != "" || a.opts.TLSKey != ""
	switch {
	case flags && (a.opts.TLSCert == "" || a.opts.TLSKey == ""):
		return usagef("--tls-cert and --tls-key need each other")
	case flags && !https:
		return usagef("--tls-cert and --tls-key are for https, and the redirect URI is %s", uri)
	case !flags && here && https:
		a.opts.TLSCert, a.opts.TLSKey = configured.TLSCert, configured.TLSKey
	}
	var err error
	if a.certificate, err = a.opts.certificate(ctx, a.s.Places); err != nil {
		return err
	}
	switch {
	case a.opts.Listen != "", loopback.CanListen(uri, a.certificate != nil), a.canPaste():
		return nil
	case here:
		return usagef("the redirect URI %s is https: give the certificate to serve it with by --tls-cert and --tls-key, or --no-browser to paste the address that the browser ends on", uri)
	}
	return usagef("the redirect URI %s does not lead to this machine: give --listen with the loopback address that a tunnel brings it to, or --no-browser to paste the address that the browser ends on", uri)
}

// warnOfCertificate says what the browser is going to say.
func (a *signIn) warnOfCertificate() {
	if a.certificate == nil {
		return
	}
	leaf := a.certificate.Certificates[0].Leaf
	u, err := url.Parse(a.registration.RedirectURI)
	if leaf == nil || err != nil {
		return
	}
	now := a.opts.env.Now()
	switch {
	case leaf.VerifyHostname(u.Hostname()) != nil:
		fmt.Fprintf(a.opts.env.Err, "Warning: the certificate is not for %s, so the browser will refuse it.\n", u.Hostname())
	case now.After(leaf.NotAfter) || now.Before(leaf.NotBefore):
		fmt.Fprintf(a.opts.env.Err, "Warning: the certificate is good from %s to %s only, so the browser will refuse it.\n", leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	}
}

// one authorizes one company and shows its panel.
func (a *signIn) one(ctx context.Context, company string) error {
	env := a.opts.env
	id, err := a.id(ctx, company)
	if err != nil {
		return err
	}
	before, err := a.s.Vault.Record(id)
	if err == nil && a.s.Good(ctx, before) && a.opts.CompaniesFile == "" {
		question := fmt.Sprintf("%s is %s until %s. Authorize it again?", id, grant.Authorized, render.UPSTime(before.RefreshTokenExpires))
		if err := confirm(ctx, env, question, a.opts.Yes); err != nil {
			return err
		}
	}
	if err := a.s.askAboutNear(ctx, []string{id.Company}, "", a.opts.Yes); err != nil {
		return err
	}
	narrator := &narrator{
		env: env, opts: a.opts, client: a.client, home: a.s.Config.Vault, quiet: a.begun,
		leaves: a.opts.CompaniesFile != "" && a.opts.CompaniesFile != "-" && env.attended(),
		people: func() session.People { return a.s.People(ctx, id) },
	}
	a.begun = true
	defer narrator.close()
	narrator.begin(id)
	if contact := a.s.Contact(id.Company); contact != "" {
		fmt.Fprintf(env.Err, "Contact of %s: %s\n\n", render.Text(id.Company), render.Text(contact))
	}
	a.warnOfCertificate()
	g, err := a.signIn(ctx, id, narrator)
	narrator.stopWaiting()
	var saved *keeper.SavedError
	if err != nil && !errors.As(err, &saved) {
		return a.opts.advised(err)
	}
	if len(narrator.doubtsOf(g.User)) > 0 {
		a.doubtful++
	}
	a.hintAtSecret(g.Record)
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
	advice := "--timeout waits longer"
	if opts.timeoutSet {
		advice = fmt.Sprintf("A --timeout of more than %s waits longer", opts.Timeout)
	}
	if !opts.NoBrowser {
		advice += ", --no-browser takes a pasted address"
	}
	return &advisedError{err, advice + ". If the browser showed an error page, its words say what UPS refuses."}
}

// signIn has somebody sign in for a company, and keeps the new grant unless they are
// the wrong person.
func (a *signIn) signIn(ctx context.Context, id grant.ID, narrator *narrator) (grant.Grant, error) {
	page := func(g grant.Grant, err error) loopback.Page {
		page := donePage(id, g, err)
		page.Names = []string{id.Company, narrator.user, a.opts.ExpectUser}
		return page
	}
	options := signin.Options{
		Listen: a.opts.Listen, PortHolder: a.s.portHolder, TLS: a.certificate, NoPreflight: a.opts.NoPreflight,
		Timeout: a.opts.Timeout, Log: a.s.log,
		Page: func(awaited *keeper.AwaitedError) loopback.Page { return page(grant.Grant{}, awaited) },
		Step: func(step signin.Step) {
			if step.Kind == signin.Learned {
				a.learn(step.NeedsBasic)
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
	defer a.holdPort()()
	login, err := signin.Begin(ctx, a.s.Keeper, keeper.Request{
		ID: id, Home: a.s.Config.Vault, Client: a.client, ExpectUser: a.opts.ExpectUser, Asks: narrator.asks(), Lasts: a.opts.Timeout,
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
func (a *signIn) learn(needsBasic bool) {
	if !needsBasic {
		fmt.Fprintln(a.opts.env.Err, "UPS did not take the Authorization header that it wanted before. The next sign-in does without.")
	}
	if err := rememberBasic(a.s.Config.Paths.Config, a.registration, needsBasic); err != nil {
		a.s.log(message(err))
	}
}

// hintAtSecret says that the client secret is untried: with PKCE the exchange
// needs none, and a wrong one would show at the first refresh.
func (a *signIn) hintAtSecret(r grant.Record) {
	if a.client.PKCE == ups.PKCEOff || a.client.PKCENeedsBasic || a.hinted || a.registration.Environment == config.Sandbox {
		return
	}
	a.hinted = true
	records, _, err := a.s.Vault.List("")
	tried := func(r grant.Record) bool { return r.ClientID == a.client.ClientID && r.RefreshCount > 0 }
	if err != nil || slices.ContainsFunc(records, tried) {
		return
	}
	fmt.Fprintf(a.opts.env.Err, "   The client secret was not needed yet. To see that it is right: %s\n", companyCommand("refresh", r.ID))
}

// id names the grant. A company that has grants keeps the name that it has.
func (a *signIn) id(ctx context.Context, company string) (grant.ID, error) {
	known, err := a.s.Known(ctx, company)
	if err != nil {
		return grant.ID{}, err
	}
	if len(known.Records) > 0 {
		company = known.Records[0].Company
	}
	return grant.ID{Company: company, Application: a.registration.Name, Environment: a.registration.Environment}, nil
}

// holdPort lets others know who listens on the callback's port.
func (a *signIn) holdPort() (release func()) {
	address := a.opts.Listen
	if u, err := url.Parse(a.registration.RedirectURI); err == nil && address == "" {
		address = u.Host
	}
	_, text, _ := net.SplitHostPort(address)
	port, err := strconv.Atoi(text)
	if err != nil || port == 0 {
		return func() {}
	}
	return a.s.Vault.HoldPort(port)
}

// portHolder says which upsauth listens on a port, empty where none is known to.
func (s *job) portHolder(port int) string {
	if pid := s.Vault.PortHolder(port); pid != 0 {
		return fmt.Sprintf("another upsauth (process %d)", pid)
	}
	return ""
}

// canPaste reports whether an address is taken from standard input: where it was
// asked for, or where a person sits there and nothing else would do.
func (a *signIn) canPaste() bool {
	if a.opts.CompaniesFile == "-" {
		return false // standard input has the companies
	}
	leadsHere := a.opts.Listen != "" || loopback.CanListen(a.registration.RedirectURI, a.certificate != nil)
	return a.opts.NoBrowser || !leadsHere && a.opts.env.attended()
}

// certificate is what an https redirect URI on loopback is served with, nil for
// none.
func (opts authorizeOptions) certificate(ctx context.Context, places *safefile.Places) (*tls.Config, error) {
	if opts.TLSCert == "" && opts.TLSKey == "" {
		return nil, nil
	}
	var pair tls.Certificate
	certificate, err := safefile.ReadSmall(ctx, opts.TLSCert)
	if err == nil {
		var key []byte
		if key, err = safefile.ReadSmall(ctx, opts.TLSKey); err == nil {
			pair, err = tls.X509KeyPair(certificate, key)
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, usagef("the certificate %q with the key %q can't be used: %v", opts.TLSCert, opts.TLSKey, err)
	}
	if err := places.Check(opts.TLSCert); err != nil {
		return nil, &config.Error{Path: opts.TLSCert, Err: err}
	}
	if err := places.CheckSecret(opts.TLSKey); err != nil {
		return nil, &config.Error{Path: opts.TLSKey, Err: err}
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// rememberBasic notes whether UPS wants the Authorization header beside the
// verifier from this application.
func rememberBasic(dir string, r config.Registration, needsBasic bool) error {
	if r.Vault == "" {
		// Not registered: there is nothing to write it to.
		return nil
	}
	return config.UpdateApplications(dir, func(a *config.Applications) error {
		for i := range a.Applications {
			if a.Applications[i].Name == r.Name && a.Applications[i].Environment == r.Environment {
				a.Applications[i].PKCENeedsBasic = needsBasic
			}
		}
		return nil
	})
}

// askedPage is the browser's page while the terminal asks about who signed in.
func askedPage(company, user string) loopback.Page {
	return loopback.Page{
		Title: "Answer in the terminal", Heading: "Answer in the terminal", Names: []string{company, user},
		Text: []string{cmp.Or(user, "Somebody") + " signed in at ups.com for " + company + ".",
			"The terminal asks whether this is the right user. Nothing is saved before the answer."},
	}
}

// donePage is the browser's last page: the panel, or what went wrong.
func donePage(id grant.ID, g grant.Grant, err error) loopback.Page {
	var awaited *keeper.AwaitedError
	if errors.As(err, &awaited) {
		return loopback.Page{
			Title: "Not authorized", Heading: id.Company + " was not authorized",
			Text: []string{explain.Sentence(explain.Error(awaited.Err).What), "The terminal still waits for the sign-in."},
			Next: onceMore(awaited.Err, false),
		}
	}
	if err != nil {
		what, remedy := explain.Error(err).Plain()
		return loopback.Page{
			Title: "Not authorized", Heading: id.Company + " was not authorized",
			Text: []string{what}, Next: remedy,
		}
	}
	page := loopback.Page{
		OK: true, Title: "Authorized", Heading: id.Company + " is authorized",
		Text:    []string{"An OAuth token exists for this company!"},
		Warning: "When the ups.com password of the user who signed in is changed, this authorization is void and has to be given again.",
	}
	if g.User != "" {
		page.Rows = append(page.Rows, loopback.Row{Name: "Signed in", Value: g.User})
	}
	for _, row := range render.GrantRows(g.Record) {
		page.Rows = append(page.Rows, loopback.Row(row))
	}
	return page
}
