package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/upsauth/upsauth/internal/grant"
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
	// PublicRedirectURI is where UPS sends the browsers of customers who were invited,
	// below public_url.
	PublicRedirectURI string `toml:"public_redirect_uri,omitempty" json:"public_redirect_uri,omitempty"`
	Scope             string `toml:"scope,omitempty" json:"scope"`
	PKCE              string `toml:"pkce,omitempty" json:"pkce"`
	// PKCENeedsBasic is learned: UPS wanted the Authorization header beside
	// the verifier.
	PKCENeedsBasic bool `toml:"pkce_needs_basic,omitempty" json:"pkce_needs_basic"`
	// Home is the home that has the client secret.
	Home string `toml:"vault" json:"vault"`
	// LeftIn is another home that may have it too, as a move was cut off.
	LeftIn string `toml:"left_in,omitempty" json:"-"`
	// Fresh says that the secret is under FreshAccount yet, as a replacement was cut
	// off: SecretAccount may have that of the client before.
	Fresh bool `toml:"fresh,omitempty" json:"-"`
}

// HomeShared is the home of secrets that several hosts share.
const HomeShared = "shared"

// SecretAccount is the account name of an application's client secret.
func (r Registration) SecretAccount() string { return "app/" + r.Environment + "/" + r.Name }

// FreshAccount has a client secret while a registration is replaced, so that the
// client ID and the secret that belong together change in one write.
func (r Registration) FreshAccount() string { return r.SecretAccount() + "/new" }

// SecretIn is the account name under which the client secret is now.
func (r Registration) SecretIn() string {
	if r.Fresh {
		return r.FreshAccount()
	}
	return r.SecretAccount()
}

// Default names the application that commands use where several fit.
type Default struct {
	Application string `toml:"application"`
	Environment string `toml:"environment"`
}

// Applications are the registered applications, as applications.toml has them, which
// upsauth writes itself.
type Applications struct {
	// Revision is the state in which they were read. Only what keeps them understands
	// it; it is empty where there are none yet.
	Revision     string         `toml:"-"`
	Version      int            `toml:"version"`
	Default      *Default       `toml:"default,omitempty"`
	Applications []Registration `toml:"application"`
}

const applicationsVersion = 1

func applicationsPath(dir string) string { return filepath.Join(dir, "applications.toml") }

// LoadApplications reads applications.toml, which need not exist. Load has
// checked who else can write it. Errors are *Error.
func LoadApplications(dir string) (Applications, error) {
	return NewRegister(dir).load()
}

// Register is applications.toml for as long as a process lives. It may be used by
// several goroutines at once.
type Register struct {
	path string

	mu    sync.Mutex
	known Applications // of its revision, empty for none
}

// NewRegister returns the register in a configuration directory.
func NewRegister(dir string) *Register { return &Register{path: applicationsPath(dir)} }

// Applications are LoadApplications' as they are now. The file's text is compared each
// time, and taken apart only where it changed: inode, time and size may all come round
// again. Nobody may change what is in the result.
func (r *Register) Applications(ctx context.Context) (Applications, error) {
	if err := ctx.Err(); err != nil {
		return Applications{}, err
	}
	return r.load()
}

func (r *Register) load() (Applications, error) {
	none := Applications{Version: applicationsVersion}
	revision, text, err := r.read()
	if err != nil || revision == "" {
		return none, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if revision == r.known.Revision {
		return r.known, nil
	}
	known, err := parseApplications(text)
	if err != nil {
		return none, &Error{Path: r.path, Err: err}
	}
	known.Revision = revision
	r.known = known
	return known, nil
}

// read returns the file's text and its revision: the text, marked because an empty
// file has a revision too.
func (r *Register) read() (revision string, text []byte, err error) {
	text, err = safefile.ReadFile(r.path)
	if os.IsNotExist(err) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, unreadable(r.path, err)
	}
	return "=" + string(text), text, nil
}

// parseApplications reads the text of an applications.toml. Its names become
// names of files and accounts.
func parseApplications(data []byte) (Applications, error) {
	var read Applications
	err := toml.Unmarshal(data, &read)
	version := read.Version
	if err != nil {
		// Nobody knows what a newer format looks like.
		var format struct {
			Version int `toml:"version"`
		}
		if toml.Unmarshal(data, &format) == nil {
			version = format.Version
		}
	}
	if version > applicationsVersion {
		return Applications{}, fmt.Errorf("it was written by a newer upsauth (format %d, this one knows %d)", version, applicationsVersion)
	}
	if err != nil {
		return Applications{}, explain(err)
	}
	read.Version = applicationsVersion
	for i, r := range read.Applications {
		if err := r.Check(); err != nil {
			return Applications{}, fmt.Errorf("its application no. %d %w", i+1, err)
		}
	}
	if d := read.Default; d != nil {
		if err := d.Check(); err != nil {
			return Applications{}, fmt.Errorf("its default application is invalid: %w", err)
		}
	}
	return read, nil
}

