// Package public is what customers see who were invited: the page that an invitation's
// address opens, the callback of UPS, and what came of it. Whoever finds the server may ask
// it: nothing here shows a company to somebody without the address of its invitation, and
// only a completed sign-in changes anything.
//
// A press on *Continue to UPS* writes nothing on this machine. What has to be remembered is
// sealed into a cookie, so that another process with the same vault can finish the sign-in.
package public

import (
	"cmp"
	"context"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/address"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
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

// failure is why a try came to nothing, for a while.
type failure struct {
	err  error
	till time.Time
	// callback is what can be tried once more, until codeTill.
	callback grant.Callback
	codeTill time.Time
}

const (
	failureLasts = time.Hour
	mostFailures = 1000
	// codeLasts is how long UPS's code can be tried again: it is said to be good for
	// 30 s, and has come some way.
	codeLasts = 25 * time.Second
)

// asked is what UPS said whether it would let somebody sign in.
type asked struct {
	err  error
	till time.Time
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

// fromElsewhere reports whether a page of another site has sent a form here. Whoever has an
// invitation could let other people's browsers press otherwise, who then read nothing of
// whose it is before they are at UPS.
func (q request) fromElsewhere() bool {
	own := http.NewCrossOriginProtection()
	// A proxy may change the Host, which browsers without Sec-Fetch-Site are compared with.
	if err := own.AddTrustedOrigin(q.front.Scheme + "://" + q.front.Host); err != nil {
		return true
	}
	return own.Check(q.Request) != nil
}

// press begins a sign-in: its page leads to UPS. A POST that redirected there would be
// blocked by form-action. The handle is that of the sign-in after which it begins anew,
// empty at an invitation's address.
func (p *public) press(w http.ResponseWriter, q request, i session.Invited, handle string) {
	if err := p.askUPS(q, i); err != nil {
		p.Log(i.GrantID().String(), "UPS lets nobody sign in for "+i.GrantID().String()+": "+err.Error())
		said := wordsUPSDownBefore
		if isOurs(err) {
			said = wordsNotOurs
		}
		retry := after{Again: q.URL.EscapedPath(), Handle: handle}
		p.say(w, q, http.StatusServiceUnavailable, said, retry)
		return
	}
	pressed, err := q.s.Press(q.Context(), i)
	if err != nil {
		p.trouble(w, q, err)
		return
	}
	http.SetCookie(w, q.cookie(p.freeSlot(q), pressed.Sealed, int(pressed.Ends.Sub(p.Now()).Seconds())))
	p.write(w, http.StatusOK, "go", page.Page{Heading: wordsGo.Heading, Site: siteOf(q), Go: pressed.Address, Body: goOn{pressed.Address, wordsGo}})
}

const (
	// askPatience is how long UPS's word is waited for: a browser finds out for itself
	// what takes longer.
	askPatience = 5 * time.Second
	// askAgain is how long UPS is not asked again after it said yes, and askSoon after a
	// no. Scanners press many buttons.
	askAgain = time.Minute
	askSoon  = 5 * time.Second
)

// askUPS reports why UPS would let nobody sign in, so that customers read it here, in
// their words, and not at UPS, from where nothing leads back.
func (p *public) askUPS(q request, i session.Invited) error {
	registration, err := q.s.Registration(q.Context(), i.Application, i.Environment)
	if err != nil {
		return nil // the press says so
	}
	name := strings.Join([]string{registration.Environment, registration.ClientID, registration.PublicRedirectURI}, " ")
	now := p.Now()
	p.mu.Lock()
	last, known := p.asked[name]
	p.mu.Unlock()
	if known && now.Before(last.till) && last.till.Sub(now) <= askAgain {
		return last.err
	}
	asking, cancel := context.WithTimeout(q.Context(), askPatience)
	defer cancel()
	err = q.s.AskUPS(asking, i)
	last = asked{till: now.Add(askAgain)}
	if errors.As(err, new(*ups.Error)) && asking.Err() == nil {
		last = asked{err, now.Add(askSoon)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) >= mostFailures {
		clear(p.asked)
	}
	p.asked[name] = last
	return last.err
}

// slots are how many sign-ins a browser can have under way.
const slots = 4

// cookie is that of a slot. Only over http on loopback, for trials, it has a plain name:
// the prefix __Host- keeps other hosts from setting it, and takes TLS.
func (q request) cookie(slot int, value string, maxAge int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // over http there is no secure cookie
		Name: q.cookieName(slot), Value: value, Path: "/", HttpOnly: true, Secure: !q.plain(), SameSite: http.SameSiteLaxMode, MaxAge: maxAge,
	}
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
// their slots. An error is this machine's.
func (p *public) pressed(q request) (map[int]keeper.Remembered, error) {
	found := map[int]keeper.Remembered{}
	for slot := range slots {
		// A browser sends one of a name; whoever sends several is none.
		cookies := q.CookiesNamed(q.cookieName(slot))
		if len(cookies) != 1 {
			continue
		}
		remembered, err := q.s.OpenPress(q.Context(), cookies[0].Value)
		switch {
		case err == nil:
			found[slot] = remembered
		case !errors.As(err, new(*session.ForeignPressError)):
			return nil, err
		}
	}
	return found, nil
}

// find is the press that the browser remembers and that has such a text.
func (p *public) find(q request, text string, of func(keeper.Remembered) string) (r keeper.Remembered, found bool, err error) {
	pressed, err := p.pressed(q)
	for _, remembered := range pressed {
		if subtle.ConstantTimeCompare([]byte(of(remembered)), []byte(text)) == 1 {
			return remembered, true, err
		}
	}
	return keeper.Remembered{}, false, err
}

// freeSlot is a slot that nothing is in, or the one whose sign-in began first. Which of
// those that are free is left to chance: two tabs may press before either has its cookie.
func (p *public) freeSlot(q request) int {
	pressed, err := p.pressed(q)
	first := rand.N(slots)
	if err != nil {
		return first
	}
	oldest := first
	for n := range slots {
		slot := (first + n) % slots
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

// isCallback reports whether the request is at the public redirect URI of an application,
// or at the one that UPS was asked with for this browser: the application may have got
// another one since, or have gone.
func (p *public) isCallback(q request) bool {
	applications, err := q.s.Applications(q.Context())
	if err != nil {
		p.Log("", err.Error())
	}
	for _, r := range applications.Applications {
		if r.PublicRedirectURI != "" && leadsTo(r.PublicRedirectURI, q) {
			return true
		}
	}
	pressed, _ := p.pressed(q) // the callback says what is wrong
	for _, remembered := range pressed {
		if leadsTo(remembered.RedirectURI, q) {
			return true
		}
	}
	return false
}

// takesOthers reports whether UPS sends those here too who sign in without an invitation.
func (p *public) takesOthers(q request) bool {
	applications, err := q.s.Applications(q.Context())
	return err == nil && slices.ContainsFunc(applications.Applications, func(r config.Registration) bool {
		return r.RedirectURI == r.PublicRedirectURI && leadsTo(r.RedirectURI, q)
	})
}

// leadsTo reports whether a redirect URI leads to where the request is.
func leadsTo(redirectURI string, q request) bool {
	u, err := url.Parse(redirectURI)
	return err == nil && u.Path == q.URL.Path
}

// callback takes the browser's way back from ups.com. The address has the code in it, so
// another page tells what came of it.
func (p *public) callback(w http.ResponseWriter, q request) {
	state := loopback.StateOf(q.URL.RawQuery)
	if q.Method == http.MethodHead || state == "" {
		p.say(w, q, http.StatusBadRequest, wordsNoAnswer)
		return
	}
	remembered, found, err := p.find(q, state, keeper.Remembered.State)
	switch {
	case err != nil:
		p.trouble(w, q, err) // loading it again is another try
		return
	case !found:
		said := wordsOtherBrowser
		if p.takesOthers(q) {
			said.Text = append(slices.Clip(said.Text), wordsElsewhere)
		}
		p.say(w, q, http.StatusForbidden, said)
		return
	case !leadsTo(remembered.RedirectURI, q):
		p.Log(q.URL.Path, fmt.Sprintf("UPS sent a customer's browser to %s and was asked to send it to %s: look at the Callback URLs in UPS's portal, and at the proxy", q.URL.Path, remembered.RedirectURI))
		p.begin(w, q, handleOf(remembered), wordsOtherAddress, nil)
		return
	}
	callback, err := loopback.ReadCallback(loopback.Config{RedirectURI: remembered.RedirectURI, State: state, Issuer: p.issuer(q, remembered)}, q.URL.RawQuery)
	if err != nil {
		p.note(handleOf(remembered), failure{err: &unreadError{err}})
	} else {
		p.finish(q, remembered, callback)
	}
	http.Redirect(w, q.Request, q.at("done/"+handleOf(remembered)), http.StatusSeeOther)
}

// unreadError says that an answer of UPS's is none.
type unreadError struct{ error }

// finish exchanges what the browser brought back, and notes what came of it.
func (p *public) finish(q request, remembered keeper.Remembered, callback grant.Callback) {
	begun := p.Now()
	came, err := q.s.Return(q.Context(), remembered, callback)
	if said := cameTo(came, err); said != "" {
		p.Came(fmt.Sprintf("%s (invitation %s)", said, came.ID))
	}
	f := failure{err: err}
	if err != nil && mayPass(err) {
		f.callback, f.codeTill = callback, begun.Add(codeLasts)
	}
	p.note(handleOf(remembered), f)
}

// cameTo is what a sign-in came to, for the log of whoever sent the invitation; empty where
// nobody signed in.
func cameTo(came session.Came, err error) string {
	other := &keeper.OtherUserError{User: came.User}
	wrong := errors.As(err, &other)
	user := cmp.Or(other.User, "a user whom UPS does not name")
	switch {
	case wrong:
		return fmt.Sprintf("%s signed in for %s, and %s is expected; nothing was changed", user, came.GrantID(), other.Expect)
	case err != nil:
		return ""
	case came.Held:
		return fmt.Sprintf("%s signed in for %s and waits to be confirmed", user, came.GrantID())
	}
	return fmt.Sprintf("%s is authorized by %s", came.GrantID(), user)
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
func (p *public) note(handle string, f failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	for other, f := range p.failed {
		if !now.Before(f.till) {
			delete(p.failed, other)
		}
	}
	delete(p.failed, handle)
	if f.err == nil {
		return
	}
	if len(p.failed) >= mostFailures {
		clear(p.failed) // their pages say less
	}
	if f.till = now.Add(failureLasts); f.codeTill.IsZero() {
		f.codeTill = now
	}
	p.failed[handle] = f
}

func (p *public) failure(handle string) failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.failed[handle]; ok && p.Now().Before(f.till) {
		return f
	}
	return failure{}
}

// takeCode returns what can be tried once more, and forgets it.
func (p *public) takeCode(handle string) (callback grant.Callback, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.failed[handle]
	now := p.Now()
	ok = f.callback.Code != "" && now.Before(f.codeTill) && f.codeTill.Sub(now) <= codeLasts
	callback, f.callback = f.callback, grant.Callback{}
	if f.err != nil {
		p.failed[handle] = f
	}
	return callback, ok
}

// done tells what came of a sign-in, to the browser that has its cookie.
func (p *public) done(w http.ResponseWriter, q request, handle string) {
	remembered, i, found := p.remembered(w, q, handle)
	if found {
		p.tell(w, q, i, remembered, p.failure(handle).err)
	}
}

// again is the button of a page that told of no success: the code that UPS could not
// take is tried once more while it is good, or the customer signs in anew.
func (p *public) again(w http.ResponseWriter, q request) {
	if q.Method != http.MethodPost {
		p.nothing(w)
		return
	}
	if err := q.ParseForm(); err != nil {
		p.nothing(w)
		return
	}
	handle := q.PostForm.Get("sign-in")
	remembered, i, found := p.remembered(w, q, handle)
	switch {
	case !found:
	case !i.Open(p.Now()):
		p.over(w, q, i)
	default:
		if callback, ok := p.takeCode(handle); ok {
			p.finish(q, remembered, callback)
			http.Redirect(w, q.Request, q.at("done/"+handle), http.StatusSeeOther)
			return
		}
		p.press(w, q, i, handle)
	}
}

// remembered is the sign-in that a handle names, in the browser that has its cookie. Any
// other one has its answer.
func (p *public) remembered(w http.ResponseWriter, q request, handle string) (r keeper.Remembered, i session.Invited, found bool) {
	r, found, err := p.find(q, handle, handleOf)
	if err == nil && !found {
		p.say(w, q, http.StatusGone, wordsForgotten)
		return r, i, false
	}
	if err == nil {
		i, err = q.s.InvitationOf(q.Context(), invitation.Key(r.Ref))
	}
	if errors.Is(err, invitation.ErrUnknown) {
		p.say(w, q, http.StatusGone, wordsForgotten)
		return r, i, false
	}
	if err != nil {
		p.trouble(w, q, err)
		return r, i, false
	}
	return r, i, true
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
