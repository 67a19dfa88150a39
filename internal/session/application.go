package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// Applications are the registered applications. Nobody may change what is in them.
func (s *Session) Applications(ctx context.Context) (config.Applications, error) {
	return s.register.Applications(ctx)
}

// Register keeps the registered applications: applications.toml, or what several
// hosts share. What can't be read is an error and never no application.
type Register interface {
	// Applications are the applications as they are now. Nobody may change what is in
	// them.
	Applications(ctx context.Context) (config.Applications, error)
	// Edit reads the applications and lets edit change them. Save writes what was
	// changed so far. If somebody else changed them since they were read or saved, save
	// writes nothing and returns a *config.ConflictError.
	Edit(ctx context.Context, edit func(a *config.Applications, save func() error) error) error
}

// EditApplications changes the registered applications and what goes with them, as
// Register's Edit does.
func (s *Session) EditApplications(ctx context.Context, edit func(a *config.Applications, save func() error) error) error {
	return s.register.Edit(ctx, edit)
}

// UpdateApplications changes the registered applications, and again if somebody else
// changed them meanwhile.
func (s *Session) UpdateApplications(ctx context.Context, change func(*config.Applications)) error {
	for tries := 1; ; tries++ {
		err := s.register.Edit(ctx, func(a *config.Applications, save func() error) error {
			change(a)
			return save()
		})
		if tries == maxTries || !errors.As(err, new(*config.ConflictError)) {
			return err
		}
	}
}

// maxTries is how often a change of the applications is made again.
const maxTries = 10

// ClientFor returns the client of a grant with its secret, for a request that is
// about to be sent.
func (s *Session) ClientFor(ctx context.Context, id grant.ID) (*ups.Client, error) {
	ctx = vault.Latest(ctx)
	registration, err := s.Registration(ctx, id.Application, id.Environment)
	if err != nil {
		return nil, err
	}
	return s.Client(ctx, registration)
}

// Registration returns an application; values of the environment variables replace
// its own. The variables alone are enough for an application that is not registered,
// and the sandbox needs none of them.
func (s *Session) Registration(ctx context.Context, name, environment string) (config.Registration, error) {
	applications, err := s.Applications(ctx)
	if err != nil {
		return config.Registration{}, err
	}
	var r config.Registration
	found := applications.Find(name, environment)
	switch {
	case len(found) == 1:
		r = found[0]
	case environment == config.Sandbox:
		r = SandboxRegistration(name)
	case s.options.Getenv(config.EnvClientID) != "":
		r = config.Registration{Name: name, Environment: environment, DisplayName: config.BuiltinDisplayName(name)}
	default:
		if err := s.movedAway(ctx, Target{}); err != nil {
			return r, err // the applications went along
		}
		return r, &NotFoundError{Kind: NotRegistered, Application: name, Environment: environment}
	}
	for name, value := range map[string]*string{config.EnvClientID: &r.ClientID, config.EnvRedirectURI: &r.RedirectURI} {
		v, err := s.variable(name)
		if err != nil {
			return config.Registration{}, err
		}
		if v != "" && name == config.EnvRedirectURI {
			if err := loopback.CheckRedirectURI(v); err != nil {
				return config.Registration{}, &SettingError{Variable: config.EnvRedirectURI, Err: err}
			}
		}
		if v != "" {
			*value = v
		}
	}
	if r.DisplayName == "" {
		r.DisplayName = name
	}
	return r, nil
}

// variable is the value of an environment variable, cleaned like one that comes from
// elsewhere; empty where it is not set.
func (s *Session) variable(name string) (string, error) {
	value, err := legible.Value(s.options.Getenv(name))
	if err != nil {
		return "", &SettingError{Variable: name, Unclean: true, Err: err}
	}
	return value, nil
}

