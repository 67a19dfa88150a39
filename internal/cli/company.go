package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/vault"
)

func newCompanyCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "company",
		Short: "The company manager",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCompanyListCmd(env, runCompanyList), newCompanyRenameCmd(env, runCompanyRename))
	return cmd
}

type companyListOptions struct {
	env     *Env
	Output  string
	Verbose bool
}

func newCompanyListCmd(env *Env, run func(context.Context, companyListOptions) error) *cobra.Command {
	opts := companyListOptions{env: env}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the companies",
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
	Version   int       `json:"version"`
	Companies []company `json:"companies"`
}

type company struct {
	Company string         `json:"company"`
	Grants  []companyGrant `json:"grants"`
}

type companyGrant struct {
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
	records, err := s.records("")
	if err != nil {
		return err
	}
	list := companyList{Version: 1, Companies: []company{}}
	last := ""
	for _, r := range records {
		if key := grant.Fold(r.Company); key != last || len(list.Companies) == 0 {
			list.Companies = append(list.Companies, company{Company: r.Company})
			last = key
		}
		c := &list.Companies[len(list.Companies)-1]
		c.Grants = append(c.Grants, companyGrant{r.Application, r.Environment, r.StateAt(opts.env.Now())})
	}
	if opts.Output == "json" {
		return render.JSON(opts.env.Out, list)
	}
	if len(list.Companies) == 0 {
		fmt.Fprintln(opts.env.Err, "There are no companies. Begin with: upsauth authorize --company NAME")
		return nil
	}
	var lines [][]string
	for _, c := range list.Companies {
		for _, g := range c.Grants {
			lines = append(lines, []string{c.Company, g.Application, g.Environment, string(g.State)})
		}
	}
	return render.Table(opts.env.Out, []string{"COMPANY", "APPLICATION", "ENVIRONMENT", "STATE"}, lines)
}

type companyRenameOptions struct {
	env      *Env
	Old, New string
	Verbose  bool
}

func newCompanyRenameCmd(env *Env, run func(context.Context, companyRenameOptions) error) *cobra.Command {
	opts := companyRenameOptions{env: env}
	return &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Give a company another name; its authorizations stay",
		Example: `  upsauth company rename "Acme Corp" "Acme Incorporated"
  upsauth company rename "acme corp" "ACME Corp"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("the old and the new name are needed: %s\n  See: %s --help", cmd.UseLine(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Old, opts.New, opts.Verbose = args[0], args[1], verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
}

func runCompanyRename(ctx context.Context, opts companyRenameOptions) error {
	name, err := grant.CleanCompany(opts.New)
	if err != nil {
		return usagef("%v", err)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	records, err := s.records(opts.Old)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return s.noCompany(opts.Old)
	}
	// Said before anything is renamed, so that no company ends up in halves.
	for _, r := range records {
		taken := grant.ID{Company: name, Application: r.Application, Environment: r.Environment}
		if taken.Slot() == r.Slot() {
			continue
		}
		there, err := s.records(name)
		if err != nil {
			return err
		}
		if len(filter(there, r.Application, r.Environment)) > 0 {
			return &vault.TakenError{ID: taken}
		}
	}
	interrupted := slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool { return !r.Interrupted })
	if err := s.open(ctx, false, ids(interrupted)...); err != nil {
		return err
	}
	for _, r := range records {
		if err := s.keeper.Rename(ctx, r.ID, name); err != nil {
			return err
		}
	}
	fmt.Fprintf(opts.env.Out, "%s is called %s now.\n", records[0].Company, name)
	return nil
}
