package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

// vaultPassphrase is what opens the file vault where no identity file does:
// from the environment, from the file that the environment names, or from the
// person at the terminal, who chooses one where it is fresh. Identity is the file
// that it opens, empty for the vault's own.
func vaultPassphrase(ctx context.Context, env *Env, identity string, fresh bool) (string, error) {
	passphrase, err := passphraseFromEnvironment(ctx, env)
	if err == nil && fresh {
		warnOfShort(env, passphrase)
	}
	if !errors.Is(err, agefile.ErrNoPassphrase) || !env.InTerminal || !env.ErrTerminal {
		return passphrase, err
	}
	switch {
	case identity != "":
		return hidden(ctx, env, "Passphrase of "+identity)
	case !fresh:
		return hidden(ctx, env, "Passphrase of the file vault")
	}
	fmt.Fprintln(env.Err, "The file vault is made now. Choose a passphrase for it; without it nobody opens it again.")
	return secretInput{what: "passphrase of the file vault", twice: true}.ask(ctx, env)
}

// passphraseFromEnvironment returns agefile.ErrNoPassphrase where none is named.
func passphraseFromEnvironment(ctx context.Context, env *Env) (string, error) {
	if passphrase := env.Getenv(config.EnvPassphrase); passphrase != "" {
		return passphrase, nil
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
		return "", fmt.Errorf("what %s names can't be read: %w", config.EnvPassphraseFile, err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// checkPassphraseFile refuses the file that the environment names where others can
// read it. A service's credential is private by systemd's doing: it may be
// root's, readable to the service by an access control list, which looks like a
// permission of the group.
func checkPassphraseFile(env *Env) error {
	path := env.Getenv(config.EnvPassphraseFile)
	if dir := env.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		return nil
	}
	return safefile.CheckPrivate(path)
}
