// Package events tells a program of what happens to grants: it finds out by comparing what
// is with what it has told, keeps what is to be told in a file, and tries until the program
// takes it.
package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/ups"
)

// Kind is what happened; its names never change.
type Kind string

const (
	Authorized    Kind = "authorized"     // a person signed in
	Void          Kind = "void"           // UPS refused the refresh token
	Expiring      Kind = "expiring"       // the refresh token ends within Days
	Expired       Kind = "expired"        // the refresh token has ended
	Recovered     Kind = "recovered"      // what was wrong is not any more
	RefusedClient Kind = "refused_client" // UPS refused the application
)

// Event is what a program is told, as JSON. No secret is in it.
type Event struct {
	Version     int       `json:"version"`
	ID          string    `json:"id"` // the same at each try
	Event       Kind      `json:"event"`
	Time        time.Time `json:"time"`
	Company     string    `json:"company"`
	Application string    `json:"application"`
	Environment string    `json:"environment"`
	// User is who signed in, and Expires when the refresh token ends; absent where that
	// is not known.
	User    string    `json:"user,omitempty"`
	Expires time.Time `json:"refresh_token_expires,omitzero"`
	// Days are 14, 7 or 1, for Expiring.
	Days int `json:"days,omitempty"`
}

// thresholds are how many days before its end a refresh token is told to be expiring, the
// nearest first.
var thresholds = [...]int{1, 7, 14}

const (
	format = 1
	// firstPause is how long it is to the second try; each pause is twice the one before,
	// up to longestPause. What nobody took for a day is dropped.
	firstPause   = 10 * time.Second
	longestPause = 10 * time.Minute
	patience     = 24 * time.Hour
	// forgetAfter is how long a grant that is there no more is remembered: a listing may
	// have missed it.
	forgetAfter = 30 * 24 * time.Hour
	day         = 24 * time.Hour
)

// state is the file.
type state struct {
	Version int               `json:"version"`
	Known   map[string]memory `json:"known"`   // by Token Vault Key
	Pending []pending         `json:"pending"` // in order
}

// memory is what was told of a grant.
type memory struct {
	Wrong Kind      `json:"wrong,omitempty"` // what is wrong with it
	Days  int       `json:"days,omitempty"`  // the nearest threshold that was told
	Seen  time.Time `json:"seen"`            // to the day
}

type pending struct {
	Event Event     `json:"event"`
	Tries int       `json:"tries,omitempty"`
	Next  time.Time `json:"next,omitzero"` // not before
}

// Options are what a queue works with.
type Options struct {
	Path string // the file
	Now  func() time.Time
	// After is time.After; it may be early.
	After func(time.Duration) <-chan time.Time
	// Tell tells the program of an event. An error is a try that came to nothing.
	Tell func(ctx context.Context, event []byte) error
	// Log is told what goes wrong.
	Log func(format string, args ...any)
}

// Queue is the events of one state directory. Look and Run may be called by two
// goroutines.
type Queue struct {
	Options
	news chan struct{}

	mu    sync.Mutex
	state state
}

// Open reads the queue's file, which need not exist.
func Open(o Options) (*Queue, error) {
	q := &Queue{Options: o, news: make(chan struct{}, 1)}
	text, err := safefile.ReadFile(o.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return q, nil
	case err != nil:
		return nil, safefile.Explain(o.Path, err)
	}
	if err := json.Unmarshal(text, &q.state); err != nil || q.state.Version != format {
		return nil, fmt.Errorf("the events in %s can't be read (%w). Remove the file if it is damaged: what is in it is not told then", o.Path, cmpErr(err, q.state.Version))
	}
	for i := range q.state.Pending {
		q.state.Pending[i].Next = time.Time{} // whoever mended the program starts the service again
	}
	return q, nil
}

func cmpErr(err error, version int) error {
	if err == nil {
		err = fmt.Errorf("format %d, this upsauth knows %d", version, format)
	}
	return err
}

