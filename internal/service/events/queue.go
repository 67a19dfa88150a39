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
	// Store keeps what was told, and what waits.
	Store Store
	Now   func() time.Time
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

// Queue is the events of a vault. Look and Work may be called by two goroutines, and where
// several hosts share the store, by each of them.
type Queue struct {
	Options
	start time.Time
	news  chan struct{}

	mu      sync.Mutex
	command []string
	// told is what Begin has read for the next look, nil where nothing is.
	told *Told
}

// New makes a queue. Its store is read when it is looked at first.
func New(o Options) *Queue {
	return &Queue{Options: o, start: o.Now(), news: make(chan struct{}, 1)}
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

// Begin reads what was told. Whoever shares the store with others calls it before what there is
// is read for a look: what others tell of meanwhile makes the look a *ConflictError, and what
// was read is as it was before.
func (q *Queue) Begin(ctx context.Context) error {
	told, damaged, err := q.Store.Read(ctx)
	for _, one := range damaged {
		q.Trouble("events "+one.Error(), "", one.Error()+". Events in it may not be told, and others may be told again with the same ID.")
	}
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told = &told
	return nil
}

// Look finds what has happened since the last look, and keeps it for the command. When it
// returns nil, that survives a loss of power. Without a command nothing is kept, and once
// there is one again, what lasts is told, such as trouble, and no authorization that was
// given meanwhile.
func (q *Queue) Look(ctx context.Context, now Known, command []string) error {
	q.mu.Lock()
	told := q.told
	q.told = nil
	if !slices.Equal(command, q.command) {
		q.command = slices.Clone(command)
		q.mu.Unlock()
		if err := q.Store.Hurry(ctx); err != nil { // what failed so far says nothing of the new one
			return err
		}
	} else {
		q.mu.Unlock()
	}
	if told == nil {
		if err := q.Begin(ctx); err != nil {
			return err
		}
		q.mu.Lock()
		told, q.told = q.told, nil
		q.mu.Unlock()
	}
	if len(command) == 0 {
		waiting, changed, err := q.Store.TurnOff(ctx)
		if changed && waiting > 0 {
			q.Event("config.toml has no command under [events] any more (events that wait for one: %d)", waiting)
		}
		return err
	}
	if err := q.compare(ctx, now, *told); err != nil {
		return err
	}
	q.wake()
	return nil
}

func (q *Queue) wake() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// compare finds events and saves them.
func (q *Queue) compare(ctx context.Context, k Known, told Told) error {
	records, complete := k.Records, k.Complete
	now := q.Now().UTC()
	silent := told.Silent
	known, all := maps.Clone(told.Grants), maps.Clone(told.Invitations)
	present := map[string]bool{}
	for i := range records {
		if r := &records[i]; r.TokenVaultKey != "" && !r.Removing {
			present[r.TokenVaultKey] = true
		}
	}
	changed := told.Silent || told.Unsaved
	there := map[string]bool{}
	for _, l := range k.Invitations {
		there[string(l.Key)] = true
	}
	lanes, gone, waits := lanesOf(known, present, all, there), replacedBy(known, present), map[string]bool{}
	maps.Copy(waits, told.Waiting)
	fresh := newBatch()
	found := []*Batch{fresh}
	// add keeps events for the command, in the batch that has what is known once they are told.
	add := func(headers []Header, facts []byte, e Event) error {
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
		news := map[string]Memory{r.TokenVaultKey: after}
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
		if err := add(headers, facts, Event{Key: r.TokenVaultKey, Of: r.ID}); err != nil {
			return err
		}
		maps.Copy(fresh.Grants, news)
	}
	// Those behind the grants: what a customer has authorized is told first.
	for _, l := range oldestFirst(k.Invitations) {
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
				err = add([]Header{h}, facts, Event{Invitation: key, Of: after.ID})
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
	return q.Store.Keep(ctx, Found{Before: told, Grants: known, Invitations: all, Batches: found, Joined: lanes.all()})
}

// replaced are the grants that others have taken the place of, by their slots.
type replaced map[string]string

func replacedBy(known map[string]Memory, present map[string]bool) replaced {
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
func (g replaced) find(r grant.Record, known map[string]Memory, present map[string]bool) (key string) {
	for _, old := range r.Superseded {
		if _, ok := known[old.TokenVaultKey]; ok && !present[old.TokenVaultKey] {
			return old.TokenVaultKey
		}
	}
	return g[r.Slot()]
}

// later reports whether m was there later than another grant in the same place; of those
// that were missed at once, the one in trouble.
func later(m, than Memory) bool {
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
func same(a, b Memory) bool {
	generation := a.Generation == b.Generation || len(a.Told)+len(b.Told) == 0 && !a.Refused
	return generation && maps.Equal(a.Told, b.Told) && a.ID == b.ID && a.Lane == b.Lane && a.Wrong == b.Wrong && a.Refused == b.Refused &&
		a.Days == b.Days && a.Ends.Equal(b.Ends) && a.Gone.Equal(b.Gone)
}

// laneBook finds the lanes of companies. Two become one where companies do.
type laneBook struct {
	byName map[grant.Folded]string
	joined map[string]string
}

func lanesOf(known map[string]Memory, present map[string]bool, all map[string]Invited, there map[string]bool) *laneBook {
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

// all are the lanes that have become others.
func (l *laneBook) all() map[string]string {
	joined := map[string]string{}
	for lane := range l.joined {
		joined[lane] = l.find(lane)
	}
	return joined
}

// join puts grants and invitations into the lanes that theirs have become.
func (l *laneBook) join(known map[string]Memory, all map[string]Invited) (changed bool) {
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
		one, wait := q.due(ctx)
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
// one may be, zero where none waits.
func (q *Queue) due(ctx context.Context) (one *Event, wait time.Duration) {
	q.mu.Lock()
	command := q.command
	q.mu.Unlock()
	if len(command) == 0 {
		return nil, 0
	}
	one, wait, err := q.Store.Next(ctx)
	if err != nil && ctx.Err() == nil {
		q.Trouble("events next", errorKind(err), "events that wait can't be told: "+err.Error())
		return nil, step
	}
	return one, wait
}

// tell tells the command of an event, and notes what became of it.
func (q *Queue) tell(ctx context.Context, e Event) {
	q.mu.Lock()
	command := q.command
	q.mu.Unlock()
	said, err := q.Run(ctx, command, append(slices.Clone([]byte(e.Text)), '\n'))
	whole := context.WithoutCancel(ctx)
	if err != nil && ctx.Err() != nil {
		if err := q.Store.Leave(whole, e); err != nil {
			q.Trouble("events leave", "", "an event that was not told waits a while for another host: "+err.Error())
		}
		return // the next service tells it
	}
	what := fmt.Sprintf("the event %s of %s", legible.Line(string(e.Kind)), e.Of)
	answer := ""
	if said != "" {
		answer = "; the command said: " + said
	}
	now := q.Now()
	last := now.Sub(e.Time) >= patience && now.Sub(q.start) >= startPatience
	switch {
	case err == nil:
		q.Event("told %s, ID %s%s", what, e.ID, answer)
	case last:
		q.Trouble("event "+e.ID, "", fmt.Sprintf("dropped %s, ID %s: the command under [events] has failed for a day: %v%s", what, e.ID, err, answer))
	default:
		pause := min(firstPause<<min(e.Tries, 10), longestPause)
		waiting, keepErr := q.Store.Later(whole, e, pause)
		q.Trouble("events", errorKind(err), fmt.Sprintf("the command under [events] did not take %s, and runs again with it soon: %v%s (events that wait: %d)", what, err, answer, waiting))
		if keepErr != nil {
			q.Trouble("events later", errorKind(keepErr), "when an event is told again can't be noted: "+keepErr.Error())
		}
		return
	}
	if err := q.Store.Done(whole, e, err == nil); err != nil {
		q.Trouble("events files", "", "events that were told can't be taken out of the queue, so a restart of the service would tell them again, with the same ID: "+err.Error())
	}
}

// errorKind tells the failures of a command apart.
func errorKind(err error) string {
	if limit := new(limitError); errors.As(err, &limit) {
		return "limit"
	}
	return err.Error()
}
