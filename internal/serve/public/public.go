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
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/address"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
)

// Options are what the pages are made over.
type Options struct {
	// Session is that of the configuration as it is now. Nobody closes it here.
	Session func(context.Context) (*session.Session, error)
	Now     func() time.Time
	// Log, where set, is told what went wrong that no page says. Nothing in it is secret.
	Log func(format string, args ...any)
}

// by is how histories name what a customer did.
const by = "invitation"

type public struct {
	Options
	looks map[string]*page.Look

	mu     sync.Mutex
	failed map[string]failure // why a try came to nothing, by its handle
}

// failure is why a try came to nothing, for a while.
type failure struct {
	err  error
	till time.Time
}

const (
	failureLasts = time.Hour
	mostFailures = 1000
)

//go:embed pages/*.html
var pagesHTML embed.FS

// New returns the pages.
func New(o Options) (http.Handler, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &public{Options: o, looks: map[string]*page.Look{}, failed: map[string]failure{}}
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
		if p.looks[name], err = frame.With(string(common)+string(text), template.FuncMap{"time": when}); err != nil {
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
	// path is the request's below public_url.
	path string
}

func (p *public) serve(w http.ResponseWriter, r *http.Request) {
	page.Headers(w.Header())
	w.Header().Set("X-Robots-Tag", "noindex, nofollow")
	// The address of an invitation is a secret: it goes nowhere else.
	w.Header().Set("Referrer-Policy", "same-origin")
	s, err := p.Session(r.Context())
	if err != nil {
		p.Log("%v", err)
		p.trouble(w, "")
		return
	}
	front, err := url.Parse(s.Config.Serve.PublicURL)
	if err != nil || front.Host == "" {
		p.nothing(w)
		return
	}
	q := request{Request: r.WithContext(company.By(r.Context(), by)), s: s, front: front}
	path, below := strings.CutPrefix(r.URL.Path, strings.TrimSuffix(front.Path, "/")+"/")
	if !below {
		p.nothing(w)
		return
	}
	q.path = path
	if secret, ok := strings.CutPrefix(path, "i/"); ok {
		p.invitation(w, q, secret)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && path != "again" {
		w.Header().Set("Allow", "GET, HEAD")
		p.write(w, http.StatusMethodNotAllowed, "after", page.Page{Heading: wordsNothing.Heading, Body: after{Text: wordsNothing.Text}})
		return
	}
	switch handle, done := strings.CutPrefix(path, "done/"); {
	case done:
		p.done(w, q, handle)
	case path == "again":
		p.again(w, q)
	case p.isCallback(q):
		p.callback(w, q)
	default:
		p.nothing(w)
	}
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
		w.Header().Set("Allow", "GET, HEAD, POST")
		p.write(w, http.StatusMethodNotAllowed, "after", page.Page{Heading: wordsNothing.Heading, Body: after{Text: wordsNothing.Text}})
		return
	}
	i, err := q.s.Invitation(q.Context(), secret)
	switch {
	case errors.Is(err, invitation.ErrUnknown):
		p.nothing(w)
		return
	case err != nil:
		p.Log("%v", err)
		p.trouble(w, q.s.Config.Serve.Contact)
		return
	case !i.Open(p.Now()):
		p.over(w, q, i)
		return
	}
	if q.Method == http.MethodPost {
		p.press(w, q, i)
		return
	}
	registration, err := q.s.Registration(q.Context(), i.Application, i.Environment)
	if err != nil {
		p.Log("%v", err)
		p.trouble(w, q.s.Config.Serve.Contact)
		return
	}
	body := before(i, registration, q.s.Config.Serve)
	p.write(w, http.StatusOK, "invited", page.Page{Heading: body.Heading, Body: body})
}

// press begins a sign-in: its page leads to UPS. A POST that redirected there would be
// blocked by form-action.
func (p *public) press(w http.ResponseWriter, q request, i session.Invited) {
	pressed, err := q.s.Press(q.Context(), i)
	if err != nil {
		p.Log("%v", err)
		p.trouble(w, q.s.Config.Serve.Contact)
		return
	}
	slot := p.freeSlot(q)
	http.SetCookie(w, q.cookie(slot, pressed.Sealed, int(pressed.Ends.Sub(p.Now()).Seconds())))
	p.write(w, http.StatusOK, "go", page.Page{Heading: wordsGo.Heading, Go: pressed.Address, Body: goOn{pressed.Address, wordsGo}})
}

// slots are how many sign-ins a browser can have under way.
const slots = 4

// cookie is that of a slot. Only over http on loopback, for trials, it has a plain name:
// the prefix __Host- keeps other hosts from setting it, and takes TLS.
func (q request) cookie(slot int, value string, maxAge int) *http.Cookie {
	c := &http.Cookie{Name: q.cookieName(slot), Value: value, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode, MaxAge: maxAge}
	if q.plain() {
		c.Secure = false
	}
	return c
}

func (q request) plain() bool {
	return q.front.Scheme == "http" && address.IsLoopback(q.front.Hostname())
}

func (q request) cookieName(slot int) string {
	name := fmt.Sprintf("upsauth-invitation-%d", slot)
	if q.plain() {
		return name
	}
	return "__Host-" + name
}

// pressed are the presses that the browser remembers and that can still be finished, by
// their slots.
func (p *public) pressed(q request) map[int]keeper.Remembered {
	found := map[int]keeper.Remembered{}
	for slot := range slots {
		// A browser sends one of a name; whoever sends several is none.
		cookies := q.CookiesNamed(q.cookieName(slot))
		if len(cookies) != 1 {
			continue
		}
		if remembered, err := q.s.OpenPress(q.Context(), cookies[0].Value); err == nil {
			found[slot] = remembered
		}
	}
	return found
}

// freeSlot is a slot that nothing is in, or the one whose sign-in began first.
func (p *public) freeSlot(q request) int {
	pressed := p.pressed(q)
	oldest := 0
	for slot := range slots {
		remembered, ok := pressed[slot]
		if !ok {
			return slot
		}
		if remembered.Begun.Before(pressed[oldest].Begun) {
			oldest = slot
		}
	}
	return oldest
}

// isCallback reports whether the request is at the public redirect URI of an application.
func (p *public) isCallback(q request) bool {
	applications, err := q.s.Applications(q.Context())
	if err != nil {
		p.Log("%v", err)
		return false
	}
	for _, r := range applications.Applications {
		if u, err := url.Parse(r.PublicRedirectURI); err == nil && r.PublicRedirectURI != "" && u.Path == q.URL.Path {
			return true
		}
	}
	return false
}

// callback takes the browser's way back from ups.com. The address has the code in it, so
// another page tells what came of it.
func (p *public) callback(w http.ResponseWriter, q request) {
	state := loopback.StateOf(q.URL.RawQuery)
	if q.Method == http.MethodHead || state == "" {
		p.write(w, http.StatusBadRequest, "after", page.Page{Heading: wordsNoAnswer.Heading, Body: after{Text: wordsNoAnswer.Text}})
		return
	}
	for _, remembered := range p.pressed(q) {
		if subtle.ConstantTimeCompare([]byte(remembered.State()), []byte(state)) != 1 {
			continue
		}
		handle := handleOf(remembered)
		callback, err := loopback.ReadCallback(loopback.Config{RedirectURI: remembered.RedirectURI, State: state, Issuer: p.issuer(q, remembered)}, q.URL.RawQuery)
		if err == nil {
			_, err = q.s.Return(q.Context(), remembered, callback)
		}
		p.note(handle, err)
		http.Redirect(w, q.Request, q.at("done/"+handle), http.StatusSeeOther)
		return
	}
	p.write(w, http.StatusForbidden, "after", page.Page{Heading: wordsOtherBrowser.Heading, Body: after{Text: wordsOtherBrowser.Text}})
}

// issuer is the one that answers of an environment have to name, empty for any.
func (p *public) issuer(q request, r keeper.Remembered) string {
	environment, err := q.s.Environment(r.Environment)
	if err != nil {
		return ""
	}
	return environment.Issuer
}

// note keeps for a while why a try came to nothing, for the page that the browser opens next.
func (p *public) note(handle string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	for other, f := range p.failed {
		if !now.Before(f.till) {
			delete(p.failed, other)
		}
	}
	delete(p.failed, handle)
	if err == nil {
		return
	}
	if len(p.failed) >= mostFailures {
		clear(p.failed) // their pages say less
	}
	p.failed[handle] = failure{err, now.Add(failureLasts)}
}

func (p *public) failure(handle string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.failed[handle]; ok && p.Now().Before(f.till) {
		return f.err
	}
	return nil
}

// done tells what came of a sign-in, to the browser that has its cookie.
func (p *public) done(w http.ResponseWriter, q request, handle string) {
	for _, remembered := range p.pressed(q) {
		if subtle.ConstantTimeCompare([]byte(handleOf(remembered)), []byte(handle)) != 1 {
			continue
		}
		i, err := q.s.InvitationOf(q.Context(), invitation.Key(remembered.Ref))
		if err != nil {
			p.Log("%v", err)
			p.trouble(w, q.s.Config.Serve.Contact)
			return
		}
		p.tell(w, q, i, handle, p.failure(handle))
		return
	}
	p.write(w, http.StatusGone, "after", page.Page{Heading: wordsForgotten.Heading, Body: after{Text: wordsForgotten.Text}})
}

// again begins anew for a browser that came back without a result.
func (p *public) again(w http.ResponseWriter, q request) {
	if q.Method != http.MethodPost {
		p.nothing(w)
		return
	}
	if err := q.ParseForm(); err != nil {
		p.nothing(w)
		return
	}
	for _, remembered := range p.pressed(q) {
		if subtle.ConstantTimeCompare([]byte(handleOf(remembered)), []byte(q.PostForm.Get("sign-in"))) != 1 {
			continue
		}
		i, err := q.s.InvitationOf(q.Context(), invitation.Key(remembered.Ref))
		switch {
		case err != nil:
			p.Log("%v", err)
			p.trouble(w, q.s.Config.Serve.Contact)
		case !i.Open(p.Now()):
			p.over(w, q, i)
		default:
			p.press(w, q, i)
		}
		return
	}
	p.write(w, http.StatusGone, "after", page.Page{Heading: wordsForgotten.Heading, Body: after{Text: wordsForgotten.Text}})
}

// nothing is the answer to whoever knows no address here.
func (p *public) nothing(w http.ResponseWriter) {
	w.Header().Set(session.FaceHeader, session.PublicFace)
	p.write(w, http.StatusNotFound, "after", page.Page{Heading: wordsNothing.Heading, Body: after{Text: wordsNothing.Text}})
}

// trouble is the answer where this machine can't do its part.
func (p *public) trouble(w http.ResponseWriter, contact string) {
	w.Header().Set("Retry-After", "60")
	p.write(w, http.StatusServiceUnavailable, "after", page.Page{Heading: wordsTrouble.Heading, Body: after{Text: wordsTrouble.Text, Contact: contact}})
}

func (p *public) write(w http.ResponseWriter, status int, look string, pg page.Page) {
	if err := p.looks[look].Write(w, status, pg); err != nil {
		p.Log("%v", err)
	}
}

// displayName is what UPS calls an application.
func displayName(r config.Registration) string { return r.DisplayName }
