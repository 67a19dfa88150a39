package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault"
)

// wantsEachCall is wantsAll for tests that let each call fail in turn: one call after
// another shows nothing to the race detector, which takes five times as long.
func wantsEachCall(t *testing.T) {
	t.Helper()
	wantsAll(t)
	if raced {
		t.Skip("without the race detector each call fails in turn")
	}
}

// wiredStore is the store as the vault sees it.
type wiredStore struct {
	vault.Store
	wire wire
}

func (s wiredStore) Grant(ctx context.Context, slot string) (r grant.Record, err error) {
	err = s.wire.around("store.Grant", func() (err error) { r, err = s.Store.Grant(ctx, slot); return err })
	return r, err
}

func (s wiredStore) Claim(ctx context.Context, j *grant.Journal) error {
	return s.wire.around("store.Claim", func() error { return s.Store.Claim(ctx, j) })
}

func (s wiredStore) Seal(ctx context.Context, j *grant.Journal, sealed []byte) error {
	return s.wire.around("store.Seal", func() error { return s.Store.Seal(ctx, j, sealed) })
}

func (s wiredStore) Mark(ctx context.Context, j *grant.Journal) error {
	return s.wire.around("store.Mark", func() error { return s.Store.Mark(ctx, j) })
}

func (s wiredStore) Attempts(ctx context.Context, slot, tokenVaultKey string) (js []grant.Journal, err error) {
	err = s.wire.around("store.Attempts", func() (err error) { js, err = s.Store.Attempts(ctx, slot, tokenVaultKey); return err })
	return js, err
}

func (s wiredStore) Sealed(ctx context.Context, j grant.Journal) (text []byte, err error) {
	err = s.wire.around("store.Sealed", func() (err error) { text, err = s.Store.Sealed(ctx, j); return err })
	return text, err
}

func (s wiredStore) Settle(ctx context.Context, slot, tokenVaultKey string, generation int64) error {
	return s.wire.around("store.Settle", func() error { return s.Store.Settle(ctx, slot, tokenVaultKey, generation) })
}

func (s wiredStore) Forget(ctx context.Context, slot, tokenVaultKey string, forGood bool) error {
	return s.wire.around("store.Forget", func() error { return s.Store.Forget(ctx, slot, tokenVaultKey, forGood) })
}

func (s wiredStore) Commit(ctx context.Context, c vault.Change) (r grant.Record, err error) {
	err = s.wire.around("store.Commit", func() (err error) { r, err = s.Store.Commit(ctx, c); return err })
	return r, err
}

func (s wiredStore) Rename(ctx context.Context, r grant.Record, company string) (renamed grant.Record, err error) {
	err = s.wire.around("store.Rename", func() (err error) { renamed, err = s.Store.Rename(ctx, r, company); return err })
	return renamed, err
}

func (s wiredStore) Drop(ctx context.Context, r grant.Record) error {
	return s.wire.around("store.Drop", func() error { return s.Store.Drop(ctx, r) })
}

// errAway is what a store says that can't be reached, also of a change that it made:
// the answer may be lost on the way.
var errAway = errors.New("the store can't be reached")

// failsAt is a wire that fails at its nth moment, once or from then on.
func failsAt(n int, always bool, passed *int, at *moment) wire {
	return func(m moment) error {
		*passed++
		if *passed == n {
			*at = m
		}
		if *passed == n || always && *passed > n {
			return fmt.Errorf("%w (%s)", errAway, m)
		}
		return nil
	}
}

