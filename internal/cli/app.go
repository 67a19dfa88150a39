package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

func newAppCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Client registrations with UPS (Access Key Configuration)",
		Long: `An application is a client that is registered with UPS: a client ID, a client
secret and a redirect URI, for one environment. UPS's developer portal has them
on the application's page. Names that upsauth knows: intelligent-rating,
batch-suite; any other name will do as well.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newAppAddCmd(env, runAppAdd), newAppListCmd(env, runAppList), newAppShowCmd(env, runAppShow),
		newAppRemoveCmd(env, runAppRemove), newAppSetDefaultCmd(env, runAppSetDefault), newAppSetSecretCmd(env, runAppSetSecret),
	)
	return cmd
}

type appOptions struct {
	env         *Env
	Name        string
	Environment string
	Verbose     bool

	ClientID, RedirectURI, DisplayName, Scope, PKCE string
	SecretFromStdin                                 bool
	Output                                          string
	Yes                                             bool
}

// appCmd makes a command about one application.
func appCmd(env *Env, use, short, example string, run func(context.Context, appOptions) error) (*cobra.Command, *appOptions) {
	opts := &appOptions{env: env}
	cmd := &cobra.Command{
		Use: use + " NAME", Short: short, Example: example,
		Args: oneArg("the application's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Name, opts.Verbose = args[0], verbose(cmd)
			return run(cmd.Context(), *opts)
		},
	}
	cmd.Flags().StringVar(&opts.Environment, "env", "", "the application's environment")
	return cmd, opts
}

func newAppAddCmd(env *Env, run func(context.Context, appOptions) error) *cobra.Command {
	cmd, opts := appCmd(env, "add", "Register an application, or replace its registration",
		`  upsauth app add intelligent-rating --client-id ID --redirect-uri http://localhost:8400/callback
  upsauth app add mine --env cie --client-id ID --redirect-uri http://localhost:8400/ --client-secret-stdin < secret.txt`, run)
	cmd.Long = `Registers an application with upsauth. The client secret is asked for with a
hidden prompt, or read from standard input, and goes into the vault. The
redirect URI must be equal, to the letter, to a Callback URL of the application
in UPS's developer portal.`
	cmd.Flags().StringVar(&opts.ClientID, "client-id", "", "the client ID that UPS's developer portal shows")
	cmd.Flags().StringVar(&opts.RedirectURI, "redirect-uri", "", "the Callback URL as it stands in UPS's developer portal")
	cmd.Flags().StringVar(&opts.DisplayName, "display-name", "", "what UPS's consent page calls the application")
	cmd.Flags().StringVar(&opts.Scope, "scope", "", "the scope to ask for, where UPS gave one")
	cmd.Flags().StringVar(&opts.PKCE, "pkce", "auto", "proof key for the code exchange: auto, on or off")
	cmd.Flags().BoolVar(&opts.SecretFromStdin, "client-secret-stdin", false, "read the client secret from standard input")
	return cmd
}

