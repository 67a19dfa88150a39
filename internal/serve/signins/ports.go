package signins

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
)

// ports says to other processes, and to the next one, for which companies this one
// listens on its ports.
type ports struct {
	mu   sync.Mutex
	held map[int]*held
}

// held is one port.
type held struct {
	change  func(grant.PortUse)
	release func(leave bool)
	uses    []*use
	open    int // those of them that are still awaited
}

// use is what a port is used for.
type use struct {
	company     string
	until       time.Time
	redirectURI string
}

// join adds a use of a port. Extend says that it ends later. Leave takes it back; one
// that was interrupted stays written down for the next process.
func (p *ports) join(disk signin.Ports, port int, u use) (extend func(time.Time), leave func(interrupted bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[port]
	if h == nil {
		h = &held{}
		h.change, h.release = disk.HoldPort(port, said([]*use{&u}))
		p.held[port] = h
	}
	h.uses, h.open = append(h.uses, &u), h.open+1
	h.change(said(h.uses))
	extend = func(until time.Time) {
		p.mu.Lock()
		defer p.mu.Unlock()
		u.until = until
		h.change(said(h.uses))
	}
	return extend, func(interrupted bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		h.open--
		if !interrupted {
			h.uses = slices.DeleteFunc(h.uses, func(other *use) bool { return other == &u })
		}
		if h.open > 0 {
			h.change(said(h.uses))
			return
		}
		if len(h.uses) > 0 {
			h.change(said(h.uses))
		}
		h.release(len(h.uses) > 0)
		delete(p.held, port)
	}
}

// said is what is written down about a port's uses.
func said(uses []*use) grant.PortUse {
	said := grant.PortUse{Service: true, Others: len(uses) - 1}
	for _, u := range uses {
		if u.until.After(said.Until) || said.Company == "" {
			said.Company, said.Until = u.company, u.until
		}
		if !slices.Contains(said.RedirectURIs, u.redirectURI) {
			said.RedirectURIs = append(said.RedirectURIs, u.redirectURI)
		}
	}
	return said
}

// Recover tells the people whose sign-ins an earlier process left in the midst what to
// do: until the end of these sign-ins, their callbacks get a page. Nothing is exchanged,
// because what was remembered went with that process. A port that is taken, or that
// another sign-in needs meanwhile, is not fought for.
func (s *SignIns) Recover(ctx context.Context) error {
	sess, err := s.o.Session(ctx)
	if err != nil {
		return err
	}
	now := s.o.Now()
	for _, left := range sess.Disk.LeftPorts() {
		if !left.Service || !left.Until.After(now) {
			continue
		}
		lasts := min(left.Until.Sub(now), s.o.Timeout)
		for _, uri := range left.RedirectURIs {
			if err := s.tell(ctx, sess, left.Company, uri, lasts); err != nil {
				s.o.Log("whoever comes back to %s can't be told that the service began anew: %v", uri, err)
			}
		}
	}
	return nil
}

// tell shows whoever comes to a redirect URI that the service began anew.
func (s *SignIns) tell(ctx context.Context, sess *session.Session, company, redirectURI string, lasts time.Duration) error {
	callback, err := signin.CallbackFor(sess.Places, redirectURI, sess.Config.Callback)
	if err != nil || !callback.LeadsHere() {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	taken, err := s.shared.Listen(ctx, loopback.Place{
		RedirectURI: redirectURI, Listen: callback.Listen, TLS: callback.TLS, Holder: signin.Holder(sess.Disk),
	})
	if err != nil {
		return err
	}
	taken.Tell(loopback.Page{
		Title: "The sign-in was interrupted", Heading: "The sign-in was interrupted",
		Text: []string{"The upsauth service was restarted while you were at ups.com, and could not wait for this answer."},
		Next: "Go back to the company manager. If it does not show the company as authorized, begin again there.",
	})
	_, leave := s.ports.join(sess.Disk, portOf("http://"+taken.Addr()), use{company, s.o.Now().Add(lasts), redirectURI})
	s.running.Go(func() {
		end := time.NewTimer(lasts)
		defer end.Stop()
		interrupted := false
		select {
		case <-end.C:
		case <-s.stop:
			interrupted = true
		}
		if err := taken.Close(); err != nil {
			s.o.Log("%v", err)
		}
		leave(interrupted)
	})
	return nil
}
