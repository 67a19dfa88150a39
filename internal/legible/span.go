package legible

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// longest is longer than anything that is asked about here.
const longest = 100 * 365 * 24 * time.Hour

// Span is a length of time as people write it, in weeks and days as well: 30d, 1w2d,
// 1d12h, 36h, 15m.
func Span(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a length of time such as 7d, 36h or 15m", text)
	var sum time.Duration
	rest := text
	units := regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([wd])`)
	for {
		m := units.FindStringSubmatch(rest)
		if m == nil {
			break
		}
		n, err := strconv.ParseFloat(m[1], 64)
		unit := 24 * time.Hour
		if m[2] == "w" {
			unit *= 7
		}
		if err != nil || n*float64(unit) > float64(longest) {
			return 0, fmt.Errorf("%q is longer than 100 years", text)
		}
		sum += time.Duration(n * float64(unit))
		rest = rest[len(m[0]):]
	}
	if rest != "" || text == "" {
		d, err := time.ParseDuration(rest)
		if err != nil || sum > 0 && d < 0 {
			return 0, bad
		}
		sum += d
	}
	if sum > longest {
		return 0, fmt.Errorf("%q is longer than 100 years", text)
	}
	return sum, nil
}

// Duration writes a length of time as Span reads it, without units that say nothing: 1h,
// 15m, 36h, 1m30s.
func Duration(d time.Duration) string {
	text := d.String()
	for _, zero := range []struct{ unit, before string }{{"0s", "m"}, {"0m", "h"}} {
		if short, ok := strings.CutSuffix(text, zero.unit); ok && strings.HasSuffix(short, zero.before) {
			text = short
		}
	}
	return text
}
