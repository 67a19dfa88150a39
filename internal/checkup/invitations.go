package checkup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
)

// publicPatience is how long public_url may take to answer.
const publicPatience = 5 * time.Second

// invitations looks at what customers need who are invited: the address that they open, a
// redirect URI, and an answer to those whose user is in doubt.
func (m *machine) invitations(ctx context.Context) {
	if m.s.Config.Serve.PublicURL != "" {
		m.publicFace(ctx)
	}
	held, problems, err := m.s.HeldSignIns(ctx)
	for _, problem := range append(problems, err) {
		if problem != nil {
			m.fail("invitations", problem)
		}
	}
	for _, i := range held {
		if err := m.s.CheckHeld(ctx, i); err != nil {
			m.fail("invitations", err)
			continue
		}
		m.found = append(m.found, Finding{
			Level: Warning, Check: "invitations", Found: fmt.Sprintf("%s: the sign-in of %s waits for your answer", i.GrantID(), i.SignIn.Named()),
			Do: []explain.Remedy{{Text: "[Run: {}|Confirm or refuse the user]", Acts: []explain.Act{{Do: explain.ConfirmHeld, Invitation: i.ID, ID: grant.ID{Company: i.Company}}}}},
		})
	}
}

func (m *machine) publicFace(ctx context.Context) {
	switch err := m.s.AskPublic(ctx, publicPatience); {
	case err != nil && ctx.Err() == nil:
		m.warnOf("invitations", "", err)
	case err == nil:
		m.ok("invitations", "public_url %s answers", m.s.Config.Serve.PublicURL)
	}
	// A customer is asked for a password at UPS: the page has to say by whom.
	if serve := m.s.Config.Serve; serve.From == "" || serve.Contact == "" {
		m.found = append(m.found, Finding{
			Level: Warning, Check: "invitations", Found: "the customers' pages do not say who invites, or whom to ask",
			Do: []explain.Remedy{{Text: "Set from and contact under [serve] in config.toml."}},
		})
	}
	can := false
	var cannot []error
	for _, r := range m.applications.Applications {
		err := m.s.CanInvite(r)
		var redirect *session.PublicRedirectError
		switch {
		case err == nil:
			can = true
		case errors.As(err, &redirect) && redirect.Has != "":
			m.warnOf("invitations", "", err)
		default:
			cannot = append(cannot, err)
		}
	}
	// Not every application has to be one for customers who are invited.
	if !can {
		for _, err := range cannot {
			m.warnOf("invitations", "", err)
		}
	}
}

// invitations opens what waits to be confirmed, and looks for what no invitation speaks of.
func (c *vaultCheck) invitations(ctx context.Context) error {
	held, problems, err := c.s.HeldSignIns(ctx)
	if err != nil {
		problems = append(problems, err)
	}
	for _, problem := range problems {
		c.fail("invitations", problem)
	}
	whole := 0
	for _, i := range held {
		if err := c.s.Vault.Open(ctx, i.SignIn.Home); err != nil {
			c.fail("invitations", err)
			continue
		}
		if err := c.s.CheckHeld(ctx, i); err != nil {
			c.fail("invitations", err)
			continue
		}
		whole++
	}
	if whole > 0 {
		c.ok("invitations", "%d of %s to be confirmed found", whole, counted(len(held), "sign-in"))
	}
	if len(problems) > 0 {
		return nil // what can't be read may be the invitation
	}
	listing := c.listing
	if !c.listed {
		listing = c.s.Vault.ListHomes(ctx)
	}
	for home, accounts := range listing.Held() {
		for _, account := range accounts {
			if err := c.heldItem(ctx, home, account); err != nil {
				return err
			}
		}
	}
	return nil
}

// heldItem looks at one item, and removes it where it is left over. A keychain is that of
// all state directories.
func (c *vaultCheck) heldItem(ctx context.Context, home, account string) error {
	repair := c.o.Repair != nil && home == "file"
	left, err := c.s.HeldLeftover(ctx, home, account, false)
	if err != nil || !left {
		if err != nil {
			c.fail("invitations", err)
		}
		return nil
	}
	if !repair {
		do := sentence(c.remedyFor(home, account))
		if home == "file" {
			do = act("[Run: {}|Repair the vault]", explain.RepairVault, grant.ID{})
		}
		c.warn("leftovers", fmt.Sprintf("the %s has a customer's sign-in under %s that belongs to no invitation", vault.Describe(home), account), do)
		return nil
	}
	if _, err := c.s.HeldLeftover(ctx, home, account, true); err != nil {
		c.fail("leftovers", err)
		return nil
	}
	c.ok("repaired", "removed the sign-in under %s from the %s, which belonged to no invitation", account, vault.Describe(home))
	return nil
}
