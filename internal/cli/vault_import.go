package cli

import (
	"context"
	"errors"
	"fmt"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

type vaultImportOptions struct {
	env             *Env
	File            string
	Identities      []string
	PassphraseStdin bool
	Yes             bool
	Verbose         bool
}

func newVaultImportCmd(env *Env) *cobra.Command {
	opts := vaultImportOptions{env: env}
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Import what upsauth vault export wrote",
		Long: `Imports the companies and applications of an export; - reads the export from standard
input. The secrets go into the vault that UPSAUTH_VAULT or config.toml names. The
identity of -i opens the file, or the identity of the file vault if -i is missing. A
passphrase comes from standard input, UPSAUTH_PASSPHRASE, UPSAUTH_PASSPHRASE_FILE or
a hidden prompt.

The person who made the export decides which applications and servers upsauth trusts
afterwards. upsauth names the new ones, and asks about them on a terminal.

An import never replaces tokens that are as new as its own, another authorization of
the same company, or another registration of the same application.`,
		Example: `  upsauth vault import backup.age
  upsauth vault import -i key.txt backup.age`,
		Args: oneArg("the export's FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.File, opts.Verbose = args[0], verbose(cmd)
			return runVaultImport(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringArrayVarP(&opts.Identities, "identity", "i", nil, "an identity file that opens the export (may be repeated)")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask whether to trust the applications and servers of the export")
	cmd.Flags().BoolVar(&opts.PassphraseStdin, "passphrase-stdin", false, "read the passphrase of the file from standard input")
	return cmd
}

func runVaultImport(ctx context.Context, opts vaultImportOptions) error {
	env := opts.env
	if opts.File == "-" && opts.PassphraseStdin {
		return usagef("standard input can't be both the export and its passphrase: name the export's file")
	}
	s, err := openJob(env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	document, err := opts.read(ctx, s)
	if err != nil {
		return err
	}
	if err := opts.trust(ctx, s, document); err != nil {
		return err
	}
	failed := &failures{env: env}
	imported := 0
	strange, err := s.Restore(ctx, document, func(c session.Copied) {
		switch isGrant := c.ID.Company != ""; {
		case c.Err != nil:
			failed.add(copiedName(c.ID), c.Err)
		case isGrant && c.Home != "":
			imported++
			env.tell("%s: imported into the %s\n", c.ID, vault.Describe(c.Home))
		case isGrant:
			env.tell("%s: already here and as new; nothing was changed\n", c.ID)
		case c.Home != "":
			env.tell("%s: registered, with its client secret in the %s\n", copiedName(c.ID), vault.Describe(c.Home))
		default:
			env.tell("%s: registered here already\n", copiedName(c.ID))
		}
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	for _, name := range strange {
		fmt.Fprintf(env.Err, "Warning: there is no environment %q here; define it in config.toml as [environments.%s] before its grants can be refreshed.\n", name, name)
	}
	if imported > 0 {
		fmt.Fprintf(env.Err, "These are copies of %s. From now on, use them in one place only:\n"+
			"once one copy is refreshed, the refresh tokens of all others are spent, and using\n"+
			"them may end the authorization. On the old machine, upsauth revoke removes them\n"+
			"and ends nothing at UPS.\n", counted(imported, "authorization"))
	}
	return failed.end(ctx)
}

// trust names the applications and servers of an export that are new here, and asks
// whether they are to be trusted: from then on people sign in for those applications,
// and tokens are sent to those servers.
func (opts vaultImportOptions) trust(ctx context.Context, s *job, document backup.Document) error {
	applications, servers, err := s.NewHere(ctx, document)
	if err != nil {
		return err
	}
	var fresh []string
	for _, a := range applications {
		fresh = append(fresh, fmt.Sprintf("the application %s (%s): client ID %s, redirect URI %s", a.Name, a.Environment, a.ClientID, a.RedirectURI))
	}
	for _, server := range servers {
		fresh = append(fresh, fmt.Sprintf("the environment %s: base URL %s", server.Environment, server.BaseURL))
	}
	if len(fresh) == 0 {
		return nil
	}
	const most = 50
	fmt.Fprintln(s.env.Err, "New in this export:")
	for i, line := range fresh {
		if i == most {
			fmt.Fprintf(s.env.Err, "  … and %d more\n", len(fresh)-i)
			break
		}
		fmt.Fprintf(s.env.Err, "  %s\n", line)
	}
	return confirm(ctx, s.env, "Trust the person who made the export?", opts.Yes)
}

// read opens the export.
func (opts vaultImportOptions) read(ctx context.Context, s *job) (backup.Document, error) {
	in, err := openNamed(ctx, opts.env, opts.File)
	if err != nil {
		return backup.Document{}, fmt.Errorf("the export can't be read: %w", err)
	}
	defer in.Close()
	if opts.env.attended() {
		// A person is asked only for what can be used.
		if err := s.Usable(ctx, s.Config.Vault); err != nil {
			return backup.Document{}, err
		}
	}
	retry := opts.env.retry()
	return backup.Open(in, backup.Keys{
		Passphrase: func() (string, error) { return opts.passphrase(ctx) },
		Retry:      func() bool { return ctx.Err() == nil && !opts.PassphraseStdin && retry("the export") },
		Identities: func() ([]age.Identity, error) { return opts.identities(ctx, s) },
	})
}

func (opts vaultImportOptions) passphrase(ctx context.Context) (string, error) {
	in := secretInput{what: "passphrase of the export", flag: "passphrase-stdin"}
	if !opts.PassphraseStdin {
		if passphrase, err := passphraseFromEnvironment(ctx, opts.env); !errors.Is(err, agefile.ErrNoPassphrase) {
			return passphrase, err
		}
	}
	if opts.File == "-" {
		return "", usagef("the export is encrypted with a passphrase, and standard input is already used: set %s, or name the export's file", config.EnvPassphrase)
	}
	return in.read(ctx, opts.env, opts.PassphraseStdin)
}

// identityPassphrase is what opens a locked identity file.
func (opts vaultImportOptions) identityPassphrase(ctx context.Context, path string) (string, error) {
	passphrase, err := passphraseFromEnvironment(ctx, opts.env)
	if errors.Is(err, agefile.ErrNoPassphrase) && opts.env.attended() {
		return opts.env.person().Hidden(ctx, "Passphrase of "+path)
	}
	return passphrase, err
}

func (opts vaultImportOptions) identities(ctx context.Context, s *job) ([]age.Identity, error) {
	if len(opts.Identities) == 0 {
		return s.Files.Identities(ctx)
	}
	var all []age.Identity
	for _, path := range opts.Identities {
		some, err := agefile.ReadIdentity(ctx, s.Places, path, func(ctx context.Context, _ bool) (string, error) { return opts.identityPassphrase(ctx, path) }, opts.env.retry())
		if home := new(vault.HomeError); errors.As(err, &home) {
			return nil, fmt.Errorf("-i %s: %s", path, home.What)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}
