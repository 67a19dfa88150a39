package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newCompanyCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "company",
		Short: "The company manager",
		Long: `The company manager lists the companies with their authorizations, and those that
have none yet. upsauth knows a company once it is added, imported or authorized.`,
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
