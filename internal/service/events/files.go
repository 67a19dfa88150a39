package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/safefile"
)

// format is the format version of both kinds of files.
const format = 1

// told is the file of what was told of each grant.
type told struct {
	Version int `json:"version"`
	// Next is the number of the first batch whose memories are not in here.
	Next int64 `json:"next"`
	// Off says that there was no command at the last look.
	Off    bool              `json:"off,omitempty"`
	Grants map[string]Memory `json:"grants"` // by Token Vault Key
	// Invitations is the same of invitations, by their keys.
	Invitations map[string]Invited `json:"invitations,omitempty"`
}

// Batch is a file of events that were found by one look. It has what is known of their
// grants once they are told: both are there, or neither is.
type Batch struct {
	Version int     `json:"version"`
	Events  []Event `json:"events"`
	// Grants and Invitations are the memories that the events are made of.
	Grants      map[string]Memory  `json:"grants"`
	Invitations map[string]Invited `json:"invitations,omitempty"`

	number int64
	// dirty says that the file has events that were told since, or are dropped.
	dirty bool
}

func newBatch() *Batch {
	return &Batch{Version: format, Grants: map[string]Memory{}, Invitations: map[string]Invited{}}
}

// Event is an event that is not told yet.
type Event struct {
	ID   string `json:"id"`
	Kind Kind   `json:"event"`
	// Key is the Token Vault Key of the grant, or Invitation the invitation's key.
	Key        string          `json:"key,omitempty"`
	Invitation string          `json:"invitation,omitempty"`
	Of         grant.ID        `json:"of"`
	Time       time.Time       `json:"time"`
	Text       json.RawMessage `json:"text"` // what the program is told
	// Tries is how often the program has not taken it since somebody looked at it first.
	Tries int `json:"-"`
	// Taken names the attempt to tell it, where a store needs to know.
	Taken string `json:"-"`
}

// most is how many events a file may have: it is written anew after each.
const most = 64

const toldFile = "told.json"

// Files is the store in a directory of this machine, for one process.
type Files struct {
	dir string
	now func() time.Time

	mu      sync.Mutex
	loaded  bool
	known   map[string]Memory // by Token Vault Key
	invited map[string]Invited
	first   bool  // nothing is known at all
	off     bool  // there was no command at the last look
	last    int64 // the number of the last batch
	covered int64 // batches below are known in the file of what was told
	unsaved bool  // known is not in that file
	batches []*Batch
	lanes   map[string]*lane
}

// lane is how it stands with a company's next event.
type lane struct {
	tries int
	next  time.Time // not before
}

// NewFiles returns the store in a directory, which has nothing else in it.
func NewFiles(dir string, now func() time.Time) *Files {
	return &Files{dir: dir, now: now, lanes: map[string]*lane{}}
}

// Read returns what was told; see Store.
func (q *Files) Read(context.Context) (t Told, damaged []error, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.loaded {
		if damaged, err = q.load(); err != nil {
			return t, damaged, err
		}
		q.loaded = true
	}
	return Told{Silent: q.first || q.off, Unsaved: q.unsaved, Grants: q.known, Invitations: q.invited, Waiting: q.ids()}, damaged, nil
}

// TurnOff notes that there is no command; see Store. Where there never was one, nothing is
// written.
func (q *Files) TurnOff(context.Context) (waiting int, changed bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.off || q.first && len(q.batches) == 0 {
		return 0, false, nil
	}
	q.off = true
	if err := q.saveKnown(); err != nil {
		q.off = false
		return 0, false, err
	}
	return q.waiting(), true, nil
}

// Hurry lets all events be told at once; see Store.
func (q *Files) Hurry(context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.lanes)
	return nil
}

// Keep saves what was found, and then what was told; see Store. Should it be cut off in
// between, the batches that are saved say what was told of their grants; all others are found
// again.
func (q *Files) Keep(_ context.Context, f Found) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range f.Batches {
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
	q.known, q.invited, q.unsaved = f.Grants, f.Invitations, true
	off := q.off
	q.off = false
	if err := q.saveKnown(); err != nil {
		q.off = off
		return err
	}
	q.unsaved = false
	return nil
}

// Next is the event that is to be told next; see Store. Of several companies, the one that
// waits longest for an attempt has its turn.
func (q *Files) Next(context.Context) (one *Event, wait time.Duration, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
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
		return nil, wait, nil
	}
	found := *one
	found.Tries = q.lane(q.laneOf(one)).tries
	return &found, 0, nil
}

