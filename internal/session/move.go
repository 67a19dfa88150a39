package session

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// ChosenApplications lists the applications that a target means: those that it
// names. What is about one company is about no client secret.
func (s *Session) ChosenApplications(ctx context.Context, t Target) ([]config.Registration, error) {
	if t.Company != "" {
		return nil, nil
	}
	applications, err := s.Applications(ctx)
	if err != nil {
		return nil, err
	}
	return applications.Find(t.Application, t.Environment), nil
}

// OpenForMove opens all homes that have a part in a move, before any lock, and
// shows that the one can be written that the secrets go to.
func (s *Session) OpenForMove(ctx context.Context, to string, records []grant.Record, applications []config.Registration) error {
	homes := HomesOf(records, applications)
	if len(homes) == 0 || len(homes) == 1 && homes[0] == to {
		return nil
	}
	for _, home := range homes {
		if err := s.Vault.Open(ctx, home); err != nil {
			return err
		}
	}
	return s.Prove(ctx, to) // said once, and not for each company
}

// MoveSecret puts an application's client secret in another home; empty leaves it
// where it is, and finishes a move that was cut off. At every instant the
// registration says where the secret is and where else it may be.
func (s *Session) MoveSecret(ctx context.Context, registered config.Registration, to string) error {
	for _, home := range []string{registered.Home, registered.LeftIn} {
		if home == "" {
			continue
		}
		if err := s.Vault.Open(ctx, home); err != nil {
			return err
		}
	}
	return s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		found := a.Find(registered.Name, registered.Environment)
		if len(found) != 1 {
			return &NotFoundError{Kind: RemovedMeanwhile, Application: registered.Name, Environment: registered.Environment}
		}
		r := found[0]
		if err := s.FinishFreshSecret(ctx, a, save, &r); err != nil {
			return err
		}
		if to == "" {
			to = r.Home
		}
		note := func(home, leftIn string) error {
			r.Home, r.LeftIn = home, leftIn
			a.Put(r)
			return save()
		}
		secret, err := s.StoredSecret(ctx, r)
		if err != nil {
			return err
		}
		if from := r.Home; from != to {
			if err := s.DropLeftSecret(ctx, r); err != nil {
				return err
			}
			if err := note(from, to); err != nil {
				return err
			}
			if err := s.Vault.PutClientSecret(ctx, to, r.SecretAccount(), secret, r.ClientID); err != nil {
				return err
			}
			if err := note(to, from); err != nil {
				return err
			}
		}
		if err := s.DropLeftSecret(ctx, r); err != nil {
			return err
		}
		return note(r.Home, "")
	})
}

// DropLeftSecret removes a client secret from where a move left it.
func (s *Session) DropLeftSecret(ctx context.Context, r config.Registration) error {
	if r.LeftIn == "" || r.LeftIn == r.Home {
		return nil
	}
	err := s.Vault.DeleteSecret(ctx, r.LeftIn, r.SecretAccount())
	if errors.Is(err, vault.ErrNoItem) {
		return nil // the move ended before it was copied, or after it was removed
	}
	if home := new(vault.HomeError); errors.As(err, &home) {
		return &vault.HomeError{Home: home.Home, Err: err, Advice: home.Advice, Do: home.Do,
			What: fmt.Sprintf("The client secret of %s is in the %s, and also still in the %s, where upsauth can't remove it: %s", named(r.Name, r.Environment), vault.Describe(r.Home), vault.Describe(r.LeftIn), home.What)}
	}
	return err
}

// hasLeftShared reports whether a grant that arrives from the shared vault has left it.
func (s *Session) hasLeftShared(ctx context.Context, arriving grant.Record) (bool, error) {
	db, err := s.Database()
	if err != nil {
		return false, err
	}
	row, err := db.RowOf(ctx, arriving.TokenVaultKey)
	if err != nil || row.Slot == "" {
		return false, err
	}
	there, err := shared.LeftAs(row)
	return err == nil && vault.HasLeft(there, arriving), err
}

// hasLeftLocal reports whether a grant that arrives in the shared vault has left this machine's
// own. What comes from another host, that host alone can tell.
func (s *Session) hasLeftLocal(ctx context.Context, arriving grant.Record) (bool, error) {
	if id, err := s.HostID(); err != nil || id == "" || id != arriving.Moved.Vault {
		return false, err
	}
	there, err := s.local.Stands(ctx, arriving.Slot())
	if errors.Is(err, grant.ErrNoGrant) {
		return false, nil
	}
	return err == nil && vault.HasLeft(there, arriving), err
}

// movedAway says where the grants are that a target means and that have moved to another
// vault, nil where none has.
func (s *Session) movedAway(ctx context.Context, t Target) error {
	_, problems, err := s.Vault.List(ctx, t.Company)
	if err != nil {
		return nil //nolint:nilerr // whoever needs the grants is told
	}
	for _, problem := range problems {
		moved := new(vault.MovedError)
		if errors.As(problem, &moved) && slices.ContainsFunc(moved.Records, func(r grant.Record) bool { return t.Fits(r.ID) }) {
			return moved
		}
	}
	return nil
}
