package session

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// Environment returns an environment by name; the embedded sandbox is started
// in this process and serves until the session is closed.
func (s *Session) Environment(name string) (ups.Environment, error) {
	if name == config.Sandbox {
		return s.startSandbox()
	}
	if environment, ok := s.Config.Environment(name); ok {
		return environment, nil
	}
	return ups.Environment{}, s.NoEnvironment(name)
}

// NoEnvironment is the error of an environment that there is not.
func (s *Session) NoEnvironment(name string) error {
	return &NotFoundError{
		Kind: NoEnvironment, Environment: name, Environments: s.Config.EnvironmentNames(),
		File: filepath.Join(s.Config.Paths.Config, "config.toml"),
	}
}

// Ping looks whether an environment answers, and returns the date that it gives.
func (s *Session) Ping(ctx context.Context, environment ups.Environment) (date string, err error) {
	client := &ups.Client{Environment: environment, Transport: s.options.Transport, Now: s.options.Now}
	return client.Ping(ctx)
}

func (s *Session) startSandbox() (ups.Environment, error) {
	s.sandboxOnce.Do(func() { s.sandbox, s.sandboxErr = s.serveSandbox() })
	if s.sandboxErr != nil {
		return ups.Environment{}, s.sandboxErr
	}
	return ups.Environment{Name: config.Sandbox, BaseURL: "http://" + s.sandbox.Addr, Origin: config.Sandbox}, nil
}

func (s *Session) serveSandbox() (*http.Server, error) {
	server, err := sandbox.New(sandbox.Options{
		Dir: filepath.Join(s.Config.Paths.State, "sandbox"), Now: s.options.Now,
		Log:          func(line string) { s.step(context.Background(), "sandbox: "+line) },
		DisplayNames: sandboxNames(),
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the sandbox can't listen on 127.0.0.1: %w", err)
	}
	served := sandbox.NewServer(listener.Addr().String(), server)
	go func() { _ = served.Serve(listener) }()
	return served, nil
}

// sandboxNames are what the sandbox's consent page calls the applications.
func sandboxNames() map[string]string {
	names := map[string]string{}
	for _, name := range []string{config.IntelligentRating, config.BatchSuite} {
		names[SandboxRegistration(name).ClientID] = config.BuiltinDisplayName(name)
	}
	return names
}
