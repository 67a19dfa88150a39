package programs

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
)

// query are the parameters of a request, each of them once and not empty.
type query map[string]string

// parseQuery reads a query in which nothing may be misunderstood: what is left out of
// env=cie;a=1 would make another environment of it.
func parseQuery(raw string, known []string) (query, error) {
	if raw == "" {
		return nil, nil
	}
	q := make(query, len(known))
	for part := range strings.SplitSeq(raw, "&") {
		escaped, escapedValue, _ := strings.Cut(part, "=")
		if strings.Contains(part, ";") {
			return nil, usage(fmt.Sprintf("the parameter %s has a semicolon in it", quoted(escaped)), "Separate parameters with &, and write a semicolon as %3B.")
		}
		name, err := url.QueryUnescape(escaped)
		if err != nil || !utf8.ValidString(name) {
			return nil, usage(fmt.Sprintf("the name of the parameter %s is not percent-encoded text", quoted(escaped)), "Write names of parameters as plain letters.")
		}
		switch {
		case part == "":
			return nil, usage("the query has an empty parameter", "Separate parameters with one &.")
		case len(known) == 0:
			return nil, usage(fmt.Sprintf("the parameter %s is unknown here", quoted(name)), "This path has no parameters.")
		case !slices.Contains(known, name):
			return nil, usage(fmt.Sprintf("the parameter %s is unknown here", quoted(name)), "The parameters are: "+strings.Join(known, ", ")+".")
		}
		if _, twice := q[name]; twice {
			return nil, usage(fmt.Sprintf("the parameter %s appears twice", name), "Send each parameter once.")
		}
		value, err := url.QueryUnescape(escapedValue)
		switch {
		case err != nil:
			return nil, usage(fmt.Sprintf("the value of the parameter %s is not percent-encoded: a %% stands before two hexadecimal digits", name), "Write a % as %25.")
		case !utf8.ValidString(value):
			return nil, usage(fmt.Sprintf("the value of the parameter %s is not UTF-8 text", name), "Encode the value as UTF-8, then percent-encode the bytes.")
		case strings.TrimSpace(value) == "":
			return nil, usage(fmt.Sprintf("the parameter %s is empty", name), "Give the parameter a value, or leave the parameter out.")
		}
		q[name] = value
	}
	return q, nil
}

// quoted is text from outside in a message, and not too much of it.
func quoted(text string) string {
	const most = 60 // characters
	text = strings.ToValidUTF8(text, "\uFFFD")
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return strconv.Quote(legible.Line(text))
}

// target are the names in a query, as far as they can be names.
func (q query) target() (session.Target, error) { return q.targetOf("parameter") }

// targetOf is target, where what is in the query is called so.
func (q query) targetOf(what string) (session.Target, error) {
	t := session.Target{Company: q["company"], Application: q["app"], Environment: q["env"]}
	if t.Company != "" {
		if _, err := grant.CleanCompany(t.Company); err != nil {
			return t, usage("the "+what+" company: "+err.Error(), "Write the name as the list of companies has it.")
		}
	}
	for _, name := range []struct{ parameter, kind, value string }{{"app", "application", t.Application}, {"env", "environment", t.Environment}} {
		if name.value == "" {
			continue
		}
		if _, err := grant.CleanName(name.kind, name.value); err != nil {
			return t, usage("the "+what+" "+name.parameter+": "+err.Error(), "Write the name of the "+name.kind+" as its authorizations have it.")
		}
	}
	return t, nil
}

// company is the target of a query that has to name a company. What is in the query is
// called a parameter, or a field.
func (q query) company(what string) (session.Target, error) {
	if q["company"] == "" {
		return session.Target{}, usage("the "+what+" company is missing", "Name the company.")
	}
	return q.targetOf(what)
}

// span is a length of time in a query, which is not negative.
func (q query) span(name string, usual time.Duration) (time.Duration, error) {
	text, there := q[name]
	if !there {
		return usual, nil
	}
	d, err := legible.Span(text)
	switch {
	case err != nil:
		return 0, usage("the parameter "+name+": "+err.Error(), "Write a length of time as 5m or 36h.")
	case d < 0:
		return 0, usage("the parameter "+name+" can't be negative: it is a length of time from now on", "Write a length of time as 5m or 36h.")
	}
	return d, nil
}
