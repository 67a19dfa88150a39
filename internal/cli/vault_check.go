package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/vault"
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
	o := s.checkup()
	if opts.Repair {
		o.Repair = func(ctx context.Context, q checkup.Question) error {
			return confirm(ctx, opts.env, questionWords(q), opts.Yes)
		}
	}
	found, err := checkup.Vault(ctx, s.Session, o)
	if err != nil {
		return err
	}
	return report(opts.env, opts.Output, found)
}

// questionWords ask whether something may be repaired.
func questionWords(q checkup.Question) string {
	if q.Ask == checkup.RemoveSecret {
		return fmt.Sprintf("Remove the client secret under %s from the %s? No application of this configuration directory has it.", q.Account, vault.Describe(q.Home))
	}
	return fmt.Sprintf("Make records for %s? If another upsauth on this machine, with another UPSAUTH_STATE_DIR, goes on using them, the two will void each other's.", counted(q.Lost, "authorization"))
}
