package signins

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/signin/pages"
)

// State is how far a sign-in is.
type State string

const (
	// Waiting: for the person at ups.com. Last says why the last try came to nothing.
	Waiting State = "waiting"
	// Exchanging: UPS answered, and its code is exchanged for tokens.
	Exchanging State = "exchanging"
	// Asking: somebody signed in, and a person has to say whether that is the right
	// user. Nothing is in place yet.
	Asking State = "asking"
	// Done: the new grant is in place.
	Done State = "done"
	// Failed: Err says why.
	Failed State = "failed"
	// Refused: a person said that the wrong user signed in, or nobody said anything.
	Refused State = "refused"
	// TimedOut: nobody signed in before the end.
	TimedOut State = "timed-out"
	// Superseded: a newer sign-in for the same grant began.
	Superseded State = "superseded"
	// Ended: a person ended it, or the service did.
	Ended State = "ended"
)

// Over reports whether nothing more happens to the sign-in.
func (s State) Over() bool { return s != Waiting && s != Exchanging && s != Asking }

// View is a sign-in as it is at a moment. There is no secret in it but the addresses,
// which are for the person who signs in alone.
type View struct {
	Handle string
	ID     grant.ID
	State  State
	// Address is where the person goes on: the callback server's, which gives the
	// browser its cookie and sends it to UPS, or where that can't be, UPS's own. AtUPS is
	// UPS's own in any case, for a browser on another machine whose answer is pasted.
	// Both are empty once the sign-in is no longer awaited.
	Address, AtUPS string
	// RedirectURI is where UPS sends the browser, ListensAt where that arrives on this
	// machine, host and port; empty where it does not, and the address is pasted. Port is
	// that of the redirect URI, which a browser on another machine needs forwarded to
	// ListensAt. Machine is the name of this one.
	RedirectURI, ListensAt string
	Port                   int
	Machine                string
	// Until is when the sign-in ends at the latest, and with Asking, when the answer has
	// to be there. Ended is when it did, zero before.
	Until, Ended time.Time
	// Last is why the last try came to nothing, nil where there was none.
	Last error
	// Warnings are sentences about others who took part.
	Warnings []string
	// User is who signed in, empty before, or where UPS does not say. Doubts are the
	// reasons to think that it is the wrong person, as sentences.
	User   string
	Doubts []string
	// Record is the new grant's, for Done. SecretUntried says that the client secret has
	// not been used yet.
	Record        grant.Record
	SecretUntried bool
	// Err is why it came to nothing, and for Done, what could not be done afterwards.
	Err error
}

// SignIn is a sign-in that began on a page. It may be used by several goroutines at once.
type SignIn struct {
	all         *SignIns
	request     Request
	handle      string
	id          grant.ID
	s           *session.Session
	authorizing *session.Authorizing
	callback    signin.Callback

	cancel context.CancelCauseFunc
	ctx    context.Context
	gone   chan struct{} // closed once the company's turn is free
	begun  chan struct{} // closed once it has begun, or failed to
	heir   *SignIn       // which superseded it; all.mu is held to set it, and gone follows

	extend  func(time.Time) // of what is said about the port, nil where none is listened on
	pastes  chan paste
	answers chan bool

	mu      sync.Mutex
	view    View
	tries   int           // that ended, one way or the other
	changed chan struct{} // closed and replaced with each change of the view
	asked   bool          // an answer is given
}

type paste struct {
	address string
	read    chan error
}

func newSignIn(all *SignIns, r Request, s *session.Session, a *session.Authorizing, callback signin.Callback) *SignIn {
	one := &SignIn{
		all: all, request: r, handle: newHandle(), id: r.ID, s: s, authorizing: a, callback: callback,
		gone: make(chan struct{}), begun: make(chan struct{}), pastes: make(chan paste), answers: make(chan bool, 1), changed: make(chan struct{}),
	}
	machine, _ := os.Hostname()
	one.view = View{
		Handle: one.handle, ID: r.ID, State: Waiting, Machine: machine, Until: all.o.Now().Add(all.o.Timeout),
		RedirectURI: callback.RedirectURI, Port: portOf(callback.RedirectURI),
	}
	one.ctx, one.cancel = context.WithCancelCause(context.Background())
	return one
}

// Handle is the sign-in's name in the address of its page.
func (one *SignIn) Handle() string { return one.handle }

// ID names the grant that the sign-in is for.
func (one *SignIn) ID() grant.ID { return one.id }

