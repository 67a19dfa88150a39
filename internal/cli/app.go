package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
)

func newAppCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Manage the applications that are registered with UPS (Access Key Configuration)",
		Long: `An application is a client that is registered with UPS: a client ID, a client
secret and a redirect URI, for one environment. UPS's developer portal shows them
on the application's page. upsauth knows the names intelligent-rating and
batch-suite; you can use any other name too.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newAppAddCmd(env), newAppListCmd(env), newAppShowCmd(env),
		newAppRemoveCmd(env), newAppSetDefaultCmd(env), newAppSetSecretCmd(env),
	)
	return cmd
}

type appOptions struct {
	env         *Env
	Name        string
	Environment string
	Verbose     bool

	ClientID, RedirectURI, PublicRedirectURI, DisplayName, Scope, PKCE string
	SecretFromStdin                                                    bool
	// publicGiven says that a public redirect URI was given, publicAlone that nothing else
	// of a registration was.
	publicGiven, publicAlone bool
	Output                   string
	Yes                      bool
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

// findApp opens a session and finds the one registration that the options name.
func findApp(ctx context.Context, opts appOptions) (*job, config.Registration, error) {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return nil, config.Registration{}, err
	}
	r, err := s.FindApplication(ctx, opts.Name, opts.Environment)
	return s, r, err
}

// typedSecret reads a secret that goes into a home. A person is asked for it only
// once it is proved that the home can be used.
func (s *job) typedSecret(ctx context.Context, in secretInput, home string, fromStdin bool) (string, error) {
	if !fromStdin && s.env.attended() {
		if err := s.Prove(ctx, home); err != nil {
			return "", err
		}
	}
	return in.read(ctx, s.env, fromStdin)
}

// clientSecret is how a client secret gets in.
func clientSecret(what string) secretInput {
	return secretInput{what: what, flag: "client-secret-stdin", trim: true}
}
