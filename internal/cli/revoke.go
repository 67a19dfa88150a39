package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

type revokeOptions struct {
	target
	env *Env
	Yes bool
}

func newRevokeCmd(env *Env, run func(context.Context, revokeOptions) error) *cobra.Command {
	opts := revokeOptions{env: env}
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Remove a company's authorization from this machine (REMOVE AUTH)",
		Long: `Removes a company's tokens from the vault, and their record.

UPS has no endpoint to revoke a token: what was issued stays valid until it
ends. Changing the ups.com password of the person who signed in voids it at
once.`,
		Example: `  upsauth revoke --company "Acme Corp"
  upsauth revoke --company "Acme Corp" --yes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runRevoke(ctx context.Context, opts revokeOptions) error {
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	finished := s.finishRemovals(ctx)
	id, err := s.pick(ctx, opts.target)
	if errors.As(err, new(*notFoundError)) && len(filterIDs(finished, opts.target)) > 0 {
		fmt.Fprintf(opts.env.Out, "Finished an earlier removal of the authorization of %s.\n", opts.Company)
		return nil
	}
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Remove the authorization of %s from this machine?", id)
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	if err := s.keeper.Revoke(ctx, id); err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "Removed the authorization of %s and its tokens.\n", id)
	fmt.Fprintln(opts.env.Err, "UPS has no way to revoke a token: what was issued stays valid until it ends.\n"+
		"To void it at once, the person who signed in changes the ups.com password.")
	return nil
}
