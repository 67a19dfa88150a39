package ledgertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/ledger"
)

func newWorld(pick func(string, int) int, off string) *world {
	w := &world{
		pick: pick, off: off, faulty: true, now: time.Second,
		told: map[window]int{}, revoked: map[string]bool{}, lost: map[int]bool{},
		ups: &ups{
			mode: []string{"kill", "refuse", "grant"}[pick("UPS", 3)],
			dead: map[int]bool{}, why: map[int]window{}, keys: map[int]string{0: "K0"},
		},
	}
	w.terms = ledger.Terms{TakeOverAfter: 10 * time.Minute, Never: pick("never", 6) == 5}
	tok := w.ups.issue(0)
	w.db = &database{id: ledger.Identity{System: "s", Timeline: "1", Database: 1, Claims: 1}}
	first := ledger.Made{Generation: 1, Attempt: 1}
	w.db.now = tables{
		meta:  ledger.Meta{Epoch: 1, Identity: w.db.id},
		grant: ledger.Grant{Key: "K0", Token: first, State: ledger.Live, Version: 1},
		item:  item{"K0", first, tok},
	}
	w.db.past = []tables{w.db.now.copied()}
	for range 2 + pick("hosts", 2) {
		w.addHost(disk{})
	}
	return w
}

func (w *world) addHost(d disk) {
	n := len(w.hosts) + 1
	h := &host{
		name: fmt.Sprintf("web-%d", n), machine: fmt.Sprintf("m%d", n), boot: fmt.Sprintf("b%d.1", n), db: w.db,
		wall: []time.Duration{0, time.Hour, -time.Hour}[n%3],
		disk: d.copied(),
	}
	w.hosts = append(w.hosts, h)
}

// run is one schedule: steps and faults in any order, then no more faults, and everything
// must come to its end.
func (w *world) run(steps int) {
	w.faulty = false
	for _, h := range w.hosts {
		w.until(h, "claim") // they are registered
		h.p = nil
	}
	w.faulty = true
	for range steps {
		if w.bad != "" {
			return
		}
		w.steps++
		w.cause = ""
		switch n := w.pick("what", 20); {
		case n < 14:
			// A process runs for a while, so that it gets somewhere.
			h := w.hosts[w.pick("host", len(w.hosts))]
			second := w.pick("process", 5) == 4
			for range 1 + w.pick("run", 4) {
				if second {
					w.stepSecond(h)
				} else {
					w.step(h)
				}
				w.look()
			}
		case n < 17:
			w.pass([]time.Duration{time.Second, 3 * time.Second, 6 * time.Second, 20 * time.Second, 61 * time.Second, 5 * time.Minute, 11 * time.Minute}[w.pick("time", 7)])
		default:
			w.fault()
		}
		w.look()
	}
	w.rest()
}

// pass lets time go by. A call to UPS does not last longer than its limit, unless its
// process is stopped.
func (w *world) pass(d time.Duration) {
	if d > 20*time.Second {
		for _, h := range w.hosts {
			if h.p != nil && h.p.at == "answer" {
				w.step(h)
			}
			if h.second != nil && h.second.at == "answer" {
				w.stepSecond(h)
			}
		}
	}
	w.now += d
	w.say("%s pass", d)
}

func (w *world) until(h *host, at string) {
	for range 20 {
		w.step(h)
		if h.p == nil || h.p.at == at {
			return
		}
	}
}

// kill ends all processes of a host.
func (w *world) kill(h *host) {
	for _, p := range h.processes() {
		w.killProcess(p)
	}
}

func (w *world) killProcess(p *process) {
	if p.reply.kind == "granted" && p.e.answer == nil {
		w.cause = unsealed
	}
	if p.h.p == p {
		p.h.stopped = false
	}
	p.end()
}

var faults = []string{
	"kill", "kill", "stop", "stop", "reboot", "database away", "UPS away", "disk full", "disk lost", "clone", "backup", "put back",
	"failover", "failover", "failover back", "failover back", "dump", "machine back", "remove", "accept", "revoke", "authorize", "authorize", "rename", "withdraw", "new host",
}

