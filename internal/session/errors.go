package session

import (
	"fmt"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// NotFoundError says that there is no company, grant, application or environment as
// it was named. What can't be read is never this error.
type NotFoundError struct {
	Kind Missing
	// Company, Application and Environment are what was asked for, as far as it was.
	Company, Application, Environment string
	// Near is a company's name that may have been meant, empty for none.
	Near string
	// Unused is why nothing is known here at all, empty where something is.
	Unused string
	// Has are the grants that the company has, for NoGrant.
	Has []grant.ID
	// Registered are the applications that there are, for NoRegistration.
	Registered []config.Registration
	// Environments are those that there are, and File is where more can be defined,
	// for NoEnvironment.
	Environments []string
	File         string
}

// Missing is what there is not.
type Missing int

const (
	// NoCompany: no company of the name is known.
	NoCompany Missing = iota
	// NoPattern: no company is known by the name, and it is no pattern of names.
	NoPattern
	// NothingFits: no company fits the pattern.
	NothingFits
	// NoAuthorization: the company is known and has no grant at all.
	NoAuthorization
	// NoGrant: the company has grants, and none as it was asked for.
	NoGrant
	// NoApplication: there is no application of the name, with grants or without.
	NoApplication
	// NoApplicationOfName: no application of the name is registered.
	NoApplicationOfName
	// NotRegistered: an application that grants were made with is not registered.
	NotRegistered
	// NoRegistration: no application that could be authorized is registered.
	NoRegistration
	// RemovedMeanwhile: the application was removed since it was found.
	RemovedMeanwhile
	// NoEnvironment: there is no such environment.
	NoEnvironment
)

func (e *NotFoundError) Error() string {
	switch e.Kind {
	case NoPattern:
		return fmt.Sprintf("no company %q is known here, and the name is not a pattern such as \"Acme*\"", e.Company)
	case NothingFits:
		return fmt.Sprintf("no company matches %q%s", e.Company, Describe(e.Application, e.Environment))
	case NoAuthorization:
		return e.Company + " has no authorization yet"
	case NoGrant:
		return fmt.Sprintf("%s has no authorization%s", e.Company, Describe(e.Application, e.Environment))
	case NoApplication:
		return fmt.Sprintf("there is no application %q", e.Application)
	case NoApplicationOfName:
		return fmt.Sprintf("no application %q is registered%s", e.Application, Describe("", e.Environment))
	case NotRegistered:
		return fmt.Sprintf("the application %q is not registered for %s", e.Application, e.Environment)
	case NoRegistration:
		if e.Application != "" {
			return fmt.Sprintf("the application %q is not registered%s", e.Application, Describe("", e.Environment))
		}
		return "no application is registered" + Describe("", e.Environment)
	case RemovedMeanwhile:
		return fmt.Sprintf("the application %s was removed meanwhile", named(e.Application, e.Environment))
	case NoEnvironment:
		return fmt.Sprintf("there is no environment %q", e.Environment)
	}
	return fmt.Sprintf("no company %q is known here", e.Company)
}

// Describe says which application and environment are meant, behind a sentence;
// empty where any are.
func Describe(application, environment string) string {
	text := ""
	if application != "" {
		text += " for the application " + application
	}
	if environment != "" {
		text += " in the environment " + environment
	}
	return text
}

// SeveralError says that several grants or applications fit, and one is wanted.
type SeveralError struct {
	// Target is what was asked for and Grants are those that fit, where grants are
	// meant.
	Target Target
	Grants []grant.ID
	// Applications are those that fit, otherwise; Name is what all of them are
	// called, empty where they are not.
	Name         string
	Applications []config.Registration
}

func (e *SeveralError) Error() string {
	switch {
	case len(e.Grants) > 0:
		return fmt.Sprintf("%s has several authorizations%s", e.Grants[0].Company, Describe(e.Target.Application, e.Target.Environment))
	case e.Name != "":
		return e.Name + " is registered in several environments"
	}
	return "several applications are registered"
}

// SettingError says that the value of an environment variable can't be used.
type SettingError struct {
	Variable string
	Unclean  bool // it has characters in it that no value has
	Err      error
}

func (e *SettingError) Error() string {
	what := "a value of the environment"
	switch e.Variable {
	case config.EnvClientID:
		what = "the client ID in the environment"
	case config.EnvClientSecret:
		what = "the client secret in the environment"
	case config.EnvRedirectURI:
		what = "the redirect URI in the environment"
	}
	return e.In(what)
}

// In is the error's text with a face's own name for the setting.
func (e *SettingError) In(name string) string {
	if e.Unclean {
		return fmt.Sprintf("%s can't be used: %v", name, e.Err)
	}
	return fmt.Sprintf("%s: %v", name, e.Err)
}

func (e *SettingError) Unwrap() error { return e.Err }

// NameError says that a name can't be one.
type NameError struct{ Err error }

func (e *NameError) Error() string { return e.Err.Error() }

func (e *NameError) Unwrap() error { return e.Err }

// SecretMissingError says that no client secret is known of an application that is
// not registered.
type SecretMissingError struct{ Application, Environment string }

func (e *SecretMissingError) Error() string { return "the client secret is missing" }

// RedirectMissingError says that no redirect URI is known of an application that is not
// registered.
type RedirectMissingError struct{ Application, Environment string }

func (e *RedirectMissingError) Error() string { return "the redirect URI is missing" }

// OtherClientError says that an application's secret was saved for another client ID than the
// application has. Nobody is sent to that client: it may be somebody else's.
type OtherClientError struct{ Application, Environment, Has, Made string }

func (e *OtherClientError) Error() string {
	return fmt.Sprintf("%s has the client ID %s, and its client secret was saved for the client ID %s", named(e.Application, e.Environment), e.Has, e.Made)
}

// SecretGoneError says that the client secret of a registered application is not in
// its home.
type SecretGoneError struct{ Application, Environment, Vault string }

func (e *SecretGoneError) Error() string {
	return fmt.Sprintf("The client secret of the application %s is not in the %s.", named(e.Application, e.Environment), vault.Describe(e.Vault))
}

// ContactError is the error of a grant that only a person brings back, with whom
// to ring.
type ContactError struct {
	Err     error
	Contact string
}

func (e *ContactError) Error() string { return e.Err.Error() }

func (e *ContactError) Unwrap() error { return e.Err }

// WithContact adds whom to ring to an error, where somebody is known.
func WithContact(err error, contact string) error {
	if err == nil || contact == "" {
		return err
	}
	return &ContactError{err, contact}
}

// ClashError says that two companies can't become one, as both have an authorization
// for the same application and environment. Nothing was changed.
type ClashError struct{ One, Other grant.ID }

func (e *ClashError) Error() string {
	return fmt.Sprintf("%s and %s both have an authorization for %s in %s, and one company can have only one; nothing was changed",
		e.One.Company, e.Other.Company, e.One.Application, e.One.Environment)
}

// IDs are the grants that records speak of.
func IDs(records []grant.Record) []grant.ID {
	list := make([]grant.ID, len(records))
	for i, r := range records {
		list[i] = r.ID
	}
	return list
}
