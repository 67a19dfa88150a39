package session

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// Authorizing is what sign-ins for one application have in common, of one company or of
// many. It may be used by several goroutines at once.
type Authorizing struct {
	Registration config.Registration

	s      *Session
	mu     sync.Mutex
	client *ups.Client // nil before Ready
	// learned is what UPS's answers have taught about the Authorization header, nil for
	// nothing yet.
	learned *bool
	// learning is held while what was learned is written, so that the file ends as the
	// client does.
	learning sync.Mutex
}

// Authorizing chooses the application that is to be authorized. Its secret is not
// opened before Ready.
func (s *Session) Authorizing(ctx context.Context, t Target) (*Authorizing, error) {
	registration, err := s.PickApplication(ctx, t)
	if err != nil {
		return nil, err
	}
	if registration.RedirectURI == "" {
		return nil, &RedirectMissingError{Application: registration.Name, Environment: registration.Environment}
	}
	return &Authorizing{Registration: registration, s: s}, nil
}

// Ready makes the home ready that gets the grants, and the client with its secret.
func (a *Authorizing) Ready(ctx context.Context) error {
	if err := a.s.Vault.Make(ctx, a.s.Config.Vault); err != nil {
		return err
	}
	a.learning.Lock()
	defer a.learning.Unlock()
	client, err := a.s.Client(ctx, a.Registration)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.learned != nil {
		client.PKCENeedsBasic = *a.learned
	}
	a.client = client
	return nil
}

// Client is the application's, as it is known by now, nil before Ready. Nobody may
// change what is in it.
func (a *Authorizing) Client() *ups.Client {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.client
}

// ID names the grant that a company gets. A company that has grants keeps the name that
// it has.
func (a *Authorizing) ID(ctx context.Context, company string) (grant.ID, error) {
	known, err := a.s.Known(ctx, company)
	if err != nil {
		return grant.ID{}, err
	}
	if len(known.Records) > 0 {
		company = known.Records[0].Company
	}
	return grant.ID{Company: company, Application: a.Registration.Name, Environment: a.Registration.Environment}, nil
}

// Settle finishes a sign-in of the company that was cut off after UPS answered: then
// nobody has to sign in again. Where that fails, whoever begins a new one may go on.
func (a *Authorizing) Settle(ctx context.Context, id grant.ID) error {
	records, _, err := a.s.Vault.List(ctx, id.Company)
	if err != nil {
		return nil //nolint:nilerr // told by whoever needs them
	}
	var failed []error
	for _, r := range Filter(records, id.Application, id.Environment) {
		if r.Interrupted {
			_, err := a.s.Keeper.Settle(ctx, r.ID)
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Learn notes whether UPS wants the Authorization header beside the verifier from this
// application: at once for the sign-ins that begin from now on, and with the application
// for later ones. One that is not registered has nothing that it could be written to.
func (a *Authorizing) Learn(ctx context.Context, needsBasic bool) error {
	a.learning.Lock()
	defer a.learning.Unlock()
	a.mu.Lock()
	a.learned = &needsBasic
	if a.client != nil {
		client := *a.client // another sign-in uses the one before
		client.PKCENeedsBasic = needsBasic
		a.client = &client
	}
	a.mu.Unlock()
	r := a.Registration
	if r.Home == "" {
		return nil
	}
	return a.s.learn(context.WithoutCancel(ctx), r.Name, r.Environment, needsBasic)
}

// learn notes with an application whether UPS wants the Authorization header beside the
// verifier from it.
func (s *Session) learn(ctx context.Context, application, environment string, needsBasic bool) error {
	return s.UpdateApplications(ctx, func(applications *config.Applications) {
		for i := range applications.Applications {
			if one := &applications.Applications[i]; one.Name == application && one.Environment == environment {
				one.PKCENeedsBasic = needsBasic
			}
		}
	})
}

// SecretUntried reports whether nothing has shown yet that the client secret is right:
// with PKCE the exchange needs none, and a wrong one shows at the first refresh.
func (a *Authorizing) SecretUntried(ctx context.Context) bool {
	client := a.Client()
	if client == nil || client.PKCE == ups.PKCEOff || client.PKCENeedsBasic || client.Environment.Name == config.Sandbox {
		return false
	}
	records, _, err := a.s.Vault.List(ctx, "")
	tried := func(r grant.Record) bool { return r.ClientID == client.ClientID && r.RefreshCount > 0 }
	return err == nil && !slices.ContainsFunc(records, tried)
}
