package manager

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
)

// lasts are how long an address can work.
var lasts = []struct{ Value, Text string }{
	{"1d", "1 day"}, {"3d", "3 days"}, {"7d", "7 days"}, {"14d", "14 days"}, {"30d", "30 days"}, {"90d", "90 days"},
}

// inviting is what somebody is about to be invited for.
type inviting struct {
	id           grant.ID
	registration config.Registration
	// before is the company's grant, without Token Vault Key where there is none, and
	// open the invitation that still works or waits for the sender, nil for none.
	before grant.Record
	open   *session.Invited
	// near is a question about a company that is new, and known says that it is not.
	near  string
	known bool
}

// toInvite is what a request invites for. Where an application is missing or can't be
// chosen, the error says so.
func (m *manager) toInvite(ctx context.Context, s *session.Session, id grant.ID) (inviting, error) {
	x := inviting{id: id}
	var err error
	if x.registration, err = s.PickApplication(ctx, target(id)); err != nil {
		return x, err
	}
	x.id.Application, x.id.Environment = x.registration.Name, x.registration.Environment
	if id.Company == "" {
		return x, nil
	}
	list, _, err := s.Remembered(ctx, id.Company)
	switch {
	case errors.As(err, new(*session.NotFoundError)):
		x.near, _, err = nearOf(ctx, s, id.Company)
		return x, err
	case err != nil:
		return x, err
	}
	x.known, x.id.Company = true, list.Records[0].Company
	for _, r := range list.Records {
		if r.ID == x.id {
			x.before = r
		}
	}
	invitations, err := s.InvitationsBeside(ctx, list.Records, x.id.Company)
	if err != nil {
		return x, err
	}
	x.open = invitedFor(invitations, m.Now())[x.id]
	return x, nil
}

// invite is the form of an invitation.
func (m *manager) invite(w http.ResponseWriter, r *http.Request) error {
	return m.showInvite(w, r, http.StatusOK, inviteForm{Lasts: "7d", Fresh: r.Form.Get("company") == ""})
}

// inviteForm is what was typed into the form of an invitation, and what is wrong with it.
type inviteForm struct {
	Company, CompanyWrong string
	Fresh                 bool // the form asks for the company
	User, UserWrong       string
	Anybody               bool
	Lasts, LastsWrong     string
	Note, NoteWrong       string
	Typed                 bool // somebody has typed: the user is not the form's
	Ask                   bool // whether a company is another one than a known one
	Form                  string
}

func (f inviteForm) wrong() bool {
	return f.CompanyWrong != "" || f.UserWrong != "" || f.LastsWrong != "" || f.NoteWrong != "" || f.Ask
}

