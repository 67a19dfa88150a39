package ledger

import (
	"flag"
	"strings"
	"testing"
)

var only = flag.String("ledger.rule", "", "the one rule to leave out")

var tries = flag.Uint64("ledger.tries", 300, "schedules that each rule is left out of")

// rules are those that the model can leave out. Every one of them is needed: without it
// some schedule sends a token twice, loses one, or is never done.
var rules = []string{
	"an open claim of another host is respected",
	"every open claim is respected, not the newest alone",
	"never",
	"its own token is sent again after 60 s",
	"a person's take-over waits 60 s",
	"after no answer others wait 60 s",
	"the database's clock decides",
	"only a clean commit is the right to send",
	"only the state live is claimed",
	"the intent is on disk before the claim",
	"a check before the first byte",
	"my attempt is the newest",
	"the token still stands at the check",
	"5 s of database time",
	"5 s of boot time",
	"the same epoch at the check",
	"the answer is sealed before the commit",
	"a commit never goes back",
	"of two granted answers the later stands",
	"a spare is tried before void",
	"an open claim keeps a grant from being void",
	"nothing is void before all have answered",
	"a refusal counts against the token that was sent",
	"a revoked grant stays revoked",
	"a tombstone stays on the host's disk",
	"an attempt without answer is never called unsent",
	"an intent of another host is not settled",
	"a cloned directory is another host",
	"a removed host does not spend",
	"nobody spends until all have answered",
	"the database's identity",
	"the highest claim number that was seen",
	"a generation that goes back is refused",
	"a new epoch dates the open claims",
	"the roll call delivers sealed answers",
	"the roll call inserts intents again",
}

// TestEachRuleIsNeeded leaves out one rule after the other.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, rule := range rules {
		if !strings.Contains(rule, *only) {
			continue
		}
		seed := uint64(0)
		w := (*world)(nil)
		for ; seed < *tries; seed++ {
			if w = play(seed, rule, false); w.bad != "" && play(seed, "", false).bad == "" {
				break
			}
		}
		if w.bad == "" {
			t.Logf("MISSED %-55s nothing happens in %d schedules", rule, seed)
			continue
		}
		t.Logf("%-55s schedule %d: %s", rule, seed, w.bad)
	}
}
