package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
)

type companyListOptions struct {
	env     *Env
	Output  string
	Verbose bool
}

func newCompanyListCmd(env *Env, run func(context.Context, companyListOptions) error) *cobra.Command {
	opts := companyListOptions{env: env}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the companies, also those without authorization",
		Example: `  upsauth company list
  upsauth company list -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "table or json")
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
	Grants  []listedGrant `json:"grants"`
}

type listedGrant struct {
	Application string      `json:"application"`
	Environment string      `json:"environment"`
	State       grant.State `json:"state"`
}

func runCompanyList(_ context.Context, opts companyListOptions) error {
	if opts.Output != "" && opts.Output != "table" && opts.Output != "json" {
		return usagef("%q is no output format of company list: it is table or json", opts.Output)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	records, err := s.known("")
	if err != nil {
		return err
	}
	if records, err = s.withRemembered(records); err != nil {
		return err
	}
	list := companyList{Version: 1, Companies: []listedCompany{}}
	last := ""
	var lines [][]string
	for _, r := range records {
		if key := grant.Fold(r.Company); key != last || len(list.Companies) == 0 {
			list.Companies = append(list.Companies, listedCompany{Company: r.Company, Grants: []listedGrant{}})
			last = key
		}
		state := r.StateAt(opts.env.Now())
		if r.TokenVaultKey != "" {
			c := &list.Companies[len(list.Companies)-1]
			c.Grants = append(c.Grants, listedGrant{r.Application, r.Environment, state})
		}
		lines = append(lines, []string{r.Company, orElse(r.Application, "-"), orElse(r.Environment, "-"), string(state)})
	}
	list.Problems = problemsOf(s.problems)
	if opts.Output == "json" {
		return errors.Join(render.JSON(opts.env.Out, list), s.whole())
	}
	if len(list.Companies) == 0 {
		if err := s.whole(); err != nil {
			return err
		}
		fmt.Fprintln(opts.env.Err, "There are no companies. Begin with: upsauth authorize --company NAME")
		return nil
	}
	return errors.Join(render.Table(opts.env.Out, []string{"COMPANY", "APPLICATION", "ENVIRONMENT", "STATE"}, lines), s.whole())
}
