package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

func newAppAddCmd(env *Env) *cobra.Command {
	cmd, opts := appCmd(env, "add", "Register an application, or replace its registration",
		`  upsauth app add intelligent-rating --client-id ID --redirect-uri http://localhost:8400/callback
  upsauth app add mine --env cie --client-id ID --redirect-uri http://localhost:8400/ --client-secret-stdin < secret.txt`, runAppAdd)
	cmd.Long = `Registers an application with upsauth. A hidden prompt asks for the client
secret, or --client-secret-stdin reads it from standard input. It is kept in the
vault. The redirect URI must equal a Callback URL of the application in UPS's
developer portal, to the letter.`
	cmd.Flags().StringVar(&opts.ClientID, "client-id", "", "the client ID that UPS's developer portal shows")
	cmd.Flags().StringVar(&opts.RedirectURI, "redirect-uri", "", "the Callback URL as it stands in UPS's developer portal")
	cmd.Flags().StringVar(&opts.DisplayName, "display-name", "", "what UPS's consent page calls the application")
	cmd.Flags().StringVar(&opts.Scope, "scope", "", "the scope to ask for, if UPS gave you one")
	cmd.Flags().StringVar(&opts.PKCE, "pkce", "auto", "PKCE (proof key for code exchange): auto, on or off")
	cmd.Flags().BoolVar(&opts.SecretFromStdin, "client-secret-stdin", false, "read the client secret from standard input")
	return cmd
}

func runAppAdd(ctx context.Context, opts appOptions) error {
	if _, err := grant.CleanName("application", opts.Name); err != nil {
		return usagef("%v", err)
	}
	if err := cleanFlags(map[string]*string{"--client-id": &opts.ClientID, "--redirect-uri": &opts.RedirectURI, "--display-name": &opts.DisplayName, "--scope": &opts.Scope}); err != nil {
		return err
	}
	opts.DisplayName = legible.Name(opts.DisplayName)
	if opts.ClientID == "" || opts.RedirectURI == "" {
		return usagef("--client-id and --redirect-uri are missing: copy both from UPS's developer portal")
	}
	if strings.ContainsFunc(opts.ClientID, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return usagef("the client ID %q has a space or a control character", opts.ClientID)
	}
	if err := loopback.CheckRedirectURI(opts.RedirectURI); err != nil {
		return usagef("%v", err)
	}
	if _, err := ups.ParsePKCE(opts.PKCE); err != nil {
		return usagef("%v", err)
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	environment := cmp.Or(opts.Environment, ups.Production)
	if !slices.Contains(s.Config.EnvironmentNames(), environment) {
		return s.NoEnvironment(environment)
	}
	r := config.Registration{
		Name: opts.Name, Environment: environment, DisplayName: opts.DisplayName, ClientID: opts.ClientID,
		RedirectURI: opts.RedirectURI, Scope: opts.Scope, PKCE: opts.PKCE, Home: s.Config.Vault,
	}
	secret, err := opts.env.variable(config.EnvClientSecret)
	if err != nil {
		return err
	}
	if secret == "" || opts.SecretFromStdin {
		if secret, err = s.typedSecret(ctx, clientSecret("client secret"), r.Home, opts.SecretFromStdin); err != nil {
			return err
		}
	}
	if err := s.Vault.Make(ctx, r.Home); err != nil {
		return err
	}
	s.FinishAndTell(ctx)
	end, err := s.AnnounceNewSecret(ctx, r)
	if err != nil {
		return err
	}
	var before []config.Registration
	err = s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		before = a.Find(r.Name, r.Environment)
		if old, err := s.Vault.Secret(ctx, r.Home, r.SecretAccount()); err == nil && old != secret && len(before) == 0 {
			// All configuration directories of a user share the one keychain.
			fmt.Fprintf(opts.env.Err, "Warning: the %s had another client secret under %s, perhaps of another configuration directory; it was replaced.\n", vault.Describe(r.Home), r.SecretAccount())
		}
		if len(before) == 1 {
			if err := s.FinishFreshSecret(ctx, a, save, &before[0]); err != nil {
				return err
			}
			if r.LeftIn = before[0].LeftIn; before[0].Home != r.Home {
				r.LeftIn = before[0].Home
			}
		}
		if len(before) == 1 && before[0].Home == r.Home {
			if err := s.ReplaceSecret(ctx, a, save, &r, secret); err != nil {
				return err
			}
		} else if err := s.AddSecret(ctx, a, save, r, secret); err != nil {
			return err
		}
		if r.LeftIn == "" {
			return nil
		}
		if err := s.DropLeftSecret(ctx, r); err != nil {
			fmt.Fprintf(opts.env.Err, "Warning: %v\n", err)
			return nil
		}
		r.LeftIn = ""
		a.Put(r)
		return save()
	})
	if err := end(err); err != nil {
		return err
	}
	if err := s.warnOfSharedRedirect(ctx, r); err != nil {
		return err
	}
	verb := "Registered"
	if len(before) > 0 {
		verb = "Replaced"
	}
	opts.env.tell("%s the application %s for %s; its client secret is in the %s.\n", verb, r.Name, r.Environment, vault.Describe(r.Home))
	return nil
}
