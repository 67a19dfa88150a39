package loopback

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Shared has the listeners of a process that awaits the answers of many logins at
// once. Logins whose redirect URIs have the same port share its listener. It closes
// with the last of them. A Shared may be used by several goroutines at once.
type Shared struct {
	limits limits
	home   string
	log    func(string)

	mu     sync.Mutex
	shares map[int]*share // by port
}

// NewShared makes listeners to share. Home is where the page of a request leads that
// belongs to no login; Log is that of a [Place].
func NewShared(home string, log func(string)) *Shared {
	return newShared(home, log, defaultLimits())
}

func newShared(home string, log func(string), lim limits) *Shared {
	return &Shared{home: home, log: log, limits: lim, shares: map[int]*share{}}
}

// mostPast is how many logins that ended are remembered for each port, for whoever
// comes too late.
const mostPast = 256

// share is one port.
type share struct {
	*answerer
	port      int
	scheme    string
	listeners []*Listener // each has addresses of its own

	mu    sync.Mutex
	seats []*Seat
	past  []*Handler // of those who left, the latest last
}

// Seat is one login's part of a shared listener.
type Seat struct {
	s           *Shared
	share       *share
	redirectURI string
	redirect    redirect
	front       string // as in Listener.Front
	at          string
	left        bool
	// handler is nil until ServeLogin, and page, what whoever comes to this redirect URI is
	// told, until Tell: the port's requests may come before.
	handler atomic.Pointer[Handler]
	page    atomic.Pointer[Page]
}

// Listen takes part in the listener of a place's port, and opens one where there is
// none. A port that another program has is a *PortError. The caller must Close the
// seat.
func (s *Shared) Listen(ctx context.Context, p Place) (*Seat, error) {
	redirect, err := parseRedirect(p.RedirectURI)
	if err != nil {
		return nil, err
	}
	at, err := endpointFor(p, redirect)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.shares[at.port] // none has port 0
	if one == nil {
		answers, err := newAnswerer(s.home, s.limits, s.log)
		if err != nil {
			return nil, err
		}
		one = &share{answerer: answers, scheme: at.scheme}
	}
	if one.scheme != at.scheme {
		return nil, &PortError{Port: at.port, Addr: at.addrs[0].String(), Owner: "this process, for a redirect URI of " + one.scheme}
	}
	if err := s.extend(ctx, one, p, redirect, at); err != nil {
		return nil, err
	}
	at.port = one.port
	seat := &Seat{s: s, share: one, redirectURI: p.RedirectURI, redirect: redirect}
	if redirect.port == 0 {
		seat.redirectURI = redirect.withPort(at.port)
		if seat.redirect, err = parseRedirect(seat.redirectURI); err != nil {
			return nil, err
		}
	}
	if p.Listen != "" {
		seat.front = at.scheme + "://" + net.JoinHostPort(at.host, strconv.Itoa(at.port))
	}
	seat.at = one.addressOf(at.addrs)
	one.mu.Lock()
	one.seats = append(one.seats, seat)
	one.mu.Unlock()
	return seat, nil
}

// extend lets a share listen on the addresses of an endpoint that it lacks. s.mu is held.
func (s *Shared) extend(ctx context.Context, one *share, p Place, r redirect, at endpoint) error {
	need := at
	need.addrs = slices.DeleteFunc(slices.Clone(at.addrs), one.has)
	if len(need.addrs) == 0 {
		return nil
	}
	p.Log = s.log
	l, err := listenAt(ctx, p, r, need, s.limits)
	if err != nil {
		if isMissing(err) && len(need.addrs) < len(at.addrs) {
			return nil // a machine without IPv6
		}
		return err
	}
	one.listeners, one.port = append(one.listeners, l), l.at.port
	s.shares[one.port] = one
	l.Serve(one, one.fail)
	return nil
}

// has reports whether it listens on an address. The Shared's lock is held.
func (one *share) has(a netip.Addr) bool { return one.addressOf([]netip.Addr{a}) != "" }

// addressOf is the first of its sockets with one of some addresses, empty for none.
func (one *share) addressOf(addrs []netip.Addr) string {
	for _, l := range one.listeners {
		for _, socket := range l.listeners {
			if tcp, ok := socket.Addr().(*net.TCPAddr); ok && slices.Contains(addrs, tcp.AddrPort().Addr().Unmap()) {
				return tcp.String()
			}
		}
	}
	return ""
}

// RedirectURI is what to send to the authorization server, as Listener.RedirectURI.
func (s *Seat) RedirectURI() string { return s.redirectURI }

