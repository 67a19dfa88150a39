package ledger

import (
	"slices"
	"time"
)

// Identity is who a database is. A promoted standby has another timeline, a dump that was
// restored elsewhere another system or database, one that was restored in place another
// table of claims.
type Identity struct {
	System   string // system identifier
	Timeline string
	Database uint32 // oid
	Claims   uint32 // oid of the table
}

// Meta is the ledger's own row.
type Meta struct {
	Epoch    int64
	Identity Identity // as it was when the epoch began
	// Highest is the number of the latest claim there ever was, removed ones included.
	Highest int64
}

// Host is a host's row.
type Host struct {
	ID          string // random
	Name        string // what people read
	Machine     string // machine id
	Incarnation int64
	Boot        string // boot_id at which the incarnation was raised
	Epoch       int64  // the latest roll call that it answered
	// Waived is the latest epoch in which nobody waits for it, because a person said so.
	Waived    int64
	Removed   bool
	SignedOff bool      // it holds nothing
	Accepted  bool      // a person, or others' presence, said that this is its database
	Seen      time.Time // when it last reached the database
}

// Seen is the claim with the highest number that a host has seen. A database that went back
// may since have given the number to another claim.
type Seen struct {
	Number int64
	Nonce  string
}

// Self is what a host has on its own disk about itself.
type Self struct {
	ID, Name, Machine string
	Incarnation       int64
	Boot              string
	Epoch             int64
	Seen              Seen
}

// Introduction is what a host has to do about its own row.
type Introduction int

const (
	// Known: nothing.
	Known Introduction = iota
	// Register: there is no row. It is inserted once the roll call is answered.
	Register
	// Raise: this is another boot. The incarnation is raised, in the row where it is still
	// the one that was read and then on disk.
	Raise
	// Adopt: an earlier try of this boot has raised it, and its answer got lost, or this host
	// was cut off before it was on disk.
	Adopt
	// Restore: the database went back. The row is raised to what the host has.
	Restore
	// Rename: this disk is a copy, of another machine or of an earlier time. The host needs
	// a new ID, as Renamed makes it, and what it claimed under the old one is somebody else's.
	Rename
)

// Introduce compares what a host has on its disk with the machine that it runs on and with
// its row, which is nil where there is none. Boots are those in which this host has begun to
// raise its incarnation, on its disk before each try and until one is through; the last is the
// boot of now. Worked says that the row's incarnation has claims: a host claims nothing before its
// incarnation is on its disk, so another one has made them.
func Introduce(self Self, machine string, boots []string, row *Host, worked bool) Introduction {
	boot := boots[len(boots)-1]
	var ahead int64
	if row != nil {
		ahead = row.Incarnation - self.Incarnation
	}
	mine := ahead > 0 && ahead <= int64(len(boots)) // or a copy's
	switch {
	case self.ID == "" || self.Machine != machine:
		return Rename
	case row == nil:
		return Register
	case row.Machine != machine:
		return Rename
	case ahead == 0 && row.Boot == boot:
		return Known
	case mine && row.Boot == boot:
		return Adopt
	case ahead == 0, mine && slices.Contains(boots, row.Boot) && !worked:
		return Raise
	case ahead < 0:
		return Restore
	}
	return Rename
}

// Renamed is a host that has found out that its disk is a copy. What the disk has seen is true
// for the copy as well: a database that has lost it went back.
func (s Self) Renamed(id, name, machine, boot string) Self {
	return Self{ID: id, Name: name, Machine: machine, Incarnation: 1, Boot: boot, Epoch: s.Epoch, Seen: s.Seen}
}

// Raised is the row with the next incarnation. It is written where the row's incarnation is
// still the one that was read.
func (h Host) Raised(boot string) Host {
	h.Incarnation++
	h.Boot = boot
	return h
}

// WentBack reports whether the database is another than the one of its epoch, or has lost
// something: then a new epoch begins. Holder is the claim with the number that this host has
// seen, nil where there is none: it may have been removed with its grant. What a host saw in
// an earlier epoch is no sign: it answers the roll call of this one anyway.
func (m Meta) WentBack(now Identity, self Self, holder *Claim) bool {
	if m.Identity != now || m.Epoch != self.Epoch {
		return m.Identity != now || m.Epoch < self.Epoch
	}
	return m.Highest < self.Seen.Number ||
		holder != nil && holder.Number == self.Seen.Number && holder.Nonce != self.Seen.Nonce
}