func (w *world) fault() {
	what := faults[w.pick("fault", len(faults))]
	h := w.hosts[w.pick("host", len(w.hosts))]
	w.say("%s: %s", h.name, what)
	switch what {
	case "kill":
		if all := h.processes(); len(all) > 0 {
			w.killProcess(all[w.pick("which", len(all))])
		}
	case "stop":
		h.stopped = !h.stopped
	case "reboot":
		w.kill(h)
		h.boot += "'"
	case "database away":
		h.noDB = !h.noDB
	case "UPS away":
		h.noUPS = !h.noUPS
	case "disk full":
		h.full = !h.full
	case "disk lost":
		w.kill(h)
		w.cause = diskDied
		w.lostRev = w.lostRev || len(h.disk.revoked) > 0
		for _, t := range w.ups.tokens {
			for _, u := range t.uses {
				// Also where the journal has let it go: the newer token, which was there, is lost.
				u.diskLost = u.diskLost || u.h == h
			}
		}
		h.disk = disk{}.copied()
		w.forgets(h)
	case "clone":
		if len(w.hosts) < 5 {
			w.addHost(h.disk)
		}
	case "backup":
		b := h.disk.copied()
		h.backup = &b
	case "put back":
		if h.backup == nil {
			return
		}
		w.kill(h)
		w.cause = restored
		w.lostRev = w.lostRev || len(h.disk.revoked) > 0
		h.restoredAt = w.now
		h.disk = h.backup.copied()
		for _, t := range w.ups.tokens {
			for _, u := range t.uses {
				has := slices.ContainsFunc(h.disk.journal, func(e *entry) bool { return e.in.Nonce == u.nonce && e.answer != nil })
				u.diskLost = u.diskLost || u.h == h && !has
			}
		}
		w.forgets(h)
	case "failover", "failover back", "dump", "machine back":
		w.failover(what)
	case "remove":
		w.remove(h.disk.self.ID)
		h.ordered = true
		w.lostRev = true
	case "accept":
		w.accept(h)
	case "revoke":
		if w.pick("revoke", 3) > 0 || h.noDB || h.db != w.db {
			return
		}
		key := w.db.now.grant.Key
		b := ledger.Book{Grant: w.db.now.grant}
		before := w.db.now
		w.db.now.grant, _ = b.Revoke(w.db.now.grant.Version)
		w.commitNow()
		w.compare(w.db, before, "revoke", nil, func(r Database) error { return r.Revoke() })
		h.disk.revoked[key] = true
		w.revoked[key] = true
	case "authorize":
		if h.second != nil || h.disk.self.Epoch == 0 || h.db != w.db {
			return
		}
		w.signIn(h)
	case "rename":
		b := w.book(w.db)
		before := w.db.now
		row, err := b.Rename(b.Grant.Version, w.terms)
		if err == nil {
			w.db.now.grant = row
			w.commitNow()
		}
		w.compare(w.db, before, "rename", err, func(r Database) error { return r.Rename(w.terms) })
	case "withdraw":
		if w.pick("withdraw", 4) > 0 {
			return
		}
		for l, key := range w.ups.keys {
			if key == w.db.now.grant.Key {
				w.ups.dead[l] = true
				w.ups.why[l] = withdrawn
			}
		}
	case "new host":
		if len(w.hosts) < 5 {
			w.addHost(disk{})
		}
	}
}

// accept is what a person says on a host, of the roll call that is to be read there.
func (w *world) accept(h *host) {
	if h.noDB || h.db != w.db {
		return
	}
	b, before, self := w.book(w.db), w.db.now, h.disk.self
	shown := b.Meta.Epoch
	for _, c := range before.claims {
		if c.Number == self.Seen.Number {
			b.Holder = &c
		}
	}
	if b.Meta.WentBack(b.Identity, self, b.Holder) {
		w.db.now.meta, w.db.now.claims = b.Meta.NextEpoch(b.Identity, self, before.claims, b.Now)
		w.commitNow()
	}
	b.Meta = w.db.now.meta
	waived, err := b.AcceptFailover(shown)
	if err == nil {
		for _, other := range w.hosts {
			if row, ok := rowOf(b.Hosts, other.disk.self.ID); ok && row.Epoch < b.Meta.Epoch {
				other.ordered = true
				w.lostRev = true
			}
		}
		w.db.now.hosts = waived
		w.commitNow()
	}
	w.compare(w.db, before, "accept a failover", err, func(r Database) error { return r.AcceptFailover(self, shown) })
}

// signIn begins a sign-in in the other process of a host.
func (w *world) signIn(h *host) {
	h.second = &process{h: h, db: h.db, self: h.disk.self}
	w.nonces++
	w.newIntent(h.second, ledger.Intent{Key: fmt.Sprintf("K%d", w.nonces), Generation: 1, Purpose: grant.Authorizing}, w.db.now.grant.Key)
}

func (w *world) commitNow() { w.db.keep() }

func (w *world) remove(id string) {
	before := w.db.now
	w.db.now = w.db.now.copied()
	for i := range w.db.now.hosts {
		if w.db.now.hosts[i].ID == id {
			w.db.now.hosts[i].Removed = true
		}
	}
	w.commitNow()
	if _, here := rowOf(w.db.now.hosts, id); here {
		w.compare(w.db, before, "remove a host", nil, func(r Database) error { return r.Remove(id) })
	}
}