func runAppAdd(ctx context.Context, opts appOptions) error {
	if _, err := grant.CleanName("application", opts.Name); err != nil {
		return usagef("%v", err)
	}
	if opts.ClientID == "" || opts.RedirectURI == "" {
		return usagef("--client-id and --redirect-uri are needed, as UPS's developer portal shows them")
	}
	if strings.ContainsFunc(opts.ClientID, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return usagef("the client ID %q has a space or a control character in it", opts.ClientID)
	}
	if err := loopback.CheckRedirectURI(opts.RedirectURI); err != nil {
		return usagef("%v", err)
	}
	if _, err := ups.ParsePKCE(opts.PKCE); err != nil {
		return usagef("%v", err)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	environment := orElse(opts.Environment, ups.Production)
	if !slices.Contains(s.config.EnvironmentNames(), environment) {
		return s.noEnvironment(environment)
	}
	r := config.Registration{
		Name: opts.Name, Environment: environment, DisplayName: opts.DisplayName, ClientID: opts.ClientID,
		RedirectURI: opts.RedirectURI, Scope: opts.Scope, PKCE: opts.PKCE, Vault: s.config.Vault,
	}
	secret := opts.env.Getenv(config.EnvClientSecret)
	if secret == "" || opts.SecretFromStdin {
		if secret, err = clientSecret("client secret").read(ctx, opts.env, opts.SecretFromStdin); err != nil {
			return err
		}
	}
	if err := s.vault.Open(ctx, r.Vault); err != nil {
		return err
	}
	var before []config.Registration
	err = config.EditApplications(ctx, s.config.Paths.Config, func(a *config.Applications, save func() error) error {
		before = a.Find(r.Name, r.Environment)
		if old, err := s.vault.Secret(ctx, r.Vault, r.SecretAccount()); err == nil && old != secret && len(before) == 0 {
			// All configuration directories of a user share the one keychain.
			fmt.Fprintf(opts.env.Err, "Warning: the %s had another client secret under %s, perhaps of another configuration directory; it was replaced.\n", vault.Describe(r.Vault), r.SecretAccount())
		}
		if err := s.vault.PutSecret(ctx, r.Vault, r.SecretAccount(), secret); err != nil {
			return err
		}
		if len(before) == 1 {
			if r.LeftIn = before[0].LeftIn; before[0].Vault != r.Vault {
				r.LeftIn = before[0].Vault
			}
		}
		a.Put(r)
		if err := save(); err != nil || r.LeftIn == "" {
			return err
		}
		if err := s.dropLeftSecret(ctx, r); err != nil {
			fmt.Fprintf(opts.env.Err, "Warning: %v\n", err)
			return nil
		}
		r.LeftIn = ""
		a.Put(r)
		return save()
	})
	if err != nil {
		return err
	}
	verb := "Registered"
	if len(before) > 0 {
		verb = "Replaced"
	}
	fmt.Fprintf(opts.env.Out, "%s the application %s for %s; its client secret is in the %s.\n", verb, r.Name, r.Environment, vault.Describe(r.Vault))
	return nil
}

func newAppListCmd(env *Env, run func(context.Context, appOptions) error) *cobra.Command {
	opts := appOptions{env: env}
	cmd := &cobra.Command{
		Use: "list", Short: "List the registered applications",
		Example: "  upsauth app list\n  upsauth app list -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "table or json")
	return cmd
}

// appList is the JSON of upsauth app list.
type appList struct {
	Version      int                   `json:"version"`
	Applications []config.Registration `json:"applications"`
}

func runAppList(_ context.Context, opts appOptions) error {
	if opts.Output != "" && opts.Output != "table" && opts.Output != "json" {
		return usagef("%q is no output format of app list: it is table or json", opts.Output)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return err
	}
	if opts.Output == "json" {
		return render.JSON(opts.env.Out, appList{Version: 1, Applications: append([]config.Registration{}, applications.Applications...)})
	}
	if len(applications.Applications) == 0 {
		fmt.Fprintln(opts.env.Err, "No application is registered. Begin with: upsauth app add NAME --client-id ID --redirect-uri URI")
		return nil
	}
	var lines [][]string
	for _, r := range applications.Applications {
		isDefault := "-"
		if d := applications.Default; d != nil && d.Application == r.Name && d.Environment == r.Environment {
			isDefault = "yes"
		}
		lines = append(lines, []string{r.Name, r.Environment, r.ClientID, r.RedirectURI, isDefault})
	}
	return render.Table(opts.env.Out, []string{"APPLICATION", "ENVIRONMENT", "CLIENT ID", "REDIRECT URI", "DEFAULT"}, lines)
}

// findApp opens a session and finds the one registration that the options name.
func findApp(opts appOptions) (*session, config.Registration, error) {
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return nil, config.Registration{}, err
	}
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return nil, config.Registration{}, err
	}
	switch found := applications.Find(opts.Name, opts.Environment); len(found) {
	case 0:
		return nil, config.Registration{}, &notFoundError{
			what:   fmt.Sprintf("no application %q is registered%s", opts.Name, describe("", opts.Environment)),
			advice: "upsauth app list shows all; upsauth app add registers one.",
		}
	case 1:
		return s, found[0], nil
	default:
		var names []string
		for _, r := range found {
			names = append(names, r.Environment)
		}
		return nil, config.Registration{}, usagef("%s is registered in several environments: %s\n  Say which with --env.", opts.Name, joined(names))
	}
}

func newAppShowCmd(env *Env, run func(context.Context, appOptions) error) *cobra.Command {
	cmd, _ := appCmd(env, "show", "Show one registration, without its secret", "  upsauth app show intelligent-rating", run)
	return cmd
}

