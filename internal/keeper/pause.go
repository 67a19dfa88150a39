package keeper

import (
	"context"
	"math/rand/v2"
	"time"
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

// pause keeps all grants from asking UPS for a while.
func (k *Keeper) pause(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	until := k.Now().Add(d)
	if !until.After(k.pausedUntil) {
		return
	}
	if k.Now().After(k.pausedUntil) {
		k.warn("UPS says that there are too many requests; going on in %s.", d.Round(time.Second))
	}
	k.pausedUntil = until
}

// awaitPause waits until UPS may be asked again.
func (k *Keeper) awaitPause(ctx context.Context) error {
	for {
		k.mu.Lock()
		left := k.pausedUntil.Sub(k.Now())
		k.mu.Unlock()
		if left <= 0 {
			return ctx.Err()
		}
		if err := k.Wait(ctx, left); err != nil {
			return err
		}
	}
}
