package loopback

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net/http"
	"time"

	"github.com/upsauth/upsauth/internal/peer"
)

// Guard says how a login is kept to the browser of the person who began it.
type Guard struct {
	// Address is where a browser signs in with a state.
	Address func(state string) string
	// Lasts is how long the login may take. Browsers keep its cookie for no longer.
	Lasts time.Duration
	// User is the number of a user of this machine whose programs take part as this
	// user's do: whoever began the login on a page. Zero is root, who does in any case.
	User int
}

// Notice is something about a login that the person at the terminal should know.
type Notice struct {
	Kind NoticeKind
	// Address is the login's new start address, for Voided.
	Address string
	// User is the name or the number of the user, for OtherUser.
	User string
}

// NoticeKind is what a Notice is about.
type NoticeKind int

const (
	// Voided: two browsers opened the start address, so the state that both know
	// counts no more.
	Voided NoticeKind = iota
	// OtherUser: a program of another user of this machine was refused.
	OtherUser
	// OtherBrowser: an answer with the login's state was refused, as it came from
	// a browser that had not opened the start address.
	OtherBrowser
	// OtherIssuer: an answer with the login's state was refused, as its issuer is
	// not the environment's.
	OtherIssuer
)

// guard is a Guard at work. What is in it is never changed: a voided state gets
// another guard.
type guard struct {
	Guard
	cookies bool   // an answer needs the cookie
	path    string // of the start address: unguessable
	name    string // of the cookie: cookies of localhost are shared by all ports
	value   string
	given   bool
	before  *guard   // whose start address is void
	voided  []string // the state that this one took the place of
}

// Guard keeps the login to one browser, and returns the address of this machine
// that the browser has to open. It gives the browser a cookie and sends it on to
// the authorization server; an answer without the cookie is refused then, and so
// is a program of another user of this machine, where the system tells whose a
// connection is. Unlike the address that the authorization server is asked at,
// the start address may be read by other users: the first browser that opens it
// has it, and a second one voids it.
//
// A redirect URI that something else brings here can't be asked for a cookie: the
// browser may know this server by another host. The start address then only keeps
// the state out of sight.
func (s *Handler) Guard(g Guard) (start string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard = newGuard(g, !s.tunnelled, nil)
	return s.startAddress()
}

func newGuard(g Guard, cookies bool, before *guard) *guard {
	return &guard{
		Guard: g, cookies: cookies, before: before,
		path: "/start/" + rand.Text(), name: "upsauth-" + rand.Text()[:8], value: rand.Text(),
	}
}

// startAddress is on the redirect URI's exact host, as localhost and 127.0.0.1
// share no cookies. s.mu is held.
func (s *Handler) startAddress() string { return s.front.String() + s.guard.path }

// Notices are what the person at the terminal should know. Nobody has to read them.
func (s *Handler) Notices() <-chan Notice { return s.notices }

func (s *Handler) notice(n Notice) {
	select {
	case s.notices <- n:
	default: // somebody knocks faster than anybody reads
	}
}

// knows reports whether a request comes from the browser that has the cookie.
func (g *guard) knows(r *http.Request) bool {
	known := false
	for _, c := range r.CookiesNamed(g.name) {
		known = known || subtle.ConstantTimeCompare([]byte(c.Value), []byte(g.value)) == 1
	}
	return known
}

// isStart reports whether path is that of the start address, or of a void one.
func (s *Handler) isStart(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := s.guard; g != nil; g = g.before {
		if subtle.ConstantTimeCompare([]byte(path), []byte(g.path)) == 1 {
			return true
		}
	}
	return false
}

// start sends a browser on to the authorization server.
func (s *Handler) start(w http.ResponseWriter, r *http.Request, path string) {
	s.mu.Lock()
	also := s.guard.User
	s.mu.Unlock()
	if !s.fromThisUser(w, r, also) {
		return
	}
	s.mu.Lock()
	g := s.guard
	switch {
	case s.over || s.current != nil:
		s.mu.Unlock()
		s.refuse(w, http.StatusConflict, "the sign-in already has its answer")
		return
	case s.closed:
		s.mu.Unlock()
		s.refuseEnded(w)
		return
	case path != g.path:
		s.mu.Unlock()
		s.refuseWith(w, http.StatusGone, "its address is void", s.pages.void())
		return
	case g.given && !g.knows(r):
		s.void()
		n := Notice{Kind: Voided, Address: s.startAddress()}
		s.mu.Unlock()
		s.notice(n)
		s.refuseWith(w, http.StatusConflict, "another browser had opened the address before", s.pages.void())
		return
	}
	given := *g
	given.given = true
	s.guard = &given
	state := s.state
	s.mu.Unlock()

	http.SetCookie(w, &http.Cookie{ //nolint:gosec // a redirect URI on loopback may be http
		Name: given.name, Value: given.value, Path: "/", MaxAge: max(1, int(given.Lasts/time.Second)),
		Secure: s.front.Scheme == "https", HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	w.Header().Set("Location", given.Address(state))
	_ = s.answer(w, http.StatusFound, nil)
}

// void gives the login another state, start address and cookie. s.mu is held.
func (s *Handler) void() {
	old := s.state
	s.state = rand.Text()
	s.guard = newGuard(s.guard.Guard, s.guard.cookies, s.guard)
	s.guard.voided = []string{old}
}

// fromThisUser refuses a request that a program of another ordinary user of this
// machine sent, where the system tells. Also is a user who may.
func (s *Handler) fromThisUser(w http.ResponseWriter, r *http.Request, also int) bool {
	err := peer.Of(r.Context()).Check()
	if err == nil {
		return true
	}
	var other *peer.OtherUserError
	if errors.As(err, &other) {
		if other.UID == also {
			return true
		}
		s.notice(Notice{Kind: OtherUser, User: other.User})
	}
	s.refuse(w, http.StatusForbidden, "it comes from a program of another user than the one who began this sign-in")
	return false
}
