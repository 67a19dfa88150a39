package safefile

import (
	"slices"
	"sync"
	"time"
)

// Listing is a directory's names for whoever asks for them again and again. It may be
// used by several goroutines at once.
type Listing struct {
	path string

	mu      sync.Mutex
	seen    stamp // the directory's when it was read, zero where it has to be read again
	names   []string
	reading uint64
}

// NewListing returns the listing of a directory. Nothing is read before it is used.
func NewListing(path string) *Listing { return &Listing{path: path} }

// Names are ReadDir's in their order, as they are now; nobody may change them. The
// directory is read only where its times say that it may have changed. Reading is
// another number after each time that it was read: where it is the same, no file of the
// directory was made, replaced, renamed or removed in between.
func (l *Listing) Names() (names []string, reading uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// First the clock, then the directory's times, then its names: a change that the
	// names lack is later than all three.
	now := time.Now()
	seen, known := stampOf(l.path)
	if known && seen == l.seen {
		return l.names, l.reading, nil
	}
	l.seen = stamp{}
	names, err = ReadDir(l.path)
	if err != nil {
		return nil, 0, err
	}
	slices.Sort(names)
	if known && seen.settledAt(now) {
		l.seen = seen
	}
	l.names = names
	l.reading++
	return l.names, l.reading, nil
}

// Below are the names in order that begin with a prefix.
func Below(names []string, prefix string) []string {
	start, _ := slices.BinarySearch(names, prefix)
	end := start
	for end < len(names) && len(names[end]) >= len(prefix) && names[end][:len(prefix)] == prefix {
		end++
	}
	return names[start:end]
}

// A file system's clock moves in ticks, and two changes in one tick leave the same time.
// So a time says that nothing has changed since only where the tick is over. Linux ticks
// every 1 to 10 ms; a file system that keeps whole seconds, or two of them, shows it by
// its zeros.
const (
	fineTick   = 100 * time.Millisecond
	coarseTick = 3 * time.Second
)

// overAt reports whether the tick of a file's time is over for sure. One in the future is
// of another clock.
func overAt(at, now time.Time) bool {
	tick := fineTick
	if at.Nanosecond()%int(time.Millisecond) == 0 {
		tick = coarseTick
	}
	return now.Sub(at) > tick
}
