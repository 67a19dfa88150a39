package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/terminal"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

// vaultPassphrase is what opens the file vault where no identity file does:
// from the environment, from the file that the environment names, or from the
// person at the terminal, who chooses one where it is fresh. Identity is the file
// that it opens, empty for the vault's own.
func vaultPassphrase(ctx context.Context, env *Env, identity string, fresh bool) (string, error) {
	passphrase, err := passphraseFromEnvironment(ctx, env)
	if err == nil && fresh {
		env.person().WarnOfShort(passphrase)
	}
	if !errors.Is(err, agefile.ErrNoPassphrase) || !env.attended() {
		return passphrase, err
	}
	switch {
	case identity != "":
		return env.person().Hidden(ctx, "Passphrase of "+identity)
	case !fresh:
		return env.person().Hidden(ctx, "Passphrase of the file vault")
	}
	fmt.Fprintln(env.Err, "This creates the file vault. Choose a passphrase for it. Without the passphrase, nobody can open the vault again.")
	return secretInput{what: "passphrase of the file vault", twice: true}.ask(ctx, env)
}

// retry is what asks a person again for a passphrase that does not open what is
// named, three times in all. What comes from the environment is not another one the
// next time.
func (env *Env) retry() func(what string) bool {
	tries := 1
	return func(what string) bool {
		typed := env.attended() && env.Getenv(config.EnvPassphrase) == "" && env.Getenv(config.EnvPassphraseFile) == ""
		if !typed || tries == terminal.Tries {
			return false
		}
		tries++
		fmt.Fprintf(env.Err, "The passphrase does not open %s. Type it again.\n", what)
		return true
	}
}

// passphraseFromEnvironment returns agefile.ErrNoPassphrase where none is named.
func passphraseFromEnvironment(ctx context.Context, env *Env) (string, error) {
	if passphrase := env.Getenv(config.EnvPassphrase); passphrase != "" {
		return cleanPassphrase(config.EnvPassphrase, passphrase)
	}
	path := env.Getenv(config.EnvPassphraseFile)
	if path == "" {
		return "", agefile.ErrNoPassphrase
	}
	if err := checkPassphraseFile(env); err != nil {
		return "", err
	}
	text, err := safefile.ReadSmall(ctx, path)
	if err != nil {
		return "", fmt.Errorf("the file that %s names can't be read: %w", config.EnvPassphraseFile, err)
	}
	return cleanPassphrase(path, string(text))
}

// cleanPassphrase leaves out what is only how the text was written.
func cleanPassphrase(where, text string) (string, error) {
	passphrase, err := legible.Secret(text)
	if err != nil {
		return "", usagef("the passphrase in %s can't be used: %v", where, err)
	}
	return passphrase, nil
}

// checkPassphraseFile refuses the file that the environment names where others can
// read it.
func checkPassphraseFile(env *Env) error {
	places, err := config.FindPlaces(env.Getenv)
	if err != nil {
		return err
	}
	return places.CheckSecret(env.Getenv(config.EnvPassphraseFile))
}

// checkPlace refuses a file or directory that a person named where others can
// change it.
func checkPlace(env *Env, path string) error {
	places, err := config.FindPlaces(env.Getenv)
	if err != nil {
		return err
	}
	if err := places.Check(path); err != nil {
		return &config.Error{Path: path, Err: err}
	}
	return nil
}
