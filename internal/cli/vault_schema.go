package cli

import (
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/vault/postgres"
)

type vaultSchemaOptions struct {
	env  *Env
	Role string
}

func newVaultSchemaCmd(env *Env) *cobra.Command {
	opts := vaultSchemaOptions{env: env}
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Print the SQL that makes the tables of a shared vault",
		Long: `Prints the SQL that makes the tables of a vault that several hosts share, or adds to
earlier tables what is new. Whoever runs the SQL owns the tables. upsauth itself works as
another role, which may not delete a row. The SQL makes this role if it is missing. Give
the role a password afterwards, or another way to sign in.

This command needs no database and no configuration. The SQL can be run again.`,
		Example: `  upsauth vault schema | psql -v ON_ERROR_STOP=1 "host=db.example dbname=upsauth user=owner"
  upsauth vault schema --role webshop > schema.sql`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := noEmpty(cmd, "role"); err != nil {
				return err
			}
			return runVaultSchema(opts)
		},
	}
	cmd.Flags().StringVar(&opts.Role, "role", postgres.Role, "the role as which upsauth works")
	return cmd
}

// maxRole is how many bytes of a role's name PostgreSQL keeps. It cuts off the rest without
// an error.
const maxRole = 63

func runVaultSchema(opts vaultSchemaOptions) error {
	if err := cleanFlags(map[string]*string{"--role": &opts.Role}); err != nil {
		return err
	}
	switch role := opts.Role; {
	case len(role) > maxRole:
		return usagef("--role has %d bytes, and PostgreSQL keeps %d of a role's name", len(role), maxRole)
	case strings.HasPrefix(role, "pg_"), role == "public", role == "none", strings.ContainsFunc(role, unicode.IsControl):
		return usagef("%q can't be the name of a role in PostgreSQL", role)
	}
	_, err := io.WriteString(opts.env.Out, postgres.Schema(opts.Role))
	return err
}
