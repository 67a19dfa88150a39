package ledgertest

import (
	"time"

	"github.com/upsauth/upsauth/internal/vault/ledger"
)

type reply struct {
	kind string // granted, refused, 429, lost
	tok  int
}

type token struct {
	id, lineage, child int
	spent, dead        bool
	uses               []*use
}

type use struct {
	claimedAt   int         // the tick of the claim
	saw         ledger.Book // what the claim's transaction read
	h           *host
	db          *database // that was asked last whether it may be sent
	id          string
	nonce       string
	number      int64
	claimed, at time.Duration
	takeOver    bool
	late        bool // the process was paused between its last look and the write
	checked     int  // the tick of the last look
	key         string
	makes       ledger.Made
	sealed      bool
	committedTo *database
	committed   int // the tick at which it was, 0 where it was not
	diskLost    bool
}

type ups struct {
	mode    string // what a token that is used again does: kill, refuse, grant
	tokens  []*token
	dead    map[int]bool
	why     map[int]window
	keys    map[int]string // the Token Vault Key of a lineage
	lineage int
}

func (u *ups) issue(lineage int) int {
	u.tokens = append(u.tokens, &token{id: len(u.tokens), lineage: lineage, child: -1})
	return len(u.tokens) - 1
}

func (w *world) send(p *process) reply {
	t := w.ups.tokens[p.tok]
	for _, earlier := range t.uses {
		why, ok := w.classify(earlier, p.use)
		if !ok {
			w.fail("token %d was sent twice: %s by %s, then %s by %s", t.id, earlier.nonce, earlier.h.name, p.use.nonce, p.use.h.name)
		}
		w.told[why]++
		w.ups.why[t.lineage] = why
	}
	child := t.child
	switch {
	case w.ups.dead[t.lineage] || t.dead:
		return reply{kind: "refused"}
	case t.spent && w.ups.mode == "kill":
		w.ups.dead[t.lineage] = true
		return reply{kind: "refused"}
	case t.spent && (w.ups.mode == "refuse" || child >= 0 && w.ups.tokens[child].spent):
		return reply{kind: "refused"}
	case t.spent:
		w.ups.tokens[child].dead = true
	}
	t.uses = append(t.uses, p.use)
	t.spent = true
	t.child = w.ups.issue(t.lineage)
	return reply{kind: "granted", tok: t.child}
}

// classify says which window the second use of a token belongs to, by what really happened.
func (w *world) classify(u, v *use) (window, bool) {
	if u.late || v.late {
		return paused, true
	}
	for _, h := range []*host{u.h, v.h} {
		if h.restoredAt > 0 && h.restoredAt >= u.at {
			return restored, true
		}
	}
	late := u.committed > 0 && u.committed < v.checked && (u.committedTo == v.db || v.db.began >= u.committed)
	first, second := u, v
	if v.claimedAt < u.claimedAt {
		first, second = v, u
	}
	if !late {
		if why, ok := w.respected(u, v); ok {
			return why, true
		}
	}
	// Otherwise the database has lost what would have kept one of them back.
	switch {
	case !late && second.knew(first):
		return "", false
	case u.h.unregistered || v.h.unregistered || w.stranger(u) || w.stranger(v):
		return unknownHost, true
	case u.h.ordered || v.h.ordered:
		return byOrder, true
	case first.diskLost:
		return diskDied, true
	case late && !u.sealed:
		return unsealed, true // a full disk: the commit was all there was, and is lost
	case w.unseen(first, second):
		return restored, true
	}
	return "", false
}

// stranger reports whether a host has registered with an old primary alone.
func (w *world) stranger(u *use) bool {
	_, here := rowOf(w.db.now.hosts, u.id)
	return u.db != w.db && !here
}

// respected reports whether the second attempt waited as long as it had to.
func (w *world) respected(u, v *use) (window, bool) {
	respect := ledger.CallEnds
	if u.h != v.h && !v.takeOver && !removed(v.saw.Hosts, u.id) && !(v.spoken(u) && w.over(u)) {
		if w.terms.Never {
			return "", false
		}
		respect = w.terms.TakeOverAfter
	}
	switch {
	case v.claimed-u.claimed < respect:
		return "", false
	case !u.sealed:
		return unsealed, true
	case u.diskLost:
		return diskDied, true
	case u.h != v.h:
		return undelivered, true
	}
	return "", false
}

// knew reports whether the claim of another attempt was there as this one was claimed. It may
// have been lost since, or have come back.
func (u *use) knew(other *use) bool {
	_, ok := u.saw.ByNonce(other.nonce)
	return ok
}

// spoken reports whether the host of another attempt had said by then that it has no answer.
func (u *use) spoken(other *use) bool {
	c, _ := u.saw.ByNonce(other.nonce)
	return c.Outcome == ledger.NoAnswer
}

// unseen reports whether the database's machine was put back to before a claim, or before the
// commit of its answer, and the other attempt's host had seen nothing that tells.
func (w *world) unseen(first, second *use) bool {
	for _, r := range w.rolls {
		saw := r.seen[second.h]
		if r.at > first.claimedAt && saw.made[first.key].Token.Before(first.makes) && (second.knew(first) || saw.number < first.number) {
			return true
		}
	}
	return false
}

// roll is one time that the database's machine was put back, which changes nothing that tells
// who it is.
type roll struct {
	at   int   // tick
	to   int64 // the highest number then
	seen map[*host]sight
}

// sight is what a host had seen by then.
type sight struct {
	number int64
	made   map[string]ledger.Sighting
}

func (h *host) sight() sight {
	return sight{h.disk.self.Seen.Number, h.disk.copied().seen}
}

// forgets has a host know no more of the time before a roll than its disk does now.
func (w *world) forgets(h *host) {
	for _, r := range w.rolls {
		r.seen[h] = h.sight()
	}
}

// over reports whether the owner of an attempt may say that it has no answer.
func (w *world) over(u *use) bool {
	for _, p := range u.h.processes() {
		if p.use == u {
			return false
		}
	}
	return !u.sealed
}
