// Package loopback has the callback of one login as an http.Handler, and the listeners
// of this machine on which callbacks arrive. The two know nothing of each other but the
// connection in a request's context. A Handler takes the first answer that carries the
// login's state, and keeps the browser waiting until the caller says what really came
// of it; an answer that did not end the login makes room for another. A Listener is
// on this machine only (RFC 8252 sections 7.3 and 8.3).
package loopback

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// ErrClosed is what Wait and Finish return once Close was called.
var ErrClosed = errors.New("the callback server is closed")

// Config describes the login whose answer is awaited.
type Config struct {
	// RedirectURI is the redirect URI byte for byte as the authorization server was
	// asked with it.
	RedirectURI string

	// State is the login's state parameter (RFC 6749 section 10.12), never empty.
	State string

	// Issuer, where set, is what the answer's iss parameter must be (RFC 9207
	// section 2.4); an answer without one is refused then.
	Issuer string

	// Front is scheme, host and port at which browsers of this machine find the
	// handler where the redirect URI's lead elsewhere, as to a tunnel's other end.
	// Requests whose Host is Front's are answered like those whose Host is the
	// redirect URI's. Empty: there is only the redirect URI.
	Front string

	// Home, where set, is the address of the page on which the login began: the pages
	// here lead back to it. Empty: the login began in a terminal.
	Home string

	// Log receives one line for each refused request. A line holds nothing of the
	// request: no path, query, code or state. It is called by one goroutine at a
	// time. Nil: silent.
	Log func(line string)
}

// Handler answers the requests of one login and waits for its answer. It may be
// served by any server whose ConnContext is [ConnContext]. Its methods may be called
// from several goroutines.
type Handler struct {
	*answerer
	login     login
	hosts     map[string]bool // the Host values answered, in lower case
	front     *url.URL        // scheme and host of the start address
	tunnelled bool            // the redirect URI leads here by way of something else

	notices chan Notice
	ended   chan struct{} // closed by Close
	broken  chan struct{} // closed by Fail

	mu      sync.Mutex
	state   string        // the login's; a new one where the old one was voided
	guard   *guard        // nil: an answer may come from any browser
	got     chan struct{} // closed when current is set; Again puts another in its place
	current *round        // the answer that waits for its outcome, or that has the last one
	rounds  []*round      // those that Again and Finish gave a page, the latest last
	over    bool          // Finish was called
	waiting int
	closed  bool  // ended is closed
	last    *Page // what CloseWith shows whoever comes too late
	failure error // set when broken is closed
}

// round is one answer and what came of it.
type round struct {
	callback grant.Callback
	path     string        // of its page: unguessable, so that only the browser that brought the answer is shown it
	finished chan struct{} // closed when there is a page
	page     []byte        // set once, before finished is closed
	asked    chan struct{} // closed when the terminal asks somebody about the answer
	question []byte        // set once, before asked is closed: the page of that while
	served   chan struct{} // closed when the page has been written out once
	seen     bool          // served is closed
}

// New makes the handler of a login. The caller closes it before whatever serves it.
func New(c Config) (*Handler, error) { return newHandler(c, defaultLimits()) }

func newHandler(c Config, lim limits) (*Handler, error) {
	l, err := newLogin(c)
	if err != nil {
		return nil, err
	}
	if l.redirect.port == 0 {
		return nil, fmt.Errorf("the redirect URI %s has port 0, so no answer can arrive there", c.RedirectURI)
	}
	front, err := url.Parse(cmp.Or(c.Front, c.RedirectURI))
	if err != nil {
		return nil, fmt.Errorf("the address of this machine's callback server can't be read: %w", err)
	}
	answers, err := newAnswerer(c.Home, lim, c.Log)
	if err != nil {
		return nil, err
	}
	s := &Handler{
		answerer:  answers,
		login:     l,
		hosts:     make(map[string]bool),
		front:     &url.URL{Scheme: front.Scheme, Host: front.Host},
		tunnelled: c.Front != "",
		state:     c.State,
		notices:   make(chan Notice, 16),
		got:       make(chan struct{}),
		ended:     make(chan struct{}),
		broken:    make(chan struct{}),
	}
	for _, h := range l.redirect.hosts() {
		s.hosts[h] = true
	}
	if s.tunnelled {
		port, err := strconv.Atoi(front.Port())
		if err != nil {
			port = defaultPort(front.Scheme)
		}
		for _, h := range hostNames(front.Scheme, canonicalHost(front.Hostname()), port) {
			s.hosts[h] = true
		}
	}
	return s, nil
}

// Wait returns the first callback that carries the login's state: a code, or
// the error of the authorization server. Until Again it returns the same when it
// is called again. The browser stays without an answer until Again, Finish or
// Close.
func (s *Handler) Wait(ctx context.Context) (grant.Callback, error) {
	s.mu.Lock()
	got := s.got
	s.mu.Unlock()
	select {
	case <-got:
	case <-s.ended:
	case <-s.broken:
	case <-ctx.Done():
	}
	s.mu.Lock()
	current, closed, failure := s.current, s.closed, s.failure
	s.mu.Unlock()
	switch {
	case current != nil:
		return current.callback, nil
	case closed:
		return grant.Callback{}, ErrClosed
	case failure != nil:
		return grant.Callback{}, fmt.Errorf("the callback server stopped listening: %w", failure)
	default:
		return grant.Callback{}, fmt.Errorf("no answer came from the browser: %w", context.Cause(ctx))
	}
}