// SandboxRegistration is an application that the sandbox knows by itself, with
// any free port for the callback.
func SandboxRegistration(name string) config.Registration {
	r := config.Registration{
		Name: name, Environment: config.Sandbox, DisplayName: config.BuiltinDisplayName(name),
		ClientID: "sandbox-" + name, RedirectURI: "http://localhost:0/callback",
	}
	if r.DisplayName == "" {
		r.DisplayName = name
	}
	return r
}

// sandboxSecret is the secret of the applications that the sandbox environment
// has without registration. The sandbox takes any.
const sandboxSecret = "sandbox"

// Client returns the client of an application with its secret, for a request that is
// about to be sent.
func (s *Session) Client(ctx context.Context, r config.Registration) (*ups.Client, error) {
	secret, err := s.secretFromEnvironment(ctx, r)
	if err != nil {
		return nil, err
	}
	if secret == "" && r.Home == "" {
		if r.Environment != config.Sandbox {
			return nil, &SecretMissingError{Application: r.Name, Environment: r.Environment}
		}
		secret = sandboxSecret
	}
	if secret == "" {
		if secret, err = s.StoredSecret(ctx, r); err != nil {
			return nil, err
		}
	}
	client, err := s.caller(r.Environment)
	if err != nil {
		return nil, err
	}
	pkce, err := ups.ParsePKCE(r.PKCE)
	if err != nil {
		return nil, err
	}
	client.Application = ups.Application{
		Name: r.Name, DisplayName: r.DisplayName, ClientID: r.ClientID, ClientSecret: secret,
		RedirectURI: r.RedirectURI, Scope: r.Scope, PKCE: pkce, PKCENeedsBasic: r.PKCENeedsBasic,
	}
	return client, nil
}

// caller is a client of an environment for whoever has an access token: it is no application's.
func (s *Session) caller(environment string) (*ups.Client, error) {
	at, err := s.Environment(environment)
	if err != nil {
		return nil, err
	}
	// A process reads them once, so once they are good they stay so.
	if environment != config.Sandbox && !s.connects.Load() {
		if err := ups.CheckSettings(s.options.Getenv); err != nil {
			return nil, err
		}
		s.connects.Store(true)
	}
	return &ups.Client{Environment: at, Transport: s.options.Transport, Now: s.options.Now, UserAgent: s.options.UserAgent}, nil
}

// StoredSecret returns the client secret out of the vault.
func (s *Session) StoredSecret(ctx context.Context, r config.Registration) (string, error) {
	secret, client, err := s.Vault.ClientSecret(ctx, r.Home, r.SecretIn())
	if errors.Is(err, vault.ErrNoItem) {
		// It may have been moved since the registration was read.
		applications, listErr := s.Applications(ctx)
		if listErr != nil {
			return "", listErr
		}
		if now := applications.Find(r.Name, r.Environment); len(now) == 1 && (now[0].Home != r.Home || now[0].Fresh != r.Fresh) {
			r = now[0]
			secret, client, err = s.Vault.ClientSecret(ctx, r.Home, r.SecretIn())
		}
	}
	if errors.Is(err, vault.ErrNoItem) {
		return "", &SecretGoneError{Application: r.Name, Environment: r.Environment, Vault: r.Home}
	}
	// What the environment says, nobody has changed in a database.
	if err == nil && client != "" && client != r.ClientID && s.options.Getenv(config.EnvClientID) == "" {
		return "", &OtherClientError{Application: r.Name, Environment: r.Environment, Has: r.ClientID, Made: client}
	}
	return secret, err
}

// secretFromEnvironment returns the client secret that the environment variable
// has. It speaks of one client: of the one that the variable for the client ID names,
// or else of the only one registered. No other one's requests may carry it.
func (s *Session) secretFromEnvironment(ctx context.Context, r config.Registration) (string, error) {
	secret, err := s.variable(config.EnvClientSecret)
	if err != nil || secret == "" || s.options.Getenv(config.EnvClientID) != "" {
		return secret, err
	}
	applications, err := s.Applications(ctx)
	if err != nil || len(applications.Applications) != 1 || len(applications.Find(r.Name, r.Environment)) != 1 {
		return "", err
	}
	return secret, nil
}

