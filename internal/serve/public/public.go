// Package public is what customers see who were invited: the page that an invitation's
// address opens, the callback of UPS, and what came of it. Whoever finds the server may ask
// it: nothing here shows a company to somebody without the address of its invitation, and
// only a completed sign-in changes anything.
//
// A press on *Continue to UPS* writes nothing on this machine. What has to be remembered is
// sealed into a cookie, so that another process with the same vault can finish the sign-in.
package public

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
)

// Options are what the pages are made over.
type Options struct {
	// Session is that of the configuration as it is now. Nobody closes it here.
	Session func(context.Context) (*session.Session, error)
	Now     func() time.Time
	// Log, where set, is told what went wrong that no page says, and what it is about,
	// empty for this machine. Nothing in it is secret.
	Log func(about, text string)
	// Came, where set, is told of each user who signed in. Nothing in it is secret.
	Came func(text string)
}

// by is how histories name what a customer did.
const by = "invitation"

type public struct {
	Options
	looks map[string]*page.Look

	mu     sync.Mutex
	failed map[string]failure // why a try came to nothing, by its handle
	asked  map[string]asked   // what UPS said of applications, by their names
}

//go:embed pages/*.html
var pagesHTML embed.FS

// New returns the pages.
func New(o Options) (http.Handler, error) {
	if o.Log == nil {
		o.Log = func(string, string) {}
	}
	if o.Came == nil {
		o.Came = func(string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &public{Options: o, looks: map[string]*page.Look{}, failed: map[string]failure{}, asked: map[string]asked{}}
	frame, err := page.New()
	if err != nil {
		return nil, err
	}
	common, err := pagesHTML.ReadFile("pages/common.html")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"invited", "go", "after"} {
		text, err := pagesHTML.ReadFile("pages/" + name + ".html")
		if err != nil {
			return nil, err
		}
		if p.looks[name], err = frame.With(string(common)+string(text), template.FuncMap{"words": func() labels { return theLabels }}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return http.HandlerFunc(p.serve), nil
}

// request is one request, with the session that it is answered by.
type request struct {
	*http.Request
	s     *session.Session
	front *url.URL
}

func (p *public) serve(w http.ResponseWriter, r *http.Request) {
	page.Headers(w.Header())
	w.Header().Set("X-Robots-Tag", "noindex, nofollow")
	s, err := p.Session(r.Context())
	if err != nil {
		p.Log("", err.Error())
		p.say(w, request{}, http.StatusServiceUnavailable, wordsTrouble)
		return
	}
	front, err := url.Parse(s.Config.Serve.PublicURL)
	if err != nil || front.Host == "" {
		p.nothing(w)
		return
	}
	q := request{Request: r.WithContext(company.By(r.Context(), by)), s: s, front: front}
	path, below := cutFold(r.URL.Path, strings.TrimSuffix(front.Path, "/")+"/")
	if !below {
		p.nothing(w)
		return
	}
	if secret, ok := cutFold(path, "i/"); ok {
		p.invitation(w, q, secret)
		return
	}
	if path == "again" {
		p.again(w, q)
		return
	}
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		p.notAllowed(w, "GET, HEAD")
		return
	}
	switch handle, done := strings.CutPrefix(path, "done/"); {
	case done:
		p.done(w, q, handle)
	case path == "robots.txt":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "User-agent: *\nDisallow: /\n")
	case path == "favicon.ico":
		w.WriteHeader(http.StatusNoContent)
	case p.isCallback(q):
		p.callback(w, q)
	default:
		p.nothing(w)
	}
}

// cutFold is [strings.CutPrefix] for a prefix in any case, as mail programs leave it.
func cutFold(s, prefix string) (after string, found bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// at is a path below public_url's.
func (q request) at(path string) string {
	return strings.TrimSuffix(q.front.EscapedPath(), "/") + "/" + path
}

// invitation is the page that an invitation's address opens, and its press.
func (p *public) invitation(w http.ResponseWriter, q request, secret string) {
	switch q.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		p.notAllowed(w, "GET, HEAD, POST")
		return
	}
	i, err := q.s.Invitation(q.Context(), secret)
	switch {
	case errors.Is(err, invitation.ErrUnknown):
		p.nothing(w)
		return
	case err != nil:
		p.trouble(w, q, err)
		return
	case !i.Open(p.Now()):
		p.over(w, q, i)
		return
	}
	elsewhere := q.fromElsewhere()
	if q.Method == http.MethodPost && !elsewhere {
		p.press(w, q, i, "")
		return
	}
	registration, err := q.s.Registration(q.Context(), i.Application, i.Environment)
	if err != nil {
		p.trouble(w, q, err)
		return
	}
	user, err := q.s.ExpectedUser(q.Context(), i)
	if err != nil {
		p.trouble(w, q, err)
		return
	}
	body := before(i, registration, q.s.Config.Serve, user)
	if elsewhere {
		body.Again = wordsPressHere
	}
	p.write(w, http.StatusOK, "invited", page.Page{Heading: body.Heading, Site: siteOf(q), Body: body})
}

// nothing is the answer to whoever knows no address here.
func (p *public) nothing(w http.ResponseWriter) {
	w.Header().Set(session.FaceHeader, session.PublicFace)
	p.say(w, request{}, http.StatusNotFound, wordsNothing)
}

func (p *public) notAllowed(w http.ResponseWriter, methods string) {
	w.Header().Set("Allow", methods)
	p.say(w, request{}, http.StatusMethodNotAllowed, wordsNothing)
}

// trouble is the answer where this machine can't do its part.
func (p *public) trouble(w http.ResponseWriter, q request, err error) {
	p.Log("", err.Error())
	p.say(w, q, http.StatusServiceUnavailable, wordsTrouble)
}

// say answers with a page of sentences. Some of them have more on it.
func (p *public) say(w http.ResponseWriter, q request, status int, said words, more ...after) {
	var body after
	if len(more) > 0 {
		body = more[0]
	}
	body.Text, body.Button = append(body.Text, said.Text...), said.Button
	if said.Ask && q.s != nil {
		body.Contact = contactOf(q.s.Config.Serve)
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "60")
	}
	p.write(w, status, "after", page.Page{Heading: said.Heading, Site: siteOf(q), Body: body})
}

func (p *public) write(w http.ResponseWriter, status int, look string, pg page.Page) {
	if err := p.looks[look].Write(w, status, pg); err != nil {
		p.Log("", err.Error())
	}
}
