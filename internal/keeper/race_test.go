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

// together lets a crowd of processes, begun before, do something at once.
func (w *world) together(n int, do func(*process) error) []error {
	processes := make([]*process, n)
	for i := range processes {
		processes[i] = w.start(nil)
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
			result, err := p.Refresh(p.w.t.Context(), p.w.id, always)
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

// A token that somebody else made since this process began is as new as one of
// its own; one that was there before is not.
func TestOnlyATokenMadeSinceTheProcessBeganIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.authorize()
	w.pass(time.Second)
	early := w.start(nil)
	w.pass(time.Second)
	first, err := w.start(nil).Refresh(t.Context(), w.id, always)
	if err != nil || !first.Refreshed {
		t.Fatalf("refreshed %t, %v", first.Refreshed, err)
	}
	w.pass(time.Second)
	taken, err := early.Refresh(t.Context(), w.id, always)
	if err != nil || taken.Refreshed || taken.AccessToken != first.AccessToken {
		t.Errorf("the process that began earlier refreshed: %t, %v", taken.Refreshed, err)
	}
	own, err := w.start(nil).Refresh(t.Context(), w.id, always)
	if err != nil || !own.Refreshed {
		t.Errorf("the process that began later refreshed: %t, %v", own.Refreshed, err)
	}
	// It must satisfy the need all the same.
	late := w.start(nil)
	w.pass(time.Second)
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", AccessLifetime: time.Minute, Times: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.start(nil).Refresh(t.Context(), w.id, always); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second)
	if result, err := late.Refresh(t.Context(), w.id, keeper.Need{Always: true, MinValid: 30 * time.Minute}); err != nil || !result.Refreshed {
		t.Errorf("a token that is too short was taken: refreshed %t, %v", result.Refreshed, err)
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
			func(p *process) error { _, _, err := p.vault.List(""); return err },
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
