package ledgertest

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestModel explores the rules over random schedules, the same ones each time unless
// -rapid.seed or -rapid.checks say otherwise. A failure is made small, and can be played
// again with -rapid.failfile.
func TestModel(t *testing.T) {
	for name, value := range map[string][2]string{"rapid.checks": {"100", "150"}, "rapid.seed": {"0", "19"}} {
		if f := flag.Lookup(name); f.Value.String() == value[0] {
			if err := f.Value.Set(value[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) }, "")
		w.tracing = true
		w.run(80)
		if w.bad != "" {
			t.Fatalf("%s\n%s", w.bad, strings.Join(w.trace, "\n"))
		}
	})
}

var (
	long          = flag.Duration("ledger.long", 0, "explore schedules for so long, at least")
	firstSchedule = flag.Uint64("ledger.schedule", 0, "the number of the first schedule that is played")
	schedules     = flag.Uint64("ledger.schedules", 400, "how many schedules are played, at least")
)

// play plays one schedule. With off it leaves out a rule.
func play(seed uint64, off string, tracing bool) *world {
	r := rand.New(rand.NewPCG(seed, 19))
	w := newWorld(func(_ string, n int) int { return r.IntN(n) }, off)
	w.tracing = tracing
	w.run(60 + r.IntN(100))
	return w
}

// TestSchedules plays many more, each by its number.
func TestSchedules(t *testing.T) {
	began, told, steps := time.Now(), map[window]int{}, 0
	seed := *firstSchedule
	for ; seed < *firstSchedule+*schedules || time.Since(began) < *long; seed++ {
		w := play(seed, "", false)
		steps += w.steps
		for k, n := range w.told {
			told[k] += n
		}
		if w.bad != "" {
			w = play(seed, "", true)
			t.Fatalf("schedule %d, UPS %s: %s\n%s", seed, w.ups.mode, w.bad, strings.Join(w.trace, "\n"))
		}
	}
	t.Logf("%d schedules, %d steps, %v", seed-*firstSchedule, steps, told)
}
