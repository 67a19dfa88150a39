package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/serve"
	"github.com/upsauth/upsauth/internal/serve/control"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/session"
)

type keyOptions struct {
	env     *Env
	Name    string
	Scope   control.Scope
	Rights  string
	Output  string
	Verbose bool
}

func newServeKeyCmd(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Keys with which programs ask the service for tokens",
		Long: `A key lets a program ask the service for tokens where the program can't open the
service's socket: on another machine (upsauth serve --programs-listen), or on Windows.
A program at the socket needs no key.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyAddCmd(env), newKeyListCmd(env), newKeyRemoveCmd(env))
	return cmd
}

func newKeyAddCmd(env *Env) *cobra.Command {
	opts := keyOptions{env: env}
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a key and print it, once",
		Long: `Makes a key and prints it. upsauth keeps only its SHA-256, so nobody can print the key
again. The key covers all companies, or those that --company names, also after they are
renamed. A company that is removed and added again under the same name is another one.`,
		Example: `  upsauth serve key add webshop --company "Acme Corp"
  upsauth serve key add reports --env production --right token,refresh`,
		Args: oneArg("the name of the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Name, opts.Verbose = args[0], verbose(cmd)
			if err := noEmpty(cmd, "app", "env"); err != nil {
				return err
			}
			return runKeyAdd(cmd.Context(), opts)
		},
	}
	cmd.Flags().StringArrayVar(&opts.Scope.Companies, "company", nil, "a company that the key covers; give it once for each (default: all companies)")
	cmd.Flags().Var(&once{value: &opts.Scope.Application}, "app", "the application that the key covers (default: all)")
	cmd.Flags().Var(&once{value: &opts.Scope.Environment}, "env", "the environment that the key covers (default: all)")
	cmd.Flags().StringVar(&opts.Rights, "right", "token", "what the key allows: token, refresh, invite, or several of them, separated by commas")
	return cmd
}

func newKeyListCmd(env *Env) *cobra.Command {
	opts := keyOptions{env: env}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the keys, what each covers, and when it was last used",
		Example: "  upsauth serve key list\n  upsauth serve key list -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runKeyList(cmd.Context(), opts)
		},
	}
	outputFlag(cmd, &opts.Output, "", "table", "json")
	return cmd
}

func newKeyRemoveCmd(env *Env) *cobra.Command {
	opts := keyOptions{env: env}
	return &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a key: from then on nobody gets anything with it",
		Example: "  upsauth serve key remove webshop",
		Args:    oneArg("the name of the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Name, opts.Verbose = args[0], verbose(cmd)
			return runKeyRemove(cmd.Context(), opts)
		},
	}
}

// withKeys does something with the keys of programs: with the service's where one runs,
// which knows best when they were used, else with those on disk.
func withKeys(ctx context.Context, opts keyOptions, do func(control.Keys) error) error {
	service, err := newAsker(opts.env)
	if err != nil {
		return err
	}
	_, err = service.Service(ctx)
	switch {
	case err == nil:
		if err := do(service); err != nil {
			return service.told(ctx, err)
		}
		return nil
	case !errors.Is(err, control.ErrNoService):
		return err
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	kept, err := serve.KeyStore(s.Session)
	if err != nil {
		return err
	}
	store := keys.Over(kept, keys.Options{Now: opts.env.Now})
	here := func(context.Context) (*session.Session, error) { return s.Session, nil }
	return errors.Join(do(serve.Keys{Session: here, Store: store}), store.Close())
}

func runKeyAdd(ctx context.Context, opts keyOptions) error {
	if slices.ContainsFunc(opts.Scope.Companies, func(name string) bool { return strings.TrimSpace(name) == "" }) {
		// An empty variable in a script must not mean all companies.
		return usagef("--company is empty: name the company")
	}
	rights, err := keys.ParseRights(opts.Rights)
	if err != nil {
		return usagef("--right: %v", err)
	}
	for _, right := range rights {
		opts.Scope.Rights = append(opts.Scope.Rights, string(right))
	}
	return withKeys(ctx, opts, func(keys control.Keys) error {
		secret, err := keys.Add(ctx, opts.Name, opts.Scope)
		if err != nil {
			return err
		}
		fmt.Fprintf(opts.env.Out, "%s\n", secret)
		fmt.Fprintln(opts.env.Err, "Nobody can print this key again. Programs send it as: Authorization: Bearer KEY")
		return nil
	})
}

// keyList is the JSON of upsauth serve key list.
type keyList struct {
	Version int           `json:"version"`
	Keys    []control.Key `json:"keys"`
}

func runKeyList(ctx context.Context, opts keyOptions) error {
	return withKeys(ctx, opts, func(keys control.Keys) error {
		all, err := keys.List(ctx)
		if err != nil {
			return err
		}
		if opts.Output == "json" {
			return render.JSON(opts.env.Out, keyList{Version: 1, Keys: append([]control.Key{}, all...)})
		}
		if len(all) == 0 {
			fmt.Fprintln(opts.env.Err, "There are no keys. Make one with: upsauth serve key add NAME")
			return nil
		}
		var lines [][]string
		for _, k := range all {
			used := "never"
			if k.LastUsed != nil {
				used = k.LastUsed.In(opts.env.Zone).Format(time.DateTime)
			}
			lines = append(lines, []string{k.Name, companiesOf(k), anyOf(k.Application), anyOf(k.Environment), joined(k.Rights), used})
		}
		return render.Table(opts.env.Out, []string{"KEY", "COMPANIES", "APPLICATION", "ENVIRONMENT", "RIGHTS", "LAST USED"}, lines, opts.env.width())
	})
}

// companiesOf are the companies that a key covers, in a table.
func companiesOf(k control.Key) string {
	if k.Removed == 0 {
		return anyOf(joined(k.Companies))
	}
	return joined(append(k.Companies, fmt.Sprintf("%d removed", k.Removed)))
}

// anyOf is what a key covers, in a table.
func anyOf(text string) string {
	if text == "" {
		return "all"
	}
	return text
}

func runKeyRemove(ctx context.Context, opts keyOptions) error {
	return withKeys(ctx, opts, func(keys control.Keys) error {
		if err := keys.Remove(ctx, opts.Name); err != nil {
			return err
		}
		opts.env.tell("The key %s was removed.\n", opts.Name)
		return nil
	})
}
