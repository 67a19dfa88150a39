package manager

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
)

// done says what a change has done, on the page that it ended at. The address names it, so
// it is one of a few sentences, whatever the address says.
func done(r *http.Request) string {
	switch r.URL.Query().Get("done") {
	case "added":
		return "The company is on the list."
	case "known":
		return "The company was on the list already."
	case "noted":
		return "Contact and note are saved."
	case "refreshed":
		return "The tokens are refreshed."
	case "removed":
		return "The authorization and its tokens are removed from this machine."
	case "nothing":
		return "The authorization is removed. Its tokens were not in the vault, so none were removed: they may be in another session's keychain, or in another copy of the vault's directory."
	case "renamed":
		return "The company has its new name."
	case "merged":
		return "The two companies are one now."
	case "registered":
		return "The application is registered."
	case "updated":
		return "API access is updated."
	case "same":
		return "Nothing was changed."
	case "nobody":
		return "No company needs you."
	case "withdrawn":
		return "The invitation is withdrawn. Its address does not work any more."
	case "confirmed":
		return "The user is confirmed, and the authorization is in place."
	case "refused":
		return "The user is refused. The company's earlier authorization, if there is one, stays as it was."
	}
	return ""
}

// latest is how much of a history the company's page shows, and perHistory how much each
// page of the whole one.
const latest, perHistory = 5, 20

// happening is a line of the history.
type happening struct{ Time, Grant, What string }

// authorization is one grant of a company, as its page shows it.
type authorization struct {
	ID          grant.ID
	Name        string // the application as UPS calls it
	Batch       bool   // its panel is that of UPS Batch Suite
	Usable      bool
	State       string
	Do          string
	Bad         bool
	Panel       []render.Row // Token Vault Key and the four times
	More        []render.Row
	Expires     time.Time
	Configured  bool
	Unusable    string // why the application is not configured
	Button      string
	UpdatePage  string
	Refreshable bool
	Again       string // where one press makes a new address for the customer: the main action
}

func (m *manager) company(w http.ResponseWriter, r *http.Request) error {
	return m.showCompany(w, r, http.StatusOK, nil)
}

// showCompany shows a company, with what is wrong with its form.
func (m *manager) showCompany(w http.ResponseWriter, r *http.Request, status int, form []field) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	name := r.Form.Get("company")
	if name == "" {
		return errNoCompanyNamed
	}
	list, events, err := s.Remembered(ctx, name)
	if err != nil {
		return err
	}
	applications, err := s.Applications(ctx)
	if err != nil {
		return err
	}
	now := m.Now()
	s.MarkVoid(ctx, list.Records, false)
	first := list.Records[0]
	if form == nil {
		form = contactForm(first.Contact, first.Note)
	}
	body := struct {
		Company        string
		Authorizations []authorization
		Begin          []beginning // for each application without a grant
		Invitations    []invitationView
		Held           bool   // a user who signed in waits for the sender
		FormToken      string // of a press that makes a new address
		Form           []field
		Problems       []string
		History        []happening
		Older          bool
		Done           string
	}{Company: first.Company, Form: form, FormToken: formToken(), Done: done(r), Older: len(events) > latest, History: happenings(events, 0, latest)}
	for _, problem := range list.Problems {
		body.Problems = append(body.Problems, legible.Sentence(explain.Error(problem).What))
	}
	all, err := s.InvitationsBeside(ctx, list.Records, first.Company)
	if err != nil {
		return err
	}
	can := canInvite(s, applications)
	body.Invitations = invitationViews(all, can, now)
	open := invitedFor(all, now)
	body.Held = slices.ContainsFunc(body.Invitations, func(v invitationView) bool { return v.Held })
	for _, record := range session.Authorized(list.Records) {
		again := sendsNew(record, now) && can(record.Application, record.Environment) && !held(open[record.ID], now)
		a := m.authorization(record, now, s.Config.RetryUnknownAfter, again)
		if err := s.Configured(ctx, record.Application, record.Environment); err != nil {
			a.Unusable = sentence(explain.Error(err), record.Application)
		} else {
			a.Configured = true
		}
		body.Authorizations = append(body.Authorizations, a)
	}
	for _, a := range applications.Applications {
		if len(session.Filter(session.Authorized(list.Records), a.Name, a.Environment)) == 0 {
			body.Begin = append(body.Begin, beginning{choiceOf(a), inviteChoiceOf(a).Text})
		}
	}
	if len(body.Authorizations)+len(body.Begin) == 0 {
		body.Begin = []beginning{{choice{Text: "Authorize"}, "Invite"}}
	}
	m.write(w, r, status, "company", page.Page{Title: titleOf(form, legible.Line(first.Company)), Heading: legible.Line(first.Company)}, body)
	return nil
}