// Leave has nothing to do; see Store.
func (q *Files) Leave(context.Context, Event) error { return nil }

// Later puts an event off, and with it those of its company; see Store.
func (q *Files) Later(_ context.Context, e Event, pause time.Duration) (waiting int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.lane(q.laneOf(&e))
	at.tries++
	at.next = q.now().Add(pause)
	return q.waiting(), nil
}

// Done takes an event out of the queue; see Store.
func (q *Files) Done(_ context.Context, e Event, told bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if name := q.laneOf(&e); told {
		delete(q.lanes, name)
	} else {
		q.lane(name).next = time.Time{}
	}
	for _, b := range q.batches {
		if i := slices.IndexFunc(b.Events, func(other Event) bool { return other.ID == e.ID }); i >= 0 {
			b.Events = slices.Delete(b.Events, i, i+1)
			b.dirty = true
			break
		}
	}
	var failed []string
	q.batches = slices.DeleteFunc(q.batches, func(b *Batch) bool {
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
		return errors.New(strings.Join(failed, "; "))
	}
	return nil
}

func (q *Files) laneOf(e *Event) string { return e.lane(q.known, q.invited) }

func (q *Files) lane(name string) *lane {
	l := q.lanes[name]
	if l == nil {
		l = &lane{}
		q.lanes[name] = l
	}
	return l
}

// ids are those of the events that are not told yet.
func (q *Files) ids() map[string]bool {
	ids := map[string]bool{}
	for _, b := range q.batches {
		for i := range b.Events {
			ids[b.Events[i].ID] = true
		}
	}
	return ids
}

// waiting is how many events are not told yet.
func (q *Files) waiting() (n int) {
	for _, b := range q.batches {
		n += len(b.Events)
	}
	return n
}

func (q *Files) path(number int64) string {
	return filepath.Join(q.dir, fmt.Sprintf("%012d.json", number))
}

// damagedError says that a file was damaged and is set aside.
type damagedError struct {
	path  string
	cause error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("a file of events was damaged, and is %s now: %v", e.path, e.cause)
}

func (e *damagedError) Unwrap() error { return e.cause }

// newerError says that a newer upsauth wrote a file.
type newerError struct {
	path    string
	version int
}

func (e *newerError) Error() string {
	return fmt.Sprintf("a newer upsauth wrote %s (format %d; this one knows %d)", e.path, e.version, format)
}

// load reads what is in the directory. What is damaged is set aside and told by the first
// result; a directory that can't be read, or that a newer upsauth wrote, is an error.
func (q *Files) load() (damaged []error, err error) {
	names, err := safefile.ReadDir(q.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if _, err := safefile.SweepDir(q.dir); err != nil {
		return nil, err
	}
	known, cut, err := read(filepath.Join(q.dir, toldFile), checkTold)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist):
		known = nil
	case cut:
		damaged = append(damaged, err)
	default:
		return damaged, err
	}
	var batches []*Batch
	for _, name := range names {
		digits, isFile := strings.CutSuffix(name, ".json")
		number, err := strconv.ParseInt(digits, 10, 64)
		if !isFile || err != nil || number < 1 || filepath.Join(q.dir, name) != q.path(number) {
			continue
		}
		b, cut, err := read(q.path(number), checkBatch)
		switch {
		case err == nil:
			b.number = number
			batches = append(batches, b)
		case errors.Is(err, os.ErrNotExist):
		case cut:
			damaged = append(damaged, err)
		default:
			return damaged, err
		}
		q.last = max(q.last, number)
	}
	slices.SortFunc(batches, func(a, b *Batch) int { return int(min(max(a.number-b.number, -1), 1)) })
	q.known, q.invited, q.first, q.covered, q.off = map[string]Memory{}, map[string]Invited{}, known == nil, 0, false
	if known != nil {
		q.known, q.covered, q.off = known.Grants, known.Next, known.Off
		maps.Copy(q.invited, known.Invitations)
		q.last = max(q.last, known.Next-1)
	}
	for _, b := range batches {
		if b.number >= q.covered {
			maps.Copy(q.known, b.Grants)
			maps.Copy(q.invited, b.Invitations)
		}
	}
	q.batches = batches
	return damaged, nil
}