// Answers is what a host has on its disk before it does anything for the roll call of an
// epoch: no right of an earlier one, and no memory of numbers that may be given again.
func (s Self) Answers(epoch int64) Self {
	s.Epoch = epoch
	s.Seen = Seen{}
	return s
}

// NextEpoch is the ledger's row of a new epoch, above all that this host has seen, and the
// claims of all grants as they are then. A respected claim is respected from now on, as the
// clock may be another. A lock of the ledger's row keeps two hosts from opening one each.
func (m Meta) NextEpoch(identity Identity, self Self, claims []Claim, now time.Time) (Meta, []Claim) {
	m.Epoch = max(m.Epoch, self.Epoch) + 1
	m.Identity = identity
	dated := make([]Claim, len(claims))
	for i, c := range claims {
		if c.Outcome == Open || c.Outcome == NoAnswer {
			c.At = now
		}
		dated[i] = c
	}
	return m, dated
}

// Waiting are the names of the hosts that have not answered the roll call of the epoch.
func (m Meta) Waiting(hosts []Host) (names []string) {
	for _, h := range hosts {
		if !h.Removed && !h.SignedOff && h.Epoch < m.Epoch && h.Waived < m.Epoch {
			names = append(names, h.Name)
		}
	}
	return names
}

// AcceptFailover are the hosts once a person has said that nobody is to wait for those that
// have not answered the roll call of an epoch. They may come later: then they answer first, as
// everybody. A person speaks about one roll call, whose names were shown: the error is a
// *FrozenError with those of another, which has begun since or is yet to begin.
func (b Book) AcceptFailover(epoch int64) ([]Host, error) {
	if b.Meta.Epoch != epoch || b.Meta.Identity != b.Identity {
		return nil, &FrozenError{Epoch: b.Meta.Epoch, Waiting: b.Meta.Waiting(b.Hosts)}
	}
	waived := make([]Host, len(b.Hosts))
	for i, h := range b.Hosts {
		if h.Epoch < epoch {
			h.Waived = epoch
		}
		waived[i] = h
	}
	return waived, nil
}

// MustAsk reports whether a person has to say that a host is at the right database: it is
// new there, others have been there, and none of them lately. So it is with a copy of a
// production database.
func MustAsk(me Host, hosts []Host, now time.Time) bool {
	others := false
	for _, h := range hosts {
		if h.ID == me.ID {
			continue
		}
		if now.Sub(h.Seen) < AloneAfter {
			return false
		}
		others = true
	}
	return others && !me.Accepted
}

// Current refuses a host that has to answer a roll call, or to call one. The error is a
// *FrozenError.
func (b Book) Current(self Self) error {
	if b.Meta.WentBack(b.Identity, self, b.Holder) || self.Epoch != b.Meta.Epoch {
		return &FrozenError{Epoch: b.Meta.Epoch, Answer: true}
	}
	return nil
}

// IsWhole reports whether the database has what every host has told it: each has answered the roll
// call, also those for which a person did not wait. What is missing then does not come back.
func (b Book) IsWhole(self Self) bool {
	return b.Current(self) == nil && !slices.ContainsFunc(b.Hosts, func(h Host) bool {
		return !h.Removed && !h.SignedOff && h.Epoch < b.Meta.Epoch
	})
}

// Admits tells whether a host may spend at all: it is known and not removed, it has
// answered the roll call, and so has everybody else.
func (b Book) Admits(self Self) error {
	me, ok := b.host(self.ID)
	switch {
	case !ok || me.Incarnation != self.Incarnation || me.Machine != self.Machine:
		return &HostError{Host: self.ID, Name: self.Name, Reason: Stranger}
	case me.Removed:
		return &HostError{Host: self.ID, Name: me.Name, Reason: RemovedHost}
	case MustAsk(me, b.Hosts, b.Now):
		return &HostError{Host: self.ID, Name: me.Name, Reason: Alone}
	case b.Current(self) != nil, me.Epoch != b.Meta.Epoch,
		me.SignedOff: // nobody would wait for it at the next roll call
		return &FrozenError{Epoch: b.Meta.Epoch, Answer: true}
	}
	if waiting := b.Meta.Waiting(b.Hosts); len(waiting) > 0 {
		return &FrozenError{Epoch: b.Meta.Epoch, Waiting: waiting}
	}
	return nil
}

func (b Book) host(id string) (Host, bool) {
	for _, h := range b.Hosts {
		if h.ID == id {
			return h, true
		}
	}
	return Host{}, false
}

func (b Book) removed(id string) bool {
	h, ok := b.host(id)
	return ok && h.Removed
}
