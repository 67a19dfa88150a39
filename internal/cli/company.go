package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
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
		newCompanyListCmd(env), newCompanyAddCmd(env),
		newCompanyShowCmd(env), newCompanyRenameCmd(env),
		newCompanyRemoveCmd(env), newCompanyImportCmd(env),
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
	companies, problems, err := s.companies.List(company)
	if err != nil {
		return nil, err
	}
	for _, problem := range problems {
		fmt.Fprintf(s.env.Err, "Warning: %v\n", problem)
	}
	s.problems = append(s.problems, problems...)
	if len(companies) == 0 {
		return records, nil
	}
	granted := map[string][]int{}
	for i, r := range records {
		granted[grant.CompanySlot(r.Company)] = append(granted[grant.CompanySlot(r.Company)], i)
	}
	renamed := s.renamed()
	for _, c := range companies {
		// A renaming that was cut off is finished by the next command that changes
		// something. A person who names the old name means it.
		if company == "" && renamed[grant.Fold(c.Name)] {
			continue
		}
		grants := granted[grant.CompanySlot(c.Name)]
		for _, i := range grants {
			records[i].Contact, records[i].Note = c.Contact, c.Note
		}
		if len(grants) == 0 && (company == "" || grant.Fold(c.Name) == grant.Fold(company)) {
			records = append(records, grant.Record{ID: grant.ID{Company: c.Name}, Found: grant.Found{Contact: c.Contact, Note: c.Note}})
		}
	}
	sortByName(records)
	if company == "" {
		s.warnOfTwins(records)
		return records, nil
	}
	return nearestSpelling(records, company), nil
}

// nearestSpelling leaves one company where several look the same: the one that is
// called just as it was typed, else just as it is seen.
func nearestSpelling(records []grant.Record, typed string) []grant.Record {
	for _, spelling := range grant.Spellings(typed) {
		slot := grant.CompanySlot(spelling)
		other := func(r grant.Record) bool { return grant.CompanySlot(r.Company) != slot }
		if just := slices.DeleteFunc(slices.Clone(records), other); len(just) > 0 {
			return just
		}
	}
	return records
}

// warnOfTwins tells of companies whose names look the same: earlier versions kept
// characters that nobody sees.
func (s *session) warnOfTwins(records []grant.Record) {
	first := map[string]string{}
	for _, r := range records {
		key := grant.Fold(r.Company)
		other, there := first[key]
		if !there {
			first[key] = r.Company
			continue
		}
		if other == r.Company || grant.CompanySlot(other) == grant.CompanySlot(r.Company) {
			continue
		}
		odd := r.Company
		if len(legible.Hidden(odd)) == 0 {
			odd = other
		}
		first[key] = odd // told once
		fmt.Fprintf(s.env.Err, "Warning: two companies are called %q; the name of one has characters in it that nobody sees (%s). Give that one another name: upsauth company rename %s NEW\n",
			legible.Line(odd), codePoints(legible.Hidden(odd)), quotedCodePoints(odd))
	}
}

// remembered is what known returns about one company, or a record without grant
// where it has only a history, and that. One of which nothing is known is an
// error.
func (s *session) remembered(name string) ([]grant.Record, []grant.Event, error) {
	records, err := s.known(name)
	if err != nil {
		return nil, nil, err
	}
	// The company's own way to write its name has the history.
	spellings := grant.Spellings(name)
	if len(records) > 0 {
		spellings = []string{records[0].Company}
	}
	var events []grant.Event
	for _, spelling := range spellings {
		if events, err = s.companies.History(spelling); err != nil {
			return nil, nil, err
		}
		if len(events) > 0 {
			break
		}
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
	renamed := s.renamed()
	for _, name := range names {
		if renamed[grant.Fold(name)] {
			continue
		}
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
	Details companyDetails
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

// contact is whom to ring about a company, empty where nobody is known.
func (s *session) contact(company string) string {
	companies, _, err := s.companies.List(company)
	if err != nil || len(companies) != 1 {
		return "" // told by whoever needs more than this
	}
	return companies[0].Contact
}

// contactError is the error of a grant that only a person brings back, with whom
// to ring.
type contactError struct {
	error
	contact string
}

func (e *contactError) Unwrap() error { return e.error }

func withContact(err error, contact string) error {
	if contact == "" {
		return err
	}
	return &contactError{err, contact}
}

// withContact adds whom to ring where the company has to be authorized again.
func (s *session) withContact(err error) error {
	var gone *keeper.GoneError
	if !errors.As(err, &gone) {
		return err
	}
	return withContact(err, s.contact(gone.ID.Company))
}
