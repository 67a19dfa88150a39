package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault"
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

A name that another company has is refused. With --merge the two become one
company of that name, with the authorizations and the history of both. Where
both have an authorization for the same application and environment, one has to
be removed first.`,
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
	cmd.Flags().BoolVar(&opts.Merge, "merge", false, "make one company of the two where NEW is another company")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runCompanyRename(ctx context.Context, opts companyRenameOptions) error {
	name, err := typedCompany(opts.env, opts.New)
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
	old := records[0].Company
	if old == name {
		opts.env.tell("%s is called that already.\n", legible.Line(name))
		return nil
	}
	grants := authorized(records)
	// Said before anything is renamed, so that no company ends up in halves.
	other, err := s.otherCompany(old, name)
	switch {
	case err != nil:
		return err
	case other == nil && opts.Merge:
		return s.noCompany(name)
	case other == nil:
		err = s.askAboutNear(ctx, []string{name}, old, opts.Yes)
	default:
		name = other.name
		err = opts.mayMerge(ctx, old, grants, *other)
	}
	if err != nil {
		return err
	}
	// What can't be read may be a grant of either.
	if err := s.unread(old); err != nil {
		return err
	}
	if err := s.unread(name); err != nil {
		return err
	}
	interrupted := slices.DeleteFunc(slices.Clone(grants), func(r grant.Record) bool { return !r.Interrupted })
	if err := s.open(ctx, false, interrupted...); err != nil {
		return err
	}
	work, err := s.vault.Announce(ctx, vault.Work{Kind: vault.WorkRename, Company: records[0].Company, To: name, Keys: keysOf(grants)})
	if err != nil {
		return err
	}
	for i, r := range grants {
		if err := s.keeper.Rename(ctx, r.ID, name); err != nil {
			if i == 0 {
				work.Done() // nothing was begun
			} else {
				work.Leave()
			}
			return err
		}
	}
	// Last, so that a rename that fails can be made again.
	if err := s.companies.Rename(old, name, s.env.Now()); err != nil {
		work.Leave()
		return err
	}
	work.Done()
	if other != nil {
		opts.env.tell("Merged %s into %s.\n", legible.Line(old), legible.Line(name))
		return nil
	}
	opts.env.tell("%s is called %s now.\n", legible.Line(old), legible.Line(name))
	return nil
}

// authorized leaves the records of grants.
func authorized(records []grant.Record) []grant.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool { return r.TokenVaultKey == "" })
}

// companyInTheWay is another company that has the name already.
type companyInTheWay struct {
	name   string
	grants []grant.Record
	// begun says that an earlier rename from the old name was cut off.
	begun bool
}

// otherCompany finds the company that has a name already, nil where none has but the
// old one itself, in another spelling.
func (s *session) otherCompany(old, name string) (*companyInTheWay, error) {
	records, events, err := s.remembered(name)
	if errors.As(err, new(*notFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	other := companyInTheWay{name: records[0].Company, grants: authorized(records)}
	if grant.CompanySlot(other.name) == grant.CompanySlot(old) {
		return nil, nil
	}
	other.begun = len(events) > 0 && events[0].What == grant.EventRenamed && events[0].Detail == "it was called "+old
	return &other, nil
}

// mayMerge asks whether two companies are to be one, after naming what they have.
func (opts companyRenameOptions) mayMerge(ctx context.Context, old string, grants []grant.Record, other companyInTheWay) error {
	if other.begun {
		return nil
	}
	if !opts.Merge {
		return fmt.Errorf("%s exists already, and was left as it is; choose another name, or add --merge to make one company of the two", legible.Line(other.name))
	}
	for _, r := range grants {
		if both := filter(other.grants, r.Application, r.Environment); len(both) > 0 {
			return fmt.Errorf("%s and %s both have an authorization for %s in %s, and one company can have only one; nothing was changed. Remove the one that is not needed: %s, or %s",
				legible.Line(old), legible.Line(other.name), r.Application, r.Environment, companyCommand("revoke", r.ID), companyCommand("revoke", both[0].ID))
		}
	}
	has := func(name string, records []grant.Record) {
		what := "no authorization"
		if len(records) > 0 {
			what = listed(records)
		}
		fmt.Fprintf(opts.env.Err, "%s has: %s\n", name, what)
	}
	has(old, grants)
	has(other.name, other.grants)
	return confirm(ctx, opts.env, fmt.Sprintf("Make one company of the two, called %s?", legible.Line(other.name)), opts.Yes)
}
