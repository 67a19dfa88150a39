package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
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
		Use:   "move --to keychain|file",
		Short: "Move the secrets to the other home",
		Long: `Moves the secrets of all companies and applications to the other home, or those
of one company. Each is copied, read back, noted in its record and only then
removed from where it was. What is cut off is finished by the next upsauth
vault move or doctor.`,
		Example: `  upsauth vault move --to file
  upsauth vault move --to keychain --company "Acme Corp"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultMove(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	cmd.Flags().StringVar(&opts.To, "to", "", "the home that the secrets go to: keychain or file")
	return cmd
}

func runVaultMove(ctx context.Context, opts vaultMoveOptions) error {
	env := opts.env
	if opts.To != "keychain" && opts.To != "file" {
		return usagef("--to is keychain or file")
	}
	s, err := openSession(env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	records, err := s.chosen(opts.target)
	if err != nil {
		return err
	}
	applications, err := s.chosenApplications(opts.target)
	if err != nil {
		return err
	}
	if err := s.openForMove(ctx, opts.To, records, applications); err != nil {
		return err
	}
	failed := &failures{env: env}
	moved := 0
	for _, r := range records {
		if r.Vault == opts.To || ctx.Err() != nil {
			continue
		}
		after, err := s.keeper.Move(ctx, r.ID, opts.To)
		if err != nil {
			failed.add(r.String(), err)
			continue
		}
		moved++
		env.tell("%s: moved to the %s\n", r.ID, vault.Describe(opts.To))
		if len(after.Superseded) > 0 {
			fmt.Fprintf(env.Err, "%s: what the %s had of it can't be removed yet; upsauth doctor tries again.\n", r.ID, vault.Describe(r.Vault))
		}
	}
	for _, r := range applications {
		if r.Vault == opts.To && r.LeftIn == "" || ctx.Err() != nil {
			continue
		}
		name := fmt.Sprintf("%s (%s)", r.Name, r.Environment)
		if err := s.moveSecret(ctx, r, opts.To); err != nil {
			failed.add(name, err)
			continue
		}
		moved++
		env.tell("%s: the client secret moved to the %s\n", name, vault.Describe(opts.To))
	}
	if moved == 0 && failed.worst == exitDone && ctx.Err() == nil {
		fmt.Fprintf(env.Err, "There is nothing to move to the %s.\n", vault.Describe(opts.To))
	}
	if s.config.Vault != opts.To {
		fmt.Fprintf(env.Err, "New authorizations still go into the %s: set vault = %q in config.toml, or UPSAUTH_VAULT=%s.\n", vault.Describe(s.config.Vault), opts.To, opts.To)
	}
	return failed.end(ctx)
}

// openForMove opens all homes that have a part in a move, before any lock, and
// shows that the one can be written that the secrets go to.
func (s *session) openForMove(ctx context.Context, to string, records []grant.Record, applications []config.Registration) error {
	homes := homesOf(records, applications)
	if len(homes) == 0 || len(homes) == 1 && homes[0] == to {
		return nil
	}
	for _, home := range homes {
		if err := s.vault.Open(ctx, home); err != nil {
			return err
		}
	}
	if err := s.vault.Make(ctx, to); err != nil {
		return err
	}
	// Said once, and not for each company.
	return s.probe(ctx, to)
}

// probe shows that a home takes a secret, gives it back and forgets it.
func (s *session) probe(ctx context.Context, home string) error {
	return s.vault.Probe(ctx, home, 2500)
}

// moveSecret puts an application's client secret in another home; empty leaves it
// where it is, and finishes a move that was cut off. At every instant the
// registration says where the secret is and where else it may be.
func (s *session) moveSecret(ctx context.Context, registered config.Registration, to string) error {
	for _, home := range []string{registered.Vault, registered.LeftIn} {
		if home == "" {
			continue
		}
		if err := s.vault.Open(ctx, home); err != nil {
			return err
		}
	}
	return config.EditApplications(ctx, s.config.Paths.Config, func(a *config.Applications, save func() error) error {
		found := a.Find(registered.Name, registered.Environment)
		if len(found) != 1 {
			return &notFoundError{what: fmt.Sprintf("the application %s (%s) was removed meanwhile", registered.Name, registered.Environment)}
		}
		r := found[0]
		if to == "" {
			to = r.Vault
		}
		note := func(home, leftIn string) error {
			r.Vault, r.LeftIn = home, leftIn
			a.Put(r)
			return save()
		}
		secret, err := s.storedSecret(ctx, r)
		if err != nil {
			return err
		}
		if from := r.Vault; from != to {
			if err := s.dropLeftSecret(ctx, r); err != nil {
				return err
			}
			if err := note(from, to); err != nil {
				return err
			}
			if err := s.vault.PutSecret(ctx, to, r.SecretAccount(), secret); err != nil {
				return err
			}
			if err := note(to, from); err != nil {
				return err
			}
		}
		if err := s.dropLeftSecret(ctx, r); err != nil {
			return err
		}
		return note(r.Vault, "")
	})
}

// dropLeftSecret removes a client secret from where a move left it.
func (s *session) dropLeftSecret(ctx context.Context, r config.Registration) error {
	if r.LeftIn == "" || r.LeftIn == r.Vault {
		return nil
	}
	err := s.vault.DeleteSecret(ctx, r.LeftIn, r.SecretAccount())
	if errors.Is(err, vault.ErrNoItem) {
		return nil // the move ended before it was copied, or after it was removed
	}
	if home := new(vault.HomeError); errors.As(err, &home) {
		return &vault.HomeError{Home: home.Home, Err: err, Advice: home.Advice,
			What: fmt.Sprintf("The client secret of %s (%s) is in the %s, and in the %s too, which does not let it go: %s", r.Name, r.Environment, vault.Describe(r.Vault), vault.Describe(r.LeftIn), home.What)}
	}
	return err
}
