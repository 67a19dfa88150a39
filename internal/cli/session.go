package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/keychain"
)

// session is what one command works with: the configuration, the vault and the
// keeper over it. Nothing is opened before it is needed.
type session struct {
	env     *Env
	verbose bool
	config  config.Config
	places  *safefile.Places // the rule for who else may change files
	vault   *vault.Vault
	files   *agefile.Home // the vault's home of files
	ring    *keychain.Home
	keeper  *keeper.Keeper
	// companies is what is known of companies beside their grants.
	companies company.Book
	// problems are the files that the last listing of records could not read.
	problems []error

	sandboxOnce sync.Once
	sandbox     *http.Server
	sandboxErr  error
}

// openSession reads the configuration. The caller closes the session.
func openSession(env *Env, verbose bool) (*session, error) {
	loaded, err := config.Load(env.Getenv)
	if err != nil {
		return nil, err
	}
	places, err := config.FindPlaces(env.Getenv)
	if err != nil {
		return nil, err
	}
	s := &session{env: env, verbose: verbose, config: loaded, places: places}
	// A person may be looking at a question to unlock the keychain only where
	// there is a terminal.
	deadline := 10 * time.Second
	var waiting func()
	if env.ErrTerminal {
		deadline = 60 * time.Second
		waiting = func() {
			fmt.Fprintf(env.Err, "Waiting up to %s for the keychain; it may be asking to be unlocked.\n", deadline)
		}
	}
	s.files = agefile.New(filepath.Join(loaded.Paths.State, "vault"), loaded.Identity)
	s.files.Places = places
	s.files.Passphrase = func(ctx context.Context, fresh bool) (string, error) {
		return vaultPassphrase(ctx, env, loaded.Identity, fresh)
	}
	s.files.WorkFactor = env.WorkFactor
	s.ring = keychain.New(env.Keychain, keychain.Limit(runtime.GOOS), deadline, waiting)
	s.vault = vault.New(loaded.Paths.State, vault.Homes{s.ring, s.files})
	s.vault.Places, s.vault.Elsewhere = places, otherPlaces(env.Getenv, loaded.Paths)
	s.companies = company.Open(filepath.Join(loaded.Paths.State, "companies"))
	s.companies.Places = places
	s.keeper = &keeper.Keeper{
		Happened: func(_ context.Context, e grant.Event) {
			if err := s.companies.Note(e); err != nil {
				s.log(err.Error())
			}
		},
		Vault: s.vault, Client: s.client, Now: env.Now,
		RetryUnknownAfter: loaded.RetryUnknownAfter,
		Wait:              wait,
		Notice:            s.notice,
	}
	return s, nil
}

// otherPlaces are this user's directories outside of the state directory, for an
// answer of UPS's that can't be sealed there: what survives a restart of the
// machine first. They are made when they are needed.
func otherPlaces(getenv func(string) string, paths config.Paths) []string {
	places := []string{filepath.Join(paths.Config, "answers")}
	if cache, err := os.UserCacheDir(); err == nil {
		places = append(places, filepath.Join(cache, "upsauth", "answers"))
	}
	own := "upsauth-answers"
	if uid := os.Getuid(); uid >= 0 { // temporary directories are everybody's, but on Windows
		own = fmt.Sprintf("upsauth-answers-%d", uid)
		places = append(places, filepath.Join("/var/tmp", own))
	}
	places = append(places, filepath.Join(os.TempDir(), own))
	if run := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		places = append(places, filepath.Join(run, own))
	}
	if runtime.GOOS == "linux" {
		places = append(places, filepath.Join("/dev/shm", own))
	}
	return places
}

func (s *session) Close() {
	if s.sandbox != nil {
		_ = s.sandbox.Close()
	}
}

func (s *session) log(line string) {
	if s.verbose {
		fmt.Fprintf(s.env.Err, "%s %s\n", s.env.Now().UTC().Format("15:04:05.000"), line)
	}
}

