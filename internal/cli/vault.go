package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
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
		newVaultStatusCmd(env), newVaultMoveCmd(env),
		newVaultExportCmd(env), newVaultImportCmd(env),
		newVaultCheckCmd(env), newVaultPassphraseCmd(env),
	)
	return cmd
}

// homesInUse are the homes that have secrets, as records and registrations say,
// and the one that gets what is new.
func (s *session) homesInUse(records []grant.Record, applications []config.Registration) []string {
	homes := append(homesOf(records, applications), s.config.Vault)
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
		return nil, s.noGrant(all, t)
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
