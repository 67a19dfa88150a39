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

func runAppSetDefault(_ context.Context, opts appOptions) error {
	s, r, err := findApp(opts)
	if err != nil {
		return err
	}
	defer s.Close()
	err = config.UpdateApplications(s.Config.Paths.Config, func(a *config.Applications) error {
		a.Default = &config.Default{Application: r.Name, Environment: r.Environment}
		return nil
	})
	if err != nil {
		return err
	}
	opts.env.tell("%s for %s is the default application now.\n", r.Name, r.Environment)
	return nil
}
