package checkup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/keychain"
)

// Vault looks whether every company has its secrets, and every secret its company.
// Its error is why it could not look to the end.
func Vault(ctx context.Context, s *session.Session, o Options) ([]Finding, error) {
	c := &vaultCheck{look: look{s: s, o: o}}
	var err error
	if c.registered, err = s.Applications(ctx); err != nil {
		return nil, err
	}
	if c.state() {
		c.leftovers(ctx)
	}
	if c.survey, err = s.Vault.Survey(ctx, ""); err != nil {
		return nil, err
	}
	// What is repaired is found to be whole after it.
	looks := []func(context.Context) error{c.journals, c.grants, c.applications, c.orphans, c.invitations}
	if c.stateErr == nil {
		c.finishRemovals(ctx, c.survey.Records)
		c.finishLogins(ctx)
	}
	if o.Repair != nil {
		looks = []func(context.Context) error{c.journals, c.orphans, c.again, c.grants, c.applications, c.invitations}
	}
	for _, look := range looks {
		if err := look(ctx); err != nil {
			return nil, err
		}
	}
	return c.found, ctx.Err()
}

// vaultCheck compares records and homes.
type vaultCheck struct {
	look
	survey     vault.Survey
	registered config.Applications
	rebuilt    bool // the survey is out of date
}

func (c *vaultCheck) journals(ctx context.Context) error {
	c.rebuilt = c.look.journals(ctx, c.survey.Records)
	return nil
}

// again reads what was repaired.
func (c *vaultCheck) again(ctx context.Context) (err error) {
	if c.rebuilt {
		c.survey, err = c.s.Vault.Survey(ctx, "")
	}
	return err
}

func (c *vaultCheck) grants(ctx context.Context) error {
	records, problems := c.survey.Present(), c.survey.Problems
	for _, problem := range problems {
		var damage *vault.DamagedError
		if c.o.Repair != nil && errors.As(problem, &damage) {
			c.failAs(explain.Failed, "records", fmt.Sprintf("%s is damaged, and no secrets were found that could belong to it", damage.Path), nil,
				[]explain.Remedy{{Text: "If every company has its authorization, delete the file[: {}]", Acts: []explain.Act{{Do: explain.DeleteFile, Path: damage.Path}}}})
			continue
		}
		c.fail("records", problem)
	}
	if err := c.s.Open(ctx, true, records...); err != nil {
		return err
	}
	for _, r := range records {
		if !c.survey.Unsettled(r) || c.stateErr != nil {
			continue
		}
		if journals := c.survey.Journals[r.Slot()]; unanswered(r, journals) {
			// After an hour without UPS these may be all. To settle one takes a listing of
			// all journals, and is of use only where the item has the answer already.
			g, err := c.s.Vault.GetOf(ctx, r)
			if wholeHome(err) != nil {
				c.fail("interrupted", err)
				continue
			}
			if err == nil && g.Generation < journals[0].Generation {
				continue
			}
		}
		_, err := c.s.Keeper.Settle(ctx, r.ID)
		switch {
		case err == nil, errors.As(err, new(*keeper.PendingError)):
		case errors.Is(err, grant.ErrNoGrant): // its user was never confirmed, or it was revoked meanwhile
			c.ok("interrupted", "%s: what a sign-in had left that was cut off is removed", r.ID)
		default:
			c.fail("interrupted", err)
		}
	}
	c.keptAnswers(ctx, records)
	c.secrets(ctx, records)
	if len(records)+len(problems) == 0 {
		c.ok("secrets", "there is no authorization on record")
	}
	return nil
}

func (c *vaultCheck) applications(ctx context.Context) error {
	whole := 0
	for _, r := range c.registered.Applications {
		if c.stateErr == nil {
			c.finishMove(ctx, r)
		}
		if _, err := c.s.StoredSecret(ctx, r); err != nil {
			c.fail("client secrets", err)
			continue
		}
		whole++
	}
	switch all := len(c.registered.Applications); {
	case whole > 0 && whole < all:
		c.warn("client secrets", someOf(whole, all, "client secret", "there"), nil)
	case whole > 0:
		c.ok("client secrets", "%d of %s found", whole, counted(len(c.registered.Applications), "client secret"))
	}
	return nil
}

