package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// job is what one command works with: a session, and how the command speaks of it.
type job struct {
	*session.Session
	env     *Env
	verbose bool

	mu sync.Mutex
	// problems are the files that could not be read so far, each told once.
	problems []error
}

// openJob opens a session for a command, which closes it.
func openJob(env *Env, verbose bool) (*job, error) {
	return openJobWith(env, verbose, func(*session.Options) {})
}

// openJobWith is openJob with options of the command's own.
func openJobWith(env *Env, verbose bool, change func(*session.Options)) (*job, error) {
	j := &job{env: env, verbose: verbose}
	o := j.options()
	change(&o)
	var err error
	j.Session, err = session.Open(o)
	return j, err
}

// options are those of a command's session.
func (s *job) options() session.Options {
	env := s.env
	o := session.Options{
		Getenv: env.Getenv, Now: env.Now, Transport: env.Transport, UserAgent: "upsauth/" + buildVersion().Version,
		Keychain: env.Keychain, KeychainDeadline: 10 * time.Second, WorkFactor: env.WorkFactor,
		Passphrase: func(ctx context.Context, identity string, fresh bool) (string, error) {
			return vaultPassphrase(ctx, env, identity, fresh)
		},
		Retry:  env.retry(),
		Notice: s.notice,
	}
	// A person may be looking at a question to unlock the keychain only where
	// there is a terminal.
	if env.ErrTerminal {
		o.KeychainDeadline = 60 * time.Second
		o.Waiting = func() {
			fmt.Fprintf(env.Err, "Waiting up to %s for the keychain; it may be asking to be unlocked.\n", o.KeychainDeadline)
		}
	}
	return o
}

// notice says what a session has to say on standard error.
func (s *job) notice(_ context.Context, n session.Notice) {
	switch {
	case n.Kind == session.Step:
		s.log(n.Text)
	case n.Kind != session.Problem || s.newProblem(n.Err):
		fmt.Fprintln(s.env.Err, noticeWords(n))
	}
}

// noticeWords are a notice in the words of a terminal.
func noticeWords(n session.Notice) string {
	switch n.Kind {
	case session.Problem:
		return "Warning: " + message(n.Err)
	case session.Twins:
		return fmt.Sprintf("Warning: two companies are called %q; one of the names has invisible characters (%s). Rename that company: upsauth company rename %s NEW",
			legible.Line(n.Name), legible.CodePoints(legible.Hidden(n.Name)), quotedCodePoints(n.Name))
	}
	return n.Text
}

// newProblem remembers a problem, and reports whether it was not known yet.
func (s *job) newProblem(problem error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// That what is shown is old says why, too: that the database is away is told once.
	away := shared.IsAway(problem) && !errors.As(problem, new(*shared.StaleError))
	if slices.ContainsFunc(s.problems, func(known error) bool {
		return known.Error() == problem.Error() || away && shared.IsAway(known)
	}) {
		return false
	}
	s.problems = append(s.problems, problem)
	return true
}

func (s *job) log(line string) {
	if s.verbose {
		fmt.Fprintf(s.env.Err, "%s %s\n", s.env.Now().UTC().Format("15:04:05.000"), line)
	}
}

// whole is the error of a command that has told all that it could read, and that
// there is more.
func (s *job) whole() error {
	if len(s.problems) > 0 {
		return &statusError{code: exitFailed}
	}
	return nil
}

// pick finds the one grant that a command is about.
func (s *job) pick(ctx context.Context, t target) (grant.Record, error) {
	if err := t.needsCompany(); err != nil {
		return grant.Record{}, err
	}
	return s.Pick(ctx, t.Target)
}

// pickForToken is pick for whoever only wants a token.
func (s *job) pickForToken(ctx context.Context, t target) (grant.Record, error) {
	if err := t.needsCompany(); err != nil {
		return grant.Record{}, err
	}
	return s.PickForToken(ctx, t.Target)
}

// token returns the one grant that a command is about, with an access token that
// is good for at least minValid.
func (s *job) token(ctx context.Context, t target, minValid time.Duration) (grant.Grant, error) {
	if minValid < 0 {
		return grant.Grant{}, usagef("--min-valid can't be negative: it is a length of time from now on")
	}
	record, err := s.pickForToken(ctx, t)
	if err != nil {
		return grant.Grant{}, err
	}
	return s.Token(ctx, record, minValid)
}

// records are the grants of a company, of all where it is empty.
func (s *job) records(ctx context.Context, company string) ([]grant.Record, error) {
	list, err := s.Records(ctx, company)
	return list.Records, err
}

func joined(names []string) string { return strings.Join(names, ", ") }

// listed names grants or applications by the flags that mean each; where all of them
// are one application's, the environments alone.
func listed(grants []grant.ID) string {
	var names []string
	for _, id := range grants {
		if id.Application == "" {
			names = append(names, id.Environment)
			continue
		}
		names = append(names, fmt.Sprintf("--app %s --env %s", id.Application, id.Environment))
	}
	if len(grants) > 0 && grants[0].Application == "" {
		return joined(names)
	}
	return strings.Join(names, "; ")
}
