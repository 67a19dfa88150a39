package session

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault"
)

// TwinError says that a company's name looks like that of another one, so that a backup
// can't have both: an earlier version kept characters that nobody sees.
type TwinError struct{ Company string }

func (e *TwinError) Error() string { return "another company's name looks the same" }

// OtherSecretError says that an application is registered with another client secret
// than a backup has for it. It was left as it is.
type OtherSecretError struct{ Application, Environment string }

func (e *OtherSecretError) Error() string {
	return "it is registered here with another client secret, which was left as it is"
}

// Copied is what became of a grant or an application on its way into a backup or out of
// one.
type Copied struct {
	// ID is the grant. Where its company is empty it is an application that is meant.
	ID grant.ID
	// Home is where it was put, empty where it was here already.
	Home string
	// Pending says that a refresh of the grant is under way or was cut off, and that its
	// token may be spent.
	Pending bool
	Err     error
}

// Backup collects grants and applications, with their secrets. Told is called with each
// that is not in it or that is to be minded.
func (s *Session) Backup(ctx context.Context, records []grant.Record, applications []config.Registration, told func(Copied)) (backup.Document, error) {
	document := backup.Document{Made: s.options.Now().UTC()}
	taken := map[string]string{}
	for _, r := range records {
		if ctx.Err() != nil {
			return document, ctx.Err()
		}
		g, err := s.Keeper.Settle(ctx, r.ID)
		if errors.As(err, new(*keeper.PendingError)) {
			told(Copied{ID: r.ID, Pending: true})
			err = nil
		}
		if err == nil {
			err = backup.Document{Grants: []grant.Grant{g}}.Check()
		}
		// A name of an earlier version may have characters in it that nobody sees.
		key := string(grant.Fold(g.Company)) + "\x00" + g.Application + "\x00" + g.Environment
		if other, ok := taken[key]; err == nil && ok && other != g.Company {
			err = &TwinError{Company: g.Company}
		}
		taken[key] = g.Company
		if err != nil {
			told(Copied{ID: r.ID, Err: err})
			continue
		}
		document.Grants = append(document.Grants, g)
		pending, err := s.interruptedRefresh(ctx, g)
		if err != nil {
			return document, err
		}
		document.Interrupted = append(document.Interrupted, pending...)
	}
	for _, r := range applications {
		secret, err := s.StoredSecret(ctx, r)
		application := backup.Application{Registration: r, ClientSecret: secret}
		if err == nil {
			err = backup.Document{Applications: []backup.Application{application}}.Check()
		}
		if err != nil {
			told(Copied{ID: grant.ID{Application: r.Name, Environment: r.Environment}, Err: err})
			continue
		}
		document.Applications = append(document.Applications, application)
	}
	return document, nil
}

// interruptedRefresh is the refresh of a grant whose fate is not known: another
// machine has to wait for its retry just as this one does.
func (s *Session) interruptedRefresh(ctx context.Context, g grant.Grant) ([]backup.Interrupted, error) {
	attempts, err := s.Vault.Attempts(ctx, g.ID)
	if err != nil {
		return nil, err
	}
	own := slices.DeleteFunc(attempts, func(j grant.Journal) bool {
		return j.Purpose != grant.Refreshing || j.TokenVaultKey != g.TokenVaultKey
	})
	open, _ := grant.Unsettled(own, g.Generation)
	var found []backup.Interrupted
	for _, j := range open {
		if len(found) == 0 { // the latest attempt counts those before it
			found = append(found, backup.Interrupted{TokenVaultKey: j.TokenVaultKey, Generation: j.Generation, Attempt: j.Attempt, Time: j.Time, Outcome: j.Outcome, Proxied: j.Proxied})
		}
	}
	return found, nil
}

// interruptedJournals is the refresh of a grant whose fate was not known where it
// comes from.
func interruptedJournals(document backup.Document, g grant.Grant) []grant.Journal {
	var journals []grant.Journal
	for _, u := range document.Interrupted {
		if u.TokenVaultKey == g.TokenVaultKey {
			journals = append(journals, grant.Journal{TokenVaultKey: u.TokenVaultKey, Generation: u.Generation, Attempt: u.Attempt, Fate: grant.Fate{Time: u.Time, Outcome: u.Outcome}, Proxied: u.Proxied})
		}
	}
	return journals
}

