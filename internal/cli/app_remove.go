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

func newAppRemoveCmd(env *Env) *cobra.Command {
	cmd, opts := appCmd(env, "remove", "Remove a registration and its client secret", "  upsauth app remove mine --env cie --yes", runAppRemove)
	cmd.Long = `Removes a registration and its client secret. Grants of the application stay
until they are revoked. Without the registration they can't be refreshed.`
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runAppRemove(ctx context.Context, opts appOptions) error {
	s, r, err := findApp(ctx, opts)
	if err != nil {
		return err
	}
	defer s.Close()
	all, err := s.records(ctx, "")
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Remove the application %s for %s?", r.Name, r.Environment)
	if n := len(session.Filter(all, r.Name, r.Environment)); n > 0 {
		question = fmt.Sprintf("Remove the application %s for %s? The authorizations of %d companies need it to be refreshed.", r.Name, r.Environment, n)
	}
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	s.FinishAndTell(ctx)
	if err := s.Vault.CanDeleteSecret(ctx, r.Home, r.SecretAccount()); err != nil && !errors.Is(err, vault.ErrNoItem) {
		return err
	}
	end, err := s.AnnounceSecret(ctx, r, r.SecretAccount())
	if err != nil {
		return err
	}
	none := false
	err = s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		found := a.Find(r.Name, r.Environment)
		if len(found) == 0 {
			return nil // removed meanwhile
		}
		if err := s.DropLeftSecret(ctx, found[0]); err != nil {
			return err
		}
		if err := s.FinishFreshSecret(ctx, a, save, &found[0]); err != nil {
			return err
		}
		// The registration goes first: without it the secret is one to be cleared
		// away, while an application without its secret is broken. Where it can't, its
		// secret is needed yet.
		before := *a
		a.Remove(r.Name, r.Environment)
		if err := save(); err != nil {
			return err
		}
		err := s.Vault.DeleteSecret(ctx, found[0].Home, r.SecretAccount())
		none = errors.Is(err, vault.ErrNoItem)
		if err != nil && !none {
			*a = before
			return errors.Join(err, save())
		}
		return nil
	})
	if err := end(err); err != nil {
		return err
	}
	if err := s.SettleInvitations(context.WithoutCancel(ctx)); err != nil {
		s.log(message(err)) // they are judged to have ended all the same
	}
	if none {
		opts.env.tell("Removed the application %s for %s. Its client secret was not in the %s, so none was removed.\n", r.Name, r.Environment, vault.Describe(r.Home))
		return nil
	}
	opts.env.tell("Removed the application %s for %s and its client secret.\n", r.Name, r.Environment)
	return nil
}