// View returns the sign-in as it is now.
func (one *SignIn) View() View {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.view
}

// change changes the view. What is in its slices is never changed.
func (one *SignIn) change(f func(*View)) {
	one.mu.Lock()
	defer one.mu.Unlock()
	f(&one.view)
	close(one.changed)
	one.changed = make(chan struct{})
}

// begin begins the sign-in within a request, and lets it go on by itself.
func (one *SignIn) begin(request context.Context) error {
	// The sign-in outlives the request and keeps what the request says of who asked.
	values := context.WithoutCancel(request)
	ctx, cancel := context.WithCancelCause(values)
	context.AfterFunc(one.ctx, func() { cancel(context.Cause(one.ctx)) })
	beginning, begun := context.WithCancelCause(ctx)
	stop := context.AfterFunc(request, func() { begun(context.Cause(request)) })
	login, err := signin.Begin(beginning, one.s.Keeper, keeper.Request{
		ID: one.id, Home: one.s.Config.Vault, Client: one.authorizing.Client(), ExpectUser: one.request.ExpectUser,
		Asks: one.request.ExpectUser == "", Lasts: one.all.o.Timeout,
	}, one.options(ctx))
	stop()
	close(one.begun)
	if cause := context.Cause(one.ctx); err != nil && cause != nil {
		err = cause
	}
	begun(nil)
	if err != nil {
		one.cancel(nil)
		one.all.leave(one, false)
		one.all.running.Done()
		return err
	}
	go func() {
		defer one.all.running.Done()
		defer one.cancel(nil)
		one.run(ctx, login)
	}()
	// Whoever asked gets an address to go on with.
	return one.wait(request, func(v View) bool { return v.Address != "" || v.State.Over() })
}

func (one *SignIn) options(ctx context.Context) signin.Options {
	return signin.Options{
		Callback: one.callback, Listen: one.listen, Home: one.request.Page(one.handle), Timeout: one.all.o.Timeout,
		User: max(one.request.User, 0), Paste: one.takePaste, Guarded: !one.request.Elsewhere,
		Page: func(awaited *keeper.AwaitedError) loopback.Page {
			return pages.Awaited(one.id, awaited, false, one.request.ExpectUser)
		},
		Step: func(step signin.Step) { one.step(ctx, step) },
		Log:  func(line string) { one.all.o.Log("sign-in for %s: %s", one.id, line) },
	}
}

// listen takes a seat at the listener of the redirect URI's port, and says so to other
// processes.
func (one *SignIn) listen(ctx context.Context, p loopback.Place) (signin.Listener, error) {
	p.Holder = signin.Holder(one.s.Disk)
	taken, err := one.all.shared.Listen(ctx, p)
	if err != nil {
		return nil, err
	}
	extend, leave := one.all.ports.join(one.s.Disk, portOf("http://"+taken.Addr()), use{one.id.Company, one.View().Until, p.RedirectURI})
	one.extend = extend
	// Only who was still at ups.com when the service ended comes back to the next one.
	return &seat{Seat: taken, leave: func() { leave(errors.Is(one.View().Err, ErrStopped)) }}, nil
}

// seat is a seat at a listener whose port other processes know of.
type seat struct {
	*loopback.Seat
	leave func()
}

func (s *seat) Close() error {
	err := s.Seat.Close()
	s.leave()
	return err
}

func (one *SignIn) step(ctx context.Context, step signin.Step) {
	switch step.Kind {
	case signin.Uncaught:
		one.warn(fmt.Sprintf("The answer can't be caught on this machine, so paste the address of the browser's last page: %v.", step.Err))
	case signin.Listening:
		one.change(func(v *View) { v.RedirectURI, v.Port, v.ListensAt = step.Address, portOf(step.Address), step.At })
	case signin.Opening:
		one.change(func(v *View) {
			v.Address, v.AtUPS, v.Until = step.Address, step.AtUPS, one.all.o.Now().Add(one.all.o.Timeout)
		})
	case signin.Exchanging:
		one.change(func(v *View) { v.State = Exchanging })
	case signin.Learned:
		if err := one.authorizing.Learn(ctx, step.NeedsBasic); err != nil {
			one.all.o.Log("%v", err)
		}
	case signin.Awaited:
		one.mu.Lock()
		one.tries++
		one.mu.Unlock()
		one.change(func(v *View) { v.State, v.Last = Waiting, step.Err })
	case signin.Noticed:
		one.notice(step)
	}
}