func (m *manager) showInvite(w http.ResponseWriter, r *http.Request, status int, form inviteForm) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	id := named(r)
	if id.Company != "" && !form.Fresh {
		if id.Company, err = grant.CleanCompany(id.Company); err != nil {
			return errNoCompanyNamed
		}
	}
	if form.Fresh && form.Company == "" {
		id.Company = ""
	}
	x, err := m.toInvite(ctx, s, id)
	if several := new(session.SeveralError); errors.As(err, &several) && len(several.Applications) > 0 {
		return m.choose(w, r, "/invite", id, several.Applications)
	}
	if err != nil {
		return err
	}
	heading := "Invite " + legible.Line(x.id.Company)
	if form.Fresh {
		heading = "Invite a company"
	}
	back := "/"
	if x.known && !form.Fresh {
		back = address("/company", grant.ID{Company: x.id.Company})
	}
	if err := s.CanInvite(x.registration); err != nil {
		what, ok := cannotInvite(err, x.registration)
		if !ok {
			return err
		}
		what.Links = append(what.Links, page.Link{Text: "Cancel", Address: back})
		m.write(w, r, status, "cannot", page.Page{Heading: heading}, what)
		return nil
	}
	if held(x.open, m.Now()) {
		own := address("/company", grant.ID{Company: x.id.Company})
		m.write(w, r, status, "cannot", page.Page{Heading: heading}, failure{
			What: "A user has signed in and waits for your answer. A new address would drop that sign-in.",
			Do:   []string{"Confirm or refuse the user on the company's page first."}, Links: []page.Link{{Text: x.id.Company, Address: own}},
		})
		return nil
	}
	user := form.User
	if !form.Typed && x.before.User != "" {
		user = x.before.User
	}
	var fields []field
	if form.Fresh {
		fields = append(fields, field{Name: "company", Label: "Company", Value: form.Company, Wrong: form.CompanyWrong, Required: true, Autocomplete: "off"})
	}
	hint := "Only this ups.com user may sign in, a username or email. Leave the field empty where nobody has signed in before."
	if x.before.User != "" {
		hint = "Only this ups.com user may sign in. Last time it was " + legible.Line(x.before.User) + "."
	}
	fields = append(fields, field{Name: "user", Label: "Expected ups.com user", Value: user, Wrong: form.UserWrong, Hint: hint, Autocomplete: "off"})
	more := []field{
		{Name: "expires", Label: "The address works for", Wrong: form.LastsWrong, Choices: lastsChoices(form.Lasts)},
		{Name: "note", Label: "Note for the customer", Value: form.Note, Wrong: form.NoteWrong, Hint: "It stands on the page that the address opens.", Autocomplete: "off"},
	}
	body := struct {
		ID                    grant.ID
		Name, Back, Form      string
		Before, Contact, Open string
		Fresh, Anybody        bool
		Fields, More          []field
		Near                  string
		Sure                  *tick
	}{
		ID: x.id, Name: session.DisplayName(x.registration), Back: back, Form: cmp.Or(form.Form, formToken()), Fresh: form.Fresh, Anybody: form.Anybody,
		Fields: fields, More: more,
	}
	if x.known {
		body.Contact = s.Contact(ctx, x.id.Company)
	}
	if x.before.TokenVaultKey != "" && x.before.StateAt(m.Now()).Usable() && !x.before.ProbablyVoid() {
		body.Before = when(x.before.RefreshTokenExpires)
	}
	if x.open != nil {
		body.Open = "An earlier address works until " + when(x.open.Expires) + ". It stops working when you make a new one."
	}
	if x.near != "" {
		body.Near = x.near
		body.Sure = &tick{Name: "sure", Label: "Yes, this is another company."}
		if form.Ask {
			body.Sure.Wrong = "Tick the box if this is another company. Nothing was changed."
		}
	}
	p := page.Page{Heading: heading}
	if status != http.StatusOK {
		p.Title = "Error: " + heading
	}
	m.write(w, r, status, "invite", p, body)
	return nil
}

func lastsChoices(chosen string) (list []choice) {
	for _, l := range lasts {
		list = append(list, choice{l.Value, l.Text, l.Value == chosen})
	}
	return list
}

// cannotInvite says what is missing for invitations, and what to do about it.
func cannotInvite(err error, r config.Registration) (failure, bool) {
	var public *session.PublicRedirectError
	id := grant.ID{Application: r.Name, Environment: r.Environment}
	name := session.DisplayName(r) + " in " + r.Environment
	change := page.Link{Text: "UPDATE API ACCESS", Address: address("/access-key", id)}
	switch {
	case errors.As(err, new(*session.NoPublicURLError)):
		return failure{
			What: "Customers can't be invited yet: public_url under [serve] in config.toml is not set.",
			Do: []string{
				"Set public_url to the address at which customers' browsers reach this service, such as https://auth.agency.example.",
				"Set public_listen beside it, such as 127.0.0.1:8489, and let your proxy bring public_url there.",
				"Then start upsauth serve again.",
			},
		}, true
	case errors.As(err, &public) && public.Has == "":
		return failure{
			What: name + " has no public redirect URI. UPS would not know where to send customers' browsers.",
			Do: []string{
				"Add this Callback URL to the application in UPS's developer portal: " + public.Proposed,
				"Then enter the same address as public redirect URI.",
			},
			Links: []page.Link{change},
		}, true
	case errors.As(err, &public):
		return failure{
			What: "The public redirect URI of " + name + " is " + public.Has + ". That address is not below public_url under [serve] in config.toml.",
			Do: []string{
				"Add a Callback URL to the application in UPS's developer portal that is below public_url, such as " + public.Proposed,
				"Then enter the same address as public redirect URI.",
			},
			Links: []page.Link{change},
		}, true
	}
	return failure{}, false
}

