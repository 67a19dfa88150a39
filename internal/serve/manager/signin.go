package manager

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/serve/door"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/serve/signins"
	"github.com/upsauth/upsauth/internal/session"
)

// warning is what UPS's manuals say, too.
const warning = "If the user who signs in changes the ups.com password, the company must authorize again."

// authorize is the page before UPS: what somebody has to know who signs in.
func (m *manager) authorize(w http.ResponseWriter, r *http.Request) error {
	return m.beforeUPS(w, r, http.StatusOK)
}

// asked is the sign-in that a request is about.
func (m *manager) asked(r *http.Request) (*session.Session, *session.Authorizing, grant.ID, error) {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return nil, nil, grant.ID{}, err
	}
	id := named(r)
	if id.Company, err = grant.CleanCompany(id.Company); err != nil {
		return nil, nil, grant.ID{}, errNoCompanyNamed
	}
	a, err := s.Authorizing(ctx, target(id))
	if err != nil {
		return nil, nil, id, err
	}
	id, err = a.ID(ctx, id.Company)
	return s, a, id, err
}

func (m *manager) beforeUPS(w http.ResponseWriter, r *http.Request, status int) error {
	ctx := r.Context()
	s, a, id, err := m.asked(r)
	if several := new(session.SeveralError); errors.As(err, &several) && len(several.Applications) > 0 {
		return m.choose(w, r, "/authorize", id, several.Applications)
	}
	if none := new(session.NotFoundError); errors.As(err, &none) && none.Kind == session.NoRegistration && len(none.Registered) == 0 {
		return m.offerSandbox(w, r, id, none)
	}
	if err != nil {
		return err
	}
	body := struct {
		ID                     grant.ID
		Name, Button           string
		Before, User, Contact  string
		Arrives, Machine, Port string
		Host                   string // of this machine, for ssh
		AnyPort, Elsewhere     bool
		Warning, Back          string
		Near, Wrong            string
		Sure, Paste            *tick
	}{
		ID: id, Name: session.DisplayName(a.Registration), Button: authorizeWord(id.Application), Contact: s.Contact(ctx, id.Company),
		Arrives: a.Registration.RedirectURI, Machine: m.Machine, Host: m.reachable(), Warning: warning, Back: address("/company", grant.ID{Company: id.Company}),
		Elsewhere: !door.IsLoopback(r),
	}
	if loopback.IsLoopback(body.Arrives) {
		body.Port = portOf(body.Arrives)
		body.AnyPort = body.Port == ""
	}
	if !body.Elsewhere {
		body.Paste = &tick{Name: "paste", Label: "UPS's answer can't reach that machine from this browser. I will paste the address of the browser's last page."}
	}
	if before, err := s.Vault.Record(ctx, id); err == nil {
		body.User = before.User
		if s.Good(ctx, before) {
			body.Before = when(before.RefreshTokenExpires)
		}
	}
	near, known, err := nearOf(ctx, s, id.Company)
	if err != nil {
		return err
	}
	if near != "" {
		body.Near = near
		body.Sure = &tick{Name: "sure", Label: "Yes, this is another company."}
		if status != http.StatusOK {
			body.Sure.Wrong = "Tick the box if this is another company. Nothing was changed."
		}
	}
	if !known {
		body.Back = "/"
	}
	p := page.Page{Heading: body.Button + " " + legible.Line(id.Company)}
	if status != http.StatusOK {
		p.Title = "Error: " + p.Heading
	}
	m.write(w, r, status, "authorize", p, body)
	return nil
}

// nearOf is a question about a company that is new and whose name is near a known one, and
// whether the company is known. All names are looked at for a new one alone.
func nearOf(ctx context.Context, s *session.Session, name string) (question string, known bool, err error) {
	_, _, err = s.Remembered(ctx, name)
	if err == nil {
		return "", true, nil
	}
	if !errors.As(err, new(*session.NotFoundError)) {
		return "", false, err
	}
	near, err := s.Near(ctx, []string{name}, "")
	if err != nil || len(near) == 0 {
		return "", false, err
	}
	return near[0].Sentence() + " Is this another company?", false, nil
}

// reachable is a name by which a browser's machine may reach this one, MACHINE for none: a
// name without a domain is known to this machine alone.
func (m *manager) reachable() string {
	if strings.Contains(strings.Trim(m.Host, "."), ".") {
		return m.Host
	}
	return "MACHINE"
}

