package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

func newCompanyAddCmd(env *Env, run func(context.Context, companyOptions) error) *cobra.Command {
	cmd, opts := companyCmd(env, "add NAME...", "Make companies known that are to be authorized, or change their contact and note",
		`  upsauth company add "Acme Corp" "Nord AG"
  upsauth company add "Acme Corp" --contact "Jane Doe, +49 431 1234567" --note "signs in on Mondays"
  upsauth company add "Acme Corp" --note ""`, func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("the company's NAME is missing\n  See: %s --help", cmd.CommandPath())
			}
			return nil
		}, run)
	cmd.Long = `Makes companies known that are to be authorized. Of a company that is known
already, --contact and --note change what is kept; an empty one takes it away.
The contact is shown wherever somebody has to ring the company.`
	opts.Details.addFlags(cmd)
	return cmd
}

// companyDetails are a contact and a note, nil for what stays as it is.
type companyDetails struct{ contact, note *string }

func (d *companyDetails) addFlags(cmd *cobra.Command) {
	contact := cmd.Flags().String("contact", "", "whom to ring when the company has to be authorized: a name, a number, an address")
	note := cmd.Flags().String("note", "", "what else is to be known about the company")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, detail := range []struct {
			name string
			text *string
			to   **string
		}{{"contact", contact, &d.contact}, {"note", note, &d.note}} {
			if !cmd.Flags().Changed(detail.name) {
				continue
			}
			text, err := company.CleanDetail(detail.name, *detail.text)
			if err != nil {
				return usagef("%v", err)
			}
			*detail.to = &text
		}
		return run(cmd, args)
	}
}

func (d companyDetails) none() bool { return d.contact == nil && d.note == nil }

func (d companyDetails) change(details *company.Details) {
	if d.contact != nil {
		details.Contact = *d.contact
	}
	if d.note != nil {
		details.Note = *d.note
	}
}

// newCompany is a company to be made known.
type newCompany struct {
	name string
	companyDetails
}

// namesOf are the names of new companies.
func namesOf(companies []newCompany) []string {
	var names []string
	for _, c := range companies {
		names = append(names, c.name)
	}
	return names
}

func runCompanyAdd(ctx context.Context, opts companyOptions) error {
	var companies []newCompany
	for _, text := range opts.Names {
		name, err := typedCompany(opts.env, text)
		if err != nil {
			return usagef("%v", err)
		}
		companies = append(companies, newCompany{name, opts.Details})
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.askAboutNear(ctx, namesOf(companies), "", false); err != nil {
		return err
	}
	s.settleWork(ctx) // a removal that was cut off is of the company as it was
	_, _, err = s.addCompanies(ctx, companies, true)
	return err
}

// addCompanies makes companies known, and returns how many were not before, and
// of how many that were the contact or the note is another now.
func (s *session) addCompanies(ctx context.Context, companies []newCompany, tell bool) (added, changed int, err error) {
	there, err := s.known("")
	if err != nil {
		return 0, 0, err
	}
	known := map[string]string{}
	for _, r := range there {
		known[grant.Fold(r.Company)] = r.Company
	}
	for _, c := range companies {
		name, ok := known[grant.Fold(c.name)]
		text := fmt.Sprintf("%s is known already.", legible.Line(name))
		if !ok {
			name = c.name
			fresh, err := s.companies.Add(name, s.env.Now())
			if err != nil {
				return added, changed, err
			}
			text, known[grant.Fold(name)] = fmt.Sprintf("%s is known already.", name), name
			if fresh {
				s.keeper.Happened(ctx, grant.Event{Time: s.env.Now().UTC(), What: grant.EventAdded, ID: grant.ID{Company: name}})
				added++
				text = fmt.Sprintf("Added %s.", name)
			}
			ok = !fresh
		}
		if !c.none() {
			different, err := s.companies.Describe(name, s.env.Now(), c.change)
			if err != nil {
				return added, changed, err
			}
			if different && ok {
				changed++
				text = fmt.Sprintf("Changed what is known of %s.", name)
			}
		}
		if tell {
			fmt.Fprintln(s.env.Out, text)
		}
	}
	return added, changed, nil
}