// Server is an environment with the address of its server.
type Server struct{ Environment, BaseURL string }

// NewHere are the applications and servers of a backup that are not known here. Whoever puts
// it in trusts them: people sign in for those applications, and tokens are sent to those
// servers. A backup of an environment that is at another address here is an error.
func (s *Session) NewHere(ctx context.Context, document backup.Document) (applications []backup.Application, servers []Server, err error) {
	known, err := s.Applications(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range document.Applications {
		if len(known.Find(a.Name, a.Environment)) == 0 {
			applications = append(applications, a)
		}
	}
	for _, g := range document.Grants {
		environment, known := s.Config.Environment(g.Environment)
		server := Server{g.Environment, g.BaseURL}
		switch {
		case g.Environment == config.Sandbox, known && environment.Origin == g.BaseURL, slices.Contains(servers, server):
			continue
		case known:
			return nil, nil, fmt.Errorf("the authorizations for %s in the export are for %s, and here that environment is at %s; nothing was imported", g.Environment, g.BaseURL, environment.Origin)
		}
		servers = append(servers, server)
	}
	return applications, servers, nil
}

// Restore puts in what a backup has. Told is called with each grant and application.
// Strange are the environments of grants that are not known here.
func (s *Session) Restore(ctx context.Context, document backup.Document, told func(Copied)) (strange []string, err error) {
	if err := s.Vault.Make(ctx, s.Config.Vault); err != nil {
		return nil, err
	}
	s.FinishRemovals(ctx)
	for _, a := range document.Applications {
		if ctx.Err() != nil {
			break
		}
		home, err := s.restoreApplication(ctx, a)
		told(Copied{ID: grant.ID{Application: a.Name, Environment: a.Environment}, Home: home, Err: err})
	}
	for _, g := range document.Grants {
		if ctx.Err() != nil {
			break
		}
		g.Home = s.Config.Vault
		homes, err := s.Vault.HomesOf(ctx, g.ID)
		if err == nil {
			err = s.OpenHomes(ctx, homes)
		}
		if ctx.Err() != nil {
			break // it was interrupted
		}
		if err != nil {
			told(Copied{ID: g.ID, Err: err})
			continue
		}
		home, err := s.Keeper.Import(ctx, g, interruptedJournals(document, g)...)
		told(Copied{ID: g.ID, Home: home, Err: err})
		if !slices.Contains(s.Config.EnvironmentNames(), g.Environment) && !slices.Contains(strange, g.Environment) {
			strange = append(strange, g.Environment)
		}
	}
	return strange, ctx.Err()
}

// restoreApplication registers an application of a backup, unless one of the same name
// is here. What only lacks its secret gets it. Home is where the secret was put, empty
// where it was here already.
func (s *Session) restoreApplication(ctx context.Context, copied backup.Application) (home string, err error) {
	r := copied.Registration
	r.Home = s.Config.Vault
	end, err := s.AnnounceNewSecret(ctx, r)
	if err != nil {
		return "", err
	}
	err = end(s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		same := func(secret string) bool {
			return subtle.ConstantTimeCompare([]byte(secret), []byte(copied.ClientSecret)) == 1
		}
		if found := a.Find(r.Name, r.Environment); len(found) == 1 {
			r = found[0]
			if r.ClientID != copied.ClientID {
				return fmt.Errorf("it is registered here with the client ID %s, in the export with %s; what is here was left as it is", r.ClientID, copied.ClientID)
			}
			secret, err := s.Vault.Secret(ctx, r.Home, r.SecretIn())
			switch {
			case err == nil && same(secret):
				return nil
			case err == nil:
				return &OtherSecretError{Application: r.Name, Environment: r.Environment}
			case !errors.Is(err, vault.ErrNoItem):
				return err
			}
		}
		switch old, err := s.Vault.Secret(ctx, r.Home, r.SecretAccount()); {
		case err == nil && !same(old):
			return fmt.Errorf("the %s has another client secret under %s, perhaps of another configuration directory; it was left as it is", vault.Describe(r.Home), r.SecretAccount())
		case err != nil && !errors.Is(err, vault.ErrNoItem):
			return err
		}
		r.Fresh = false // what was to be put in its place is gone too
		if err := s.AddSecret(ctx, a, save, r, copied.ClientSecret); err != nil {
			return err
		}
		home = r.Home
		return nil
	}))
	return home, err
}