// portOf is the port of a redirect URI, empty for any free one.
func portOf(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Port() == "0":
		return ""
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// choose lets somebody choose the application to authorize, or to invite for.
func (m *manager) choose(w http.ResponseWriter, r *http.Request, action string, id grant.ID, among []config.Registration) error {
	heading, text, asks := "Authorize "+legible.Line(id.Company), choiceOf, "the one that the company authorizes"
	if action == "/invite" {
		heading, text, asks = "Invite "+legible.Line(id.Company), inviteChoiceOf, "the one that the customer is invited for"
	}
	if id.Company == "" {
		heading = "Invite a company"
	}
	var choices []choice
	for _, a := range among {
		choices = append(choices, text(a))
	}
	m.write(w, r, http.StatusOK, "choose", page.Page{Heading: heading}, struct {
		Company, Action, Asks string
		Choices               []choice
	}{id.Company, action, asks, choices})
	return nil
}

// offerSandbox is the page of somebody who has no application yet: the sandbox needs none.
func (m *manager) offerSandbox(w http.ResponseWriter, r *http.Request, id grant.ID, none error) error {
	what := m.failure(explain.Error(none))
	id.Application, id.Environment = cmp.Or(id.Application, config.IntelligentRating), config.Sandbox
	what.Links = append(what.Links, page.Link{Text: "Try it at the sandbox, without an account at UPS", Address: address("/authorize", id)})
	m.write(w, r, http.StatusNotFound, "failed", page.Page{Heading: "No application yet"}, what)
	return nil
}

// begin begins a sign-in, and ends at the page that leads to UPS.
func (m *manager) begin(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, _, id, err := m.asked(r)
	if err != nil {
		return err
	}
	s.FinishRemovals(ctx)
	sure := r.PostForm.Get("sure") == "yes"
	if !sure {
		near, _, err := nearOf(ctx, s, id.Company)
		if err != nil {
			return err
		}
		if near != "" {
			return m.beforeUPS(w, r, http.StatusUnprocessableEntity)
		}
	}
	elsewhere := !door.IsLoopback(r) || r.PostForm.Get("paste") == "yes"
	base := origin(r)
	signIn, err := m.SignIns.Begin(ctx, Request{
		ID: id, Elsewhere: elsewhere, Another: sure,
		Page: func(handle string) string { return base + pageOf(handle) },
	})
	if err != nil {
		return err
	}
	to := pageOf(signIn.Handle())
	if !elsewhere && signIn.View().ListensAt != "" {
		to += "/ups" // UPS's answer comes back by itself
	}
	see(w, to)
	return nil
}

// pageOf is the path of a sign-in's page.
func pageOf(handle string) string { return "/sign-in/" + url.PathEscape(handle) }

// origin is the address by which a browser has these pages.
func origin(r *http.Request) string {
	if u, err := url.Parse(r.Header.Get("Origin")); err == nil && u.Host == r.Host && (u.Scheme == "https" || u.Scheme == "http") {
		return u.Scheme + "://" + u.Host
	}
	return "http://" + r.Host
}

var errNoSignIn = &pageError{
	status: http.StatusNotFound, heading: "This sign-in is over", what: "The sign-in has ended, or a newer one of the same company has taken its place.",
	links: []page.Link{{Text: "HOME", Address: "/"}},
}

// signInOf is the sign-in that a request names.
func (m *manager) signInOf(r *http.Request) (SignIn, error) {
	signIn, ok := m.SignIns.Get(r.PathValue("handle"))
	if !ok {
		return nil, errNoSignIn
	}
	return signIn, nil
}

// toUPS leads the browser to UPS: a page, because no form's answer may redirect there.
func (m *manager) toUPS(w http.ResponseWriter, r *http.Request) error {
	signIn, err := m.signInOf(r)
	if err != nil {
		return err
	}
	view := signIn.View()
	here := pageOf(signIn.Handle())
	u, err := url.Parse(view.Address)
	if view.State != signins.Waiting || err != nil || u.Scheme != "https" && u.Scheme != "http" {
		see(w, here)
		return nil //nolint:nilerr // its page says what became of it
	}
	m.write(w, r, http.StatusOK, "go", page.Page{Heading: "Going to ups.com", Go: view.Address}, struct{ Address, Here, Company string }{view.Address, here, signIn.ID().Company})
	return nil
}

// signIn shows how far a sign-in is.
func (m *manager) signIn(w http.ResponseWriter, r *http.Request) error {
	return m.showSignIn(w, r, http.StatusOK, "", "")
}

func (m *manager) showSignIn(w http.ResponseWriter, r *http.Request, status int, pasted, wrongPaste string) error {
	signIn, err := m.signInOf(r)
	if err != nil {
		return err
	}
	view, id := signIn.View(), signIn.ID()
	company := legible.Line(id.Company)
	here := pageOf(signIn.Handle())
	body := struct {
		signins.View
		ID                      grant.ID
		Name, Here              string
		Waits, Asks, Saved, Bad bool
		Busy                    bool
		Batch                   bool
		Problem                 string
		Paste                   []field
		Panel                   []render.Row
		Failure                 failure
		Again, Button           string
		Company, Next, Warning  string
		Elsewhere, AnyPort      bool
		Machine                 string
		UpdatePage, RemovePage  string
	}{
		View: view, ID: id, Name: displayName(id.Application), Here: here, Batch: id.Application == config.BatchSuite,
		Again: address("/authorize", id), Button: authorizeWord(id.Application), Company: address("/company", grant.ID{Company: id.Company}),
		Next: address("/next", id), Warning: warning, Elsewhere: !door.IsLoopback(r), Machine: m.Machine,
		AnyPort:    loopback.IsLoopback(view.RedirectURI) && portOf(view.RedirectURI) == "",
		UpdatePage: address("/access-key", grant.ID{Application: id.Application, Environment: id.Environment}), RemovePage: address("/remove", id),
	}
	p := page.Page{}
	switch view.State {
	case signins.Waiting:
		body.Waits, p.Heading = true, "Waiting for the sign-in of "+company
		body.Paste = []field{{
			Name: "address", Label: "Address of the browser's last page", Value: pasted, Wrong: wrongPaste, Autocomplete: "off", Required: true,
			Hint: "Paste the address at once: its code is valid for about 30\u00a0seconds.",
		}}
		p.Title = titleOf(body.Paste, p.Heading)
		if view.Last != nil {
			body.Problem = sentence(explain.Error(view.Last), id.Company)
		}
		if view.ListensAt == "" {
			body.Address = view.AtUPS
		}
	case signins.Exchanging:
		body.Busy, p.Heading = true, "UPS answered for "+company
	case signins.Asking:
		body.Asks, p.Heading = true, "Is this the right user for "+company+"?"
	case signins.Done:
		body.Saved, p.Heading = true, company+" is authorized"
		body.Panel = render.GrantRows(view.Record)
		body.User = view.Record.User
	default:
		body.Bad, p.Heading = true, company+" was not authorized"
		body.Failure = m.failure(explain.Error(view.Err), id.Company, id.Application)
	}
	m.write(w, r, status, "signin", p, body)
	return nil
}

// paste takes the address of the browser's last page.
func (m *manager) paste(w http.ResponseWriter, r *http.Request) error {
	signIn, err := m.signInOf(r)
	if err != nil {
		return err
	}
	pasted := r.PostForm.Get("address")
	if err := signIn.Paste(r.Context(), pasted); err != nil && signIn.View().State == signins.Waiting {
		// The address has a code in it, so the page does not show it again.
		return m.showSignIn(w, r, http.StatusUnprocessableEntity, "", legible.Sentence(explain.Error(err).What)+" The sign-in still waits.")
	}
	see(w, pageOf(signIn.Handle()))
	return nil
}

// answer says whether the right person signed in.
func (m *manager) answer(w http.ResponseWriter, r *http.Request) error {
	signIn, err := m.signInOf(r)
	if err != nil {
		return err
	}
	var yes bool
	switch r.PostForm.Get("keep") {
	case "yes":
		yes = true
	case "no":
	default:
		return &pageError{status: http.StatusBadRequest, heading: "This request was refused", what: "The request has no answer. Nothing was changed."}
	}
	if state := signIn.View().State; state == signins.Waiting || state == signins.Exchanging {
		return &pageError{
			status: http.StatusConflict, heading: "Nobody has signed in yet", what: "There is no user to decide about yet. Nothing was changed.",
			links: []page.Link{{Text: "Show the sign-in", Address: pageOf(signIn.Handle())}},
		}
	}
	if err := signIn.Answer(r.Context(), yes); err != nil && signIn.View().State == signins.Asking {
		return err
	} // else it has been answered, and its page says how
	see(w, pageOf(signIn.Handle()))
	return nil
}

// end ends a sign-in that nobody goes on with.
func (m *manager) end(w http.ResponseWriter, r *http.Request) error {
	signIn, err := m.signInOf(r)
	if err != nil {
		return err
	}
	if err := signIn.End(r.Context()); err != nil && !signIn.View().State.Over() {
		return err
	}
	see(w, address("/company", grant.ID{Company: signIn.ID().Company}))
	return nil
}
