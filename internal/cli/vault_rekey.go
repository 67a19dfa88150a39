package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

type vaultRekeyOptions struct {
	env      *Env
	Identity string
	Yes      bool
	Verbose  bool
}

func newVaultRekeyCmd(env *Env) *cobra.Command {
	opts := vaultRekeyOptions{env: env}
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Seal all secrets of the shared vault to another identity",
		Long: `Seals all secrets of the vault that several hosts share to the identity in another
file: an age identity, or an SSH ed25519 private key. Use it if somebody may have read
the present identity, or if a person who knows it leaves.

First stop upsauth on all hosts. Then run this command on one host, with the present
identity as usual and the new one as --identity. Put the new file on all hosts, name it
there (UPSAUTH_IDENTITY, or identity in config.toml), and start them. If the command is
interrupted, no host uses the vault until you run the same command again.

An earlier copy of the database still opens with the earlier identity. Who had both can
read the tokens of that time: if you fear that, revoke the companies and authorize them
again.`,
		Example: `  age-keygen -o new.txt
  upsauth vault rekey --identity new.txt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			if err := noEmpty(cmd, "identity"); err != nil {
				return err
			}
			return runVaultRekey(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringVar(&opts.Identity, "identity", "", "the file with the new identity")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

// running is how lately a host must have been at the database to be taken for one that
// runs.
const running = 5 * time.Minute

func runVaultRekey(ctx context.Context, opts vaultRekeyOptions) error {
	if opts.Identity == "" {
		return usagef("--identity is missing: the file with the new identity")
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Shared == nil {
		return usagef("vault rekey is for a vault that several hosts share; this one is not")
	}
	home := agefile.New("", opts.Identity)
	home.Places = s.Places
	home.Passphrase = func(ctx context.Context, _ bool) (string, error) {
		if !opts.env.attended() {
			return "", agefile.ErrNoPassphrase
		}
		return opts.env.person().Hidden(ctx, "Passphrase of "+opts.Identity)
	}
	next, err := home.Keys(ctx)
	if e := new(vault.HomeError); errors.As(err, &e) {
		return fmt.Errorf("--identity %s: %s", opts.Identity, e.What)
	}
	if err != nil {
		return err
	}
	list, err := s.Hosts(ctx)
	if err != nil {
		return err
	}
	var lately []string
	for _, h := range list.Hosts {
		if !h.Here && list.Now.Sub(h.Seen).Abs() < running {
			lately = append(lately, hostWords(h))
		}
	}
	question := "Seal all secrets of the shared vault to the identity in " + opts.Identity + "? All hosts must have been stopped."
	if len(lately) > 0 {
		question = fmt.Sprintf("Seal all secrets of the shared vault to the identity in %s? All hosts must have been stopped, and %s used the vault in the last 5 minutes.", opts.Identity, joined(lately))
	}
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	count := 0
	if err := s.Shared.Rekey(ctx, next, func(_, of int) { count = of }); err != nil {
		return err
	}
	opts.env.tell("All %d secrets are sealed to the identity in %s.\n", count, opts.Identity)
	fmt.Fprintf(opts.env.Err, "Put that file on all hosts, and name it there with %s or identity in config.toml. Then start them.\n", config.EnvIdentity)
	return nil
}
