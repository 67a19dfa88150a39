package safefile

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Memory keeps what was made of a directory's files, for whoever reads all of them again
// and again. A file is read again where its stamp says that it may have changed: whoever
// asks gets what is made of the files as they are now. A nil Memory keeps nothing. It may
// be used by several goroutines at once.
type Memory[T any] struct {
	dir string

	mu    sync.RWMutex
	kept  map[string]remembered[T] // by the file's name
	ended bool
}

type remembered[T any] struct {
	seen  stamp
	value T
}

// NewMemory returns a memory of a directory's files that has nothing yet.
func NewMemory[T any](dir string) *Memory[T] {
	return &Memory[T]{dir: dir, kept: map[string]remembered[T]{}}
}

// Read returns what is made of each file, or the error. Others get the same value: nobody
// may change what it leads to. All others that were kept are forgotten. Decode reads the file
// at a place in names, with a buffer that it returns, grown where it has to be. It is called
// by several goroutines: reading and decoding takes most of the time of a long list.
func (m *Memory[T]) Read(names []string, decode func(at int, buf []byte) (T, []byte, error)) ([]T, []error) {
	values, errs := make([]T, len(names)), make([]error, len(names))
	stamps := m.stamps()
	defer stamps.close()
	const atATime = 32
	var next atomic.Int64
	var readers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (len(names)+atATime-1)/atATime) {
		readers.Go(func() {
			var buf []byte
			for {
				end := int(next.Add(atATime))
				start := end - atATime
				if start >= len(names) {
					return
				}
				for i := start; i < min(end, len(names)); i++ {
					values[i], buf, errs[i] = m.of(stamps, names[i], buf, func(buf []byte) (T, []byte, error) { return decode(i, buf) })
				}
			}
		})
	}
	readers.Wait()
	m.only(names)
	return values, errs
}

// stamps opens the directory, nil where nothing is kept.
func (m *Memory[T]) stamps() *stamps {
	if m == nil {
		return nil
	}
	return stampsIn(m.dir)
}

// of is what is made of one file.
func (m *Memory[T]) of(stamps *stamps, name string, buf []byte, decode func(buf []byte) (T, []byte, error)) (T, []byte, error) {
	if m == nil || stamps == nil {
		return decode(buf)
	}
	// First the clock, then the file's times, then its text: a change that the text lacks
	// is later than all three.
	now := time.Now()
	seen, known := stamps.of(name)
	if known {
		m.mu.RLock()
		found, there := m.kept[name]
		m.mu.RUnlock()
		if there && found.seen == seen {
			return found.value, buf, nil
		}
	}
	value, buf, err := decode(buf)
	// The text is that of the file whose stamp it is, and of no other that was in its place.
	if again, still := stamps.of(name); err != nil || !known || !still || again != seen || !seen.settledAt(now) {
		return value, buf, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.kept[name] = remembered[T]{seen, value}
	}
	return value, buf, nil
}

// only forgets files that are not among those that there are, once more are kept than
// there are.
func (m *Memory[T]) only(names []string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept) <= len(names) {
		return
	}
	left := make(map[string]remembered[T], len(names))
	for _, name := range names {
		if found, there := m.kept[name]; there {
			left[name] = found
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
