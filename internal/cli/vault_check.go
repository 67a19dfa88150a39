package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type vaultCheckOptions struct {
	env     *Env
	Repair  bool
	Yes     bool
	Output  string
	Verbose bool
}

func newVaultCheckCmd(env *Env) *cobra.Command {
	opts := vaultCheckOptions{env: env}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that every company has its secrets, and every secret its company",
		Long: `Opens the secrets of every company and every application, and looks for secrets
that no record speaks of, as far as the home can list them: the file vault, and
the keychains of Linux, the BSDs and Windows.

Tries what a refresh needs of this machine, too: a lock, a journal and a record,
which are removed again. What was cut off is finished or cleared away. With
--repair, records that are missing are made anew out of the secrets. Probes of no
company are removed, and so are client secrets of no application in the file vault.`,
		Example: `  upsauth vault check
  upsauth vault check --repair`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultCheck(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Repair, "repair", false, "make missing records anew, remove what is nobody's")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	outputFlag(cmd, &opts.Output, "a line for each finding", "json")
	return cmd
}

func runVaultCheck(ctx context.Context, opts vaultCheckOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	c := &vaultCheck{s: s, repair: opts.Repair, yes: opts.Yes}
	if c.registered, err = s.Applications(); err != nil {
		return err
	}
	if c.state(s) {
		c.leftovers(ctx, s)
	}
	if c.survey, err = s.Vault.Survey(""); err != nil {
		return err
	}
	// What is repaired is found to be whole after it.
	looks := []func(context.Context) error{c.grants, c.applications, c.orphans}
	if c.stateErr == nil {
		c.finishRemovals(ctx, s.Vault, c.survey.Records)
		c.finishLogins(ctx, s)
	}
	if opts.Repair {
		looks = []func(context.Context) error{c.orphans, c.again, c.grants, c.applications}
	}
	for _, look := range looks {
		if err := look(ctx); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.report(opts.env, opts.Output)
}
