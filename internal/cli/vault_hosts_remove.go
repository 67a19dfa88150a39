package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/session"
)

type vaultHostOptions struct {
	env     *Env
	Host    string
	Yes     bool
	Verbose bool
}

func newVaultHostsRemoveCmd(env *Env) *cobra.Command {
	opts := vaultHostOptions{env: env}
	cmd := &cobra.Command{
		Use:   "remove NAME|ID",
		Short: "Remove a host that will not come back",
		Long: `Removes a host that will not come back. Nobody waits for this host any more. The other
hosts refresh the tokens that it was refreshing. If the host still comes, it may deliver
UPS's answers, and it refreshes nothing.

Remove a host only if it is lost: if it holds an answer of UPS's that it has not delivered,
another host sends the same refresh token again, and UPS may void the authorization.
If several hosts have the name, give the ID or its beginning.`,
		Example: `  upsauth vault hosts remove web-2
  upsauth vault hosts remove 3f8a12cd --yes`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := oneArg("the name or the ID of the host")(cmd, args); err != nil {
				return err
			}
			return oneHost(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Host, opts.Verbose = args[0], verbose(cmd)
			return runVaultHostsRemove(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	return cmd
}

func runVaultHostsRemove(ctx context.Context, opts vaultHostOptions) error {
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	host, err := s.FindHost(ctx, opts.Host)
	if err != nil {
		return err
	}
	if host.State == session.HostRemoved {
		fmt.Fprintf(opts.env.Err, "The host %s was removed before.\n", hostWords(host))
		return nil
	}
	question := fmt.Sprintf("Remove the host %s, last seen %s?", hostWords(host), host.Seen.In(opts.env.Zone).Format("2006-01-02 15:04:05 MST"))
	if host.Here {
		question = fmt.Sprintf("Remove this machine, the host %s? It will refresh no token any more.", hostWords(host))
	}
	if err := confirm(ctx, opts.env, question, opts.Yes); err != nil {
		return err
	}
	if err := s.RemoveHost(ctx, host); err != nil {
		return err
	}
	opts.env.tell("The host %s was removed.\n", hostWords(host))
	return nil
}
