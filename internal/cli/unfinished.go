package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// finishWork finishes what commands left that were cut off between their steps,
// and returns what that was. What can't be finished now is for the next command.
func (s *session) finishWork(ctx context.Context) ([]vault.Work, error) {
	return s.vault.FinishWork(ctx, func(w vault.Work) error {
		switch w.Kind {
		case vault.WorkSecret:
			return s.finishSecret(ctx, w)
		case vault.WorkRename:
			return s.finishRename(ctx, w)
		case vault.WorkForget:
			return s.finishForget(ctx, w)
		case vault.WorkExport:
			return safefile.Sweep(w.Path)
		}
		return nil
	})
}

// finishSecret removes a client secret that no registration speaks of, and puts one
// in its place that was to replace another.
func (s *session) finishSecret(ctx context.Context, w vault.Work) error {
	if w.Config != s.config.Paths.Config {
		return vault.ErrLater // the applications that it is of are elsewhere
	}
	return config.EditApplications(ctx, w.Config, func(a *config.Applications, save func() error) error {
		one := slices.IndexFunc(a.Applications, func(r config.Registration) bool { return hasSecretIn(r, w.Vault, w.Account) })
		if one >= 0 {
			r := a.Applications[one]
			return s.settleFresh(ctx, a, save, &r)
		}
		if err := s.vault.DeleteSecret(ctx, w.Vault, w.Account); !errors.Is(err, vault.ErrNoItem) {
			return err
		}
		return nil
	})
}

// hasSecretIn reports whether an account in a home is that of an application's
// client secret, or of what a move left of it.
func hasSecretIn(r config.Registration, home, account string) bool {
	if r.Fresh && r.FreshAccount() == account {
		return r.Vault == home
	}
	return r.SecretAccount() == account && (r.Vault == home || r.LeftIn == home)
}

// settleFresh puts a client secret that replaces another in its place, where that
// was cut off. Whoever calls it has locked the applications. The registration says
// at every instant under which account the secret of its client is.
func (s *session) settleFresh(ctx context.Context, a *config.Applications, save func() error, r *config.Registration) error {
	if !r.Fresh {
		return nil
	}
	secret, err := s.vault.Secret(ctx, r.Vault, r.FreshAccount())
	if errors.Is(err, vault.ErrNoItem) {
		return nil // whoever needs it says that it is missing
	}
	if err != nil {
		return err
	}
	return s.placeFresh(ctx, a, save, r, secret)
}

// placeFresh makes a secret that of a registration whose secret is a fresh one.
func (s *session) placeFresh(ctx context.Context, a *config.Applications, save func() error, r *config.Registration, secret string) error {
	if err := s.vault.PutSecret(ctx, r.Vault, r.SecretAccount(), secret); err != nil {
		return err
	}
	r.Fresh = false
	a.Put(*r)
	if err := save(); err != nil {
		return err
	}
	if err := s.vault.DeleteSecret(ctx, r.Vault, r.FreshAccount()); !errors.Is(err, vault.ErrNoItem) {
		return err
	}
	return nil
}

// finishRename gives what a company still has under its old name the new one.
func (s *session) finishRename(ctx context.Context, w vault.Work) error {
	records, problems, err := s.vault.List(w.Company)
	if err != nil || len(problems) > 0 {
		return errors.Join(append(problems, err)...)
	}
	if err := s.open(ctx, false, records...); err != nil {
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
		switch err := s.keeper.Rename(ctx, r.ID, w.To); {
		case errors.As(err, new(*vault.TakenError)):
			stay = true // authorized meanwhile: there are two companies now
		case err != nil && !errors.Is(err, grant.ErrNoGrant):
			return err
		}
	}
	if stay {
		return nil
	}
	return s.companies.Rename(w.Company, w.To, s.env.Now())
}