// PickApplication finds the application for a new authorization: what the target
// says, else what the company was authorized for before, else the only one
// registered, else the default.
func (s *Session) PickApplication(ctx context.Context, t Target) (config.Registration, error) {
	none := config.Registration{}
	if t.Application != "" {
		if _, err := grant.CleanName("application", t.Application); err != nil {
			return none, &NameError{err}
		}
	}
	if t.Environment != "" && !slices.Contains(s.Config.EnvironmentNames(), t.Environment) {
		return none, s.NoEnvironment(t.Environment)
	}
	var before []grant.Record
	if t.Company != "" { // what others have decides nothing
		list, err := s.Records(ctx, t.Company)
		if err != nil {
			return none, err
		}
		before = list.Records
		if err := s.movedAway(ctx, t); err != nil && len(before) == 0 {
			return none, err
		}
	}
	applications, err := s.Applications(ctx)
	if err != nil {
		return none, err
	}
	// A grant from trying things out in the sandbox does not decide where a
	// registered application is meant.
	fit := slices.DeleteFunc(slices.Clone(Filter(before, t.Application, t.Environment)), func(r grant.Record) bool {
		return r.Environment == config.Sandbox && t.Environment == "" && len(applications.Applications) > 0
	})
	if len(fit) == 1 {
		return s.Registration(ctx, fit[0].Application, fit[0].Environment)
	}
	found := applications.Find(t.Application, t.Environment)
	if len(found) > 1 && applications.Default != nil {
		d := applications.Default
		if byDefault := (config.Applications{Applications: found}).Find(d.Application, d.Environment); len(byDefault) == 1 {
			found = byDefault
		}
	}
	fromEnvironment := s.options.Getenv(config.EnvClientID) != ""
	switch {
	case len(found) == 1:
		return s.Registration(ctx, found[0].Name, found[0].Environment)
	case len(found) > 1:
		return none, &SeveralError{Applications: found}
	case t.Environment == config.Sandbox || fromEnvironment:
		return s.Registration(ctx, cmp.Or(t.Application, config.IntelligentRating), cmp.Or(t.Environment, ups.Production))
	}
	if err := s.movedAway(ctx, Target{}); err != nil {
		return none, err
	}
	return none, &NotFoundError{Kind: NoRegistration, Application: t.Application, Environment: t.Environment, Registered: applications.Applications}
}

// FindApplication finds the one registration of a name, in one environment where
// that is not empty.
func (s *Session) FindApplication(ctx context.Context, name, environment string) (config.Registration, error) {
	applications, err := s.Applications(ctx)
	if err != nil {
		return config.Registration{}, err
	}
	switch found := applications.Find(name, environment); len(found) {
	case 0:
		return config.Registration{}, &NotFoundError{Kind: NoApplicationOfName, Application: name, Environment: environment}
	case 1:
		return found[0], nil
	default:
		return config.Registration{}, &SeveralError{Name: name, Applications: found}
	}
}

// SharedRedirect are the environments whose applications have the redirect URI of
// another one's, nil where only one has it: nothing in UPS's answer says which of
// them it comes from, so a hostile environment could be given another's code
// (RFC 9700 section 4.4).
func (s *Session) SharedRedirect(ctx context.Context, r config.Registration) ([]string, error) {
	applications, err := s.Applications(ctx)
	if err != nil {
		return nil, err
	}
	sharing := []string{r.Environment}
	for _, other := range applications.Applications {
		if loopback.SameRedirectURI(r.RedirectURI, other.RedirectURI) && !slices.Contains(sharing, other.Environment) {
			sharing = append(sharing, other.Environment)
		}
	}
	if len(sharing) == 1 {
		return nil, nil
	}
	slices.Sort(sharing)
	return sharing, nil
}

