package ledgertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

type entry struct {
	in       ledger.Intent
	claimed  time.Duration // true time
	at       int           // tick
	saw      ledger.Book   // what the claim's transaction read
	replaces string
	makes    ledger.Made
	answer   *item
	use      *use
	settled  bool // nothing to be told
}

type disk struct {
	self    ledger.Self
	boots   []string // in which it began to raise its incarnation
	journal []*entry
	cache   item
	seen    map[string]ledger.Sighting
	revoked map[string]bool
}

func (d disk) copied() disk {
	c := disk{self: d.self, boots: slices.Clone(d.boots), cache: d.cache, seen: map[string]ledger.Sighting{}, revoked: map[string]bool{}}
	for k, v := range d.seen {
		c.seen[k] = v
	}
	for k, v := range d.revoked {
		c.revoked[k] = v
	}
	for _, e := range d.journal {
		copied := *e
		c.journal = append(c.journal, &copied)
	}
	return c
}

type host struct {
	name, machine, boot string
	disk                disk
	backup              *disk
	full                bool
	wall                time.Duration // how far its clock is off
	db                  *database     // that a process connects to
	noDB, noUPS         bool
	stopped             bool     // the process that has the grant's lock
	p                   *process // that has the grant's lock
	second              *process // signs in, or looks after another grant
	unregistered        bool     // its row was lost with a primary
	restoredAt          time.Duration
	wentBack            bool // a grant was older than it had been
	ordered             bool // a person did not wait for it
}

