package cli

import (
	"cmp"
	"errors"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
)

// askedPage is the browser's page while the terminal asks about who signed in.
func askedPage(company, user string) loopback.Page {
	return loopback.Page{
		Title: "Answer in the terminal", Heading: "Answer in the terminal", Names: []string{company, user},
		Text: []string{cmp.Or(user, "Somebody") + " signed in at ups.com for " + company + ".",
			"The terminal asks whether this is the right user. Nothing is saved before the answer."},
	}
}

// donePage is the browser's last page: the panel, or what went wrong.
func donePage(id grant.ID, g grant.Grant, err error) loopback.Page {
	var awaited *keeper.AwaitedError
	if errors.As(err, &awaited) {
		return loopback.Page{
			Title: "Not authorized", Heading: id.Company + " was not authorized",
			Text: []string{legible.Sentence(explain.Error(awaited.Err).What), "The terminal still waits for the sign-in."},
			Next: onceMore(awaited.Err, false),
		}
	}
	if err != nil {
		what, remedy := explain.Error(err).Plain()
		return loopback.Page{
			Title: "Not authorized", Heading: id.Company + " was not authorized",
			Text: []string{what}, Next: remedy,
		}
	}
	page := loopback.Page{
		OK: true, Title: "Authorized", Heading: id.Company + " is authorized",
		Text:    []string{"An OAuth token exists for this company!"},
		Warning: "If the user who signed in changes the ups.com password, the company must authorize again.",
	}
	if g.User != "" {
		page.Rows = append(page.Rows, loopback.Row{Name: "Signed in", Value: g.User})
	}
	for _, row := range render.GrantRows(g.Record) {
		page.Rows = append(page.Rows, loopback.Row(row))
	}
	return page
}
