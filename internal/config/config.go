// Package config reads what the user sets: config.toml, environment variables,
// and the applications registered in applications.toml beside it.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adrg/xdg"
	"github.com/pelletier/go-toml/v2"

	"github.com/upsauth/upsauth/internal/address"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/ups"
)

// The environment variables that upsauth reads.
const (
	EnvConfigDir      = "UPSAUTH_CONFIG_DIR"
	EnvStateDir       = "UPSAUTH_STATE_DIR"
	EnvVault          = "UPSAUTH_VAULT"
	EnvIdentity       = "UPSAUTH_IDENTITY"
	EnvPassphrase     = "UPSAUTH_PASSPHRASE"
	EnvPassphraseFile = "UPSAUTH_PASSPHRASE_FILE"
	EnvClientID       = "UPSAUTH_CLIENT_ID"
	EnvClientSecret   = "UPSAUTH_CLIENT_SECRET"
	EnvRedirectURI    = "UPSAUTH_REDIRECT_URI"
	EnvTrust          = "UPSAUTH_TRUST"
)

// Sandbox is the environment of the embedded server.
const Sandbox = "sandbox"

// Paths are the two directories that upsauth keeps files in.
type Paths struct{ Config, State string }

// FindPaths returns the user's directories, or those that the environment
// variables name. One that leads to another place from every directory is an
// *Error: nothing may be looked for, and found missing, where it never was.
func FindPaths(getenv func(string) string) (Paths, error) {
	config, err := findDir(getenv, EnvConfigDir, "XDG_CONFIG_HOME", xdg.ConfigHome)
	if err != nil {
		return Paths{}, err
	}
	state, err := findDir(getenv, EnvStateDir, "XDG_STATE_HOME", xdg.StateHome)
	return Paths{Config: config, State: state}, err
}

// findDir returns the directory that the first variable names, or upsauth's own
// in the one that the second names, or in usual.
func findDir(getenv func(string) string, own, base, usual string) (string, error) {
	for _, name := range []string{own, base} {
		dir := getenv(name)
		if dir == "" {
			continue
		}
		if !filepath.IsAbs(dir) {
			return "", notAbsolute(name, dir)
		}
		if name == base {
			dir = filepath.Join(dir, "upsauth")
		}
		return filepath.Clean(dir), nil
	}
	if runtime.GOOS == "windows" {
		return filepath.Join(usual, "upsauth"), nil // the system knows it
	}
	home, err := findHome(getenv)
	if err != nil {
		return "", err
	}
	// Where HOME says nothing, the library had another one in mind.
	if below, err := filepath.Rel(xdg.Home, usual); err == nil && filepath.IsLocal(below) {
		usual = filepath.Join(home, below)
	}
	return filepath.Join(usual, "upsauth"), nil
}

func notAbsolute(name, dir string) error {
	advice := "Write it in full, beginning with /"
	if runtime.GOOS == "windows" {
		advice = `Write it in full, such as C:\Users\…`
	}
	if strings.HasPrefix(dir, "~") {
		advice += "; only a shell replaces ~ with the home directory, and only outside of quotes"
	}
	return &Error{Path: name, Err: fmt.Errorf("%q is not a full path, so it would depend on the current directory. %s", dir, advice)}
}

// findHome returns the home directory: HOME's, or else that of the user database.
func findHome(getenv func(string) string) (string, error) {
	if runtime.GOOS == "windows" {
		return xdg.Home, nil
	}
	const remedy = "Set HOME to your home directory, or set " + EnvConfigDir + " and " + EnvStateDir
	home, from := getenv("HOME"), "HOME"
	if home == "" {
		from = "the user database"
		self, err := user.LookupId(strconv.Itoa(os.Getuid()))
		if err != nil {
			return "", &Error{Path: "HOME", Err: fmt.Errorf("it is not set, and the user database does not know this user (%d). %s", os.Getuid(), remedy)}
		}
		home = self.HomeDir
	}
	if !filepath.IsAbs(home) {
		return "", &Error{Path: "HOME", Err: fmt.Errorf("%s says %q, which is not a full path. %s", from, home, remedy)}
	}
	info, err := os.Stat(home)
	switch {
	case os.IsNotExist(err):
		return "", &Error{Path: "HOME", Err: fmt.Errorf("%s says %s, which does not exist. %s", from, home, remedy)}
	case err != nil:
		return "", &Error{Path: "HOME", Err: safefile.Explain(home, err)}
	case !info.IsDir():
		return "", &Error{Path: "HOME", Err: fmt.Errorf("%s says %s, which is not a directory. %s", from, home, remedy)}
	}
	return home, nil
}

