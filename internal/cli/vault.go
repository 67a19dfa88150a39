package cli

import (
	"github.com/spf13/cobra"
)

func newVaultCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vault",
		Short: "Move, export, import and check the secrets",
		Long: `The vault keeps tokens and client secrets in one of two homes: the keychain of
the operating system, or files that age encrypts (the file vault). vault in
config.toml, or UPSAUTH_VAULT, chooses the home of new secrets. Secrets that are
saved already stay where they are until you move them.

Several hosts can share a vault in a PostgreSQL database. upsauth vault schema prints the
SQL for its tables. upsauth vault hosts and accept-failover look after the hosts.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newVaultStatusCmd(env), newVaultMoveCmd(env),
		newVaultExportCmd(env), newVaultImportCmd(env),
		newVaultCheckCmd(env), newVaultPassphraseCmd(env),
		newVaultSchemaCmd(env), newVaultHostsCmd(env), newVaultAcceptFailoverCmd(env), newVaultRekeyCmd(env),
	)
	return cmd
}
