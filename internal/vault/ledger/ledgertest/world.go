// Package ledgertest is a model of several hosts that share a grant by the ledger's rules: a
// world in memory, in which anything may happen at any time. A real database can be played
// the same schedules.
package ledgertest

import (
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// world is several hosts, the databases that they have had, and UPS, all in memory. One
// call of step is one thing that happens. Whatever happens by chance is asked of pick.
type world struct {
	pick   func(what string, n int) int // 0 to n-1
	off    string                       // the rule that is left out
	faulty bool
	now    time.Duration // true time
	db     *database     // the one that is the primary
	hosts  []*host
	ups    *ups
	terms  ledger.Terms
	cause  window // what a token that nobody has any more is lost to in this step

	told    map[window]int // losses and double spends by the window that each is
	revoked map[string]bool
	lost    map[int]bool // lineages whose good token nobody has
	rolls   []roll
	lostRev bool // a tombstone was lost with its disk, or a person did not wait for it
	nonces  int
	steps   int
	ticks   int
	bad     string // the first thing that must not be
	trace   []string
	tracing bool

	latest   latest
	compared map[string]int
}

type window string

const (
	unsealed    window = "a: between the first byte and the seal"
	paused      window = "b: a pause between the last check and the write"
	diskDied    window = "c: the disk died between seal and commit"
	undelivered window = "d: a take-over while the owner holds an answer"
	unknownHost window = "e: a host's registration was lost with the primary"
	restored    window = "f: a restored disk or machine"
	byOrder     window = "g: a person did not wait for a host that still came"
	withdrawn   window = "the customer withdrew"
)

var start = time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC)

func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
		w.say("BAD: %s", w.bad)
	}
}

func (w *world) say(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%4d %9s ", w.steps, w.now)+fmt.Sprintf(format, args...))
	}
}
