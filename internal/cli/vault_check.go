package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/keychain"
)

type vaultCheckOptions struct {
	env     *Env
	Repair  bool
	Yes     bool
	Output  string
	Verbose bool
}

func newVaultCheckCmd(env *Env, run func(context.Context, vaultCheckOptions) error) *cobra.Command {
	opts := vaultCheckOptions{env: env}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that every company has its secrets, and every secret its company",
		Long: `Opens the secrets of every company and every application, and looks for secrets
that no record speaks of, as far as the home can list them: the file vault, and
the keychains of Linux, the BSDs and Windows.

With --repair, records that are missing are made anew out of the secrets, and
what was cut off is finished.`,
		Example: `  upsauth vault check
  upsauth vault check --repair`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return run(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Repair, "repair", false, "make missing records anew")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	outputFlag(cmd, &opts.Output, "json; without it a line for each finding")
	return cmd
}

func runVaultCheck(ctx context.Context, opts vaultCheckOptions) error {
	if opts.Output != "" && opts.Output != "json" {
		return usagef("%q is no output format of vault check: it is json, or none for a line for each finding", opts.Output)
	}
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	c := &vaultCheck{s: s, repair: opts.Repair, yes: opts.Yes}
	// What is repaired is found to be whole after it.
	looks := []func(context.Context) error{c.grants, c.applications, c.orphans}
	if opts.Repair {
		c.finishRemovals(ctx, s.vault)
		looks = []func(context.Context) error{c.orphans, c.grants, c.applications}
	}
	for _, look := range looks {
		if err := look(ctx); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.report(opts.env, opts.Output)
}

// vaultCheck compares records and homes.
type vaultCheck struct {
	findings
	s           *session
	repair, yes bool
}

func (c *vaultCheck) grants(ctx context.Context) error {
	records, problems, err := c.s.vault.List("")
	if err != nil {
		return err
	}
	for _, problem := range problems {
		c.fail("records", problem)
	}
	if err := c.s.open(ctx, true, ids(records)...); err != nil {
		return err
	}
	whole := 0
	for _, r := range records {
		if ctx.Err() != nil {
			return nil
		}
		if c.grant(ctx, r) {
			whole++
		}
	}
	switch {
	case len(records) > 0 && whole == len(records):
		c.ok("secrets", "%s: each is whole", counted(whole, "authorization"))
	case whole > 0:
		c.ok("secrets", "%s of %d are whole", counted(whole, "authorization"), len(records))
	}
	return nil
}

// grant reports whether the secrets of a grant are whole.
func (c *vaultCheck) grant(ctx context.Context, r grant.Record) bool {
	if r.Interrupted {
		if _, err := c.s.keeper.Settle(ctx, r.ID); err != nil && !errors.As(err, new(*keeper.PendingError)) {
			c.fail("secrets", err)
			return false
		}
	}
	err := c.s.vault.Check(ctx, r.ID)
	var noKey *vault.JournalKeyError
	switch {
	case errors.Is(err, grant.ErrNoGrant): // revoked meanwhile
	case errors.As(err, &noKey) && c.repair:
		if err := c.s.vault.RepairJournalKey(ctx, r.ID); err != nil {
			c.fail("secrets", err)
			return false
		}
		c.ok("repaired", "%s: the journal has a new key", r.ID)
	case errors.As(err, &noKey):
		c.warn("secrets", message(err), "Run: upsauth vault check --repair")
		return false
	case err != nil:
		c.fail("secrets", err)
		return false
	}
	return true
}

func (c *vaultCheck) applications(ctx context.Context) error {
	applications, err := config.LoadApplications(c.s.config.Paths.Config)
	if err != nil {
		return err
	}
	whole := 0
	for _, r := range applications.Applications {
		if r.LeftIn != "" && c.repair {
			if err := c.s.moveSecret(ctx, r, r.Vault); err != nil {
				c.fail("client secrets", err)
				continue
			}
			c.ok("repaired", "%s (%s): a move of the client secret that was cut off is finished", r.Name, r.Environment)
		} else if r.LeftIn != "" {
			c.warn("client secrets", fmt.Sprintf("the move of the client secret of %s (%s) was cut off", r.Name, r.Environment), "Run: upsauth vault check --repair")
		}
		if _, err := c.s.storedSecret(ctx, r); err != nil {
			c.fail("client secrets", err)
			continue
		}
		whole++
	}
	if whole > 0 {
		c.ok("client secrets", "%s of %d are there", counted(whole, "client secret"), len(applications.Applications))
	}
	return nil
}

// orphans looks for secrets without record.
func (c *vaultCheck) orphans(ctx context.Context) error {
	orphans, problems, err := c.s.vault.Orphans(ctx)
	if err != nil {
		return err
	}
	for _, problem := range problems {
		c.unlisted(problem)
	}
	var lost []vault.Lost
	for _, place := range orphans {
		if err := c.s.vault.Open(ctx, place.Vault); err != nil {
			c.fail("orphans", err)
			continue
		}
		switch l := c.s.vault.Lost(ctx, place); {
		case errors.Is(l.Err, vault.ErrNoItem):
			c.warn("orphans", fmt.Sprintf("the %s has remains of a grant under %s, without its tokens", vault.Describe(place.Vault), place.TokenVaultKey), c.orphanRemedy(place))
		case errors.As(l.Err, new(*vault.TakenError)) && c.s.keyOf(l.ID) == place.TokenVaultKey:
			c.warn("orphans", fmt.Sprintf("the %s has a copy of the secrets of %s under %s, which its record does not speak of", vault.Describe(place.Vault), l.ID, place.TokenVaultKey), c.orphanRemedy(place))
		case errors.As(l.Err, new(*vault.TakenError)):
			c.warn("orphans", fmt.Sprintf("the %s has another authorization of %s under %s, which no record speaks of", vault.Describe(place.Vault), l.ID, place.TokenVaultKey), c.orphanRemedy(place))
		case l.Err != nil:
			c.fail("orphans", l.Err)
		default:
			lost = append(lost, l)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	if !c.repair {
		for _, l := range lost {
			c.failWith(exitFailed, "lost", fmt.Sprintf("%s has its secrets in the %s and no record", l.ID, vault.Describe(l.Vault)), "Run: upsauth vault check --repair")
		}
		return nil
	}
	question := fmt.Sprintf("Make records for %s? If another upsauth on this machine, with another UPSAUTH_STATE_DIR, goes on using them, the two will void each other's.", counted(len(lost), "authorization"))
	if err := confirm(ctx, c.s.env, question, c.yes); err != nil {
		return err
	}
	for _, l := range lost {
		if err := c.s.vault.Rebuild(ctx, l); err != nil {
			c.fail("lost", err)
			continue
		}
		c.ok("repaired", "%s: has its record again", l.ID)
	}
	return nil
}

// keyOf is the Token Vault Key that a grant has, empty for none.
func (s *session) keyOf(id grant.ID) string {
	record, _ := s.vault.Record(id)
	return record.TokenVaultKey
}

// finishRemovals finishes what revokes and moves left.
func (f *findings) finishRemovals(ctx context.Context, v *vault.Vault) {
	removed, err := v.FinishRemovals(ctx)
	if err != nil {
		f.fail("removals", err)
	}
	for _, id := range removed {
		f.ok("removals", "%s: a removal that was cut off is finished", id)
	}
}

// unlisted tells of a home that can't be looked through. Many a machine has no
// keychain, and nothing to do with one.
func (c *vaultCheck) unlisted(problem error) {
	var home *vault.HomeError
	switch {
	case errors.As(problem, &home) && !slices.Contains(c.s.homesInUse(), home.Home):
	case errors.As(problem, &home):
		c.warn("orphans", "what no record speaks of can't be looked for: "+home.What, home.Advice)
	default:
		c.fail("orphans", problem)
	}
}

// orphanRemedy bears in mind that all state directories of a user share the one
// keychain.
func (c *vaultCheck) orphanRemedy(o grant.Superseded) string {
	switch {
	case o.Vault == "file":
		return fmt.Sprintf("Where no backup of the records is to come back, delete %s.", filepath.Join(c.s.config.Paths.State, "vault", o.TokenVaultKey+"*"))
	case runtime.GOOS == "linux":
		return fmt.Sprintf("Where no other state directory and no backup of the records speaks of it, run: secret-tool clear service %s username %s, and the same with %[2]s/journal.", keychain.Service, o.TokenVaultKey)
	}
	return fmt.Sprintf("Where no other state directory and no backup of the records speaks of it, delete what %s has under %s with the keychain's own program.", keychain.Service, o.TokenVaultKey)
}
