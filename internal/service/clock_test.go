package service

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wall is a clock on a wall that goes on as somebody waits for it; moves are
// what else is done to it, after so many waits.
type wall struct {
	now    time.Time
	waits  []time.Duration
	moves  map[int]time.Duration
	onWait func(n int)
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func (w *wall) clock() Clock {
	return Clock{
		Now: func() time.Time { return w.now },
		After: func(d time.Duration) <-chan time.Time {
			n := len(w.waits)
			w.waits = append(w.waits, d)
			if w.onWait != nil {
				w.onWait(n)
			}
			w.now = w.now.Add(d + w.moves[n])
			c := make(chan time.Time, 1)
			c <- w.now
			return c
		},
		Rand: func() float64 { return 0 },
		Step: 30 * time.Second,
	}
}

func TestNextIsSpreadOverATenth(t *testing.T) {
	for _, test := range []struct {
		random float64
		every  time.Duration
		want   time.Duration
	}{
		{0, 10 * time.Minute, 10 * time.Minute},
		{0.5, 10 * time.Minute, 10*time.Minute + 30*time.Second},
		{0.999999, 10 * time.Minute, 11*time.Minute - 60*time.Microsecond},
		{0.5, 7 * 24 * time.Hour, 7*24*time.Hour + 504*time.Minute},
	} {
		c := Clock{Rand: func() float64 { return test.random }}
		if got := c.Next(noon, test.every).Sub(noon); got != test.want {
			t.Errorf("%g of every %s: %s, want %s", test.random, test.every, got, test.want)
		}
	}
}

// What comes of time.Now has two clocks in it, and subtraction takes the one
// that sleeps along with the machine.
func TestNextIsOnTheWallClockAlone(t *testing.T) {
	c := Clock{Rand: func() float64 { return 0 }}
	if next := c.Next(time.Now(), time.Minute); strings.Contains(next.String(), "m=") {
		t.Errorf("the next round is at %s", next)
	}
}

func TestWaitGoesByTheWallClock(t *testing.T) {
	const every = 10 * time.Minute
	for _, test := range []struct {
		name  string
		moves map[int]time.Duration
		why   string
		end   time.Duration // by the wall clock
		waits int
	}{
		{"nothing happens", nil, "", every, 20},
		{"sleep beyond the round", map[int]time.Duration{3: 5 * time.Hour}, "went on by 5h0m30s", 5*time.Hour + 2*time.Minute, 4},
		{"sleep that ends before the round", map[int]time.Duration{3: 4 * time.Minute}, "went on by 4m30s", every, 12},
		{"timers that are late", map[int]time.Duration{0: 20 * time.Second, 1: 20 * time.Second}, "", every, 19},
		{"timers that are early", map[int]time.Duration{0: -29 * time.Second}, "", every, 21},
		{"set back by days", map[int]time.Duration{2: -48 * time.Hour}, "set back", -48*time.Hour + 90*time.Second, 3},
		{"set back by a little", map[int]time.Duration{2: -time.Minute}, "", every, 22},
		{"set ahead by days", map[int]time.Duration{2: 48 * time.Hour}, "went on by 48h0m30s", 48*time.Hour + 90*time.Second, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &wall{now: noon, moves: test.moves}
			ticks := 0
			why := w.clock().Wait(t.Context(), noon.Add(every), every, nil, func() { ticks++ })
			if test.why == "" && why != "" || !strings.Contains(why, test.why) {
				t.Errorf("it says %q, want %q", why, test.why)
			}
			if got := w.now.Sub(noon); got != test.end || len(w.waits) != test.waits || ticks != test.waits+1 {
				t.Errorf("it ended after %s, %d waits and %d ticks, want %s and %d", got, len(w.waits), ticks, test.end, test.waits)
			}
			for _, d := range w.waits {
				if d > 30*time.Second || d <= 0 {
					t.Errorf("it looked away for %s", d)
				}
			}
		})
	}
}

// The clock can be set back before anybody waits, as while the first round after a
// boot is made.
func TestWaitForARoundThatIsFarAway(t *testing.T) {
	w := &wall{now: noon}
	if why := w.clock().Wait(t.Context(), noon.Add(3*time.Hour), 10*time.Minute, nil, func() {}); !strings.Contains(why, "set back") || len(w.waits) != 0 {
		t.Errorf("it waited %d times and says %q", len(w.waits), why)
	}
}

func TestWaitForWhatIsOver(t *testing.T) {
	w := &wall{now: noon}
	if why := w.clock().Wait(t.Context(), noon.Add(-time.Second), time.Minute, nil, func() {}); why != "" || len(w.waits) != 0 {
		t.Errorf("it waited %d times and says %q", len(w.waits), why)
	}
}

func TestWaitEndsWhenAskedOrStopped(t *testing.T) {
	never := func(time.Duration) <-chan time.Time { return nil }
	c := Clock{Now: func() time.Time { return noon }, After: never, Step: time.Second}
	asked := make(chan os.Signal, 1)
	asked <- syscall.SIGHUP
	if why := c.Wait(t.Context(), noon.Add(time.Hour), time.Hour, asked, func() {}); !strings.Contains(why, "SIGHUP") {
		t.Errorf("asked, it says %q", why)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if why := c.Wait(ctx, noon.Add(time.Hour), time.Hour, asked, func() {}); why != "" {
		t.Errorf("stopped, it says %q", why)
	}
}
