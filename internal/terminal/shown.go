package terminal

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/legible"
)

// shownWriter is a terminal or standard error: whatever a command writes there, and
// wherever it has it from, nothing in it moves the cursor, turns the text around it
// or is there without being seen. Line ends and upsauth's own colors pass.
type shownWriter struct{ w io.Writer }

func (s shownWriter) Write(p []byte) (int, error) {
	text := string(p)
	if !strings.ContainsFunc(text, isDoubtful) {
		return s.w.Write(p)
	}
	if _, err := io.WriteString(s.w, legible.Strip(withoutControls(text))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// OnlyShown makes a writer one that shows text, once.
func OnlyShown(w io.Writer) io.Writer {
	if _, ok := w.(shownWriter); ok {
		return w
	}
	return shownWriter{w}
}

// AsIs is the writer for a program that is started: it gets the terminal itself.
func AsIs(w io.Writer) io.Writer {
	if s, ok := w.(shownWriter); ok {
		return s.w
	}
	return w
}

func isDoubtful(r rune) bool {
	return r != '\n' && (r < ' ' || r >= 0x7f)
}

func withoutControls(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			// Part of a letter: the rest comes with the next write.
			out.WriteByte(text[i])
		case r == '\x1b':
			if size = ownSequence(text[i:]); size > 0 {
				out.WriteString(text[i : i+size])
			}
			size = max(size, 1)
		case r == '\n' || r == '\r' || r == '\t' || !unicode.IsControl(r):
			out.WriteString(text[i : i+size])
		}
		i += size
	}
	return out.String()
}

// ownSequence is the length of an escape sequence that only colors what follows, or
// clears the rest of the line; 0 for any other.
func ownSequence(text string) int {
	rest, ok := strings.CutPrefix(text, "\x1b[")
	if !ok {
		return 0
	}
	n := len(rest) - len(strings.TrimLeft(rest, "0123456789;"))
	if n == len(rest) || rest[n] != 'm' && (rest[n] != 'K' || n > 0) {
		return 0
	}
	return len("\x1b[") + n + 1
}
