package ledgertest

import (
	"flag"
	"strings"
	"testing"
)

var (
	only  = flag.String("ledger.rule", "", "leave out the rules with this in their names alone")
	tries = flag.Uint64("ledger.tries", 0, "look for schedules again, among so many")
)

// rules are those that the model can leave out, each with the number of a schedule that then
// sends a token twice, loses one, calls a living grant void, or is never done. A change of
// the model gives the numbers to other schedules: -ledger.tries finds new ones.
var rules = []struct {
	name     string
	schedule uint64
}{
	{"an open claim of another host is respected", 6},
	{"every open claim is respected, not the newest alone", 6},
	{"never", 177},
	{"its own token is sent again after 60 s", 7},
	{"a person's take-over waits 60 s", 6},
	{"after no answer others wait 60 s", 20},
	{"the database's clock decides", 0},
	{"only a clean commit is the right to send", 0},
	{"the intent is on disk before the claim", 89},
	{"a check before the first byte", 492},
	{"the token still stands at the check", 492},
	{"5 s of boot time", 42},
	{"the answer is sealed before the commit", 11},
	{"a commit never goes back", 94},
	{"a spare is tried before void", 1146},
	{"an open claim keeps a grant from being void", 126},
	{"a refusal counts against the token that was sent", 110},
	{"a revoked grant stays revoked", 139},
	{"a tombstone stays on the host's disk", 136},
	{"an attempt without answer is never called unsent", 20},
	{"an intent of another host is not settled", 180},
	{"a cloned directory is another host", 2623},
	{"nothing is void before all have answered", 5962},
	{"nobody spends until all have answered", 72},
	{"the database's identity", 36},
	{"the highest claim number that was seen", 1995},
	{"a generation that goes back is refused", 198},
	{"a new epoch dates the open claims", 343},
	{"the roll call delivers sealed answers", 20},
	{"the roll call inserts intents again", 2360},
}

// TestEachRuleIsNeeded leaves out one rule after the other.
//
// TestRepeatedClaimIsOld does it for the 5 s of database time. Some other rules can be left
// out without harm in any schedule that was found, because another one does the same; tables
// guard them:
//
//   - My attempt is the newest, at the check: whoever may follow waits at least 60 s, and then
//     the 5 s of the check are over too. It is what remains if a clock was set.
//   - The same epoch, at the check: a database that changed hands has lost the claim, or has
//     all of it, and nobody spends in the new epoch while this process holds its epoch's lock.
//   - Only a live grant is claimed: a refused token is refused again.
//   - Of two granted answers the later stands: otherwise it is a spare, and tried later.
//   - A removed host does not spend: it would have to answer the roll call like everybody. It
//     keeps what the person was told: nothing is sent by a host that nobody waits for.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, rule := range rules {
		if !strings.Contains(rule.name, *only) {
			continue
		}
		w := play(rule.schedule, rule.name, false)
		found := w.bad != ""
		seed := rule.schedule
		for next := uint64(0); !found && next < *tries; next++ {
			seed = next
			w = play(next, rule.name, false)
			found = w.bad != "" && play(next, "", false).bad == ""
		}
		if !found {
			t.Errorf("%s: nothing happens without it; -ledger.tries=3000 looks for another schedule", rule.name)
			continue
		}
		t.Logf("%-52s schedule %4d: %s", rule.name, seed, w.bad)
	}
}

// A claim that is repeated after a pause is as old as it was at first, although this host's
// boot time counts from the last try.
func TestRepeatedClaimIsOld(t *testing.T) {
	for _, off := range []string{"", "5 s of database time"} {
		w := newWorld(func(string, int) int { return 0 }, off)
		w.faulty = false
		a, b := w.hosts[0], w.hosts[1]
		w.until(b, "claim")
		b.p = nil
		w.until(a, "check")
		a.p.at = "claim" // nobody knows whether it was committed
		w.pass(w.terms.TakeOverAfter)
		w.step(a)
		w.step(a) // the check, while a is the newest
		w.until(b, "answer")
		w.until(a, "answer")
		if (w.bad != "") != (off != "") {
			t.Errorf("without %q: %s", off, w.bad)
		}
	}
}