func runAppShow(ctx context.Context, opts appOptions) error {
	s, r, err := findApp(opts)
	if err != nil {
		return err
	}
	defer s.Close()
	configured := "CONFIGURED"
	if _, err := s.storedSecret(ctx, r); err != nil {
		configured = "NOT CONFIGURED: " + message(err)
	}
	rows := []render.Row{
		{Name: "Access Key Configuration", Value: configured},
		{Name: "Application", Value: r.Name},
		{Name: "Environment", Value: r.Environment},
		{Name: "Display name", Value: orElse(r.DisplayName, orElse(config.BuiltinDisplayName(r.Name), "-"))},
		{Name: "Client ID", Value: r.ClientID},
		{Name: "Redirect URI", Value: r.RedirectURI},
		{Name: "Scope", Value: orElse(r.Scope, "-")},
		{Name: "PKCE", Value: orElse(r.PKCE, string(ups.PKCEAuto))},
		{Name: "Vault", Value: r.Vault},
	}
	return render.Rows(opts.env.Out, rows)
}

func newAppRemoveCmd(env *Env, run func(context.Context, appOptions) error) *cobra.Command {
	cmd, opts := appCmd(env, "remove", "Remove a registration and its client secret", "  upsauth app remove mine --env cie --yes", run)
	cmd.Long = `Removes a registration and its client secret. Grants that were made with it stay
until they are revoked, and can't be refreshed without it.`
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runAppRemove(ctx context.Context, opts appOptions) error {
	s, r, err := findApp(opts)
	if err != nil {
		return err
	}
	defer s.Close()
	all, err := s.records("")
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Remove the application %s for %s?", r.Name, r.Environment)
	if n := len(filter(all, r.Name, r.Environment)); n > 0 {
		question = fmt.Sprintf("Remove the application %s for %s? The authorizations of %d companies need it to be refreshed.", r.Name, r.Environment, n)
	}
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	err = config.EditApplications(ctx, s.config.Paths.Config, func(a *config.Applications, save func() error) error {
		found := a.Find(r.Name, r.Environment)
		if len(found) == 0 {
			return nil // removed meanwhile
		}
		if err := s.dropLeftSecret(ctx, found[0]); err != nil {
			return err
		}
		if err := s.vault.DeleteSecret(ctx, found[0].Vault, r.SecretAccount()); err != nil {
			return err
		}
		a.Remove(r.Name, r.Environment)
		return save()
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "Removed the application %s for %s and its client secret.\n", r.Name, r.Environment)
	return nil
}

func newAppSetDefaultCmd(env *Env, run func(context.Context, appOptions) error) *cobra.Command {
	cmd, _ := appCmd(env, "set-default", "Make an application the one that commands use where several fit", "  upsauth app set-default intelligent-rating --env production", run)
	return cmd
}

func runAppSetDefault(_ context.Context, opts appOptions) error {
	s, r, err := findApp(opts)
	if err != nil {
		return err
	}
	defer s.Close()
	err = config.UpdateApplications(s.config.Paths.Config, func(a *config.Applications) error {
		a.Default = &config.Default{Application: r.Name, Environment: r.Environment}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "%s for %s is the default application now.\n", r.Name, r.Environment)
	return nil
}

func newAppSetSecretCmd(env *Env, run func(context.Context, appOptions) error) *cobra.Command {
	cmd, opts := appCmd(env, "set-secret", "Replace a client secret that was rotated at UPS", "  upsauth app set-secret intelligent-rating\n  upsauth app set-secret mine --env cie --client-secret-stdin < secret.txt", run)
	cmd.Flags().BoolVar(&opts.SecretFromStdin, "client-secret-stdin", false, "read the client secret from standard input")
	return cmd
}

func runAppSetSecret(ctx context.Context, opts appOptions) error {
	s, r, err := findApp(opts)
	if err != nil {
		return err
	}
	defer s.Close()
	secret, err := clientSecret("new client secret").read(ctx, opts.env, opts.SecretFromStdin)
	if err != nil {
		return err
	}
	if err := s.vault.Open(ctx, r.Vault); err != nil {
		return err
	}
	err = config.EditApplications(ctx, s.config.Paths.Config, func(a *config.Applications, _ func() error) error {
		found := a.Find(r.Name, r.Environment)
		if len(found) == 0 {
			return &notFoundError{what: fmt.Sprintf("the application %s (%s) was removed meanwhile", r.Name, r.Environment)}
		}
		return s.vault.PutSecret(ctx, found[0].Vault, r.SecretAccount(), secret)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "Replaced the client secret of the application %s for %s.\n", r.Name, r.Environment)
	return nil
}

// clientSecret is how a client secret gets in.
func clientSecret(what string) secretInput {
	return secretInput{what: what, flag: "client-secret-stdin", trim: true}
}
