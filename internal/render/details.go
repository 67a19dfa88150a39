package render

import (
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

// Details is how much of a grant its rows say.
type Details struct {
	// Times asks for the four times of the tokens.
	Times bool
	// RetryAfter is how long after a request without an answer the same token is
	// sent again.
	RetryAfter time.Duration
	// Time writes a time outside of the panel; UPSTime if nil.
	Time func(time.Time) string
}

func (d Details) time(t time.Time) string {
	if d.Time == nil {
		return UPSTime(t)
	}
	return d.Time(t)
}

// Rows say all that is known of one grant, or of a company without any.
func (d Details) Rows(r grant.Record, now time.Time) []Row {
	var rows []Row
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, Row{Name: name, Value: value})
		}
	}
	add("Company", r.Company)
	if r.TokenVaultKey != "" {
		add("Application", r.Application)
		add("Environment", r.Environment)
	}
	add("State", stateWords(r, now))
	if r.Waits != "" {
		add("Invitation", "the user who signed in waits for your answer")
	}
	if !r.InvitedUntil.IsZero() {
		add("Invited until", d.time(r.InvitedUntil))
	}
	if r.WrongUser {
		add("Invitation", "another user than the expected one signed in; nothing was changed")
	}
	if r.CutOff != nil {
		add("What happened", d.cutOff(*r.CutOff))
	} else {
		add("What happened", r.Loss)
	}
	add("Signed in", r.User)
	if r.Asked != nil {
		add("Asked UPS last", fmt.Sprintf("%s, at %s", r.Asked.Host, d.time(r.Asked.Time)))
	}
	if d.Times {
		rows = append(rows, GrantRows(r)...)
	}
	if r.LastError != nil {
		says := fmt.Sprintf("%s: %s", r.LastError.Code, r.LastError.Message)
		if !r.LastError.Time.IsZero() {
			says += " (" + d.time(r.LastError.Time) + ")"
		}
		add("Last error", says)
	}
	add("Contact", r.Contact)
	add("Note", r.Note)
	return rows
}

func stateWords(r grant.Record, now time.Time) string {
	state := r.StateAt(now)
	if r.ProbablyVoid() {
		return fmt.Sprintf("%s, probably void. UPS refused another authorization of the same user: %s. Was the ups.com password changed? The next refresh shows it.", state, r.VoidWith)
	}
	if state == grant.Void && r.Loss != "" {
		return fmt.Sprintf("%s. UPS refused the refresh token.", state) // what happened is told beside it
	}
	return fmt.Sprintf("%s. %s", state, state.Meaning())
}

// cutOff says what became of an exchange with UPS that has no outcome yet, and
// what the next use does.
func (d Details) cutOff(j grant.Journal) string {
	if j.Answered {
		return fmt.Sprintf("UPS answered the request of %s. The answer is sealed on this machine, and the next use saves its tokens.", d.time(j.Time))
	}
	if j.AnotherHost() != "" {
		again := "Until the answer arrives, UPS is not asked again, unless a person takes over."
		if !j.Shared.Until.IsZero() {
			again = fmt.Sprintf("From %s on, any host may ask UPS again.", d.time(j.Shared.Until))
		}
		return fmt.Sprintf("%s (%s). %s", j.Outcome, d.time(j.Time), again)
	}
	what := "upsauth was cut off while it waited for UPS's answer."
	if j.Outcome != "" {
		what = legible.Sentence(j.Outcome)
	}
	what += fmt.Sprintf(" The request was sent at %s", d.time(j.Time))
	if j.Attempt > 1 {
		what += fmt.Sprintf(" (attempt %d)", j.Attempt)
	}
	return what + fmt.Sprintf("; upsauth sends the same token again after %s.", d.time(j.Time.Add(d.RetryAfter)))
}

// EventWords say what happened to a company, without when and to which grant. Other times
// are written by a function.
func EventWords(e grant.Event, written func(time.Time) string) string {
	what := string(e.What)
	if e.Count > 1 {
		what = fmt.Sprintf("%s %d times since %s", what, e.Count, written(e.Since))
	}
	if e.User != "" {
		what += " by " + e.User
	}
	if e.By != "" {
		what += " (" + e.By + ")"
	}
	if e.Detail != "" {
		what += ": " + e.Detail
	}
	return what
}