// read reads a file of JSON. One that is damaged is set aside.
func read[T any](path string, check func(*T) error) (content *T, damaged bool, err error) {
	text, err := safefile.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, err
	}
	if err != nil {
		return nil, false, safefile.Explain(path, err)
	}
	if version := grant.FormatOf(text); version > format {
		return nil, false, &newerError{path, version}
	}
	content = new(T)
	if err = json.Unmarshal(text, content); err == nil {
		err = check(content)
	}
	if err == nil {
		return content, false, nil
	}
	var aside string
	for n := 1; ; n++ {
		aside = fmt.Sprintf("%s.%d.damaged", path, n)
		if _, statErr := os.Lstat(aside); os.IsNotExist(statErr) {
			break
		}
	}
	if moveErr := safefile.Rename(path, aside); moveErr != nil {
		return nil, false, fmt.Errorf("%s is damaged (%w) and can't be set aside: %w", path, err, moveErr)
	}
	return nil, true, &damagedError{aside, err}
}

func checkTold(t *told) error {
	switch {
	case t.Version != format || t.Grants == nil:
		return errors.New("it is no list of what was told")
	case t.Next < 0 || t.Next > 1<<53:
		return errors.New("it has a number that no batch has")
	}
	return checkMemories(t.Grants, t.Invitations)
}

func checkMemories(grants map[string]Memory, invitations map[string]Invited) error {
	for key, m := range invitations {
		if !invitation.Key(key).Valid() {
			return errors.New("it has an invitation that there can't be")
		}
		if err := grant.CheckTokenVaultKey(m.Lane); err != nil {
			return err
		}
		if err := m.Check(); err != nil {
			return err
		}
	}
	for key, m := range grants {
		if err := grant.CheckTokenVaultKey(key); err != nil {
			return err
		}
		if err := grant.CheckTokenVaultKey(m.Lane); err != nil {
			return err
		}
		if err := m.Check(); err != nil {
			return err
		}
	}
	return nil
}

func checkBatch(b *Batch) error {
	if b.Version != format || len(b.Events) == 0 {
		return errors.New("it has no events")
	}
	if err := checkMemories(b.Grants, b.Invitations); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range b.Events {
		e := &b.Events[i]
		if err := e.Check(); err != nil {
			return err
		}
		if seen[e.ID] {
			return errors.New("an event comes twice")
		}
		seen[e.ID] = true
	}
	return nil
}

// Check reports what makes an event that was read unfit to be told.
func (e *Event) Check() error {
	var h Header
	if _, err := uuid.Parse(e.ID); err != nil {
		return errors.New("an event has no ID")
	}
	if err := json.Unmarshal(e.Text, &h); err != nil {
		return err
	}
	var line bytes.Buffer // whoever reads an event reads one line
	if err := json.Compact(&line, e.Text); err != nil {
		return err
	}
	e.Text = line.Bytes()
	if h.ID != e.ID || h.Event != e.Kind || e.Kind == "" {
		return errors.New("an event has another's text")
	}
	if e.Invitation != "" {
		if e.Key != "" || !invitation.Key(e.Invitation).Valid() {
			return errors.New("an event is of no invitation")
		}
		return e.Of.Check()
	}
	if err := grant.CheckTokenVaultKey(e.Key); err != nil {
		return err
	}
	return e.Of.Check()
}

// marshal is one line of JSON, whose texts are as they were written: programs and people
// search in it.
func marshal(content any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(content)
	return text.Bytes(), err
}

func write(path string, content any) error {
	text, err := marshal(content)
	if err != nil {
		return err
	}
	return safefile.Write(path, text)
}

// saveKnown writes what was told of each grant. Batches up to now need not tell it again.
func (q *Files) saveKnown() error {
	if err := write(filepath.Join(q.dir, toldFile), told{Version: format, Next: q.last + 1, Off: q.off, Grants: q.known, Invitations: q.invited}); err != nil {
		return err
	}
	q.covered, q.first = q.last+1, false
	return nil
}

// saveBatch writes what is left of a batch.
func (q *Files) saveBatch(b *Batch) error {
	b.dirty = true
	if b.number >= q.covered {
		return nil // what was told of its grants stands nowhere else yet
	}
	var err error
	if len(b.Events) == 0 {
		err = safefile.Remove(q.path(b.number))
	} else {
		err = write(q.path(b.number), b)
	}
	if err == nil {
		b.dirty = false
	}
	return err
}