// Finish says what came of the login. The waiting browser is sent to the result
// page; Finish returns nil when that page has been served once or 5 s have
// passed, at once when no callback had come, and an error when ctx ended first.
// The page is served as often as it is asked for until Close.
func (s *Handler) Finish(ctx context.Context, p Page) error {
	answered, err := s.conclude(p, true)
	if err != nil || answered == nil {
		return err
	}
	limit := time.NewTimer(s.limits.finish)
	defer limit.Stop()
	select {
	case <-answered.served:
		return nil
	case <-limit.C:
		return nil
	case <-s.ended:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("the browser had not fetched its result page: %w", context.Cause(ctx))
	}
}

// Again says what came of an answer that did not end the login. Its browser is
// sent to the page, and the login waits for another answer. It does not wait for
// the browser, and does nothing where no answer is in.
func (s *Handler) Again(p Page) error {
	_, err := s.conclude(p, false)
	return err
}

// Ask says that somebody is asked about the answer at the terminal. Its browser is
// sent to this page, which gives way to the result by itself. It does nothing where no
// answer is in.
func (s *Handler) Ask(p Page) error {
	p.waits = true
	body, err := s.pages.render("result", "Question", p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.current; r != nil && r.question == nil && !s.closed && !s.over {
		r.question = body
		close(r.asked)
	}
	return nil
}

// conclude gives the answer that is in its page, and returns it; nil where none is.
func (s *Handler) conclude(p Page, last bool) (*round, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !last && s.guard != nil && s.guard.cookies {
		p.start = s.guard.path
	}
	body, err := s.pages.result(p)
	switch {
	case err != nil:
		return nil, err
	case s.closed:
		return nil, ErrClosed
	case s.over:
		return nil, errors.New("the sign-in is already finished: its browser can be told only once")
	}
	s.over = last
	answered := s.current
	if answered == nil {
		return nil, nil
	}
	answered.page = body
	close(answered.finished)
	s.rounds = append(s.rounds, answered)
	if extra := len(s.rounds) - s.limits.rounds; extra > 0 {
		s.rounds = s.rounds[extra:]
	}
	if !last {
		s.current, s.got = nil, make(chan struct{})
	}
	return answered, nil
}

// Close ends the login. A browser that still waits is told so, or what Finish said.
func (s *Handler) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.ended)
	}
}

// Fail says that what served the login serves no more, and why: nobody has to wait
// for an answer any longer.
func (s *Handler) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = err
		close(s.broken)
	}
}

// CloseWith is Close, with the page that whoever comes too late is shown.
func (s *Handler) CloseWith(p Page) {
	s.mu.Lock()
	if !s.closed {
		s.last = &p
	}
	s.mu.Unlock()
	s.Close()
}

// State is what an answer has to carry by now.
func (s *Handler) State() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

const whyEnded = "the sign-in has ended"

func (s *Handler) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// refuseEnded tells whoever comes too late why there is nothing any more.
func (s *Handler) refuseEnded(w http.ResponseWriter) {
	s.mu.Lock()
	page := s.last
	s.mu.Unlock()
	if page == nil {
		s.refuse(w, http.StatusGone, whyEnded)
		return
	}
	s.refuseWith(w, http.StatusGone, whyEnded, *page)
}

// Owns reports whether a request is for this login and no other: by its state, or by a
// path that nobody else can know. It says nothing about whether the request is answered.
func (s *Handler) Owns(r *http.Request) bool {
	path := pathOf(r.URL)
	if path != s.login.redirect.path {
		return s.isStart(path) || s.doneAt(path) != nil
	}
	s.mu.Lock()
	known := []string{s.state}
	for g := s.guard; g != nil; g = g.before {
		known = append(known, g.voided...)
	}
	s.mu.Unlock()
	owns := false
	for _, state := range parseAnswer(r.URL.RawQuery)["state"] {
		for _, one := range known {
			owns = owns || subtle.ConstantTimeCompare([]byte(state), []byte(one)) == 1
		}
	}
	return owns
}

// take makes cb the login's answer if there is none, and lets it wait if it was
// one already. Otherwise it says with what words to refuse it.
func (s *Handler) take(cb grant.Callback) (answered *round, status int, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := slices.IndexFunc(s.rounds, func(r *round) bool { return r.callback == cb })
	switch {
	case s.current != nil && s.current.callback == cb:
		answered = s.current
	case known >= 0:
		answered = s.rounds[known]
	case s.current != nil:
		return nil, http.StatusConflict, "the sign-in already has another answer"
	case s.closed:
		return nil, http.StatusGone, whyEnded
	case s.over:
		return nil, http.StatusConflict, "the sign-in was finished without it"
	default:
		answered = &round{
			callback: cb, path: "/done/" + rand.Text(),
			finished: make(chan struct{}), served: make(chan struct{}), asked: make(chan struct{}),
		}
		s.current = answered
		close(s.got)
	}
	if s.waiting >= s.limits.waiting {
		return nil, http.StatusServiceUnavailable, "too many requests wait for the result already"
	}
	s.waiting++
	return answered, 0, ""
}

func (s *Handler) leave() {
	s.mu.Lock()
	s.waiting--
	s.mu.Unlock()
}

// doneAt returns the answer whose page is at path, nil where there is none.
func (s *Handler) doneAt(path string) (found *round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.rounds
	if s.current != nil && s.current.question != nil {
		all = append(slices.Clip(all), s.current)
	}
	for _, r := range all {
		if subtle.ConstantTimeCompare([]byte(path), []byte(r.path)) == 1 {
			found = r
		}
	}
	return found
}

func (s *Handler) markServed(r *round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.seen {
		r.seen = true
		close(r.served)
	}
}
