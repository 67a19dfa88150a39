package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/legible"
)

type vaultFailoverOptions struct {
	env     *Env
	Yes     bool
	Verbose bool
}

func newVaultAcceptFailoverCmd(env *Env) *cobra.Command {
	opts := vaultFailoverOptions{env: env}
	cmd := &cobra.Command{
		Use:   "accept-failover",
		Short: "After a failover of the database, wait no longer for hosts that do not answer",
		Long: `After a failover or a restore of the database, each host has to say what it holds: the
database may have lost a part. Until all hosts have answered, no host refreshes a token.
Access tokens that are still valid can be used. This command says that nobody waits any
longer for the hosts that have not answered.

First start these hosts, if you can. If one of them holds an answer of UPS's that the
database has lost, another host sends the same refresh token again, and UPS may void the
authorization. A host that comes later answers first, and then goes on.
For a host that will never come, use upsauth vault hosts remove.`,
		Example: `  upsauth vault accept-failover
  upsauth vault accept-failover --yes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultAcceptFailover(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runVaultAcceptFailover(ctx context.Context, opts vaultFailoverOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := s.Hosts(ctx)
	if err != nil {
		return err
	}
	var awaited []string
	for _, h := range list.Awaited() {
		awaited = append(awaited, hostWords(h))
	}
	if len(awaited) == 0 {
		fmt.Fprintln(opts.env.Err, "No host is awaited.")
		return nil
	}
	question := fmt.Sprintf("Wait no longer for %s? If one of them holds an answer of UPS's, that answer may be lost.", joined(awaited))
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	names, err := s.AcceptFailover(ctx, list.Epoch)
	if err != nil {
		return err
	}
	for i := range names {
		names[i] = legible.Line(names[i])
	}
	opts.env.tell("Nobody waits any longer for: %s\n", joined(names))
	return nil
}
