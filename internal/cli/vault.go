package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

func newVaultCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vault",
		Short: "Where the secrets are: move, export, import and check them",
		Long: `The vault keeps tokens and client secrets in one of two homes: the keychain of
the operating system, or files that age encrypts (the file vault). vault in
config.toml or UPSAUTH_VAULT chooses the home of what is new; what is there
stays where it is until it is moved.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newVaultStatusCmd(env, runVaultStatus), newVaultMoveCmd(env, runVaultMove),
		newVaultExportCmd(env, runVaultExport), newVaultImportCmd(env, runVaultImport),
		newVaultCheckCmd(env, runVaultCheck), newVaultPassphraseCmd(env, runVaultPassphrase),
	)
	return cmd
}

type vaultStatusOptions struct {
	env     *Env
	Output  string
	Verbose bool
}

func newVaultStatusCmd(env *Env, run func(context.Context, vaultStatusOptions) error) *cobra.Command {
	opts := vaultStatusOptions{env: env}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show where the secrets of each company and application are",
		Long: `Shows in which home the secrets of each company and application are, as the
records say, without opening any. upsauth vault check opens them.`,
		Example: `  upsauth vault status
  upsauth vault status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "table or json")
	return cmd
}

// vaultStatus is the JSON of upsauth vault status.
type vaultStatus struct {
	Version int `json:"version"`
	// Vault is the home of what is new.
	Vault        string             `json:"vault"`
	Identity     *string            `json:"identity"`
	Grants       []vaultGrant       `json:"grants"`
	Applications []vaultApplication `json:"applications"`
}

type vaultGrant struct {
	Company       string `json:"company"`
	Application   string `json:"application"`
	Environment   string `json:"environment"`
	Vault         string `json:"vault"`
	TokenVaultKey string `json:"token_vault_key"`
}

type vaultApplication struct {
	Application string `json:"application"`
	Environment string `json:"environment"`
	Vault       string `json:"vault"`
}

func runVaultStatus(_ context.Context, opts vaultStatusOptions) error {
	if opts.Output != "" && opts.Output != "table" && opts.Output != "json" {
		return usagef("%q is no output format of vault status: it is table or json", opts.Output)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	records, err := s.records("")
	if err != nil {
		return err
	}
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return err
	}
	status := vaultStatus{Version: 1, Vault: s.config.Vault, Grants: []vaultGrant{}, Applications: []vaultApplication{}}
	if s.config.Identity != "" {
		status.Identity = &s.config.Identity
	}
	for _, r := range records {
		status.Grants = append(status.Grants, vaultGrant{r.Company, r.Application, r.Environment, r.Vault, r.TokenVaultKey})
	}
	for _, r := range applications.Applications {
		status.Applications = append(status.Applications, vaultApplication{r.Name, r.Environment, r.Vault})
	}
	if opts.Output == "json" {
		return render.JSON(opts.env.Out, status)
	}
	fmt.Fprintf(opts.env.Err, "New secrets go into the %s%s.\n", vault.Describe(s.config.Vault), s.openedBy(s.config.Vault))
	if len(status.Grants)+len(status.Applications) == 0 {
		fmt.Fprintln(opts.env.Err, "There are none yet.")
		return nil
	}
	var lines [][]string
	for _, g := range status.Grants {
		lines = append(lines, []string{g.Company, g.Application, g.Environment, g.Vault, g.TokenVaultKey})
	}
	for _, a := range status.Applications {
		lines = append(lines, []string{"", a.Application, a.Environment, a.Vault, "client secret"})
	}
	return render.Table(opts.env.Out, []string{"COMPANY", "APPLICATION", "ENVIRONMENT", "VAULT", "TOKEN VAULT KEY"}, lines)
}

// homesInUse are the homes that have secrets, as records and registrations say,
// and the one that gets what is new.
func (s *session) homesInUse() []string {
	records, _, _ := s.vault.List("")
	applications, _ := config.LoadApplications(s.config.Paths.Config)
	homes := append(homesOf(records, applications.Applications), s.config.Vault)
	slices.Sort(homes)
	return slices.Compact(homes)
}

