package keeper

import (
	"context"
	"errors"
	"io"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
)

// errNothingPasted says that there is no way left on which an answer could come.
var errNothingPasted = errors.New("no address was pasted, and there is no callback server to wait for; nothing was changed")

// callbackServer is a login's handler with a listener of its own.
type callbackServer struct {
	*loopback.Handler
	*loopback.Listener
}

func openCallbackServer(ctx context.Context, login Login, state string, log func(string)) (*callbackServer, error) {
	listener, err := loopback.Listen(ctx, loopback.Place{
		RedirectURI: login.Client.RedirectURI, Listen: login.Listen, TLS: login.TLS, Holder: login.PortHolder, Log: log,
	})
	if err != nil {
		return nil, err
	}
	handler, err := loopback.New(loopback.Config{
		RedirectURI: listener.RedirectURI(), State: state, Issuer: login.Client.Issuer, Front: listener.Front(), Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	listener.Serve(handler, handler.Fail)
	return &callbackServer{handler, listener}, nil
}

func (s *callbackServer) Close() error {
	s.Handler.Close()
	return s.Listener.Close()
}

// awaitCallback returns the first answer that the browser brings or a person
// pastes, and whether the browser brought it. Again says that a try came to nothing
// before: then somebody may give up.
func awaitCallback(ctx context.Context, login Login, server *callbackServer, state string, again bool) (callback grant.Callback, caught bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		callback grant.Callback
		caught   bool
		err      error
	}
	answers := make(chan answer, 3)
	waits := 0
	await := func(caught bool, wait func() (grant.Callback, error)) {
		waits++
		go func() {
			callback, err := wait()
			answers <- answer{callback, caught, err}
		}()
	}
	ways := 0 // on which an answer may still come
	if login.Paste != nil {
		ways++
		await(false, func() (grant.Callback, error) {
			return login.Paste(ctx, func(pasted string) (grant.Callback, error) {
				return loopback.ParseCallback(loopback.Config{
					RedirectURI: login.Client.RedirectURI, State: state, Issuer: login.Client.Issuer,
				}, pasted)
			})
		})
	}
	var notices <-chan loopback.Notice
	if server != nil {
		ways++
		notices = server.Notices()
		await(true, func() (grant.Callback, error) { return server.Wait(ctx) })
	}
	if again && login.GiveUp != nil {
		await(false, func() (grant.Callback, error) {
			if err := login.GiveUp(ctx); err != nil && !errors.Is(err, io.EOF) {
				return grant.Callback{}, err
			}
			<-ctx.Done()
			return grant.Callback{}, ctx.Err()
		})
	}
	// Whoever is at the prompt has left it before anybody else asks something.
	defer func() {
		cancel()
		for ; waits > 0; waits-- {
			<-answers
		}
	}()
	for {
		select {
		case n := <-notices:
			login.Step(Step{Kind: StepNotice, Notice: n})
		case a := <-answers:
			waits--
			if !errors.Is(a.err, io.EOF) {
				return a.callback, a.caught, a.err
			}
			if ways--; ways == 0 {
				return a.callback, false, errNothingPasted
			}
		}
	}
}
