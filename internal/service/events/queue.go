package events

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/legible"
)

const (
	// firstPause is how long it is to the second attempt; each pause is twice the one
	// before, up to longestPause.
	firstPause   = 5 * time.Second
	longestPause = 5 * time.Minute
	// patience is how old an event becomes before an attempt that fails is its last.
	// After a start, no event is dropped within startPatience: nobody could take it
	// before.
	patience      = day
	startPatience = time.Hour
	// step is the longest time without a look at the wall clock.
	step = 30 * time.Second
	// forgetAfter is how long a grant that is gone is remembered: what hides it, such as
	// a damaged record, may be mended.
	forgetAfter = 60 * day
)

// Options are what a queue works with.
type Options struct {
	Dir string // of its files, and of nothing else
	Now func() time.Time
	// After is time.After; it may be early.
	After func(time.Duration) <-chan time.Time
	// Facts is what is known of a grant, as a JSON object without secrets.
	Facts func(grant.Record, time.Time) ([]byte, error)
	// Invited is what is known of an invitation, as a JSON object without secrets.
	Invited func(invitation.Invitation, time.Time) ([]byte, error)
	// Run runs the command with an event on its standard input, and returns what the
	// command said last.
	Run func(ctx context.Context, command []string, event []byte) (said string, err error)
	// Event is told of what happens, Trouble of what goes wrong; what tells one trouble
	// about something from another.
	Event   func(format string, args ...any)
	Trouble func(about, what, text string)
}

// Queue is the events of a state directory. The service of its vault is the only one that
// uses it. Look and Work may be called by two goroutines.
type Queue struct {
	Options
	dir   string
	start time.Time
	news  chan struct{}

	mu      sync.Mutex
	loaded  bool
	command []string

	known   map[string]memory  // by Token Vault Key
	invited map[string]invited // by the invitations' keys
	first   bool               // nothing is known at all
	off     bool               // there was no command at the last look
	last    int64              // the number of the last batch
	covered int64              // batches below are known in the file of what was told
	unsaved bool               // known is not in that file
	batches []*batch
	lanes   map[string]*lane
}

// lane is how it stands with a company's next event.
type lane struct {
	tries int
	next  time.Time // not before
}

// New makes a queue, which reads its files when it is looked at first.
func New(o Options) *Queue {
	return &Queue{Options: o, dir: o.Dir, news: make(chan struct{}, 1), lanes: map[string]*lane{}}
}

// Known is what there is at a look.
type Known struct {
	// Records are those of grants. Complete says that they are all that there are: no file
	// was unreadable.
	Records  []grant.Record
	Complete bool
	// Invitations have the ends that they have come to by now, and the names that their
	// companies have now. AllInvitations says that they are all.
	Invitations    []invitation.Listed
	AllInvitations bool
}

// Look finds what has happened since the last look, and keeps it for the command. When it
// returns nil, that survives a loss of power. Without a command nothing is kept, and once
// there is one again, what lasts is told, such as trouble, and no authorization that was
// given meanwhile.
func (q *Queue) Look(now Known, command []string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.loaded {
		damaged, err := q.load()
		for _, one := range damaged {
			q.Trouble("events "+one.Error(), "", one.Error()+". Events in it may not be told, and others may be told again with the same ID.")
		}
		if err != nil {
			return err
		}
		q.loaded, q.start = true, q.Now()
	}
	if !slices.Equal(command, q.command) {
		q.command = slices.Clone(command)
		clear(q.lanes) // what failed so far says nothing of the new one
	}
	if len(command) == 0 {
		return q.turnOff()
	}
	if err := q.compare(now); err != nil {
		return err
	}
	q.wake()
	return nil
}

// turnOff notes that there is no command. Where there never was one, nothing is written.
func (q *Queue) turnOff() error {
	if q.off || q.first && len(q.batches) == 0 {
		return nil
	}
	q.off = true
	if err := q.saveKnown(); err != nil {
		q.off = false
		return err
	}
	if n := q.waiting(); n > 0 {
		q.Event("config.toml has no command under [events] any more (events that wait for one: %d)", n)
	}
	return nil
}

