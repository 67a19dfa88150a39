package service

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/upsauth/upsauth/internal/legible"
)

// Clock says when the next round is, by the clock on the wall: a machine that slept
// has missed its rounds, and the timers of a process that slept know nothing of it.
type Clock struct {
	Now func() time.Time
	// After is time.After; it may be early.
	After func(time.Duration) <-chan time.Time
	// Rand is a number from 0 up to 1.
	Rand func() float64
	// Step is the longest time between two looks at the wall clock.
	Step time.Duration
}

// jump is how far the wall clock may run away from a timer before it has been
// set or the machine has slept.
const jump = time.Minute

// Next is when the round after one that began at start is due: after every, and
// up to a tenth of it later, so that many machines do not act as one.
func (c Clock) Next(start time.Time, every time.Duration) time.Time {
	// Without the monotonic clock, which stands still while a machine sleeps.
	return start.Round(0).Add(every + time.Duration(c.Rand()*float64(every)/10))
}

// Wait returns when the wall clock is at due, when somebody asks for a round, or
// with the context, and says why in words where it is not simply time: also
// where the clock was set back, so that due is further away than every and the
// tenth. Tick is called with every look at the clock.
func (c Clock) Wait(ctx context.Context, due time.Time, every time.Duration, asked <-chan os.Signal, tick func()) (why string) {
	longest := every + every/10
	for {
		now := c.Now().Round(0)
		tick()
		left := due.Sub(now)
		switch {
		case left > longest+jump:
			return "the clock was set back"
		case left <= 0:
			return why
		}
		step := min(left, c.Step)
		select {
		case <-c.After(step):
		case <-asked:
			return "asked for by SIGHUP"
		case <-ctx.Done():
			return ""
		}
		if slept := c.Now().Round(0).Sub(now) - step; slept > jump {
			why = fmt.Sprintf("the clock went on by %s, as after sleep", legible.Duration((slept + step).Round(time.Second)))
		}
	}
}
