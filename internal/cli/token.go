package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/render"
)

type tokenOptions struct {
	target
	env      *Env
	Output   string
	MinValid time.Duration
}

func newTokenCmd(env *Env) *cobra.Command {
	opts := tokenOptions{env: env}
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a valid access token, refreshing it when needed",
		Long: `Prints one access token and a newline, for use in a script. The token is valid for
at least --min-valid. If the saved token expires sooner, upsauth refreshes it
first. If several processes ask at the same time, only one of them refreshes.`,
		Example: `  TOKEN=$(upsauth token --company "Acme Corp" --min-valid 10m)
  upsauth token --company "Acme Corp" --min-valid 30m
  upsauth token --company "Acme Corp" -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runToken(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	outputFlag(cmd, &opts.Output, "the token alone", "json")
	cmd.Flags().Var(newSpan(&opts.MinValid, 5*time.Minute), "min-valid", "how long the token must stay valid")
	return cmd
}

func runToken(ctx context.Context, opts tokenOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	g, err := s.token(ctx, opts.target, opts.MinValid)
	if err != nil {
		return err
	}
	if opts.Output == "json" {
		return render.JSON(opts.env.Out, render.NewToken(g))
	}
	_, err = fmt.Fprintln(opts.env.Out, g.AccessToken)
	return err
}
