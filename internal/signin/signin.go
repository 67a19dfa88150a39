// Package signin brings a person's sign-in at ups.com back to this machine. It listens
// for the answer or takes it pasted, keeps it to the person's own browser, and lets the
// keeper finish it. It prints nothing: steps are told one after another, and whoever
// begins a sign-in decides about who signed in.
package signin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
)

// Options say how the answer gets to this machine, and who is told what.
type Options struct {
	// Callback is where and how the answer is awaited. Its redirect URI is that of the
	// client.
	Callback Callback
	// Ports, where set, says which upsauth listens on a port.
	Ports Ports
	// Listen opens the callback's listener, such as one that several sign-ins share.
	// Nil: the sign-in has one of its own.
	Listen func(context.Context, loopback.Place) (Listener, error)
	// Home, where set, is the address of the page on which the sign-in began, for the
	// pages of the callback. Empty: it began in a terminal.
	Home string
	// NoPreflight leaves out asking UPS before the browser opens.
	NoPreflight bool
	// User is the number of the user of this machine who is at the browser, beside the
	// one whose process this is.
	User int
	// Timeout is how long to wait for the person at the browser, declined consents
	// and codes that came too late included.
	Timeout time.Duration
	// Paste, where set, gets the address that the browser ended on from a person
	// who copied it; read makes a callback of it, or says what is wrong with it.
	// It returns io.EOF where nothing more can be pasted. With it a redirect URI
	// that does not lead to this machine needs no callback server.
	//
	// An address that is shown beside it is opened by hand, in any browser. With
	// Guarded it is the one of the callback server, so that the sign-in is kept to one
	// browser; a port that is taken is an error then, too.
	Guarded bool
	Paste   func(ctx context.Context, read Reader) (grant.Callback, error)
	// GiveUp, where set, waits beside the sign-in once a try came to nothing. Its
	// error ends the sign-in, io.EOF aside.
	GiveUp func(ctx context.Context) error
	// Step is told what happens, in order, by one goroutine.
	Step func(Step)
	// Page makes the browser's page of a try that came to nothing.
	Page func(*keeper.AwaitedError) loopback.Page
	// Log, where set, is told what only a search for a fault needs, in lines
	// without secrets, by any goroutine.
	Log func(string)
}

// Ports knows which processes listen on ports, where the system does not tell.
type Ports interface {
	HoldPort(port int, use grant.PortUse) (change func(grant.PortUse), release func(leave bool))
	// PortHolder is what another process said of a port. Its PID is 0 where none did.
	PortHolder(port int) grant.PortUse
}

// Listener is a [loopback.Listener], or a seat at one.
type Listener interface {
	RedirectURI() string
	Front() string
	Addr() string
	TellsUsers() bool
	ServeLogin(*loopback.Handler)
	Close() error
}

// Reader makes a callback of a pasted address, or says what is wrong with it.
type Reader = func(pasted string) (grant.Callback, error)

// Step is a moment of a sign-in.
type Step struct {
	Kind StepKind
	// Address is where the callback is awaited, for Listening; where a person can
	// go, for Opening.
	Address string
	// At is where on this machine that is, host and port, for Listening.
	At string
	// AtUPS is UPS's own address, for Opening and for Noticed. It carries the state: it
	// is for a browser that can't reach this machine, and for nobody else's eyes.
	AtUPS string
	// Err is why the callback can't be caught here, for Uncaught, or why a try came
	// to nothing, for Awaited.
	Err error
	// Open is the browser to be opened, for Opening.
	Open Open
	// NeedsBasic says that UPS wants the Authorization header beside the verifier,
	// for Learned.
	NeedsBasic bool
	// Notice is what to know, for Noticed.
	Notice loopback.Notice
}

// Open says how a browser is to be opened.
type Open struct {
	// Context ends when nobody waits for the sign-in any more.
	Context context.Context
	// Address is what the browser's opener gets. Others may read it there.
	Address string
	// ByHand says that no program may be started with the address, as it carries
	// the sign-in's state; Private says that no other user of this machine may
	// read the address.
	ByHand, Private bool
}

// StepKind names a moment of a sign-in.
type StepKind int

// The moments in their order. Awaited and Noticed come at any time after Opening: a
// try came to nothing, and the sign-in is awaited further; something is to be known.
// Learned comes with an exchange. Whoever handles Opening opens the browser, and does
// not wait for it.
const (
	Uncaught StepKind = iota
	Listening
	Preflight
	Opening
	Exchanging
	Learned
	Awaited
	Noticed
)

// NobodyError says that nobody finished the sign-in in time.
type NobodyError struct {
	Waited time.Duration
	// Last is why the last try came to nothing, nil where there was none.
	Last error
}