// Check reports what can't be so in a default application.
func (d Default) Check() error {
	_, nameErr := grant.CleanName("application", d.Application)
	_, environmentErr := grant.CleanName("environment", d.Environment)
	if err := errors.Join(nameErr, environmentErr); err != nil {
		return errors.New(oneLine(err))
	}
	return nil
}

// Check reports what can't be so in a registration, whatever keeps it. The error goes on
// with a sentence that begins with the registration.
func (r Registration) Check() error {
	if _, err := ups.ParsePKCE(r.PKCE); err != nil || r.Name == "" || r.Environment == "" || r.ClientID == "" {
		return errors.New("is not complete")
	}
	if _, err := grant.CleanName("application", r.Name); err != nil {
		return fmt.Errorf("has an invalid name: %w", err)
	}
	if _, err := grant.CleanName("environment", r.Environment); err != nil {
		return fmt.Errorf("has an invalid environment: %w", err)
	}
	if r.RedirectURI != "" {
		if err := loopback.CheckRedirectURI(r.RedirectURI); err != nil {
			return fmt.Errorf("has a redirect URI that can't be used: %w", err)
		}
	}
	for _, home := range []string{r.Home, r.LeftIn} {
		if home == "" || home == HomeShared {
			continue
		}
		if _, err := checkVault(home); err != nil {
			return fmt.Errorf("names no place for its secret: %w", err)
		}
	}
	return nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// save replaces the file as a whole, if it is as it was when a was read. Where a link
// leads to it from elsewhere, as from a directory of dotfiles, the link stays.
func (r *Register) save(a *Applications) error {
	slices.SortFunc(a.Applications, func(x, y Registration) int {
		return strings.Compare(x.Environment+"\x00"+x.Name, y.Environment+"\x00"+y.Name)
	})
	data, err := toml.Marshal(a)
	if err != nil {
		return &Error{Path: r.path, Err: err}
	}
	const head = "# Written by upsauth. The client secrets are in the vault.\n"
	data = append([]byte(head), data...)
	// A person's editor takes no lock.
	switch revision, _, err := r.read(); {
	case err != nil:
		return err
	case revision != a.Revision:
		return &ConflictError{Path: r.path}
	}
	path, err := filepath.EvalSymlinks(r.path)
	if os.IsNotExist(err) {
		path, err = r.path, nil
	}
	if err == nil {
		err = safefile.Write(path, data)
	}
	if err != nil {
		return &ReplaceError{Path: path, Err: err}
	}
	a.Revision = "=" + string(data)
	return nil
}

// ConflictError says that somebody else changed the applications after they were
// read. Nothing was saved.
type ConflictError struct{ Path string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("another program changed %s at the same time; nothing was saved. Try again", e.Path)
}

// ReplaceError says that applications.toml can't be replaced, which is how it is
// changed.
type ReplaceError struct {
	Path string
	Err  error
}

func (e *ReplaceError) Error() string {
	why := e.Err.Error()
	switch {
	case errors.Is(e.Err, syscall.EBUSY):
		why = "something is mounted on the file itself. Mount the directory that it is in instead"
	case errors.Is(e.Err, syscall.EROFS):
		why = "its file system is read-only. Make the directory writable, or change the file where it comes from"
	case errors.Is(e.Err, fs.ErrPermission):
		why = fmt.Sprintf("this user may not write in %s. Make the directory writable, or change the file where it comes from", filepath.Dir(e.Path))
	}
	return fmt.Sprintf("%s can't be replaced: %s", e.Path, why)
}

func (e *ReplaceError) Unwrap() error { return e.Err }

// Edit lets no other process change applications.toml meanwhile, nor the client
// secrets that go with it. Save writes what was changed so far. It returns a
// *ConflictError if another program, such as an editor, changed the file since it was
// read or saved.
func (r *Register) Edit(ctx context.Context, edit func(a *Applications, save func() error) error) error {
	dir := filepath.Dir(r.path)
	if err := safefile.MkdirAll(dir); err != nil {
		return &Error{Path: dir, Err: err}
	}
	path := filepath.Join(dir, "applications.lock")
	lock := safefile.NewLock(path)
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &Error{Path: path, Err: fmt.Errorf("the list of applications can't be locked: %w", safefile.Explain(path, err))}
	}
	defer lock.Close()
	a, err := r.load()
	if err != nil {
		return err
	}
	a = a.clone()
	return edit(&a, func() error { return r.save(&a) })
}

// clone shares nothing with what others read.
func (a Applications) clone() Applications {
	a.Applications = slices.Clone(a.Applications)
	if a.Default != nil {
		d := *a.Default
		a.Default = &d
	}
	return a
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