// A store over a network can fail at any call, and nobody knows whether what it was told
// has happened. The refresh says so, or goes well; the next one gets a valid token.
func TestRefreshWhoseStoreFailsAtEveryCall(t *testing.T) {
	wantsEachCall(t)
	t.Parallel()
	for _, tt := range []struct {
		name   string
		always bool
		// Where UPS's answer is lost: where nothing takes it, for as long as is tried.
		window []string
	}{
		{"once", false, nil},
		{"from then on", true, []string{"before store.Seal"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			failed, window := 0, []string{}
			for n := 1; ; n++ {
				if d := w.disk(); d.state == "" || d.state == grant.Void {
					w.authorize()
				}
				w.pass(2 * time.Hour)
				spent, before := w.outcomes(sandbox.Committed), w.disk().item
				var passed int
				var at moment
				broken := *w
				broken.onStore = failsAt(n, tt.always, &passed, &at)
				_, err := broken.start(nil).Refresh(t.Context(), w.id, keeper.Need{})
				if passed < n {
					break
				}
				failed++
				if tt.always && err == nil && at.call != "store.Settle" {
					t.Errorf("%s: nobody was told", at)
				}
				g, err := w.start(nil).Token(t.Context(), w.id, 0)
				if errors.As(err, new(*keeper.PendingError)) {
					w.pass(retryUnknownAfter)
					g, err = w.start(nil).Token(t.Context(), w.id, 0)
					if w.outcomes(sandbox.Committed) > spent && err != nil {
						window = append(window, at.String())
						w.wantVoid(before, err)
						continue
					}
				}
				if err != nil || !w.works(g.AccessToken) {
					t.Fatalf("%s: the next process got no token: %v", at, err)
				}
				w.wantSettled(w.disk(), grant.Authorized)
				w.wantNextRefresh()
			}
			if failed < 10 {
				t.Errorf("the store was called only %d times", failed)
			}
			if n := w.outcomes(sandbox.Reused); n != len(window) || !slices.Equal(window, append([]string{}, tt.window...)) {
				t.Errorf("answers were lost %q, want %q; %d spent tokens were sent", window, tt.window, n)
			}
		})
	}
}

// The same for an authorization: it has come to nothing, or the company is authorized,
// and nothing of it is left for good.
func TestAuthorizeWhoseStoreFailsAtEveryCall(t *testing.T) {
	wantsEachCall(t)
	t.Parallel()
	for _, always := range []bool{false, true} {
		t.Run(fmt.Sprintf("always %t", always), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.authorize()
			failed := 0
			for n := 1; ; n++ {
				var passed int
				var at moment
				broken := *w
				broken.onStore = failsAt(n, always, &passed, &at)
				g, err := broken.start(nil).Authorize(t.Context(), broken.login(nil))
				if passed < n {
					break
				}
				failed++
				if err == nil && !w.works(g.AccessToken) {
					t.Errorf("%s: it went well, and its token is not good", at)
				}
				next, err := w.start(nil).Token(t.Context(), w.id, 0)
				if err != nil || !w.works(next.AccessToken) {
					t.Fatalf("%s: the next process has no token: %v", at, err)
				}
				if g.TokenVaultKey != "" && next.TokenVaultKey != g.TokenVaultKey {
					t.Errorf("%s: the new grant is not the one that is there", at)
				}
				// What it began and nobody finished, the company's next login clears away.
				old := w.authorize()
				w.wantSettled(w.disk(), grant.Authorized)
				w.wantOnly(old.TokenVaultKey)
			}
			if failed < 10 {
				t.Errorf("the store was called only %d times", failed)
			}
		})
	}
}

// everyFailure has do work in processes whose store fails, each at the next of its calls,
// once or from then on, and check look at what each left behind.
func everyFailure(t *testing.T, w *world, prepare func(), do func(*process) error, check func(t *testing.T, at moment, err error)) {
	t.Helper()
	for _, always := range []bool{false, true} {
		for n := 1; ; n++ {
			prepare()
			var passed int
			var at moment
			broken := *w
			broken.onStore = failsAt(n, always, &passed, &at)
			err := do(broken.start(nil))
			if passed < n {
				if n < 5 {
					t.Errorf("the store was called only %d times", n-1)
				}
				break
			}
			t.Run(fmt.Sprintf("always %t %02d %s", always, n, at), func(t *testing.T) {
				defer func(outer *testing.T) { w.t = outer }(w.t)
				w.t = t
				check(t, at, err)
			})
		}
	}
}

