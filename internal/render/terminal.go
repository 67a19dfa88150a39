package render

import (
	"io"
	"unicode"

	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
)

// Terminal writes text from outside to a terminal so that what is shown is what is
// there: without control characters but newline and tab, which could rewrite the
// screen, type into the shell or set the clipboard, without characters that change
// the direction of what follows, and without invisible ones. What is no UTF-8 is
// shown as U+FFFD.
type Terminal struct {
	*transform.Writer
	under *lastByte
}

// NewTerminal returns a Terminal. Its Close writes what is left over, and ends the
// last line.
func NewTerminal(w io.Writer) *Terminal {
	under := &lastByte{w: w, last: '\n'}
	return &Terminal{transform.NewWriter(under, runes.Remove(runes.Predicate(invisible))), under}
}

// Close ends the last line; the writer below stays open.
func (t *Terminal) Close() error {
	if err := t.Writer.Close(); err != nil {
		return err
	}
	if t.under.last == '\n' {
		return nil
	}
	_, err := t.under.Write([]byte{'\n'})
	return err
}

// invisible reports whether a character is shown as nothing, or does something to
// what is shown around it.
func invisible(r rune) bool {
	if r == '\n' || r == '\t' {
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

type lastByte struct {
	w    io.Writer
	last byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	if n > 0 {
		l.last = p[n-1] //nolint:gosec // a writer writes no more than it was given
	}
	return n, err
}