// notice shows what the keeper says.
func (s *session) notice(_ context.Context, n keeper.Notice) {
	if n.Level == keeper.Detail {
		s.log(n.Text)
		return
	}
	fmt.Fprintf(s.env.Err, "%s\n", n.Text)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// environment returns an environment by name; the embedded sandbox is started
// in this process and serves until the session is closed.
func (s *session) environment(name string) (ups.Environment, error) {
	if name == config.Sandbox {
		return s.startSandbox()
	}
	if environment, ok := s.config.Environment(name); ok {
		return environment, nil
	}
	return ups.Environment{}, s.noEnvironment(name)
}

func (s *session) noEnvironment(name string) error {
	return &notFoundError{
		what:   fmt.Sprintf("there is no environment %q", name),
		advice: fmt.Sprintf("There are: %s. One of your own goes into %s as [environments.NAME] with a base_url.", joined(s.config.EnvironmentNames()), filepath.Join(s.config.Paths.Config, "config.toml")),
	}
}

func (s *session) startSandbox() (ups.Environment, error) {
	s.sandboxOnce.Do(func() { s.sandbox, s.sandboxErr = s.serveSandbox() })
	if s.sandboxErr != nil {
		return ups.Environment{}, s.sandboxErr
	}
	return ups.Environment{Name: config.Sandbox, BaseURL: "http://" + s.sandbox.Addr, Origin: config.Sandbox}, nil
}

func (s *session) serveSandbox() (*http.Server, error) {
	server, err := sandbox.New(sandbox.Options{
		Dir: filepath.Join(s.config.Paths.State, "sandbox"), Now: s.env.Now,
		Log:          func(line string) { s.log("sandbox: " + line) },
		DisplayNames: s.sandboxNames(),
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the sandbox can't listen on 127.0.0.1: %w", err)
	}
	served := newSandboxServer(listener.Addr().String(), server)
	go func() { _ = served.Serve(listener) }()
	return served, nil
}

// sandboxNames are what the sandbox's consent page calls the applications.
func (s *session) sandboxNames() map[string]string {
	names := map[string]string{}
	for _, name := range []string{config.IntelligentRating, config.BatchSuite} {
		names[sandboxRegistration(name).ClientID] = config.BuiltinDisplayName(name)
	}
	return names
}

// client returns the client of a grant with its secret, for a request that is
// about to be sent.
func (s *session) client(ctx context.Context, id grant.ID) (*ups.Client, error) {
	registration, err := s.registration(id.Application, id.Environment)
	if err != nil {
		return nil, err
	}
	return s.clientOf(ctx, registration)
}

// open makes the homes ready that hold the secrets of grants and their journals'
// keys, and with spend those of their applications.
func (s *session) open(ctx context.Context, spend bool, records ...grant.Record) error {
	homes := homesOf(records, nil)
	for _, r := range records {
		if r.Interrupted {
			homes = append(homes, s.vault.HomesOf(r.ID)...)
		}
	}
	if spend {
		applications, err := config.LoadApplications(s.config.Paths.Config)
		if err != nil {
			return err
		}
		for _, r := range records {
			homes = append(homes, homesOf(nil, applications.Find(r.Application, r.Environment))...)
		}
	}
	return s.openHomes(ctx, homes)
}

// openHomes makes homes ready before any lock is taken, as it may ask for a
// passphrase, and reckons for a while over it. What is wrong with a home is told
// by whoever needs it.
func (s *session) openHomes(ctx context.Context, homes []string) error {
	slices.Sort(homes)
	for _, home := range slices.Compact(homes) {
		if err := s.vault.Open(ctx, home); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log(err.Error())
		}
	}
	return nil
}

// storedSecret returns the client secret out of the vault.
func (s *session) storedSecret(ctx context.Context, r config.Registration) (string, error) {
	secret, err := s.vault.Secret(ctx, r.Vault, r.SecretAccount())
	if errors.Is(err, vault.ErrNoItem) {
		// It may have been moved since the registration was read.
		applications, loadErr := config.LoadApplications(s.config.Paths.Config)
		if now := applications.Find(r.Name, r.Environment); loadErr == nil && len(now) == 1 && now[0].Vault != r.Vault {
			r = now[0]
			secret, err = s.vault.Secret(ctx, r.Vault, r.SecretAccount())
		}
	}
	if errors.Is(err, vault.ErrNoItem) {
		return "", &vault.HomeError{Home: r.Vault,
			What:   fmt.Sprintf("The client secret of the application %s (%s) is not in the %s.", r.Name, r.Environment, vault.Describe(r.Vault)),
			Advice: fmt.Sprintf("Run: upsauth app set-secret %s --env %s", r.Name, r.Environment)}
	}
	return secret, err
}

// secretFromEnvironment returns the client secret that the environment variable
// has. It speaks of one client: of the one that UPSAUTH_CLIENT_ID names, or else
// of the only one registered. No other one's requests may carry it.
func (s *session) secretFromEnvironment(r config.Registration) (string, error) {
	secret, err := s.env.variable(config.EnvClientSecret)
	if err != nil || secret == "" || s.env.Getenv(config.EnvClientID) != "" {
		return secret, err
	}
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil || len(applications.Applications) != 1 || len(applications.Find(r.Name, r.Environment)) != 1 {
		return "", err
	}
	return secret, nil
}

// sandboxSecret is the secret of the applications that the sandbox environment
// has without registration. The sandbox takes any.
const sandboxSecret = "sandbox"

func (s *session) clientOf(ctx context.Context, r config.Registration) (*ups.Client, error) {
	secret, err := s.secretFromEnvironment(r)
	if err != nil {
		return nil, err
	}
	if secret == "" && r.Vault == "" {
		if r.Environment != config.Sandbox {
			return nil, usagef("the client secret is missing: set %s, or register the application with upsauth app add", config.EnvClientSecret)
		}
		secret = sandboxSecret
	}
	if secret == "" {
		if secret, err = s.storedSecret(ctx, r); err != nil {
			return nil, err
		}
	}
	environment, err := s.environment(r.Environment)
	if err != nil {
		return nil, err
	}
	if r.Environment != config.Sandbox {
		if err := ups.CheckSettings(s.env.Getenv); err != nil {
			return nil, err
		}
	}
	pkce, err := ups.ParsePKCE(r.PKCE)
	if err != nil {
		return nil, err
	}
	return &ups.Client{
		Environment: environment,
		Application: ups.Application{
			Name: r.Name, DisplayName: r.DisplayName, ClientID: r.ClientID, ClientSecret: secret,
			RedirectURI: r.RedirectURI, Scope: r.Scope, PKCE: pkce, PKCENeedsBasic: r.PKCENeedsBasic,
		},
		Transport: s.env.Transport, Now: s.env.Now, UserAgent: "upsauth/" + buildVersion().Version,
	}, nil
}

// registration returns an application, with what the environment variables say
// in place. Those alone are enough for one that is not registered, and the
// sandbox needs none.
func (s *session) registration(name, environment string) (config.Registration, error) {
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return config.Registration{}, err
	}
	var r config.Registration
	found := applications.Find(name, environment)
	switch {
	case len(found) == 1:
		r = found[0]
	case environment == config.Sandbox:
		r = sandboxRegistration(name)
	case s.env.Getenv(config.EnvClientID) != "":
		r = config.Registration{Name: name, Environment: environment, DisplayName: config.BuiltinDisplayName(name)}
	default:
		return r, &notFoundError{
			what:   fmt.Sprintf("the application %q is not registered for %s", name, environment),
			advice: fmt.Sprintf("Run: upsauth app add %s --env %s --client-id ID --redirect-uri URI", name, environment),
		}
	}
	for name, value := range map[string]*string{config.EnvClientID: &r.ClientID, config.EnvRedirectURI: &r.RedirectURI} {
		v, err := s.env.variable(name)
		if err != nil {
			return config.Registration{}, err
		}
		if v != "" && name == config.EnvRedirectURI {
			if err := loopback.CheckRedirectURI(v); err != nil {
				return config.Registration{}, usagef("%s: %w", config.EnvRedirectURI, err)
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

// sandboxRegistration is an application that the sandbox knows by itself, with
// any free port for the callback.
func sandboxRegistration(name string) config.Registration {
	r := config.Registration{
		Name: name, Environment: config.Sandbox, DisplayName: config.BuiltinDisplayName(name),
		ClientID: "sandbox-" + name, RedirectURI: "http://localhost:0/callback",
	}
	if r.DisplayName == "" {
		r.DisplayName = name
	}
	return r
}
