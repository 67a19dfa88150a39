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
		Short: "Check that every company has its secrets, and that every secret has its company",
		Long: `Opens the secrets of every company and every application. It also looks for secrets
that no record names, if the home can list its secrets: the file vault can, and so
can the keychains of Linux, the BSDs and Windows.

The command also tries what a refresh needs on this machine: it makes a lock, a
journal and a record, and removes them again. It reads every journal, and finishes or
clears away what was cut off. With --repair, it makes missing records from the secrets,
makes missing secrets from UPS's latest answer in the journal, and sets damaged parts
of journals aside. It then also removes test secrets (probes) that belong to no
company and, from the file vault, client secrets that belong to no application and
sign-ins of invited customers that belong to no invitation.`,
		Example: `  upsauth vault check
  upsauth vault check --repair`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultCheck(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Repair, "repair", false, "make missing records and secrets again, and remove leftovers that belong to nobody")
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
		return fmt.Sprintf("Remove the client secret under %s from the %s? No application of this configuration directory uses it.", q.Account, vault.Describe(q.Home))
	}
	return fmt.Sprintf("Make records for %s? If another upsauth on this machine uses them with another UPSAUTH_STATE_DIR, the two will void each other's tokens.", counted(q.Lost, "authorization"))
}
