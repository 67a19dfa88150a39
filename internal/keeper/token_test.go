package keeper_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
)

func TestTokenIsGoodForAsLongAsAskedFor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		age      time.Duration // of the token that is there
		back     time.Duration // how far the clock was set back then
		asked    time.Duration
		requests int
		tooShort bool
	}{
		{name: "good for long enough", age: 10 * time.Minute, asked: 30 * time.Minute},
		{name: "good for just as long", age: 10 * time.Minute, asked: lifetime - 10*time.Minute},
		{name: "good for a moment less", age: 10 * time.Minute, asked: lifetime - 10*time.Minute + 1, requests: 1},
		{name: "asked for all of it, when new", asked: lifetime},
		{name: "asked for all of it, later", age: time.Second, asked: lifetime, requests: 1},
		{name: "asked for more than UPS gives", age: 10 * time.Minute, asked: lifetime + 1, tooShort: true},
		{name: "asked for more than UPS gave the last time, long ago", age: 2 * time.Hour, asked: lifetime + 1, requests: 1, tooShort: true},
		{name: "in its last moment", age: lifetime - 1},
		{name: "expired this moment", age: lifetime, requests: 1},
		{name: "expired long ago", age: 100 * time.Hour, requests: 1},
		{name: "made by a clock that was set back since", back: time.Hour, requests: 1},
		{name: "made by a clock that was set back by a moment", back: 1, requests: 1},
	}
	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			before := w.authorize()
			w.pass(tt.age)
			w.clock.move(-tt.back)
			defer w.clock.move(tt.back)
			var g grant.Grant
			var err error
			sent := w.requests(func() { g, err = w.start(nil).Token(t.Context(), w.id, tt.asked) })
			if sent != tt.requests {
				t.Errorf("%d requests were sent, want %d", sent, tt.requests)
			}
			if tt.tooShort {
				var short *keeper.TooShortError
				if !errors.As(err, &short) || short.Asked != tt.asked || short.Lifetime != lifetime {
					t.Errorf("error %#v, want that UPS's tokens last %s only", err, lifetime)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !g.AccessGood(w.clock.Now(), tt.asked) || !w.works(g.AccessToken) {
				t.Errorf("the token is good until %s, want another %s from %s on", g.AccessUntil, tt.asked, w.clock.Now())
			}
			if (g.AccessToken != before.AccessToken) != (tt.requests > 0) {
				t.Error("the token is not that of the last request")
			}
		})
	}
}

// UPS's lifetimes are UPS's to change: what the new token turns out to be too
// short for is told, and the tokens are kept.
func TestTokenThatTurnsOutTooShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	w.pass(2 * time.Hour)
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", AccessLifetime: 10 * time.Minute, Times: 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is told without asking UPS once more
		_, err := w.start(nil).Token(t.Context(), w.id, 30*time.Minute)
		var short *keeper.TooShortError
		if !errors.As(err, &short) || short.Lifetime != 10*time.Minute-time.Second {
			t.Errorf("error %#v, want that UPS's tokens last 599 s", err)
		}
	}
	if n := w.front.counted("refresh"); n != 1 {
		t.Errorf("%d requests were sent, want 1", n)
	}
	d := w.disk()
	w.wantRenewed(before, d)
	w.wantSettled(d, grant.Authorized)
}

func TestTokenOfNoGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.start(nil).Token(t.Context(), w.id, 0); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("error %v, want that there is no grant", err)
	}
	if n := w.front.counted("refresh"); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// Scripts that ask for a token again and again must not wait for a refresh, nor
// for anything else that has the lock.
func TestGoodTokenIsServedWithoutTheLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.authorize()
	unlock, err := w.start(nil).vault.Lock(t.Context(), w.id)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if g, err := w.start(nil).Token(ctx, w.id, 30*time.Minute); err != nil || g.AccessToken != before.AccessToken {
		t.Errorf("the token that is there was not served: %v", err)
	}

	w.pass(2 * time.Hour)
	waiting, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.start(nil).Token(waiting, w.id, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that the lock was waited for", err)
	}
	if n := w.front.counted("refresh"); n != 0 {
		t.Errorf("%d requests were sent without the lock", n)
	}
}

// Without the lock, the company may be authorized again between the look at the
// record and that at the item, which is gone then.
func TestTokenWhileTheGrantIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	replaced := false
	g, err := w.start(then(moment{call: "home.Get item"}, func() {
		if !replaced {
			replaced = true
			w.authorize()
		}
	})).Token(t.Context(), w.id, 0)
	if err != nil || !replaced || g.AccessToken != w.disk().item.AccessToken {
		t.Errorf("replaced %t, %v; want the new grant's token", replaced, err)
	}
}

// A home that is locked says so; nothing that helps is behind the lock.
func TestTokenOfALockedHome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	if _, err := w.start(failing(errLocked, "home.Get item")).Token(t.Context(), w.id, 0); !errors.Is(err, errLocked) {
		t.Errorf("error %v, want the home's", err)
	}
}

// A grant without refresh token is of use as long as its access token is.
func TestGrantWithoutRefreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "token", Times: 1,
		Omit: []string{"refresh_token", "refresh_token_issued_at", "refresh_token_expires_in"}}); err != nil {
		t.Fatal(err)
	}
	before := w.authorize()
	d := w.disk()
	if !d.NoRefreshToken || d.state != grant.Authorized || !d.RefreshTokenIssued.IsZero() || !d.RefreshUntil.IsZero() {
		t.Errorf("%s, record %+v; want one without refresh token", d, d.Record)
	}
	if g, err := w.start(nil).Token(t.Context(), w.id, 0); err != nil || g.AccessToken != before.AccessToken {
		t.Errorf("the access token is not served: %v", err)
	}
	w.pass(lifetime)
	var gone *keeper.GoneError
	if _, err := w.start(nil).Token(t.Context(), w.id, 0); !errors.As(err, &gone) || gone.Void {
		t.Errorf("error %#v, want that the company must be authorized again, though UPS refused nothing", err)
	}
	if d := w.disk(); d.state != grant.Expired {
		t.Errorf("the state is %s", d.state)
	}
	if n := w.front.counted("refresh"); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	w.authorize()
	if d := w.disk(); d.NoRefreshToken {
		t.Error("the new grant is without refresh token as well")
	}
	w.wantNextRefresh()
}

// An access token that UPS does not take is not handed out again, however long
// it should be good; one that somebody else got meanwhile will do.
func TestRefreshOfAnAccessTokenThatUPSDoesNotTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := w.authorize().AccessToken
	w.pass(time.Second)
	need := keeper.Need{Refused: refused}
	result, err := w.start(nil).Refresh(t.Context(), w.id, need)
	if err != nil || !result.Refreshed || result.AccessToken == refused {
		t.Fatalf("refreshed %t, %v", result.Refreshed, err)
	}
	w.pass(time.Second)
	again, err := w.start(nil).Refresh(t.Context(), w.id, need)
	if err != nil || again.Refreshed || again.AccessToken != result.AccessToken {
		t.Errorf("the second caller refreshed: %t, %v; want the token that is there", again.Refreshed, err)
	}
}
