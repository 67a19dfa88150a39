// Package pages has the pages that the browser is shown at the end of a sign-in, in the
// words that all faces share.
package pages

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

// Asked is the page while somebody is asked about who signed in: in the terminal, or in
// the company manager.
func Asked(company, user string, terminal bool) loopback.Page {
	heading, asks := "Answer in the company manager", "The company manager asks"
	if terminal {
		heading, asks = "Answer in the terminal", "The terminal asks"
	}
	return loopback.Page{
		Title: heading, Heading: heading, Names: []string{company, user},
		Text: []string{cmp.Or(user, "Somebody") + " signed in at ups.com for " + company + ".",
			asks + " whether this is the right user. Nothing is saved before the answer."},
	}
}

// Awaited is the page of a try that came to nothing, while the sign-in still waits.
// Names are those of people in the texts.
func Awaited(id grant.ID, awaited *keeper.AwaitedError, terminal bool, names ...string) loopback.Page {
	waits := "The sign-in still waits."
	if terminal {
		waits = "The terminal still waits for the sign-in."
	}
	page := refused(id, legible.Sentence(explain.Error(awaited.Err).What), OnceMore(awaited.Err, false), names)
	page.Text = append(page.Text, waits)
	return page
}

// OnceMore is how to go on after a try that came to nothing.
func OnceMore(err error, pasting bool) string {
	if errors.As(err, new(*keeper.DeclinedError)) {
		return "To authorize the company, open the address again, tick the agreement and continue."
	}
	if pasting {
		return "Open the address again and sign in. Paste the address of the browser's last page within 30 seconds."
	}
	return "Open the address again and sign in."
}

// Done is the last page: the panel, or what went wrong. Names are those of people in
// the texts.
func Done(id grant.ID, g grant.Grant, err error, names ...string) loopback.Page {
	if err != nil {
		what, remedy := explain.Error(err).Plain()
		return refused(id, what, remedy, names)
	}
	page := loopback.Page{
		OK: true, Title: "Authorized", Heading: id.Company + " is authorized",
		Names:   append([]string{id.Company}, names...),
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

func refused(id grant.ID, what, remedy string, names []string) loopback.Page {
	return loopback.Page{
		Title: "Not authorized", Heading: id.Company + " was not authorized", Names: append([]string{id.Company}, names...),
		Text: []string{what}, Next: remedy,
	}
}
