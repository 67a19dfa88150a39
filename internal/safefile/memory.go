package safefile

import (
	"sync"
	"time"
)

// Memory keeps what was made of files, for whoever reads the same ones again and again.
// A file is read again where its stamp says that it may have changed: whoever asks gets
// what is made of the file as it is now. A nil Memory keeps nothing. It may be used by
// several goroutines at once.
type Memory[T any] struct {
	mu    sync.RWMutex
	kept  map[string]remembered[T] // by path
	ended bool
}

type remembered[T any] struct {
	seen  stamp // the file's before it was read
	value T
}

// NewMemory returns a memory that has nothing yet.
func NewMemory[T any]() *Memory[T] { return &Memory[T]{kept: map[string]remembered[T]{}} }

// Of returns what read makes of a file. Others get the same value: nobody may change what
// it leads to. What read fails for is not kept.
func (m *Memory[T]) Of(path string, read func() (T, error)) (T, error) {
	if m == nil {
		return read()
	}
	// First the clock, then the file's times, then its text: a change that the text lacks
	// is later than all three.
	now := time.Now()
	seen, known := fileStampOf(path)
	if known {
		m.mu.RLock()
		found, there := m.kept[path]
		m.mu.RUnlock()
		if there && found.seen == seen {
			return found.value, nil
		}
	}
	value, err := read()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && known && !m.ended && seen.settledAt(now) {
		m.kept[path] = remembered[T]{seen, value}
	} else {
		delete(m.kept, path)
	}
	return value, err
}

// Only forgets files that are not among those that there are, once more are kept than
// there are.
func (m *Memory[T]) Only(paths []string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept) <= len(paths) {
		return
	}
	left := make(map[string]remembered[T], len(paths))
	for _, path := range paths {
		if found, there := m.kept[path]; there {
			left[path] = found
		}
	}
	m.kept = left
}

// End forgets everything, and keeps nothing from now on.
func (m *Memory[T]) End() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept, m.ended = nil, true
}
