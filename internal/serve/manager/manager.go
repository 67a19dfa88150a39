// Package manager is the company manager as pages: what the pages of UPS's two applications
// show, click by click, and what else a person does with companies, applications and
// authorizations. It decides nothing about who gets in: package door stands before it.
//
// Pages work without scripts, and every change is a POST that ends with 303 at the page
// that shows it.
package manager

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
)

// Options are what the pages are made over.
type Options struct {
	// Session is that of the configuration as it is now. Nobody closes it here.
	Session func(context.Context) (*session.Session, error)
	SignIns SignIns
	// Doctor looks whether all is well.
	Doctor func(context.Context, *session.Session) ([]checkup.Finding, error)
	// Machine is what sentences call the machine that the service runs on, Host the name
	// that its system has.
	Machine, Host string
	Now           func() time.Time
	// Log, where set, is told what went wrong that no page says.
	Log func(format string, args ...any)
}

// by is how histories name what was done on these pages.
const by = "manager"

// manager is the pages.
type manager struct {
	Options
	looks     map[string]*page.Look
	addresses *addresses

	checking sync.Mutex // held during a look at everything
	mu       sync.Mutex
	checked  *lookAround // the last one, nil for none
}

//go:embed pages/*.html
var pagesHTML embed.FS

// New returns the pages. Their paths begin at the root.
func New(o Options) (http.Handler, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	o.Machine = cmp.Or(o.Machine, "this machine")
	m := &manager{Options: o, looks: map[string]*page.Look{}, addresses: &addresses{now: o.Now, all: map[string]*newAddress{}}}
	frame, err := page.New()
	if err != nil {
		return nil, err
	}
	common, err := pagesHTML.ReadFile("pages/common.html")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"list", "company", "history", "add", "rename", "remove", "choose", "authorize", "go", "signin", "keys", "key", "check", "failed", "invite", "invited", "cannot"} {
		text, err := pagesHTML.ReadFile("pages/" + name + ".html")
		if err != nil {
			return nil, err
		}
		if m.looks[name], err = frame.With(string(common)+string(text), template.FuncMap{
			"name": nameHTML, "line": line, "time": when, "batch": render.BatchTime,
		}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	mux := http.NewServeMux()
	for _, route := range m.routes() {
		mux.HandleFunc(route.pattern, func(w http.ResponseWriter, r *http.Request) {
			r = r.WithContext(company.By(r.Context(), by))
			err := r.ParseForm()
			if err == nil {
				err = route.take(r)
			}
			if err != nil {
				m.refuse(w, r, err)
				return
			}
			if err := route.serve(w, r); err != nil {
				m.fail(w, r, err)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		m.write(w, r, http.StatusNotFound, "failed", page.Page{Heading: "There is no such page"}, failure{What: "The company manager has no page at this address."})
	})
	return mux, nil
}

// route is what is served at a path. A form has these fields and no others.
type route struct {
	pattern string
	serve   func(http.ResponseWriter, *http.Request) error
	fields  []string
}

func (m *manager) routes() []route {
	return []route{
		{"GET /{$}", m.list, nil},
		{"GET /next", m.next, nil},
		{"GET /add", m.add, nil},
		{"POST /add", m.add, []string{"company", "contact", "note", "sure"}},
		{"GET /company", m.company, nil},
		{"GET /history", m.history, nil},
		{"POST /contact", m.contact, []string{"company", "contact", "note"}},
		{"GET /rename", m.rename, nil},
		{"POST /rename", m.rename, []string{"company", "name", "sure"}},
		{"POST /refresh", m.refresh, []string{"company", "app", "env"}},
		{"GET /remove", m.remove, nil},
		{"POST /remove", m.remove, []string{"company", "app", "env"}},
		{"GET /authorize", m.authorize, nil},
		{"POST /authorize", m.begin, []string{"company", "app", "env", "paste", "sure"}},
		{"GET /sign-in/{handle}", m.signIn, nil},
		{"GET /sign-in/{handle}/ups", m.toUPS, nil},
		{"POST /sign-in/{handle}/paste", m.paste, []string{"address"}},
		{"POST /sign-in/{handle}/user", m.answer, []string{"keep"}},
		{"POST /sign-in/{handle}/end", m.end, nil},
		{"GET /invite", m.invite, nil},
		{"POST /invite", m.makeInvitation, []string{"company", "app", "env", "fresh", "form", "user", "anybody", "expires", "note", "sure"}},
		{"POST /invite/again", m.inviteAgain, []string{"of", "form"}},
		{"GET /invited/{handle}", m.invited, nil},
		{"POST /invitation/withdraw", m.withdraw, []string{"invitation"}},
		{"POST /invitation/confirm", m.confirm, []string{"invitation"}},
		{"POST /invitation/refuse", m.refuseUser, []string{"invitation"}},
		{"GET /access-keys", m.accessKeys, nil},
		{"GET /access-key", m.accessKey, nil},
		{"POST /access-key", m.accessKey, []string{"new", "app", "env", "client-id", "redirect-uri", "public-redirect-uri", "client-secret", "sure"}},
		{"GET /check", m.check, nil},
		{"POST /check", m.look, nil},
	}
}

// pageError is an answer that is no error of a room below.
type pageError struct {
	status        int
	heading, what string
	links         []page.Link
}

func (e *pageError) Error() string { return e.what }

// write answers with a page inside of the frame of all pages.
func (m *manager) write(w http.ResponseWriter, r *http.Request, status int, name string, p page.Page, body any) {
	p.Body = body
	path := r.URL.Path
	query := r.URL.Query()
	application := ""
	if path == "/" {
		application = query.Get("app")
	}
	p.Nav = []page.Link{
		{Text: "Company manager", Address: "/", Here: path == "/" && application == ""},
		{Text: "Authorize Customer", Address: "/?app=" + config.IntelligentRating, Here: application == config.IntelligentRating},
		{Text: "My Company", Address: "/?app=" + config.BatchSuite, Here: application == config.BatchSuite},
		{Text: "Access Key Configuration", Address: "/access-keys", Here: path == "/access-keys"},
		{Text: "Is everything well?", Address: "/check", Here: path == "/check"},
	}
	if err := m.looks[name].Write(w, status, p); err != nil {
		m.Log("%v", err)
	}
}

// see ends a change at the page that shows it.
func see(w http.ResponseWriter, address string) {
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
}

// refuse answers a request that can't be read.
func (m *manager) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, what := http.StatusBadRequest, "The request can't be read. Nothing was changed."
	if errors.As(err, new(*http.MaxBytesError)) {
		status, what = http.StatusRequestEntityTooLarge, "The request is too large. Nothing was changed."
	}
	if f := new(fieldError); errors.As(err, &f) {
		what = f.Error() + " Nothing was changed."
	}
	m.write(w, r, status, "failed", page.Page{Heading: "This request was refused"}, failure{What: what})
}

// failure is the page of an error.
type failure struct {
	What    string
	Do      []string
	Contact string
	Links   []page.Link
}

// fail answers with an error: what happened, what to do, and the pages where that is done.
func (m *manager) fail(w http.ResponseWriter, r *http.Request, err error) {
	if p := new(pageError); errors.As(err, &p) {
		m.write(w, r, p.status, "failed", page.Page{Heading: p.heading}, failure{What: p.what, Links: p.links})
		return
	}
	e := explain.Error(err)
	status := statusOf(e.Class)
	if status >= http.StatusInternalServerError {
		m.Log("%s %s: %s", r.Method, r.URL.Path, legible.Line(e.What))
	}
	heading := "This did not work"
	if e.Class == explain.NotFound {
		heading = "Not found"
	}
	id := named(r)
	m.write(w, r, status, "failed", page.Page{Heading: heading}, m.failure(e, id.Company, id.Application))
}

// failure is an error in the words of these pages. Names are those that it may begin with.
func (m *manager) failure(e explain.Explanation, names ...string) failure {
	f := failure{What: sentence(e, names...), Contact: e.Contact}
	for _, remedy := range e.Do {
		if text := remedy.Plain(); text != "" {
			f.Do = append(f.Do, text)
		}
		for _, act := range remedy.Acts {
			f.Links = append(f.Links, linksFor(act)...)
		}
	}
	f.Links = unique(f.Links)
	return f
}

// sentence is what happened, as a sentence. A name at its start stays as it is.
func sentence(e explain.Explanation, names ...string) string {
	for _, remedy := range e.Do {
		for _, act := range remedy.Acts {
			names = append(names, act.ID.Company, act.ID.Application)
		}
	}
	return legible.SentenceOf(e.What, names...)
}

func statusOf(c explain.Class) int {
	switch c {
	case explain.Usage:
		return http.StatusUnprocessableEntity
	case explain.NotFound:
		return http.StatusNotFound
	case explain.Authorize:
		return http.StatusConflict
	case explain.Vault, explain.UPS, explain.Interrupted:
		return http.StatusServiceUnavailable
	case explain.Refused:
		return http.StatusBadGateway
	}
	return http.StatusInternalServerError
}

// nameHTML is a text from outside, set apart: one that is written from right to left would
// turn the sentence around it.
func nameHTML(text string) template.HTML {
	return template.HTML("<bdi>" + template.HTMLEscapeString(legible.Line(text)) + "</bdi>")
}

// when is a time on these pages. The panels have those of UPS's applications.
func when(t time.Time) string { return strings.ReplaceAll(render.UTCTime(t), " ", "\u00a0") }

// line is a text of our own in a line.
func line(text string) string { return tied(legible.Line(text)) }

var unit = legible.Pattern(`([0-9]) (UTC|ms|s|min|h|days?|hours?|minutes?|seconds?|KB|MB)\b`)

// tied keeps each number and its unit in one line. Nothing that people copy, such as a
// name, may go through it.
func tied(text string) string { return unit().ReplaceAllString(text, "$1\u00a0$2") }

// address is that of a page about a grant, or about a company alone.
func address(path string, id grant.ID, more ...string) string {
	q := url.Values{}
	for name, value := range map[string]string{"company": id.Company, "app": id.Application, "env": id.Environment} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return path + "?" + q.Encode()
}

// named is the grant that a request names.
func named(r *http.Request) grant.ID {
	id := grant.ID{Company: r.Form.Get("company"), Application: r.Form.Get("app"), Environment: r.Form.Get("env")}
	if app, env, ok := strings.Cut(r.Form.Get("for"), "/"); ok { // a button that chooses both
		id.Application, id.Environment = app, env
	}
	return id
}

func target(id grant.ID) session.Target {
	return session.Target{Company: id.Company, Application: id.Application, Environment: id.Environment}
}

// record is that of the one grant that a request names.
func (m *manager) record(ctx context.Context, s *session.Session, r *http.Request) (grant.Record, error) {
	id := named(r)
	if id.Company == "" {
		return grant.Record{}, errNoCompanyNamed
	}
	return s.Pick(ctx, target(id))
}

var errNoCompanyNamed = &pageError{
	status: http.StatusBadRequest, heading: "This request was refused", what: "The address names no company.",
	links: []page.Link{{Text: "Company manager", Address: "/"}},
}