// FindPlaces returns the rule for the places of files, with the exceptions that
// the environment makes.
func FindPlaces(getenv func(string) string) (*safefile.Places, error) {
	places := &safefile.Places{Credentials: getenv("CREDENTIALS_DIRECTORY")}
	for _, name := range []string{EnvConfigDir, EnvStateDir} {
		if dir := getenv(name); dir != "" {
			places.Named = append(places.Named, dir)
		}
	}
	for _, dir := range filepath.SplitList(getenv(EnvTrust)) {
		if dir == "" {
			continue
		}
		if !filepath.IsAbs(dir) {
			return nil, notAbsolute(EnvTrust, dir)
		}
		places.Trusted = append(places.Trusted, filepath.Clean(dir))
	}
	return places, nil
}

// Config is what config.toml says, with the environment variables in place.
type Config struct {
	Paths Paths
	// Vault is the home of new grants: "keychain", "file" or "shared".
	Vault string
	// Identity is the path of the file vault's identity file, empty where a
	// passphrase opens it.
	Identity string
	// RetryUnknownAfter is how long to wait before a refresh token whose fate
	// is unknown is sent again.
	RetryUnknownAfter time.Duration
	// Callback is how the callback server listens, where it is not told.
	Callback Callback
	// Serve is how the service's faces are reached, and Events who is told of what
	// happens.
	Serve  Serve
	Events Events
	// Shared is the database that several hosts share. It is used where the vault is
	// "shared", and by the commands about that database.
	Shared Shared
	// Environments are the built-in ones and the user's, the sandbox left out.
	Environments []ups.Environment
}

// Callback is how the callback server listens: a loopback address other than the
// redirect URI's, and the PEM files that an https redirect URI is served with.
type Callback struct {
	Listen  string `toml:"listen"`
	TLSCert string `toml:"tls_cert"`
	TLSKey  string `toml:"tls_key"`
}

// file is config.toml.
type file struct {
	Vault    string `toml:"vault"`
	Identity string `toml:"identity"`
	Refresh  struct {
		RetryUnknownAfter string `toml:"retry_unknown_after"`
	} `toml:"refresh"`
	Callback     Callback `toml:"callback"`
	Serve        Serve    `toml:"serve"`
	Events       Events   `toml:"events"`
	Shared       shared   `toml:"shared"`
	Environments map[string]struct {
		BaseURL string `toml:"base_url"`
		Issuer  string `toml:"issuer"`
	} `toml:"environments"`
}

// Error says that a file of the user's can't be used, and why.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s can't be used: %v", e.Path, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// unreadable is the error of a file that can't be read. What lies in its place is said
// without its path, which the sentence has already.
func unreadable(path string, err error) error {
	if kind := new(safefile.KindError); errors.As(err, &kind) {
		err = kind
	}
	return &Error{Path: path, Err: err}
}

// stateDirs are the directories in the state directory that have no secrets. The
// file vault's own is looked at when it is used.
var stateDirs = [...]string{"records", "journals", "companies", "locks", "unfinished", "sandbox", "programs", "control", "events"}

// Load reads config.toml, which need not exist, and checks applications.toml and
// that nobody else can change what upsauth goes by. Errors are *Error.
func Load(getenv func(string) string) (Config, error) {
	paths, err := FindPaths(getenv)
	if err != nil {
		return Config{}, err
	}
	places, err := FindPlaces(getenv)
	if err != nil {
		return Config{}, err
	}
	path := filepath.Join(paths.Config, "config.toml")
	check := []string{paths.Config, paths.State, path, applicationsPath(paths.Config)}
	for _, dir := range stateDirs {
		check = append(check, filepath.Join(paths.State, dir))
	}
	for _, place := range check {
		if err := places.Check(place); err != nil {
			return Config{}, &Error{Path: place, Err: err}
		}
	}
	data, err := safefile.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return Config{}, unreadable(path, err)
	}
	config, err := parse(data)
	if err != nil {
		return Config{}, &Error{Path: path, Err: err}
	}
	config.Paths = paths
	for _, path := range []*string{&config.Identity, &config.Callback.TLSCert, &config.Callback.TLSKey} {
		if *path, err = besides(getenv, paths.Config, *path); err != nil {
			return Config{}, err
		}
	}
	// What a variable names may be a pipe, for one command. What this file names is read
	// again and again.
	if err := safefile.CheckFile(config.Identity); config.Identity != "" && err != nil {
		return Config{}, unreadable(config.Identity, err)
	}
	if v := getenv(EnvVault); v != "" {
		if config.Vault, err = checkVault(v); err != nil {
			return Config{}, &Error{Path: EnvVault, Err: err}
		}
	}
	if err := config.Shared.fill(getenv, path, config.Vault == "shared"); err != nil {
		return Config{}, err
	}
	if v := getenv(EnvIdentity); v != "" {
		if config.Identity, err = fromHome(getenv, v); err != nil {
			return Config{}, err
		}
	}
	if _, err := LoadApplications(paths.Config); err != nil {
		return Config{}, err
	}
	return config, nil
}

