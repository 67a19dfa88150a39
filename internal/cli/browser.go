package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pkg/browser"

	"github.com/upsauth/upsauth/internal/config"
)

// secretVariables are the environment variables that no child process gets.
var secretVariables = [...]string{config.EnvClientSecret, config.EnvPassphrase, config.EnvPassphraseFile}

// without returns an environment without some variables.
func without(environ []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	})
}

// childEnviron is the environment for programs that upsauth starts.
func childEnviron(environ []string) []string {
	return without(environ, secretVariables[:]...)
}

// openerPatience is how long an opener may take to fail before it counts as
// having opened something: some openers run the browser themselves and return
// when it is closed.
const openerPatience = 2 * time.Second

// openSystemBrowser opens an address with the programs that $BROWSER names, in
// their order, else with the system's opener. It does not wait for the browser;
// whether a window really opens, only the person sees.
func (env *Env) openSystemBrowser(ctx context.Context, address string) error {
	if list := env.Getenv("BROWSER"); list != "" {
		return env.openOneOf(ctx, filepath.SplitList(list), address)
	}
	// The openers' own words would end up among the results.
	browser.Stdout, browser.Stderr = env.stderr(), env.stderr()
	failed := make(chan error, 1)
	go func() { failed <- browser.OpenURL(address) }()
	patience := time.NewTimer(openerPatience)
	defer patience.Stop()
	select {
	case err := <-failed:
		return err
	case <-patience.C:
	case <-ctx.Done():
	}
	return nil
}

// openOneOf starts the first program that can be started. Where one fails
// afterwards, the next one gets its turn while the sign-in is awaited.
func (env *Env) openOneOf(ctx context.Context, programs []string, address string) error {
	var failures []error
	for i, program := range programs {
		if strings.TrimSpace(program) == "" {
			continue
		}
		err := env.startBrowser(program, address, func(err error) {
			if ctx.Err() != nil {
				return // nobody waits for the sign-in any more
			}
			if next := env.openOneOf(ctx, programs[i+1:], address); next != nil {
				fmt.Fprintf(env.Err, "   (The browser %s ended with an error: %v. Open the address by hand.)\n", program, err)
			}
		})
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return errors.New("$BROWSER names no program")
	}
	return fmt.Errorf("no program of $BROWSER can be started: %w", errors.Join(failures...))
}

// browserWords are the words of one entry of $BROWSER, or the one path that it
// is, which on Windows and macOS often has spaces in it.
func browserWords(program string) []string {
	if path := strings.TrimSpace(program); strings.ContainsAny(path, " \t") {
		if _, err := exec.LookPath(path); err == nil {
			return []string{path}
		}
	}
	return strings.Fields(program)
}

// startBrowser starts one entry of $BROWSER: a program with arguments, in which
// %s stands for the address, or else the address comes last. Failed is called
// when it ends with an error.
func (env *Env) startBrowser(program, address string, failed func(error)) error {
	words := browserWords(program)
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
	command.Stdout, command.Stderr = env.stderr(), env.stderr()
	// Ctrl-C in the terminal is for upsauth and not for the browser.
	detach(command)
	if err := command.Start(); err != nil {
		return err
	}
	go func() {
		if err := command.Wait(); err != nil {
			failed(err)
		}
	}()
	return nil
}
