package keeper

import (
	"context"
	"errors"
	"io"

	"github.com/upsauth/upsauth/internal/loopback"
)

// errNothingPasted says that there is no way left on which an answer could come.
var errNothingPasted = errors.New("no address was pasted, and there is no callback server to wait for; nothing was changed")

// awaitCallback returns the first answer that the browser brings or a person
// pastes.
func awaitCallback(ctx context.Context, login Login, server *loopback.Server, state string) (loopback.Callback, error) {
	if login.Paste == nil {
		return server.Wait(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		callback loopback.Callback
		err      error
	}
	answers := make(chan answer, 2)
	waits := 1
	go func() {
		callback, err := login.Paste(ctx, func(pasted string) (loopback.Callback, error) {
			return loopback.ParseCallback(login.Client.RedirectURI, state, pasted)
		})
		answers <- answer{callback, err}
	}()
	if server != nil {
		waits++
		go func() {
			callback, err := server.Wait(ctx)
			answers <- answer{callback, err}
		}()
	}
	// Whoever is at the prompt has left it before anybody else asks something.
	defer func() {
		cancel()
		for ; waits > 0; waits-- {
			<-answers
		}
	}()
	for {
		a := <-answers
		waits--
		switch {
		case a.err == nil:
			return a.callback, nil
		case errors.Is(a.err, io.EOF) && waits == 0:
			return a.callback, errNothingPasted
		case !errors.Is(a.err, io.EOF):
			return a.callback, a.err
		}
	}
}
