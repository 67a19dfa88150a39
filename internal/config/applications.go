package config

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/pelletier/go-toml/v2"

	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/ups"
)

// The applications that upsauth knows by name, with the names that UPS's own
// consent page gives them.
const (
	IntelligentRating = "intelligent-rating"
	BatchSuite        = "batch-suite"
)

// BuiltinDisplayName is what UPS's consent page calls a built-in application,
// empty for others.
func BuiltinDisplayName(name string) string {
	switch name {
	case IntelligentRating:
		return "UPS® Intelligent Rating"
	case BatchSuite:
		return "UPS® Batch Suite"
	}
	return ""
}

// Registration is one application as registered with upsauth, for one
// environment. Its secret is in the vault.
type Registration struct {
	Name        string `toml:"name" json:"name"`
	Environment string `toml:"environment" json:"environment"`
	DisplayName string `toml:"display_name,omitempty" json:"display_name"`
	ClientID    string `toml:"client_id" json:"client_id"`
	RedirectURI string `toml:"redirect_uri" json:"redirect_uri"`
	Scope       string `toml:"scope,omitempty" json:"scope"`
	PKCE        string `toml:"pkce,omitempty" json:"pkce"`
	// PKCENeedsBasic is learned: UPS wanted the Authorization header beside
	// the verifier.
	PKCENeedsBasic bool `toml:"pkce_needs_basic,omitempty" json:"pkce_needs_basic"`
	// Vault is the home that has the client secret.
	Vault string `toml:"vault" json:"vault"`
	// LeftIn is another home that may have it too, as a move was cut off.
	LeftIn string `toml:"left_in,omitempty" json:"-"`
}

// SecretAccount is the account name of an application's client secret.
func (r Registration) SecretAccount() string { return "app/" + r.Environment + "/" + r.Name }

// Default names the application that commands use where several fit.
type Default struct {
	Application string `toml:"application"`
	Environment string `toml:"environment"`
}

// Applications is applications.toml, which upsauth writes itself.
type Applications struct {
	path         string
	Version      int            `toml:"version"`
	Default      *Default       `toml:"default,omitempty"`
	Applications []Registration `toml:"application"`
}

const applicationsVersion = 1

// LoadApplications reads applications.toml, which need not exist. Errors are
// *Error.
func LoadApplications(dir string) (Applications, error) {
	a := Applications{path: filepath.Join(dir, "applications.toml"), Version: applicationsVersion}
	if err := safefile.CheckUnwritable(a.path); err != nil {
		return a, &Error{Path: a.path, Err: err}
	}
	data, err := safefile.ReadFile(a.path)
	if os.IsNotExist(err) {
		return a, nil
	}
	if err != nil {
		return a, &Error{Path: a.path, Err: err}
	}
	// The version alone comes first: nobody knows what a newer format looks like.
	var format struct {
		Version int `toml:"version"`
	}
	if err := toml.Unmarshal(data, &format); err != nil {
		return a, &Error{Path: a.path, Err: explain(err)}
	}
	if format.Version > applicationsVersion {
		return a, &Error{Path: a.path, Err: fmt.Errorf("it was written by a newer upsauth (format %d, this one knows %d)", format.Version, applicationsVersion)}
	}
	var read Applications
	if err := toml.Unmarshal(data, &read); err != nil {
		return a, &Error{Path: a.path, Err: explain(err)}
	}
	read.path, read.Version = a.path, applicationsVersion
	for i, r := range read.Applications {
		if _, err := ups.ParsePKCE(r.PKCE); err != nil || r.Name == "" || r.Environment == "" || r.ClientID == "" {
			return a, &Error{Path: a.path, Err: fmt.Errorf("its application no. %d is not complete", i+1)}
		}
		if r.RedirectURI == "" {
			continue
		}
		if err := loopback.CheckRedirectURI(r.RedirectURI); err != nil {
			return a, &Error{Path: a.path, Err: fmt.Errorf("its application no. %d: %w", i+1, err)}
		}
	}
	return read, nil
}

func (a *Applications) save() error {
	slices.SortFunc(a.Applications, func(x, y Registration) int {
		return strings.Compare(x.Environment+"\x00"+x.Name, y.Environment+"\x00"+y.Name)
	})
	data, err := toml.Marshal(a)
	if err != nil {
		return &Error{Path: a.path, Err: err}
	}
	const head = "# Written by upsauth. The client secrets are in the vault.\n"
	if err := safefile.Write(a.path, append([]byte(head), data...)); err != nil {
		return &Error{Path: a.path, Err: err}
	}
	return nil
}

// UpdateApplications changes applications.toml, one process after another.
func UpdateApplications(dir string, change func(*Applications) error) error {
	return EditApplications(context.Background(), dir, func(a *Applications, save func() error) error {
		if err := change(a); err != nil {
			return err
		}
		return save()
	})
}

// EditApplications lets no other process change applications.toml meanwhile, nor
// the client secrets that go with it; save writes what was changed so far.
func EditApplications(ctx context.Context, dir string, edit func(a *Applications, save func() error) error) error {
	if err := safefile.MkdirAll(dir); err != nil {
		return &Error{Path: dir, Err: err}
	}
	lock := flock.New(filepath.Join(dir, "applications.lock"), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &Error{Path: lock.Path(), Err: fmt.Errorf("the list of applications can't be locked: %w", err)}
	}
	defer lock.Close()
	a, err := LoadApplications(dir)
	if err != nil {
		return err
	}
	return edit(&a, a.save)
}

// Find returns the registrations that fit; an empty name or environment fits
// all.
func (a Applications) Find(name, environment string) []Registration {
	var found []Registration
	for _, r := range a.Applications {
		if (name == "" || r.Name == name) && (environment == "" || r.Environment == environment) {
			found = append(found, r)
		}
	}
	return found
}

// Put adds a registration or replaces the one of the same name and environment.
func (a *Applications) Put(r Registration) {
	a.Applications = append(a.without(r.Name, r.Environment), r)
}

// Remove takes a registration out; it is the default no longer.
func (a *Applications) Remove(name, environment string) {
	a.Applications = a.without(name, environment)
	if a.Default != nil && *a.Default == (Default{Application: name, Environment: environment}) {
		a.Default = nil
	}
}

func (a *Applications) without(name, environment string) []Registration {
	return slices.DeleteFunc(slices.Clone(a.Applications), func(r Registration) bool {
		return r.Name == name && r.Environment == environment
	})
}