// Look compares grants with what was told of them, and keeps what is to be told. When it
// returns nil, that survives a loss of power. Grants that are there at the first look are
// no news, but what is wrong with them is.
func (q *Queue) Look(records []grant.Record) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.Now().UTC()
	first := q.state.Version == 0
	next := state{Version: format, Known: map[string]memory{}, Pending: slices.Clone(q.state.Pending)}
	changed := first
	maps.Copy(next.Known, q.state.Known)
	here := map[string]bool{}
	for _, r := range records {
		if r.TokenVaultKey == "" || r.Removing {
			continue
		}
		here[r.TokenVaultKey] = true
		before, known := next.Known[r.TokenVaultKey]
		found, m := news(r, before, known || first, now)
		if m != before || !known {
			next.Known[r.TokenVaultKey], changed = m, true
		}
		for _, e := range found {
			next.Pending = append(next.Pending, pending{Event: e})
		}
	}
	for key, m := range next.Known {
		if !here[key] && now.Sub(m.Seen) >= forgetAfter {
			delete(next.Known, key)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return q.save(next)
}

// news is what is to be told of a grant, and what is remembered of it then.
func news(r grant.Record, m memory, known bool, now time.Time) (found []Event, after memory) {
	tell := func(kind Kind, days int) {
		found = append(found, Event{
			Version: 1, ID: uuid.NewString(), Event: kind, Time: now, Company: r.Company, Application: r.Application, Environment: r.Environment,
			User: r.User, Expires: r.RefreshTokenExpires.UTC(), Days: days,
		})
	}
	if !known {
		tell(Authorized, 0)
	}
	wrong := wrongWith(r, now)
	switch {
	case wrong == m.Wrong:
	case wrong == "":
		tell(Recovered, 0)
	default:
		tell(wrong, 0)
	}
	m.Wrong = wrong
	days := 0
	if ends := r.RefreshEnds(now); wrong != Void && wrong != Expired && !ends.IsZero() {
		for _, t := range thresholds {
			if ends.Sub(now) <= time.Duration(t)*day {
				days = t
				break
			}
		}
		if days != 0 && (m.Days == 0 || days < m.Days) {
			tell(Expiring, days)
		}
		m.Days = days
	}
	if now.Sub(m.Seen).Abs() >= day {
		m.Seen = now.Truncate(day)
	}
	return found, m
}

func wrongWith(r grant.Record, now time.Time) Kind {
	switch r.StateAt(now) {
	case grant.Void:
		return Void
	case grant.Expired:
		return Expired
	}
	// UPS's code for a client that it does not know.
	if e := r.LastError; e != nil && (e.Code == "10401" || e.Code == string(ups.ClientRefused)) {
		return RefusedClient
	}
	return ""
}

// save puts another state in the place of the one before. q.mu is held.
func (q *Queue) save(next state) error {
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := safefile.Write(q.Path, append(text, '\n')); err != nil {
		return err
	}
	q.state = next
	select {
	case q.news <- struct{}{}:
	default:
	}
	return nil
}

// Run tells what is to be told, one event after another, until the context ends. A company
// whose event nobody takes keeps no other one waiting, and its own stay in order.
func (q *Queue) Run(ctx context.Context) {
	for ctx.Err() == nil {
		one, wait := q.due()
		if wait == 0 {
			q.tell(ctx, one)
			continue
		}
		select {
		case <-q.After(wait):
		case <-q.news:
		case <-ctx.Done():
		}
	}
}

// due is the next event to be told; else wait is how long it is until one is.
func (q *Queue) due() (one pending, wait time.Duration) {
	const long = time.Hour
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.Now()
	wait = long
	seen := map[grant.Folded]bool{}
	for _, p := range q.state.Pending {
		company := grant.Fold(p.Event.Company)
		if seen[company] {
			continue
		}
		seen[company] = true
		// A clock that was set back must not keep it for longer than a pause.
		left := min(p.Next.Sub(now), longestPause)
		if left <= 0 {
			return p, 0
		}
		wait = min(wait, left)
	}
	return pending{}, wait
}

func (q *Queue) tell(ctx context.Context, one pending) {
	text, err := json.Marshal(one.Event)
	if err == nil {
		err = q.Tell(ctx, append(text, '\n'))
	}
	if err != nil && ctx.Err() != nil {
		return // it is told by the next service
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	next := q.state
	next.Pending = slices.Clone(next.Pending)
	at := slices.IndexFunc(next.Pending, func(p pending) bool { return p.Event.ID == one.Event.ID })
	now := q.Now().UTC()
	switch {
	case at < 0:
		return
	case err == nil:
		next.Pending = slices.Delete(next.Pending, at, at+1)
	case now.Sub(one.Event.Time) >= patience:
		q.Log("nobody took the event %s of %s for a day, so it is dropped: %v", one.Event.Event, one.Event.Company, err)
		next.Pending = slices.Delete(next.Pending, at, at+1)
	default:
		q.Log("the command of [events] fails, and is tried again: %v", err)
		next.Pending[at].Tries++
		next.Pending[at].Next = now.Add(min(firstPause<<min(one.Tries, 20), longestPause))
	}
	if err := q.save(next); err != nil {
		q.Log("what was told of events can't be saved: %v", err)
		// In memory it is so: else the same event was told again at once, for ever.
		q.state = next
	}
}
