package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/render"
)

// sayAgain is how long trouble that does not change is left unsaid.
const sayAgain = 24 * time.Hour

// eventLog is the log of a service: one line for each event. Lines begin with
// the time in UTC, unless systemd's journal has it anyway. Trouble is told when
// it begins, when it changes, and once a day.
type eventLog struct {
	w       io.Writer
	now     func() time.Time
	journal bool
	verbose bool // every line that is written comes through

	mu sync.Mutex
	// heard is the trouble of the round before, hearing that of this one, by what
	// it is about: what is not heard of any more is over.
	heard, hearing map[string]said
}

type said struct {
	what string
	at   time.Time
}

func newEventLog(env *Env, verbose bool) *eventLog {
	return &eventLog{w: env.stderr(), now: env.Now, journal: env.ErrJournal, verbose: verbose, heard: map[string]said{}, hearing: map[string]said{}}
}

func (l *eventLog) event(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line(6, fmt.Sprintf(format, args...))
}

// trouble tells what is wrong with something. What tells one trouble from
// another; empty is the same as any.
func (l *eventLog) trouble(about, what, text string) {
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
	l.line(4, text)
}

// over forgets one trouble at once.
func (l *eventLog) over(about string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.heard, about)
	delete(l.hearing, about)
}

// roundEnds forgets the trouble that is over.
func (l *eventLog) roundEnds() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard, l.hearing = l.hearing, map[string]said{}
}

// Write makes an event of what is written at once, for whatever writes to
// standard error otherwise.
func (l *eventLog) Write(p []byte) (int, error) {
	text := string(p)
	switch {
	case strings.TrimSpace(text) == "":
	case l.verbose:
		l.event("%s", text)
	default:
		l.trouble("line "+withoutNumbers(text), "", text)
	}
	return len(p), nil
}

// line writes an event of one of syslog's priorities, which the journal takes
// from the line.
func (l *eventLog) line(priority int, text string) {
	stamp := l.now().UTC().Format(time.RFC3339) + " "
	if l.journal {
		stamp = fmt.Sprintf("<%d>", priority)
	}
	fmt.Fprintf(l.w, "%s%s\n", stamp, oneLine(text))
}

// oneLine is text without line breaks and control characters, whatever names and
// answers have in them.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return render.Text(strings.Join(lines, " "))
}

// withAdvice is a sentence with what to do about an error.
func withAdvice(text string, err error) string {
	if a := advice(err); a != "" {
		return strings.TrimSuffix(text, ".") + ". " + a
	}
	return text
}

// withoutNumbers leaves out what differs although it is the same trouble: ports,
// times, what is left to wait.
func withoutNumbers(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
}
