package terminal

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
)

// Lines reads standard input for whoever asks: who stops waiting leaves the line
// to the next one, as a read can't be taken back.
type Lines struct {
	in io.Reader

	mu      sync.Mutex
	pending chan lineRead
}

type lineRead struct {
	text string
	err  error
}

// maxLine is the most bytes of one line.
const maxLine = 64 << 10

// NewLines reads lines.
func NewLines(in io.Reader) *Lines { return &Lines{in: in} }

// Read reads one line, or ends with the context.
func (l *Lines) Read(ctx context.Context) (string, error) {
	l.mu.Lock()
	if l.pending == nil {
		l.pending = make(chan lineRead, 1)
		go func(pending chan<- lineRead) {
			text, err := nextLine(l.in)
			pending <- lineRead{text, err}
		}(l.pending)
	}
	pending := l.pending
	l.mu.Unlock()
	select {
	case read := <-pending:
		awaitCtrlC(ctx, read.err)
		if ctx.Err() != nil {
			pending <- read // it is for whoever still waits
			return "", ctx.Err()
		}
		l.mu.Lock()
		l.pending = nil
		l.mu.Unlock()
		return read.text, read.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// nextLine reads one byte at a time, so that whoever reads otherwise finds what
// is typed ahead.
func nextLine(in io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := in.Read(b)
		if n == 1 && b[0] != '\n' {
			if len(line) == maxLine {
				return "", &safefile.TooLongError{Name: "the line on standard input", Most: maxLine}
			}
			line = append(line, b[0])
		}
		if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) && len(line) > 0 {
			return withoutPasteMarks(string(line)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// withoutPasteMarks takes away what a terminal puts around a paste where a program
// before this one left bracketed paste switched on (xterm's control sequences,
// mode 2004).
func withoutPasteMarks(text string) string {
	return strings.NewReplacer("\x1b[200~", "", "\x1b[201~", "").Replace(text)
}

func awaitInput(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		if awaitCtrlC(ctx, r.err); ctx.Err() != nil {
			return "", ctx.Err()
		}
		return r.text, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// awaitCtrlC gives a Ctrl-C the time to arrive: on Windows it also ends what is
// read from the console, and that may be known first.
func awaitCtrlC(ctx context.Context, err error) {
	if runtime.GOOS != "windows" || !errors.Is(err, io.EOF) {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}