// notice says what a person should know about others who took part.
func (one *SignIn) notice(step signin.Step) {
	switch n := step.Notice; n.Kind {
	case loopback.Voided:
		one.change(func(v *View) { v.Address, v.AtUPS = n.Address, step.AtUPS })
		one.warn("Two browsers opened the address of this sign-in, so neither can finish it. " +
			"If you did not open the address twice, somebody else on this machine may have done so. The sign-in has a new address.")
	case loopback.OtherUser:
		one.warn(fmt.Sprintf("A program of the user %s on this machine tried to take part in this sign-in and was refused. "+
			"If that is your browser, paste the address of its last page.", n.User))
	case loopback.OtherBrowser:
		one.warn("UPS's answer came from a browser that did not open the address of this sign-in, or that keeps no cookies. " +
			"The answer was refused, and the sign-in still waits. If that is your browser, paste the address of its last page.")
	case loopback.OtherIssuer:
		one.warn("An answer was refused, because its issuer is not the one of the environment. The sign-in still waits. " +
			"The answer may be from the sign-in page of another environment.")
	}
}

// warn adds a warning, once: a program may try a thousand times.
func (one *SignIn) warn(text string) {
	one.change(func(v *View) {
		for _, said := range v.Warnings {
			if said == text {
				return
			}
		}
		v.Warnings = append(v.Warnings[:len(v.Warnings):len(v.Warnings)], text)
	})
}

// run waits for the person, and concludes.
func (one *SignIn) run(ctx context.Context, login *signin.SignIn) {
	outcome, err := login.Await(ctx)
	var g grant.Grant
	if err == nil {
		g, err = one.conclude(ctx, login, outcome)
	} else if cause := context.Cause(one.ctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, cause)) {
		err = cause
	}
	whole := context.WithoutCancel(ctx)
	state := stateOf(err)
	if state == Done && isSaved(err) {
		err = nil // the service ended, and that changes nothing about the grant
	}
	page := one.lastPage(g, state, err)
	untried := state == Done && one.authorizing.SecretUntried(whole)
	login.GiveBack(whole)
	one.mu.Lock()
	one.tries++
	one.mu.Unlock()
	one.change(func(v *View) {
		v.State, v.Err, v.Record, v.SecretUntried = state, err, g.Record, untried
		v.Ended, v.Address, v.AtUPS = one.all.o.Now(), "", ""
		if outcome.SignedIn {
			v.User = outcome.User
		}
	})
	heir := one.all.leave(one, true)
	login.Show(whole, page)
	login.EndWith(page)
	if heir != nil {
		// So that the listener stays, and the browser of this one is told what happened.
		<-heir.begun
	}
	login.Close(whole)
	// It is known for a while yet, and the client secret need not be.
	one.s, one.authorizing = nil, nil
}

// conclude keeps what somebody signed in for, or asks first.
func (one *SignIn) conclude(ctx context.Context, login *signin.SignIn, outcome keeper.Outcome) (grant.Grant, error) {
	var doubts []string
	if one.request.ExpectUser == "" {
		// As things are now: others may have signed in meanwhile.
		doubts = one.s.People(context.WithoutCancel(ctx), one.id).Doubts(outcome.User)
	}
	page := pages.Asked(one.id.Company, outcome.User, false)
	return login.Conclude(ctx, doubts, page, func(context.Context) error {
		until := one.all.o.Now().Add(one.all.o.Timeout)
		one.change(func(v *View) { v.State, v.User, v.Doubts, v.Until = Asking, outcome.User, doubts, until })
		if one.extend != nil {
			one.extend(until)
		}
		limit := time.NewTimer(one.all.o.Timeout)
		defer limit.Stop()
		select {
		case yes := <-one.answers:
			if yes {
				return nil
			}
			return ErrRefused
		case <-limit.C:
			return ErrUnanswered
		case <-one.ctx.Done():
			cause := context.Cause(one.ctx)
			if errors.Is(cause, ErrStopped) {
				return signin.ErrCutOff
			}
			return cause
		}
	})
}

func stateOf(err error) State {
	switch {
	case err == nil, isSaved(err):
		return Done
	case errors.Is(err, ErrSuperseded):
		return Superseded
	case errors.Is(err, ErrEnded), errors.Is(err, ErrStopped), errors.Is(err, signin.ErrCutOff):
		return Ended
	case errors.Is(err, ErrRefused), errors.Is(err, ErrUnanswered):
		return Refused
	case errors.As(err, new(*signin.NobodyError)):
		return TimedOut
	}
	return Failed
}

