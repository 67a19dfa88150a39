package keeper_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// caller marks the context of one call among many.
type caller struct{}

// callerOf is who made the call that a context is of.
func callerOf(ctx context.Context) string {
	name, _ := ctx.Value(caller{}).(string)
	return name
}

// TestPauseIsOfOneServer guards everybody else from a server's 429: a process that
// lives for months asks several, and a pause of one is none of another.
func TestPauseIsOfOneServer(t *testing.T) {
	t.Parallel()
	busy, idle := newWorld(t), newWorld(t)
	idle.client.Origin = "https://other.example"
	idle.place, idle.identity, idle.id.Company = busy.place, busy.identity, "Other Corp"
	busy.authorize()
	idle.authorize()
	if err := busy.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 429, RetryAfter: "7", Times: 1}); err != nil {
		t.Fatal(err)
	}
	p := busy.start(nil)
	p.Client = func(_ context.Context, id grant.ID) (*ups.Client, error) {
		client := busy.client
		if id.Company == idle.id.Company {
			client = idle.client
		}
		return &client, nil
	}
	var warned []string
	p.Notice = func(ctx context.Context, n keeper.Notice) {
		if n.Level == keeper.Warning {
			warned = append(warned, callerOf(ctx)+" "+n.ID.Company)
		}
	}
	waited := func() int { return len(p.waits) }
	p.during = func() {
		p.during = nil
		before := waited()
		if _, err := p.Refresh(t.Context(), idle.id, always); err != nil || waited() != before {
			t.Errorf("the other server's refresh: %d waits, %v", waited()-before, err)
		}
	}
	ctx := context.WithValue(t.Context(), caller{}, "first")
	if _, err := p.Refresh(ctx, busy.id, always); err != nil || waited() != 1 {
		t.Errorf("%d waits, %v; the test wants one", waited(), err)
	}
	if want := []string{"first " + busy.id.Company}; !slices.Equal(warned, want) {
		t.Errorf("warned %q, want %q", warned, want)
	}
}

// TestPauseIsSaidOnce guards whoever reads the warnings from one for each of the
// requests that a server turns away at once.
func TestPauseIsSaidOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const companies = 8
	worlds := make([]*world, companies)
	for i := range worlds {
		other := w.of(t, "Company "+string(rune('A'+i)))
		other.place = w.place
		other.authorize()
		worlds[i] = other
	}
	if err := w.ups.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 429, RetryAfter: "7", Times: companies}); err != nil {
		t.Fatal(err)
	}
	// All have asked before the first is turned away.
	var asked sync.WaitGroup
	asked.Add(companies)
	first := companies
	w.front.set(func() {
		w.front.arrives = func(string) {
			w.front.mu.Lock()
			first--
			waits := first >= 0
			w.front.mu.Unlock()
			if waits {
				asked.Done()
				asked.Wait()
			}
		}
	})
	p := w.start(nil)
	// The time passes once all of them wait.
	var waiting sync.WaitGroup
	waiting.Add(companies)
	var passes sync.Once
	p.Wait = func(ctx context.Context, d time.Duration) error {
		waiting.Done()
		waiting.Wait()
		passes.Do(func() { w.pass(d + time.Second) })
		return ctx.Err()
	}
	var mu sync.Mutex
	warnings := 0
	p.Notice = func(_ context.Context, n keeper.Notice) {
		mu.Lock()
		defer mu.Unlock()
		if n.Level == keeper.Warning {
			warnings++
		}
	}
	var all sync.WaitGroup
	for _, other := range worlds {
		all.Go(func() {
			if _, err := p.Refresh(t.Context(), other.id, always); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if warnings != 1 {
		t.Errorf("%d warnings of one pause", warnings)
	}
}

// TestManyGoroutinesShareOneKeeper guards a process that serves many at once: one
// keeper, any number of calls for the same grant and for others, and what is said in
// a call comes with that call's context.
func TestManyGoroutinesShareOneKeeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worlds := make([]*world, 4)
	for i := range worlds {
		other := w.of(t, "Company "+string(rune('A'+i)))
		other.place = w.place
		other.authorize()
		worlds[i] = other
	}
	p := w.start(nil)
	var mu sync.Mutex
	strays, events := []string{}, map[string]int{}
	p.Notice = func(ctx context.Context, n keeper.Notice) {
		mu.Lock()
		defer mu.Unlock()
		if name := callerOf(ctx); name != n.ID.Company {
			strays = append(strays, name+": "+n.Text)
		}
	}
	p.Happened = func(ctx context.Context, e grant.Event) {
		mu.Lock()
		defer mu.Unlock()
		if name := callerOf(ctx); name != e.ID.Company {
			strays = append(strays, name+": "+string(e.What))
		}
		events[e.ID.Company]++
	}
	for range 3 {
		w.pass(2 * time.Hour)
		sent := w.requests(func() {
			var all sync.WaitGroup
			for i := range 8 * len(worlds) {
				other := worlds[i%len(worlds)]
				ctx := context.WithValue(t.Context(), caller{}, other.id.Company)
				all.Go(func() {
					var err error
					switch i / len(worlds) % 4 {
					case 0, 1:
						_, err = p.Token(ctx, other.id, 30*time.Minute)
					case 2:
						_, err = p.Refresh(ctx, other.id, keeper.Need{MinValid: time.Minute})
					case 3:
						if _, err = p.Settle(ctx, other.id); errors.As(err, new(*keeper.PendingError)) {
							err = nil
						}
					}
					if err != nil {
						t.Errorf("%s: %v", other.id.Company, err)
					}
				})
			}
			all.Wait()
		})
		if sent != len(worlds) {
			t.Errorf("%d refreshes were sent for %d grants", sent, len(worlds))
		}
	}
	if len(strays) > 0 {
		t.Errorf("said in another's name: %q", strays)
	}
	for _, other := range worlds {
		if events[other.id.Company] != 3 {
			t.Errorf("%s: %d events", other.id.Company, events[other.id.Company])
		}
		other.wantNextRefresh()
	}
}
