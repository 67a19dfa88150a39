package ledgertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// Database is a real database that does what the model's does, one transaction after the
// other. Each method is what its name is in the ledger. The database has one slot; a token is
// a number.
type Database interface {
	// At is called before each transaction, and makes all times as old as they are in the
	// model: a real database's clock can't be set.
	At(now time.Time, t Tables) error
	// Tables is what is in the database, with times of the model's.
	Tables() (Tables, error)

	Introduce(self ledger.Self, machine string, boots []string) (ledger.Self, error)
	OpenEpoch(self ledger.Self, older bool) error
	Answer(self ledger.Self, epoch int64) error
	Reinsert(self ledger.Self, in ledger.Intent, answered bool) error
	Settle(self ledger.Self, in ledger.Intent) error
	Disown(self ledger.Self, held ledger.Held, t ledger.Terms) error
	Told(in ledger.Intent, o ledger.Outcome) error
	Judge() error
	PutBack(key string, made ledger.Made, token int) error
	Deliver(in ledger.Intent, makes ledger.Made, token int) (made ledger.Made, stands bool, err error)
	Flip(replaces string, in ledger.Intent, makes ledger.Made, token int, t ledger.Terms) error
	Read() (ledger.Grant, int, error)
	Claim(self ledger.Self, in ledger.Intent, seen ledger.Sighting, unsettled []string, t ledger.Terms) (ledger.Claim, error)
	Check(self ledger.Self, right ledger.Claim, elapsed time.Duration) error
	Revoke() error
	Rename(t ledger.Terms) error
	Remove(host string) error
	AcceptFailover(self ledger.Self, epoch int64) error
	// Failover is the database that comes after this one: another one with the tables, or
	// the same one with its tables put back.
	Failover(what string, id ledger.Identity, t Tables) (Database, error)
}

// Tables are all that the rules know of a database.
type Tables struct {
	Meta   ledger.Meta
	Grant  ledger.Grant
	Token  int
	Claims []ledger.Claim
	Hosts  []ledger.Host
}

func (t tables) public() Tables {
	return Tables{Meta: t.meta, Grant: t.grant, Token: t.item.tok, Claims: t.claims, Hosts: t.hosts}
}

// Result is what became of a schedule.
type Result struct {
	Bad   string // what must not be, or in what the real database was another
	Steps int
	Trace []string
	// Compared is how many transactions the real database did as the model did.
	Compared map[string]int
}

// PlayReal plays the schedule of a number with a real database beside the model's. First
// makes it.
func PlayReal(seed uint64, first func(id ledger.Identity, t Tables) (Database, error)) Result {
	r := rand.New(rand.NewPCG(seed, 19))
	w := newWorld(func(_ string, n int) int { return r.IntN(n) }, "")
	w.tracing, w.compared = true, map[string]int{}
	var err error
	if w.db.real, err = first(w.db.id, w.db.now.public()); err != nil {
		return Result{Bad: err.Error()}
	}
	w.run(60 + r.IntN(100))
	return Result{Bad: w.bad, Steps: w.steps, Trace: w.trace, Compared: w.compared}
}

// latest is the transaction that the model did last.
type latest struct {
	db     *database // nil where it did not get there
	before tables
	ruled  error // what the rule said
}

// also has the real database do the model's latest transaction.
func (w *world) also(what string, ruled error, do func(Database) error) {
	if last := w.latest; last.db != nil {
		w.compare(last.db, last.before, what, ruled, do)
	}
}

func (w *world) compare(d *database, before tables, what string, ruled error, do func(Database) error) {
	if d.real == nil || w.bad != "" {
		return
	}
	if err := d.real.At(w.dbNow(d), before.public()); err != nil {
		w.fail("%s: %v", what, err)
		return
	}
	said, wanted := kind(do(d.real)), kind(ruled)
	if said != wanted {
		w.fail("%s: the real database says %q, and the model %q", what, said, wanted)
		return
	}
	t, err := d.real.Tables()
	if err != nil {
		w.fail("%s: %v", what, err)
		return
	}
	if got, want := describe(t), describe(d.now.public()); got != want {
		w.fail("%s: the real database has\n%s\nand the model\n%s", what, got, want)
		return
	}
	if i := notAsOld(t.Claims, d.now.claims); i >= 0 {
		w.fail("%s: the claim %s is of %s, not of %s", what, t.Claims[i].Nonce, t.Claims[i].At, d.now.claims[i].At)
	}
	w.compared[what]++
}

// same is an error of the model's where something is not as it is there.
func same[T comparable](got, want T) error {
	if got != want {
		return fmt.Errorf("got %+v, and not %+v", got, want)
	}
	return nil
}

// kind is an error without what differs by chance.
func kind(err error) string {
	var frozen *ledger.FrozenError
	var host *ledger.HostError
	var conflict *ledger.ConflictError
	var claimed *ledger.ClaimedError
	var settled *ledger.SettledError
	var late *ledger.LateError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &frozen):
		return fmt.Sprintf("frozen: %d %t %v", frozen.Epoch, frozen.Answer, slices.Sorted(slices.Values(frozen.Waiting)))
	case errors.As(err, &host):
		return fmt.Sprintf("host: %s", host.Reason)
	case errors.As(err, &conflict):
		return fmt.Sprintf("conflict: %t %t", conflict.WentBack, conflict.Missing)
	case errors.As(err, &claimed):
		return fmt.Sprintf("claimed: %s, for ever: %t", claimed.Claim.Nonce, claimed.Until.IsZero())
	case errors.As(err, &settled):
		return "settled: " + string(settled.Claim.Outcome)
	case errors.As(err, &late):
		return "late"
	}
	return err.Error()
}

// describe is all but the times, a line each.
func describe(t Tables) string {
	var b strings.Builder
	g := t.Grant
	fmt.Fprintf(&b, "%+v\ngrant %s %v %s, token %d\n", t.Meta, g.Key, g.Token, g.State, t.Token)
	for _, c := range t.Claims {
		c.At = time.Time{}
		fmt.Fprintf(&b, "%+v\n", c)
	}
	var hosts []string
	for _, h := range t.Hosts {
		h.Seen, h.Accepted = time.Time{}, true
		hosts = append(hosts, fmt.Sprintf("%+v\n", h))
	}
	slices.Sort(hosts)
	return b.String() + strings.Join(hosts, "")
}

// notAsOld is the first claim whose time is another, and -1 where none is. The transaction
// took some time of the real database's.
func notAsOld(got, want []ledger.Claim) int {
	for i := range got {
		if apart := got[i].At.Sub(want[i].At); apart > 20*time.Second || apart < -20*time.Second {
			return i
		}
	}
	return -1
}
