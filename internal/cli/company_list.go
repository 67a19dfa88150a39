package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

func newCompanyListCmd(env *Env) *cobra.Command {
	opts := statusOptions{env: env}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the companies, with and without authorization",
		Long: `Lists the companies with their state, who signed in, when the refresh token
expires and whom to contact. The filters are the same as those of upsauth status.`,
		Example: `  upsauth company list
  upsauth company list --state void,expired,unauthorized
  upsauth company list --company "Acme*" -o csv
  upsauth company list -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runCompanyList(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	outputFlag(cmd, &opts.Output, "", "table", "wide", "json", "csv")
	opts.addViewFlags(cmd)
	return cmd
}

// companyList is the JSON of upsauth company list.
type companyList struct {
	Version   int             `json:"version"`
	Companies []listedCompany `json:"companies"`
	// Problems are files that can't be read: there may be more.
	Problems []render.Problem `json:"problems,omitempty"`
}

type listedCompany struct {
	Company string        `json:"company"`
	Contact string        `json:"contact,omitempty"`
	Note    string        `json:"note,omitempty"`
	Grants  []listedGrant `json:"grants"`
}

type listedGrant struct {
	Application         string      `json:"application"`
	Environment         string      `json:"environment"`
	State               grant.State `json:"state"`
	User                *string     `json:"user"`
	Expires             *string     `json:"expires"`
	RefreshTokenExpires *string     `json:"refresh_token_expires"`
	ProbablyVoid        bool        `json:"probably_void,omitempty"`
	InvitedUntil        *string     `json:"invited_until,omitempty"`
}

func runCompanyList(ctx context.Context, opts statusOptions) error {
	view, err := opts.view()
	if err != nil {
		return err
	}
	if opts.Sort == "" {
		view.order = render.ByCompany
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := session.Matching(ctx, opts.Company, s.Listed)
	if err != nil {
		return err
	}
	all := list.Records
	if opts.Company != "" && len(all) == 0 {
		return s.NothingFits(ctx, opts.Target)
	}
	if err := s.CheckNames(ctx, list, opts.Application, opts.Environment); err != nil {
		return err
	}
	s.tellUnused(all)
	now := opts.env.Now()
	s.MarkVoid(ctx, all, opts.Company == "")
	if err := s.MarkInvited(ctx, all); err != nil {
		return err
	}
	records := view.keep(session.Filter(all, opts.Application, opts.Environment), now)
	if opts.Expiring != "" {
		records = session.EndingWithin(records, view.within, now)
	}
	render.SortRecords(records, view.order, now)
	switch opts.Output {
	case "json":
		list := newCompanyList(records, now)
		list.Problems = problemsOf(s.problems)
		return errors.Join(render.JSON(opts.env.Out, list), s.whole())
	case "csv":
		return errors.Join(render.CompaniesCSV(opts.env.Out, records, now, opts.Raw), s.whole())
	}
	switch {
	case len(records) > 0:
	case len(all) > 0:
		fmt.Fprintln(opts.env.Err, "No company matches these filters.")
		return s.whole()
	default:
		if err := s.whole(); err != nil {
			return err
		}
		fmt.Fprintln(opts.env.Err, "There are no companies. Begin with: upsauth authorize --company NAME")
		return nil
	}
	return errors.Join(render.StatusTable(opts.env.Out, records, render.View{
		Now: now, Zone: opts.env.Zone, Wide: opts.Output == "wide", Colour: wantsColour(opts.env),
		Width: opts.env.width(), TimeFormat: view.times, Companies: true,
	}), s.whole())
}

// newCompanyList has each company once, where its first grant stands.
func newCompanyList(records []grant.Record, now time.Time) companyList {
	list := companyList{Version: 1, Companies: []listedCompany{}}
	at := map[grant.Folded]int{}
	for i, g := range render.NewStatus(records, now).Grants {
		key := grant.Fold(records[i].Company)
		if _, ok := at[key]; !ok {
			at[key] = len(list.Companies)
			list.Companies = append(list.Companies, listedCompany{
				Company: records[i].Company, Contact: records[i].Contact, Note: records[i].Note, Grants: []listedGrant{},
			})
		}
		if records[i].TokenVaultKey == "" {
			continue
		}
		c := &list.Companies[at[key]]
		c.Grants = append(c.Grants, listedGrant{
			records[i].Application, records[i].Environment, g.State, g.User, g.Expires, g.RefreshTokenExpires, g.ProbablyVoid, g.InvitedUntil,
		})
	}
	return list
}