func (q *Queue) wake() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// compare finds events and saves them.
func (q *Queue) compare(k Known) error {
	records, complete := k.Records, k.Complete
	now := q.Now().UTC()
	silent := q.first || q.off
	known, all := maps.Clone(q.known), maps.Clone(q.invited)
	present := map[string]bool{}
	for i := range records {
		if r := &records[i]; r.TokenVaultKey != "" && !r.Removing {
			present[r.TokenVaultKey] = true
		}
	}
	changed := q.first || q.off || q.unsaved
	there := map[string]bool{}
	for _, l := range k.Invitations {
		there[string(l.Key)] = true
	}
	lanes, gone, waits := lanesOf(known, present, all, there), replacedBy(known, present), q.ids()
	fresh := newBatch()
	found := []*batch{fresh}
	// add keeps events for the command, in the batch that has what is known once they are told.
	add := func(headers []Header, facts []byte, e queue) error {
		for _, h := range headers {
			if waits[h.ID] {
				continue // what was told was lost with a damaged file
			}
			waits[h.ID] = true
			h.Version, h.Time = version, now.Truncate(time.Second)
			text, err := encode(h, facts)
			if err != nil {
				return err
			}
			e.ID, e.Kind, e.Time, e.Text = h.ID, h.Event, now, text
			fresh.Events = append(fresh.Events, e)
		}
		return nil
	}
	room := func(headers []Header) {
		if len(fresh.Events)+len(headers) > most {
			fresh = newBatch()
			found = append(found, fresh)
		}
	}
	for _, r := range records {
		if !present[r.TokenVaultKey] {
			continue
		}
		m, isKnown := known[r.TokenVaultKey]
		before := ""
		if !isKnown {
			before = gone.find(r, known, present)
			m = known[before]
		}
		m.Lane = lanes.of(r.Company, m.Lane, r.TokenVaultKey)
		headers, after := compare(r, m, !isKnown, silent, now)
		if isKnown && len(headers) == 0 && same(after, known[r.TokenVaultKey]) {
			continue
		}
		changed = true
		known[r.TokenVaultKey] = after
		news := map[string]memory{r.TokenVaultKey: after}
		if before != "" {
			// Its trouble is this one's now.
			old := known[before]
			old.Wrong, old.Refused = "", false
			known[before], news[before] = old, old
		}
		if len(headers) == 0 {
			continue
		}
		room(headers)
		facts, err := q.Facts(r, now)
		if err != nil {
			return err
		}
		if err := add(headers, facts, queue{Key: r.TokenVaultKey, Of: r.ID}); err != nil {
			return err
		}
		maps.Copy(fresh.Grants, news)
	}
	// Those behind the grants: what a customer has authorized is told first. The oldest comes
	// first, as a new one ends another.
	for _, l := range slices.Backward(k.Invitations) {
		key := string(l.Key)
		m, isKnown := all[key]
		m.Lane = lanes.of(l.Company, m.Lane, ownLane(l.CompanyID))
		headers, after := compareInvited(l, m, silent, now)
		if isKnown && len(headers) == 0 && after.same(all[key]) {
			continue
		}
		changed, all[key] = true, after
		if len(headers) == 0 {
			continue
		}
		room(headers)
		for _, h := range headers {
			facts, err := q.Invited(asOf(l.Invitation, h.Event), now)
			if err == nil {
				err = add([]Header{h}, facts, queue{Invitation: key, Of: after.ID})
			}
			if err != nil {
				return err
			}
		}
		fresh.Invitations[key] = after
	}
	for key, m := range all {
		switch {
		case there[key] || !k.AllInvitations && m.Gone.IsZero():
		case m.Gone.IsZero():
			m.Gone = now.Truncate(time.Second)
			all[key], changed = m, true
		case now.Sub(m.Gone) > forgetAfter:
			delete(all, key)
			changed = true
		}
	}
	for key, m := range known {
		switch {
		case present[key] || !complete && m.Gone.IsZero():
		case m.Gone.IsZero():
			m.Gone = now.Truncate(time.Second)
			known[key], changed = m, true
		case now.Sub(m.Gone) > forgetAfter:
			delete(known, key)
			changed = true
		}
	}
	if lanes.join(known, all) {
		changed = true
	}
	if !changed {
		return nil
	}
	return q.keep(known, all, found)
}

// keep saves what was found, and then what was told. Should it be cut off in between, the
// batches that are saved say what was told of their grants; all others are found again.
func (q *Queue) keep(known map[string]memory, all map[string]invited, found []*batch) error {
	for _, b := range found {
		if len(b.Events) == 0 {
			continue
		}
		b.number = q.last + 1
		if err := write(q.path(b.number), b); err != nil {
			return err
		}
		q.last = b.number
		q.batches = append(q.batches, b)
		maps.Copy(q.known, b.Grants)
		maps.Copy(q.invited, b.Invitations)
		q.unsaved = true
	}
	q.known, q.invited, q.unsaved = known, all, true
	off := q.off
	q.off = false
	if err := q.saveKnown(); err != nil {
		q.off = off
		return err
	}
	q.unsaved = false
	return nil
}

