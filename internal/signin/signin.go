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
	"github.com/upsauth/upsauth/internal/loopback"
)

// Options say how the answer gets to this machine, and who is told what.
type Options struct {
	// Callback is where and how the answer is awaited. Its redirect URI is that of the
	// client.
	Callback Callback
	// Ports, where set, says which upsauth listens on a port.
	Ports Ports
	// NoPreflight leaves out asking UPS before the browser opens.
	NoPreflight bool
	// Timeout is how long to wait for the person at the browser, declined consents
	// and codes that came too late included.
	Timeout time.Duration
	// Paste, where set, gets the address that the browser ended on from a person
	// who copied it; read makes a callback of it, or says what is wrong with it.
	// It returns io.EOF where nothing more can be pasted. With it a redirect URI
	// that does not lead to this machine needs no callback server.
	Paste func(ctx context.Context, read Reader) (grant.Callback, error)
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
	HoldPort(port int) (release func())
	// PortHolder is the process that holds a port, 0 where none is known to.
	PortHolder(port int) int
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
	sentence := fmt.Sprintf("nobody finished the sign-in within %s", e.Waited)
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
	listener *loopback.Listener // nil where the answer can only be pasted
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
		release = o.Ports.HoldPort(port)
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
	s := &SignIn{o: o, config: loopback.Config{RedirectURI: r.Client.RedirectURI, Issuer: r.Client.Issuer, Log: o.Log}, stop: func() {}, release: release}
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
	listener, err := loopback.Listen(ctx, loopback.Place{
		RedirectURI: uri, Listen: s.o.Callback.Listen, TLS: s.o.Callback.TLS, Holder: Holder(s.o.Ports), Log: s.o.Log,
	})
	if s.o.Paste != nil && (errors.As(err, new(*loopback.PortError)) || errors.As(err, new(*loopback.BindError))) {
		s.o.Step(Step{Kind: Uncaught, Err: err})
		return nil
	}
	if err != nil {
		return err
	}
	s.listener = listener
	s.config.RedirectURI, s.config.Front = listener.RedirectURI(), listener.Front()
	s.o.Step(Step{Kind: Listening, Address: listener.RedirectURI(), At: listener.Addrs()[0]})
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
		s.listener.Serve(handler, handler.Fail)
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
	if s.handler == nil || s.o.Paste != nil {
		s.o.Step(Step{Kind: Opening, Address: address, Open: Open{Context: ctx, Address: address, ByHand: true}})
		return
	}
	start := s.handler.Guard(loopback.Guard{Address: s.Address, Lasts: s.o.Timeout})
	if s.o.Callback.Listen == "" {
		// The cookie that it gives has to be in the browser that signs in.
		address = start
	}
	s.o.Step(Step{Kind: Opening, Address: address, Open: Open{Context: ctx, Address: start, Private: !s.listener.TellsUsers()}})
}

// Ask shows the browser that somebody is asked about who signed in, until Show has the
// last page.
func (s *SignIn) Ask(page loopback.Page) {
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

// Close ends the sign-in. What was begun is cleared away unless an answer is kept.
func (s *SignIn) Close(ctx context.Context) {
	s.stop()
	s.stopListening()
	s.SignIn.Close(ctx)
	s.release()
}

// Holder says which upsauth listens on a port, empty where none is known to.
func Holder(ports Ports) func(port int) string {
	return func(port int) string {
		if ports == nil {
			return ""
		}
		if pid := ports.PortHolder(port); pid != 0 {
			return fmt.Sprintf("another upsauth (process %d)", pid)
		}
		return ""
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
