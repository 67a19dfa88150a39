package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
)

type revokeOptions struct {
	env         *Env
	Companies   []string
	Application string
	Environment string
	All         bool
	Yes         bool
	Verbose     bool
}

func newRevokeCmd(env *Env) *cobra.Command {
	opts := revokeOptions{env: env}
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Remove a company's authorization from this machine (REMOVE AUTH)",
		Long: `Removes a company's tokens and their record from the vault. Repeat --company for
several companies; --all removes the tokens of all companies.

UPS has no endpoint to revoke a token: a token stays valid until it expires. To void
it at once, the person who signed in must change their ups.com password.`,
		Example: `  upsauth revoke --company "Acme Corp"
  upsauth revoke --company "Acme Corp" --company "Nord AG" --yes
  upsauth revoke --all --env cie`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			if err := noEmpty(cmd, "app", "env"); err != nil {
				return err
			}
			return runRevoke(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringArrayVar(&opts.Companies, "company", nil, "the company's name (may be repeated)")
	cmd.Flags().StringVar(&opts.Application, "app", "", "the application, if several match")
	cmd.Flags().StringVar(&opts.Environment, "env", "", "the environment, if several match: "+config.Sandbox+", cie, production or one of your own")
	cmd.Flags().BoolVar(&opts.All, "all", false, "remove the authorizations of all companies, or all of --app and --env")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runRevoke(ctx context.Context, opts revokeOptions) error {
	switch {
	case opts.All && len(opts.Companies) > 0:
		return usagef("--all and --company can't be combined")
	case !opts.All && len(opts.Companies) == 0:
		return usagef("--company is missing: name the company, or add --all for all of them")
	}
	for _, name := range opts.Companies {
		// An empty variable in a script must not mean something else.
		if strings.TrimSpace(name) == "" {
			return usagef("--company is empty: name the company")
		}
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	finished := s.FinishRemovals(ctx)
	work, err := opts.choose(ctx, s, finished)
	if err != nil {
		return err
	}
	if len(work) == 0 {
		return nil
	}
	if err := opts.confirm(ctx, work); err != nil {
		return err
	}
	failed := &failures{env: opts.env}
	for _, id := range work {
		if ctx.Err() != nil {
			break
		}
		var nothing *vault.NothingThereError
		err := s.Revoke(ctx, id)
		if errors.As(err, &nothing) {
			opts.env.tell("%s\n", nothingThere(nothing))
			continue
		}
		if err != nil {
			if len(work) == 1 {
				return err
			}
			failed.add(id.String(), err)
			continue
		}
		opts.env.tell("Removed the authorization of %s and its tokens.\n", id)
	}
	if err := s.whole(); err != nil && opts.All {
		failed.worst = exitFailed // what can't be read is not removed
	}
	fmt.Fprintln(opts.env.Err, render.NotRevoked)
	return failed.end(ctx)
}

// nothingThere says that a removal found no tokens, and where they may be yet.
func nothingThere(e *vault.NothingThereError) string {
	return fmt.Sprintf("Removed the record of %s. Its tokens were not in the %s, so none were removed: they may be %s.", e.ID, vault.Describe(e.Home), e.Where())
}

// choose returns the grants to be removed. Finished are those whose removal was
// cut off and is done now: that is what was asked for, too.
func (opts revokeOptions) choose(ctx context.Context, s *job, finished []grant.ID) ([]grant.ID, error) {
	if opts.All {
		list, err := s.Chosen(ctx, session.Target{Application: opts.Application, Environment: opts.Environment})
		records := list.Records
		if err == nil && len(records) == 0 {
			if err := s.whole(); err != nil {
				return nil, err
			}
			fmt.Fprintln(opts.env.Err, "There is nothing to remove.")
		}
		return session.IDs(records), err
	}
	var work []grant.ID
	for _, name := range opts.Companies {
		t := session.Target{Company: name, Application: opts.Application, Environment: opts.Environment}
		record, err := s.Pick(ctx, t)
		switch {
		case errors.As(err, new(*session.NotFoundError)) && len(filterIDs(finished, t)) > 0:
			opts.env.tell("Finished an earlier removal of the authorization of %s.\n", name)
		case err != nil:
			// Nothing is removed where one of the names is wrong.
			return nil, s.nothingLeft(ctx, name, err)
		case !slices.Contains(work, record.ID):
			work = append(work, record.ID)
		}
	}
	return work, nil
}

// nothingLeft is the error of a removal where a company is known and has no
// authorization, after an earlier removal say. Otherwise it is err.
func (s *job) nothingLeft(ctx context.Context, name string, err error) error {
	if !errors.As(err, new(*session.NotFoundError)) {
		return err
	}
	list, _, otherErr := s.Remembered(ctx, name)
	left := list.Records
	if otherErr != nil || left[0].TokenVaultKey != "" {
		return err
	}
	return &notFoundError{what: fmt.Sprintf("there is nothing to remove: %s has no authorization", left[0].Company), advice: "upsauth status shows which companies have one."}
}

// confirm asks a yes-or-no question about one or a few; for all, the number has
// to be typed.
func (opts revokeOptions) confirm(ctx context.Context, work []grant.ID) error {
	if len(work) == 1 && !opts.All {
		return confirm(ctx, opts.env, fmt.Sprintf("Remove the authorization of %s from this machine?", work[0]), opts.Yes)
	}
	if opts.Yes {
		return nil
	}
	question := fmt.Sprintf("Remove %s from this machine?", counted(len(work), "authorization"))
	if !opts.env.attended() {
		return usagef("%s There is no terminal to ask: add --yes", question)
	}
	for i, id := range work {
		if i == 10 && len(work) > 12 {
			fmt.Fprintf(opts.env.Err, "  … and %d more\n", len(work)-i)
			break
		}
		fmt.Fprintf(opts.env.Err, "  %s\n", id)
	}
	fmt.Fprintf(opts.env.Err, "%s Type the number %d to confirm: ", question, len(work))
	answer, err := opts.env.person().Lines.Read(ctx)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != strconv.Itoa(len(work)) {
		return errDeclined
	}
	return nil
}

// filterIDs keeps those of one company that the flags fit.
func filterIDs(ids []grant.ID, t session.Target) []grant.ID {
	return slices.DeleteFunc(slices.Clone(ids), func(id grant.ID) bool {
		return grant.Fold(id.Company) != grant.Fold(t.Company) ||
			t.Application != "" && id.Application != t.Application || t.Environment != "" && id.Environment != t.Environment
	})
}
