package door

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/peer"
)

// digest is what is kept of a secret.
type digest [sha256.Size]byte

func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

func (d digest) is(other digest) bool { return subtle.ConstantTimeCompare(d[:], other[:]) == 1 }

// random is a secret of 256 bits and more.
func random() string { return rand.Text() + rand.Text() }

// code is an address that was given out.
type code struct {
	digest digest
	until  time.Time
	own    bool // a program of this user alone may open it
	used   bool
	made   digest // the session that its first use made
}

// session is one browser that is let in.
type session struct {
	digest digest
	uid    int // whose its connections are
	last   time.Time
	given  time.Time // when the browser got its cookie last
}

// Link makes an address that lets one browser in, once, within 10 minutes: a path behind
// the manager's address, and when it ends. Whoever reads it gets in, so it goes to a
// terminal and nowhere else.
func (d *Door) Link() (path string, until time.Time) { return d.link(false) }

// LinkForOpener is Link for a program that opens a browser: others on this machine may read
// its command line, so the address takes nobody but programs of this user, where the system
// tells. Where it does not, the address has to be kept from the command line.
func (d *Door) LinkForOpener() (path string, until time.Time) { return d.link(true) }

func (d *Door) link(own bool) (path string, until time.Time) {
	secret := random()
	until = d.options.Now().Add(codeLasts)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
	if len(d.codes) >= maxCodes {
		d.codes = slices.Delete(d.codes, 0, 1)
	}
	d.codes = append(d.codes, &code{digest: digestOf(secret), until: until, own: own})
	return "/login/" + secret, until
}

// clear forgets what is over. A code that was used is remembered as long as its session, so
// that a second use can end that. d.mu is held.
func (d *Door) clear() {
	now := d.options.Now()
	d.sessions = slices.DeleteFunc(d.sessions, func(s *session) bool { return now.Sub(s.last) >= idle })
	d.codes = slices.DeleteFunc(d.codes, func(c *code) bool {
		lives := c.used && slices.ContainsFunc(d.sessions, func(s *session) bool { return s.digest.is(c.made) })
		return !lives && !now.Before(c.until)
	})
}

// came is what became of an address that somebody opened.
type came int

const (
	unknown   came = iota
	fresh          // it let the browser in
	again          // by the browser that it let in
	stolen         // by another one: nobody is in by it now
	otherUser      // by a program that may not
)

// use opens an address.
func (d *Door) use(v visit, secret string) (cookie string, c came) {
	given := digestOf(secret)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
	var one *code
	for _, c := range d.codes {
		if c.digest.is(given) {
			one = c
		}
	}
	switch {
	case one == nil:
		return "", unknown
	case one.own && errors.As(peer.Of(v.r.Context()).Check(), new(*peer.OtherUserError)):
		return "", otherUser
	case one.used && d.known(v, one.made) != nil:
		return "", again
	case one.used:
		d.sessions = slices.DeleteFunc(d.sessions, func(s *session) bool { return s.digest.is(one.made) })
		return "", stolen
	}
	value := random()
	s := &session{digest: digestOf(value), uid: v.uid, last: d.options.Now(), given: d.options.Now()}
	one.used, one.made = true, s.digest
	if len(d.sessions) >= maxSessions {
		d.sessions = slices.Delete(d.sessions, 0, 1)
	}
	d.sessions = append(d.sessions, s)
	return value, fresh
}

// find is the session that a request comes with, nil for none.
func (d *Door) find(v visit) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
	for _, s := range d.sessions {
		if d.known(v, s.digest) != nil {
			s.last = d.options.Now()
			return s
		}
	}
	return nil
}

// known is a session if a request has its cookie, on a connection of its user. d.mu is
// held.
func (d *Door) known(v visit, of digest) *session {
	var found *session
	for _, c := range v.r.CookiesNamed(d.cookieName(v)) {
		given := digestOf(c.Value)
		for _, s := range d.sessions {
			if s.digest.is(given) && s.digest.is(of) && s.uid == v.uid {
				found = s
			}
		}
	}
	return found
}

// renew is the cookie to give the browser again, so that it keeps it while it is used.
func (d *Door) renew(s *session, v visit) (value string, due bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.options.Now()
	if now.Sub(s.given) < renewAfter {
		return "", false
	}
	for _, c := range v.r.CookiesNamed(d.cookieName(v)) {
		if digestOf(c.Value).is(s.digest) {
			s.given = now
			return c.Value, true
		}
	}
	return "", false
}

// drop ends a session.
func (d *Door) drop(gone *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions = slices.DeleteFunc(d.sessions, func(s *session) bool { return s == gone })
}