// lastPage is what the browser is shown that comes back from UPS, at once or too late.
func (one *SignIn) lastPage(g grant.Grant, state State, err error) loopback.Page {
	page := pages.Done(one.id, g, err, one.View().User, one.request.ExpectUser)
	switch state {
	case Superseded:
		page.Heading, page.Title = "A newer sign-in took the place of this one", "A newer sign-in began"
		page.Next = "Go back to the company manager, and finish the newer sign-in there."
	case TimedOut, Ended:
		page.Next = "Go back to the company manager, and begin again there."
	}
	return page
}

// takePaste hands pasted addresses to the sign-in until one is its answer.
func (one *SignIn) takePaste(ctx context.Context, read signin.Reader) (grant.Callback, error) {
	for {
		select {
		case p := <-one.pastes:
			callback, err := read(p.address)
			p.read <- err
			if err == nil {
				return callback, nil
			}
		case <-ctx.Done():
			return grant.Callback{}, ctx.Err()
		}
	}
}

// NotAwaitedError says that a sign-in does not wait for what it was given.
type NotAwaitedError struct {
	ID    grant.ID
	State State
}

func (e *NotAwaitedError) Error() string {
	switch e.State {
	case Waiting:
		return fmt.Sprintf("nobody has signed in for %s yet, so there is nothing to answer", e.ID)
	case Exchanging, Asking:
		return fmt.Sprintf("the sign-in for %s already has its answer from UPS", e.ID)
	}
	return fmt.Sprintf("the sign-in for %s has ended", e.ID)
}

// Paste takes the address that the browser ended on. It is checked as one that arrives
// here, and what is wrong with it is an error that changes nothing. Paste waits until the
// code is exchanged: an error then says why the try came to nothing, and the sign-in may
// still be awaited.
func (one *SignIn) Paste(ctx context.Context, address string) error {
	one.mu.Lock()
	state, before, changed := one.view.State, one.tries, one.changed
	one.mu.Unlock()
	if state != Waiting {
		return &NotAwaitedError{one.id, state}
	}
	p := paste{address, make(chan error, 1)}
	for sent := false; !sent; {
		select {
		case one.pastes <- p:
			sent = true
		case <-changed:
			one.mu.Lock()
			state, changed = one.view.State, one.changed
			one.mu.Unlock()
			if state != Waiting {
				return &NotAwaitedError{one.id, state}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := <-p.read; err != nil {
		return err
	}
	if err := one.waitFor(ctx, func() bool { return one.tries > before || one.view.State == Asking }); err != nil {
		return err
	}
	v := one.View()
	if v.State == Waiting {
		return v.Last
	}
	return v.Err
}

// Answer says whether the right user signed in. It waits until the grant is in place, or
// until the sign-in has ended without it; an error says that the grant could not be kept.
func (one *SignIn) Answer(ctx context.Context, yes bool) error {
	one.mu.Lock()
	state, asked := one.view.State, one.asked
	if state != Asking || asked {
		one.mu.Unlock()
		if asked {
			state = Exchanging
		}
		return &NotAwaitedError{one.id, state}
	}
	one.asked = true
	one.mu.Unlock()
	one.answers <- yes
	if err := one.Wait(ctx); err != nil {
		return err
	}
	if v := one.View(); v.State != Done && (yes || v.State != Refused) {
		return v.Err
	}
	return nil
}

// End ends a sign-in that is still awaited, or drops one that is asked about. It waits
// until the company's turn is free.
func (one *SignIn) End(ctx context.Context) error {
	one.cancel(ErrEnded)
	select {
	case <-one.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait waits until the sign-in is over.
func (one *SignIn) Wait(ctx context.Context) error {
	return one.wait(ctx, func(v View) bool { return v.State.Over() })
}

func (one *SignIn) wait(ctx context.Context, until func(View) bool) error {
	return one.waitFor(ctx, func() bool { return until(one.view) })
}

// waitFor waits for a condition, which is looked at with one.mu held.
func (one *SignIn) waitFor(ctx context.Context, until func() bool) error {
	for {
		one.mu.Lock()
		met, changed := until(), one.changed
		one.mu.Unlock()
		if met {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// portOf is an address's port, or the scheme's own.
func portOf(address string) int {
	u, err := url.Parse(address)
	if err != nil {
		return 0
	}
	if u.Port() == "" {
		port, _ := net.LookupPort("tcp", u.Scheme)
		return port
	}
	port, _ := strconv.Atoi(u.Port())
	return port
}
