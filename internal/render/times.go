// Package render makes everything that a person or a program reads: panels,
// tables, JSON, CSV, times. Rules of output:
//
//   - results are plain text without trailing spaces; colour is added only
//     where the caller says that a terminal wants it, and never says anything
//     that the words do not say;
//   - what came from outside is shown without control characters;
//   - JSON and CSV have times as RFC 3339 in UTC, to the second; absent is null
//     in JSON and empty in CSV; fields are only ever added.
package render

import (
	"fmt"
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

// tableTime is a time in the zone of the person who reads.
func tableTime(t time.Time, zone *time.Location) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(zone).Format("2006-01-02 15:04")
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