// failover makes another database the primary, or puts this one back. Of some the old one
// runs on for a while, with the hosts that are connected to it.
func (w *world) failover(what string) {
	back := 0
	switch what {
	case "failover back":
		back = 1 + w.pick("commits", 4)
		w.cause = diskDied
	case "dump":
		back = 1 + w.pick("commits", 12)
		w.cause = restored
	case "machine back":
		back = 1 + w.pick("commits", 6)
		w.cause = restored
	}
	old := w.db
	back = min(back, len(old.past)-1)
	d := &database{began: w.ticks, id: old.id, skew: old.skew, past: old.past[: len(old.past)-back : len(old.past)-back]}
	d.now = d.past[len(d.past)-1].copied()
	if what == "machine back" {
		seen := map[*host]sight{}
		for _, h := range w.hosts {
			seen[h] = h.sight()
		}
		w.rolls = append(w.rolls, roll{w.ticks, d.now.meta.Highest, seen})
	}
	switch what {
	case "failover", "failover back":
		d.id.Timeline += "'"
		d.skew = []time.Duration{0, time.Hour, -time.Hour}[w.pick("skew", 3)]
	case "dump":
		d.id.Claims++
	}
	if old.real != nil {
		var err error
		if d.real, err = old.real.Failover(what, d.id, d.now.public()); err != nil {
			w.fail("%s: %v", what, err)
		}
	}
	w.db = d
	for _, h := range w.hosts {
		row := func(t tables) bool {
			for _, r := range t.hosts {
				if r.ID == h.disk.self.ID {
					return true
				}
			}
			return false
		}
		if row(old.now) && !row(d.now) || h.disk.self.ID != "" && h.db != old {
			h.unregistered = true
		}
		// With the old primary, if it runs on, each process is connected by itself.
		moves := func() bool { return what != "failover back" || w.pick("old primary", 3) > 0 }
		for _, p := range h.processes() {
			if moves() {
				p.db = d
			}
		}
		if moves() {
			h.db = d
		}
	}
}

func (w *world) book(d *database) ledger.Book {
	b := ledger.Book{Now: w.dbNow(d), Identity: d.id, Meta: d.now.meta, Hosts: d.now.hosts, Grant: d.now.grant}
	for _, c := range d.now.claims {
		if c.Key == d.now.grant.Key {
			b.Claims = append(b.Claims, c)
		}
	}
	return b
}

// look compares what is with what must be.
func (w *world) look() {
	if w.bad != "" {
		return
	}
	g := w.db.now.grant
	for l, key := range w.ups.keys {
		// What is lost of a grant that is not here is missed when it comes back.
		if key != g.Key && w.cause == "" || w.ups.dead[l] || w.lost[l] || g.State == ledger.Removing || w.revoked[key] {
			continue
		}
		good := -1
		for _, t := range w.ups.tokens {
			if t.lineage == l && !t.spent && !t.dead {
				good = t.id
			}
		}
		inDB, onDisk, inMemory := key == g.Key && w.db.now.item.tok == good, false, false
		waited := inDB // by a host that everybody has to wait for
		for _, h := range w.hosts {
			// What a copy of another host's disk has, nobody waits for: its own may be lost.
			before, own := onDisk || inMemory, h.disk.cache.key == key && h.disk.cache.tok == good
			for _, e := range h.disk.journal {
				has := e.answer != nil && e.answer.tok == good
				onDisk = onDisk || has
				own = own || has && e.in.Host == h.disk.self.ID
			}
			onDisk = onDisk || own
			for _, p := range h.processes() {
				has := p.reply.kind == "granted" && p.reply.tok == good
				inMemory, own = inMemory || has, own || has
			}
			_, here := rowOf(w.db.now.hosts, h.disk.self.ID)
			waited = waited || !before && own && !h.ordered && !h.unregistered && here
		}
		if !inDB && !onDisk && !inMemory {
			if w.cause == "" && w.spareDied(good) {
				w.cause = diskDied
			}
			if w.cause == "" {
				w.fail("nobody has the good token %d of %s", good, key)
			}
			w.told[w.cause]++
			w.ups.why[l] = w.cause
			w.lost[l] = true
			continue
		}
		if key != g.Key {
			continue
		}
		if g.State == ledger.Void && waited && (w.ups.why[l] == restored || w.rolledBack(good)) {
			w.told[restored]++ // until the host comes that has it
		} else if g.State == ledger.Void && waited {
			w.fail("%s is called void, but token %d is good (database %v, disk %v, memory %v)", key, good, inDB, onDisk, inMemory)
		}
	}
	if g.State != ledger.Removing && w.revoked[g.Key] && w.cause == "" && w.off == "a revoked grant stays revoked" && w.db.now.meta.Epoch == 1 {
		w.fail("%s was revoked and is %s", g.Key, g.State)
	}
}

