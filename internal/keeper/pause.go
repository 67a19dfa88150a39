package keeper

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

// pauseAfter is how long to wait after the nth answer 429 in a row, counted
// from 0: what UPS asks for, else longer each time, with jitter. It is not ok
// to wait longer than two minutes or more than five times.
func pauseAfter(asked time.Duration, n int) (time.Duration, bool) {
	const most, times = 2 * time.Minute, 5
	if n >= times || asked > most {
		return 0, false
	}
	if asked > 0 {
		return asked + rand.N(asked/10+time.Millisecond), true
	}
	base := time.Second << n
	return base/2 + rand.N(base), true
}

// pauses are when UPS's servers may be asked again after they said that there were
// too many requests. A server counts the requests of all grants together, and
// nothing of another server's.
type pauses struct {
	mu    sync.Mutex
	until map[string]time.Time // by origin
}

// extend keeps everybody from asking a server until then, and reports whether
// nobody was kept from it before.
func (p *pauses) extend(origin string, now, until time.Time) (begun bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	before := p.until[origin]
	if until.After(before) {
		p.until[origin] = until
	}
	return !before.After(now)
}

// left is how long a server may not be asked yet.
func (p *pauses) left(origin string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.until[origin].Sub(now)
	if left <= 0 {
		delete(p.until, origin)
	}
	return left
}

// pause keeps all grants from asking a server for a while, and says so once.
func (k *Keeper) pause(ctx context.Context, id grant.ID, origin string, d time.Duration) {
	now := k.Now()
	if k.pauses.extend(origin, now, now.Add(d)) {
		k.warn(ctx, id, "UPS reports too many requests; upsauth continues in %s.", legible.Duration(d.Round(time.Second)))
	}
}

// awaitPause waits until a server may be asked again.
func (k *Keeper) awaitPause(ctx context.Context, origin string) error {
	for {
		left := k.pauses.left(origin, k.Now())
		if left <= 0 {
			return ctx.Err()
		}
		if err := k.Wait(ctx, left); err != nil {
			return err
		}
	}
}
