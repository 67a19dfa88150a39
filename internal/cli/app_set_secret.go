package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/session"
)

func newAppSetSecretCmd(env *Env) *cobra.Command {
	cmd, opts := appCmd(env, "set-secret", "Replace a client secret that was rotated at UPS", "  upsauth app set-secret intelligent-rating\n  upsauth app set-secret mine --env cie --client-secret-stdin < secret.txt", runAppSetSecret)
	cmd.Flags().BoolVar(&opts.SecretFromStdin, "client-secret-stdin", false, "read the client secret from standard input")
	return cmd
}

func runAppSetSecret(ctx context.Context, opts appOptions) error {
	s, r, err := findApp(ctx, opts)
	if err != nil {
		return err
	}
	defer s.Close()
	secret, err := s.typedSecret(ctx, clientSecret("new client secret"), r.Home, opts.SecretFromStdin)
	if err != nil {
		return err
	}
	if err := s.Vault.Make(ctx, r.Home); err != nil {
		return err
	}
	err = s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		found := a.Find(r.Name, r.Environment)
		if len(found) == 0 {
			return &session.NotFoundError{Kind: session.RemovedMeanwhile, Application: r.Name, Environment: r.Environment}
		}
		if found[0].Fresh {
			return s.PlaceFresh(ctx, a, save, &found[0], secret)
		}
		return s.Vault.PutSecret(ctx, found[0].Home, r.SecretAccount(), secret)
	})
	if err != nil {
		return err
	}
	opts.env.tell("Replaced the client secret of the application %s for %s.\n", r.Name, r.Environment)
	return nil
}
