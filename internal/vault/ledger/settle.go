package ledger

import (
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// Settle is what a host says of an intent of its own that has no answer, once the process
// that wrote it is gone: the row to insert, or to change, or none where there is nothing to
// say. The caller has the grant's lock, and has looked for an answer. The error is a
// *FrozenError: in a database that has lost claims, the host would say the wrong thing.
//
// An intent of this epoch without a claim was never sent, as only a clean claim is. Its
// nonce is taken for good by a row that says so; a claim that is still on its way then finds
// it. An intent of an earlier epoch may have been claimed where nobody can look any more.
func (b Book) Settle(self Self, in Intent) (row Claim, write bool, err error) {
	if err := b.Current(self); err != nil {
		return Claim{}, false, err
	}
	if in.Host != self.ID {
		return Claim{}, false, nil // a copy of another host's disk knows nothing of its process
	}
	mine, ok := b.ByNonce(in.Nonce)
	switch {
	case ok && mine.Outcome != Open:
		return mine, false, nil
	case ok:
		mine.Outcome = NoAnswer
		return mine, true, nil
	case in.Epoch != b.Meta.Epoch:
		return b.row(in, NoAnswer), true, nil
	}
	return b.row(in, Unsent), true, nil
}

// Held is what a host has on its disk of a grant's attempts, by their nonces.
type Held struct {
	Attempts []string // all
	Answers  []string // those with a sealed answer whose token may still be sent
}

// Disown is what a host says of its own claims where UPS has refused the token that stands, so
// that nobody waits for what it does not have: each claim that it ends has no answer. That is an
// open one without its attempt, which the journal let go of as others came and the database went
// back, or which was lost as the disk was put back; and a spare that no disk had room for. It waits
// for the end of a call, as a process may have lost its disk and not its connection to UPS. A claim
// of an earlier incarnation may be that of a machine of which this one is a clone: it is waited
// for as for another host's, or until a person takes over. The caller has the grant's lock. The
// error is a *FrozenError.
//
// While a token stands such a claim is respected as anybody's.
func (b Book) Disown(self Self, held Held, t Terms) (ended []Claim, err error) {
	if err := b.Current(self); err != nil {
		return nil, err
	}
	g := b.Grant
	if g.State != Interrupted {
		return nil, nil
	}
	for _, c := range b.Claims {
		if c.Key != g.Key || c.Host != self.ID || c.Purpose == grant.Authorizing {
			continue
		}
		spare := c.Outcome == Granted && c.Makes.Generation == g.Token.Generation && c.Makes != g.Token && !b.refused(c.Makes)
		if !(c.Outcome == Open && !slices.Contains(held.Attempts, c.Nonce) || spare && !slices.Contains(held.Answers, c.Nonce)) {
			continue
		}
		until, ok := c.At.Add(CallEnds), true
		if c.Incarnation != self.Incarnation {
			open := c
			open.Outcome = Open
			until, ok = t.Until(open, "", nil, false)
		}
		if ok && !b.Now.Before(until) {
			c.Outcome = NoAnswer
			ended = append(ended, c)
		}
	}
	return ended, nil
}

// Reinsert is what a host says at the roll call of an intent of its own: an open claim, where the
// database has lost it and its token may still be sent, or its answer may be a spare. Answered says
// that an answer is sealed here. The row that is not to be written is the one that is there, if
// there is one. The caller has every process of this host out of the way. The error is a
// *FrozenError.
//
// A missing grant may come back with an answer to a sign-in that another host delivers. A
// sign-in's code is of no use to anybody else.
func (b Book) Reinsert(self Self, in Intent, answered bool) (row Claim, write bool, err error) {
	if err := b.Current(self); err != nil {
		return Claim{}, false, err
	}
	there, known := b.ByNonce(in.Nonce)
	overtaken := in.Key == b.Grant.Key && (b.Grant.Token.Generation > in.Generation || b.Grant.Token.Generation == in.Generation && !answered)
	if known || overtaken || in.Host != self.ID || in.Purpose == grant.Authorizing {
		return there, false, nil
	}
	return b.row(in, Open), true, nil
}

// IsUntold reports whether the ledger has no claim of a sealed answer that is another one than the
// token that stands: a spare. The answer is to an attempt at the generation of that token, with a
// nonce and, as far as its host knows, a place. Claims are those of that generation.
func IsUntold(token Made, claims []Claim, nonce string, place int) bool {
	stands := ""
	for _, c := range claims {
		if c.Nonce == nonce {
			return false
		}
		if c.Makes == token && c.Outcome == Granted {
			stands = c.Nonce
		}
	}
	// A token that was put back may stand without its claim, and its place be that of another
	// attempt, which did not bring it.
	return stands != "" || place != token.Attempt
}

// Told is a claim with what became of it, where nothing was told before. That UPS granted it
// is certain, and replaces what its host said before it found the answer.
func (c Claim) Told(o Outcome) (row Claim, write bool) {
	if c.Outcome != Open && (o != Granted || c.Outcome == Granted) {
		return c, false
	}
	c.Outcome = o
	return c, true
}

// Delivery is what becomes of a sealed answer.
type Delivery struct {
	Claim Claim // to be written, with its number where the database has the row
	Grant Grant // to be written where it Stands
	// Stands says that the answer becomes the grant's. Otherwise it is a spare, where it is
	// of the grant's generation, or of no more use.
	Stands bool
}

// Deliver puts the sealed answer to an attempt in place. Any host may do that, also one that
// was removed. Makes is the token's, as it was claimed. A database that lost the claim gets
// it again. Where it gave its place to another attempt meanwhile, this one gets a new place,
// and does not stand over one that is there: nobody can tell which was sent later.
func (b Book) Deliver(in Intent, makes Made) Delivery {
	c, ok := b.ByNonce(in.Nonce)
	taken := false
	if !ok {
		c = b.row(in, Granted)
		for _, other := range b.Claims {
			taken = taken || other.Makes == makes
		}
		if !taken {
			c.Makes = makes
		}
	}
	c, _ = c.Told(Granted)
	row, stands := b.Grant.Commit(in.Key, c.Makes)
	if taken && row.Token.Generation == b.Grant.Token.Generation {
		row, stands = b.Grant, false
	}
	return Delivery{Claim: c, Grant: row, Stands: stands}
}

// Commit is the row of a grant once a token is put in place that this host made, or has read
// here before the database went back.
func (g Grant) Commit(key string, made Made) (row Grant, stands bool) {
	if g.Key != key || g.State == Removing || g.State == Moved || !g.Token.Before(made) {
		return g, false
	}
	return Grant{Key: key, Token: made, State: Live, Version: g.Version + 1}, true
}

// BroughtBack is the row of a grant that a database that went back does not have, as a host has
// seen it. What was known of a token that was refused goes with the claims: its refusal says it
// again.
func (g Grant) BroughtBack() Grant {
	if g.State != Void {
		g.State = Live
	}
	g.Version++
	return g
}

// Flip is the row of a slot once a sign-in's answer is put in place of the grant that its
// sign-in saw. The errors are *ConflictError, where another came first, and *ClaimedError.
func (b Book) Flip(replaces, key string, made Made, t Terms) (Grant, error) {
	if b.Grant.Key != replaces || b.Grant.State == Removing || b.Grant.State == Moved {
		return b.Grant, &ConflictError{Grant: b.Grant}
	}
	if b.Grant.State != Void { // else no answer can bring the one before back
		if err := b.busy(t); err != nil {
			return b.Grant, err
		}
	}
	return Grant{Key: key, Token: made, State: Live, Version: b.Grant.Version + 1}, nil
}

// FlipBack is the row of a slot once a grant is in place again that had replaced another before the
// database went back. Nobody waits for an answer of the one before: it had ended. The error is a
// *ConflictError.
func (b Book) FlipBack(replaces string, back Grant) (Grant, error) {
	if b.Grant.Key != replaces || b.Grant.State == Removing || b.Grant.State == Moved {
		return b.Grant, &ConflictError{Grant: b.Grant}
	}
	back.Version = b.Grant.Version
	return back.BroughtBack(), nil
}

// Rename is the row under another name. Import is the row that takes a grant in that is newer
// than what is there.
func (b Book) Rename(version int64, t Terms) (Grant, error) {
	if b.Grant.Version != version || b.Grant.State == Removing || b.Grant.State == Moved {
		return b.Grant, &ConflictError{Grant: b.Grant}
	}
	if err := b.busy(t); err != nil {
		return b.Grant, err
	}
	row := b.Grant
	row.Version++
	return row, nil
}

// Move is the tombstone of a grant whose token somebody else is going to spend. It needs what a
// claim needs, as that token has to be the newest one. An answer that arrives there later would be
// of no use, so every attempt must have ended, or its host be removed. The errors are those of
// Admits and of Rename.
func (b Book) Move(self Self, version int64) (Grant, error) {
	if err := b.Admits(self); err != nil {
		return b.Grant, err
	}
	row, err := b.Rename(version, Terms{Never: true})
	if err != nil {
		return b.Grant, err
	}
	row.State = Moved
	return row, nil
}

// Left is the tombstone of a grant that has left before the database went back. It asks nobody: the
// grant lives in another vault.
func (b Book) Left(version int64) (Grant, error) {
	row := b.Grant
	if row.Version != version || row.State == Removing || row.State == Moved {
		return row, &ConflictError{Grant: row}
	}
	row.State = Moved
	row.Version++
	return row, nil
}

// Import says what Rename says. Where the slot does not have the grant, what a host is yet to tell may
// belong there, so it says what Admits says first.
func (b Book) Import(self Self, version int64, key string, made Made) (Grant, error) {
	if b.Grant.Key != key {
		if err := b.Admits(self); err != nil {
			return b.Grant, err
		}
	}
	row, err := b.Rename(version, Terms{Never: true})
	if err != nil {
		return b.Grant, err
	}
	if row.Key == key && !row.Token.Before(made) {
		return b.Grant, &ConflictError{Grant: b.Grant}
	}
	row.Key, row.Token, row.State = key, made, Live
	return row, nil
}

// Arrive is the row of a grant that is to be moved here. Until Arrived it is as good as the
// tombstone of the grant in the other vault: nobody claims it, and no answer is put in place.
// It takes a slot without a grant, or one whose tombstone is of the same grant and not newer.
// Own says that the tombstone which is there, of whatever grant, tells of the very vault that
// the grant comes from: there somebody has authorized the company again. What a host is yet to
// tell may belong in the slot, so the rules of a claim hold. The errors are those of Admits and
// of Rename.
func (b Book) Arrive(self Self, version int64, key string, generation int64, own bool) (Grant, error) {
	g := b.Grant
	if err := b.Admits(self); err != nil {
		return g, err
	}
	switch {
	case g.Version != version, g.Key != "" && g.State != Moved,
		g.Key == key && generation < g.Token.Generation,
		g.Key != "" && g.Key != key && !own:
		return g, &ConflictError{Grant: g}
	}
	if err := b.busy(Terms{Never: true}); err != nil {
		return g, err
	}
	// Of the token that was moved away the place among the attempts is known, and what was
	// told of it counts on.
	token := Made{Generation: generation, Attempt: 1}
	if g.Key == key && g.Token.Generation == generation {
		token = g.Token
	}
	return Grant{Key: key, Token: token, State: Moved, Version: g.Version + 1}, nil
}

// Arrived is the row of a grant once its old vault has a tombstone. Void says that UPS had
// refused its token there.
func (b Book) Arrived(version int64, void bool) (Grant, error) {
	row := b.Grant
	if row.Version != version || row.State != Moved {
		return row, &ConflictError{Grant: row}
	}
	row.State = Live
	if void {
		row.State = Void
	}
	row.Version++
	return row, nil
}

// Revoke is the row at the beginning of a revoke. It waits for nobody: an answer that is on
// its way finds the row and is not put in place. The host keeps a mark on its own disk: where it
// later finds the grant alive, the database went back, and it revokes again.
func (b Book) Revoke(version int64) (Grant, error) {
	if b.Grant.Version != version {
		return b.Grant, &ConflictError{Grant: b.Grant}
	}
	row := b.Grant
	row.State = Removing
	row.Version++
	return row, nil
}

// busy says whose attempt at the next generation is respected yet.
func (b Book) busy(t Terms) error {
	for _, c := range b.Claims {
		if c.Purpose == grant.Authorizing || c.Makes.Generation <= b.Grant.Token.Generation {
			continue
		}
		if until, ok := t.Until(c, "", nil, b.removed(c.Host)); !ok || b.Now.Before(until) {
			return b.claimed(c, until)
		}
	}
	return nil
}

// Judge is the state of a grant by what is told of all its claims: it is asked whenever one
// of them ends. A refusal counts against the token that was sent, and against no other.
//
//   - The token that stands was not refused: the grant stays as it is.
//   - A spare was not tried, or somebody who may have an answer has not spoken: Interrupted.
//     Such an answer is one to this token, or one to the token before: another spare. A spare of
//     a host that was removed is not tried, and others may have seen its token.
//   - Not every host has answered the roll call, so claims may be missing: Interrupted.
//   - Otherwise UPS has refused all there is: Void.
//
// Whoever finds a grant Interrupted asks again.
func (b Book) Judge() State {
	g := b.Grant
	if g.State == Removing || g.State == Moved || !b.refused(g.Token) {
		return g.State
	}
	for _, c := range b.Claims {
		ours := c.Makes.Generation == g.Token.Generation // it made this token or a spare
		next := c.Makes.Generation == g.Token.Generation+1
		switch {
		case (ours || next) && c.Outcome == Open, next && c.Outcome == Granted, ours && c.Outcome == Granted && !b.refused(c.Makes):
			return Interrupted
		}
	}
	if b.Meta.Identity != b.Identity || len(b.Meta.Waiting(b.Hosts)) > 0 {
		return Interrupted
	}
	return Void
}

// Missing is the row of a grant whose newer token no host has delivered: its own was spent.
// It is Interrupted, until somebody comes who has the newer one, or a person signs in.
func (g Grant) Missing() Grant {
	if g.State == Live {
		g.State = Interrupted
		g.Version++
	}
	return g
}

// refused reports whether UPS refused a token of the grant.
func (b Book) refused(token Made) bool {
	for _, c := range b.Claims {
		if c.Outcome == Refused && c.Sends == token && c.Key == b.Grant.Key {
			return true
		}
	}
	return false
}
