// Package loopback is the callback server of one login: one login, one answer,
// one page. It listens on this machine only (RFC 8252 sections 7.3 and 8.3),
// takes the first answer that carries the login's state, and keeps the browser
// waiting until the caller says what really came of it.
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
	donePath    string // unguessable, so that only the browser that brought the answer is shown its page

	http    *http.Server
	conns   *connections
	serving sync.WaitGroup

	logMu sync.Mutex
	log   func(string)

	got      chan struct{} // closed when the first good callback is in
	finished chan struct{} // closed by Finish
	served   chan struct{} // closed when the result page has been written out once
	ended    chan struct{} // closed by Close
	broken   chan struct{} // closed when a listener stopped, whatever the reason

	mu      sync.Mutex
	first   *Callback
	waiting int
	result  []byte // set once, before finished is closed
	seen    bool   // served is closed
	closed  bool   // ended is closed
	failure error  // set when broken is closed
}

// Listen opens the callback server; it answers as soon as Listen returns, so
// the browser may be sent off then. ctx bounds only the opening. A port that is
// taken is a *PortError. The caller must Close the server.
func Listen(ctx context.Context, c Config) (*Server, error) {
	return listen(ctx, c, defaultLimits())
}

func listen(ctx context.Context, c Config, lim limits) (*Server, error) {
	l, err := newLogin(c.RedirectURI, c.State)
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
		donePath:    "/done/" + rand.Text(),
		hosts:       make(map[string]bool),
		listeners:   listeners,
		conns:       newConnections(lim.conns),
		log:         c.Log,
		got:         make(chan struct{}),
		finished:    make(chan struct{}),
		served:      make(chan struct{}),
		ended:       make(chan struct{}),
		broken:      make(chan struct{}),
	}
	if l.redirect.port == 0 {
		s.redirectURI = l.redirect.withPort(port)
		l.redirect.port = port
	}
	s.login = l
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
// the error of the authorization server. It may be called again and then
// returns the same. The browser stays without an answer until Finish or Close.
func (s *Server) Wait(ctx context.Context) (Callback, error) {
	select {
	case <-s.got:
	case <-s.ended:
	case <-s.broken:
	case <-ctx.Done():
	}
	s.mu.Lock()
	first, closed, failure := s.first, s.closed, s.failure
	s.mu.Unlock()
	switch {
	case first != nil:
		return *first, nil
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
	body, err := s.pages.result(p)
	if err != nil {
		return err
	}

	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case s.result != nil:
		s.mu.Unlock()
		return errors.New("the login is finished already: its browser can be told only once")
	}
	s.result = body
	close(s.finished)
	first := s.first
	s.mu.Unlock()

	if first == nil {
		return nil
	}
	limit := time.NewTimer(s.limits.finish)
	defer limit.Stop()
	select {
	case <-s.served:
		return nil
	case <-limit.C:
		return nil
	case <-s.ended:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("the browser had not fetched its result page: %w", context.Cause(ctx))
	}
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
	done := s.isDone(path)
	switch {
	case !s.hosts[strings.ToLower(r.Host)]:
		s.refuse(w, http.StatusNotFound, "it was not addressed to the redirect URI's host")
	case path == "/favicon.ico" && path != s.login.redirect.path:
		_ = s.answer(w, http.StatusNotFound, nil) // browsers ask unbidden: not worth a line
	case !done && path != s.login.redirect.path:
		s.refuse(w, http.StatusNotFound, "its path is not the redirect URI's")
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		s.refuse(w, http.StatusMethodNotAllowed, "only GET is answered")
	case len(r.RequestURI) > s.limits.url:
		s.refuse(w, http.StatusRequestURITooLong, "its address is too long")
	case r.ContentLength != 0:
		s.refuse(w, http.StatusBadRequest, "it has a body")
	case done:
		if s.answer(w, http.StatusOK, s.result) == nil {
			s.markServed()
		}
	default:
		s.callback(w, r)
	}
}

// callback takes an answer of the authorization server and holds the request
// until the caller has said what came of it.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) {
	cb, err := s.login.read(r.URL.RawQuery)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if status, why := s.take(cb); why != "" {
		s.refuse(w, status, why)
		return
	}
	defer s.leave()

	select {
	case <-s.finished:
	case <-s.ended:
	case <-r.Context().Done():
		s.refuse(w, http.StatusRequestTimeout, "the browser went away while it waited")
		return
	}

	s.mu.Lock()
	result, closed := s.result, s.closed
	s.mu.Unlock()
	switch {
	case result == nil:
		s.refuse(w, http.StatusGone, whyEnded)
	case closed:
		// Nothing listens any more for the request that would follow a redirect.
		_ = s.answer(w, http.StatusOK, result)
	default:
		w.Header().Set("Location", s.donePath)
		_ = s.answer(w, http.StatusSeeOther, nil)
	}
}

const whyEnded = "the login was ended at the terminal"

// take makes cb the login's answer if it is the first, and lets it wait if it
// is that answer once more. Otherwise it says with what words to refuse it.
func (s *Server) take(cb Callback) (status int, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.first == nil && s.closed:
		return http.StatusGone, whyEnded
	case s.first == nil && s.result != nil:
		return http.StatusConflict, "the login was finished without it"
	case s.first == nil:
		s.first = &cb
		close(s.got)
	case *s.first != cb:
		return http.StatusConflict, "the login has another answer already"
	case s.waiting >= s.limits.waiting:
		return http.StatusServiceUnavailable, "too many requests wait for the result already"
	}
	s.waiting++
	return 0, ""
}

func (s *Server) leave() {
	s.mu.Lock()
	s.waiting--
	s.mu.Unlock()
}

// isDone reports whether path is the result page's and there is a result.
func (s *Server) isDone(path string) bool {
	select {
	case <-s.finished:
		return subtle.ConstantTimeCompare([]byte(path), []byte(s.donePath)) == 1
	default:
		return false
	}
}

func (s *Server) markServed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.seen {
		s.seen = true
		close(s.served)
	}
}

// refuse answers with an error page and changes nothing. why must be fixed words.
func (s *Server) refuse(w http.ResponseWriter, status int, why string) {
	s.logf("refused a request (" + strconv.Itoa(status) + "): " + why)
	body, err := s.pages.refusal(status, why)
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
