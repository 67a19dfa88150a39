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
	journal []*entry
	cache   item
	seen    map[string]ledger.Sighting
	revoked map[string]bool
}

func (d disk) copied() disk {
	c := disk{self: d.self, cache: d.cache, seen: map[string]ledger.Sighting{}, revoked: map[string]bool{}}
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
	db                  *database
	noDB, noUPS         bool
	stopped             bool
	p                   *process
	unregistered        bool // its row was lost with a primary
	restoredAt          time.Duration
	wentBack            bool // a grant was older than it had been
	ordered             bool // a person did not wait for it
}

func (w *world) step(h *host) {
	if h.stopped {
		return
	}
	if h.p == nil {
		h.p = &process{at: "attend"}
		h.p.takeOver = w.faulty && w.pick("take over", 8) == 7
	}
	p := h.p
	w.ticks++
	if w.tracing {
		w.say("%s %s", h.name, p.at)
	}
	switch p.at {
	case "attend":
		if err := w.attend(h); err != nil {
			w.say("%s: %v", h.name, err)
			h.p = nil
			return
		}
		w.intend(h)
	case "claim":
		w.claim(h)
	case "check":
		w.check(h)
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
		w.writeOut(h)
	case "answer":
		w.answered(h)
	case "commit":
		w.commit(h)
	case "unsent":
		w.tell(h, ledger.Unsent)
	}
}

// attend does what comes before anything else: introduction, roll call, what lies here.
func (w *world) attend(h *host) error {
	d := &h.disk
	machine := h.machine
	if w.off == "a cloned directory is another host" {
		machine = d.self.Machine
	}
	self := d.self
	register, older := false, h.wentBack
	err := w.tx(h, "", func(b ledger.Book, t *tables) error {
		var row *ledger.Host
		for i := range t.hosts {
			if t.hosts[i].ID == self.ID {
				row = &t.hosts[i]
			}
		}
		register = false
		switch ledger.Introduce(self, machine, h.boot, row) {
		case ledger.Rename:
			w.nonces++
			self = ledger.Self{ID: fmt.Sprintf("id%d", w.nonces), Name: h.name, Machine: machine, Incarnation: 1, Boot: h.boot}
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
		now, err := r.Introduce(d.self, machine, h.boot)
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
	d.self = self

	var epoch int64
	mine := int64(-1)
	_ = w.tx(h, "", func(b ledger.Book, t *tables) error {
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
		if err := w.rollCall(h, epoch); err != nil {
			return err
		}
	}
	return w.settle(h)
}

// rollCall is what a host does before it says that it has answered.
func (w *world) rollCall(h *host, epoch int64) error {
	d := &h.disk
	d.self = d.self.Answers(epoch)
	h.wentBack = false
	for _, e := range d.journal {
		if e.answer != nil && w.off != "the roll call delivers sealed answers" {
			if err := w.deliver(h, e); err != nil && !errors.As(err, new(*ledger.ClaimedError)) {
				return err
			}
		}
		if e.answer == nil && w.off != "the roll call inserts intents again" {
			err := w.tx(h, e.in.Key, func(b ledger.Book, t *tables) error {
				if row, write := b.Reinsert(d.self, e.in); write {
					t.write(row)
				}
				return nil
			})
			w.also("reinsert", nil, func(r Database) error { return r.Reinsert(d.self, e.in) })
			if err != nil {
				return err
			}
			e.settled = false
		}
	}
	if w.off != "the roll call delivers sealed answers" && d.cache.key != "" {
		err := w.tx(h, d.cache.key, func(b ledger.Book, t *tables) error {
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
	if err := w.bury(h); err != nil {
		return err
	}
	err := w.tx(h, "", func(b ledger.Book, t *tables) error {
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

// bury revokes what this host has revoked, where the database has forgotten that.
func (w *world) bury(h *host) error {
	if w.off == "a tombstone stays on the host's disk" || len(h.disk.revoked) == 0 {
		return nil
	}
	again := false
	err := w.tx(h, "", func(b ledger.Book, t *tables) error {
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
func (w *world) settle(h *host) error {
	if err := w.bury(h); err != nil {
		return err
	}
	d := &h.disk
	for _, e := range d.journal {
		if e.settled {
			continue
		}
		if e.answer != nil {
			if err := w.deliver(h, e); err != nil && !errors.As(err, new(*ledger.ClaimedError)) {
				return err
			}
			continue
		}
		in := e.in
		if w.off == "an intent of another host is not settled" {
			in.Host = d.self.ID
		}
		wrote := false
		err := w.tx(h, in.Key, func(b ledger.Book, t *tables) error {
			row, write := b.Settle(d.self, in)
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
			return nil
		})
		w.also("settle", nil, func(r Database) error { return w.judged(r, wrote, in.Key, r.Settle(d.self, in)) })
		if err != nil {
			return err
		}
		e.settled = true
	}
	d.journal = slices.DeleteFunc(d.journal, func(e *entry) bool {
		return e.settled && e.in.Generation < d.seen[e.in.Key].Token.Generation
	})
	return nil
}

func (w *world) deliver(h *host, e *entry) error {
	stood, to := ledger.Made{}, h.db
	makes, conflict, delivered, stands := e.makes, false, false, false
	err := w.tx(h, e.in.Key, func(b ledger.Book, t *tables) error {
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
		got := b.Deliver(e.in, e.makes)
		t.write(got.Claim)
		if got.Stands && !(w.off == "of two granted answers the later stands" && same) {
			t.grant = got.Grant
			t.item = item{e.in.Key, got.Claim.Makes, e.answer.tok}
		}
		if got.Stands {
			stood = got.Grant.Token
		}
		delivered, stands = true, got.Stands
		e.makes = got.Claim.Makes
		e.answer.made = e.makes
		w.judge(t, b)
		return nil
	})
	if e.in.Purpose == grant.Authorizing {
		ruled := w.latest.ruled
		w.also("flip", ruled, func(r Database) error {
			err := r.Flip(e.replaces, e.in, makes, e.answer.tok, w.terms)
			if conflict && errors.As(err, new(*ledger.ConflictError)) {
				return nil
			}
			return err
		})
	} else {
		w.also("deliver", nil, func(r Database) error {
			made, stood, err := r.Deliver(e.in, makes, e.answer.tok)
			if err != nil || !delivered {
				return err
			}
			return errors.Join(same(made, e.makes), same(stood, stands))
		})
	}
	if err == nil {
		e.settled = true
		if stood != (ledger.Made{}) {
			h.disk.seen[e.in.Key] = h.disk.seen[e.in.Key].Saw(stood, h.disk.self.Epoch)
		}
		if e.use != nil {
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
