// Package loopback is the callback server of one login. It listens on this
// machine only (RFC 8252 sections 7.3 and 8.3), takes the first answer that carries
// the login's state, and keeps the browser waiting until the caller says what
// really came of it. An answer that did not end the login makes room for another.
package loopback

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrClosed is what Wait and Finish return once Close was called.
var ErrClosed = errors.New("the callback server is closed")

// Config describes the login whose answer is awaited.
type Config struct {
	// RedirectURI is the redirect URI byte for byte as it is registered. Port 0
	// on a loopback host asks for any free port; Server.RedirectURI names it.
	RedirectURI string

	// State is the login's state parameter (RFC 6749 section 10.12), never empty.
	State string

	// Issuer, where set, is what the answer's iss parameter must be (RFC 9207
	// section 2.4); an answer without one is refused then.
	Issuer string

	// Listen is the host:port to listen on, loopback only, for a redirect URI
	// that reaches this machine through a tunnel. Requests whose Host is Listen
	// are answered like those whose Host is the redirect URI's. Empty: the
	// redirect URI's own host and port.
	Listen string

	// TLS serves an https redirect URI. Behind Listen it may be nil: the tunnel
	// then brings plain http. It is ignored for an http redirect URI.
	TLS *tls.Config

	// Holder names the program that has a port, empty where it is not known. It is
	// asked where the system tells its user at most. Nil: nobody is.
	Holder func(port int) string

	// Log receives one line for each refused request and each failed TLS
	// handshake. A line holds nothing of the request: no path, query, code or
	// state. It is called by one goroutine at a time. Nil: silent.
	Log func(line string)
}

// limits holds what bounds a server. Tests shorten it.
type limits struct {
	header  time.Duration // until a connection has sent a whole header, TLS handshake included
	body    time.Duration // until the body of a refused request has ended
	write   time.Duration // for writing one answer
	finish  time.Duration // until the browser has fetched the result page
	grace   time.Duration // for answers under way when Close is called
	headers int           // bytes of one request's header: the cookies of everything else on localhost come along
	url     int           // bytes of one request's URL, and of a pasted address
	conns   int           // connections open at once
	waiting int           // requests that wait for Finish at once
	rounds  int           // answers whose pages are kept
}

const maxURL = 16 << 10

func defaultLimits() limits {
	return limits{
		header:  5 * time.Second,
		body:    time.Second,
		write:   5 * time.Second,
		finish:  5 * time.Second,
		grace:   time.Second,
		headers: 64 << 10,
		url:     maxURL,
		conns:   128,
		waiting: 16,
		rounds:  16,
	}
}

// Server waits for the answer to one login. Its methods may be called from
// several goroutines.
type Server struct {
	limits      limits
	login       login
	redirectURI string
	listeners   []net.Listener
	hosts       map[string]bool // the Host values answered, in lower case
	pages       *pages
	at          endpoint // with the port that was chosen
	tunnelled   bool     // the redirect URI leads here by way of something else

	http    *http.Server
	conns   *connections
	serving sync.WaitGroup

	logMu sync.Mutex
	log   func(string)

	notices chan Notice
	ended   chan struct{} // closed by Close
	broken  chan struct{} // closed when a listener stopped, whatever the reason

	mu      sync.Mutex
	state   string        // the login's; a new one where the old one was voided
	guard   *guard        // nil: an answer may come from any browser
	got     chan struct{} // closed when current is set; Again puts another in its place
	current *round        // the answer that waits for its outcome, or that has the last one
	rounds  []*round      // those that Again and Finish gave a page, the latest last
	over    bool          // Finish was called
	waiting int
	closed  bool  // ended is closed
	failure error // set when broken is closed
}

// round is one answer and what came of it.
type round struct {
	callback Callback
	path     string        // of its page: unguessable, so that only the browser that brought the answer is shown it
	finished chan struct{} // closed when there is a page
	page     []byte        // set once, before finished is closed
	asked    chan struct{} // closed when the terminal asks somebody about the answer
	question []byte        // set once, before asked is closed: the page of that while
	served   chan struct{} // closed when the page has been written out once
	seen     bool          // served is closed
}

// Listen opens the callback server; it answers as soon as Listen returns, so
// the browser may be sent off then. ctx bounds only the opening. A port that is
// taken is a *PortError. The caller must Close the server.
func Listen(ctx context.Context, c Config) (*Server, error) {
	return listen(ctx, c, defaultLimits())
}

