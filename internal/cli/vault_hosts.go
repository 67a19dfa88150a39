package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

type vaultHostsOptions struct {
	env     *Env
	Output  string
	Raw     bool
	Verbose bool
}

func newVaultHostsCmd(env *Env) *cobra.Command {
	opts := vaultHostsOptions{env: env}
	cmd := &cobra.Command{
		Use:   "hosts",
		Short: "List the hosts that share a vault",
		Long: `Lists the hosts that share the vault, and what each is: ready, or awaited after a
failover of the database, or to be accepted, or signed off, or removed. While a host is
awaited, no host refreshes a token. Access tokens that are still valid can be used.

The command works as soon as a database is configured: url under [shared] in config.toml,
UPSAUTH_DATABASE_URL, or libpq's variables. The vault of this machine may be another one.`,
		Example: `  upsauth vault hosts
  upsauth vault hosts -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultHosts(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Raw, "raw", false, "with -o csv: write every field unchanged, even if a spreadsheet reads the field as a formula")
	outputFlag(cmd, &opts.Output, "", "table", "json", "csv")
	cmd.AddCommand(newVaultHostsRemoveCmd(env), newVaultHostsAcceptCmd(env))
	return cmd
}

// hostList is the JSON of upsauth vault hosts.
type hostList struct {
	Version int `json:"version"`
	// Epoch is the number of the latest roll call.
	Epoch int64        `json:"epoch"`
	Hosts []listedHost `json:"hosts"`
}

type listedHost struct {
	Host     string            `json:"host"`
	ID       string            `json:"id"`
	State    session.HostState `json:"state"`
	LastSeen *string           `json:"last_seen"`
	// Epoch is the latest roll call that the host answered.
	Epoch    int64 `json:"epoch"`
	ThisHost bool  `json:"this_host"`
}

func newHostList(list session.Hosts) hostList {
	all := hostList{Version: 1, Epoch: list.Epoch, Hosts: []listedHost{}}
	for _, h := range list.Hosts {
		listed := listedHost{Host: h.Name, ID: h.ID, State: h.State, Epoch: h.Epoch, ThisHost: h.Here}
		if !h.Seen.IsZero() {
			seen := h.Seen.UTC().Format(time.RFC3339)
			listed.LastSeen = &seen
		}
		all.Hosts = append(all.Hosts, listed)
	}
	return all
}

func runVaultHosts(ctx context.Context, opts vaultHostsOptions) error {
	if opts.Raw && opts.Output != "csv" {
		return usagef("--raw is for -o csv")
	}
	s, err := openJob(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := s.Hosts(ctx)
	if err != nil {
		return err
	}
	switch opts.Output {
	case "json":
		return render.JSON(opts.env.Out, newHostList(list))
	case "csv":
		return hostsCSV(opts, newHostList(list))
	}
	if len(list.Hosts) == 0 {
		fmt.Fprintln(opts.env.Err, "No host uses this database yet.")
		return nil
	}
	var lines [][]string
	for _, h := range list.Hosts {
		epoch := strconv.FormatInt(h.Epoch, 10)
		if h.State == session.HostAwaited {
			epoch += fmt.Sprintf(" (awaited: %d)", list.Epoch)
		}
		here := "-"
		if h.Here {
			here = "yes"
		}
		lines = append(lines, []string{
			legible.Line(h.Name), h.ShortID(), strings.ReplaceAll(string(h.State), "-", " "), h.Seen.In(opts.env.Zone).Format(time.DateTime), epoch, here,
		})
	}
	return render.Table(opts.env.Out, []string{"HOST", "ID", "STATE", "LAST SEEN", "EPOCH", "THIS HOST"}, lines, opts.env.width())
}

func hostsCSV(opts vaultHostsOptions, list hostList) error {
	out := render.NewCSV(opts.env.Out, opts.Raw)
	if err := out.Write("host", "id", "state", "last_seen", "epoch", "this_host"); err != nil {
		return err
	}
	for _, h := range list.Hosts {
		seen := ""
		if h.LastSeen != nil {
			seen = *h.LastSeen
		}
		if err := out.Write(h.Host, h.ID, string(h.State), seen, strconv.FormatInt(h.Epoch, 10), strconv.FormatBool(h.ThisHost)); err != nil {
			return err
		}
	}
	return out.Flush()
}

// hostWords name a host in a sentence.
func hostWords(h session.Host) string {
	return fmt.Sprintf("%s (%s)", legible.Line(h.Name), h.ShortID())
}

// oneHost takes one word at most: a host's name or the beginning of its ID.
func oneHost(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("Unknown argument %q; a name with spaces needs quotes.\n  See: %s --help", strings.Join(args[1:], " "), cmd.CommandPath())
	}
	// An empty variable in a script must not mean this host.
	if len(args) == 1 && strings.TrimSpace(args[0]) == "" {
		return usagef("the name of the host is empty")
	}
	return nil
}
