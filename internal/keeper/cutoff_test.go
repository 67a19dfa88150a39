package keeper_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// cutOff lets a process do something over and over, and ends it at the next
// moment of all those that it passes: before and after every call of its vault,
// its home and UPS. After a call of the keeper's and before its next nothing is
// different outside of the process: that is one moment and not two.
func cutOff(t *testing.T, w *world, prepare func(), do func(*process), check func(t *testing.T, cut moment)) {
	t.Helper()
	const most = 100
	for n := 1; n <= most; n++ {
		prepare()
		var passed int
		var cut moment
		p := w.start(func(m moment) error {
			inside := strings.HasPrefix(cut.call, "home.") || strings.HasPrefix(m.call, "home.")
			if !cut.after || m.after || inside {
				passed++
			}
			cut = m
			if passed == n {
				panic(ended{})
			}
			return nil
		})
		if !p.run(func() { do(p) }) {
			if n < 10 {
				t.Errorf("there were only %d moments", n-1)
			}
			return
		}
		t.Run(fmt.Sprintf("%02d %s", n, cut), func(t *testing.T) {
			defer func(outer *testing.T) { w.t = outer }(w.t)
			w.t = t
			check(t, cut)
		})
	}
	t.Fatalf("more than %d moments", most)
}

// wantsAll skips a test of every moment in which a process can end where a quick
// look is wanted.
func wantsAll(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("with -short not every moment is tried")
	}
}

// A process can end at any instant. Whatever it was doing for the grant, the
// next one gets a valid token, except where UPS had spent the refresh token and
// the answer was not sealed; and then it is told so.
func TestRefreshCutOffAtEveryMoment(t *testing.T) {
	wantsAll(t)
	t.Parallel()
	fault := func(f sandbox.Fault) func(*world) {
		return func(w *world) {
			f.Endpoint, f.Times = "refresh", 1
			if err := w.ups.AddFault(f); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name    string
		prepare func(*world)
		// Where the next process finds a request of unknown fate: the window,
		// in which UPS may have spent the token, and beside it the moments in
		// which nobody can tell that it has not.
		window, beside []string
	}{
		{name: "an ordinary one", prepare: func(*world) {},
			window: []string{"after send refresh"},
			beside: []string{"after Claim", "before LastLook", "after LastLook"}},
		{name: "one that finishes an earlier one", prepare: func(w *world) { w.seal() }},
		{name: "one that finds its item gone", prepare: func(w *world) {
			w.seal()
			if err := w.home().Delete(w.t.Context(), w.disk().TokenVaultKey); err != nil {
				w.t.Fatal(err)
			}
		}},
		{name: "one that UPS answers with 503", prepare: fault(sandbox.Fault{Status: 503}),
			beside: []string{"after Claim", "before LastLook", "after LastLook", "after send refresh", "after Mark", "after Note"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var before disk
			var spent int
			prepare := func() {
				if d := w.disk(); d.state == "" || d.state == grant.Void {
					w.authorize()
				}
				w.pass(2 * time.Hour)
				tt.prepare(w)
				before, spent = w.disk(), w.outcomes(sandbox.Committed)
			}
			do := func(p *process) { _, _ = p.Refresh(t.Context(), w.id, keeper.Need{}) }
			var window, beside []string
			cutOff(t, w, prepare, do, func(t *testing.T, cut moment) {
				w.ups.ClearFaults()
				left := w.disk()
				committed := w.outcomes(sandbox.Committed) > spent
				kept := left.item.Generation > before.item.Generation || len(left.journals) == 1 && left.journals[0].Answered

				g, err := w.start(nil).Token(t.Context(), w.id, 0)
				var pending *keeper.PendingError
				if errors.As(err, &pending) {
					if pending.Again != retryUnknownAfter || left.state != grant.Interrupted {
						t.Errorf("%v, state %s", err, left.state)
					}
					w.pass(retryUnknownAfter)
					g, err = w.start(nil).Token(t.Context(), w.id, 0)
					if committed {
						window = append(window, cut.String())
						w.wantVoid(left.item, err)
						return
					}
					beside = append(beside, cut.String())
				}
				if committed && !kept {
					t.Errorf("UPS spent the token and the answer is nowhere, but the next process did not see that: %v", err)
				}
				if err != nil || !w.works(g.AccessToken) {
					t.Fatalf("the next process got no token: %v", err)
				}
				w.wantNextRefresh()
			})
			if n := w.outcomes(sandbox.Reused); n != len(window) {
				t.Errorf("a spent token was sent %d times, want once for each moment of the window", n)
			}
			if !slices.Equal(window, tt.window) {
				t.Errorf("the window is %q, want %q", window, tt.window)
			}
			if !slices.Equal(beside, tt.beside) {
				t.Errorf("the fate was unknown %q, want %q", beside, tt.beside)
			}
		})
	}
}

// An authorization that is cut off has either come to nothing, and the earlier
// grant works, or UPS's answer was sealed, and the next process finishes it.
func TestAuthorizeCutOffAtEveryMoment(t *testing.T) {
	wantsAll(t)
	t.Parallel()
	for _, again := range []bool{false, true} {
		name := "the first"
		if again {
			name = "another"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var old disk
			prepare := func() {
				if again && w.disk().state == "" {
					w.authorize()
				}
				if !again {
					_ = w.start(nil).Revoke(t.Context(), w.id) // what the last round made
				}
				w.pass(time.Second)
				old = w.disk()
			}
			do := func(p *process) { _, _ = p.Authorize(t.Context(), w.login(nil)) }
			sealed := false
			cutOff(t, w, prepare, do, func(t *testing.T, cut moment) {
				sealed = sealed || cut == moment{"Seal", true} // the moments come in their order
				left := w.disk()

				var result keeper.Result
				var err error
				if sent := w.requests(func() { result, err = w.start(nil).Refresh(t.Context(), w.id, keeper.Need{}) }); sent != 0 {
					t.Errorf("%d refreshes were sent", sent)
				}
				switch {
				case !sealed && !again:
					if !errors.Is(err, grant.ErrNoGrant) || left.state != "" {
						t.Errorf("error %v, state %q; want that there is no grant", err, left.state)
					}
				case err != nil || !w.works(result.AccessToken):
					t.Fatalf("the next process has no token: %v", err)
				case !sealed && result.Secrets != old.item.Secrets:
					t.Error("the earlier grant is not as it was")
				case sealed && result.TokenVaultKey == old.TokenVaultKey:
					t.Error("the authorization was not finished")
				}
				if !sealed {
					w.authorize()
				}
				w.wantSettled(w.disk(), grant.Authorized)
				w.wantNextRefresh()
				w.wantOnly(w.disk().TokenVaultKey)
			})
			if !sealed {
				t.Error("no answer was ever sealed")
			}
		})
	}
}

