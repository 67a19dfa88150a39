package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

type companyRenameOptions struct {
	env      *Env
	Old, New string
	Verbose  bool
}

func newCompanyRenameCmd(env *Env, run func(context.Context, companyRenameOptions) error) *cobra.Command {
	opts := companyRenameOptions{env: env}
	return &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Give a company another name; its authorizations stay",
		Example: `  upsauth company rename "Acme Corp" "Acme Incorporated"
  upsauth company rename "acme corp" "ACME Corp"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("the old and the new name are needed: %s\n  See: %s --help", cmd.UseLine(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Old, opts.New, opts.Verbose = args[0], args[1], verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
}

func runCompanyRename(ctx context.Context, opts companyRenameOptions) error {
	name, err := grant.CleanCompany(opts.New)
	if err != nil {
		return usagef("%v", err)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	records, _, err := s.remembered(opts.Old)
	if err != nil {
		return err
	}
	if records[0].Company == name {
		fmt.Fprintf(opts.env.Out, "%s is called that already.\n", name)
		return nil
	}
	grants := slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool { return r.TokenVaultKey == "" })
	// Said before anything is renamed, so that no company ends up in halves.
	there, err := s.known(name)
	if err != nil {
		return err
	}
	for _, r := range there {
		if grant.Fold(name) != grant.Fold(opts.Old) && r.TokenVaultKey != "" && len(filter(grants, r.Application, r.Environment)) > 0 {
			return &vault.TakenError{ID: r.ID}
		}
	}
	// What can't be read may be a grant of either.
	if err := s.unread(opts.Old); err != nil {
		return err
	}
	if err := s.unread(name); err != nil {
		return err
	}
	interrupted := slices.DeleteFunc(slices.Clone(grants), func(r grant.Record) bool { return !r.Interrupted })
	if err := s.open(ctx, false, interrupted...); err != nil {
		return err
	}
	for _, r := range grants {
		if err := s.keeper.Rename(ctx, r.ID, name); err != nil {
			return err
		}
	}
	// Last, so that a rename that fails can be made again.
	if err := s.companies.Rename(opts.Old, name, s.env.Now()); err != nil {
		return err
	}
	fmt.Fprintf(opts.env.Out, "%s is called %s now.\n", records[0].Company, name)
	return nil
}
