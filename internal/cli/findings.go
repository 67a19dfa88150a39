package cli

import (
	"context"
	"errors"

	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/terminal"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

// checkup is what a terminal adds to a look at its session.
func (s *job) checkup() checkup.Options {
	o := checkup.Options{
		Words:      checkup.Words{Time: render.UPSTime, Span: render.Span, Grants: render.Summary},
		PortHolder: signin.Holder(s.Disk),
		CanMake: func(ctx context.Context) error {
			_, err := passphraseFromEnvironment(ctx, s.env)
			if errors.Is(err, agefile.ErrNoPassphrase) && s.env.InTerminal && s.env.ErrTerminal {
				return nil // it is asked for
			}
			return err
		},
		Log: func(err error) { s.log(message(err)) },
	}
	if s.env.ErrTerminal {
		o.Progress = s.progress
	}
	return o
}

// progress draws a bar while the secrets of many are opened.
func (s *job) progress(total int) (step func(bad bool), end func()) {
	if total <= 100 {
		return func(bool) {}, func() {}
	}
	bar := terminal.NewProgress(s.env.Err, s.env.Now, total)
	return func(bad bool) { bar.Step(bad, "") }, bar.End
}

// report writes findings; the exit code is that of the worst.
func report(env *Env, format string, found []checkup.Finding) error {
	worst := exitDone
	var shown []render.Finding
	for _, f := range found {
		worst = worse(worst, codeOfFinding(f))
		if !f.Again {
			shown = append(shown, findingWords(f))
		}
	}
	var err error
	if format == "json" {
		err = render.JSON(env.Out, render.Findings{Version: 1, Findings: shown})
	} else {
		err = render.FindingLines(env.Out, shown, env.width())
	}
	if err != nil || worst == exitDone {
		return err
	}
	return &statusError{code: worst}
}

// findingWords are a finding in the words of a terminal.
func findingWords(f checkup.Finding) render.Finding {
	shown := render.Finding{Level: render.Level(f.Level), Check: f.Check, Found: f.Found, Remedy: remedyWords(f.Do)}
	if f.Err != nil {
		shown.Found += message(f.Err)
	}
	if f.ByErr() {
		shown.Remedy = advice(f.Err)
	}
	return shown
}

// codeOfFinding is the exit code of a finding.
func codeOfFinding(f checkup.Finding) int {
	switch {
	case f.Level != checkup.Failure:
		return exitDone
	case f.Class == explain.Failed && f.Err != nil:
		return exitCode(f.Err)
	}
	return exitCodeOf(f.Class)
}