// orphans looks for secrets without record.
func (c *vaultCheck) orphans(ctx context.Context) error {
	inUse := c.s.HomesInUse(c.survey.Present(), c.registered.Applications)
	for _, home := range inUse {
		if err := c.s.Vault.Open(ctx, home); err != nil {
			c.log(err) // what it has can be listed all the same
		}
	}
	listing := c.list(ctx, c.survey.Records, inUse)
	if len(c.straysIn(listing)) > 0 {
		listing = c.s.Vault.ListHomes(ctx) // they may be gone by now
	}
	blind := false
	for _, problem := range listing.Problems {
		blind = c.unlisted(inUse, problem) || blind
	}
	if slices.Contains(inUse, "keychain") && !blind {
		c.keyrings(ctx, false)
	}
	orphans, err := c.s.Vault.Orphans(ctx, listing, c.survey.Records)
	if err != nil {
		c.fail("orphans", err) // nobody can say what is one
		return nil
	}
	found, err := c.s.Vault.Lost(ctx, orphans)
	if err != nil {
		return err
	}
	var lost []vault.Lost
	for _, l := range found {
		where := fmt.Sprintf("the %s has", vault.Describe(l.Home))
		switch l.Kind {
		case vault.LostGrant:
			lost = append(lost, l)
		case vault.LostCopy:
			c.warn("orphans", fmt.Sprintf("%s a copy of the secrets of %s under %s, which its record does not name", where, l.ID, l.TokenVaultKey), c.orphanRemedy(l.Place))
		case vault.LostOther:
			c.warn("orphans", fmt.Sprintf("%s another authorization of %s under %s, which no record names", where, l.ID, l.TokenVaultKey), c.orphanRemedy(l.Place))
		case vault.LostRemains:
			c.warn("orphans", fmt.Sprintf("%s remains of a grant under %s, without its tokens", where, l.TokenVaultKey), c.orphanRemedy(l.Place))
		case vault.LostUnreadable:
			c.found = append(c.found, Finding{Level: Failure, Check: "orphans", Err: l.Err, Do: c.orphanRemedy(l.Place)})
		}
	}
	if err := c.strays(ctx, listing); err != nil {
		return err
	}
	if err := c.probes(ctx, listing); err != nil {
		return err
	}
	if len(lost) == 0 {
		return nil
	}
	if c.o.Repair == nil || blind {
		remedy := act("Unless another state directory of yours uses them, [run: {}|repair the vault]", explain.RepairVault, grant.ID{})
		if blind {
			// What can't be looked through may have a later copy.
			remedy = act("First make sure that all vaults can be searched, then [run: {}|repair the vault]", explain.RepairVault, grant.ID{})
		}
		for _, l := range lost {
			c.failAs(explain.Failed, "lost", fmt.Sprintf("%s has its secrets in the %s and no record", l.ID, vault.Describe(l.Home)), nil, remedy)
		}
		return nil
	}
	if err := c.o.Repair(ctx, Question{Ask: MakeRecords, Lost: len(lost)}); err != nil {
		return err
	}
	for _, l := range lost {
		if err := c.s.Vault.Rebuild(ctx, l); err != nil {
			c.fail("lost", err)
			continue
		}
		c.rebuilt = true
		c.ok("repaired", "%s: has its record again", l.ID)
	}
	return nil
}

// stray is a client secret in a home that no registration speaks of.
type stray struct{ home, account string }

func (c *vaultCheck) straysIn(listing vault.Listing) []stray {
	var strays []stray
	for home, accounts := range listing.Secrets() {
		for _, account := range accounts {
			known := slices.ContainsFunc(c.registered.Applications, func(r config.Registration) bool {
				return session.HasSecretIn(r, home, account)
			})
			if !known {
				strays = append(strays, stray{home, account})
			}
		}
	}
	return strays
}

// strays looks for client secrets without registration.
func (c *vaultCheck) strays(ctx context.Context, listing vault.Listing) error {
	for _, of := range c.straysIn(listing) {
		home, account := of.home, of.account
		if c.o.Repair == nil || home != "file" {
			c.warn("orphans", fmt.Sprintf("the %s has a client secret under %s that belongs to no application", vault.Describe(home), account), sentence(c.remedyFor(home, account)))
			continue
		}
		// This state directory's alone; a keychain is that of all.
		if err := c.o.Repair(ctx, Question{Ask: RemoveSecret, Home: home, Account: account}); err != nil {
			return err
		}
		if err := c.s.FinishSecret(ctx, files.Work{Home: home, Account: account, Config: c.s.Config.Paths.Config}); err != nil {
			c.fail("orphans", err)
			continue
		}
		c.ok("repaired", "removed the client secret under %s from the %s, which belonged to no application", account, vault.Describe(home))
	}
	return nil
}

