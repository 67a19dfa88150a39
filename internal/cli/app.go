package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
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

// putSecret stores a client secret whose registration is about to be saved. Undo
// puts back what there was, where that fails with err: a secret without a
// registration is one that nobody looks after.
func (s *session) putSecret(ctx context.Context, r config.Registration, secret string) (undo func(err error) error, err error) {
	account := r.SecretAccount()
	old, oldErr := s.vault.Secret(ctx, r.Vault, account)
	if err := s.vault.PutSecret(ctx, r.Vault, account, secret); err != nil {
		return nil, err
	}
	return func(err error) error {
		ctx := context.WithoutCancel(ctx)
		var undone error
		switch {
		case errors.Is(oldErr, vault.ErrNoItem):
			if undone = s.vault.DeleteSecret(ctx, r.Vault, account); errors.Is(undone, vault.ErrNoItem) {
				undone = nil
			}
		case oldErr == nil:
			undone = s.vault.PutSecret(ctx, r.Vault, account, old)
		}
		return errors.Join(err, undone)
	}, nil
}

// clientSecret is how a client secret gets in.
func clientSecret(what string) secretInput {
	return secretInput{what: what, flag: "client-secret-stdin", trim: true}
}