// makeInvitation makes an invitation of the form. It ends at the page that shows the
// address.
func (m *manager) makeInvitation(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	typed := r.PostForm
	form := inviteForm{
		Company: typed.Get("company"), Fresh: typed.Get("fresh") == "yes", User: strings.TrimSpace(typed.Get("user")), Anybody: typed.Get("anybody") == "yes",
		Lasts: cmp.Or(typed.Get("expires"), "7d"), Note: typed.Get("note"), Typed: true, Form: typed.Get("form"),
	}
	id := named(r)
	if id.Company, err = grant.CleanCompany(id.Company); err != nil {
		if !form.Fresh {
			return errNoCompanyNamed
		}
		form.CompanyWrong = legible.Sentence(err.Error())
		r.Form.Set("company", "")
	}
	lasts, err := legible.Span(form.Lasts)
	if err != nil {
		form.LastsWrong = "Choose one of these."
	}
	if form.wrong() {
		return m.showInvite(w, r, http.StatusUnprocessableEntity, form)
	}
	x, err := m.toInvite(ctx, s, id)
	if errors.As(err, new(*session.SeveralError)) {
		return m.showInvite(w, r, http.StatusOK, form)
	}
	if err != nil {
		return err
	}
	if s.CanInvite(x.registration) != nil || held(x.open, m.Now()) {
		return m.showInvite(w, r, http.StatusConflict, form)
	}
	request := session.InviteRequest{
		Target: target(x.id), ExpectUser: form.User, AnyUser: form.Anybody, Note: form.Note, By: by, Lasts: lasts, Another: typed.Get("sure") == "yes",
	}
	if form.Anybody {
		request.ExpectUser = ""
	}
	var wrong *invitation.DraftError
	switch err := m.makeAndShow(ctx, w, s, id, form.Form, request, x.open != nil); {
	case errors.As(err, new(*session.NearNameError)):
		form.Ask = true
		return m.showInvite(w, r, http.StatusUnprocessableEntity, form)
	case errors.As(err, new(*invitation.LastingError)):
		form.LastsWrong = legible.Sentence(err.Error())
		return m.showInvite(w, r, http.StatusUnprocessableEntity, form)
	case errors.As(err, &wrong):
		if wrong.Field == invitation.FieldNote {
			form.NoteWrong = legible.Sentence(wrong.Error())
		} else {
			form.UserWrong = legible.Sentence(wrong.Error())
		}
		return m.showInvite(w, r, http.StatusUnprocessableEntity, form)
	default:
		return err
	}
}

// inviteAgain makes a new address with one press, in the place of the earlier one and for
// the same user.
func (m *manager) inviteAgain(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	q, err := url.ParseQuery(r.PostForm.Get("of"))
	id := grant.ID{Company: q.Get("company"), Application: q.Get("app"), Environment: q.Get("env")}
	if err != nil || id.Company == "" || id.Application == "" || id.Environment == "" {
		return errNoCompanyNamed
	}
	token := r.PostForm.Get("form")
	list, _, err := s.Remembered(ctx, id.Company)
	if err != nil {
		return err
	}
	x, err := m.toInvite(ctx, s, id)
	if err != nil {
		return err
	}
	if can := s.CanInvite(x.registration); can != nil {
		see(w, address("/invite", x.id)) // the page says what is missing
		return nil                       //nolint:nilerr // so nothing is left to tell
	}
	if held(x.open, m.Now()) {
		return &pageError{
			status: http.StatusConflict, heading: "A user waits for your answer", what: "Confirm or refuse the user who signed in first. Nothing was changed.",
			links: []page.Link{{Text: x.id.Company, Address: address("/company", grant.ID{Company: x.id.Company})}},
		}
	}
	request := session.InviteRequest{Target: target(x.id), By: by, Lasts: invitation.Usual}
	// As the one before it, if that came to nothing.
	all, err := s.InvitationsBeside(ctx, list.Records, x.id.Company)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(all, func(i session.Invited) bool { return i.GrantID() == x.id }); i >= 0 && (all[i].End == nil || all[i].End.Why == invitation.Expired) {
		last := all[i]
		request.ExpectUser, request.AnyUser, request.Note, request.ReturnURL = last.ExpectUser, last.AnyUser, last.Note, last.ReturnURL
		request.Lasts = min(max(last.Expires.Sub(last.Made.Truncate(time.Second)), invitation.ShortestLasting), invitation.MostLasting)
	}
	err = m.makeAndShow(ctx, w, s, id, token, request, x.open != nil)
	if request.ReturnURL != "" && errors.As(err, new(*session.ReturnURLError)) {
		request.ReturnURL = "" // the settings no longer allow it
		err = m.makeAndShow(ctx, w, s, id, token, request, x.open != nil)
	}
	return err
}