// probes looks for probes that no record speaks of. One has no secret in it.
func (c *vaultCheck) probes(ctx context.Context, listing vault.Listing) error {
	_, ofNobody, err := c.s.Probes(ctx, listing)
	if err != nil || len(ofNobody) == 0 {
		return err
	}
	if c.o.Repair == nil {
		c.warn("leftovers", counted(len(ofNobody), "probe")+" of commands that were cut off in the "+vault.Describe(ofNobody[0].Home)+", without any secret",
			act("[Run: {}|Repair the vault]", explain.RepairVault, grant.ID{}))
		return nil
	}
	n, err := c.s.Vault.DropProbes(ctx, ofNobody)
	if err != nil {
		c.fail("leftovers", err)
	}
	if n > 0 {
		c.ok("repaired", "%s of commands that were cut off removed", counted(n, "probe"))
	}
	return nil
}

// finishMove finishes the move or the replacement of a client secret that was cut off.
func (l *look) finishMove(ctx context.Context, r config.Registration) {
	if r.LeftIn == "" && !r.Fresh {
		return
	}
	if err := l.s.MoveSecret(ctx, r, ""); err != nil {
		l.fail("client secrets", err)
		return
	}
	what := "a move"
	if r.LeftIn == "" {
		what = "a replacement"
	}
	l.ok("client secrets", "%s (%s): %s of the client secret that was cut off is finished", r.Name, r.Environment, what)
}

// finishLogins finishes or clears away what authorizations and imports left that
// were cut off.
func (l *look) finishLogins(ctx context.Context) {
	unfinished, err := l.s.Vault.UnfinishedLogins(ctx)
	if err != nil {
		l.log(err)
	}
	for _, id := range unfinished {
		homes, err := l.s.Vault.HomesOf(ctx, id)
		if err == nil {
			err = l.s.OpenHomes(ctx, homes)
		}
		if err != nil {
			l.log(err)
			return
		}
		if err := l.s.Keeper.SettleLogins(ctx, id); err != nil {
			l.log(err)
		}
	}
}

// finishRemovals finishes what revokes and moves left.
func (l *look) finishRemovals(ctx context.Context, records []grant.Record) {
	removed, err := l.s.Vault.FinishRemovalsOf(ctx, records)
	if err != nil {
		l.fail("removals", err)
	}
	for _, id := range removed {
		l.ok("removals", "%s: a removal that was cut off is finished", id)
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
	c.warnOf("orphans", "upsauth can't look for secrets that no record names: ", home)
	return true
}

// orphanRemedy bears in mind that all state directories of a user share the one
// keychain, and that a company which was renamed has its old name in its item.
func (c *vaultCheck) orphanRemedy(o grant.Place) []explain.Remedy {
	return sentence("Only if every company has its authorization: " + c.remedyFor(o.Home, o.TokenVaultKey))
}

// remedyFor says how an item and what belongs to it are deleted by hand.
func (c *vaultCheck) remedyFor(home, account string) string {
	ofGrant := !strings.Contains(account, "/")
	path := filepath.Join(c.s.Config.Paths.State, "vault", filepath.FromSlash(account))
	switch {
	case home == "file" && ofGrant:
		return fmt.Sprintf("if no backup of the records will be restored, delete %s.age and %s.age.", path, filepath.Join(filepath.Dir(path), "journal", account))
	case home == "file":
		return fmt.Sprintf("delete %s.age.", path)
	case runtime.GOOS == "linux" && ofGrant:
		return fmt.Sprintf("if no other state directory uses it, run: secret-tool clear service %s username %s (and the same with %[2]s/journal).", keychain.Service, account)
	case runtime.GOOS == "linux":
		return fmt.Sprintf("if no other configuration directory uses it, run: secret-tool clear service %s username %s", keychain.Service, account)
	}
	return fmt.Sprintf("if no other state directory uses it, delete what %s has under %s with the keychain's own program.", keychain.Service, account)
}
