package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

func newCompanyAddCmd(env *Env, run func(context.Context, companyOptions) error) *cobra.Command {
	cmd, _ := companyCmd(env, "add NAME...", "Make companies known that are to be authorized",
		`  upsauth company add "Acme Corp" "Nord AG"`, func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("the company's NAME is missing\n  See: %s --help", cmd.CommandPath())
			}
			return nil
		}, run)
	return cmd
}

func runCompanyAdd(ctx context.Context, opts companyOptions) error {
	var names []string
	for _, text := range opts.Names {
		name, err := typedCompany(opts.env, text)
		if err != nil {
			return usagef("%v", err)
		}
		names = append(names, name)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.askAboutNear(ctx, names, "", false); err != nil {
		return err
	}
	_, err = s.addCompanies(names, true)
	return err
}

// addCompanies makes companies known, and returns how many were not before.
func (s *session) addCompanies(names []string, tell bool) (added int, err error) {
	there, err := s.known("")
	if err != nil {
		return 0, err
	}
	known := map[string]string{}
	for _, r := range there {
		known[grant.Fold(r.Company)] = r.Company
	}
	for _, name := range names {
		old, ok := known[grant.Fold(name)]
		text := fmt.Sprintf("%s is known already.", legible.Line(old))
		if !ok {
			fresh, err := s.companies.Add(name, s.env.Now())
			if err != nil {
				return added, err
			}
			text, known[grant.Fold(name)] = fmt.Sprintf("%s is known already.", name), name
			if fresh {
				s.keeper.Happened(grant.Event{Time: s.env.Now().UTC(), What: grant.EventAdded, ID: grant.ID{Company: name}})
				added++
				text = fmt.Sprintf("Added %s.", name)
			}
		}
		if tell {
			fmt.Fprintln(s.env.Out, text)
		}
	}
	return added, nil
}
