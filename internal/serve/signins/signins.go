// Package signins has the sign-ins at ups.com that begin on a page of the company
// manager: many at once, in a process that runs for long. A sign-in has a room here
// until a while after its end, so that its page can be loaded again. This package has no
// page of its own but those of the callback.
package signins

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
)

const (
	usualTimeout = 10 * time.Minute
	usualMost    = 100
	// remembered is how long a sign-in is known after its end, and mostPast how many are.
	remembered = time.Hour
	mostPast   = 1000
)

// Options say how sign-ins begin.
type Options struct {
	// Session returns the session of the configuration as it is now. Nobody closes it.
	Session func(context.Context) (*session.Session, error)
	// Home is the address of the company manager, for the page of a callback that
	// belongs to no sign-in.
	Home string
	// Timeout is how long a sign-in is awaited, and how long an answer about who signed
	// in. Zero is ten minutes.
	Timeout time.Duration
	// Most is how many there may be at once; zero is 100.
	Most int
	Now  func() time.Time
	// Log, where set, is told what only a search for a fault needs, in lines without
	// secrets, by any goroutine.
	Log func(format string, args ...any)
}

// SignIns are those of one service. It may be used by several goroutines at once.
type SignIns struct {
	o      Options
	shared *loopback.Shared
	ports  *ports

	mu      sync.Mutex
	stopped bool
	stop    chan struct{}            // closed with stopped
	active  map[grant.Folded]*SignIn // by company, which has one turn
	all     map[string]*SignIn       // by handle
	past    []*SignIn                // those that have ended, the latest last
	running sync.WaitGroup           // what Close waits for
}

