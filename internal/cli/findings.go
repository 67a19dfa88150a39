package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/vault"
)

// findings collects what doctor and vault check find.
type findings struct {
	found []render.Finding
	worst int // the exit code of the worst failure
}

func (f *findings) ok(check, format string, args ...any) {
	f.found = append(f.found, render.Finding{Level: render.OK, Check: check, Found: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(check, found, remedy string) {
	f.found = append(f.found, render.Finding{Level: render.Warning, Check: check, Found: found, Remedy: remedy})
}

func (f *findings) fail(check string, err error) {
	f.failWith(exitCode(err), check, message(err), advice(err))
}

func (f *findings) failWith(code int, check, found, remedy string) {
	f.found = append(f.found, render.Finding{Level: render.Failure, Check: check, Found: found, Remedy: remedy})
	f.worst = worse(f.worst, code)
}

// report writes the findings; the exit code is that of the worst.
func (f *findings) report(env *Env, format string) error {
	var err error
	if format == "json" {
		err = render.JSON(env.Out, render.Findings{Version: 1, Findings: f.found})
	} else {
		err = render.FindingLines(env.Out, f.found, env.width())
	}
	if err != nil || f.worst == exitDone {
		return err
	}
	return &statusError{code: f.worst}
}

// keptAnswers tells of UPS's answers that are kept, sealed: those that nobody could
// use, and those that could not be put in their place.
func (f *findings) keptAnswers(s *session) {
	kept, problems, err := s.vault.Kept(grant.ID{})
	for _, problem := range append(problems, err) {
		if problem != nil {
			f.fail("kept answers", problem)
		}
	}
	for _, j := range kept {
		f.warn("kept answers", fmt.Sprintf("%s: UPS's answer of %s can't be used by this upsauth; it is kept, sealed, in %s", j.ID, j.Time.UTC().Format(time.RFC3339), j.Path),
			"A newer upsauth may read it: it tries by itself. docs/troubleshooting.md tells how to look into it. Once the company works again, delete the file.")
	}
	for _, j := range s.vault.SealedElsewhere() {
		f.warn("kept answers", fmt.Sprintf("%s: UPS's answer of %s could not be put in place; it is sealed in %s", j.ID, j.Time.UTC().Format(time.RFC3339), j.Path),
			"See that the state directory that the company's authorization is in can be written. Then run: "+companyCommand("refresh", j.ID))
	}
}

// secrets opens the secrets of grants, and tells which are not whole. What is
// the matter with a home as a whole is told once for all that are in it.
func (f *findings) secrets(ctx context.Context, s *session, records []grant.Record, repair bool) {
	whole := 0
	closed := map[string]*vault.HomeError{}
	unknown := map[string]int{}
	for _, r := range records {
		if ctx.Err() != nil {
			return
		}
		if closed[r.Vault] != nil {
			unknown[r.Vault]++
			continue
		}
		err := s.vault.Check(ctx, r.ID)
		var home *vault.HomeError
		var noKey *vault.JournalKeyError
		switch {
		case err == nil:
			whole++
		case errors.Is(err, grant.ErrNoGrant): // revoked meanwhile
		case errors.As(err, &noKey) && repair:
			if err := s.vault.RepairJournalKey(ctx, r.ID); err != nil {
				f.fail("secrets", err)
				continue
			}
			whole++
			f.ok("repaired", "%s: the journal has a new key", r.ID)
		case errors.As(err, &noKey):
			f.warn("secrets", message(err), "Run: upsauth vault check --repair")
		case errors.As(err, &home) && !home.Damaged && !home.OfItem:
			closed[r.Vault] = home
			unknown[r.Vault]++
		case errors.As(err, &home):
			f.failWith(exitVault, "secrets", about(r.String(), err), "Restore it from a backup, or run: "+companyCommand("authorize", r.ID))
		default:
			f.fail("secrets", err)
		}
	}
	for name, home := range closed {
		f.failWith(exitVault, "secrets", fmt.Sprintf("%s in the %s can't be looked at: %s", counted(unknown[name], "authorization"), vault.Describe(name), home.What), home.Advice)
	}
	switch {
	case len(records) > 0 && whole == len(records):
		f.ok("secrets", "%s: each is whole", counted(whole, "authorization"))
	case whole > 0:
		f.ok("secrets", "%s of %d are whole", counted(whole, "authorization"), len(records))
	}
}