func (h *host) processes() (all []*process) {
	for _, p := range []*process{h.p, h.second} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// step is one step of the process that has the grant's lock.
func (w *world) step(h *host) {
	if h.stopped {
		return
	}
	if h.p == nil {
		h.p = &process{h: h, db: h.db, at: "attend"}
		h.p.takeOver = w.faulty && w.pick("take over", 8) == 7
	}
	w.act(h.p)
}

// stepSecond is one step of the other process: it signs in, or has come for another grant and
// finds out whether there is a roll call.
func (w *world) stepSecond(h *host) {
	if h.second == nil {
		h.second = &process{h: h, db: h.db, at: "attend"}
	}
	w.act(h.second)
}

func (w *world) act(p *process) {
	h := p.h
	w.ticks++
	if w.tracing {
		w.say("%s %s", h.name, p.at)
	}
	switch p.at {
	case "attend":
		err := w.attend(p)
		if err != nil {
			w.say("%s: %v", h.name, err)
		}
		if err != nil || p == h.second {
			p.end()
			return
		}
		p.at = "settle"
	case "settle":
		// The epoch's lock is shared from here on.
		p.self = h.disk.self
		if err := w.settle(p); err != nil {
			w.say("%s: %v", h.name, err)
			p.end()
			return
		}
		w.intend(p)
	case "claim":
		w.claim(p)
	case "check":
		w.check(p)
	case "look":
		elapsed := w.now - p.asked
		if w.off == "5 s of boot time" {
			elapsed = 0
		}
		if !ledger.InTime(elapsed) {
			p.at = "unsent"
			return
		}
		p.lastLook, p.at = w.now, "write"
	case "write":
		w.writeOut(p)
	case "answer":
		w.answered(p)
	case "commit":
		w.commit(p)
	case "unsent":
		w.tell(p, ledger.Unsent)
	}
}

// attend does what comes before anything else: introduction and roll call.
func (w *world) attend(p *process) error {
	h, d := p.h, &p.h.disk
	p.self = d.self
	machine := h.machine
	if w.off == "a cloned directory is another host" {
		machine = d.self.Machine
	}
	self := d.self
	if boots := d.boots; len(boots) == 0 || boots[len(boots)-1] != h.boot {
		d.boots = append(slices.Clone(boots), h.boot)
	}
	register, older := false, h.wentBack
	err := w.tx(p, "", func(b ledger.Book, t *tables) error {
		var row *ledger.Host
		for i := range t.hosts {
			if t.hosts[i].ID == self.ID {
				row = &t.hosts[i]
			}
		}
		register = false
		worked := false
		for _, c := range t.claims {
			worked = worked || row != nil && c.Host == self.ID && c.Incarnation == row.Incarnation
		}
		switch ledger.Introduce(self, machine, d.boots, row, worked) {
		case ledger.Rename:
			w.nonces++
			if w.off == "a copied disk keeps what it has seen" {
				self = ledger.Self{}
			}
			self = self.Renamed(fmt.Sprintf("id%d", w.nonces), h.name, machine, h.boot)
			register = true
		case ledger.Register:
			register = true
		case ledger.Raise:
			*row = row.Raised(h.boot)
			self.Incarnation, self.Boot = row.Incarnation, h.boot
		case ledger.Adopt:
			self.Incarnation, self.Boot = row.Incarnation, h.boot
		case ledger.Restore:
			row.Incarnation, row.Boot = self.Incarnation, h.boot
		}
		asked, holder := self, b.Holder
		if w.off == "the highest claim number that was seen" {
			asked.Seen, holder = ledger.Seen{}, nil
		}
		identity := b.Identity
		if w.off == "the database's identity" {
			identity = t.meta.Identity
		}
		if t.meta.WentBack(identity, asked, holder) || h.wentBack && self.Epoch == t.meta.Epoch {
			claims := t.claims
			t.meta, t.claims = t.meta.NextEpoch(b.Identity, self, claims, b.Now)
			if w.off == "a new epoch dates the open claims" {
				t.claims = claims
			}
			w.say("epoch %d", t.meta.Epoch)
		}
		return nil
	})
	w.also("introduce", nil, func(r Database) error {
		now, err := r.Introduce(d.self, machine, d.boots)
		if err != nil {
			return err
		}
		if d.self.ID != self.ID {
			now = self // a new one
		}
		wanted := self
		wanted.Boot = h.boot
		return errors.Join(same(now, wanted), r.OpenEpoch(now, older))
	})
	if err != nil {
		return err
	}
	if h.boot != self.Boot && self.ID == d.self.ID {
		self.Boot = h.boot
	}
	d.self, p.self, d.boots = self, self, nil

	var epoch int64
	mine := int64(-1)
	_ = w.tx(p, "", func(b ledger.Book, t *tables) error {
		epoch = t.meta.Epoch
		for _, x := range t.hosts {
			if x.ID == self.ID {
				mine = x.Epoch
			}
		}
		return errAway
	})
	if epoch == 0 {
		return errAway
	}
	if register || mine != epoch || d.self.Epoch != epoch {
		return w.rollCall(p, epoch)
	}
	return nil
}

// rollCall is what a host does before it says that it has answered. No process of it is
// between an intent and the end of its attempt.
func (w *world) rollCall(p *process, epoch int64) error {
	h, d := p.h, &p.h.disk
	for _, other := range h.processes() {
		if other != p && other.spends() && w.off != "the epoch's lock" {
			return errLocked
		}
	}
	d.self = d.self.Answers(epoch)
	p.self = d.self
	h.wentBack = false
	for _, e := range d.journal {
		if e.answer != nil && w.off != "the roll call delivers sealed answers" {
			if err := w.deliver(p, e); err != nil && !errors.As(err, new(*ledger.ClaimedError)) {
				return err
			}
		}
		missing := e.answer != nil && !e.settled && e.in.Purpose != grant.Authorizing && w.off != "an answer of a missing grant keeps others from its token"
		if (e.answer == nil || missing) && w.off != "the roll call inserts intents again" {
			err := w.tx(p, e.in.Key, func(b ledger.Book, t *tables) error {
				b, self := w.blind(b, p.self)
				row, write, err := b.Reinsert(self, e.in, e.answer != nil)
				if w.off == "an intent is inserted again although its grant is missing" && e.in.Key != b.Grant.Key {
					return err
				}
				if write {
					t.write(row)
				}
				return err
			})
			w.also("reinsert", w.latest.ruled, func(r Database) error { return r.Reinsert(p.self, e.in, e.answer != nil) })
			if err != nil {
				return err
			}
			e.settled = false
		}
	}
	if w.off != "the roll call delivers sealed answers" && d.cache.key != "" {
		err := w.tx(p, d.cache.key, func(b ledger.Book, t *tables) error {
			if row, stands := b.Grant.Commit(d.cache.key, d.cache.made); stands {
				t.grant, t.item = row, d.cache
			}
			return nil
		})
		w.also("put back", nil, func(r Database) error { return r.PutBack(d.cache.key, d.cache.made, d.cache.tok) })
		if err != nil {
			return err
		}
	}
	if err := w.bury(p); err != nil {
		return err
	}
	err := w.tx(p, "", func(b ledger.Book, t *tables) error {
		if b.Meta.Epoch != epoch {
			return errAway
		}
		for i := range t.hosts {
			if t.hosts[i].ID == d.self.ID {
				t.hosts[i].Epoch = epoch
				return nil
			}
		}
		t.hosts = append(t.hosts, ledger.Host{
			ID: d.self.ID, Name: h.name, Machine: d.self.Machine, Incarnation: d.self.Incarnation, Boot: d.self.Boot,
			Epoch: epoch, Accepted: true, Seen: b.Now,
		})
		return nil
	})
	if w.latest.ruled == nil {
		w.also("answer", nil, func(r Database) error { return r.Answer(d.self, epoch) })
	}
	return err
}

// blind takes from a book, and from what a host knows of itself, what tells that the database
// is another one, where that rule is left out.
func (w *world) blind(b ledger.Book, self ledger.Self) (ledger.Book, ledger.Self) {
	said := w.off == "nothing is said in a database that went back"
	if said || w.off == "the database's identity" {
		b.Identity = b.Meta.Identity
	}
	if said || w.off == "the highest claim number that was seen" {
		self.Seen, b.Holder = ledger.Seen{}, nil
	}
	if said {
		self.Epoch = b.Meta.Epoch
	}
	return b, self
}

// bury revokes what this host has revoked, where the database has forgotten that.
func (w *world) bury(p *process) error {
	h := p.h
	if w.off == "a tombstone stays on the host's disk" || len(h.disk.revoked) == 0 {
		return nil
	}
	again := false
	err := w.tx(p, "", func(b ledger.Book, t *tables) error {
		if h.disk.revoked[b.Grant.Key] && b.Grant.State != ledger.Removing {
			t.grant, _ = b.Revoke(b.Grant.Version)
			h.wentBack = true
			again = true
		}
		return nil
	})
	if again {
		w.also("revoke again", nil, func(r Database) error { return r.Revoke() })
	}
	return err
}

// settle says what is to be said of each attempt on this disk.
func (w *world) settle(p *process) error {
	if err := w.bury(p); err != nil {
		return err
	}
	h, d := p.h, &p.h.disk
	// Of a grant that is contested all is told again: a database that went back may have an open
	// claim of what was told long ago.
	again := w.off != "of a contested grant all is told again" && p.db != nil && p.db.now.grant.State == ledger.Interrupted
	for _, e := range d.journal {
		// An answer that another primary has is delivered to this one as well.
		behind := p.db != nil && e.answer != nil && p.db.now.grant.Key == e.in.Key && p.db.now.grant.Token.Generation < e.in.Generation
		if e.settled && !again && !behind || h.second != nil && h.second.e == e {
			continue
		}
		if e.answer != nil {
			if err := w.deliver(p, e); err != nil && !errors.As(err, new(*ledger.ClaimedError)) {
				return err
			}
			continue
		}
		in := e.in
		if w.off == "an intent of another host is not settled" {
			in.Host = d.self.ID
		}
		wrote := false
		err := w.tx(p, in.Key, func(b ledger.Book, t *tables) error {
			b, self := w.blind(b, p.self)
			row, write, err := b.Settle(self, in)
			wrote = write
			if w.off == "after no answer others wait 60 s" && write {
				row.Outcome = ledger.Unsent
			}
			if w.off == "an attempt without answer is never called unsent" && write && row.Outcome == ledger.NoAnswer {
				row.Outcome = ledger.Unsent
			}
			if write {
				t.write(row)
				w.judge(t, b)
			}
			return err
		})
		w.also("settle", w.latest.ruled, func(r Database) error { return w.judged(r, wrote, in.Key, r.Settle(p.self, in)) })
		if err != nil {
			return err
		}
		e.settled = true
	}
	if err := w.disown(p); err != nil {
		return err
	}
	d.journal = slices.DeleteFunc(d.journal, func(e *entry) bool {
		return e.settled && e.in.Generation < d.seen[e.in.Key].Token.Generation
	})
	return nil
}

// disown ends the claims of this host that its disk knows nothing of, where that is asked.
func (w *world) disown(p *process) error {
	if p.db == nil || p.db.now.grant.State != ledger.Interrupted {
		return nil
	}
	var held ledger.Held
	for _, e := range p.h.disk.journal {
		held.Attempts = append(held.Attempts, e.in.Nonce)
		if e.answer != nil {
			held.Answers = append(held.Answers, e.in.Nonce)
		}
	}
	err := w.tx(p, p.db.now.grant.Key, func(b ledger.Book, t *tables) error {
		b, self := w.blind(b, p.self)
		ended, err := b.Disown(self, held, w.terms)
		ended = slices.DeleteFunc(ended, func(c ledger.Claim) bool {
			lost, _ := b.ByNonce(c.Nonce)
			return w.off == "a claim without its attempt is ended by its host" && lost.Outcome == ledger.Open ||
				w.off == "a spare that no disk has is ended by its host" && lost.Outcome == ledger.Granted
		})
		for _, c := range ended {
			t.write(c)
		}
		if len(ended) > 0 {
			w.judge(t, b)
		}
		return err
	})
	w.also("disown", w.latest.ruled, func(r Database) error { return r.Disown(p.self, held, w.terms) })
	return err
}

func (w *world) deliver(p *process, e *entry) error {
	h := p.h
	var got ledger.Delivery
	to, conflict, delivered := p.db, false, false
	err := w.tx(p, e.in.Key, func(b ledger.Book, t *tables) error {
		if e.in.Purpose == grant.Authorizing {
			err := w.flip(b, t, e)
			conflict = errors.As(err, new(*ledger.ConflictError))
			if conflict {
				return nil // overtaken
			}
			return err
		}
		if b.Grant.Key != e.in.Key {
			return nil
		}
		if w.off == "a commit never goes back" && b.Grant.State != ledger.Removing {
			b.Grant.Token = ledger.Made{}
		}
		if w.off == "a revoked grant stays revoked" && b.Grant.State == ledger.Removing {
			b.Grant.State = ledger.Live
		}
		same := b.Grant.Token.Generation == e.makes.Generation
		got = b.Deliver(e.in, e.makes)
		t.write(got.Claim)
		if got.Stands && !(w.off == "of two granted answers the later stands" && same) {
			t.grant = got.Grant
			t.item = item{e.in.Key, got.Claim.Makes, e.answer.tok}
		}
		delivered = true
		w.judge(t, b)
		return nil
	})
	if e.in.Purpose == grant.Authorizing {
		ruled := w.latest.ruled
		w.also("flip", ruled, func(r Database) error {
			err := r.Flip(e.replaces, e.in, e.makes, e.answer.tok, w.terms)
			if conflict && errors.As(err, new(*ledger.ConflictError)) {
				return nil
			}
			return err
		})
	} else {
		w.also("deliver", nil, func(r Database) error {
			made, stands, err := r.Deliver(e.in, e.makes, e.answer.tok)
			if err != nil || !delivered {
				return err
			}
			return errors.Join(same(made, got.Claim.Makes), same(stands, got.Stands))
		})
	}
	if err == nil {
		e.settled = delivered || e.in.Purpose == grant.Authorizing || w.off == "an answer of a missing grant keeps others from its token"
		if delivered {
			from := e.makes
			if w.off == "an answer that gets another place is not a newer token" {
				from = ledger.Made{}
			}
			e.makes = got.Claim.Makes
			e.answer.made = e.makes
			h.disk.seen[e.in.Key] = h.disk.seen[e.in.Key].Delivered(from, e.makes, got.Grant.Token, h.disk.self.Epoch)
		}
		if e.use != nil && e.settled {
			e.use.committed, e.use.committedTo = w.ticks, to
		}
	}
	return err
}

// flip puts a sign-in's answer in place of the grant that it replaces.
func (w *world) flip(b ledger.Book, t *tables, e *entry) error {
	all := ledger.Book{Now: b.Now, Meta: b.Meta, Hosts: b.Hosts, Grant: t.grant}
	for _, c := range t.claims {
		if c.Key == t.grant.Key {
			all.Claims = append(all.Claims, c)
		}
	}
	row, err := all.Flip(e.replaces, e.in.Key, e.makes, w.terms)
	if err != nil {
		return err
	}
	t.grant, t.item = row, *e.answer
	if c, ok := b.ByNonce(e.in.Nonce); ok {
		c, _ = c.Told(ledger.Granted)
		t.write(c)
	}
	return nil
}
