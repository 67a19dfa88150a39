package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/session"
)

func newVaultHostsAcceptCmd(env *Env) *cobra.Command {
	opts := vaultHostOptions{env: env}
	return &cobra.Command{
		Use:   "accept [NAME|ID]",
		Short: "Say that a new host uses the right database",
		Long: `Says that a new host uses the right database; without a name, that this machine does.

A new host asks for this if no other host has reached the database for 24 hours. The
database may then be a copy of the one that the other hosts use, such as in a test. Two
copies that refresh the same tokens void each other's authorizations. Until the host is
accepted, it refreshes nothing. Access tokens that are still valid can be used.`,
		Example: `  upsauth vault hosts accept
  upsauth vault hosts accept web-2`,
		Args: oneHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				opts.Host = args[0]
			}
			opts.Verbose = verbose(cmd)
			return runVaultHostsAccept(cmd.Context(), opts)
		},
	}
}

func runVaultHostsAccept(ctx context.Context, opts vaultHostOptions) error {
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
		return usagef("the host %s was removed, so there is nothing to accept", hostWords(host))
	}
	if err := s.AcceptHost(ctx, host); err != nil {
		return err
	}
	opts.env.tell("The host %s is accepted.\n", hostWords(host))
	if host.State == session.HostAwaited {
		fmt.Fprintln(opts.env.Err, "The other hosts still wait until it has answered the roll call.")
	}
	return nil
}
