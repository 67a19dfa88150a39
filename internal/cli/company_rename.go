package cli

import (
	"context"
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
	list, _, err := s.Remembered(ctx, opts.Old)
	if err != nil {
		return err
	}
	old := list.Records[0].Company
	if old == name {
		opts.env.tell("The company is already called %s.\n", legible.Line(name))
		return nil
	}
	grants := session.Authorized(list.Records)
	// Said before anything is renamed, so that no company ends up in halves.
	other, err := s.Other(ctx, old, name)
	switch {
	case err != nil:
		return err
	case other == nil && opts.Merge:
		return s.NoCompany(ctx, name)
	case other == nil:
		err = s.askAboutNear(ctx, []string{name}, old, opts.Yes)
	default:
		name = other.Name
		err = opts.mayMerge(ctx, old, grants, *other)
	}
	if err != nil {
		return err
	}
	if err := s.Rename(ctx, old, grants, name); err != nil {
		return err
	}
	if other != nil {
		opts.env.tell("Merged %s into %s.\n", legible.Line(old), legible.Line(name))
		return nil
	}
	opts.env.tell("%s is called %s now.\n", legible.Line(old), legible.Line(name))
	return nil
}

// mayMerge asks whether two companies are to be one, after naming what they have.
func (opts companyRenameOptions) mayMerge(ctx context.Context, old string, grants []grant.Record, other session.InTheWay) error {
	if other.Begun {
		return nil
	}
	if !opts.Merge {
		return fmt.Errorf("%s already exists. Choose another name, or add --merge to merge the two companies", legible.Line(other.Name))
	}
	if err := session.Clash(grants, other.Grants); err != nil {
		return err
	}
	has := func(name string, records []grant.Record) {
		what := "no authorization"
		if len(records) > 0 {
			what = listed(session.IDs(records))
		}
		fmt.Fprintf(opts.env.Err, "%s has: %s\n", name, what)
	}
	has(old, grants)
	has(other.Name, other.Grants)
	return confirm(ctx, opts.env, fmt.Sprintf("Merge the two companies into one, called %s?", legible.Line(other.Name)), opts.Yes)
}
