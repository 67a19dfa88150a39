package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

type vaultPassphraseOptions struct {
	env       *Env
	FromStdin bool
	Verbose   bool
}

func newVaultPassphraseCmd(env *Env) *cobra.Command {
	opts := vaultPassphraseOptions{env: env}
	cmd := &cobra.Command{
		Use:   "passphrase",
		Short: "Set or change the passphrase of the file vault",
		Long: `Changes the passphrase that opens the file vault, or creates the vault with a
passphrase. The present passphrase comes from UPSAUTH_PASSPHRASE,
UPSAUTH_PASSPHRASE_FILE or a hidden prompt; the new one from a hidden prompt or
standard input.

The secrets are not encrypted again. An old copy of the vault still opens with the
old passphrase.`,
		Example: `  upsauth vault passphrase
  upsauth vault passphrase --new-passphrase-stdin < new-passphrase.txt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultPassphrase(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.FromStdin, "new-passphrase-stdin", false, "read the new passphrase from standard input")
	return cmd
}

func runVaultPassphrase(ctx context.Context, opts vaultPassphraseOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	err = s.Files.ChangePassphrase(ctx, func(ctx context.Context) (string, error) {
		next := secretInput{what: "new passphrase of the file vault", flag: "new-passphrase-stdin", twice: true}
		return next.read(ctx, opts.env, opts.FromStdin)
	})
	if errors.Is(err, agefile.ErrNotByPassphrase) {
		return usagef("the identity in %s opens the file vault, so it has no passphrase: to use one, unset UPSAUTH_IDENTITY and remove identity from config.toml", s.Config.Identity)
	}
	if err != nil {
		return err
	}
	opts.env.tell("From now on, the new passphrase opens the file vault.\n")
	if opts.env.Getenv(config.EnvPassphrase) != "" || opts.env.Getenv(config.EnvPassphraseFile) != "" {
		fmt.Fprintln(opts.env.Err, "If UPSAUTH_PASSPHRASE or UPSAUTH_PASSPHRASE_FILE is set, change it there too.")
	}
	return nil
}
