package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/vault"
)

type vaultStatusOptions struct {
	env     *Env
	Output  string
	Verbose bool
}

func newVaultStatusCmd(env *Env) *cobra.Command {
	opts := vaultStatusOptions{env: env}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show where the secrets of each company and application are",
		Long: `Shows in which home the secrets of each company and application are, as the
records say. It opens no secret; upsauth vault check does.`,
		Example: `  upsauth vault status
  upsauth vault status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultStatus(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "", "table", "json")
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

func runVaultStatus(ctx context.Context, opts vaultStatusOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	records, err := s.records(ctx, "")
	if err != nil {
		return err
	}
	applications, err := s.Applications(ctx)
	if err != nil {
		return err
	}
	status := vaultStatus{Version: 1, Vault: s.Config.Vault, Grants: []vaultGrant{}, Applications: []vaultApplication{}}
	if s.Config.Identity != "" {
		status.Identity = &s.Config.Identity
	}
	for _, r := range records {
		status.Grants = append(status.Grants, vaultGrant{r.Company, r.Application, r.Environment, r.Home, r.TokenVaultKey})
	}
	for _, r := range applications.Applications {
		status.Applications = append(status.Applications, vaultApplication{r.Name, r.Environment, r.Home})
	}
	if opts.Output == "json" {
		return errors.Join(render.JSON(opts.env.Out, status), s.whole())
	}
	fmt.Fprintf(opts.env.Err, "New secrets go into the %s%s.\n", vault.Describe(s.Config.Vault), s.OpenedBy(s.Config.Vault))
	if len(status.Grants)+len(status.Applications) == 0 {
		if err := s.whole(); err != nil {
			return err
		}
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
	return errors.Join(render.Table(opts.env.Out, []string{"COMPANY", "APPLICATION", "ENVIRONMENT", "VAULT", "TOKEN VAULT KEY"}, lines, opts.env.width()), s.whole())
}
