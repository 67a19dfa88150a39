package signin

import (
	"context"
	"errors"
	"io"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
)

// errNothingPasted says that there is no way left on which an answer could come.
var errNothingPasted = errors.New("no address was pasted, and there is no callback server to wait for; nothing was changed")

// await returns the first answer that the browser brings or a person
// pastes, and whether the browser brought it. Again says that a try came to nothing
// before: then somebody may give up.
func (s *SignIn) await(ctx context.Context, again bool) (callback grant.Callback, caught bool, err error) {
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
	if s.o.Paste != nil {
		ways++
		await(false, func() (grant.Callback, error) {
			return s.o.Paste(ctx, func(pasted string) (grant.Callback, error) {
				its := s.config
				its.State = s.awaited()
				return loopback.ParseCallback(its, pasted)
			})
		})
	}
	var notices <-chan loopback.Notice
	if s.handler != nil {
		ways++
		notices = s.handler.Notices()
		await(true, func() (grant.Callback, error) { return s.handler.Wait(ctx) })
	}
	if again && s.o.GiveUp != nil {
		await(false, func() (grant.Callback, error) {
			if err := s.o.GiveUp(ctx); err != nil && !errors.Is(err, io.EOF) {
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
			s.o.Step(Step{Kind: Noticed, Notice: n, AtUPS: s.Address(s.awaited())})
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
