// Package ledger has the rules by which several hosts share refresh tokens that work once.
//
// The right to send a token is a row, a claim, that can be inserted once. The rules are
// functions of what one transaction has read, and say what it is to write. They read and
// write nothing, and know no clock: every moment is the database's, unless a comment says
// otherwise. The transaction holds the lock of the grant's row from before it reads until
// it ends, so nothing that a rule has seen changes before its answer is written.
package ledger

import (
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

const (
	// SendWithin is how long after its claim a request may begin, by the database's clock
	// and by this host's CLOCK_BOOTTIME, which runs on while a machine is suspended.
	SendWithin = 5 * time.Second
	// CallEnds is how long after its claim a request that was sent in time, by a process
	// that was not paused, can still be on its way. Nobody sends the same token sooner,
	// whatever a person says: SendWithin, 30 s for the call, and as much to be sure.
	CallEnds = 60 * time.Second
	// AloneAfter is how long no other host may have reached the database for a host that
	// is new to it to ask whether it is the right one.
	AloneAfter = 24 * time.Hour
)

// State is what the ledger says of a grant.
type State string

const (
	// Live: its token may be claimed.
	Live State = "live"
	// Interrupted: UPS refused the token, and somebody may have an answer yet.
	Interrupted State = "interrupted"
	// Void: UPS refused the token, and nobody has another.
	Void State = "void"
	// Removing: a revoke has begun. Nothing brings it back.
	Removing State = "removing"
	// Moved: the grant lives in another vault. The row is its tombstone.
	Moved State = "moved"
)

// Made tells a token from all others of its grant: the generation that it belongs to, and
// the attempt that brought it. Two attempts at one generation may both be granted.
type Made struct {
	Generation int64
	Attempt    int
}

// Before reports whether other replaces m. Of two tokens of one generation the one of the
// later attempt stands: UPS was asked for it later.
func (m Made) Before(other Made) bool {
	if m.Generation != other.Generation {
		return m.Generation < other.Generation
	}
	return m.Attempt < other.Attempt
}

// Sighting is the newest token that a grant had when a host looked, and the epoch in which it
// looked last and found it. It is on the host's disk.
type Sighting struct {
	Token Made
	Epoch int64
}

// Saw is a sighting after one more look, at a grant with the same Token Vault Key.
func (s Sighting) Saw(token Made, epoch int64) Sighting {
	if token.Before(s.Token) {
		return s
	}
	return Sighting{token, epoch}
}

// Delivered is a sighting after this host has delivered an answer. From is the place by which
// the host knew the answer's token, makes the place that it has here, and standing is the
// grant's token. An old primary that runs on may have given the token another place, maybe a
// later one: that is no newer token.
func (s Sighting) Delivered(from, makes, standing Made, epoch int64) Sighting {
	if makes != standing {
		return s
	}
	if s.Token == from {
		return Sighting{standing, epoch}
	}
	return s.Saw(standing, epoch)
}

// Grant is the row of a slot.
type Grant struct {
	Key     string // Token Vault Key
	Token   Made   // the one that stands
	State   State
	Version int64 // another at each change
}

// Outcome is what became of a claim. It is written once.
type Outcome string

const (
	// Open: nobody has told yet. The token may be spent.
	Open Outcome = ""
	// Unsent: the request was never begun. Limited: UPS answered 429. NoByte: there was no
	// connection to write to. Each spends nothing.
	Unsent  Outcome = "unsent"
	Limited Outcome = "429"
	NoByte  Outcome = "no byte written"
	// NoAnswer: the host that claimed has no answer and will never get one. The token may
	// be spent.
	NoAnswer Outcome = "no answer"
	// Refused: UPS refused the token.
	Refused Outcome = "refused"
	// Granted: UPS gave a token, which is in the grant, or a spare on its host's disk.
	Granted Outcome = "granted"
)

// Spends reports whether the request may have reached UPS.
func (o Outcome) Spends() bool { return o != Unsent && o != Limited && o != NoByte }

// Claim is a row of the ledger. Beside Outcome nothing in it changes, except that a new
// epoch sets At of the open ones.
type Claim struct {
	// Number grows with each claim in the database.
	Number int64
	Key    string
	// Makes is the generation that the exchange makes, and the claim's place among the
	// attempts at it, from 1.
	Makes Made
	// Sends is the token that is sent; zero for a sign-in, which sends a code.
	Sends Made
	// Nonce is the intent's.
	Nonce       string
	Host        string
	Incarnation int64
	Purpose     grant.Purpose
	Epoch       int64
	At          time.Time
	Outcome     Outcome
}

// Intent is what is on a host's disk before it claims. An intent is claimed with its own
// nonce and never with another, so a claim whose commit is unknown can be repeated.
type Intent struct {
	Key         string
	Generation  int64 // that the exchange makes
	Sends       Made
	Nonce       string
	Host        string
	Incarnation int64
	Purpose     grant.Purpose
	Epoch       int64
}

// Terms are how long the open claims of others are respected.
type Terms struct {
	// TakeOverAfter counts from the claim; less than CallEnds is CallEnds. Never says that
	// only a person may take over.
	TakeOverAfter time.Duration
	Never         bool
	// TakeOver says that a person asked for it. It does not shorten CallEnds.
	TakeOver bool
}

// Book is what a transaction has read under the lock of a grant's row.
type Book struct {
	Now      time.Time // clock_timestamp(), not the transaction's beginning
	Identity Identity  // who the database is
	Meta     Meta
	Hosts    []Host // all
	Grant    Grant
	Claims   []Claim // all of the grant's
	// Holder is the claim, of whatever grant, with the number that this host has seen last;
	// nil where there is none.
	Holder *Claim
}

// Claim decides about an intent and returns the row: to insert, or the one that is there
// already because the claim is repeated, which is then not New. The errors are
// *FrozenError, *HostError, *ConflictError, *ClaimedError and *SettledError; none of them
// means that something was sent.
//
// A *ConflictError that WentBack is a sign as good as Meta.WentBack: the host begins a new
// epoch, so that whoever has the newer token delivers it. Where everybody has answered a roll
// call since, it says Missing instead, and the grant becomes what Missing returns.
//
// Unsettled are the nonces of the intents on this host's disk, seen is the newest token that
// the grant had when this host looked.
func (b Book) Claim(self Self, in Intent, seen Sighting, unsettled []string, t Terms) (row Claim, isNew bool, err error) {
	if err := b.Admits(self); err != nil {
		return Claim{}, false, err
	}
	if in.Epoch != b.Meta.Epoch {
		return Claim{}, false, &FrozenError{Epoch: b.Meta.Epoch, Answer: true}
	}
	if in.Host != self.ID || in.Incarnation != self.Incarnation {
		return Claim{}, false, &HostError{Host: self.ID, Name: self.Name, Reason: Stranger}
	}
	if mine, ok := b.ByNonce(in.Nonce); ok {
		if mine.Outcome != Open {
			return Claim{}, false, &SettledError{Claim: mine}
		}
		return mine, false, nil
	}
	if err := b.spendable(in.Key, in.Generation, in.Sends, in.Purpose); err != nil {
		return Claim{}, false, err
	}
	if in.Purpose == grant.Authorizing && b.attempts(in.Generation) > 0 {
		return Claim{}, false, &ConflictError{Grant: b.Grant} // a sign-in's code is sent once
	}
	if in.Purpose != grant.Authorizing && b.Grant.Token.Before(seen.Token) {
		missing := seen.Epoch < b.Meta.Epoch
		return Claim{}, false, &ConflictError{Grant: b.Grant, WentBack: !missing, Missing: missing}
	}
	for _, c := range b.Claims {
		until, free := t.Until(c, self.ID, unsettled, b.removed(c.Host))
		if c.Makes.Generation == in.Generation && (!free || b.Now.Before(until)) {
			return Claim{}, false, b.claimed(c, until)
		}
	}
	return b.row(in, Open), true, nil
}

// spendable refuses a token that is not, or no longer, the one to send: that of the grant as
// it stands, or a spare where UPS refused that one. A sign-in sends a code instead.
func (b Book) spendable(key string, generation int64, sends Made, purpose grant.Purpose) error {
	if purpose == grant.Authorizing {
		return nil
	}
	g := b.Grant
	standing := g.State == Live && sends == g.Token
	spare := g.State == Interrupted && sends.Generation == g.Token.Generation && sends != g.Token && !b.refused(sends)
	if g.Key != key || g.Token.Generation != generation-1 || !standing && !spare {
		return &ConflictError{Grant: g}
	}
	return nil
}

// Until is when another attempt may follow a claim; not ok is never, without a person. Of
// the host's own claims those whose intent is on its disk wait for CallEnds alone: the
// caller has the grant's lock, so the process that claimed is gone. A claim of its own
// without an intent is anybody's.
func (t Terms) Until(c Claim, host string, unsettled []string, removed bool) (until time.Time, ok bool) {
	switch {
	case !c.Outcome.Spends(), c.Outcome == Granted, c.Outcome == Refused:
		return time.Time{}, true
	case c.Outcome == NoAnswer, t.TakeOver, removed, c.Host == host && slices.Contains(unsettled, c.Nonce):
		return c.At.Add(CallEnds), true
	case t.Never:
		return time.Time{}, false
	}
	return c.At.Add(max(t.TakeOverAfter, CallEnds)), true
}

// Check is the last look before the first byte, of a claim whose commit was clean. Elapsed
// is by CLOCK_BOOTTIME since before the claim was asked for. The caller looks at its
// CLOCK_BOOTTIME once more when the answer is here, with InTime. After an error nothing
// may be sent, and the claim ends as Unsent.
func (b Book) Check(self Self, right Claim, elapsed time.Duration) error {
	if err := b.Admits(self); err != nil {
		return err
	}
	if right.Epoch != b.Meta.Epoch {
		return &FrozenError{Epoch: b.Meta.Epoch, Answer: true}
	}
	mine, ok := b.ByNonce(right.Nonce)
	if !ok || mine.Outcome != Open {
		return &ConflictError{Grant: b.Grant}
	}
	if err := b.spendable(mine.Key, mine.Makes.Generation, mine.Sends, mine.Purpose); err != nil {
		return err // an answer to an earlier attempt has come
	}
	for _, c := range b.Claims {
		if c.Makes.Generation == mine.Makes.Generation && mine.Makes.Before(c.Makes) && c.Outcome.Spends() {
			return b.claimed(c, time.Time{})
		}
	}
	if b.Now.Sub(mine.At) >= SendWithin || !InTime(elapsed) {
		return &LateError{After: max(b.Now.Sub(mine.At), elapsed)}
	}
	return nil
}

// claimed is the error of a claim that is respected.
func (b Book) claimed(c Claim, until time.Time) error {
	h, _ := b.host(c.Host)
	return &ClaimedError{Claim: c, Name: h.Name, Until: until}
}

// InTime reports whether a request may begin so long after its claim was asked for, by
// this host's CLOCK_BOOTTIME.
func InTime(elapsed time.Duration) bool { return elapsed < SendWithin }

// ByNonce returns the claim of an intent.
func (b Book) ByNonce(nonce string) (Claim, bool) {
	for _, c := range b.Claims {
		if c.Nonce == nonce {
			return c, true
		}
	}
	return Claim{}, false
}

// attempts is the highest attempt at a generation.
func (b Book) attempts(generation int64) (highest int) {
	for _, c := range b.Claims {
		if c.Makes.Generation == generation {
			highest = max(highest, c.Makes.Attempt)
		}
	}
	return highest
}

// row is the claim of an intent that has none.
func (b Book) row(in Intent, o Outcome) Claim {
	return Claim{
		Key: in.Key, Makes: Made{in.Generation, b.attempts(in.Generation) + 1}, Sends: in.Sends, Nonce: in.Nonce,
		Host: in.Host, Incarnation: in.Incarnation, Purpose: in.Purpose, Epoch: b.Meta.Epoch, At: b.Now, Outcome: o,
	}
}