// choiceOf is the button of an application that a company may authorize.
func choiceOf(a config.Registration) choice {
	return choice{Value: a.Name + "/" + a.Environment, Text: fmt.Sprintf("%s for %s, %s", authorizeWord(a.Name), session.DisplayName(a), a.Environment)}
}

// beginning is an application that a company has not authorized, with the words of the
// button that invites the customer for it.
type beginning struct {
	choice
	Invite string
}

// inviteChoiceOf is the button of an application that a customer may be invited for.
func inviteChoiceOf(a config.Registration) choice {
	return choice{Value: a.Name + "/" + a.Environment, Text: fmt.Sprintf("Invite for %s, %s", session.DisplayName(a), a.Environment)}
}

// canInvite reports whether nothing is missing to invite customers for an application.
func canInvite(s *session.Session, applications config.Applications) func(application, environment string) bool {
	return func(application, environment string) bool {
		found := applications.Find(application, environment)
		return len(found) == 1 && s.CanInvite(found[0]) == nil
	}
}

// sendsNew reports whether the main thing to do about a grant is to send a new address.
func sendsNew(r grant.Record, now time.Time) bool {
	switch r.StateAt(now) {
	case grant.Void, grant.Expiring, grant.Expired:
		return true
	}
	return false
}

// held reports whether an invitation has a user who waits for the sender, nil for none.
func held(i *session.Invited, now time.Time) bool {
	return i != nil && i.State(now) == invitation.StateHeld
}

// happenings are some of what happened to a company, the latest first.
func happenings(events []grant.Event, from, most int) (list []happening) {
	for i := len(events) - 1 - from; i >= 0 && len(list) < most; i-- {
		e := events[i]
		h := happening{Time: when(e.Time), What: render.EventWords(e, render.UTCTime)}
		if e.Application != "" {
			h.Grant = e.Application + ", " + e.Environment
		}
		list = append(list, h)
	}
	return list
}

// history shows all that happened to a company, in pages.
func (m *manager) history(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	list, events, err := s.Remembered(ctx, r.Form.Get("company"))
	if err != nil {
		return err
	}
	name := list.Records[0].Company
	at, pages := pageAt(r, len(events), perHistory)
	body := struct {
		Company      string
		History      []happening
		Page, Pages  int
		Newer, Older int
	}{Company: name, History: happenings(events, (at-1)*perHistory, perHistory), Page: at, Pages: pages, Newer: at - 1}
	if at < pages {
		body.Older = at + 1
	}
	m.write(w, r, http.StatusOK, "history", page.Page{Heading: "History of " + legible.Line(name)}, body)
	return nil
}

func (m *manager) authorization(r grant.Record, now time.Time, retry time.Duration, again bool) authorization {
	state := r.StateAt(now)
	a := authorization{
		ID: r.ID, Name: displayName(r.Application), Batch: r.Application == config.BatchSuite, Usable: state.Usable(), State: stateWord(r, now),
		Bad: needs(r, now), Panel: render.GrantRows(r), Expires: r.RefreshTokenExpires,
		Button:      authorizeWord(r.Application),
		UpdatePage:  address("/access-key", grant.ID{Application: r.Application, Environment: r.Environment}),
		Refreshable: state != grant.Void,
	}
	if again {
		a.Again = ofGrant(r.ID)
	}
	for _, row := range (render.Details{RetryAfter: retry, Time: render.UTCTime}).Rows(r, now) {
		switch row.Name {
		case "State":
			_, a.Do, _ = strings.Cut(row.Value, ". ")
			if r.ProbablyVoid() {
				a.Do = row.Value
			}
		case "Company", "Application", "Environment", "Contact", "Note":
		default:
			a.More = append(a.More, row)
		}
	}
	a.Do = strings.TrimSpace(a.Do + " " + whatToDo(r, now, a.Button, again))
	a.More = append(a.More, render.Row{Name: "Vault", Value: vault.Describe(r.Home)})
	return a
}

