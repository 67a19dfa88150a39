package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
)

func newCompanyRemoveCmd(env *Env) *cobra.Command {
	cmd, opts := companyCmd(env, "remove NAME", "Remove a company and its history",
		"  upsauth company remove \"Acme Corp\"\n  upsauth company remove \"Acme Corp\" --revoke --yes", oneArg("the company's NAME"), runCompanyRemove)
	cmd.Long = `Removes a company and its history. If the company has authorizations, revoke them
first, or give --revoke to remove them too.`
	cmd.Flags().BoolVar(&opts.Revoke, "revoke", false, "remove its authorizations too")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runCompanyRemove(ctx context.Context, opts companyOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	s.FinishRemovals(ctx)
	list, _, err := s.Remembered(ctx, opts.Names[0])
	if err != nil {
		return err
	}
	if len(list.Problems) > 0 {
		if problem := list.Problems[0]; !errors.As(problem, new(*vault.DamagedError)) {
			return problem
		}
		return errors.New("this company has damaged files, and its tokens may still exist; first run: upsauth vault check --repair")
	}
	name := list.Records[0].Company
	grants := session.Authorized(list.Records)
	question := fmt.Sprintf("Remove %s and its history?", name)
	if len(grants) > 0 {
		if !opts.Revoke {
			return fmt.Errorf("%s is authorized: %s\n  Revoke the authorization first, or add --revoke", name, listed(session.IDs(grants)))
		}
		question = fmt.Sprintf("Remove %s and its %s?", name, counted(len(grants), "authorization"))
	}
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	err = s.Forget(ctx, name, grants, func(nothing *vault.NothingThereError) {
		opts.env.tell("%s\n", nothingThere(nothing))
	})
	if err != nil {
		return err
	}
	opts.env.tell("Removed %s.\n", legible.Line(name))
	return nil
}
