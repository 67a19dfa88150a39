package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
)

type companyRenameOptions struct {
	env      *Env
	Old, New string
	Merge    bool
	Yes      bool
	Verbose  bool
}

func newCompanyRenameCmd(env *Env) *cobra.Command {
	opts := companyRenameOptions{env: env}
	cmd := &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Give a company another name; its authorizations stay",
		Long: `Gives a company another name. Its authorizations and its history stay.

If another company already has the new name, nothing is changed. --merge merges
the two, with all their authorizations and history. If both have an
authorization for the same application and environment, revoke one of them first.`,
		Example: `  upsauth company rename "Acme Corp" "Acme Incorporated"
  upsauth company rename "acme corp" "ACME Corp"
  upsauth company rename "Acme Corp" "Nord AG" --merge`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("the old and the new name are needed: %s\n  See: %s --help", cmd.UseLine(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Old, opts.New, opts.Verbose = args[0], args[1], verbose(cmd)
			return runCompanyRename(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Merge, "merge", false, "if another company is called NEW, merge the two companies into one")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runCompanyRename(ctx context.Context, opts companyRenameOptions) error {
	name, err := typedCompany(opts.env, opts.New)
	if err != nil {
		return usagef("%v", err)
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.FinishRemovals(ctx)
	plan, err := s.PlanRename(ctx, opts.Old, name)
	var clash *session.ClashError
	switch {
	case err != nil && !errors.As(err, &clash):
		return err
	case plan.Nothing():
		opts.env.tell("The company is already called %s.\n", legible.Line(name))
		return nil
	case plan.Other == nil && opts.Merge:
		return s.NoCompany(ctx, name)
	case plan.Other == nil:
		err = s.askNear(ctx, plan.Near, opts.Yes)
	case plan.Merges() && !opts.Merge:
		return fmt.Errorf("%s already exists. Choose another name, or add --merge to merge the two companies", legible.Line(plan.New))
	case err != nil:
		return err
	case plan.Merges():
		err = opts.askToMerge(ctx, plan)
	}
	if err != nil {
		return err
	}
	old, name := plan.Old, plan.New
	if err := s.Rename(ctx, old, plan.Grants, name); err != nil {
		return err
	}
	if plan.Other != nil {
		opts.env.tell("Merged %s into %s.\n", legible.Line(old), legible.Line(name))
		return nil
	}
	opts.env.tell("%s is called %s now.\n", legible.Line(old), legible.Line(name))
	return nil
}

// askToMerge asks whether two companies are to be one, after naming what they have.
func (opts companyRenameOptions) askToMerge(ctx context.Context, plan session.Renaming) error {
	has := func(name string, records []grant.Record) {
		what := "no authorization"
		if len(records) > 0 {
			what = listed(session.IDs(records))
		}
		fmt.Fprintf(opts.env.Err, "%s has: %s\n", name, what)
	}
	has(plan.Old, plan.Grants)
	has(plan.New, plan.Other.Grants)
	return confirm(ctx, opts.env, fmt.Sprintf("Merge the two companies into one, called %s?", legible.Line(plan.New)), opts.Yes)
}
