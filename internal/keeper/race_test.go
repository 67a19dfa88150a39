package keeper_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
)

const crowd = 16

// together lets a crowd of processes do something at once that have all read the
// same of the grant.
func (w *world) together(n int, do func(*process) error) []error {
	processes := make([]*process, n)
	record, _ := w.start(nil).vault.Record(w.t.Context(), w.id)
	for i := range processes {
		processes[i] = w.start(nil)
		processes[i].seen = keeper.SeenIn(record)
	}
	w.pass(time.Millisecond)
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i, p := range processes {
		all.Go(func() {
			<-start
			errs[i] = do(p)
		})
	}
	close(start)
	all.Wait()
	return errs
}

// Any number of processes that need a token at once make one refresh.
func TestManyProcessesMakeOneRefresh(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(*process) (grant.Grant, error)
	}{
		{"an expired token", func(p *process) (grant.Grant, error) { return p.Token(p.w.t.Context(), p.w.id, 0) }},
		{"a token good for 30 minutes", func(p *process) (grant.Grant, error) { return p.Token(p.w.t.Context(), p.w.id, 30*time.Minute) }},
		{"a new token whatever there is", func(p *process) (grant.Grant, error) {
			result, err := p.Refresh(p.w.t.Context(), p.w.id, keeper.Need{Always: true, Seen: p.seen})
			return result.Grant, err
		}},
	}
	all := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := all.of(t, tt.name)
			w.authorize()
			for range 2 {
				w.pass(2 * time.Hour)
				var mu sync.Mutex
				tokens := map[string]int{}
				sent := w.requests(func() {
					for _, err := range w.together(crowd, func(p *process) error {
						g, err := tt.do(p)
						mu.Lock()
						tokens[g.AccessToken]++
						mu.Unlock()
						return err
					}) {
						if err != nil {
							t.Error(err)
						}
					}
				})
				if sent != 1 || len(tokens) != 1 {
					t.Fatalf("%d processes made %d requests and got %d different tokens, want 1 and 1", crowd, sent, len(tokens))
				}
				for token := range tokens {
					if !w.works(token) {
						t.Error("UPS does not take the token")
					}
				}
			}
			if n := w.outcomes(sandbox.Reused); n != 0 {
				t.Errorf("a spent token was sent %d times", n)
			}
			w.wantSettled(w.disk(), grant.Authorized)
		})
	}
}

// Tokens of another generation than the one that a request read first are as new
// as its own would be; what it read is not. Neither has to do with when the process
// began, which may live for months, or with what its clock said.
func TestOnlyAnotherGenerationThanTheOneReadIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.authorize()
	w.pass(time.Second)
	lasting := w.start(nil)
	seen := keeper.SeenIn(g.Record)
	fresh := func(p *process, need keeper.Need, want bool) grant.Grant {
		t.Helper()
		result, err := p.Refresh(t.Context(), w.id, need)
		if err != nil || result.Refreshed != want {
			t.Errorf("refreshed %t, %v; want %t", result.Refreshed, err, want)
		}
		return result.Grant
	}
	first := fresh(w.start(nil), always, true)
	if taken := fresh(lasting, keeper.Need{Always: true, Seen: seen}, false); taken.AccessToken != first.AccessToken {
		t.Error("what was taken is not what the other process made")
	}
	fresh(lasting, keeper.Need{Always: true, Seen: keeper.SeenIn(first.Record)}, true)
	for range 3 { // one process, forced again and again
		w.pass(time.Minute)
		fresh(lasting, always, true)
	}
	w.clock.move(-400 * 24 * time.Hour)
	fresh(lasting, always, true)
	w.clock.move(400 * 24 * time.Hour)
	fresh(lasting, always, true)

	// It must satisfy the need all the same.
	seen = keeper.SeenIn(w.disk().Record)
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", AccessLifetime: time.Minute, Times: 1}); err != nil {
		t.Fatal(err)
	}
	fresh(w.start(nil), always, true)
	fresh(lasting, keeper.Need{Always: true, MinValid: 30 * time.Minute, Seen: seen}, true)

	// Another Token Vault Key is another generation too.
	seen = keeper.SeenIn(w.disk().Record)
	w.authorize()
	fresh(lasting, keeper.Need{Always: true, Seen: seen}, false)
}

// An answer that a cut-off refresh left behind was asked for before: a forced
// refresh asks for one of its own.
func TestASettledAnswerIsNoFreshOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	w.seal()
	sent := w.requests(func() {
		if result, err := w.start(nil).Refresh(t.Context(), w.id, always); err != nil || !result.Refreshed {
			t.Errorf("refreshed %t, %v", result.Refreshed, err)
		}
	})
	if d := w.disk(); sent != 1 || d.Generation != 3 {
		t.Errorf("%d requests were sent, %s; want one, and generation 3", sent, d)
	}
}

// Whatever comes last, the company has a whole grant in the end or none.
func TestAuthorizeRefreshAndRevokeAtOnce(t *testing.T) {
	t.Parallel()
	all := newWorld(t)
	for round := range 6 {
		w := all.of(t, "round "+string(rune('a'+round)))
		w.authorize()
		w.pass(time.Minute)
		ctx := t.Context()
		deeds := []func(*process) error{
			func(p *process) error { _, err := p.Authorize(ctx, w.login(nil)); return err },
			func(p *process) error { _, err := p.Refresh(ctx, w.id, always); return err },
			func(p *process) error { _, err := p.Token(ctx, w.id, 59*time.Minute+30*time.Second); return err },
			func(p *process) error { _, err := p.Token(ctx, w.id, 0); return err },
			func(p *process) error { _, _, err := p.vault.List(w.t.Context(), ""); return err },
		}
		if round%2 == 0 {
			deeds = append(deeds, func(p *process) error { return p.Revoke(ctx, w.id) })
		}
		next := make(chan func(*process) error, len(deeds))
		for _, deed := range deeds {
			next <- deed
		}
		for _, err := range w.together(len(deeds), func(p *process) error { return (<-next)(p) }) {
			if err != nil && !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("round %d: %v", round, err)
			}
		}
		d := w.disk()
		if n := w.outcomes(sandbox.Reused); n != 0 || len(d.journals) != 0 {
			t.Errorf("round %d: %d double spends, %s", round, n, d)
		}
		w.wantOnly(d.TokenVaultKey)
		if d.TokenVaultKey == "" {
			if _, err := w.start(nil).Token(ctx, w.id, 0); !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("round %d: %v, want that there is no grant", round, err)
			}
			continue
		}
		w.wantNextRefresh()
	}
}
