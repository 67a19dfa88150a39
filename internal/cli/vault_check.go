package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

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

func newVaultCheckCmd(env *Env) *cobra.Command {
	opts := vaultCheckOptions{env: env}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check that every company has its secrets, and every secret its company",
		Long: `Opens the secrets of every company and every application, and looks for secrets
that no record speaks of, as far as the home can list them: the file vault, and
the keychains of Linux, the BSDs and Windows.

Tries what a refresh needs of this machine, too: a lock, a journal and a record,
which are removed again. What was cut off is finished or cleared away. With
--repair, records that are missing are made anew out of the secrets. Probes of no
company are removed, and so are client secrets of no application in the file vault.`,
		Example: `  upsauth vault check
  upsauth vault check --repair`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Verbose = verbose(cmd)
			return runVaultCheck(cmd.Context(), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Repair, "repair", false, "make missing records anew, remove what is nobody's")
	cmd.Flags().BoolVar(&opts.Yes, "yes", false, "do not ask")
	outputFlag(cmd, &opts.Output, "a line for each finding", "json")
	return cmd
}

func runVaultCheck(ctx context.Context, opts vaultCheckOptions) error {
	s, err := openSession(opts.env, opts.Verbose)
	if err != nil {
		return err
	}
	defer s.Close()
	c := &vaultCheck{s: s, repair: opts.Repair, yes: opts.Yes}
	if c.registered, err = config.LoadApplications(s.config.Paths.Config); err != nil {
		return err
	}
	if c.state(s) {
		c.leftovers(ctx, s)
	}
	if c.survey, err = s.vault.Survey(""); err != nil {
		return err
	}
	// What is repaired is found to be whole after it.
	looks := []func(context.Context) error{c.grants, c.applications, c.orphans}
	if c.stateErr == nil {
		c.finishRemovals(ctx, s.vault, c.survey.Records)
		c.finishLogins(ctx, s)
	}
	if opts.Repair {
		looks = []func(context.Context) error{c.orphans, c.again, c.grants, c.applications}
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
	survey      vault.Survey
	registered  config.Applications
	repair, yes bool
	rebuilt     bool // the survey is out of date
}

// again reads what was repaired.
func (c *vaultCheck) again(context.Context) (err error) {
	if c.rebuilt {
		c.survey, err = c.s.vault.Survey("")
	}
	return err
}

func (c *vaultCheck) grants(ctx context.Context) error {
	records, problems := c.survey.Present(), c.survey.Problems
	for _, problem := range problems {
		var damage *vault.DamagedError
		if c.repair && errors.As(problem, &damage) {
			c.failWith(exitFailed, "records", fmt.Sprintf("%s is damaged, and no secrets were found that it may be of", damage.Path), "Where no company misses its authorization, delete it: rm "+shellQuote(damage.Path))
			continue
		}
		c.fail("records", problem)
	}
	if err := c.s.open(ctx, true, records...); err != nil {
		return err
	}
	for _, r := range records {
		if !r.Interrupted || c.stateErr != nil {
			continue
		}
		if _, err := c.s.keeper.Settle(ctx, r.ID); err != nil && !errors.As(err, new(*keeper.PendingError)) {
			c.fail("interrupted", err)
		}
	}
	c.keptAnswers(c.s)
	c.secrets(ctx, c.s, records, c.repair)
	if len(records)+len(problems) == 0 {
		c.ok("secrets", "there is no authorization on record")
	}
	return nil
}

func (c *vaultCheck) applications(ctx context.Context) error {
	whole := 0
	for _, r := range c.registered.Applications {
		if c.stateErr == nil {
			c.finishMove(ctx, c.s, r)
		}
		if _, err := c.s.storedSecret(ctx, r); err != nil {
			c.fail("client secrets", err)
			continue
		}
		whole++
	}
	if whole > 0 {
		c.ok("client secrets", "%s of %d are there", counted(whole, "client secret"), len(c.registered.Applications))
	}
	return nil
}

// orphans looks for secrets without record.
func (c *vaultCheck) orphans(ctx context.Context) error {
	inUse := c.s.homesInUse(c.survey.Present(), c.registered.Applications)
	for _, home := range inUse {
		if err := c.s.vault.Open(ctx, home); err != nil {
			c.s.log(message(err)) // what it has can be listed all the same
		}
	}
	listing := c.s.vault.ListHomes(ctx)
	blind := false
	for _, problem := range listing.Problems {
		blind = c.unlisted(inUse, problem) || blind
	}
	if slices.Contains(inUse, "keychain") && !blind {
		c.keyrings(ctx, c.s, false)
	}
	orphans, err := c.s.vault.Orphans(listing, c.survey.Records)
	if err != nil {
		c.fail("orphans", err) // nobody can say what is one
		return nil
	}
	found, err := c.s.vault.Lost(ctx, orphans)
	if err != nil {
		return err
	}
	var lost []vault.Lost
	for _, l := range found {
		where := fmt.Sprintf("the %s has", vault.Describe(l.Vault))
		switch l.Kind {
		case vault.LostGrant:
			lost = append(lost, l)
		case vault.LostCopy:
			c.warn("orphans", fmt.Sprintf("%s a copy of the secrets of %s under %s, which its record does not speak of", where, l.ID, l.TokenVaultKey), c.orphanRemedy(l.Superseded))
		case vault.LostOther:
			c.warn("orphans", fmt.Sprintf("%s another authorization of %s under %s, which no record speaks of", where, l.ID, l.TokenVaultKey), c.orphanRemedy(l.Superseded))
		case vault.LostRemains:
			c.warn("orphans", fmt.Sprintf("%s remains of a grant under %s, without its tokens", where, l.TokenVaultKey), c.orphanRemedy(l.Superseded))
		case vault.LostUnreadable:
			c.failWith(exitCode(l.Err), "orphans", message(l.Err), c.orphanRemedy(l.Superseded))
		}
	}
	if err := c.strays(ctx, listing); err != nil {
		return err
	}
	if err := c.probes(ctx); err != nil {
		return err
	}
	if len(lost) == 0 {
		return nil
	}
	if !c.repair || blind {
		remedy := "Unless another state directory of yours uses them, run: upsauth vault check --repair"
		if blind {
			// What can't be looked through may have a later copy.
			remedy = "First see that all vaults can be looked through, then run: upsauth vault check --repair"
		}
		for _, l := range lost {
			c.failWith(exitFailed, "lost", fmt.Sprintf("%s has its secrets in the %s and no record", l.ID, vault.Describe(l.Vault)), remedy)
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
		c.rebuilt = true
		c.ok("repaired", "%s: has its record again", l.ID)
	}
	return nil
}

// strays looks for client secrets without registration.
func (c *vaultCheck) strays(ctx context.Context, listing vault.Listing) error {
	for home, accounts := range listing.Secrets() {
		for _, account := range accounts {
			known := slices.ContainsFunc(c.registered.Applications, func(r config.Registration) bool {
				return hasSecretIn(r, home, account)
			})
			if !known && c.repair && home == "file" {
				// This state directory's alone; a keychain is that of all.
				question := fmt.Sprintf("Remove the client secret under %s from the %s? No application of this configuration directory has it.", account, vault.Describe(home))
				if err := confirm(ctx, c.s.env, question, c.yes); err != nil {
					return err
				}
				if err := c.s.finishSecret(ctx, vault.Work{Vault: home, Account: account, Config: c.s.config.Paths.Config}); err != nil {
					c.fail("orphans", err)
					continue
				}
				c.ok("repaired", "the client secret under %s in the %s, which was of no application, is removed", account, vault.Describe(home))
			} else if !known {
				c.warn("orphans", fmt.Sprintf("the %s has a client secret under %s, and no such application has it there", vault.Describe(home), account), c.remedyFor(home, account))
			}
		}
	}
	return nil
}

// probes looks for probes that no record speaks of. One has no secret in it.
func (c *vaultCheck) probes(ctx context.Context) error {
	_, ofNobody, err := c.s.vault.Probes(ctx)
	if err != nil || len(ofNobody) == 0 {
		return err
	}
	if !c.repair {
		c.warn("leftovers", counted(len(ofNobody), "probe")+" of commands that were cut off in the "+vault.Describe(ofNobody[0].Vault)+", without any secret", "Run: upsauth vault check --repair")
		return nil
	}
	n, err := c.s.vault.DropProbes(ctx, ofNobody)
	if err != nil {
		c.fail("leftovers", err)
	}
	if n > 0 {
		c.ok("repaired", "%s of commands that were cut off removed", counted(n, "probe"))
	}
	return nil
}

// finishMove finishes the move of a client secret that was cut off.
func (f *findings) finishMove(ctx context.Context, s *session, r config.Registration) {
	if r.LeftIn == "" {
		return
	}
	if err := s.moveSecret(ctx, r, ""); err != nil {
		f.fail("client secrets", err)
		return
	}
	f.ok("client secrets", "%s (%s): a move of the client secret that was cut off is finished", r.Name, r.Environment)
}

// finishLogins finishes or clears away what authorizations and imports left that
// were cut off.
func (f *findings) finishLogins(ctx context.Context, s *session) {
	for _, id := range s.vault.UnfinishedLogins() {
		if err := s.openHomes(ctx, s.vault.HomesOf(id)); err != nil {
			return
		}
		if err := s.keeper.SettleLogins(ctx, id); err != nil {
			s.log(message(err))
		}
	}
}

// finishRemovals finishes what revokes and moves left.
func (f *findings) finishRemovals(ctx context.Context, v *vault.Vault, records []grant.Record) {
	removed, err := v.FinishRemovalsOf(ctx, records)
	if err != nil {
		f.fail("removals", err)
	}
	for _, id := range removed {
		f.ok("removals", "%s: a removal that was cut off is finished", id)
	}
}

// unlisted tells of a home that can't be looked through, and reports whether
// that matters. Many a machine has no keychain, and nothing to do with one.
func (c *vaultCheck) unlisted(inUse []string, problem error) bool {
	var home *vault.HomeError
	if !errors.As(problem, &home) {
		c.fail("orphans", problem)
		return true
	}
	if !slices.Contains(inUse, home.Home) {
		return false
	}
	if before := c.closed[home.Home]; before != nil && before.What == home.What {
		return true
	}
	c.warn("orphans", "what no record speaks of can't be looked for: "+home.What, home.Advice)
	return true
}

// orphanRemedy bears in mind that all state directories of a user share the one
// keychain, and that a company which was renamed has its old name in its item.
func (c *vaultCheck) orphanRemedy(o grant.Superseded) string {
	return "Only if no company misses its authorization: " + c.remedyFor(o.Vault, o.TokenVaultKey)
}

// remedyFor says how an item and what belongs to it are deleted by hand.
func (c *vaultCheck) remedyFor(home, account string) string {
	ofGrant := !strings.Contains(account, "/")
	path := filepath.Join(c.s.config.Paths.State, "vault", filepath.FromSlash(account))
	switch {
	case home == "file" && ofGrant:
		return fmt.Sprintf("where no backup of the records is to come back, delete %s.age and the directory %[1]s.", path)
	case home == "file":
		return fmt.Sprintf("delete %s.age.", path)
	case runtime.GOOS == "linux" && ofGrant:
		return fmt.Sprintf("where no other state directory uses it, run: secret-tool clear service %s username %s (and the same with %[2]s/journal).", keychain.Service, account)
	case runtime.GOOS == "linux":
		return fmt.Sprintf("where no other configuration directory uses it, run: secret-tool clear service %s username %s", keychain.Service, account)
	}
	return fmt.Sprintf("where no other state directory uses it, delete what %s has under %s with the keychain's own program.", keychain.Service, account)
}
