package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

// parseRequired reads --require: so many grants, or all.
func parseRequired(text string) (*session.Required, error) {
	if text == "all" {
		return &session.Required{All: true}, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return nil, usagef("--require must be a number of grants, or all")
	}
	return &session.Required{Grants: n}, nil
}

// monitorLine is what status --check tells of.
type monitorLine struct {
	records []grant.Record
	// problems are the files that could not be used.
	problems []error
	expected session.Expected
	now      time.Time
}

// words are one line for a monitor, and the exit code.
func (c monitorLine) words(v session.Verdict) (line string, code int) {
	var critical, warning []string
	if len(v.Bad) > 0 {
		what := "need a person"
		if c.expected.Within > 0 {
			what = fmt.Sprintf("need a person or expire within %s", render.Span(c.expected.Within))
		}
		critical = append(critical, fmt.Sprintf("%d of %d grants %s: %s", len(v.Bad), v.Grants, what, c.named(v.Bad)))
	}
	switch {
	case !v.Short:
	case c.expected.Required.All && len(c.records) == 0:
		critical = append(critical, "all companies are required, and no company is known")
	case c.expected.Required.All:
		critical = append(critical, fmt.Sprintf("all companies are required: %s", c.named(v.Lacking)))
	default:
		critical = append(critical, fmt.Sprintf("%d of %d required grants can be used", v.Usable, c.expected.Required.Grants))
	}
	if len(v.Doubtful) > 0 {
		warning = append(warning, fmt.Sprintf("%d of %d grants probably void: %s", len(v.Doubtful), v.Grants, c.named(v.Doubtful)))
	}
	if v.Unread > 0 {
		warning = append(warning, tooFew(c.problems)+", see upsauth status")
	}
	line, code = string(v.Level)+" - ", codeOf(v)
	summary := render.Summary(c.records, c.now)
	switch {
	case v.Err != nil:
		return fmt.Sprintf("%sno grant can be refreshed: %v; %s", line, message(v.Err), summary), code
	case v.Level == session.LevelUnknown:
		return line + barless(v.Unused), code
	case v.Level == session.LevelOK && v.Unused != "":
		return line + summary + "; " + barless(v.Unused), code
	case v.Level == session.LevelOK:
		return line + summary, code
	case v.Level == session.LevelWarning:
		return line + strings.Join(append(warning, summary), "; "), code
	}
	said := slices.Concat(critical, warning)
	var others []string
	if v.Interrupted > 0 {
		others = append(others, fmt.Sprintf("%d interrupted", v.Interrupted))
	}
	if v.Unauthorized > 0 {
		others = append(others, fmt.Sprintf("%d not authorized", v.Unauthorized))
	}
	if len(others) > 0 {
		said = append(said, joined(others))
	}
	if v.Unused != "" {
		said = append(said, barless(v.Unused))
	}
	return line + strings.Join(said, "; "), code
}

// codeOf is the exit code of a verdict.
func codeOf(v session.Verdict) int {
	switch {
	case v.Err != nil:
		return exitCode(v.Err)
	case v.Level == session.LevelOK:
		return exitDone
	case v.Level == session.LevelUnknown:
		return exitNotFound
	case v.Level == session.LevelWarning && len(v.Doubtful) == 0:
		return exitFailed
	}
	return exitAuthorize
}

// named tells what is wrong with the first of some grants, and whom to ring.
func (c monitorLine) named(records []grant.Record) string {
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
			text = fmt.Sprintf("%s expires in %s", barless(r.Company), render.Span(left))
		}
		if r.Contact != "" {
			text += fmt.Sprintf(" (contact %s)", barless(r.Contact))
		}
		names = append(names, text)
	}
	return joined(names)
}

// barless is text from outside for Nagios, which takes what is behind a bar for
// numbers.
func barless(text string) string { return strings.ReplaceAll(render.Text(text), "|", "/") }

// check prints the line for a monitor.
func check(ctx context.Context, s *job, c monitorLine) error {
	c.problems = s.problems
	line, code := c.words(s.Judge(ctx, c.records, len(c.problems), c.expected, c.now))
	fmt.Fprintln(s.env.Out, line)
	if code != exitDone {
		return &statusError{code: code}
	}
	return nil
}