func (e *NobodyError) Error() string {
	sentence := fmt.Sprintf("nobody finished the sign-in within %s", legible.Duration(e.Waited))
	var declined *keeper.DeclinedError
	switch {
	case errors.As(e.Last, &declined):
		sentence += fmt.Sprintf(" (the last try: %s)", declined.What())
	case e.Last != nil:
		sentence += fmt.Sprintf(" (the last try: %v)", e.Last)
	}
	return sentence + "; nothing was changed"
}

// SignIn is a sign-in whose answer arrives at this machine.
type SignIn struct {
	*keeper.SignIn
	o        Options
	config   loopback.Config
	listener Listener           // nil where the answer can only be pasted
	handler  *loopback.Handler  // nil with the listener
	stop     context.CancelFunc // of the waiting
	release  func()             // of the port
	answered bool               // the browser is to be told what came of it
}

// Begin takes the company's turn, listens, announces the new grant, and asks UPS
// whether it knows the application. The caller closes what it returns.
func Begin(ctx context.Context, k *keeper.Keeper, r keeper.Request, o Options) (*SignIn, error) {
	release := func() {}
	if port := o.Callback.Port(); port != 0 && o.Ports != nil {
		_, let := o.Ports.HoldPort(port, grant.PortUse{Company: r.Company, Until: k.Now().Add(o.Timeout), RedirectURIs: []string{r.Client.RedirectURI}})
		release = func() { let(false) }
	}
	begun := false
	defer func() {
		if !begun {
			release()
		}
	}()
	turn, err := k.Turn(ctx, r)
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	s := &SignIn{o: o, config: loopback.Config{RedirectURI: r.Client.RedirectURI, Issuer: r.Client.Issuer, Home: o.Home, Log: o.Log}, stop: func() {}, release: release}
	defer func() {
		if !begun {
			s.stopListening()
		}
	}()
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	if s.SignIn, err = turn.Begin(ctx, s.config.RedirectURI); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		s.SignIn.Close(ctx)
		return nil, err
	}
	begun = true
	return s, nil
}

// listen opens the callback's listener, or none where the address can be pasted.
func (s *SignIn) listen(ctx context.Context) error {
	uri := s.config.RedirectURI
	if s.o.Paste != nil && s.o.Callback.Listen == "" && !loopback.CanListen(uri, s.o.Callback.TLS != nil) {
		return nil
	}
	listen := s.o.Listen
	if listen == nil {
		listen = func(ctx context.Context, p loopback.Place) (Listener, error) { return loopback.Listen(ctx, p) }
	}
	listener, err := listen(ctx, loopback.Place{
		RedirectURI: uri, Listen: s.o.Callback.Listen, TLS: s.o.Callback.TLS, Holder: Holder(s.o.Ports), Log: s.o.Log,
	})
	if s.o.Paste != nil && (errors.As(err, new(*loopback.PortError)) && !s.o.Guarded || errors.As(err, new(*loopback.BindError))) {
		s.o.Step(Step{Kind: Uncaught, Err: err})
		return nil
	}
	if err != nil {
		return err
	}
	s.listener = listener
	s.config.RedirectURI, s.config.Front = listener.RedirectURI(), listener.Front()
	s.o.Step(Step{Kind: Listening, Address: listener.RedirectURI(), At: listener.Addr()})
	return nil
}

// ready serves the callback and asks UPS beforehand.
func (s *SignIn) ready(ctx context.Context) error {
	s.config.State = s.State()
	if s.listener != nil {
		handler, err := loopback.New(s.config)
		if err != nil {
			return err
		}
		s.handler = handler
		s.listener.ServeLogin(handler)
	}
	if s.o.NoPreflight {
		return nil
	}
	s.o.Step(Step{Kind: Preflight})
	return s.Preflight(ctx)
}

// Await has the browser opened and waits until somebody signed in, or until the
// sign-in has ended. Who signed in is not kept yet: the caller calls Doubt and then
// Keep or Drop, and tells the browser by Show.
func (s *SignIn) Await(ctx context.Context) (keeper.Outcome, error) {
	waiting, stop := context.WithTimeout(ctx, s.o.Timeout)
	s.stop = stop // the opener may live until the end
	s.open(waiting)
	var last error
	for {
		callback, caught, err := s.await(waiting, last != nil)
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = &NobodyError{Waited: s.o.Timeout, Last: last}
			}
			return keeper.Outcome{}, err
		}
		if callback.Error == "" {
			s.o.Step(Step{Kind: Exchanging})
		}
		outcome, err := s.Finish(ctx, callback)
		if outcome.Learned {
			s.o.Step(Step{Kind: Learned, NeedsBasic: outcome.NeedsBasic})
		}
		var awaited *keeper.AwaitedError
		if !errors.As(err, &awaited) {
			s.answered = true
			return outcome, err
		}
		if waiting.Err() != nil {
			s.answered = true
			return outcome, awaited.Err
		}
		last = awaited.Err
		if caught {
			s.log(s.handler.Again(s.o.Page(awaited)))
		}
		s.o.Step(Step{Kind: Awaited, Err: last})
	}
}

