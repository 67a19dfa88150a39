package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
)

func newCompanyAddCmd(env *Env) *cobra.Command {
	cmd, opts := companyCmd(env, "add NAME...", "Add companies to authorize, or change their contact and note",
		`  upsauth company add "Acme Corp" "Nord AG"
  upsauth company add "Acme Corp" --contact "Jane Doe, +49 431 1234567" --note "signs in on Mondays"
  upsauth company add "Acme Corp" --note ""`, func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("the company's NAME is missing\n  See: %s --help", cmd.CommandPath())
			}
			return nil
		}, runCompanyAdd)
	cmd.Long = `Adds companies that will be authorized. If a company is already known, --contact
and --note replace its contact and its note; an empty value removes them. upsauth
shows the contact wherever somebody has to contact the company.`
	opts.Details.addFlags(cmd)
	return cmd
}

// companyDetails are a contact and a note, nil for what stays as it is.
type companyDetails struct{ contact, note *string }

func (d *companyDetails) addFlags(cmd *cobra.Command) {
	contact := cmd.Flags().String("contact", "", "whom to contact when the company must be authorized: a name, a phone number, an address")
	note := cmd.Flags().String("note", "", "what else colleagues should know about the company")
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

// namesOf are the names of new companies.
func namesOf(companies []company.New) []string {
	var names []string
	for _, c := range companies {
		names = append(names, c.Name)
	}
	return names
}

func runCompanyAdd(ctx context.Context, opts companyOptions) error {
	var companies []company.New
	for _, text := range opts.Names {
		name, err := typedCompany(opts.env, text)
		if err != nil {
			return usagef("%v", err)
		}
		companies = append(companies, company.New{Name: name, Contact: opts.Details.contact, Note: opts.Details.note})
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.askAboutNear(ctx, namesOf(companies), "", false); err != nil {
		return err
	}
	s.FinishAndTell(ctx) // a removal that was cut off is of the company as it was
	return s.AddCompanies(ctx, companies, func(name string, o session.Outcome) {
		switch o {
		case session.Added:
			opts.env.tell("Added %s.\n", name)
		case session.Changed:
			opts.env.tell("Changed the contact or the note of %s.\n", name)
		default:
			opts.env.tell("%s is known already.\n", legible.Line(name))
		}
	})
}
