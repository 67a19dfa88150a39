package session

import (
	"errors"
	"sync"
	"testing"

	"github.com/upsauth/upsauth/internal/config"
)

// What one sign-in has taught is known to those that begin afterwards, also of an
// application that is not registered; what a sign-in under way has is left as it is.
func TestAuthorizingLearns(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.register("mine", "lab")
		for _, target := range []Target{{Application: "mine", Environment: "lab"}, {Environment: config.Sandbox}} {
			a, err := w.Authorizing(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := a.Client()
			for _, basic := range []bool{true, false, true} {
				var callers sync.WaitGroup
				for range 4 {
					callers.Go(func() {
						if err := a.Learn(t.Context(), basic); err != nil {
							t.Error(err)
						}
						_ = a.Client().PKCENeedsBasic
					})
				}
				callers.Wait()
				if a.Client().PKCENeedsBasic != basic || before.PKCENeedsBasic {
					t.Errorf("%+v: taught %t, the next has %t and the one before %t", target, basic, a.Client().PKCENeedsBasic, before.PKCENeedsBasic)
				}
			}
		}
		r, err := w.Registration(t.Context(), "mine", "lab")
		if err != nil || !r.PKCENeedsBasic {
			t.Errorf("kept is %t, %v", r.PKCENeedsBasic, err)
		}
	})
}

func TestAuthorizingNeedsARedirectURI(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		getenv := w.options.Getenv
		w.options.Getenv = func(name string) string {
			if name == config.EnvClientID {
				return "cid"
			}
			return getenv(name)
		}
		_, err := w.Authorizing(t.Context(), Target{Application: "x", Environment: "lab"})
		if missing := new(RedirectMissingError); !errors.As(err, &missing) || missing.Application != "x" {
			t.Errorf("%v", err)
		}
	})
}