func listen(ctx context.Context, c Config, lim limits) (*Server, error) {
	l, err := newLogin(c)
	if err != nil {
		return nil, err
	}
	at, err := endpointFor(c, l.redirect)
	if err != nil {
		return nil, err
	}
	pages, err := newPages()
	if err != nil {
		return nil, err
	}
	listeners, err := bind(ctx, at.addrs, at.port)
	if busy := new(PortError); errors.As(err, &busy) && c.Holder != nil && !strings.Contains(busy.Owner, "(process ") {
		if holder := c.Holder(busy.Port); holder != "" {
			busy.Owner = holder
		}
	}
	if err != nil {
		return nil, err
	}
	port := listeners[0].Addr().(*net.TCPAddr).Port

	s := &Server{
		limits:      lim,
		redirectURI: c.RedirectURI,
		pages:       pages,
		tunnelled:   c.Listen != "",
		state:       c.State,
		notices:     make(chan Notice, 16),
		hosts:       make(map[string]bool),
		listeners:   listeners,
		conns:       newConnections(lim.conns),
		log:         c.Log,
		got:         make(chan struct{}),
		ended:       make(chan struct{}),
		broken:      make(chan struct{}),
	}
	if l.redirect.port == 0 {
		s.redirectURI = l.redirect.withPort(port)
		l.redirect.port = port
	}
	s.login = l
	at.port = port
	s.at = at
	for _, h := range l.redirect.hosts() {
		s.hosts[h] = true
	}
	if c.Listen != "" {
		for _, h := range hostNames(at.scheme, at.host, port) {
			s.hosts[h] = true
		}
	}

	// HTTP/1 without keep-alive: a login needs three requests, and a connection
	// that ends with its answer can neither idle nor multiply.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:                      http.HandlerFunc(s.handle),
		Protocols:                    &protocols,
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               lim.headers,
		ReadHeaderTimeout:            lim.header,
		ConnState:                    s.conns.changed,
		ConnContext:                  withConnection,
		ErrorLog:                     log.New(tlsErrors{s.logf}, "", 0),
		// No ReadTimeout and no WriteTimeout: they would also end the request
		// that waits for Finish. answer sets both deadlines.
	}
	s.http.SetKeepAlivesEnabled(false)

	for _, ln := range listeners {
		if at.scheme == "https" {
			conf := c.TLS.Clone()
			conf.NextProtos = []string{"http/1.1"}
			ln = tls.NewListener(ln, conf)
		}
		s.serving.Go(func() { s.serve(ln) })
	}
	return s, nil
}

// RedirectURI is Config.RedirectURI, with the port that was chosen in place of
// port 0. This is what to send to the authorization server.
func (s *Server) RedirectURI() string { return s.redirectURI }

// Addrs lists the addresses the server listens on, as host:port: two for
// localhost on a machine with IPv4 and IPv6, else one.
func (s *Server) Addrs() []string {
	addrs := make([]string, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr().String()
	}
	return addrs
}

// Wait returns the first callback that carries the login's state: a code, or
// the error of the authorization server. Until Again it returns the same when it
// is called again. The browser stays without an answer until Again, Finish or
// Close.
func (s *Server) Wait(ctx context.Context) (Callback, error) {
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
		return Callback{}, ErrClosed
	case failure != nil:
		return Callback{}, fmt.Errorf("the callback server stopped listening: %w", failure)
	default:
		return Callback{}, fmt.Errorf("no answer came from the browser: %w", context.Cause(ctx))
	}
}

// Finish says what came of the login. The waiting browser is sent to the result
// page; Finish returns nil when that page has been served once or 5 s have
// passed, at once when no callback had come, and an error when ctx ended first.
// The page is served as often as it is asked for until Close.
func (s *Server) Finish(ctx context.Context, p Page) error {
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
func (s *Server) Again(p Page) error {
	_, err := s.conclude(p, false)
	return err
}

// Ask says that somebody is asked about the answer at the terminal. Its browser is
// sent to this page, which gives way to the result by itself. It does nothing where no
// answer is in.
func (s *Server) Ask(p Page) error {
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
func (s *Server) conclude(p Page, last bool) (*round, error) {
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
		return nil, errors.New("the login is finished already: its browser can be told only once")
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

// Close ends the login. A browser that still waits is told so, or what Finish
// said. When Close returns, nothing listens and no goroutine of the server runs.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.ended)
	s.mu.Unlock()

	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("closing the callback server: %w", err))
		}
	}
	s.serving.Wait()

	s.conns.closeFresh()
	cut := time.AfterFunc(s.limits.grace, func() { _ = s.http.Close() })
	s.conns.wait()
	cut.Stop()
	_ = s.http.Close()
	return errors.Join(errs...)
}

// serve answers on one listener until it is closed or fails.
func (s *Server) serve(l net.Listener) {
	err := s.http.Serve(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = err
		close(s.broken)
	}
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	path := pathOf(r.URL)
	// The redirect URI's path is the user's to choose: it goes before the
	// server's own, which nobody can guess.
	callback := path == s.login.redirect.path
	begins := !callback && s.isStart(path)
	done := s.doneAt(path)
	switch {
	case !s.hosts[strings.ToLower(r.Host)]:
		s.refuse(w, http.StatusNotFound, "it was not addressed to the redirect URI's host")
	case path == "/favicon.ico" && !callback:
		_ = s.answer(w, http.StatusNotFound, nil) // browsers ask unbidden: not worth a line
	case !callback && !begins && done == nil:
		s.refuse(w, http.StatusNotFound, "its path is not the redirect URI's")
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		s.refuse(w, http.StatusMethodNotAllowed, "only GET is answered")
	case len(r.RequestURI) > s.limits.url:
		s.refuse(w, http.StatusRequestURITooLong, "its address is too long")
	case r.ContentLength != 0:
		s.refuse(w, http.StatusBadRequest, "it has a body")
	case callback:
		s.callback(w, r)
	case begins:
		s.start(w, r, path)
	default:
		s.done(w, done)
	}
}

