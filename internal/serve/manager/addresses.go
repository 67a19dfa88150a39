package manager

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/session"
)

// addresses are those of new invitations on their way to the page that shows each of
// them once. They stand in no address of a page and in no file. A form that comes twice,
// by a second press or a reload, makes one invitation.
type addresses struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]*newAddress // by the handle of the page
}

// newAddress is a new invitation and its address, which is empty once it was shown.
type newAddress struct {
	at      string
	invited session.Invited
	again   bool   // it took the place of an earlier one
	from    string // who invites
	till    time.Time
	made    chan struct{} // closed once it is made
}

const (
	// shownLasts is how long an address waits for its page, and how long that page says
	// afterwards that it was shown.
	shownLasts = time.Hour
	mostShown  = 1000
)

// handleOf is the handle of the page about what a form makes for a grant.
func handleOf(token string, of grant.ID) string {
	sum := sha256.Sum256([]byte(token + "\x00" + of.Company + "\x00" + of.Application + "\x00" + of.Environment))
	return hex.EncodeToString(sum[:16])
}

// page is the path of the page about what a form makes.
func (s *addresses) page(token string, of grant.ID) string { return "/invited/" + handleOf(token, of) }

// begin is called before an invitation is made, and end with what was made, nil for
// nothing: it returns the path of its page. The result is nil, once the invitation is made,
// where the same form came before.
func (s *addresses) begin(token string, of grant.ID) (end func(*newAddress) (path string)) {
	if len(token) < minToken {
		token = formToken()
	}
	handle := handleOf(token, of)
	for {
		s.mu.Lock()
		s.sweep()
		before := s.all[handle]
		if before == nil {
			break
		}
		s.mu.Unlock()
		<-before.made
		s.mu.Lock()
		there := s.all[handle] != nil
		s.mu.Unlock()
		if there {
			return nil
		}
	}
	defer s.mu.Unlock()
	waits := &newAddress{till: s.now().Add(shownLasts), made: make(chan struct{})}
	s.all[handle] = waits
	return func(made *newAddress) string {
		s.mu.Lock()
		defer s.mu.Unlock()
		defer close(waits.made)
		if made == nil {
			delete(s.all, handle)
			return ""
		}
		made.till, made.made = s.now().Add(shownLasts), waits.made
		s.all[handle] = made
		return "/invited/" + handle
	}
}

// minToken is how long the token of a form is at least.
const minToken = 20

// look returns what a page shows, nil where nothing is known of it, and the address: for
// the first look that takes it.
func (s *addresses) look(handle string, take bool) (one *newAddress, at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	one = s.all[handle]
	if one == nil || one.invited.Key == "" {
		return nil, ""
	}
	at = one.at
	if take {
		one.at = ""
	}
	found := *one
	return &found, at
}

// sweep forgets what is old. s.mu is held.
func (s *addresses) sweep() {
	now := s.now()
	for handle, one := range s.all {
		over := !now.Before(one.till) || one.till.Sub(now) > 2*shownLasts // a clock that was put back
		if over && one.invited.Key != "" {
			delete(s.all, handle)
		}
	}
	for handle, one := range s.all {
		if len(s.all) < mostShown {
			break
		}
		if one.invited.Key != "" {
			delete(s.all, handle)
		}
	}
}
