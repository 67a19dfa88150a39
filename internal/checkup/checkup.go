// Package checkup looks whether all is well where upsauth is used, and collects what
// it finds. On the way it finishes what was cut off, and clears away what is left of
// it. It prints nothing and names no command: a finding says what is so, and its
// remedies say by typed acts what to do, so that each face has its own words for that.
package checkup

import (
	"context"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/session"
)

// Level is how bad a finding is. It never changes, as programs read it.
type Level string

const (
	OK      Level = "ok"
	Warning Level = "warning"
	Failure Level = "failure"
)

// Finding is one thing that was found.
type Finding struct {
	Level Level
	// Check is what was looked at, in a word or two; programs read it.
	Check string
	// Found is what was found: a sentence without a full stop. Where there is an Err,
	// what that says comes behind, and often it is all.
	Found string
	Err   error
	// Class is what a failure means, where Err does not say that.
	Class explain.Class
	// Do is what to do, where Err does not say that.
	Do []explain.Remedy
	// Again says that the cause was told before. A face does not show such a failure,
	// and counts it.
	Again bool
}

// ByErr reports whether what to do about a finding is what to do about its error.
func (f Finding) ByErr() bool {
	return f.Err != nil && f.Class == explain.Failed && f.Do == nil
}

// Explanation is what a finding means, for a face without words of its own for errors.
func (f Finding) Explanation() explain.Explanation {
	e := explain.Error(f.Err)
	e.What = f.Found + e.What
	if !f.ByErr() {
		e.Do = f.Do
	}
	if f.Class != explain.Failed {
		e.Class = f.Class
	}
	return e
}

// Options are what a face adds to a session. All but Words and CanMake may be left out.
type Options struct {
	Words Words
	// Face looks for what the face itself needs of this machine.
	Face func() []Finding
	// PortHolder knows which program said that it has a port.
	PortHolder func(port int) loopback.Holder
	// CanMake says why a file vault can't be made out of what is at hand:
	// agefile.ErrNoPassphrase where there is nothing to open it with.
	CanMake func(context.Context) error
	// Progress is told how many secrets are opened now, and gives what is called for
	// each, by several goroutines at once, and at the end.
	Progress func(total int) (step func(bad bool), end func())
	// Log is told what went wrong that is no finding.
	Log func(error)
	// Repair, where it is set, has made anew and removed what Vault can make anew and
	// remove. It is asked before anything that somebody may not want; its error ends
	// the look.
	Repair func(context.Context, Question) error
}

// Words are how a face writes what it writes in many other places.
type Words struct {
	Time   func(time.Time) string
	Span   func(time.Duration) string
	Grants func([]grant.Record, time.Time) string
}

// Question is what somebody has to agree to before it is done.
type Question struct {
	Ask Ask
	// Lost is how many authorizations get records, for MakeRecords.
	Lost int
	// Home and Account are where the secret is, for RemoveSecret.
	Home, Account string
}

// Ask is what is asked.
type Ask int

const (
	// MakeRecords makes records for secrets that have none. If another state directory
	// of this machine goes on using them, the two void each other's.
	MakeRecords Ask = iota
	// RemoveSecret removes a client secret that no application of this configuration
	// directory has.
	RemoveSecret
)

// Unopened is what is found where no session can be opened.
func Unopened(err error) []Finding {
	return []Finding{{Level: Failure, Check: "configuration", Err: err}}
}

// counted is a number of things.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sentence is a remedy that is the same for every face.
func sentence(text string) []explain.Remedy { return []explain.Remedy{{Text: text}} }

// act is a remedy with an act.
func act(text string, do explain.Do, id grant.ID) []explain.Remedy {
	return []explain.Remedy{{Text: text, Acts: []explain.Act{{Do: do, ID: id}}}}
}

// look is one look at a session.
type look struct {
	findings
	s *session.Session
	o Options
}

func (l *look) log(err error) {
	if l.o.Log != nil {
		l.o.Log(err)
	}
}
