package ledgertest

import (
	"errors"
	"time"

	"github.com/upsauth/upsauth/internal/vault/ledger"
)

type item struct {
	key  string
	made ledger.Made
	tok  int
}

type tables struct {
	meta   ledger.Meta
	grant  ledger.Grant
	item   item
	claims []ledger.Claim
	hosts  []ledger.Host
}

func (t tables) copied() tables {
	t.claims = append(make([]ledger.Claim, 0, len(t.claims)+2), t.claims...)
	t.hosts = append(make([]ledger.Host, 0, len(t.hosts)+1), t.hosts...)
	return t
}

type database struct {
	began int // the tick at which it became the primary
	id    ledger.Identity
	skew  time.Duration
	now   tables
	past  []tables // after each commit, the latest last
	real  Database // nil where the model is alone
}

func rowOf(hosts []ledger.Host, id string) (ledger.Host, bool) {
	for _, h := range hosts {
		if h.ID == id {
			return h, true
		}
	}
	return ledger.Host{}, false
}

func removed(hosts []ledger.Host, id string) bool {
	h, ok := rowOf(hosts, id)
	return ok && h.Removed
}

// openRow is the claim of an intent that the rules refuse.
func openRow(b ledger.Book, in ledger.Intent) ledger.Claim {
	attempt := 1
	for _, c := range b.Claims {
		if c.Makes.Generation == in.Generation {
			attempt = max(attempt, c.Makes.Attempt+1)
		}
	}
	return ledger.Claim{
		Key: in.Key, Makes: ledger.Made{Generation: in.Generation, Attempt: attempt}, Sends: in.Sends, Nonce: in.Nonce,
		Host: in.Host, Incarnation: in.Incarnation, Purpose: in.Purpose, Epoch: b.Meta.Epoch, At: b.Now,
	}
}

var (
	errAway    = errors.New("the database is away")
	errUnknown = errors.New("nobody knows whether it was committed")
	errLocked  = errors.New("another process of this host holds the epoch's lock")
)

// tx is one transaction on the grant's row. Its rules see book, and change t.
func (w *world) tx(p *process, key string, run func(b ledger.Book, t *tables) error) error {
	h := p.h
	w.latest = latest{}
	if h.noDB || p.db == nil {
		return errAway
	}
	fault := 0
	if w.faulty {
		fault = w.pick("transaction", 24)
	}
	if fault == 1 || fault == 2 {
		h.db, p.db = w.db, w.db // another connection
		return map[int]error{1: errAway, 2: errUnknown}[fault]
	}
	d := p.db
	t := d.now.copied()
	for i := range t.hosts {
		if t.hosts[i].ID == p.self.ID {
			t.hosts[i].Seen = w.dbNow(d)
		}
	}
	b := ledger.Book{Now: w.dbNow(d), Identity: d.id, Meta: t.meta, Hosts: t.hosts, Grant: t.grant}
	if key != "" {
		b.Claims = make([]ledger.Claim, 0, len(t.claims))
	}
	for i := range t.claims {
		c := &t.claims[i]
		if c.Key == key {
			b.Claims = append(b.Claims, *c)
		}
		if c.Number == p.self.Seen.Number && w.off != "the highest claim number that was seen" {
			holder := *c
			b.Holder = &holder
		}
	}
	w.latest = latest{db: d, before: d.now}
	if err := run(b, &t); err != nil {
		w.latest.ruled = err
		return err
	}
	d.now = t
	d.keep()
	if fault == 3 {
		h.db, p.db = w.db, w.db
		return errUnknown
	}
	return nil
}

// keep remembers what is now, should it be taken back. Whoever changes tables in place
// copies them first.
func (d *database) keep() {
	if len(d.past) == 48 {
		d.past = append(make([]tables, 0, 48), d.past[32:]...)
	}
	d.past = append(d.past, d.now)
}

func (w *world) dbNow(d *database) time.Time { return start.Add(w.now + d.skew) }

// write puts a claim in its place.
func (t *tables) write(c ledger.Claim) {
	for i := range t.claims {
		if t.claims[i].Nonce == c.Nonce {
			t.claims[i] = c
			return
		}
	}
	t.meta.Highest++
	c.Number = t.meta.Highest
	t.claims = append(t.claims, c)
}

// judge says what the claims make of the grant.
func (w *world) judge(t *tables, b ledger.Book) {
	b.Grant, b.Claims = t.grant, nil
	if w.off == "nothing is void before all have answered" {
		b.Identity, b.Hosts = b.Meta.Identity, nil
	}
	for _, c := range t.claims {
		if c.Key != t.grant.Key {
			continue
		}
		switch {
		case w.off == "an open claim keeps a grant from being void" && c.Outcome == ledger.Open,
			w.off == "a spare is tried before void" && c.Outcome == ledger.Granted:
			continue
		case w.off == "a refusal counts against the token that was sent" && c.Outcome == ledger.Refused:
			c.Sends = t.grant.Token
		}
		b.Claims = append(b.Claims, c)
	}
	t.grant.State = b.Judge()
}

// judged has the real database judge the grant where the model did although the claim was of
// another one.
func (w *world) judged(r Database, wrote bool, key string, err error) error {
	if err == nil && wrote && w.latest.before.grant.Key != key {
		err = r.Judge()
	}
	return err
}