// finishForget removes the grants that were to be removed, and what is known of
// the company beside them unless it has others by now.
func (s *session) finishForget(ctx context.Context, w vault.Work) error {
	records, problems, err := s.vault.List(w.Company)
	if err != nil || len(problems) > 0 {
		return errors.Join(append(problems, err)...)
	}
	stay := false
	for _, r := range records {
		if !slices.Contains(w.Keys, r.TokenVaultKey) {
			stay = true
			continue
		}
		if err := s.keeper.Revoke(ctx, r.ID); err != nil && !errors.Is(err, grant.ErrNoGrant) {
			return err
		}
	}
	if stay {
		return nil
	}
	return s.companies.Remove(w.Company)
}

// renamed are the names that a cut-off renaming is about to take away: they are
// no companies of their own.
func (s *session) renamed() map[string]bool {
	works, _ := s.vault.UnfinishedWork()
	names := map[string]bool{}
	for _, w := range works {
		if w.Kind == vault.WorkRename && grant.Fold(w.Company) != grant.Fold(w.To) {
			names[grant.Fold(w.Company)] = true
		}
	}
	return names
}

// keysOf are the Token Vault Keys of grants.
func keysOf(records []grant.Record) []string {
	keys := make([]string, len(records))
	for i, r := range records {
		keys[i] = r.TokenVaultKey
	}
	return keys
}

// announceSecret notes that a client secret is about to be written or removed
// beside its registration. It is called before the applications are locked, and
// what it returns when they no longer are, with the error if there was one: what
// is left then goes at once, if that is possible.
func (s *session) announceSecret(ctx context.Context, r config.Registration, account string) (end func(error) error, err error) {
	work, err := s.vault.Announce(ctx, vault.Work{
		Kind: vault.WorkSecret, Vault: r.Vault, Account: account, Config: s.config.Paths.Config,
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
		s.settleWork(ctx)
		return err
	}, nil
}

// announceNewSecret is announceSecret for one that is about to be written: beside
// the one that a registration has already, which it replaces. One that is there and
// not registered here may be of another configuration directory, with the same
// keychain, and is never cleared away.
func (s *session) announceNewSecret(ctx context.Context, r config.Registration) (end func(error) error, err error) {
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return nil, err
	}
	if found := applications.Find(r.Name, r.Environment); len(found) == 1 && found[0].Vault == r.Vault {
		return s.announceSecret(ctx, r, r.FreshAccount())
	}
	if _, err := s.vault.Secret(ctx, r.Vault, r.SecretAccount()); errors.Is(err, vault.ErrNoItem) {
		return s.announceSecret(ctx, r, r.SecretAccount())
	}
	return func(err error) error { return err }, nil
}

// settleWork finishes what was cut off between two steps, as far as it can be now.
func (s *session) settleWork(ctx context.Context) {
	finished, err := s.finishWork(ctx)
	if err != nil {
		s.log(err.Error())
	}
	for _, w := range finished {
		s.log(fmt.Sprintf("%s was cut off, and is finished or cleared away", w))
	}
}

// leftovers clears away what commands left that were cut off, and tells of it.
func (f *findings) leftovers(ctx context.Context, s *session) {
	finished, err := s.finishWork(ctx)
	for _, w := range finished {
		f.ok("leftovers", "%s was cut off, and is finished or cleared away", w)
	}
	var home *vault.HomeError
	switch {
	case errors.As(err, &home):
		// Many a session has no keychain; another one clears it away.
		f.warn("leftovers", "what a command left that was cut off can't be cleared away yet: "+home.What, home.Advice)
	case err != nil:
		f.fail("leftovers", err)
	}
	removed, err := s.vault.Sweep()
	if err == nil {
		err = safefile.Sweep(filepath.Join(s.config.Paths.Config, "applications.toml"))
	}
	if err != nil {
		f.fail("leftovers", err)
	}
	f.listing, f.listed = s.vault.ListHomes(ctx), true
	ofGrants, _, err := s.vault.Probes(f.listing)
	if err == nil && len(ofGrants) > 0 {
		var n int
		n, err = s.vault.DropProbes(ctx, ofGrants)
		removed += n
	}
	if err != nil {
		f.fail("leftovers", err)
	}
	if removed > 0 {
		f.ok("leftovers", "%s of commands that were cut off removed from %s: files that were never finished, probes, notes of locks", counted(removed, "leftover"), s.config.Paths.State)
	}
}