// SharedRedirectWarning says so in a sentence, empty where there is nothing to say.
func (s *Session) SharedRedirectWarning(ctx context.Context, r config.Registration) (string, error) {
	sharing, err := s.SharedRedirect(ctx, r)
	if err != nil || len(sharing) == 0 {
		return "", err
	}
	return fmt.Sprintf("the environments %s share the redirect URI %s. If one of them is hostile, "+
		"it can get a code of another. Give each environment a redirect URI of its own.", strings.Join(sharing, ", "), r.RedirectURI), nil
}

// ReplaceSecret registers an application in place of a registered one, with its
// secret. ReplaceSecret first writes the new secret beside the old secret. The new
// secret counts from the single write that changes the client ID, and the old secret
// counts until then.
func (s *Session) ReplaceSecret(ctx context.Context, a *config.Applications, save func() error, r *config.Registration, secret string) error {
	if err := s.Vault.PutClientSecret(ctx, r.Home, r.FreshAccount(), secret, r.ClientID); err != nil {
		return err
	}
	r.Fresh = true
	a.Put(*r)
	if err := save(); err != nil {
		dropped := s.Vault.DeleteSecret(context.WithoutCancel(ctx), r.Home, r.FreshAccount())
		if errors.Is(dropped, vault.ErrNoItem) {
			dropped = nil
		}
		return errors.Join(err, dropped)
	}
	return s.PlaceFresh(ctx, a, save, r, secret)
}

// AddSecret registers an application with its secret.
func (s *Session) AddSecret(ctx context.Context, a *config.Applications, save func() error, r config.Registration, secret string) error {
	undo, err := s.putSecret(ctx, r, secret)
	if err != nil {
		return err
	}
	a.Put(r)
	if err := save(); err != nil {
		return undo(err)
	}
	return nil
}

// putSecret stores a client secret whose registration is about to be saved. Undo
// puts back what there was, where that fails with err: a secret without a
// registration is one that nobody looks after.
func (s *Session) putSecret(ctx context.Context, r config.Registration, secret string) (undo func(err error) error, err error) {
	account := r.SecretAccount()
	old, client, oldErr := s.Vault.ClientSecret(ctx, r.Home, account)
	if err := s.Vault.PutClientSecret(ctx, r.Home, account, secret, r.ClientID); err != nil {
		return nil, err
	}
	return func(err error) error {
		ctx := context.WithoutCancel(ctx)
		var undone error
		switch {
		case errors.Is(oldErr, vault.ErrNoItem):
			if undone = s.Vault.DeleteSecret(ctx, r.Home, account); errors.Is(undone, vault.ErrNoItem) {
				undone = nil
			}
		case oldErr == nil:
			undone = s.Vault.PutClientSecret(ctx, r.Home, account, old, client)
		}
		return errors.Join(err, undone)
	}, nil
}

// CanRefresh returns what would keep grants from being refreshed here, as far as can
// be told without a secret: locks, journals and records are tried and removed again.
func (s *Session) CanRefresh(ctx context.Context, records []grant.Record) error {
	if err := s.Disk.Rehearse(); err != nil {
		return err
	}
	applications, err := s.Applications(ctx)
	if err != nil {
		return err
	}
	looked := map[string]bool{}
	for _, r := range records {
		application := r.Application + "/" + r.Environment
		if r.TokenVaultKey == "" || looked[application+r.Home] {
			continue
		}
		looked[application+r.Home] = true
		if r.Home == s.Files.Name() {
			if err := s.Files.Ready(); err != nil {
				return err
			}
		}
		if len(applications.Find(r.Application, r.Environment)) == 0 {
			// One of the sandbox's, or of the environment's variables, may do.
			if _, err := s.Registration(ctx, r.Application, r.Environment); err != nil {
				return err
			}
		}
	}
	return nil
}

// named is how sentences call an application.
func named(application, environment string) string {
	return fmt.Sprintf("%s (%s)", application, environment)
}
