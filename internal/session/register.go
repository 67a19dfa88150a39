package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/ups"
)

// Field is a value of a registration.
type Field string

// The fields that can be wrong.
const (
	FieldName        Field = "name"
	FieldClientID    Field = "client-id"
	FieldRedirectURI Field = "redirect-uri"
	FieldPublicURI   Field = "public-redirect-uri"
	FieldDisplayName Field = "display-name"
	FieldScope       Field = "scope"
	FieldPKCE        Field = "pkce"
	FieldSecret      Field = "client-secret"
)

// FieldError says what is wrong with a value of a registration.
type FieldError struct {
	Field Field
	// Missing says that there is no value where one is needed.
	Missing bool
	Err     error
}

func (e *FieldError) Error() string { return e.Err.Error() }

func (e *FieldError) Unwrap() error { return e.Err }

// CheckRegistration cleans what somebody typed of a registration and returns all that is
// wrong with it, nil if nothing is.
func CheckRegistration(r *config.Registration) []*FieldError {
	var wrong []*FieldError
	add := func(field Field, err error) {
		if err != nil {
			wrong = append(wrong, &FieldError{Field: field, Err: err})
		}
	}
	_, err := grant.CleanName("application", r.Name)
	add(FieldName, err)
	for _, value := range []struct {
		field Field
		what  string
		text  *string
	}{
		{FieldClientID, "client ID", &r.ClientID}, {FieldRedirectURI, "redirect URI", &r.RedirectURI},
		{FieldPublicURI, "public redirect URI", &r.PublicRedirectURI},
		{FieldDisplayName, "display name", &r.DisplayName}, {FieldScope, "scope", &r.Scope},
	} {
		clean, err := legible.Value(*value.text)
		if err != nil {
			add(value.field, fmt.Errorf("the %s can't be used: %w", value.what, err))
			continue
		}
		*value.text = clean
	}
	r.DisplayName = legible.Name(r.DisplayName)
	switch {
	case r.ClientID == "":
		wrong = append(wrong, &FieldError{FieldClientID, true, errors.New("the client ID is missing")})
	case strings.ContainsFunc(r.ClientID, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		add(FieldClientID, fmt.Errorf("the client ID %q has a space or a control character", r.ClientID))
	}
	if r.RedirectURI == "" {
		wrong = append(wrong, &FieldError{FieldRedirectURI, true, errors.New("the redirect URI is missing")})
	} else {
		add(FieldRedirectURI, loopback.CheckRedirectURI(r.RedirectURI))
	}
	if r.PublicRedirectURI != "" {
		add(FieldPublicURI, config.CheckPublicURI(r.PublicRedirectURI))
	}
	_, err = ups.ParsePKCE(r.PKCE)
	add(FieldPKCE, err)
	return wrong
}

// Registered is what became of a registration.
type Registered struct {
	Registration config.Registration
	// Replaced says that the application was registered before.
	Replaced bool
	// OtherSecret is the account whose client secret was replaced although no application
	// of this configuration directory had it, empty for none.
	OtherSecret string
	// Left is why the secret could not be removed from its home before, nil if it was.
	Left error
}

// RegisterApplication registers an application with its client secret, or replaces its
// registration. Its home is that of new grants.
func (s *Session) RegisterApplication(ctx context.Context, r config.Registration, secret string) (Registered, error) {
	var done Registered
	changed := false // the client ID
	if !slices.Contains(s.Config.EnvironmentNames(), r.Environment) {
		return done, s.NoEnvironment(r.Environment)
	}
	r.Home = s.Config.Vault
	if err := s.Vault.Make(ctx, r.Home); err != nil {
		return done, err
	}
	s.FinishAndTell(ctx)
	end, err := s.AnnounceNewSecret(ctx, r)
	if err != nil {
		return done, err
	}
	err = s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		before := a.Find(r.Name, r.Environment)
		done = Registered{Replaced: len(before) > 0}
		changed = len(before) > 0 && before[0].ClientID != r.ClientID
		if old, err := s.Vault.Secret(ctx, r.Home, r.SecretAccount()); err == nil && old != secret && len(before) == 0 {
			// All configuration directories of a user share the one keychain.
			done.OtherSecret = r.SecretAccount()
		}
		if len(before) == 1 {
			if err := s.FinishFreshSecret(ctx, a, save, &before[0]); err != nil {
				return err
			}
			if r.LeftIn = before[0].LeftIn; before[0].Home != r.Home {
				r.LeftIn = before[0].Home
			}
		}
		if len(before) == 1 && before[0].Home == r.Home {
			if err := s.ReplaceSecret(ctx, a, save, &r, secret); err != nil {
				return err
			}
		} else if err := s.AddSecret(ctx, a, save, r, secret); err != nil {
			return err
		}
		if r.LeftIn == "" {
			return nil
		}
		if done.Left = s.DropLeftSecret(ctx, r); done.Left != nil {
			return nil //nolint:nilerr // the caller is told of it, and the application is registered
		}
		r.LeftIn = ""
		a.Put(r)
		return save()
	})
	done.Registration = r
	if err = end(err); err == nil && changed {
		if err := s.SettleInvitations(context.WithoutCancel(ctx)); err != nil {
			s.step(ctx, err.Error()) // they are judged to have ended all the same
		}
	}
	return done, err
}