// New makes the room for sign-ins. The caller closes it.
func New(o Options) *SignIns {
	if o.Timeout == 0 {
		o.Timeout = usualTimeout
	}
	if o.Most == 0 {
		o.Most = usualMost
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return &SignIns{
		o: o, ports: &ports{held: map[int]*held{}}, stop: make(chan struct{}),
		shared: loopback.NewShared(o.Home, func(line string) { o.Log("callback: %s", line) }),
		active: map[grant.Folded]*SignIn{}, all: map[string]*SignIn{},
	}
}

// Request is what a person asks for who presses Authorize or Authenticate.
type Request struct {
	// ID names the grant. Application and environment may be empty where only one fits.
	grant.ID
	// Page is the address of the sign-in's page, as the person's browser reaches it. Nil
	// leads to the company manager.
	Page func(handle string) string
	// Elsewhere says that the browser is certainly on another machine, or that the
	// person pastes the address: UPS is opened directly, no cookie is asked for, and a
	// port that is taken does not matter.
	Elsewhere bool
	// User is the number of the user of this machine whose browser asks, as the connection
	// tells; a service often runs as a user of its own. Zero or less: nobody in particular.
	User int
	// ExpectUser, where set, is the only ups.com user whose sign-in is kept.
	ExpectUser string
	// Another says that a person knows the company to be new, although its name is near
	// a known one.
	Another bool
}

// NearError says that the company is new and that its name is near a known one: a
// person says first whether it is another company.
type NearError struct{ Near session.NearName }

func (e *NearError) Error() string { return e.Near.Sentence() }

// CompanyBusyError says that somebody signs in for the company already, for another
// application.
type CompanyBusyError struct {
	ID     grant.ID // of that sign-in
	Handle string
	Until  time.Time
}

func (e *CompanyBusyError) Error() string {
	return fmt.Sprintf("another sign-in for %s is under way, for %s in %s; it ends at %s at the latest",
		e.ID.Company, e.ID.Application, e.ID.Environment, e.Until.UTC().Format("15:04:05 MST"))
}

// FullError says that there are as many sign-ins as there may be.
type FullError struct{ Most int }

func (e *FullError) Error() string {
	return fmt.Sprintf("%d sign-ins are under way, and no more can begin now", e.Most)
}

// What ends a sign-in without a result.
var (
	ErrStopped    = errors.New("the service ended before the sign-in did; nothing was changed")
	ErrSuperseded = errors.New("a newer sign-in for the same authorization took the place of this one; this one changed nothing")
	ErrEnded      = errors.New("the sign-in was ended in the company manager; nothing was changed")
	ErrRefused    = errors.New("the authorization was not kept, because the wrong user signed in; nothing was changed")
	ErrUnanswered = errors.New("nobody said in time whether the right user signed in; nothing was changed")
)

// Begin begins a sign-in: it takes the company's turn, listens where the answer arrives,
// announces the new grant, and asks UPS whether it knows the application. An earlier
// sign-in for the same grant is superseded. Ctx is that of the request.
func (s *SignIns) Begin(ctx context.Context, r Request) (*SignIn, error) {
	name, err := grant.CleanCompany(r.Company)
	if err != nil {
		return nil, err
	}
	sess, err := s.o.Session(ctx)
	if err != nil {
		return nil, err
	}
	authorizing, err := sess.Authorizing(ctx, session.Target{Application: r.Application, Environment: r.Environment})
	if err != nil {
		return nil, err
	}
	if r.ID, err = authorizing.ID(ctx, name); err != nil {
		return nil, err
	}
	if !r.Another {
		near, err := sess.Near(ctx, []string{r.Company}, "")
		if err != nil {
			return nil, err
		}
		if len(near) > 0 {
			return nil, &NearError{near[0]}
		}
	}
	// An application has one redirect URI. One that a browser elsewhere reaches would be
	// chosen here, for the callback and for the client.
	callback, err := signin.CallbackFor(sess.Places, authorizing.Registration.RedirectURI, sess.Config.Callback)
	if err != nil {
		return nil, err
	}
	if err := authorizing.Ready(ctx); err != nil {
		return nil, err
	}
	shared, err := sess.SharedRedirectWarning(ctx, authorizing.Registration)
	if err != nil {
		return nil, err
	}
	if r.Page == nil {
		r.Page = func(string) string { return s.o.Home }
	}
	one := newSignIn(s, r, sess, authorizing, callback)
	for _, warning := range []string{shared, callback.Doubt(s.o.Now())} {
		if warning != "" {
			one.warn(legible.Sentence(warning))
		}
	}
	if err := s.enter(ctx, one); err != nil {
		close(one.begun)
		return nil, err
	}
	if err := one.begin(ctx); err != nil {
		return nil, err
	}
	return one, nil
}

// enter gives a sign-in its company's place, which an earlier one for the same grant
// leaves.
func (s *SignIns) enter(ctx context.Context, one *SignIn) error {
	key := grant.Fold(one.id.Company)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped {
			return ErrStopped
		}
		earlier := s.active[key]
		if earlier == nil {
			break
		}
		if earlier.id != one.id {
			return &CompanyBusyError{ID: earlier.id, Handle: earlier.handle, Until: earlier.View().Until}
		}
		earlier.heir = one
		earlier.cancel(ErrSuperseded)
		s.mu.Unlock()
		select {
		case <-earlier.gone:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if len(s.active) >= s.o.Most {
		return &FullError{s.o.Most}
	}
	s.active[key], s.all[one.handle] = one, one
	s.running.Add(1)
	return nil
}

// leave gives the company's place to whoever comes next, and returns who superseded it,
// nil for nobody. The sign-in itself is known for a while, unless it never began.
func (s *SignIns) leave(one *SignIn, began bool) (heir *SignIn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, grant.Fold(one.id.Company))
	close(one.gone)
	if !began {
		delete(s.all, one.handle)
		return one.heir
	}
	s.past = append(s.past, one)
	s.forget()
	return one.heir
}

// forget drops those that ended long ago. s.mu is held.
func (s *SignIns) forget() {
	now := s.o.Now()
	old := slices.IndexFunc(s.past, func(one *SignIn) bool { return now.Sub(one.View().Ended) < remembered })
	if old < 0 {
		old = len(s.past)
	}
	old = max(old, len(s.past)-mostPast)
	for _, one := range s.past[:old] {
		delete(s.all, one.handle)
	}
	s.past = slices.Delete(s.past, 0, old)
}

// Get returns the sign-in of a handle, also for a while after its end; nil where none is
// known.
func (s *SignIns) Get(handle string) *SignIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	return s.all[handle]
}

// Of returns the sign-in that is under way for a grant, nil where there is none.
func (s *SignIns) Of(id grant.ID) *SignIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.active[grant.Fold(id.Company)]
	if one == nil || one.id.Application != id.Application || one.id.Environment != id.Environment {
		return nil
	}
	return one
}

// Active returns the sign-ins that are under way, in no order.
func (s *SignIns) Active() []*SignIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	active := make([]*SignIn, 0, len(s.active))
	for _, one := range s.active {
		active = append(active, one)
	}
	return active
}

// Close ends all sign-ins. What is under way at UPS is finished and saved; where a
// question about who signed in has no answer yet, the vault's rules decide. An error
// says that ctx ended before that.
func (s *SignIns) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		close(s.stop)
	}
	for _, one := range s.active {
		one.cancel(ErrStopped)
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a sign-in is still under way: %w", context.Cause(ctx))
	}
}

// newHandle is a name that nobody guesses, 170 bits in letters and digits.
func newHandle() string { return rand.Text() + rand.Text()[:8] }

// isSaved reports whether a grant is in its place although there is an error.
func isSaved(err error) bool { return errors.As(err, new(*keeper.SavedError)) }
