package session

import (
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// FinishRemovals finishes revokes that were cut off, and returns what it
// removed, and whatever else was cut off between two steps. What can't be finished
// now is for the next command.
func (s *Session) FinishRemovals(ctx context.Context) []grant.ID {
	if err := s.Disk.SweepWrites(); err != nil {
		s.step(ctx, err.Error())
	}
	removed, err := s.Vault.FinishRemovals(ctx)
	if err != nil {
		s.step(ctx, err.Error())
	}
	for _, id := range removed {
		s.stepf(ctx, "finished an earlier removal of %s", id)
		s.Note(ctx, grant.EventRevoked, id, "finished after it was cut off")
	}
	s.deliver(ctx)
	s.FinishAndTell(ctx)
	return removed
}

// deliver puts in place what UPS answered here while the database was away. Other hosts wait
// for it.
func (s *Session) deliver(ctx context.Context) {
	if s.Shared == nil {
		return
	}
	grants, err := s.Shared.Undelivered(ctx)
	if err != nil {
		s.step(ctx, err.Error())
	}
	for _, id := range grants {
		if err := s.Vault.Open(ctx, config.HomeShared); err != nil {
			s.step(ctx, err.Error())
			return
		}
		if _, err := s.Keeper.Settle(ctx, id); err != nil {
			s.stepf(ctx, "an answer for %s can't be put in place yet: %v", id, err)
			continue
		}
		s.stepf(ctx, "put an earlier answer for %s in place", id)
	}
	if err := s.Shared.Tidy(ctx); err != nil {
		s.step(ctx, err.Error())
	}
}

// FinishAndTell finishes what was cut off between two steps, as far as it can be now.
func (s *Session) FinishAndTell(ctx context.Context) {
	finished, err := s.FinishWork(ctx)
	if err != nil {
		s.step(ctx, err.Error())
	}
	for _, w := range finished {
		s.stepf(ctx, "%s was cut off, and is now finished or cleared away", w)
	}
}

// FinishWork finishes what commands left that were cut off between their steps,
// and returns what that was. What can't be finished now is for the next command.
func (s *Session) FinishWork(ctx context.Context) ([]files.Work, error) {
	return s.Disk.FinishWork(ctx, func(w files.Work) error {
		switch w.Kind {
		case files.WorkProbe:
			return s.Vault.DropProbe(ctx, w.Home, w.Account)
		case files.WorkSecret:
			return s.FinishSecret(ctx, w)
		case files.WorkRename:
			return s.finishRename(ctx, w)
		case files.WorkForget:
			return s.finishForget(ctx, w)
		case files.WorkExport:
			return safefile.Sweep(w.Path)
		}
		return nil
	})
}

// FinishSecret removes a client secret that no registration speaks of, and puts one
// in its place that was to replace another.
func (s *Session) FinishSecret(ctx context.Context, w files.Work) error {
	if w.Config != s.Config.Paths.Config {
		return files.ErrLater // the applications that it is of are elsewhere
	}
	return s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		one := slices.IndexFunc(a.Applications, func(r config.Registration) bool { return HasSecretIn(r, w.Home, w.Account) })
		if one >= 0 {
			r := a.Applications[one]
			return s.FinishFreshSecret(ctx, a, save, &r)
		}
		if err := s.Vault.DeleteSecret(ctx, w.Home, w.Account); !errors.Is(err, vault.ErrNoItem) {
			return err
		}
		return nil
	})
}

// HasSecretIn reports whether an account in a home is that of an application's
// client secret, or of what a move left of it.
func HasSecretIn(r config.Registration, home, account string) bool {
	if r.Fresh && r.FreshAccount() == account {
		return r.Home == home
	}
	return r.SecretAccount() == account && (r.Home == home || r.LeftIn == home)
}

// FinishFreshSecret puts a client secret that replaces another in its place, where that
// was cut off. Whoever calls it has locked the applications. The registration says
// at every instant under which account the secret of its client is.
func (s *Session) FinishFreshSecret(ctx context.Context, a *config.Applications, save func() error, r *config.Registration) error {
	if !r.Fresh {
		return nil
	}
	secret, client, err := s.Vault.ClientSecret(ctx, r.Home, r.FreshAccount())
	if errors.Is(err, vault.ErrNoItem) {
		return nil // whoever needs it says that it is missing
	}
	if err != nil {
		return err
	}
	if client != "" && client != r.ClientID {
		return nil // whoever needs it says so
	}
	return s.PlaceFresh(ctx, a, save, r, secret)
}