// homesOf are the homes that have the secrets of some grants and applications.
func homesOf(records []grant.Record, applications []config.Registration) []string {
	var homes []string
	for _, r := range records {
		homes = append(homes, r.Vault)
	}
	for _, r := range applications {
		homes = append(homes, r.Vault)
	}
	slices.Sort(homes)
	return slices.Compact(homes)
}

// openedBy says what opens a home, behind a sentence about it.
func (s *session) openedBy(home string) string {
	switch {
	case home != "file":
		return ""
	case s.config.Identity != "":
		return "; the identity in " + s.config.Identity + " opens it"
	}
	return "; a passphrase opens it"
}

// chosen lists the grants that a vault command is about: of one company, or all.
func (s *session) chosen(t target) ([]grant.Record, error) {
	all, err := s.records(t.Company)
	if err != nil {
		return nil, err
	}
	if err := s.checkFilter(all, t.Application, t.Environment); err != nil {
		return nil, err
	}
	if t.Company != "" && len(all) == 0 {
		return nil, s.noCompany(t.Company)
	}
	fit := filter(all, t.Application, t.Environment)
	if t.Company != "" && len(fit) == 0 {
		return nil, noGrant(all, t)
	}
	return fit, nil
}

// chosenApplications lists the applications that a vault command is about: those
// that the flags name. What is about one company is about no client secret.
func (s *session) chosenApplications(t target) ([]config.Registration, error) {
	if t.Company != "" {
		return nil, nil
	}
	applications, err := config.LoadApplications(s.config.Paths.Config)
	if err != nil {
		return nil, err
	}
	return applications.Find(t.Application, t.Environment), nil
}

// about puts what an error is about before it, unless it says so itself.
func about(what string, err error) string {
	text := message(err)
	if strings.HasPrefix(text, what) {
		return text
	}
	return what + ": " + text
}

// failures tells what went wrong with each of several, and remembers the worst.
type failures struct {
	env   *Env
	worst int
}

func (f *failures) add(what string, err error) {
	fmt.Fprintln(f.env.Err, about(what, err))
	if text := advice(err); text != "" {
		fmt.Fprintf(f.env.Err, "  %s\n", text)
	}
	f.worst = worse(f.worst, exitCode(err))
}

// end is the error of the whole command.
func (f *failures) end(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case f.worst != exitDone:
		return &statusError{code: f.worst}
	}
	return nil
}

type vaultPassphraseOptions struct {
	env       *Env
	FromStdin bool
	Verbose   bool
}

func newVaultPassphraseCmd(env *Env, run func(context.Context, vaultPassphraseOptions) error) *cobra.Command {
	opts := vaultPassphraseOptions{env: env}
	cmd := &cobra.Command{
		Use:   "passphrase",
		Short: "Set or change the passphrase of the file vault",
		Long: `Changes the passphrase that opens the file vault, or makes the vault with one.
The present one comes from UPSAUTH_PASSPHRASE, UPSAUTH_PASSPHRASE_FILE or a
hidden prompt, the new one from a hidden prompt or standard input.

The secrets are not encrypted anew: whoever has a copy of the vault from before
and the old passphrase still opens that copy.`,
		Example: `  upsauth vault passphrase
  upsauth vault passphrase --new-passphrase-stdin < new-passphrase.txt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.FromStdin, "new-passphrase-stdin", false, "read the new passphrase from standard input")
	return cmd
}

func runVaultPassphrase(ctx context.Context, opts vaultPassphraseOptions) error {
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	err = s.files.ChangePassphrase(ctx, func(ctx context.Context) (string, error) {
		next := secretInput{what: "new passphrase of the file vault", flag: "new-passphrase-stdin", twice: true}
		return next.read(ctx, opts.env, opts.FromStdin)
	})
	if errors.Is(err, agefile.ErrNotByPassphrase) {
		return usagef("the identity in %s opens the file vault, no passphrase: leave UPSAUTH_IDENTITY and identity in config.toml unset for one", s.config.Identity)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(opts.env.Out, "The new passphrase opens the file vault from now on.")
	if opts.env.Getenv(config.EnvPassphrase) != "" || opts.env.Getenv(config.EnvPassphraseFile) != "" {
		fmt.Fprintln(opts.env.Err, "Change it in UPSAUTH_PASSPHRASE or UPSAUTH_PASSPHRASE_FILE as well, where it is set.")
	}
	return nil
}
