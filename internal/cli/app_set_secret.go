package cli

import (
	"context"

	"github.com/spf13/cobra"
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
	if err := s.SetSecret(ctx, r, secret); err != nil {
		return err
	}
	opts.env.tell("Replaced the client secret of the application %s for %s.\n", r.Name, r.Environment)
	return nil
}
