package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type doctorOptions struct {
	env     *Env
	Output  string
	Verbose bool
}

func newDoctorCmd(env *Env) *cobra.Command {
	opts := doctorOptions{env: env}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong here, and what to do about it",
		Long: `Looks at the configuration, the applications, the vault, the browser, the
callback ports, the way to UPS and the grants, and tries what a refresh needs of
this machine: a lock, a journal, a record and a secret, which are removed again.
Each line is ok, warning or failure, with the remedy; what fails for one cause is
told once. Exchanges with UPS and removals that were cut off are finished, and what
else a killed command left is finished or cleared away.`,
		Example: "  upsauth doctor\n  upsauth doctor -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runDoctor(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "a line for each check", "json")
	return cmd
}

func runDoctor(ctx context.Context, opts doctorOptions) error {
	d := &doctor{}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		d.fail("configuration", err)
		return d.report(opts.env, opts.Output)
	}
	defer s.Close()
	d.s = s
	d.ok("configuration", "%s, %s", s.Config.Paths.Config, s.Config.Paths.State)
	d.permissions()
	if d.applications, err = s.Applications(); err != nil {
		d.fail("applications", err)
	}
	if d.state(s) {
		d.ok("state", "locks, journals and records can be written in %s", s.Config.Paths.State)
		d.leftovers(ctx, s)
	}
	if d.survey, err = s.Vault.Survey(""); err != nil {
		d.fail("records", err)
	}
	d.vault(ctx)
	d.registrations(ctx)
	d.browser()
	d.grants(ctx)
	d.environments(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return d.report(opts.env, opts.Output)
}
