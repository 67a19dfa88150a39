package cli

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
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
		Short: "Take in what upsauth vault export wrote",
		Long: `Takes in the companies and applications of an export; - reads it from standard
input. Their secrets go into the vault that UPSAUTH_VAULT or config.toml names.
The identity that opens the file is that of -i, or of the file vault; a
passphrase comes from standard input, UPSAUTH_PASSPHRASE,
UPSAUTH_PASSPHRASE_FILE or a hidden prompt.

Whoever made the export decides which applications and servers upsauth trusts
afterwards: those that are new here are named, and on a terminal asked about.

What is here already and as new is never replaced, nor is another authorization
of the same company, nor another registration of the same application.`,
		Example: `  upsauth vault import backup.age
  upsauth vault import -i key.txt backup.age`,
		Args: oneArg("the export's FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.File, opts.Verbose = args[0], verbose(cmd)
			return runVaultImport(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringArrayVarP(&opts.Identities, "identity", "i", nil, "an identity file that opens the export (may be repeated)")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask whether the applications and servers of the export are to be trusted")
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
	if err := s.Vault.Make(ctx, s.Config.Vault); err != nil {
		return err
	}
	s.FinishRemovals(ctx)
	failed := &failures{env: env}
	for _, a := range document.Applications {
		if ctx.Err() != nil {
			break
		}
		if err := s.importApplication(ctx, a); err != nil {
			failed.add(fmt.Sprintf("%s (%s)", a.Name, a.Environment), err)
		}
	}
	imported := 0
	strange := map[string]bool{}
	for _, g := range document.Grants {
		if ctx.Err() != nil {
			break
		}
		g.Vault = s.Config.Vault
		if err := s.OpenHomes(ctx, s.Vault.HomesOf(g.ID)); err != nil {
			break
		}
		home, err := s.Keeper.Import(ctx, g, interruptedJournals(document, g)...)
		switch {
		case err != nil:
			failed.add(g.String(), err)
		case home != "":
			imported++
			env.tell("%s: imported into the %s\n", g.ID, vault.Describe(home))
		default:
			env.tell("%s: here already and as new, nothing was changed\n", g.ID)
		}
		if !slices.Contains(s.Config.EnvironmentNames(), g.Environment) {
			strange[g.Environment] = true
		}
	}
	for name := range strange {
		fmt.Fprintf(env.Err, "Warning: there is no environment %q here; define it in config.toml as [environments.%s] before its grants can be refreshed.\n", name, name)
	}
	if imported > 0 {
		fmt.Fprintf(env.Err, "Mind: these are copies of %s. Use them in one place only from now on: once one copy is refreshed,\n"+
			"the refresh tokens of all others are spent, and using those may end the authorization. Where they came from,\n"+
			"upsauth revoke removes them and ends nothing at UPS.\n", counted(imported, "authorization"))
	}
	return failed.end(ctx)
}

// interruptedJournals is the refresh of a grant whose fate was not known where it
// comes from.
func interruptedJournals(document backup.Document, g grant.Grant) []grant.Journal {
	var journals []grant.Journal
	for _, u := range document.Interrupted {
		if u.TokenVaultKey == g.TokenVaultKey {
			journals = append(journals, grant.Journal{TokenVaultKey: u.TokenVaultKey, Generation: u.Generation, Attempt: u.Attempt, Time: u.Time, Outcome: u.Outcome, Proxied: u.Proxied})
		}
	}
	return journals
}

// trust names the applications and servers of an export that are new here, and asks
// whether they are to be trusted: from then on people sign in for those applications,
// and tokens are sent to those servers.
func (opts vaultImportOptions) trust(ctx context.Context, s *job, document backup.Document) error {
	applications, err := s.Applications()
	if err != nil {
		return err
	}
	var fresh []string
	for _, a := range document.Applications {
		if len(applications.Find(a.Name, a.Environment)) == 0 {
			fresh = append(fresh, fmt.Sprintf("the application %s (%s): client ID %s, redirect URI %s", a.Name, a.Environment, a.ClientID, a.RedirectURI))
		}
	}
	servers := map[string]bool{}
	for _, g := range document.Grants {
		environment, known := s.Config.Environment(g.Environment)
		switch {
		case g.Environment == config.Sandbox, known && environment.Origin == g.BaseURL, servers[g.Environment+g.BaseURL]:
			continue
		case known:
			return fmt.Errorf("the authorizations for %s in the export are for %s, and here that environment is at %s; nothing was imported", g.Environment, g.BaseURL, environment.Origin)
		}
		servers[g.Environment+g.BaseURL] = true
		fresh = append(fresh, fmt.Sprintf("the environment %s: base URL %s", g.Environment, g.BaseURL))
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
	return confirm(ctx, s.env, "Trust whoever made it with this?", opts.Yes)
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
		return "", usagef("the export is encrypted with a passphrase, and standard input is taken: set %s, or name the export's file", config.EnvPassphrase)
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

// importApplication registers an application of an export, unless one of the same
// name is here. What only lacks its secret gets it.
func (s *job) importApplication(ctx context.Context, imported backup.Application) error {
	name := fmt.Sprintf("%s (%s)", imported.Name, imported.Environment)
	r := imported.Registration
	r.Vault = s.Config.Vault
	end, err := s.AnnounceNewSecret(ctx, r)
	if err != nil {
		return err
	}
	return end(s.EditApplications(ctx, func(a *config.Applications, save func() error) error {
		if found := a.Find(r.Name, r.Environment); len(found) == 1 {
			r = found[0]
			if r.ClientID != imported.ClientID {
				return fmt.Errorf("it is registered here with the client ID %s, in the export with %s; what is here was left as it is", r.ClientID, imported.ClientID)
			}
			secret, err := s.Vault.Secret(ctx, r.Vault, r.SecretIn())
			switch {
			case err == nil && subtle.ConstantTimeCompare([]byte(secret), []byte(imported.ClientSecret)) == 1:
				s.env.tell("%s: registered here already\n", name)
				return nil
			case err == nil:
				return errors.New("it is registered here with another client secret, which was left as it is; upsauth app set-secret replaces it")
			case !errors.Is(err, vault.ErrNoItem):
				return err
			}
		}
		if old, err := s.Vault.Secret(ctx, r.Vault, r.SecretAccount()); err == nil && subtle.ConstantTimeCompare([]byte(old), []byte(imported.ClientSecret)) != 1 {
			return fmt.Errorf("the %s has another client secret under %s, perhaps of another configuration directory; it was left as it is", vault.Describe(r.Vault), r.SecretAccount())
		}
		r.Fresh = false // what was to be put in its place is gone too
		if err := s.AddSecret(ctx, a, save, r, imported.ClientSecret); err != nil {
			return err
		}
		s.env.tell("%s: registered, with its client secret in the %s\n", name, vault.Describe(r.Vault))
		return nil
	}))
}