// makeAndShow makes an invitation, and ends at the page that shows its address. Of is how
// the form names the grant.
func (m *manager) makeAndShow(ctx context.Context, w http.ResponseWriter, s *session.Session, of grant.ID, token string, r session.InviteRequest, again bool) error {
	end := m.addresses.begin(token, of)
	if end == nil { // the same form came twice
		see(w, m.addresses.page(token, of))
		return nil
	}
	invited, at, err := s.Invite(ctx, r)
	if err != nil {
		end(nil)
		return err
	}
	see(w, end(&newAddress{at: at, invited: invited, again: again, from: s.Config.Serve.From}))
	return nil
}

// invited shows the address of a new invitation, once.
func (m *manager) invited(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	handle := r.PathValue("handle")
	warning := ""
	if _, at := m.addresses.look(handle, false); at != "" {
		warning = m.asksPublic(ctx) // before the address is shown, as it may take a while
	}
	one, at := m.addresses.look(handle, r.Method == http.MethodGet)
	if one == nil {
		return &pageError{
			status: http.StatusGone, heading: "This page has ended",
			what:  "An address is shown once, and nobody can show it again. If you have not copied it, open the company and send a new address.",
			links: []page.Link{{Text: "Company manager", Address: "/"}},
		}
	}
	id := one.invited.GrantID()
	body := struct {
		ID                   grant.ID
		Name, Address, Text  string
		Until, User, Contact string
		Anybody, Replaced    bool
		Again, Form          string
		Company, Next        string
		Warning              string
	}{
		Warning: warning,
		ID:      id, Name: displayName(id.Application), Address: at, Until: when(one.invited.Expires), User: one.invited.ExpectUser, Anybody: one.invited.AnyUser,
		Replaced: one.again, Again: ofGrant(id), Form: formToken(), Company: address("/company", grant.ID{Company: id.Company}), Next: address("/next", id),
	}
	if s, err := m.Session(ctx); err == nil {
		body.Contact = s.Contact(ctx, id.Company)
		if registration, err := s.Registration(ctx, id.Application, id.Environment); err == nil {
			body.Name = session.DisplayName(registration)
		}
	}
	company := legible.Line(id.Company)
	if at == "" {
		m.write(w, r, http.StatusGone, "invited", page.Page{Heading: "The address for " + company + " was shown"}, body)
		return nil
	}
	body.Text = mailText(company, body.Name, one.from, at, one.invited.Expires)
	m.write(w, r, http.StatusOK, "invited", page.Page{Heading: "Send this address to " + company}, body)
	return nil
}

// asksPublic says what is wrong with public_url, empty for nothing: the customer would open
// the address in vain.
func (m *manager) asksPublic(ctx context.Context) string {
	const patience = 2 * time.Second
	s, err := m.Session(ctx)
	if err != nil {
		return ""
	}
	wrong := new(session.PublicURLError)
	if err := s.AskPublic(ctx, patience); !errors.As(err, &wrong) {
		return ""
	}
	what, advice := explain.Error(wrong).Plain()
	return what + " " + advice
}

// mailText is what somebody can send.
func mailText(company, name, from, at string, until time.Time) string {
	text := fmt.Sprintf("Please authorize %s to use the UPS data of %s. Open this address in a browser:\n\n%s\n\n"+
		"It works until %s. Have your ups.com user name and password ready: you type the password at ups.com and nowhere else.\n",
		name, company, at, until.UTC().Format("2 January 2006, 15:04 UTC"))
	if from != "" {
		text += "\n" + legible.Line(from) + "\n"
	}
	return text
}

// ofGrant is a grant in one field of a form.
func ofGrant(id grant.ID) string {
	_, query, _ := strings.Cut(address("", id), "?")
	return query
}

// formToken tells a form that comes twice from two forms.
func formToken() string { return rand.Text() }
