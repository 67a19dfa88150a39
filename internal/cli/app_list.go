package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/render"
)

func newAppListCmd(env *Env) *cobra.Command {
	opts := appOptions{env: env}
	cmd := &cobra.Command{
		Use: "list", Short: "List the registered applications",
		Example: "  upsauth app list\n  upsauth app list -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runAppList(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "", "table", "json")
	return cmd
}

// appList is the JSON of upsauth app list.
type appList struct {
	Version      int                   `json:"version"`
	Applications []config.Registration `json:"applications"`
}

func runAppList(ctx context.Context, opts appOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	applications, err := s.Applications(ctx)
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
	return render.Table(opts.env.Out, []string{"APPLICATION", "ENVIRONMENT", "CLIENT ID", "REDIRECT URI", "DEFAULT"}, lines, opts.env.width())
}
