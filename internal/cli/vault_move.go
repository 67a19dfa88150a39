package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
)

type vaultMoveOptions struct {
	target
	env *Env
	To  string
}

func newVaultMoveCmd(env *Env) *cobra.Command {
	opts := vaultMoveOptions{env: env}
	cmd := &cobra.Command{
		Use:   "move --to keychain|file|shared",
		Short: "Move the secrets to the other home, or everything to the shared vault",
		Long: `Moves the secrets of all companies and applications to the other home; with
--company, those of one company. upsauth copies each secret, reads the copy back,
notes the new home in the record, and only then removes the old one. If the move
is cut off, the next upsauth vault move or doctor finishes it.

--to shared moves everything that this machine has to the vault that several hosts
share: authorizations, applications, companies with their histories, invitations, and
the keys of programs. With vault = "shared", --to keychain and --to file move
everything back to this machine. Such a move makes the database's tables first, if the
role may, and shows that the database can be used. At every instant each authorization
is in one of the two vaults. If the move is cut off, the same command finishes it. The
old vault remembers where each authorization is now.`,
		Example: `  upsauth vault move --to file
  upsauth vault move --to keychain --company "Acme Corp"
  upsauth vault move --to shared`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultMove(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().StringVar(&opts.To, "to", "", "where the secrets go: keychain, file or shared")
	return cmd
}

func runVaultMove(ctx context.Context, opts vaultMoveOptions) error {
	env := opts.env
	if opts.To != "keychain" && opts.To != "file" && opts.To != config.HomeShared {
		return usagef("--to must be keychain, file or shared")
	}
	if loaded, err := config.Load(env.Getenv); err != nil {
		return err
	} else if opts.To == config.HomeShared || loaded.Vault == config.HomeShared {
		return runHandOver(ctx, opts, loaded.Vault)
	}
	s, err := openJob(env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.FinishRemovals(ctx)
	held, err := s.HeldIn(ctx, opts.Target, opts.To)
	if err != nil {
		return err
	}
	list, err := s.Chosen(ctx, opts.Target)
	if err != nil && (len(held) == 0 || !errors.As(err, new(*session.NotFoundError))) {
		return err
	}
	records := list.Records
	applications, err := s.ChosenApplications(ctx, opts.Target)
	if err != nil {
		return err
	}
	if err := s.OpenForMove(ctx, opts.To, records, applications); err != nil {
		return err
	}
	if len(held) > 0 {
		for _, i := range held {
			if err := s.Vault.Open(ctx, i.SignIn.Home); err != nil {
				return err
			}
		}
		if err := s.Vault.Make(ctx, opts.To); err != nil {
			return err
		}
	}
	failed := &failures{env: env}
	moved := 0
	for _, r := range records {
		if r.Home == opts.To || ctx.Err() != nil {
			continue
		}
		after, err := s.Keeper.Move(ctx, r.ID, opts.To)
		if err != nil {
			failed.add(r.String(), err)
			continue
		}
		moved++
		env.tell("%s: moved to the %s\n", r.ID, vault.Describe(opts.To))
		if len(after.Superseded) > 0 {
			fmt.Fprintf(env.Err, "%s: the old secrets in the %s can't be removed yet; upsauth doctor tries again.\n", r.ID, vault.Describe(r.Home))
		}
	}
	for _, r := range applications {
		if r.Home == opts.To && r.LeftIn == "" || ctx.Err() != nil {
			continue
		}
		name := fmt.Sprintf("%s (%s)", r.Name, r.Environment)
		if err := s.MoveSecret(ctx, r, opts.To); err != nil {
			failed.add(name, err)
			continue
		}
		moved++
		env.tell("%s: the client secret moved to the %s\n", name, vault.Describe(opts.To))
	}
	for _, i := range held {
		if ctx.Err() != nil {
			break
		}
		if err := s.MoveHeld(ctx, i, opts.To); err != nil {
			failed.add(i.GrantID().String(), err)
			continue
		}
		moved++
		env.tell("%s: the sign-in that waits to be confirmed moved to the %s\n", i.GrantID(), vault.Describe(opts.To))
	}
	if moved == 0 && failed.worst == exitDone && ctx.Err() == nil {
		fmt.Fprintf(env.Err, "There is nothing to move to the %s.\n", vault.Describe(opts.To))
	}
	if s.Config.Vault != opts.To {
		fmt.Fprintf(env.Err, "New authorizations still go into the %s: set vault = %q in config.toml, or UPSAUTH_VAULT=%s.\n", vault.Describe(s.Config.Vault), opts.To, opts.To)
	}
	return failed.end(ctx)
}
