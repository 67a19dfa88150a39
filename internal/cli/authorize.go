package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

type authorizeOptions struct {
	target
	env       *Env
	NoBrowser bool
	Listen    string
	TLSCert   string
	TLSKey    string
	Timeout   time.Duration
	Yes       bool
}

func newAuthorizeCmd(env *Env, run func(context.Context, authorizeOptions) error) *cobra.Command {
	opts := authorizeOptions{env: env}
	cmd := &cobra.Command{
		Use:   "authorize",
		Short: "Authorize a company: sign in at ups.com in the browser (Authorize Customer)",
		Long: `Opens the browser at UPS's consent page, catches the code that UPS sends back
to this machine, exchanges it for tokens and saves them in the vault.

The company's earlier authorization works until the new one is saved.`,
		Example: `  upsauth authorize --company "Acme Corp"
  upsauth authorize --company "Acme Corp" --app batch-suite --env cie
  upsauth authorize --company "Acme Corp" --env sandbox
  upsauth authorize --company "Acme Corp" --no-browser --timeout 10m`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().BoolVar(&opts.NoBrowser, "no-browser", false, "only print the address, to be opened in a browser of this machine")
	cmd.Flags().StringVar(&opts.Listen, "listen", "", "where to listen on loopback, for a redirect URI that a tunnel brings to this machine, such as 127.0.0.1:8400")
	cmd.Flags().StringVar(&opts.TLSCert, "tls-cert", "", "the certificate for an https redirect URI on loopback, a PEM file")
	cmd.Flags().StringVar(&opts.TLSKey, "tls-key", "", "the private key of that certificate, a PEM file")
	cmd.Flags().DurationVar(&opts.Timeout, "timeout", 3*time.Minute, "how long to wait for the sign-in")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask, also where the company is authorized already")
	return cmd
}

func runAuthorize(ctx context.Context, opts authorizeOptions) error {
	env := opts.env
	if strings.TrimSpace(opts.Company) == "" {
		return usagef("--company is missing: name the company to authorize")
	}
	company, err := grant.CleanCompany(opts.Company)
	if err != nil {
		return usagef("%v", err)
	}
	opts.Company = company
	if opts.Timeout <= 0 {
		return usagef("--timeout must be longer than nothing")
	}
	certificate, err := opts.certificate()
	if err != nil {
		return err
	}
	s, err := openSession(env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	registration, err := s.pickApplication(opts.target)
	if err != nil {
		return err
	}
	if registration.RedirectURI == "" {
		return usagef("the redirect URI is missing: set %s, or register the application with upsauth app add", config.EnvRedirectURI)
	}
	// A company that has grants keeps the name that it has.
	known, err := s.records(company)
	if err != nil {
		return err
	}
	if len(known) > 0 {
		company = known[0].Company
	}
	id := grant.ID{Company: company, Application: registration.Name, Environment: registration.Environment}
	if before, err := s.vault.Record(id); err == nil {
		if state := before.StateAt(env.Now()); state == grant.Authorized || state == grant.Refreshable {
			question := fmt.Sprintf("%s is %s until %s. Authorize it again?", id, grant.Authorized, render.UPSTime(before.RefreshTokenExpires))
			if err := confirm(ctx, env, question, opts.Yes); err != nil {
				return err
			}
		}
	}
	if err := s.vault.Open(ctx, s.config.Vault); err != nil {
		return err
	}
	client, err := s.clientOf(ctx, registration)
	if err != nil {
		return err
	}
	narrator := &narrator{env: env, opts: opts, client: client, home: s.config.Vault}
	defer narrator.stopWaiting()
	narrator.begin(id)
	g, err := s.keeper.Authorize(ctx, keeper.Login{
		ID: id, Home: s.config.Vault, Client: client, Timeout: opts.Timeout,
		Listen: opts.Listen, TLS: certificate,
		Step: narrator.step, Open: narrator.open,
		Page: func(g grant.Grant, err error) loopback.Page { return donePage(id, g, err) },
		Learned: func() {
			if err := rememberBasic(s.config.Paths.Config, registration); err != nil {
				s.log(err.Error())
			}
		},
	})
	narrator.stopWaiting()
	var saved *keeper.SavedError
	if err != nil && !errors.As(err, &saved) {
		return err
	}
	fmt.Fprintln(env.Err)
	if panelErr := showPanel(env, g.Record); panelErr != nil {
		return panelErr
	}
	return err
}

// certificate is what an https redirect URI on loopback is served with, nil for
// none.
func (opts authorizeOptions) certificate() (*tls.Config, error) {
	if opts.TLSCert == "" && opts.TLSKey == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(opts.TLSCert, opts.TLSKey)
	if err != nil {
		return nil, usagef("--tls-cert and --tls-key can't be used: %v", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// rememberBasic notes that UPS wants the Authorization header beside the
// verifier from this application.
func rememberBasic(dir string, r config.Registration) error {
	if r.PKCENeedsBasic || r.Vault == "" {
		// Known, or not registered: there is nothing to write it to.
		return nil
	}
	return config.UpdateApplications(dir, func(a *config.Applications) error {
		for i := range a.Applications {
			if a.Applications[i].Name == r.Name && a.Applications[i].Environment == r.Environment {
				a.Applications[i].PKCENeedsBasic = true
			}
		}
		return nil
	})
}

// narrator tells the person at the terminal what happens, in numbered steps on
// standard error.
type narrator struct {
	env    *Env
	opts   authorizeOptions
	client *ups.Client
	home   string
	number int
	stop   func()
}

func (n *narrator) begin(id grant.ID) {
	fmt.Fprintf(n.env.Err, `Authorizing %s for %s in %s.
Mind: the authorization belongs to the ups.com user who signs in. When that
user's ups.com password is changed, it is void and has to be given again.

`, id.Company, n.client.DisplayName, id.Environment)
}

func (n *narrator) say(format string, args ...any) {
	n.number++
	fmt.Fprintf(n.env.Err, "%d. %s\n", n.number, fmt.Sprintf(format, args...))
}

func (n *narrator) step(step keeper.Step) {
	switch step.Kind {
	case keeper.StepListen:
		n.say("Listening for UPS's answer on %s.", step.Address)
	case keeper.StepPreflight:
		n.say("Asking UPS whether it knows the application and its redirect URI.")
	case keeper.StepExchange:
		n.stopWaiting()
		n.say("UPS sent the browser back. Exchanging its code for tokens.")
	case keeper.StepSignedIn:
		if step.User != "" {
			n.say("Signed in at ups.com: %s.", step.User)
		}
	case keeper.StepSaved:
		n.say("Saved the tokens in the %s.", vault.Describe(n.home))
	}
}

// open opens the browser and always shows the address too, as nobody can know
// whether a window really appeared.
func (n *narrator) open(ctx context.Context, address string) {
	var err error
	if n.opts.NoBrowser {
		n.say("Open this address in a browser on this machine and sign in as the company's ups.com user:")
	} else {
		n.say("Opening the browser. Sign in as the company's ups.com user; if the browser is still\n   signed in to ups.com as somebody else, sign out there first. If no window opens, go to:")
	}
	fmt.Fprintf(n.env.Err, "   %s\n", address)
	if !n.opts.NoBrowser {
		err = n.env.OpenBrowser(ctx, address)
	}
	if err != nil {
		fmt.Fprintf(n.env.Err, "   (No browser could be opened: %v)\n", err)
	}
	n.startWaiting()
}

// startWaiting says how long the sign-in is awaited; on a terminal the time
// left counts down.
func (n *narrator) startWaiting() {
	end := n.env.Now().Add(n.opts.Timeout)
	fmt.Fprintf(n.env.Err, "   Waiting for the sign-in until %s (%s from now). Ctrl-C ends it and changes nothing.\n",
		end.In(n.env.Zone).Format("15:04:05"), n.opts.Timeout)
	if !n.env.ErrTerminal {
		return
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		countDown(n.env.Err, n.env.Now, end, done)
	}()
	n.stop = func() {
		close(done)
		<-ended
	}
}

func (n *narrator) stopWaiting() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

func countDown(w io.Writer, now func() time.Time, end time.Time, done <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if left := end.Sub(now()).Round(time.Second); left > 0 {
			fmt.Fprintf(w, "\r   %s left   ", left)
		}
		select {
		case <-ticker.C:
		case <-done:
			fmt.Fprint(w, "\r\x1b[K")
			return
		}
	}
}

// donePage is the browser's last page: the panel, or what went wrong.
func donePage(id grant.ID, g grant.Grant, err error) loopback.Page {
	if err != nil {
		page := loopback.Page{
			Title: "Not authorized", Heading: id.Company + " was not authorized",
			Text: []string{sentence(message(err))}, Next: sentence(advice(err)),
		}
		return page
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

// sentence begins a text with a capital letter and ends it with a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "?") {
		text += "."
	}
	return text
}
