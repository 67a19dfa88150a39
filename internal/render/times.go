// Package render makes everything that a person or a program reads: panels,
// tables, JSON, CSV, times. Rules of output:
//
//   - results are plain text without trailing spaces; colour is added only
//     where the caller says that a terminal wants it, and never says anything
//     that the words do not say;
//   - what came from outside is shown without control characters and without
//     characters that reorder the text around them. Right-to-left names are not
//     isolated by characters of their own either: what is copied from the screen
//     is the name;
//   - columns align by the cells that a terminal gives to what stands in them;
//   - JSON and CSV have times as RFC 3339 in UTC, to the second; absent is null
//     in JSON and empty in CSV; fields are only ever added.
package render

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// UPSTime is how UPS Intelligent Rating shows a time; it is always UTC here.
func UPSTime(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("1/2/2006 3:04:05 PM -07:00")
}

// BatchTime is how UPS Batch Suite shows a time, in UTC.
func BatchTime(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// TimeFormat is how a table shows times.
type TimeFormat string

const (
	// TimeLocal is the reader's zone, with how long beside the time where there
	// is room.
	TimeLocal TimeFormat = "local"
	// TimeUTC is the same in UTC, which each time says.
	TimeUTC TimeFormat = "utc"
	// TimeUPS is how UPS Intelligent Rating shows times.
	TimeUPS TimeFormat = "ups"
	// TimeBatch is how UPS Batch Suite shows times.
	TimeBatch    TimeFormat = "batch"
	TimeRelative TimeFormat = "relative"
	// TimeISO is RFC 3339 in UTC.
	TimeISO TimeFormat = "iso"
)

// TimeFormats lists every format, the default first.
func TimeFormats() []TimeFormat {
	return []TimeFormat{TimeLocal, TimeUTC, TimeUPS, TimeBatch, TimeRelative, TimeISO}
}

// ParseTimeFormat reads a format from a flag. The error lists them all.
func ParseTimeFormat(text string) (TimeFormat, error) {
	return choose(text, "time format", TimeFormats())
}

// choose finds a word among those that are meant, or says which they are.
func choose[T ~string](text, what string, words []T) (T, error) {
	if slices.Contains(words, T(text)) {
		return T(text), nil
	}
	var list []string
	for _, word := range words {
		list = append(list, string(word))
	}
	last := len(list) - 1
	return "", fmt.Errorf("%q is no %s: it is %s or %s", text, what, strings.Join(list[:last], ", "), list[last])
}

// UTCTime is a time on a page, empty for none: a page does not know its reader's zone.
func UTCTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04") + " UTC"
}

// text is a time in a table.
func (f TimeFormat) text(t, now time.Time, zone *time.Location) string {
	if t.IsZero() {
		return "-"
	}
	switch f {
	case TimeUTC:
		return t.UTC().Format("2006-01-02 15:04Z")
	case TimeUPS:
		return UPSTime(t)
	case TimeBatch:
		return BatchTime(t)
	case TimeRelative:
		return Relative(t, now)
	case TimeISO:
		return t.UTC().Format(time.RFC3339)
	}
	return t.In(zone).Format("2006-01-02 15:04")
}

// takesSpan reports whether how long may stand beside the time. The formats of
// UPS and those for programs are what they are.
func (f TimeFormat) takesSpan() bool {
	return f == "" || f == TimeLocal || f == TimeUTC
}

// Relative says how far a time is from now: "in 59 min", "2 h ago". It never
// says that more is left than there is.
func Relative(t, now time.Time) string {
	switch d := t.Sub(now); {
	case d >= time.Second:
		return "in " + Span(d)
	case d <= -time.Second:
		return Span(d) + " ago"
	}
	return "now"
}

// machineTime is RFC 3339 in UTC, to the second; nil where unknown.
func machineTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339)
	return &s
}

// Span says a length of time in its largest unit: "59 min", "60 days".
func Span(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d/time.Hour))
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}
