package service

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
)

// sayAgain is how long trouble that does not change is left unsaid.
const sayAgain = 24 * time.Hour

// The priorities of syslog that a line can have.
const (
	priorityWarning = 4
	priorityInfo    = 6
)

// Log is the log of a service: one line for each event. Lines begin with the time in
// UTC, unless systemd's journal has it anyway. Trouble is told when it begins, when it
// changes, and once a day. It may be used by several goroutines at once.
type Log struct {
	w       io.Writer
	now     func() time.Time
	journal bool
	verbose bool

	mu sync.Mutex
	// heard is the trouble of the round before, hearing that of this one, by what
	// it is about: what is not heard of any more is over.
	heard, hearing map[string]said
}

type said struct {
	what string
	at   time.Time
}

// NewLog returns a log that is written to w. Journal says that w is systemd's journal;
// verbose that every step and every warning is told.
func NewLog(w io.Writer, now func() time.Time, journal, verbose bool) *Log {
	return &Log{w: w, now: now, journal: journal, verbose: verbose, heard: map[string]said{}, hearing: map[string]said{}}
}

// Event tells of something that happened.
func (l *Log) Event(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line(priorityInfo, fmt.Sprintf(format, args...))
}

// Trouble tells what is wrong with something. What tells one trouble from another;
// empty is the same as any.
func (l *Log) Trouble(about, what, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	last, known := l.hearing[about]
	if !known {
		last, known = l.heard[about]
	}
	if known && (what == "" || last.what == what) && now.Sub(last.at).Abs() < sayAgain {
		l.hearing[about] = last
		return
	}
	l.hearing[about] = said{what, now}
	l.line(priorityWarning, text)
}

// over forgets one trouble at once.
func (l *Log) over(about string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.heard, about)
	delete(l.hearing, about)
}

// roundEnds forgets the trouble that is over.
func (l *Log) roundEnds() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard, l.hearing = l.hearing, map[string]said{}
}

// Notice tells what a session has to say, in the words of its face. What is said again
// and again is told once a day.
func (l *Log) Notice(_ context.Context, n session.Notice, text string) {
	switch {
	case n.Kind == session.Step && !l.verbose:
	case l.verbose:
		l.Event("%s", text)
	case n.Kind == session.Problem && vault.PathOf(n.Err) == "":
		l.Trouble("problem "+kindOf(n.Err), "", text)
	case n.Kind == session.Problem:
		l.Trouble("file "+vault.PathOf(n.Err), kindOf(n.Err), text)
	case n.Kind == session.Twins:
		l.Trouble("name "+n.Name, "", text)
	default:
		l.Trouble("notice "+n.ID.Slot()+" "+n.About+" "+kindOf(n.Err), "", text)
	}
}

// Write makes events of what is written at once, for what a person is asked or told.
func (l *Log) Write(p []byte) (int, error) {
	text := string(p)
	switch {
	case strings.TrimSpace(text) == "":
	case l.verbose:
		l.Event("%s", text)
	default:
		l.Trouble("line "+text, "", text)
	}
	return len(p), nil
}

// line writes an event of one of syslog's priorities, which the journal takes
// from the line.
func (l *Log) line(priority int, text string) {
	stamp := l.now().UTC().Format(time.RFC3339) + " "
	if l.journal {
		stamp = fmt.Sprintf("<%d>", priority)
	}
	fmt.Fprintf(l.w, "%s%s\n", stamp, OneLine(text))
}

// OneLine is text without line breaks and control characters, whatever names and
// answers have in them.
func OneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return legible.Line(strings.Join(lines, " "))
}
