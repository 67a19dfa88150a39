package safefile

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Listing is a directory's names for whoever asks for them again and again. It may be
// used by several goroutines at once.
type Listing struct {
	path string

	mu      sync.Mutex
	seen    stamp    // the directory's when it was read, zero where it has to be read again
	names   []string // of that, in order
	reading uint64
}

// NewListing returns the listing of a directory. Nothing is read before it is used.
func NewListing(path string) *Listing { return &Listing{path: path} }

// Below returns the names that begin with a prefix, as they are now and in no order; nobody
// may change them. The directory is read only where its times say that it may have
// changed. One that is not there has none.
func (l *Listing) Below(prefix string) ([]string, error) {
	names, _, sorted, err := l.look()
	if err != nil {
		return nil, err
	}
	if !sorted {
		return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) }), nil
	}
	start, _ := slices.BinarySearch(names, prefix)
	end := start
	for end < len(names) && strings.HasPrefix(names[end], prefix) {
		end++
	}
	return names[start:end:end], nil
}

// Reading is another number after each time that the directory was read: where it is the
// same, no file of the directory was made, replaced, renamed or removed in between.
func (l *Listing) Reading() (uint64, error) {
	_, reading, _, err := l.look()
	return reading, err
}

// look returns all names. Those that are sorted are kept, the others the caller's.
func (l *Listing) look() (names []string, reading uint64, sorted bool, err error) {
	// First the clock, then the directory's times, then its names: a change that the
	// names lack is later than all three.
	now := time.Now()
	seen, known := stampOf(l.path)
	l.mu.Lock()
	if known && seen == l.seen {
		defer l.mu.Unlock()
		return l.names, l.reading, true, nil
	}
	l.mu.Unlock()
	if names, err = ReadDir(l.path); err != nil {
		return nil, 0, false, err
	}
	// Soon it is read again: in order it is worth no time.
	if sorted = known && seen.settledAt(now); sorted {
		slices.Sort(names)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading++
	if sorted {
		l.seen, l.names = seen, names
	}
	return names, l.reading, sorted, nil
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