// Front is Config.Front of the handler that is served here.
func (s *Seat) Front() string { return s.front }

// Addr is where its answer arrives, as host:port.
func (s *Seat) Addr() string { return s.at }

// TellsUsers reports whether the system tells whose a connection is.
func (s *Seat) TellsUsers() bool {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	return !slices.ContainsFunc(s.share.listeners, func(l *Listener) bool { return !l.TellsUsers() })
}

// ServeLogin lets the handler of its login answer what belongs to that login.
func (s *Seat) ServeLogin(h *Handler) { s.handler.Store(h) }

// Tell shows a page to whoever comes to the redirect URI and belongs to no login.
func (s *Seat) Tell(p Page) { s.page.Store(&p) }

// Close gives the seat back. The port is free when the last seat's Close returns. A
// login's handler is closed before. As long as the port is listened on, the handler
// still tells whoever comes too late what became of the login.
func (s *Seat) Close() error {
	s.s.mu.Lock()
	if s.left {
		s.s.mu.Unlock()
		return nil
	}
	s.left = true
	one := s.share
	one.mu.Lock()
	one.seats = slices.DeleteFunc(one.seats, func(other *Seat) bool { return other == s })
	if h := s.handler.Load(); h != nil {
		one.past = append(one.past, h)
		one.past = one.past[max(0, len(one.past)-mostPast):]
	}
	last := len(one.seats) == 0
	one.mu.Unlock()
	if !last {
		s.s.mu.Unlock()
		return nil
	}
	delete(s.s.shares, one.port)
	var errs []error
	for _, l := range one.listeners {
		errs = append(errs, l.closeSockets())
	}
	s.s.mu.Unlock()
	for _, l := range one.listeners {
		l.finish()
	}
	return errors.Join(errs...)
}

// fail tells all logins why nothing is answered any more.
func (one *share) fail(err error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	for _, seat := range one.seats {
		if h := seat.handler.Load(); h != nil {
			h.Fail(err)
		}
	}
}

// ServeHTTP lets the login answer that a request belongs to, by its state or its path.
func (one *share) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	one.mu.Lock()
	seats, past := slices.Clone(one.seats), slices.Clone(one.past)
	one.mu.Unlock()
	for _, seat := range seats {
		if h := seat.handler.Load(); h != nil && h.Owns(r) {
			h.ServeHTTP(w, r)
			return
		}
	}
	for _, h := range slices.Backward(past) {
		if h.Owns(r) {
			h.ServeHTTP(w, r)
			return
		}
	}
	one.stray(w, r, seats)
}

// stray answers what belongs to no login, and changes nothing.
func (one *share) stray(w http.ResponseWriter, r *http.Request, seats []*Seat) {
	w.Header().Set("Connection", "close")
	host, path := strings.ToLower(r.Host), pathOf(r.URL)
	addressed, callback := false, false
	var told *Page
	for _, seat := range seats {
		if !slices.Contains(seat.hosts(), host) {
			continue
		}
		addressed = true
		here := path == seat.redirect.path
		callback = callback || here
		if here || strings.HasPrefix(path, "/start/") {
			told = cmp.Or(told, seat.page.Load())
		}
	}
	switch {
	case !addressed:
		one.refuse(w, http.StatusNotFound, "it was not addressed to the redirect URI's host")
	case told != nil && r.Method == http.MethodGet && r.ContentLength == 0:
		one.refuseWith(w, http.StatusGone, whyEnded, *told)
	case path == "/favicon.ico" && !callback:
		_ = one.answer(w, http.StatusNotFound, nil)
	case !callback:
		one.refuse(w, http.StatusNotFound, "its path is not the redirect URI's")
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		one.refuse(w, http.StatusMethodNotAllowed, "only GET is answered")
	case len(r.RequestURI) > one.limits.url:
		one.refuse(w, http.StatusRequestURITooLong, "its address is too long")
	case parseAnswer(r.URL.RawQuery).Get("state") == "":
		one.refuse(w, http.StatusBadRequest, errNoState.Error())
	default:
		one.refuse(w, http.StatusBadRequest, errState.Error())
	}
}

// hosts are what browsers send as Host that come to the seat.
func (s *Seat) hosts() []string {
	if s.front == "" {
		return s.redirect.hosts()
	}
	scheme, at, _ := strings.Cut(s.front, "://")
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return s.redirect.hosts()
	}
	number, _ := strconv.Atoi(port)
	return append(s.redirect.hosts(), hostNames(scheme, host, number)...)
}