// wantOnly checks that the home has the items of that grant and no others, and
// nothing where it is empty.
func (w *world) wantOnly(tokenVaultKey string) {
	w.t.Helper()
	var want []string
	if tokenVaultKey != "" {
		want = []string{tokenVaultKey, tokenVaultKey + "/journal"}
	}
	got := w.items()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("the home has %q, want %q", got, want)
	}
}

// A revoke that is cut off has not begun, and the grant works, or the company
// has none any more, whatever lay beside it.
func TestRevokeCutOffAtEveryMoment(t *testing.T) {
	wantsAll(t)
	t.Parallel()
	sealedLogin := func(w *world) {
		p := w.start(endAt(moment{"Seal", true}))
		if !p.run(func() { _, _ = p.Authorize(w.t.Context(), w.login(nil)) }) {
			w.t.Fatal("the authorization was not cut off")
		}
	}
	tests := []struct {
		name    string
		prepare func(*world)
	}{
		{"a grant with a refresh to be finished", func(w *world) { w.authorize(); w.seal() }},
		{"a grant with an authorization to be finished", func(w *world) { w.authorize(); sealedLogin(w) }},
		{"a grant with items of an earlier one", func(w *world) {
			w.authorize()
			p := w.start(failing(errLocked, "home.Delete item"))
			if _, err := p.Authorize(w.t.Context(), w.login(nil)); err != nil {
				w.t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			begun := 0
			do := func(p *process) { _ = p.Revoke(t.Context(), w.id) }
			cutOff(t, w, func() { tt.prepare(w) }, do, func(t *testing.T, _ moment) {
				_, err := w.start(nil).vault.Record(w.t.Context(), w.id)
				revoked := errors.Is(err, grant.ErrNoGrant)
				if revoked {
					begun++
				}
				result, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{})
				switch {
				case revoked && !errors.Is(err, grant.ErrNoGrant):
					t.Errorf("the company has a grant again: %v", err)
				case !revoked && errors.Is(err, grant.ErrNoGrant):
					t.Error("the grant is gone by a look at it")
				case err == nil && !w.works(result.AccessToken):
					t.Error("the grant is there by half")
				}
				if err := w.start(nil).Revoke(t.Context(), w.id); err != nil && !errors.Is(err, grant.ErrNoGrant) {
					t.Errorf("the next revoke: %v", err)
				}
				if d := w.disk(); d.state != "" || len(d.journals) != 0 {
					t.Errorf("after the next revoke: %s", d)
				}
				w.wantOnly("")
			})
			if begun == 0 {
				t.Error("the revoke was never cut off after it had begun")
			}
		})
	}
}
