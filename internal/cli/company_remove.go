package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault"
)

func newCompanyRemoveCmd(env *Env) *cobra.Command {
	cmd, opts := companyCmd(env, "remove NAME", "Forget a company and its history",
		"  upsauth company remove \"Acme Corp\"\n  upsauth company remove \"Acme Corp\" --revoke --yes", oneArg("the company's NAME"), runCompanyRemove)
	cmd.Long = `Forgets a company and its history. While it has an authorization, that has to be
removed first, or with --revoke along with it.`
	cmd.Flags().BoolVar(&opts.Revoke, "revoke", false, "remove its authorizations too")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runCompanyRemove(ctx context.Context, opts companyOptions) error {
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.finishRemovals(ctx)
	records, _, err := s.remembered(opts.Names[0])
	if err != nil {
		return err
	}
	if len(s.problems) > 0 {
		if problem := s.problems[0]; !errors.As(problem, new(*vault.DamagedError)) {
			return problem
		}
		return errors.New("something of this company is damaged, and its tokens may be there still; first run: upsauth vault check --repair")
	}
	name := records[0].Company
	grants := slices.DeleteFunc(slices.Clone(records), func(r grant.Record) bool { return r.TokenVaultKey == "" })
	question := fmt.Sprintf("Forget %s?", name)
	if len(grants) > 0 {
		if !opts.Revoke {
			return fmt.Errorf("%s is authorized: %s\n  Revoke that first, or add --revoke", name, listed(grants))
		}
		question = fmt.Sprintf("Forget %s and remove %s of it?", name, counted(len(grants), "authorization"))
	}
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	work, err := s.vault.Announce(ctx, vault.Work{Kind: vault.WorkForget, Company: name, Keys: keysOf(grants)})
	if err != nil {
		return err
	}
	for i, r := range grants {
		var nothing *vault.NothingThereError
		if err := s.keeper.Revoke(ctx, r.ID); errors.As(err, &nothing) {
			fmt.Fprintln(opts.env.Out, nothingThere(nothing))
		} else if err != nil {
			if i == 0 {
				work.Done() // the tombstone, where there is one, tells of itself
			} else {
				work.Leave()
			}
			return err
		}
	}
	if err := s.companies.Remove(name); err != nil {
		work.Leave()
		return err
	}
	work.Done()
	opts.env.tell("Forgot %s.\n", legible.Line(name))
	return nil
}
