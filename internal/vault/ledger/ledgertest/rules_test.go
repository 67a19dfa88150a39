package ledgertest

import (
	"flag"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/vault/ledger"
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
	{"an open claim of another host is respected", 1},
	{"every open claim is respected, not the newest alone", 6},
	{"never", 54},
	{"its own token is sent again after 60 s", 3},
	{"a person's take-over waits 60 s", 3},
	{"after no answer others wait 60 s", 48},
	{"the database's clock decides", 3},
	{"only a clean commit is the right to send", 4},
	{"the intent is on disk before the claim", 47},
	{"a check before the first byte", 614},
	{"the token still stands at the check", 614},
	{"5 s of boot time", 28},
	{"the answer is sealed before the commit", 12},
	{"a commit never goes back", 0},
	{"a spare is tried before void", 17},
	{"an open claim keeps a grant from being void", 126},
	{"a refusal counts against the token that was sent", 17},
	{"a revoked grant stays revoked", 19},
	{"a tombstone stays on the host's disk", 219},
	{"an attempt without answer is never called unsent", 48},
	{"an intent of another host is not settled", 1947},
	{"a cloned directory is another host", 1396},
	{"nobody spends until all have answered", 36},
	{"the database's identity", 170},
	{"the highest claim number that was seen", 2530},
	{"a new epoch dates the open claims", 671},
	{"the roll call delivers sealed answers", 2546},
	{"the roll call inserts intents again", 759},
	{"a copied disk keeps what it has seen", 93310},
	{"nothing is said in a database that went back", 73625},
	{"an answer that gets another place is not a newer token", 5909},
	{"a claim without its attempt is ended by its host", 374},
	{"a spare that no disk has is ended by its host", 41202},
	{"of a contested grant all is told again", 1253},
}

// TestEachRuleIsNeeded leaves out one rule after the other.
//
// TestRepeatedClaimIsOld does it for the 5 s of database time, and
// TestIntentOfAMissingGrantIsInsertedAgain, TestAnswerOfAMissingGrantIsKept,
// TestNothingIsVoidBeforeAllHaveAnswered, TestRollCallWaitsForTheHostsOwnProcesses and
// TestAnOlderTokenThanTheOneSeenIsNotSent for what their names say. Some other rules can be left
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

// chosen is a world of two hosts, known and idle, in which nothing happens by chance.
func chosen(off string, picks map[string]int) *world {
	w := newWorld(func(what string, _ int) int { return picks[what] }, off)
	w.faulty = false
	for _, h := range w.hosts {
		w.until(h, "claim")
		w.kill(h)
		h.disk.journal = nil
	}
	return w
}

// A database that has lost a sign-in's flip gets the grant back from the host that signed in.
// Another host's attempt at it must be there by then.
func TestIntentOfAMissingGrantIsInsertedAgain(t *testing.T) {
	for _, off := range []string{"", "an intent is inserted again although its grant is missing"} {
		picks := map[string]int{"old primary": 1}
		w := chosen(off, picks)
		a, b := w.hosts[0], w.hosts[1]
		kept := len(w.db.past)
		w.signIn(a)
		for a.second != nil {
			w.stepSecond(a)
		}
		w.until(b, "answer")
		w.kill(b)
		picks["commits"] = len(w.db.past) - kept - 1
		w.failover("failover back")
		w.step(b)
		w.kill(b)
		w.until(a, "answer")
		if w.db.now.grant.Key == "K0" {
			t.Error("the grant did not come back")
		}
		if (w.bad != "") != (off != "") {
			t.Errorf("without %q: %s", off, w.bad)
		}
	}
}

// The same, where the other host has the answer. The grant is missing as it delivers it, so it
// keeps the answer, and an open claim keeps others from the token until the grant is back.
func TestAnswerOfAMissingGrantIsKept(t *testing.T) {
	for _, off := range []string{"", "an answer of a missing grant keeps others from its token"} {
		picks := map[string]int{"old primary": 1}
		w := chosen(off, picks)
		a, b := w.hosts[0], w.hosts[1]
		kept := len(w.db.past)
		w.signIn(a)
		for a.second != nil {
			w.stepSecond(a)
		}
		w.until(b, "its end")
		picks["commits"] = len(w.db.past) - kept - 1
		w.failover("failover back")
		w.step(b)
		w.kill(b)
		w.until(a, "answer")
		if (w.bad != "") != (off != "") {
			t.Errorf("without %q: %s", off, w.bad)
		}
		w.until(b, "claim")
		if token := w.db.now.grant.Token; off == "" && token.Generation != 2 {
			t.Errorf("the answer did not arrive: %v", token)
		}
	}
}

// A database has lost the claim of the host that has the answer. A refusal of an attempt that it
// has kept says nothing before that host has answered the roll call.
func TestNothingIsVoidBeforeAllHaveAnswered(t *testing.T) {
	for _, off := range []string{"", "nothing is void before all have answered"} {
		picks := map[string]int{"old primary": 1, "UPS": 1} // which refuses
		w := chosen(off, picks)
		a, b := w.hosts[0], w.hosts[1]
		w.until(b, "write")
		kept := len(w.db.past)
		w.pass(w.terms.TakeOverAfter)
		w.until(a, "its end")
		picks["commits"] = len(w.db.past) - kept - 1
		w.failover("failover back")
		w.until(b, "its end")
		w.look()
		if state := w.db.now.grant.State; off == "" && state != ledger.Interrupted {
			t.Errorf("it is %s", state)
		}
		if (w.bad != "") != (off != "") {
			t.Errorf("without %q: %s", off, w.bad)
		}
	}
}

// An old primary runs on, and a process that is connected to it is about to claim, for as long
// as it likes: no time counts before the claim. Another process of the same host must not say
// meanwhile, at the new primary, that the host is through.
func TestRollCallWaitsForTheHostsOwnProcesses(t *testing.T) {
	for _, off := range []string{"", "the epoch's lock"} {
		w := chosen(off, map[string]int{"old primary": 1})
		a, b := w.hosts[0], w.hosts[1]
		old := w.db
		w.until(a, "claim")
		w.failover("failover back")
		a.p.db = old
		w.stepSecond(a)
		w.step(b)
		w.pass(w.terms.TakeOverAfter)
		w.until(b, "answer")
		if asked := b.p != nil; asked != (off != "") {
			t.Errorf("without %q the other host has asked UPS: %t", off, asked)
		}
		w.until(a, "answer")
		if (w.bad != "") != (off != "") {
			t.Errorf("without %q: %s", off, w.bad)
		}
	}
}

// The database's machine is put back, and it is the same database: a host that has read a newer
// token there, and has seen no claim of it, does not send the older one.
func TestAnOlderTokenThanTheOneSeenIsNotSent(t *testing.T) {
	for _, off := range []string{"", "a generation that goes back is refused"} {
		picks := map[string]int{}
		w := chosen(off, picks)
		a, b := w.hosts[0], w.hosts[1]
		kept := len(w.db.past)
		w.until(b, "its end")
		w.until(a, "claim")
		w.kill(a)
		a.disk.journal = nil
		picks["commits"] = len(w.db.past) - kept - 1
		w.failover("machine back")
		w.until(a, "answer")
		if (w.bad != "") != (off != "") {
			t.Errorf("without %q: %s", off, w.bad)
		}
		w.until(b, "its end")
		w.until(a, "its end")
		if token := w.db.now.grant.Token; off == "" && token.Generation < 3 {
			t.Errorf("it is not refreshed: %v", token)
		}
	}
}