// parent is the token that was sent for another; nil for one that began a lineage.
func (u *ups) parent(tok int) *token {
	for _, t := range u.tokens {
		if t.child == tok && len(t.uses) > 0 {
			return t
		}
	}
	return nil
}

// spareDied reports whether a token is one of two of its generation, and no disk keeps it as a
// spare: its host's was full, or is lost. The database had it until the other came.
func (w *world) spareDied(tok int) bool {
	t := w.ups.parent(tok)
	if t == nil || len(t.uses) < 2 {
		return false
	}
	return slices.ContainsFunc(t.uses, func(u *use) bool { return u.diskLost || !u.sealed })
}

// rolledBack reports whether the claim that brought a token was taken back with the
// database's machine.
func (w *world) rolledBack(tok int) bool {
	t := w.ups.parent(tok)
	if t == nil {
		return false
	}
	u := t.uses[len(t.uses)-1]
	for _, r := range w.rolls {
		if u.claimedAt < r.at && r.to < u.number {
			return true
		}
	}
	return false
}

// rest ends all faults. What is then left to do must come to its end.
func (w *world) rest() {
	if w.bad != "" {
		return
	}
	w.faulty = false
	w.say("rest")
	living := false
	for _, h := range w.hosts {
		h.stopped, h.noDB, h.noUPS, h.full, h.db = false, false, false, false, w.db
		for _, p := range h.processes() {
			p.db = w.db
		}
		living = living || !h.ordered && !removed(w.db.now.hosts, h.disk.self.ID)
	}
	if !living || len(w.hosts) == 0 {
		w.addHost(disk{})
	}
	reached := map[int]ledger.Made{}
	for round := range 12 {
		for _, h := range w.hosts {
			w.cause = ""
			for range 14 {
				if h.second == nil {
					break
				}
				w.stepSecond(h)
				w.look()
			}
			for range 14 {
				w.step(h)
				w.look()
				if w.bad != "" {
					return
				}
				if h.p == nil {
					break
				}
				if round > 5 {
					h.p.takeOver = true
				}
			}
			w.pass(7 * time.Second)
		}
		if round == 2 {
			// A person removes the hosts that are no more.
			for _, row := range w.db.now.hosts {
				here := false
				for _, h := range w.hosts {
					here = here || h.disk.self.ID == row.ID
				}
				if !here {
					w.remove(row.ID)
				}
			}
		}
		reached[round] = w.db.now.grant.Token
		w.pass(11 * time.Minute)
	}
	g := w.db.now.grant
	why := window("")
	for l, key := range w.ups.keys {
		if key == g.Key {
			why = w.ups.why[l]
		}
	}
	switch g.State {
	case ledger.Live:
		if !reached[8].Before(g.Token) {
			w.fail("%s is live, and nobody refreshes it", g.Key)
		}
		if w.revoked[g.Key] && !w.lostRev {
			w.fail("%s was revoked, and lives", g.Key)
		}
	case ledger.Void, ledger.Interrupted:
		if why == "" {
			w.fail("%s is %s, and nothing happened to it", g.Key, g.State)
		}
		b := w.book(w.db)
		if g.State == ledger.Interrupted && !w.isAwaited(b) {
			w.fail("%s is interrupted for ever", g.Key)
		}
		if _, err := b.Flip(g.Key, "new", ledger.Made{Generation: 1, Attempt: 1}, w.terms); errors.As(err, new(*ledger.ConflictError)) || err != nil && !w.terms.Never {
			w.fail("%s is %s, and nobody can sign in again: %v", g.Key, g.State, err)
		}
	}
}

// isAwaited reports whether a host that is no more, or was removed, may have an answer yet, or
// the newer token that somebody has seen.
func (w *world) isAwaited(b ledger.Book) bool {
	type run struct {
		id          string
		incarnation int64 // zero is each
	}
	living := map[run]bool{}
	for _, h := range w.hosts {
		self := h.disk.self
		if removed(b.Hosts, self.ID) {
			continue
		}
		living[run{self.ID, self.Incarnation}] = true
		living[run{self.ID, 0}] = !w.terms.Never // a host speaks for an earlier one after a time
	}
	refused := false
	for _, c := range b.Claims {
		spare := c.Outcome == ledger.Granted && c.Makes.Generation == b.Grant.Token.Generation && c.Makes != b.Grant.Token
		if (c.Outcome == ledger.Open || spare) && !living[run{c.Host, 0}] && !living[run{c.Host, c.Incarnation}] {
			return true
		}
		refused = refused || c.Outcome == ledger.Refused && c.Sends == b.Grant.Token
	}
	return !refused // UPS has not spoken: somebody has seen a newer one
}