// SetSecret replaces the client secret of a registered application.
func (s *Session) SetSecret(ctx context.Context, r config.Registration, secret string) error {
	if err := s.Vault.Make(ctx, r.Home); err != nil {
		return err
	}
	return s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		found := a.Find(r.Name, r.Environment)
		if len(found) == 0 {
			return &NotFoundError{Kind: RemovedMeanwhile, Application: r.Name, Environment: r.Environment}
		}
		// Nobody gives a secret to a client that somebody else has put there.
		if _, err := s.StoredSecret(ctx, found[0]); errors.As(err, new(*OtherClientError)) {
			return err
		}
		if found[0].Fresh {
			return s.PlaceFresh(ctx, a, save, &found[0], secret)
		}
		return s.Vault.PutClientSecret(ctx, found[0].Home, r.SecretAccount(), secret, found[0].ClientID)
	})
}

// SetRedirectURI changes the redirect URI of a registered application alone.
func (s *Session) SetRedirectURI(ctx context.Context, r config.Registration, uri string) error {
	return s.changeApplication(ctx, r, func(r *config.Registration) { r.RedirectURI = uri })
}

// SetPublicRedirectURI changes the public redirect URI of a registered application alone;
// an empty one removes it.
func (s *Session) SetPublicRedirectURI(ctx context.Context, r config.Registration, uri string) error {
	return s.changeApplication(ctx, r, func(r *config.Registration) { r.PublicRedirectURI = uri })
}

func (s *Session) changeApplication(ctx context.Context, r config.Registration, change func(*config.Registration)) error {
	found := false
	err := s.UpdateApplications(ctx, func(a *config.Applications) {
		found = false
		for i := range a.Applications {
			if one := &a.Applications[i]; one.Name == r.Name && one.Environment == r.Environment {
				change(one)
				found = true
			}
		}
	})
	if err == nil && !found {
		return &NotFoundError{Kind: RemovedMeanwhile, Application: r.Name, Environment: r.Environment}
	}
	return err
}

// Configured returns what keeps an application from being used: it is not registered, or
// its client secret can't be had.
func (s *Session) Configured(ctx context.Context, name, environment string) error {
	r, err := s.Registration(ctx, name, environment)
	if err != nil {
		return err
	}
	if r.Home != "" {
		_, err = s.StoredSecret(ctx, r)
		return err
	}
	if r.Environment == config.Sandbox {
		return nil
	}
	secret, err := s.secretFromEnvironment(ctx, r)
	if err == nil && secret == "" {
		err = &SecretMissingError{Application: r.Name, Environment: r.Environment}
	}
	return err
}

// AuthorizeAgain are the companies whose authorization ends in use if an application gets
// another client ID: UPS takes a refresh token from the client alone that it was given to.
func (s *Session) AuthorizeAgain(ctx context.Context, name, environment, clientID string) ([]string, error) {
	list, err := s.Records(ctx, "")
	if err != nil {
		return nil, err
	}
	var companies []string
	for _, r := range Authorized(Filter(list.Records, name, environment)) {
		if r.ClientID != clientID {
			companies = append(companies, r.Company)
		}
	}
	return slices.Compact(companies), nil
}

// DisplayName is what UPS's consent page calls an application, as far as it is known.
func DisplayName(r config.Registration) string {
	if r.DisplayName != r.Name && r.DisplayName != "" {
		return r.DisplayName
	}
	return cmp.Or(config.BuiltinDisplayName(r.Name), r.Name)
}