// besides is where a path in config.toml leads: from the home directory with ~/,
// else from the file's own directory, wherever upsauth is run.
func besides(getenv func(string) string, dir, path string) (string, error) {
	path, err := fromHome(getenv, path)
	// On Windows \keys and C:keys lead somewhere already and are not absolute.
	if err != nil || path == "" || filepath.IsAbs(path) || os.IsPathSeparator(path[0]) || filepath.VolumeName(path) != "" {
		return path, err
	}
	return filepath.Join(dir, path), nil
}

func fromHome(getenv func(string) string, path string) (string, error) {
	if len(path) > 1 && path[0] == '~' && os.IsPathSeparator(path[1]) {
		home, err := findHome(getenv)
		return filepath.Join(home, path[2:]), err
	}
	return path, nil
}

func checkVault(name string) (string, error) {
	if name != "keychain" && name != "file" && name != "shared" {
		return "", fmt.Errorf("%q is not a vault: use keychain, file or shared", name)
	}
	return name, nil
}

// parse reads the text of a config.toml. What is not known in it is an error:
// a misspelt setting must not be without effect.
func parse(data []byte) (Config, error) {
	var f file
	// Editors on Windows put a byte order mark first.
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	decoder := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return Config{}, explain(err)
	}
	c := Config{Vault: "keychain", Identity: f.Identity, Callback: f.Callback, Serve: f.Serve, Events: f.Events, RetryUnknownAfter: 60 * time.Second, Environments: ups.BuiltinEnvironments()}
	var err error
	if f.Callback.Listen != "" {
		if err := loopback.CheckListen(f.Callback.Listen); err != nil {
			return Config{}, fmt.Errorf("listen of [callback]: %w", err)
		}
	}
	if (f.Callback.TLSCert == "") != (f.Callback.TLSKey == "") {
		return Config{}, errors.New("[callback] needs both tls_cert and tls_key")
	}
	if err := f.Serve.check(); err != nil {
		return Config{}, err
	}
	if err := f.Events.check(); err != nil {
		return Config{}, err
	}
	if c.Shared, err = f.Shared.parse(); err != nil {
		return Config{}, err
	}
	if f.Vault != "" {
		if c.Vault, err = checkVault(f.Vault); err != nil {
			return Config{}, err
		}
	}
	if text := f.Refresh.RetryUnknownAfter; text != "" {
		if c.RetryUnknownAfter, err = time.ParseDuration(text); err != nil || c.RetryUnknownAfter < 0 {
			return Config{}, fmt.Errorf("retry_unknown_after = %q is not a duration such as \"60s\"", text)
		}
	}
	for _, name := range sortedKeys(f.Environments) {
		if _, err := grant.CleanName("environment", name); err != nil {
			return Config{}, err
		}
		if name == Sandbox || slices.ContainsFunc(c.Environments, func(e ups.Environment) bool { return e.Name == name }) {
			return Config{}, fmt.Errorf("the environment %q is built in and can't be defined", name)
		}
		environment, err := ups.NewEnvironment(name, f.Environments[name].BaseURL)
		if err != nil {
			return Config{}, err
		}
		if environment.Issuer = f.Environments[name].Issuer; environment.Issuer != "" {
			if err := checkIssuer(name, environment.Issuer); err != nil {
				return Config{}, err
			}
		}
		c.Environments = append(c.Environments, environment)
	}
	return c, nil
}

// checkIssuer reports what is wrong with an issuer (RFC 8414 section 2: an https
// URL without query and fragment), nil for one that can be meant. On this machine
// http will do, as it does for a base URL.
func checkIssuer(environment, issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(issuer, "#") ||
		u.Scheme != "https" && (u.Scheme != "http" || !address.IsLoopback(u.Hostname())) {
		return fmt.Errorf("the issuer of environment %q is not an https URL such as https://onlinetools.ups.com", environment)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// explain turns the errors of the TOML library into one line with a place.
func explain(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		row, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: %q is not a setting that upsauth knows", row, strings.Join(unknown.Errors[0].Key(), "."))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		// Behind "into" the library names types of this program, and it quotes
		// names as they are.
		message, _, _ := strings.Cut(strings.TrimPrefix(decode.Error(), "toml: "), " into ")
		return fmt.Errorf("line %d, column %d: %s", row, column, ups.Presentable(message))
	}
	return err
}

// Environment returns an environment by name.
func (c Config) Environment(name string) (ups.Environment, bool) {
	for _, e := range c.Environments {
		if e.Name == name {
			return e, true
		}
	}
	return ups.Environment{}, false
}

// EnvironmentNames lists all environments, the sandbox last.
func (c Config) EnvironmentNames() []string {
	var names []string
	for _, e := range c.Environments {
		names = append(names, e.Name)
	}
	return append(names, Sandbox)
}
