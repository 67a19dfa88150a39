// Package ledgertest is a model of several hosts that share a grant by the ledger's rules: a
// world in memory, in which anything may happen at any time. A real database can be played
// the same schedules.
package ledgertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
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

type entry struct {
	in       ledger.Intent
	claimed  time.Duration // true time
	at       int           // tick
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

type reply struct {
	kind string // granted, refused, 429, lost
	tok  int
}

// ---- UPS

type token struct {
	id, lineage, child int
	spent, dead        bool
	uses               []*use
}

type use struct {
	claimedAt   int // the tick of the claim
	h           *host
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
	late := u.committed > 0 && u.committed < v.checked && (u.committedTo == v.h.db || v.h.db.began >= u.committed)
	first, second := u, v
	if v.claimedAt < u.claimedAt {
		first, second = v, u
	}
	if !late {
		if why, ok := w.respected(u, v); ok {
			return why, true
		}
	}
	// Otherwise the database has lost what would have kept one of them back. The row may have
	// come back since, with the answer.
	rolled := false
	for _, r := range w.rolls {
		rolled = rolled || first.claimedAt < r.at && r.at < second.claimedAt && r.to < first.number
	}
	switch {
	case !late && !rolled && known(second.h.db, first.nonce):
		return "", false
	case u.h.unregistered || v.h.unregistered || w.stranger(u) || w.stranger(v):
		return unknownHost, true
	case u.h.ordered || v.h.ordered:
		return byOrder, true
	case first.diskLost:
		return diskDied, true
	case late && !u.sealed:
		return unsealed, true // a full disk: the commit was all there was, and is lost
	case w.unseen(first, second.h, rolled):
		return restored, true
	}
	return "", false
}

// stranger reports whether a host has registered with an old primary alone.
func (w *world) stranger(u *use) bool {
	_, here := rowOf(w.db.now.hosts, u.id)
	return u.h.db != w.db && !here
}

// respected reports whether the second attempt waited as long as it had to.
func (w *world) respected(u, v *use) (window, bool) {
	respect := ledger.CallEnds
	if u.h != v.h && !v.takeOver && !removed(v.h.db.now.hosts, u.id) && !(spoken(v.h.db, u.nonce) && w.over(u)) {
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

func known(d *database, nonce string) bool {
	for _, c := range d.now.claims {
		if c.Nonce == nonce {
			return true
		}
	}
	return false
}

// unseen reports whether the database's machine was put back to before a claim, or before the
// commit of its answer, and the other host had seen nothing that tells.
func (w *world) unseen(first *use, other *host, rolled bool) bool {
	for _, r := range w.rolls {
		saw := r.seen[other]
		if r.at > first.claimedAt && saw.made[first.key].Token.Before(first.makes) && (!rolled && known(other.db, first.nonce) || saw.number < first.number) {
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

// over reports whether the owner of an attempt may say that it has no answer.
func (w *world) over(u *use) bool {
	return !u.sealed && (u.h.p == nil || u.h.p.use != u)
}

func spoken(d *database, nonce string) bool {
	for _, c := range d.now.claims {
		if c.Nonce == nonce {
			return c.Outcome == ledger.NoAnswer
		}
	}
	return false
}

func byNonce(b ledger.Book, nonce string) (ledger.Claim, bool) {
	for _, c := range b.Claims {
		if c.Nonce == nonce {
			return c, true
		}
	}
	return ledger.Claim{}, false
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

// ---- the hosts' steps

var (
	errAway    = errors.New("the database is away")
	errUnknown = errors.New("nobody knows whether it was committed")
)

// tx is one transaction on the grant's row. Its rules see book, and change t.
func (w *world) tx(h *host, key string, run func(b ledger.Book, t *tables) error) error {
	w.latest = latest{}
	if h.noDB || h.db == nil {
		return errAway
	}
	fault := 0
	if w.faulty {
		fault = w.pick("transaction", 24)
	}
	if fault == 1 || fault == 2 {
		h.db = w.db // another connection
		return map[int]error{1: errAway, 2: errUnknown}[fault]
	}
	d := h.db
	t := d.now.copied()
	for i := range t.hosts {
		if t.hosts[i].ID == h.disk.self.ID {
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
		if c.Number == h.disk.self.Seen.Number && w.off != "the highest claim number that was seen" {
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
		h.db = w.db
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

// judged has the real database judge the grant where the model did although the claim was of
// another one.
func (w *world) judged(r Database, wrote bool, key string, err error) error {
	if err == nil && wrote && w.latest.before.grant.Key != key {
		err = r.Judge()
	}
	return err
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
	if c, ok := byNonce(b, e.in.Nonce); ok {
		c, _ = c.Told(ledger.Granted)
		t.write(c)
	}
	return nil
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
			p.e.claimed, p.e.at = w.now, w.ticks
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
			takeOver: p.takeOver, late: w.now-p.lastLook > ledger.SendWithin, makes: p.right.Makes, claimedAt: p.e.at, checked: p.checked, key: p.e.in.Key,
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
		c, ok := byNonce(b, p.e.in.Nonce)
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
