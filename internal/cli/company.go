package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
)

func newCompanyCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "company",
		Short: "The company manager",
		Long: `The company manager: the companies with their authorizations, and those that
have none yet. A company is known once it is added, imported or authorized.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newCompanyListCmd(env, runCompanyList), newCompanyAddCmd(env, runCompanyAdd),
		newCompanyShowCmd(env, runCompanyShow), newCompanyRenameCmd(env, runCompanyRename),
		newCompanyRemoveCmd(env, runCompanyRemove), newCompanyImportCmd(env, runCompanyImport),
	)
	return cmd
}

// known lists grants as records does, and a record without grant for each
// company that has none and was added.
func (s *session) known(company string) ([]grant.Record, error) {
	records, err := s.records(company)
	if err != nil {
		return nil, err
	}
	names, problems, err := s.companies.List(company)
	if err != nil {
		return nil, err
	}
	for _, problem := range problems {
		fmt.Fprintf(s.env.Err, "Warning: %v\n", problem)
	}
	s.problems = append(s.problems, problems...)
	if len(names) == 0 {
		return records, nil
	}
	granted := map[string]bool{}
	for _, r := range records {
		granted[grant.Fold(r.Company)] = true
	}
	for _, name := range names {
		if !granted[grant.Fold(name)] && (company == "" || grant.Fold(name) == grant.Fold(company)) {
			records = append(records, grant.Record{ID: grant.ID{Company: name}})
		}
	}
	sortByName(records)
	return records, nil
}

// remembered is what known returns about one company, or a record without grant
// where it has only a history, and that. One of which nothing is known is an
// error.
func (s *session) remembered(name string) ([]grant.Record, []grant.Event, error) {
	records, err := s.known(name)
	if err != nil {
		return nil, nil, err
	}
	events, err := s.companies.History(name)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case len(records) == 0 && len(events) == 0:
		return nil, nil, s.noCompany(name)
	case len(records) == 0:
		records = []grant.Record{{ID: grant.ID{Company: events[len(events)-1].Company}}}
	}
	return records, events, nil
}

// withRemembered adds the companies of which only a history is left, after a
// revoke: they are on the list until they are removed.
func (s *session) withRemembered(records []grant.Record) ([]grant.Record, error) {
	names, problems, err := s.companies.Remembered()
	if err != nil {
		return nil, err
	}
	for _, problem := range problems {
		fmt.Fprintf(s.env.Err, "Warning: %v\n", problem)
	}
	s.problems = append(s.problems, problems...)
	there := map[string]bool{}
	for _, r := range records {
		there[grant.Fold(r.Company)] = true
	}
	for _, name := range names {
		if !there[grant.Fold(name)] {
			there[grant.Fold(name)] = true
			records = append(records, grant.Record{ID: grant.ID{Company: name}})
		}
	}
	sortByName(records)
	return records, nil
}

func sortByName(records []grant.Record) {
	render.SortRecords(records, render.ByCompany, time.Time{})
}

// companyOptions are those of the commands about companies by their names.
type companyOptions struct {
	env     *Env
	Names   []string
	Output  string
	Revoke  bool
	Yes     bool
	Verbose bool
}

func companyCmd(env *Env, use, short, example string, args cobra.PositionalArgs, run func(context.Context, companyOptions) error) (*cobra.Command, *companyOptions) {
	opts := &companyOptions{env: env}
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Names, opts.Verbose = args, verbose(cmd)
			return run(cmd.Context(), *opts)
		},
	}, opts
}
