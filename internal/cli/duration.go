package cli

import (
	"time"

	"github.com/upsauth/upsauth/internal/legible"
)

// span is a flag that takes a length of time in weeks and days as well: 30d,
// 1w2d, 1d12h, 36h, 15m.
type span struct{ d *time.Duration }

func (s span) String() string {
	if s.d == nil {
		return "0s"
	}
	return legible.Duration(*s.d)
}

func (s span) Type() string { return "duration" }

func (s span) Set(text string) error {
	d, err := legible.Span(text)
	if err != nil {
		return usagef("%v", err)
	}
	*s.d = d
	return nil
}

// newSpan is a span with a value to begin with.
func newSpan(d *time.Duration, value time.Duration) span {
	*d = value
	return span{d}
}