// PlaceFresh makes a secret that of a registration whose secret is a fresh one.
func (s *Session) PlaceFresh(ctx context.Context, a *config.Applications, save func() error, r *config.Registration, secret string) error {
	if err := s.Vault.PutClientSecret(ctx, r.Home, r.SecretAccount(), secret, r.ClientID); err != nil {
		return err
	}
	r.Fresh = false
	a.Put(*r)
	if err := save(); err != nil {
		return err
	}
	if err := s.Vault.DeleteSecret(ctx, r.Home, r.FreshAccount()); !errors.Is(err, vault.ErrNoItem) {
		return err
	}
	return nil
}

// finishRename gives what a company still has under its old name the new one.
func (s *Session) finishRename(ctx context.Context, w files.Work) error {
	records, problems, err := s.Vault.List(ctx, w.Company)
	if err != nil || len(problems) > 0 {
		return errors.Join(append(problems, err)...)
	}
	if err := s.Open(ctx, false, records...); err != nil {
		return err
	}
	stay := false
	for _, r := range records {
		if r.Company == w.To {
			continue
		}
		if !slices.Contains(w.Keys, r.TokenVaultKey) {
			stay = true // authorized under the old name since
			continue
		}
		switch err := s.Keeper.Rename(ctx, r.ID, w.To); {
		case errors.As(err, new(*vault.TakenError)):
			stay = true // authorized meanwhile: there are two companies now
		case err != nil && !errors.Is(err, grant.ErrNoGrant):
			return err
		}
	}
	if stay {
		return nil
	}
	return s.Companies.Rename(ctx, w.Company, w.To, s.options.Now())
}

// finishForget removes the grants that were to be removed, and what is known of
// the company beside them unless it has others by now.
func (s *Session) finishForget(ctx context.Context, w files.Work) error {
	records, problems, err := s.Vault.List(ctx, w.Company)
	if err != nil || len(problems) > 0 {
		return errors.Join(append(problems, err)...)
	}
	stay := false
	for _, r := range records {
		if !slices.Contains(w.Keys, r.TokenVaultKey) {
			stay = true
			continue
		}
		if err := s.Keeper.Revoke(ctx, r.ID); err != nil && !errors.Is(err, grant.ErrNoGrant) {
			return err
		}
	}
	if stay {
		return nil
	}
	if err := s.Companies.Remove(ctx, w.Company); err != nil {
		return err
	}
	if err := s.SettleInvitations(ctx); err != nil {
		s.step(ctx, err.Error()) // they are judged to have ended all the same
	}
	return nil
}

// renamed are the names that a cut-off renaming is about to take away: they are
// no companies of their own. What can't be read of them is a problem.
func (s *Session) renamed() (map[grant.Folded]bool, error) {
	works, problem := s.Disk.UnfinishedWork()
	names := map[grant.Folded]bool{}
	for _, w := range works {
		if w.Kind == files.WorkRename && grant.Fold(w.Company) != grant.Fold(w.To) {
			names[grant.Fold(w.Company)] = true
		}
	}
	return names, problem
}

// keysOf are the Token Vault Keys of grants.
func keysOf(records []grant.Record) []string {
	keys := make([]string, len(records))
	for i, r := range records {
		keys[i] = r.TokenVaultKey
	}
	return keys
}

// AnnounceSecret notes that a client secret is about to be written or removed
// beside its registration. It is called before the applications are locked, and
// what it returns when they no longer are, with the error if there was one: what
// is left then goes at once, if that is possible.
func (s *Session) AnnounceSecret(ctx context.Context, r config.Registration, account string) (end func(error) error, err error) {
	work, err := s.Disk.Announce(ctx, files.Work{
		Kind: files.WorkSecret, Home: r.Home, Account: account, Config: s.Config.Paths.Config,
	})
	if err != nil {
		return nil, err
	}
	return func(err error) error {
		if err == nil {
			work.Done()
			return nil
		}
		work.Leave()
		s.FinishAndTell(ctx)
		return err
	}, nil
}

// AnnounceNewSecret is AnnounceSecret for one that is about to be written: beside
// the one that a registration has already, which it replaces. One that is there and
// not registered here may be of another configuration directory, with the same
// keychain, and is never cleared away.
func (s *Session) AnnounceNewSecret(ctx context.Context, r config.Registration) (end func(error) error, err error) {
	applications, err := s.Applications(ctx)
	if err != nil {
		return nil, err
	}
	if found := applications.Find(r.Name, r.Environment); len(found) == 1 && found[0].Home == r.Home {
		return s.AnnounceSecret(ctx, r, r.FreshAccount())
	}
	if _, err := s.Vault.Secret(ctx, r.Home, r.SecretAccount()); errors.Is(err, vault.ErrNoItem) {
		return s.AnnounceSecret(ctx, r, r.SecretAccount())
	}
	return func(err error) error { return err }, nil
}