// open has the browser opened. UPS's address carries the state, and other users of
// this machine read what the opener is started with: it gets one of the callback
// server's instead. Where an address can be pasted, or none leads here, the person
// opens UPS's by hand, and it never leaves the terminal.
func (s *SignIn) open(ctx context.Context) {
	address := s.Address(s.State())
	if s.handler == nil || s.o.Paste != nil && !s.o.Guarded {
		s.o.Step(Step{Kind: Opening, Address: address, AtUPS: address, Open: Open{Context: ctx, Address: address, ByHand: true}})
		return
	}
	start := s.handler.Guard(loopback.Guard{Address: s.Address, Lasts: s.o.Timeout, User: s.o.User})
	if s.o.Callback.Listen == "" {
		// The cookie that it gives has to be in the browser that signs in.
		address = start
	}
	s.o.Step(Step{Kind: Opening, Address: address, AtUPS: s.Address(s.State()), Open: Open{Context: ctx, Address: start, Private: !s.listener.TellsUsers()}})
}

// awaited is the state that the answer has to carry by now: another one than at first
// where two browsers opened the address.
func (s *SignIn) awaited() string {
	if s.handler != nil {
		return s.handler.State()
	}
	return s.State()
}

// Conclude keeps what somebody signed in for. Where there are doubts about who it was,
// ask decides: its error says that the sign-in is not to be kept, and that the
// company's earlier grant stays. Until ask returns nothing is in place, and the browser
// is shown the page. A sign-in whose ask was cut off, which [ErrCutOff] says, is left to
// the rules of the vault.
func (s *SignIn) Conclude(ctx context.Context, doubts []string, page loopback.Page, ask func(context.Context) error) (grant.Grant, error) {
	if len(doubts) > 0 {
		s.MarkUnconfirmed(ctx)
		s.askOnPage(page)
		if err := ask(ctx); err != nil {
			if !errors.Is(err, ErrCutOff) {
				s.Drop(ctx)
			}
			return grant.Grant{}, err
		}
	}
	return s.Keep(ctx)
}

// ErrCutOff says that nobody could be asked any more.
var ErrCutOff = errors.New("the question who signed in was cut off; nothing was saved")

// askOnPage shows the browser that somebody is asked about who signed in, until Show has
// the last page.
func (s *SignIn) askOnPage(page loopback.Page) {
	if s.handler != nil && s.answered {
		s.log(s.handler.Ask(page))
	}
}

// Show gives the browser its last page, if the browser brought an answer. The page
// is for the person at the browser; the terminal gets the outcome in any case.
func (s *SignIn) Show(ctx context.Context, page loopback.Page) {
	if s.handler != nil && s.answered {
		s.log(s.handler.Finish(context.WithoutCancel(ctx), page))
	}
}

// GiveBack gives the company's turn back before the browser has its last page. What
// was begun is cleared away unless an answer is kept.
func (s *SignIn) GiveBack(ctx context.Context) { s.SignIn.Close(ctx) }

// EndWith ends the waiting for good. The page is for whoever comes to the callback from
// now on, for as long as something listens there.
func (s *SignIn) EndWith(page loopback.Page) {
	if s.handler != nil {
		s.handler.CloseWith(page)
	}
}

// Close ends the sign-in. What was begun is cleared away unless an answer is kept.
func (s *SignIn) Close(ctx context.Context) {
	s.stop()
	s.stopListening()
	s.SignIn.Close(ctx)
	s.release()
}

// Holder says which upsauth listens on a port, for which company, and until when.
func Holder(ports Ports) func(port int) loopback.Holder {
	return func(port int) loopback.Holder {
		if ports == nil {
			return loopback.Holder{}
		}
		use := ports.PortHolder(port)
		if use.PID == 0 {
			return loopback.Holder{}
		}
		name := fmt.Sprintf("another upsauth (process %d)", use.PID)
		if use.Service {
			name = fmt.Sprintf("the upsauth service (process %d)", use.PID)
		}
		if use.Company != "" {
			name += ", for the sign-in of " + legible.Line(use.Company)
			switch {
			case use.Others == 1:
				name += " and one more"
			case use.Others > 1:
				name += fmt.Sprintf(" and %d more", use.Others)
			}
			name += " until " + use.Until.UTC().Format("2006-01-02 15:04:05 MST")
		}
		return loopback.Holder{Name: name, PID: use.PID, SignIn: use.Company != ""}
	}
}

func (s *SignIn) stopListening() {
	if s.handler != nil {
		s.handler.Close()
	}
	if s.listener != nil {
		s.log(s.listener.Close())
	}
}

func (s *SignIn) log(err error) {
	if err != nil && s.o.Log != nil {
		s.o.Log(err.Error())
	}
}
