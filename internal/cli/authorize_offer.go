package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

// offers reports whether somebody is there to choose the company.
func (opts authorizeOptions) offers() bool {
	return opts.env.attended()
}

// mostOffered is how many companies are listed to choose from.
const mostOffered = 50

// offer lets a person choose one of the companies that have to be authorized, by
// its number. The most urgent stand first.
func (s *job) offer(ctx context.Context, t *target) error {
	// First of all whether anybody could sign in for one of them.
	_, noApplication := s.PickApplication(ctx, t.Target)
	need, err := s.InNeed(ctx, t.Target)
	if noApplication != nil && errors.As(err, new(*session.NotFoundError)) {
		return noApplication // which says what to do about it
	}
	if err != nil {
		return err
	}
	render.SortRecords(need, render.ByUrgency, s.env.Now())
	without := 0
	if noApplication != nil {
		all := len(need)
		need = s.WithRegistration(ctx, need)
		if len(need) == 0 {
			return noApplication
		}
		without = all - len(need)
	}
	if len(need) == 0 {
		return usagef("--company is missing: name the company to authorize. No known company needs an authorization%s.", session.Describe(t.Application, t.Environment))
	}
	env, now := s.env, s.env.Now()
	listed := need[:min(len(need), mostOffered)]
	fmt.Fprintln(env.Err, "These companies have to be authorized:")
	for i, r := range listed {
		what := string(r.StateAt(now))
		if r.ProbablyVoid() {
			what = "probably void"
		}
		if r.TokenVaultKey != "" {
			what = fmt.Sprintf("%s, %s, %s", r.Application, r.Environment, what)
		}
		text := fmt.Sprintf("%s (%s)", render.Text(r.Company), what)
		if r.Contact != "" {
			text += ", contact: " + render.Text(r.Contact)
		}
		fmt.Fprintf(env.Err, "%3d. %s\n", i+1, text)
	}
	if more := len(need) - len(listed); more > 0 {
		fmt.Fprintf(env.Err, "and %d more: name one of them with --company.\n", more)
	}
	if without > 0 {
		fmt.Fprintf(env.Err, "and %d more without a chosen application: add --app and --env.\n", without)
	}
	for {
		fmt.Fprintf(env.Err, "Which one? 1 to %d, or Ctrl-C to end: ", len(listed))
		answer, err := env.person().Lines.Read(ctx)
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(env.Err)
			return usagef("--company is missing: name the company to authorize")
		}
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(answer), "."))
		if err != nil || number < 1 || number > len(listed) {
			continue
		}
		chosen := listed[number-1]
		t.Company = chosen.Company
		if chosen.TokenVaultKey != "" {
			t.Application, t.Environment = chosen.Application, chosen.Environment
		}
		return nil
	}
}
