package session

import (
	"context"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
)

// Notice is what whoever asked for something should know, beside its outcome.
type Notice struct {
	Kind NoticeKind
	// Text is a sentence, for Step and Warning.
	Text string
	// ID is the grant that it is about, empty for none.
	ID grant.ID
	// About is a warning's text without what differs from one time to the next, and
	// Err the error in it, nil for none. For Problem, Err is why a file can't be
	// used.
	About string
	Err   error
	// Name is a company's whose name looks like that of another one, for Twins.
	Name string
}

// NoticeKind is what a Notice is about.
type NoticeKind int

const (
	// Step is one step of the work, for who wants to follow it; no secret is in it.
	Step NoticeKind = iota
	// Warning is what a person should know although it went well.
	Warning
	// Problem is a file whose content could not be used; all others were.
	Problem
	// Twins are two companies whose names look the same.
	Twins
)

func (s *Session) notice(ctx context.Context, n Notice) {
	if s.options.Notice != nil {
		s.options.Notice(ctx, n)
	}
}

func (s *Session) step(ctx context.Context, text string) {
	s.notice(ctx, Notice{Kind: Step, Text: text})
}

// Note notes what became of a grant or a company in the company's history.
func (s *Session) Note(ctx context.Context, what grant.EventKind, id grant.ID, detail string) {
	s.happened(ctx, grant.Event{Time: s.options.Now().UTC(), What: what, ID: id, Detail: detail})
}

func (s *Session) problems(ctx context.Context, problems []error) {
	for _, problem := range problems {
		s.notice(ctx, Notice{Kind: Problem, Err: problem})
	}
}

func (s *Session) stepf(ctx context.Context, format string, args ...any) {
	s.step(ctx, fmt.Sprintf(format, args...))
}
