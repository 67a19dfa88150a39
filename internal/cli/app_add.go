package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

func newAppAddCmd(env *Env) *cobra.Command {
	cmd, opts := appCmd(env, "add", "Register an application, or replace its registration",
		`  upsauth app add intelligent-rating --client-id ID --redirect-uri http://localhost:8400/callback
  upsauth app add mine --env cie --client-id ID --redirect-uri http://localhost:8400/ --client-secret-stdin < secret.txt
  upsauth app add intelligent-rating --public-redirect-uri https://auth.agency.example/callback`, runAppAdd)
	cmd.Long = `Registers an application with upsauth. A hidden prompt asks for the client
secret, or --client-secret-stdin reads it from standard input. It is kept in the
vault. The redirect URI must equal a Callback URL of the application in UPS's
developer portal, to the letter.

For customers who are invited (upsauth invite), UPS needs a second Callback URL, below
public_url. To give an application that is registered already this public redirect URI,
use --public-redirect-uri alone: everything else stays. An empty one removes the URI.
Without the flag, an application that is registered again keeps its public redirect URI.`
	cmd.Flags().StringVar(&opts.ClientID, "client-id", "", "the client ID that UPS's developer portal shows")
	cmd.Flags().StringVar(&opts.RedirectURI, "redirect-uri", "", "the Callback URL as it stands in UPS's developer portal")
	cmd.Flags().StringVar(&opts.PublicRedirectURI, "public-redirect-uri", "", "another Callback URL in UPS's developer portal, below public_url, for customers who are invited")
	cmd.Flags().StringVar(&opts.DisplayName, "display-name", "", "what UPS's consent page calls the application")
	cmd.Flags().StringVar(&opts.Scope, "scope", "", "the scope to ask for, if UPS gave you one")
	cmd.Flags().StringVar(&opts.PKCE, "pkce", "auto", "PKCE (proof key for code exchange): auto, on or off")
	cmd.Flags().BoolVar(&opts.SecretFromStdin, "client-secret-stdin", false, "read the client secret from standard input")
	add := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opts.publicGiven = cmd.Flags().Changed("public-redirect-uri")
		opts.publicAlone = opts.publicGiven
		for _, other := range []string{"client-id", "redirect-uri", "display-name", "scope", "pkce", "client-secret-stdin"} {
			opts.publicAlone = opts.publicAlone && !cmd.Flags().Changed(other)
		}
		return add(cmd, args)
	}
	return cmd
}

// runAppPublicRedirect changes the public redirect URI of a registered application alone.
// False is for an application that is not registered.
func runAppPublicRedirect(ctx context.Context, opts appOptions) (bool, error) {
	s, r, err := findApp(ctx, opts)
	if errors.As(err, new(*session.NotFoundError)) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	defer s.Close()
	r.PublicRedirectURI = opts.PublicRedirectURI
	if wrong := session.CheckRegistration(&r); len(wrong) > 0 {
		return true, usagef("%v", wrong[0])
	}
	if err := s.SetPublicRedirectURI(ctx, r, r.PublicRedirectURI); err != nil {
		return true, err
	}
	if r.PublicRedirectURI == "" {
		opts.env.tell("The application %s for %s has no public redirect URI any more.\n", r.Name, r.Environment)
		return true, nil
	}
	opts.env.tell("The public redirect URI of the application %s for %s is %s.\n", r.Name, r.Environment, r.PublicRedirectURI)
	return true, nil
}

func runAppAdd(ctx context.Context, opts appOptions) error {
	if err := cleanFlags(map[string]*string{"--client-id": &opts.ClientID, "--redirect-uri": &opts.RedirectURI, "--public-redirect-uri": &opts.PublicRedirectURI, "--display-name": &opts.DisplayName, "--scope": &opts.Scope}); err != nil {
		return err
	}
	if opts.publicAlone {
		if known, err := runAppPublicRedirect(ctx, opts); known {
			return err
		}
	}
	r := config.Registration{
		Name: opts.Name, Environment: cmp.Or(opts.Environment, ups.Production), DisplayName: opts.DisplayName, ClientID: opts.ClientID,
		RedirectURI: opts.RedirectURI, PublicRedirectURI: opts.PublicRedirectURI, Scope: opts.Scope, PKCE: opts.PKCE,
	}
	if wrong := session.CheckRegistration(&r); len(wrong) > 0 {
		if slices.ContainsFunc(wrong, func(f *session.FieldError) bool { return f.Missing }) && wrong[0].Field != session.FieldName {
			return usagef("--client-id and --redirect-uri are missing: copy both from UPS's developer portal")
		}
		return usagef("%v", wrong[0])
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if !slices.Contains(s.Config.EnvironmentNames(), r.Environment) {
		return s.NoEnvironment(r.Environment)
	}
	if !opts.publicGiven {
		before, err := s.FindApplication(ctx, r.Name, r.Environment)
		if err == nil {
			r.PublicRedirectURI = before.PublicRedirectURI
		} else if !errors.As(err, new(*session.NotFoundError)) {
			return err
		}
	}
	secret, err := opts.env.variable(config.EnvClientSecret)
	if err != nil {
		return err
	}
	if secret == "" || opts.SecretFromStdin {
		if secret, err = s.typedSecret(ctx, clientSecret("client secret"), s.Config.Vault, opts.SecretFromStdin); err != nil {
			return err
		}
	}
	done, err := s.RegisterApplication(ctx, r, secret)
	if done.OtherSecret != "" {
		fmt.Fprintf(opts.env.Err, "Warning: the %s had another client secret under %s, perhaps of another configuration directory; it was replaced.\n", vault.Describe(s.Config.Vault), done.OtherSecret)
	}
	if done.Left != nil {
		fmt.Fprintf(opts.env.Err, "Warning: %v\n", done.Left)
	}
	if err != nil {
		return err
	}
	r = done.Registration
	if err := s.warnOfSharedRedirect(ctx, r); err != nil {
		return err
	}
	verb := "Registered"
	if done.Replaced {
		verb = "Replaced"
	}
	opts.env.tell("%s the application %s for %s; its client secret is in the %s.\n", verb, r.Name, r.Environment, vault.Describe(r.Home))
	return nil
}