// replaced are the grants that others have taken the place of, by their slots.
type replaced map[string]string

func replacedBy(known map[string]memory, present map[string]bool) replaced {
	gone := replaced{}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		if m := known[key]; !present[key] {
			if best, ok := gone[m.Slot()]; !ok || later(m, known[best]) {
				gone[m.Slot()] = key
			}
		}
	}
	return gone
}

// find is the Token Vault Key of the grant that a new one has taken the place of.
func (g replaced) find(r grant.Record, known map[string]memory, present map[string]bool) (key string) {
	for _, old := range r.Superseded {
		if _, ok := known[old.TokenVaultKey]; ok && !present[old.TokenVaultKey] {
			return old.TokenVaultKey
		}
	}
	return g[r.Slot()]
}

// later reports whether m was there later than another grant in the same place; of those
// that were missed at once, the one in trouble.
func later(m, than memory) bool {
	switch {
	case m.Gone.IsZero() != than.Gone.IsZero():
		return m.Gone.IsZero()
	case !m.Gone.Equal(than.Gone):
		return m.Gone.After(than.Gone)
	}
	return (m.Wrong != "" || m.Refused) && than.Wrong == "" && !than.Refused
}

// same reports whether nothing has changed that has to be remembered. Of a grant in no
// trouble nobody asks for the generation, which each refresh changes.
func same(a, b memory) bool {
	generation := a.Generation == b.Generation || len(a.Told)+len(b.Told) == 0 && !a.Refused
	return generation && maps.Equal(a.Told, b.Told) && a.ID == b.ID && a.Lane == b.Lane && a.Wrong == b.Wrong && a.Refused == b.Refused &&
		a.Days == b.Days && a.Ends.Equal(b.Ends) && a.Gone.Equal(b.Gone)
}

// laneBook finds the lanes of companies. Two become one where companies do.
type laneBook struct {
	byName map[grant.Folded]string
	joined map[string]string
}

func lanesOf(known map[string]memory, present map[string]bool, all map[string]invited, there map[string]bool) *laneBook {
	l := &laneBook{byName: map[grant.Folded]string{}, joined: map[string]string{}}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !there[key] {
			l.byName[grant.Fold(all[key].Company)] = all[key].Lane
		}
	}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		if !present[key] { // of the others, the records say what they are called now
			l.byName[grant.Fold(known[key].Company)] = known[key].Lane
		}
	}
	return l
}

// ownLane is the lane of a company whose identity is all that is known of it.
func ownLane(companyID string) string {
	return strings.ToUpper(uuid.NewSHA1(namespace, []byte("company "+companyID)).String())
}

// of is the lane of what a company had, or had none yet: then it is that of the company's
// others, or its own.
func (l *laneBook) of(company, had, own string) string {
	name := grant.Fold(company)
	switch lane := l.byName[name]; {
	case had == "" && lane == "":
		had = own
	case had == "":
		return l.find(lane)
	case lane != "" && l.find(lane) != l.find(had):
		l.joined[l.find(had)] = l.find(lane)
	}
	l.byName[name] = l.find(had)
	return l.find(had)
}

func (l *laneBook) find(lane string) string {
	for l.joined[lane] != "" {
		lane = l.joined[lane]
	}
	return lane
}

// join puts grants and invitations into the lanes that theirs have become.
func (l *laneBook) join(known map[string]memory, all map[string]invited) (changed bool) {
	for key, m := range all {
		if lane := l.find(m.Lane); lane != m.Lane {
			m.Lane = lane
			all[key], changed = m, true
		}
	}
	for key, m := range known {
		if lane := l.find(m.Lane); lane != m.Lane {
			m.Lane = lane
			known[key], changed = m, true
		}
	}
	return changed
}

// Work tells the command of what waits, one event after the other, until the context
// ends. Events of one company are told in order, and keep no other company's waiting.
func (q *Queue) Work(ctx context.Context) {
	for ctx.Err() == nil {
		one, wait := q.due()
		if one != nil {
			q.tell(ctx, *one)
			continue
		}
		var later <-chan time.Time // never, where nothing waits
		if wait > 0 {
			later = q.After(min(wait, step))
		}
		select {
		case <-later:
		case <-q.news:
		case <-ctx.Done():
		}
	}
}

