package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

// required is what --require asks for: so many grants, or all.
type required struct {
	set, all bool
	grants   int
}

func parseRequired(text string) (required, error) {
	if text == "all" {
		return required{set: true, all: true}, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return required{}, usagef("--require is a number of grants, or all")
	}
	return required{set: true, grants: n}, nil
}

// checked is what status --check judges.
type checked struct {
	records []grant.Record
	// problems are the files that could not be used.
	problems []error
	// unused says that there is nothing, as nothing was ever kept here.
	unused  string
	within  time.Duration
	require required
	now     time.Time
}

// usable reports whether a grant is in one of the states that --require counts.
func usable(r grant.Record, now time.Time) bool {
	switch r.StateAt(now) {
	case grant.Authorized, grant.Refreshable, grant.Expiring:
		return true
	}
	return false
}

// judge returns one line for a monitor, and the exit code.
func (c checked) judge() (line string, code int) {
	var critical, warning []string
	var bad, doubtful, lacking []grant.Record
	grants, good, interrupted, without := 0, 0, 0, 0
	for _, r := range c.records {
		state := r.StateAt(c.now)
		if usable(r, c.now) {
			good++
		}
		if state == grant.Unauthorized {
			without++
		} else {
			grants++
		}
		if state == grant.Interrupted {
			interrupted++
		}
		switch {
		case session.NeedsPerson(r, c.within, c.now):
			bad = append(bad, r)
		case r.ProbablyVoid():
			doubtful = append(doubtful, r)
		}
		if !usable(r, c.now) && state != grant.Void && state != grant.Expired {
			lacking = append(lacking, r)
		}
	}
	if len(bad) > 0 {
		what := "need a person"
		if c.within > 0 {
			what = fmt.Sprintf("need a person or end within %s", render.Span(c.within))
		}
		critical = append(critical, fmt.Sprintf("%d of %d grants %s: %s", len(bad), grants, what, c.named(bad)))
	}
	if c.require.set {
		switch {
		case c.require.all && len(c.records) == 0:
			critical = append(critical, "no company is known, and all are required")
		case c.require.all && len(lacking) > 0:
			critical = append(critical, fmt.Sprintf("all companies are required: %s", c.named(lacking)))
		case good < c.require.grants:
			critical = append(critical, fmt.Sprintf("%d of %d required grants can be used", good, c.require.grants))
		}
	}
	if len(doubtful) > 0 {
		warning = append(warning, fmt.Sprintf("%d of %d grants probably void: %s", len(doubtful), grants, c.named(doubtful)))
	}
	if len(c.problems) > 0 {
		warning = append(warning, tooFew(c.problems)+", see upsauth status")
	}
	switch {
	case len(critical) > 0:
		code, line = exitAuthorize, "CRITICAL - "
	case len(doubtful) > 0:
		code, line = exitAuthorize, "WARNING - "
	case len(warning) > 0:
		code, line = exitFailed, "WARNING - "
	case c.unused != "" && !c.require.set:
		return "UNKNOWN - " + barless(c.unused), exitNotFound
	default:
		line = "OK - " + render.Summary(c.records, c.now)
		if c.unused != "" {
			line += "; " + barless(c.unused)
		}
		return line, exitDone
	}
	said := append(critical, warning...)
	if len(critical) == 0 {
		return line + strings.Join(append(said, render.Summary(c.records, c.now)), "; "), code
	}
	var others []string
	if interrupted > 0 {
		others = append(others, fmt.Sprintf("%d interrupted", interrupted))
	}
	if without > 0 {
		others = append(others, fmt.Sprintf("%d not authorized", without))
	}
	if len(others) > 0 {
		said = append(said, joined(others))
	}
	if c.unused != "" {
		said = append(said, barless(c.unused))
	}
	return line + strings.Join(said, "; "), code
}

// named tells what is wrong with the first of some grants, and whom to ring.
func (c checked) named(records []grant.Record) string {
	const most = 5
	var names []string
	for i, r := range records {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(records)-i))
			break
		}
		state := r.StateAt(c.now)
		text := fmt.Sprintf("%s is %s", barless(r.Company), state)
		switch left := r.RefreshEnds(c.now).Sub(c.now); {
		case state == grant.Unauthorized:
			text = barless(r.Company) + " is not authorized"
		case state == grant.Interrupted:
		case state != grant.Void && r.ProbablyVoid():
			text = barless(r.Company) + " is probably void"
		case left > 0 && state != grant.Void:
			text = fmt.Sprintf("%s ends in %s", barless(r.Company), render.Span(left))
		}
		if r.Contact != "" {
			text += fmt.Sprintf(" (ring %s)", barless(r.Contact))
		}
		names = append(names, text)
	}
	return joined(names)
}

// barless is text from outside for Nagios, which takes what is behind a bar for
// numbers.
func barless(text string) string { return strings.ReplaceAll(render.Text(text), "|", "/") }

// check prints the line for a monitor.
func check(s *job, c checked) error {
	c.problems = s.problems
	if len(c.records) == 0 && len(c.problems) == 0 {
		c.unused = s.NeverUsed()
	}
	line, code := c.judge()
	if code == exitDone && len(c.records) > 0 {
		// Green would say that the next refresh will do.
		if err := s.CanRefresh(c.records); err != nil {
			line, code = fmt.Sprintf("UNKNOWN - no grant can be refreshed: %v; %s", err, render.Summary(c.records, c.now)), exitCode(err)
		}
	}
	fmt.Fprintln(s.env.Out, line)
	if code != exitDone {
		return &statusError{code: code}
	}
	return nil
}