// done shows what came of an answer, or that the terminal asks about it.
func (s *Server) done(w http.ResponseWriter, r *round) {
	s.mu.Lock()
	page, question := r.page, r.question
	s.mu.Unlock()
	if page == nil {
		w.Header().Set("Refresh", "1") // seconds; without a script a page can't do it
		_ = s.answer(w, http.StatusOK, question)
		return
	}
	if s.answer(w, http.StatusOK, page) == nil {
		s.markServed(r)
	}
}

// callback takes an answer of the authorization server and holds the request
// until the caller has said what came of it.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	l, guarded := s.login, s.guard
	l.state = s.state
	s.mu.Unlock()
	guards := guarded != nil && guarded.cookies
	if guards && !s.fromThisUser(w, r) {
		return
	}
	cb, err := l.read(r.URL.RawQuery)
	switch {
	case errors.Is(err, errIssuer):
		s.notice(Notice{Kind: OtherIssuer})
	case err == nil && guards && !guarded.knows(r):
		s.notice(Notice{Kind: OtherBrowser})
		err = errBrowser
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	answered, status, why := s.take(cb)
	if why != "" {
		s.refuse(w, status, why)
		return
	}
	defer s.leave()

	select {
	case <-answered.finished:
	case <-answered.asked:
	case <-s.ended:
	case <-r.Context().Done():
		s.refuse(w, http.StatusRequestTimeout, "the browser went away while it waited")
		return
	}

	s.mu.Lock()
	page, closed := answered.page, s.closed
	asked := answered.question != nil
	s.mu.Unlock()
	switch {
	case page == nil && asked && !closed:
		w.Header().Set("Location", answered.path)
		_ = s.answer(w, http.StatusSeeOther, nil)
	case page == nil:
		s.refuse(w, http.StatusGone, whyEnded)
	case closed:
		// Nothing listens any more for the request that would follow a redirect.
		_ = s.answer(w, http.StatusOK, page)
	default:
		w.Header().Set("Location", answered.path)
		_ = s.answer(w, http.StatusSeeOther, nil)
	}
}

const whyEnded = "the login was ended at the terminal"

// take makes cb the login's answer if there is none, and lets it wait if it was
// one already. Otherwise it says with what words to refuse it.
func (s *Server) take(cb Callback) (answered *round, status int, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := slices.IndexFunc(s.rounds, func(r *round) bool { return r.callback == cb })
	switch {
	case s.current != nil && s.current.callback == cb:
		answered = s.current
	case known >= 0:
		answered = s.rounds[known]
	case s.current != nil:
		return nil, http.StatusConflict, "the login has another answer already"
	case s.closed:
		return nil, http.StatusGone, whyEnded
	case s.over:
		return nil, http.StatusConflict, "the login was finished without it"
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

func (s *Server) leave() {
	s.mu.Lock()
	s.waiting--
	s.mu.Unlock()
}

// doneAt returns the answer whose page is at path, nil where there is none.
func (s *Server) doneAt(path string) (found *round) {
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

func (s *Server) markServed(r *round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.seen {
		r.seen = true
		close(r.served)
	}
}

// refuse answers with an error page and changes nothing. why must be fixed words.
func (s *Server) refuse(w http.ResponseWriter, status int, why string) {
	s.refuseWith(w, status, why, refusal(status, why))
}

// refuseWith is refuse with a page of its own.
func (s *Server) refuseWith(w http.ResponseWriter, status int, why string, page Page) {
	s.logf("refused a request (" + strconv.Itoa(status) + "): " + why)
	body, err := s.pages.render("refusal", "Refused", page)
	if err != nil {
		body = nil
	}
	_ = s.answer(w, status, body)
}

// answer writes a whole answer out to the connection, or returns why it could not.
func (s *Server) answer(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", s.pages.policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))

	rc := http.NewResponseController(w)
	now := time.Now()
	// net/http reads on through a body nobody asked for; without a deadline it
	// would do so for as long as the client likes.
	if err := rc.SetReadDeadline(now.Add(s.limits.body)); err != nil {
		return err
	}
	if err := rc.SetWriteDeadline(now.Add(s.limits.write)); err != nil {
		return err
	}
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return err
	}
	return rc.Flush()
}

func (s *Server) logf(line string) {
	if s.log == nil {
		return
	}
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.log(line)
}

// tlsErrors is net/http's error log. It passes on that a TLS handshake failed,
// which is how a browser that distrusts the certificate shows, and drops the rest.
type tlsErrors struct{ logf func(string) }

func (t tlsErrors) Write(line []byte) (int, error) {
	if _, rest, ok := bytes.Cut(line, []byte("TLS handshake error from ")); ok {
		if _, why, ok := bytes.Cut(rest, []byte(": ")); ok {
			t.logf("refused a connection: TLS handshake: " + string(bytes.TrimSpace(why)))
		}
	}
	return len(line), nil
}
