package manager

import (
	"slices"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/serve/page"
)

// authorizeWord is what an application calls the button that begins a sign-in.
func authorizeWord(application string) string {
	if application == config.BatchSuite {
		return "Authenticate"
	}
	return "Authorize"
}

// displayName is what UPS calls an application that upsauth knows, else its name here.
func displayName(application string) string {
	if known := config.BuiltinDisplayName(application); known != "" {
		return known
	}
	return application
}

// linksFor are the pages where a person does what an error asks for, none for what is done
// elsewhere.
func linksFor(act explain.Act) []page.Link {
	id := act.ID
	one := func(text, address string) []page.Link { return []page.Link{{Text: text, Address: address}} }
	list := page.Link{Text: "Company manager", Address: "/"}
	switch act.Do {
	case explain.AuthorizeCompany, explain.AuthorizeAny:
		if id.Company == "" || id.Company == "NAME" {
			return []page.Link{list}
		}
		return one(authorizeWord(id.Application)+" "+id.Company, address("/authorize", id))
	case explain.Revoke:
		return one("REMOVE AUTH of "+id.Company, address("/remove", id))
	case explain.TakeOver:
		if id.Company == "" {
			return nil
		}
		return one(id.Company, address("/company", grant.ID{Company: id.Company}))
	case explain.Refresh:
		return one(id.Company, address("/company", grant.ID{Company: id.Company}))
	case explain.RenameCompany:
		return one("Rename "+id.Company, address("/rename", grant.ID{Company: id.Company}))
	case explain.AddCompany:
		return one("Add a company", "/add")
	case explain.ListCompanies:
		return []page.Link{list}
	case explain.ListApplications:
		return one("Access Key Configuration", "/access-keys")
	case explain.SetSecret, explain.SetSecretOf, explain.ShowApplication, explain.RegisterAgain, explain.GiveSecret, explain.GiveRedirect, explain.ChangePKCE:
		if id.Application == "" {
			return one("Access Key Configuration", "/access-keys")
		}
		return one("UPDATE API ACCESS of "+displayName(id.Application), address("/access-key", grant.ID{Application: id.Application, Environment: id.Environment}))
	case explain.PublicRedirect:
		return one("UPDATE API ACCESS of "+displayName(id.Application), address("/access-key", grant.ID{Application: id.Application, Environment: id.Environment}))
	case explain.InviteAgain:
		return one("Invite "+id.Company, address("/invite", id))
	case explain.Register, explain.RegisterAny, explain.RegisterFirst, explain.RegisterFree:
		return one("Register an application", address("/access-key", grant.ID{Application: id.Application, Environment: id.Environment}, "new", "1"))
	case explain.CheckVault, explain.RepairVault:
		return one("Is everything well?", "/check")
	case explain.Among:
		var links []page.Link
		for _, one := range act.Among {
			if one.Company != "" {
				links = append(links, page.Link{Text: one.String(), Address: address("/company", grant.ID{Company: one.Company})})
			}
		}
		return links
	}
	return nil
}

// unique leaves out links that stood before.
func unique(links []page.Link) []page.Link {
	var kept []page.Link
	for _, l := range links {
		if !slices.Contains(kept, l) {
			kept = append(kept, l)
		}
	}
	return kept
}
