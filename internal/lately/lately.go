// Package lately keeps what a service has read of a place that may be away, such as a
// database. One rule counts for all that is kept: what was good stays good for a few minutes
// without a question, and for longer only while nobody answers. What is not kept is asked
// for, so nothing is refused by what was true earlier.
package lately

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

const (
	// For is how long what was read is good without a question, for whoever is content
	// with it. See vault.Recent.
	For = 5 * time.Minute
	// AwayFor is how long what was read is good while the place is away.
	AwayFor = 24 * time.Hour
	// patience is how long the place is asked for what is kept too.
	patience = 2 * time.Second
	// leaveFor is how long nobody is asked again who did not answer.
	leaveFor = 15 * time.Second
)

// Options are what a memory works with.
type Options struct {
	// Dir is a directory of this host, in which its processes tell each other of changes.
	Dir string
	Now func() time.Time
	// Away reports whether an error says that the place can't be reached now. That it did
	// not answer in time says so too.
	Away func(error) bool
}

// Memory knows whether the place is away. It may be used by several goroutines at once.
type Memory struct {
	Options

	mu   sync.Mutex
	till time.Time // until when nobody asks, zero where the place has answered
	why  error     // what it said last, nil where it has answered
	// kinds are what is kept, by the names of the kinds.
	kinds map[string]any
}

// New returns a memory that knows nothing yet.
func New(o Options) *Memory { return &Memory{Options: o, kinds: map[string]any{}} }

// AwayError is why the place could not be reached, nil where it answered when it was asked
// last.
func (m *Memory) AwayError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.why
}

// Note takes what the place has answered, which others have asked.
func (m *Memory) Note(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.till, m.why = time.Time{}, nil
	case m.Away(err):
		m.till, m.why = m.Now().Add(leaveFor), err
	}
}

// left is why nobody asks the place now, nil where somebody may.
func (m *Memory) left() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if left := m.till.Sub(m.Now()); m.why == nil || left <= 0 || left > leaveFor {
		return nil
	}
	return m.why
}

// Of is what is kept of one kind, by keys.
type Of[K comparable, V any] struct {
	memory *Memory
	name   string // of the kind, among this host's processes

	mu   sync.Mutex
	kept map[K]kept[V]
	// stamp is that of the last change on this host, as of when all of kept was read.
	stamp string
	// changes counts the changes: what was asked for before one is not kept after it.
	changes int
}

type kept[V any] struct {
	value V
	read  time.Time
}

// Keep returns what a memory keeps of a kind, the same for all who ask. The name of the kind
// is part of a file's name.
func Keep[K comparable, V any](m *Memory, name string) *Of[K, V] {
	m.mu.Lock()
	defer m.mu.Unlock()
	there, ok := m.kinds[name].(*Of[K, V])
	if !ok {
		there = &Of[K, V]{memory: m, name: name, kept: map[K]kept[V]{}}
		m.kinds[name] = there
	}
	return there
}

// Read returns what is kept under a key, or what read returns: that is kept if it is no
// error. Whoever is content with what was read some minutes ago marks the context by
// vault.Recent; for all others what is kept counts only while the place is away.
func (o *Of[K, V]) Read(ctx context.Context, key K, read func(context.Context) (V, error)) (V, error) {
	m := o.memory
	there, ok, changes := o.get(key)
	now := m.Now()
	age := now.Sub(there.read)
	if ok && vault.IsRecent(ctx) && age >= 0 && age < For {
		return there.value, nil
	}
	ok = ok && age.Abs() < AwayFor
	if why := m.left(); why != nil {
		if ok {
			return there.value, nil
		}
		return there.value, why
	}
	asking, cancel := ctx, func() {}
	if ok {
		asking, cancel = context.WithTimeout(ctx, patience)
	}
	defer cancel()
	value, err := read(asking)
	if err != nil && ctx.Err() != nil {
		return value, err
	}
	away := err != nil && m.Away(err)
	m.Note(err)
	if away && ok {
		return there.value, nil
	}
	o.put(key, value, err == nil, away, now, changes)
	return value, err
}

func (o *Of[K, V]) get(key K) (there kept[V], ok bool, changes int) {
	stamp := o.readStamp()
	o.mu.Lock()
	defer o.mu.Unlock()
	if stamp != o.stamp {
		clear(o.kept)
		o.stamp = stamp
		o.changes++
	}
	there, ok = o.kept[key]
	return there, ok, o.changes
}

// put keeps a value that was asked for when there were so many changes, or forgets it.
func (o *Of[K, V]) put(key K, value V, good, away bool, read time.Time, changes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case changes != o.changes, away:
	case good:
		o.kept[key] = kept[V]{value, read}
	default:
		delete(o.kept, key)
	}
}

// Changed tells all processes of this host that something of this kind was changed, or may
// have been. Nothing that was read before counts here any more.
func (o *Of[K, V]) Changed() error {
	o.mu.Lock()
	clear(o.kept)
	o.changes++
	o.mu.Unlock()
	err := safefile.MkdirAll(o.memory.Dir)
	if err == nil {
		err = safefile.WritePassing(o.path(), []byte(uuid.NewString()))
	}
	return err
}

func (o *Of[K, V]) path() string { return filepath.Join(o.memory.Dir, "changed-"+o.name) }

// readStamp is what tells changes apart. Where it can't be read, each reading is another one:
// nobody knows then.
func (o *Of[K, V]) readStamp() string {
	text, err := safefile.ReadFile(o.path())
	switch {
	case err == nil:
		return string(text)
	case errors.Is(err, os.ErrNotExist):
		return ""
	}
	return uuid.NewString()
}