// whatToDo says which button of the page helps a grant.
func whatToDo(r grant.Record, now time.Time, button string, again bool) string {
	if again {
		button = "Send a new address"
	}
	switch state := r.StateAt(now); {
	case r.ProbablyVoid(), state == grant.Refreshable, state == grant.Interrupted:
		return "Press Refresh now."
	case state == grant.Expiring:
		return "Press Refresh now. If UPS gives no longer time, press " + button + "."
	case state == grant.Void, state == grant.Expired:
		return "Press " + button + ": somebody must sign in at ups.com again."
	}
	return ""
}

func contactForm(contact, note string) []field {
	return []field{
		{Name: "contact", Label: "Contact", Value: contact, Hint: "Whom to contact when the company must be authorized: a name, a phone number, an address.", Autocomplete: "off"},
		{Name: "note", Label: "Note", Value: note, Hint: "What else colleagues should know about the company.", Autocomplete: "off"},
	}
}

// details cleans a contact and a note, and notes in the form what is wrong with them.
func details(form []field) (contact, note string) {
	clean := func(i int) string {
		text, err := company.CleanDetail(form[i].Name, form[i].Value)
		if err != nil {
			form[i].Wrong = legible.Sentence(err.Error())
		}
		return text
	}
	return clean(0), clean(1)
}

func (m *manager) contact(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	form := contactForm(r.PostForm.Get("contact"), r.PostForm.Get("note"))
	contact, note := details(form)
	if wrong(form) {
		return m.showCompany(w, r, http.StatusUnprocessableEntity, form)
	}
	list, _, err := s.Remembered(ctx, r.Form.Get("company"))
	if err != nil {
		return err
	}
	name := list.Records[0].Company
	if err := s.AddCompanies(ctx, []company.New{{Name: name, Contact: &contact, Note: &note}}, func(string, session.Outcome) {}); err != nil {
		return err
	}
	see(w, address("/company", grant.ID{Company: name}, "done", "noted"))
	return nil
}

// add makes a company known.
func (m *manager) add(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form := append([]field{{Name: "company", Label: "Company", Value: r.PostForm.Get("company"), Required: true, Autocomplete: "off"}},
		contactForm(r.PostForm.Get("contact"), r.PostForm.Get("note"))...)
	sure := tick{Name: "sure", Label: "Yes, this is another company."}
	if r.Method != http.MethodPost {
		form[0].Value = r.Form.Get("company")
		m.write(w, r, http.StatusOK, "add", page.Page{Heading: "Add a company"}, addPage{Form: form})
		return nil
	}
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	name, err := grant.CleanCompany(form[0].Value)
	if err != nil {
		form[0].Wrong = legible.Sentence(err.Error())
	}
	contact, note := details(form[1:])
	ask := false
	if form[0].Wrong == "" && r.PostForm.Get("sure") != "yes" {
		near, err := s.Near(ctx, []string{name}, "")
		if err != nil {
			return err
		}
		for _, n := range near {
			form[0].Wrong, ask = n.Sentence()+" Is this another company?", true
		}
	}
	if wrong(form) {
		p := addPage{Form: form}
		if ask {
			p.Sure = &sure
		}
		m.write(w, r, http.StatusUnprocessableEntity, "add", page.Page{Title: titleOf(form, "Add a company"), Heading: "Add a company"}, p)
		return nil
	}
	s.FinishAndTell(ctx) // a removal that was cut off is of the company as it was
	fresh := company.New{Name: name}
	if contact != "" {
		fresh.Contact = &contact
	}
	if note != "" {
		fresh.Note = &note
	}
	outcome := "known"
	err = s.AddCompanies(ctx, []company.New{fresh}, func(called string, o session.Outcome) {
		name = called
		if o == session.Added {
			outcome = "added"
		}
	})
	if err != nil {
		return err
	}
	see(w, address("/company", grant.ID{Company: name}, "done", outcome))
	return nil
}

// addPage is the form of a new company, with a question where its name is near another.
type addPage struct {
	Form []field
	Sure *tick
}

