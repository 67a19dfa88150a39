package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/pkg/browser"
)

// secretVariables are the environment variables that no child process gets.
var secretVariables = [...]string{"UPSAUTH_CLIENT_SECRET", "UPSAUTH_PASSPHRASE", "UPSAUTH_PASSPHRASE_FILE"}

// childEnviron is the environment for programs that upsauth starts.
func childEnviron(environ []string) []string {
	var kept []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		secret := false
		for _, s := range secretVariables {
			secret = secret || strings.EqualFold(name, s)
		}
		if !secret {
			kept = append(kept, entry)
		}
	}
	return kept
}

// openSystemBrowser opens an address with the programs that $BROWSER names, in
// their order, else with the system's opener. It returns once one was started;
// whether a window really opens, only the person sees.
func (env *Env) openSystemBrowser(_ context.Context, address string) error {
	if list := env.Getenv("BROWSER"); list != "" {
		var failures []error
		for _, program := range strings.Split(list, ":") {
			if strings.TrimSpace(program) == "" {
				continue
			}
			err := env.startBrowser(program, address)
			if err == nil {
				return nil
			}
			failures = append(failures, err)
		}
		return fmt.Errorf("no program of $BROWSER can be started: %w", errors.Join(failures...))
	}
	// The openers' own words would end up among the results.
	browser.Stdout, browser.Stderr = env.Err, env.Err
	return browser.OpenURL(address)
}

// startBrowser starts one entry of $BROWSER: a program with arguments, in which
// %s stands for the address, or else the address comes last.
func (env *Env) startBrowser(program, address string) error {
	words := strings.Fields(program)
	placed := false
	for i := range words {
		if strings.Contains(words[i], "%s") {
			words[i] = strings.ReplaceAll(words[i], "%s", address)
			placed = true
		}
	}
	if !placed {
		words = append(words, address)
	}
	command := exec.Command(words[0], words[1:]...)
	command.Env = childEnviron(env.Environ())
	command.Stdout, command.Stderr = env.Err, env.Err
	if err := command.Start(); err != nil {
		return err
	}
	go func() { _ = command.Wait() }()
	return nil
}