// A revoke whose store fails has not begun, and the grant works, or the company has none
// any more; the next revoke finishes it.
func TestRevokeWhoseStoreFailsAtEveryCall(t *testing.T) {
	wantsEachCall(t)
	t.Parallel()
	for name, prepare := range map[string]func(*world){
		"as it was authorized":     func(*world) {},
		"refreshed":                func(w *world) { w.refresh() },
		"refreshed, but not saved": (*world).seal,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			revokeAtEveryFailure(t, w, func() { w.authorize(); prepare(w) })
		})
	}
}

func revokeAtEveryFailure(t *testing.T, w *world, prepare func()) {
	t.Helper()
	everyFailure(t, w, prepare, func(p *process) error { return p.Revoke(t.Context(), w.id) }, func(t *testing.T, _ moment, revoked error) {
		_, err := w.start(nil).vault.Record(t.Context(), w.id)
		gone := errors.Is(err, grant.ErrNoGrant)
		if revoked == nil && !gone {
			t.Errorf("it went well, and the grant is there: %v", err)
		}
		result, err := w.start(nil).Refresh(t.Context(), w.id, keeper.Need{})
		switch {
		case gone && !errors.Is(err, grant.ErrNoGrant):
			t.Errorf("the company has a grant again: %v", err)
		case !gone && (err != nil || !w.works(result.AccessToken)):
			t.Errorf("the grant is there by half: %v", err)
		}
		if err := w.start(nil).Revoke(t.Context(), w.id); err != nil && !errors.Is(err, grant.ErrNoGrant) {
			t.Errorf("the next revoke: %v", err)
		}
		if d := w.disk(); d.state != "" || len(d.journals) != 0 {
			t.Errorf("after the next revoke: %s", d)
		}
		w.wantOnly("")
	})
}

// A rename whose store fails leaves the grant under one name, the old one or the new.
func TestRenameWhoseStoreFailsAtEveryCall(t *testing.T) {
	wantsEachCall(t)
	t.Parallel()
	w := newWorld(t)
	old, fresh := w.id, w.id
	fresh.Company = "Zeta"
	w.authorize()
	prepare := func() { w.pass(time.Second) }
	everyFailure(t, w, prepare, func(p *process) error { return p.Rename(t.Context(), old, fresh.Company) }, func(t *testing.T, at moment, renamed error) {
		var there []grant.ID
		for _, id := range []grant.ID{old, fresh} {
			g, err := w.start(nil).Token(t.Context(), id, 0)
			if err == nil && w.works(g.AccessToken) {
				there = append(there, id)
			} else if !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("%s: %v", id, err)
			}
		}
		if len(there) != 1 || renamed == nil && there[0] != fresh {
			t.Fatalf("the grant is there as %v, %v", there, renamed)
		}
		if there[0] == fresh {
			if err := w.start(nil).Rename(t.Context(), fresh, old.Company); err != nil {
				t.Errorf("back again: %v", err)
			}
		}
		w.wantNextRefresh()
	})
}

// An import whose store fails leaves nothing that keeps the next from going well.
func TestImportWhoseStoreFailsAtEveryCall(t *testing.T) {
	wantsEachCall(t)
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	export := w.exported()
	there := w.elsewhere()
	everyFailure(t, there, func() {}, func(p *process) error { _, err := p.Import(t.Context(), export); return err }, func(t *testing.T, _ moment, imported error) {
		if imported == nil {
			there.wantOnly(export.TokenVaultKey)
		}
		if _, err := there.start(nil).Import(t.Context(), export); err != nil {
			t.Fatalf("the next import: %v", err)
		}
		there.wantSettled(there.disk(), grant.Authorized)
		there.wantOnly(export.TokenVaultKey)
		if err := there.start(nil).Revoke(t.Context(), there.id); err != nil {
			t.Errorf("revoking: %v", err)
		}
		there.wantOnly("")
	})
}