// rename gives a company another name.
func (m *manager) rename(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	old := r.Form.Get("company")
	list, _, err := s.Remembered(ctx, old)
	if err != nil {
		return err
	}
	old = list.Records[0].Company
	form := []field{{Name: "name", Label: "New name", Value: old, Required: true, Autocomplete: "off"}}
	body := struct {
		Company string
		Form    []field
		Sure    *tick
		Back    string
	}{Company: old, Form: form, Back: address("/company", grant.ID{Company: old})}
	show := func(status int) error {
		m.write(w, r, status, "rename", page.Page{Title: titleOf(form, "Rename "+legible.Line(old)), Heading: "Rename " + legible.Line(old)}, body)
		return nil
	}
	if r.Method != http.MethodPost {
		return show(http.StatusOK)
	}
	form[0].Value = r.PostForm.Get("name")
	name, err := grant.CleanCompany(form[0].Value)
	if err != nil {
		form[0].Wrong = legible.Sentence(err.Error())
		return show(http.StatusUnprocessableEntity)
	}
	s.FinishRemovals(ctx)
	plan, err := s.PlanRename(ctx, old, name)
	if clash := new(session.ClashError); errors.As(err, &clash) {
		form[0].Wrong = legible.Sentence(clash.Error())
		return show(http.StatusUnprocessableEntity)
	}
	if err != nil {
		return err
	}
	sure := r.PostForm.Get("sure") == "yes"
	switch {
	case plan.Nothing():
		see(w, address("/company", grant.ID{Company: old}, "done", "same"))
		return nil
	case plan.Merges() && !sure:
		form[0].Wrong = fmt.Sprintf("%s already exists. It would get all authorizations and the history of %s.", legible.Line(plan.New), legible.Line(old))
		body.Sure = &tick{Name: "sure", Label: "Merge the two companies into one, called " + legible.Line(plan.New) + "."}
		return show(http.StatusUnprocessableEntity)
	case len(plan.Near) > 0 && !sure:
		form[0].Wrong = plan.Near[0].Sentence() + " Is this another company?"
		body.Sure = &tick{Name: "sure", Label: "Yes, this is another company."}
		return show(http.StatusUnprocessableEntity)
	}
	if err := s.Rename(ctx, plan.Old, plan.Grants, plan.New); err != nil {
		return err
	}
	outcome := "renamed"
	if plan.Other != nil {
		outcome = "merged"
	}
	see(w, address("/company", grant.ID{Company: plan.New}, "done", outcome))
	return nil
}

// refresh refreshes the tokens of a grant now.
func (m *manager) refresh(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	s.FinishRemovals(ctx)
	record, err := m.record(ctx, s, r)
	if err != nil {
		return err
	}
	if err := s.Open(ctx, true, record); err != nil {
		return err
	}
	if _, err := s.Refresh(ctx, record); err != nil && !errors.As(err, new(*keeper.SavedError)) {
		return err
	}
	see(w, address("/company", grant.ID{Company: record.Company}, "done", "refreshed"))
	return nil
}

// remove asks whether an authorization is to be removed, and removes it.
func (m *manager) remove(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	var finished []grant.ID
	if r.Method == http.MethodPost {
		finished = s.FinishRemovals(ctx)
	}
	record, err := m.record(ctx, s, r)
	if errors.As(err, new(*session.NotFoundError)) && slices.Contains(finished, named(r)) {
		see(w, address("/company", grant.ID{Company: named(r).Company}, "done", "removed"))
		return nil
	}
	if err != nil {
		return err
	}
	back := grant.ID{Company: record.Company}
	if r.Method != http.MethodPost {
		m.write(w, r, http.StatusOK, "remove", page.Page{Heading: "Remove the authorization of " + legible.Line(record.Company) + "?"}, struct {
			ID         grant.ID
			Name, User string
			Truth      string
			Back       string
			Button     string
		}{record.ID, displayName(record.Application), record.User, render.NotRevoked, address("/company", back), authorizeWord(record.Application)})
		return nil
	}
	outcome := "removed"
	if err := s.Revoke(ctx, record.ID); errors.As(err, new(*vault.NothingThereError)) {
		outcome = "nothing"
	} else if err != nil {
		return err
	}
	see(w, address("/company", back, "done", outcome))
	return nil
}
