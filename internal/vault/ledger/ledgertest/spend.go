package ledgertest

import (
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

type process struct {
	h        *host
	db       *database   // that it is connected to
	asks     *database   // that it asked last whether it may send
	self     ledger.Self // as it was on disk when the process began
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

func (p *process) end() {
	if p.h.p == p {
		p.h.p = nil
	}
	if p.h.second == p {
		p.h.second = nil
	}
}

// spends reports whether it is between an intent and the end of its attempt, and so shares its
// host's epoch lock.
func (p *process) spends() bool { return p.e != nil }

// remember has the highest claim that was seen on disk.
func (p *process) remember(c ledger.Claim) {
	if p.self.Seen.Number < c.Number {
		p.self.Seen = ledger.Seen{Number: c.Number, Nonce: c.Nonce}
		p.h.disk.self.Seen = p.self.Seen
	}
}

// intend reads the grant and writes an intent, where there is something to send.
func (w *world) intend(p *process) {
	d := &p.h.disk
	var g ledger.Grant
	var it item
	err := w.tx(p, "", func(b ledger.Book, t *tables) error {
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
		p.end()
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
			p.end()
			return
		}
		p.tok, sends = spare.answer.tok, spare.makes
	}
	w.newIntent(p, ledger.Intent{Key: g.Key, Generation: g.Token.Generation + 1, Sends: sends, Purpose: grant.Refreshing}, "")
}

func (w *world) newIntent(p *process, in ledger.Intent, replaces string) {
	h, d := p.h, &p.h.disk
	if h.full {
		p.end()
		return
	}
	w.nonces++
	in.Nonce = fmt.Sprintf("n%d", w.nonces)
	in.Host, in.Incarnation, in.Epoch = p.self.ID, p.self.Incarnation, p.self.Epoch
	p.e = &entry{in: in, replaces: replaces}
	if w.off != "the intent is on disk before the claim" {
		d.journal = append(d.journal, p.e)
	}
	p.at = "claim"
}

func (w *world) unsettled(p *process) (nonces []string) {
	for _, e := range p.h.disk.journal {
		if e.in.Host == p.self.ID {
			nonces = append(nonces, e.in.Nonce)
		}
	}
	return nonces
}

func (w *world) claim(p *process) {
	h, d := p.h, &p.h.disk
	p.asked, p.asks = w.now, p.db
	missing := false
	var verdict error
	terms := w.terms
	terms.TakeOver = p.takeOver
	err := w.tx(p, p.e.in.Key, func(b ledger.Book, t *tables) error {
		self, seen := p.self, d.seen[p.e.in.Key]
		read := b
		b = w.doctored(b, p, &terms)
		if w.off == "a generation that goes back is refused" {
			seen = ledger.Sighting{}
		}
		row, isNew, err := b.Claim(self, p.e.in, seen, w.unsettled(p), terms)
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
			row.At = w.dbNow(p.db)
			t.write(row)
			row = t.claims[len(t.claims)-1]
			p.e.claimed, p.e.at, p.e.saw = w.now, w.ticks, read
		}
		p.right = row
		p.e.makes = row.Makes
		return nil
	})
	w.also("claim", verdict, func(r Database) error {
		got, err := r.Claim(p.self, p.e.in, d.seen[p.e.in.Key], w.unsettled(p), terms)
		if err == nil && verdict == nil {
			got.At = p.right.At
			err = same(got, p.right)
		}
		return err
	})
	switch {
	case missing:
		p.end()
	case err == nil:
		p.remember(p.right)
		p.at = "check"
	case errors.Is(err, errUnknown) && w.off == "only a clean commit is the right to send":
		p.right = ledger.Claim{Nonce: p.e.in.Nonce, Epoch: p.e.in.Epoch, At: w.dbNow(p.db)}
		p.at = "look"
	case errors.Is(err, errUnknown) || errors.Is(err, errAway):
		if w.pick("again", 4) == 0 {
			p.end()
		}
	default:
		w.say("%s: %v", h.name, err)
		if c := new(ledger.ConflictError); errors.As(err, &c) && c.WentBack {
			h.wentBack = true
		}
		if c := new(ledger.ClaimedError); errors.As(err, &c) {
			p.remember(c.Claim)
		}
		p.end()
	}
}

// doctored takes from what a claim, or with nil terms a check, sees what the rule that is
// left out needs.
func (w *world) doctored(b ledger.Book, p *process, terms *ledger.Terms) ledger.Book {
	if w.off == "" {
		return b
	}
	me := p.self.ID
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
		b.Now = start.Add(w.now + p.h.wall)
	case "never":
		if terms != nil && terms.Never {
			terms.Never, terms.TakeOverAfter = false, ledger.CallEnds
		}
	case "the database's identity":
		b.Identity = b.Meta.Identity
	}
	return b
}

func (w *world) check(p *process) {
	h := p.h
	right, self := p.right, p.self
	p.asks = p.db
	verdict := errAway
	_ = w.tx(p, p.e.in.Key, func(b ledger.Book, _ *tables) error {
		b = w.doctored(b, p, nil)
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

func (w *world) writeOut(p *process) {
	h := p.h
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
			h: h, id: p.self.ID, db: p.asks, nonce: p.e.in.Nonce, number: p.right.Number, claimed: p.e.claimed, at: w.now,
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

func (w *world) answered(p *process) {
	h := p.h
	w.say("%s got %s", h.name, p.reply.kind)
	switch p.reply.kind {
	case "no byte":
		w.tell(p, ledger.NoByte)
	case "429":
		w.tell(p, ledger.Limited)
	case "lost":
		w.tell(p, ledger.NoAnswer)
	case "refused":
		w.tell(p, ledger.Refused)
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
func (w *world) tell(p *process, o ledger.Outcome) {
	wrote := false
	err := w.tx(p, p.e.in.Key, func(b ledger.Book, t *tables) error {
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
		for _, c := range p.db.now.claims {
			if c.Nonce == p.e.in.Nonce {
				p.e.settled = true
			}
		}
	}
	if !o.Spends() {
		p.e.settled = p.e.settled || ended(p.db, p.e.in.Nonce)
	}
	p.end()
}

func ended(d *database, nonce string) bool {
	for _, c := range d.now.claims {
		if c.Nonce == nonce && c.Outcome != ledger.Open {
			return true
		}
	}
	return false
}

func (w *world) commit(p *process) {
	e := p.e
	if e.answer == nil {
		// The disk took nothing: the answer is in memory alone.
		if p.full {
			w.cause = unsealed
		}
		copied := *e
		copied.answer = &item{e.in.Key, p.right.Makes, p.reply.tok}
		if err := w.deliver(p, &copied); err == nil {
			e.settled = true
			p.end()
		} else if w.pick("give up", 3) == 0 {
			p.end()
		}
		return
	}
	_ = w.deliver(p, e)
	p.end()
}