// due is the event that is to be told next, nil for none; wait is how long it is until
// one may be, zero where none waits. Of several companies, the one that waits longest for an attempt has its
// turn.
func (q *Queue) due() (one *queue, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.Now()
	if len(q.command) == 0 {
		return nil, 0
	}
	seen := map[string]bool{}
	var turn time.Time
	for _, b := range q.batches {
		if b.number >= q.covered {
			break // a loss of power could bring it again, after others
		}
		for i := range b.Events {
			e := &b.Events[i]
			name := q.laneOf(e)
			if seen[name] {
				continue
			}
			seen[name] = true
			at := q.lane(name)
			// A clock that was set back must not keep it for longer than a pause.
			if left := min(at.next.Sub(now), longestPause); at.tries > 0 && left > 0 {
				if wait == 0 || left < wait {
					wait = left
				}
				continue
			}
			if one == nil || at.next.Before(turn) {
				one, turn = e, at.next
			}
		}
	}
	if one == nil {
		return nil, wait
	}
	found := *one
	return &found, 0
}

func (q *Queue) laneOf(e *queue) string {
	if e.Invitation != "" {
		if m, ok := q.invited[e.Invitation]; ok {
			return m.Lane
		}
		return e.Invitation
	}
	if m, ok := q.known[e.Key]; ok {
		return m.Lane
	}
	return e.Key
}

func (q *Queue) lane(name string) *lane {
	l := q.lanes[name]
	if l == nil {
		l = &lane{}
		q.lanes[name] = l
	}
	return l
}

// ids are those of the events that are not told yet.
func (q *Queue) ids() map[string]bool {
	ids := map[string]bool{}
	for _, b := range q.batches {
		for i := range b.Events {
			ids[b.Events[i].ID] = true
		}
	}
	return ids
}

// waiting is how many events are not told yet.
func (q *Queue) waiting() (n int) {
	for _, b := range q.batches {
		n += len(b.Events)
	}
	return n
}

// tell tells the command of an event, and notes what became of it.
func (q *Queue) tell(ctx context.Context, e queue) {
	q.mu.Lock()
	command := q.command
	q.mu.Unlock()
	said, err := q.Run(ctx, command, append(slices.Clone([]byte(e.Text)), '\n'))
	if err != nil && ctx.Err() != nil {
		return // the next service tells it
	}
	what := fmt.Sprintf("the event %s of %s", legible.Line(string(e.Kind)), e.Of)
	answer := ""
	if said != "" {
		answer = "; the command said: " + said
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	name := q.laneOf(&e)
	at := q.lane(name)
	now := q.Now()
	last := now.Sub(e.Time) >= patience && now.Sub(q.start) >= startPatience
	switch {
	case err == nil:
		q.Event("told %s, ID %s%s", what, e.ID, answer)
		delete(q.lanes, name)
	case last:
		q.Trouble("event "+e.ID, "", fmt.Sprintf("dropped %s, ID %s: the command under [events] has failed for a day: %v%s", what, e.ID, err, answer))
		at.next = time.Time{}
	default:
		pause := min(firstPause<<min(at.tries, 10), longestPause)
		at.tries++
		at.next = now.Add(pause)
		q.Trouble("events", errorKind(err), fmt.Sprintf("the command under [events] did not take %s, and runs again with it soon: %v%s (events that wait: %d)", what, err, answer, q.waiting()))
		return
	}
	q.done(e)
}

// errorKind tells the failures of a command apart.
func errorKind(err error) string {
	if limit := new(limitError); errors.As(err, &limit) {
		return "limit"
	}
	return err.Error()
}

// done takes an event out of the queue.
func (q *Queue) done(e queue) {
	for _, b := range q.batches {
		if i := slices.IndexFunc(b.Events, func(other queue) bool { return other.ID == e.ID }); i >= 0 {
			b.Events = slices.Delete(b.Events, i, i+1)
			b.dirty = true
			break
		}
	}
	var failed []string
	q.batches = slices.DeleteFunc(q.batches, func(b *batch) bool {
		if !b.dirty {
			return false
		}
		if err := q.saveBatch(b); err != nil {
			failed = append(failed, err.Error())
			return false
		}
		return len(b.Events) == 0 && !b.dirty
	})
	if failed != nil {
		q.Trouble("events files", "", "events that were told can't be taken out of the queue, so a restart of the service would tell them again, with the same ID: "+strings.Join(failed, "; "))
	}
}
