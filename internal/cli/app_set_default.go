package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
)

func newAppSetDefaultCmd(env *Env) *cobra.Command {
	cmd, _ := appCmd(env, "set-default", "Choose the application that commands use when several match", "  upsauth app set-default intelligent-rating --env production", runAppSetDefault)
	return cmd
}

func runAppSetDefault(ctx context.Context, opts appOptions) error {
	s, r, err := findApp(ctx, opts)
	if err != nil {
		return err
	}
	defer s.Close()
	err = s.UpdateApplications(ctx, func(a *config.Applications) {
		a.Default = &config.Default{Application: r.Name, Environment: r.Environment}
	})
	if err != nil {
		return err
	}
	opts.env.tell("%s for %s is the default application now.\n", r.Name, r.Environment)
	return nil
}
