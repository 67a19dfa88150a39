package ledgertest

import (
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

type process struct {
	at       string
	e        *entry
	tok      int
	right    ledger.Claim
	asked    time.Duration // boot time right before the claim
	lastLook time.Duration
	checked  int
	takeOver bool
	reply    reply
	full     bool // the answer could not be sealed
	use      *use
}

// intend reads the grant and writes an intent, where there is something to send.
func (w *world) intend(h *host) {
	d, p := &h.disk, h.p
	var g ledger.Grant
	var it item
	err := w.tx(h, "", func(b ledger.Book, t *tables) error {
		if t.grant.State == ledger.Interrupted {
			w.judge(t, b)
		}
		g, it = t.grant, t.item
		return nil
	})
	w.also("read", nil, func(r Database) error {
		got, tok, err := r.Read()
		if err != nil {
			return err
		}
		got.Version = g.Version
		return errors.Join(same(got, g), same(tok, it.tok))
	})
	if err != nil || (g.State != ledger.Live && g.State != ledger.Interrupted) {
		h.p = nil
		return
	}
	p.tok = it.tok
	sends := g.Token
	if d.seen[g.Key].Token.Before(g.Token) {
		d.cache = it
	}
	d.seen[g.Key] = d.seen[g.Key].Saw(g.Token, d.self.Epoch)
	if g.State == ledger.Interrupted {
		spare := (*entry)(nil)
		for _, e := range d.journal {
			if e.in.Key == g.Key && e.answer != nil && e.makes.Generation == g.Token.Generation && e.makes != g.Token {
				spare = e
			}
		}
		if spare == nil {
			h.p = nil
			return
		}
		p.tok, sends = spare.answer.tok, spare.makes
	}
	w.newIntent(h, ledger.Intent{Key: g.Key, Generation: g.Token.Generation + 1, Sends: sends, Purpose: grant.Refreshing}, "")
}

func (w *world) newIntent(h *host, in ledger.Intent, replaces string) {
	d, p := &h.disk, h.p
	if h.full {
		h.p = nil
		return
	}
	w.nonces++
	in.Nonce = fmt.Sprintf("n%d", w.nonces)
	in.Host, in.Incarnation, in.Epoch = d.self.ID, d.self.Incarnation, d.self.Epoch
	p.e = &entry{in: in, replaces: replaces}
	if w.off != "the intent is on disk before the claim" {
		d.journal = append(d.journal, p.e)
	}
	p.at = "claim"
}

func (w *world) unsettled(h *host) (nonces []string) {
	for _, e := range h.disk.journal {
		if e.in.Host == h.disk.self.ID {
			nonces = append(nonces, e.in.Nonce)
		}
	}
	return nonces
}

func (w *world) claim(h *host) {
	d, p := &h.disk, h.p
	p.asked = w.now
	missing := false
	var verdict error
	terms := w.terms
	terms.TakeOver = p.takeOver
	err := w.tx(h, p.e.in.Key, func(b ledger.Book, t *tables) error {
		self, seen := d.self, d.seen[p.e.in.Key]
		read := b
		b = w.doctored(b, h, p, &terms)
		if w.off == "a generation that goes back is refused" {
			seen = ledger.Sighting{}
		}
		row, isNew, err := b.Claim(self, p.e.in, seen, w.unsettled(h), terms)
		if w.off == "only the state live is claimed" && errors.As(err, new(*ledger.ConflictError)) && b.Grant.State != ledger.Live && b.Grant.Key == p.e.in.Key {
			err, row, isNew = nil, openRow(b, p.e.in), true
		}
		verdict = err
		if c := new(ledger.ConflictError); errors.As(err, &c) && c.Missing {
			t.grant = t.grant.Missing()
			missing = true
			return nil
		}
		if err != nil {
			return err
		}
		if isNew {
			row.At = w.dbNow(h.db)
			t.write(row)
			row = t.claims[len(t.claims)-1]
			p.e.claimed, p.e.at, p.e.saw = w.now, w.ticks, read
		}
		p.right = row
		p.e.makes = row.Makes
		return nil
	})
	w.also("claim", verdict, func(r Database) error {
		got, err := r.Claim(d.self, p.e.in, d.seen[p.e.in.Key], w.unsettled(h), terms)
		if err == nil && verdict == nil {
			got.At = p.right.At
			err = same(got, p.right)
		}
		return err
	})
	switch {
	case missing:
		h.p = nil
	case err == nil:
		if d.self.Seen.Number < p.right.Number {
			d.self.Seen = ledger.Seen{Number: p.right.Number, Nonce: p.right.Nonce}
		}
		p.at = "check"
	case errors.Is(err, errUnknown) && w.off == "only a clean commit is the right to send":
		p.right = ledger.Claim{Nonce: p.e.in.Nonce, Epoch: p.e.in.Epoch, At: w.dbNow(h.db)}
		p.at = "look"
	case errors.Is(err, errUnknown) || errors.Is(err, errAway):
		if w.pick("again", 4) == 0 {
			h.p = nil
		}
	default:
		w.say("%s: %v", h.name, err)
		if c := new(ledger.ConflictError); errors.As(err, &c) && c.WentBack {
			h.wentBack = true
		}
		if c := new(ledger.ClaimedError); errors.As(err, &c) && d.self.Seen.Number < c.Claim.Number {
			d.self.Seen = ledger.Seen{Number: c.Claim.Number, Nonce: c.Claim.Nonce}
		}
		h.p = nil
	}
}

// doctored takes from what a claim, or with nil terms a check, sees what the rule that is
// left out needs.
func (w *world) doctored(b ledger.Book, h *host, p *process, terms *ledger.Terms) ledger.Book {
	if w.off == "" {
		return b
	}
	me := h.disk.self.ID
	claims := append([]ledger.Claim(nil), b.Claims...)
	hosts := append([]ledger.Host(nil), b.Hosts...)
	b.Claims, b.Hosts = nil, hosts
	newest := 0
	for _, c := range claims {
		if c.Makes.Generation == p.e.in.Generation {
			newest = max(newest, c.Makes.Attempt)
		}
	}
	for _, c := range claims {
		switch {
		case terms == nil: // the check
		case w.off == "an open claim of another host is respected" && c.Host != me && c.Outcome == ledger.Open,
			w.off == "every open claim is respected, not the newest alone" && c.Makes.Generation == p.e.in.Generation && c.Makes.Attempt < newest:
			c.Outcome = ledger.Unsent
		case w.off == "its own token is sent again after 60 s" && c.Host == me && c.Outcome.Spends(),
			w.off == "a person's take-over waits 60 s" && terms.TakeOver:
			c.At = c.At.Add(-ledger.CallEnds)
		}
		b.Claims = append(b.Claims, c)
	}
	for i := range hosts {
		switch {
		case w.off == "nobody spends until all have answered" && hosts[i].ID != me:
			hosts[i].Epoch = b.Meta.Epoch
		case w.off == "a removed host does not spend" && hosts[i].ID == me:
			hosts[i].Removed = false
		}
	}
	switch w.off {
	case "the database's clock decides":
		if terms == nil {
			break
		}
		b.Now = start.Add(w.now + h.wall)
	case "never":
		if terms != nil && terms.Never {
			terms.Never, terms.TakeOverAfter = false, ledger.CallEnds
		}
	case "the database's identity":
		b.Identity = b.Meta.Identity
	}
	return b
}

func (w *world) check(h *host) {
	p := h.p
	right, self := p.right, h.disk.self
	verdict := errAway
	_ = w.tx(h, p.e.in.Key, func(b ledger.Book, _ *tables) error {
		b = w.doctored(b, h, p, nil)
		var claims []ledger.Claim
		for _, c := range b.Claims {
			switch {
			case w.off == "my attempt is the newest" && c.Nonce != right.Nonce:
				continue
			case w.off == "5 s of database time" && c.Nonce == right.Nonce:
				c.At = b.Now
			}
			claims = append(claims, c)
		}
		b.Claims = claims
		elapsed := w.now - p.asked
		if w.off == "5 s of boot time" {
			elapsed = 0
		}
		if w.off == "the token still stands at the check" {
			b.Grant.State, b.Grant.Token = ledger.Live, p.e.in.Sends
		}
		if w.off == "the same epoch at the check" {
			self.Epoch, right.Epoch = b.Meta.Epoch, b.Meta.Epoch
			b.Identity = b.Meta.Identity
			for i := range b.Hosts {
				b.Hosts[i].Epoch = b.Meta.Epoch
			}
		}
		verdict = b.Check(self, right, elapsed)
		return errAway // nothing to commit
	})
	w.also("check", verdict, func(r Database) error { return r.Check(self, right, w.now-p.asked) })
	p.at, p.checked = "look", w.ticks
	if verdict != nil && w.off != "a check before the first byte" {
		w.say("%s: %v", h.name, verdict)
		p.at = "unsent"
	}
}

func (w *world) writeOut(h *host) {
	p := h.p
	fate := 0
	if w.faulty {
		fate = w.pick("request", 12)
	}
	switch {
	case h.noUPS:
		p.reply = reply{kind: "no byte"}
	case fate == 1:
		p.reply = reply{kind: "429"}
	case fate == 2:
		p.reply = reply{kind: "lost"}
	default:
		p.use = &use{
			h: h, id: h.disk.self.ID, nonce: p.e.in.Nonce, number: p.right.Number, claimed: p.e.claimed, at: w.now,
			takeOver: p.takeOver, late: w.now-p.lastLook > ledger.SendWithin, makes: p.right.Makes, claimedAt: p.e.at, saw: p.e.saw, checked: p.checked, key: p.e.in.Key,
		}
		if p.e.in.Purpose == grant.Authorizing {
			w.ups.lineage++
			w.ups.keys[w.ups.lineage] = p.e.in.Key
			p.reply = reply{kind: "granted", tok: w.ups.issue(w.ups.lineage)}
		} else {
			p.reply = w.send(p)
		}
		if fate == 3 {
			p.reply = reply{kind: "lost"}
			w.cause = unsealed
		}
		p.e.use = p.use
	}
	p.at = "answer"
}

func (w *world) answered(h *host) {
	p := h.p
	w.say("%s got %s", h.name, p.reply.kind)
	switch p.reply.kind {
	case "no byte":
		w.tell(h, ledger.NoByte)
	case "429":
		w.tell(h, ledger.Limited)
	case "lost":
		w.tell(h, ledger.NoAnswer)
	case "refused":
		w.tell(h, ledger.Refused)
	case "granted":
		p.e.answer = nil
		answer := &item{p.e.in.Key, p.right.Makes, p.reply.tok}
		if w.off == "the intent is on disk before the claim" && !h.full {
			h.disk.journal = append(h.disk.journal, p.e)
		}
		if !h.full && w.off != "the answer is sealed before the commit" {
			p.e.answer = answer
			p.use.sealed = true
		}
		p.full = h.full
		p.at = "commit"
	}
}

// tell says in one transaction what became of an attempt; where the database is away, the
// next process settles it.
func (w *world) tell(h *host, o ledger.Outcome) {
	p := h.p
	wrote := false
	err := w.tx(h, p.e.in.Key, func(b ledger.Book, t *tables) error {
		c, ok := b.ByNonce(p.e.in.Nonce)
		if !ok {
			return nil
		}
		if c, write := c.Told(o); write {
			wrote = true
			t.write(c)
			w.judge(t, b)
		}
		return nil
	})
	w.also("told", nil, func(r Database) error { return w.judged(r, wrote, p.e.in.Key, r.Told(p.e.in, o)) })
	if err == nil {
		for _, c := range h.db.now.claims {
			if c.Nonce == p.e.in.Nonce {
				p.e.settled = true
			}
		}
	}
	if !o.Spends() {
		p.e.settled = p.e.settled || ended(h.db, p.e.in.Nonce)
	}
	h.p = nil
}

func ended(d *database, nonce string) bool {
	for _, c := range d.now.claims {
		if c.Nonce == nonce && c.Outcome != ledger.Open {
			return true
		}
	}
	return false
}

func (w *world) commit(h *host) {
	p := h.p
	e := p.e
	if e.answer == nil {
		// The disk took nothing: the answer is in memory alone.
		if p.full {
			w.cause = unsealed
		}
		copied := *e
		copied.answer = &item{e.in.Key, p.right.Makes, p.reply.tok}
		if err := w.deliver(h, &copied); err == nil {
			e.settled = true
			h.p = nil
		} else if w.pick("give up", 3) == 0 {
			h.p = nil
		}
		return
	}
	_ = w.deliver(h, e)
	h.p = nil
}
