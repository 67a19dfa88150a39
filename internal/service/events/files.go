package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	Grants map[string]memory `json:"grants"` // by Token Vault Key
	// Invitations is the same of invitations, by their keys.
	Invitations map[string]invited `json:"invitations,omitempty"`
}

// batch is a file of events that were found by one look. It has what is known of their
// grants once they are told: both are there, or neither is.
type batch struct {
	Version int     `json:"version"`
	Events  []queue `json:"events"`
	// Grants and Invitations are the memories that the events are made of.
	Grants      map[string]memory  `json:"grants"`
	Invitations map[string]invited `json:"invitations,omitempty"`

	number int64
	// dirty says that the file has events that were told since, or are dropped.
	dirty bool
}

func newBatch() *batch {
	return &batch{Version: format, Grants: map[string]memory{}, Invitations: map[string]invited{}}
}

// queue is an event that is not told yet.
type queue struct {
	ID   string `json:"id"`
	Kind Kind   `json:"event"`
	// Key is the Token Vault Key of the grant, or Invitation the invitation's key.
	Key        string          `json:"key,omitempty"`
	Invitation string          `json:"invitation,omitempty"`
	Of         grant.ID        `json:"of"`
	Time       time.Time       `json:"time"`
	Text       json.RawMessage `json:"text"` // what the program is told
}

// most is how many events a file may have: it is written anew after each.
const most = 64

const toldFile = "told.json"

func (q *Queue) path(number int64) string {
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
func (q *Queue) load() (damaged []error, err error) {
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
	var batches []*batch
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
	slices.SortFunc(batches, func(a, b *batch) int { return int(min(max(a.number-b.number, -1), 1)) })
	q.known, q.invited, q.first, q.covered, q.off = map[string]memory{}, map[string]invited{}, known == nil, 0, false
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

func checkMemories(grants map[string]memory, invitations map[string]invited) error {
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

func checkBatch(b *batch) error {
	if b.Version != format || len(b.Events) == 0 {
		return errors.New("it has no events")
	}
	if err := checkMemories(b.Grants, b.Invitations); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range b.Events {
		e := &b.Events[i]
		if err := e.check(); err != nil {
			return err
		}
		if seen[e.ID] {
			return errors.New("an event comes twice")
		}
		seen[e.ID] = true
	}
	return nil
}

// check reports what makes an event from a file unfit to be told.
func (e *queue) check() error {
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
func (q *Queue) saveKnown() error {
	if err := write(filepath.Join(q.dir, toldFile), told{Version: format, Next: q.last + 1, Off: q.off, Grants: q.known, Invitations: q.invited}); err != nil {
		return err
	}
	q.covered, q.first = q.last+1, false
	return nil
}

// saveBatch writes what is left of a batch.
func (q *Queue) saveBatch(b *batch) error {
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
