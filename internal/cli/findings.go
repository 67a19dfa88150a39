package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// findings collects what doctor and vault check find.
type findings struct {
	found []render.Finding
	worst int // the exit code of the worst failure
	// closed are the homes that can't be used at all, by their names: whatever
	// needs one of them fails for the same cause, which is told once.
	closed map[string]*vault.HomeError
	// stateErr is why nothing can be written where the state is, nil where it can.
	stateErr error
	// listing is what the homes had when leftovers asked them, if listed says so.
	listing vault.Listing
	listed  bool
}

// list returns what the homes have, in the listing that was made earlier unless that
// has something to be told of, or lacks a home in use. To list a vault of thousands
// takes a good part of the time.
func (f *findings) list(ctx context.Context, s *job, records []grant.Record, inUse []string) vault.Listing {
	if f.listed && f.listing.Accounted(records) && len(f.listing.Among(inUse...).Problems) == 0 {
		return f.listing
	}
	return s.Vault.ListHomes(ctx)
}

func (f *findings) ok(check, format string, args ...any) {
	f.found = append(f.found, render.Finding{Level: render.OK, Check: check, Found: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(check, found, remedy string) {
	f.found = append(f.found, render.Finding{Level: render.Warning, Check: check, Found: found, Remedy: remedy})
}

func (f *findings) fail(check string, err error) {
	f.worst = worse(f.worst, exitCode(err))
	if f.told(err) {
		return
	}
	f.failWith(exitCode(err), check, message(err), advice(err))
}

func (f *findings) failWith(code int, check, found, remedy string) {
	f.found = append(f.found, render.Finding{Level: render.Failure, Check: check, Found: found, Remedy: remedy})
	f.worst = worse(f.worst, code)
}

// told reports whether the cause of an error was told before.
func (f *findings) told(err error) bool {
	if f.stateErr != nil && err != f.stateErr && (explain.IsStorage(err) || errors.As(err, new(*vault.LockError))) {
		return true
	}
	var home *vault.HomeError
	if !errors.As(err, &home) || home.Damaged || home.OfItem {
		return false
	}
	if before := f.closed[home.Home]; before != nil && before.What == home.What {
		return true
	}
	if f.closed == nil {
		f.closed = map[string]*vault.HomeError{}
	}
	f.closed[home.Home] = home
	return false
}

// state tries what a refresh does with the files of this machine, and reports
// whether all of it works.
func (f *findings) state(s *job) bool {
	f.stateErr = s.Vault.Rehearse()
	if f.stateErr != nil {
		f.fail("state", f.stateErr)
	}
	return f.stateErr == nil
}

// keyrings tells which of the keychain's keyrings have secrets of upsauth, where
// it has several. What gets the new ones changes when a keyring appears that is
// named login. The only one is told of with all.
func (f *findings) keyrings(ctx context.Context, s *job, all bool) {
	keyrings, err := s.Ring.Keyrings(ctx)
	if err != nil {
		f.fail("keyrings", err)
		return
	}
	if len(keyrings) == 1 && !all && !keyrings[0].Locked {
		return
	}
	for _, k := range keyrings {
		name := "the keyring " + k.Label
		switch {
		case k.Unsearched:
			f.warn("keyrings", name+" is locked, and nobody can tell what is in it", "Where secrets are missed, unlock it and look again.")
		case k.Items > 0 && k.Locked:
			f.warn("keyrings", fmt.Sprintf("%s has %s of upsauth and is locked", name, counted(k.Items, "secret")), "Unlock it before upsauth needs them.")
		case k.Items > 0 && !k.New:
			f.ok("keyrings", "%s has %s of upsauth; new ones go elsewhere", name, counted(k.Items, "secret"))
		case k.New:
			f.ok("keyrings", "%s has %s of upsauth and gets the new ones", name, counted(k.Items, "secret"))
		}
	}
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
func (f *findings) keptAnswers(s *job) {
	kept, problems, err := s.Vault.Kept(grant.ID{})
	for _, problem := range append(problems, err) {
		if problem != nil {
			f.fail("kept answers", problem)
		}
	}
	for _, j := range kept {
		f.warn("kept answers", fmt.Sprintf("%s: UPS's answer of %s can't be used by this upsauth; it is kept, sealed, in %s", j.ID, j.Time.UTC().Format(time.RFC3339), j.Path),
			"A newer upsauth may read it: it tries by itself. docs/troubleshooting.md tells how to look into it. Once the company works again, delete the file.")
	}
	elsewhere, err := s.Vault.SealedElsewhere()
	if err != nil {
		f.fail("kept answers", err)
	}
	for _, j := range elsewhere {
		f.warn("kept answers", fmt.Sprintf("%s: UPS's answer of %s could not be put in place; it is sealed in %s", j.ID, j.Time.UTC().Format(time.RFC3339), j.Path),
			"See that the state directory that the company's authorization is in can be written. Then run: "+companyCommand("refresh", j.ID))
	}
}

// unanswered reports whether all that lies beside a grant is the journal of a refresh
// without an answer: only sending the token again can finish that.
func unanswered(r grant.Record, journals []grant.Journal) bool {
	if len(journals) != 1 {
		return false
	}
	j := journals[0]
	return j.Purpose == grant.Refreshing && !j.Answered && j.Generation > r.Generation
}

// allKept are the answers of all grants that nobody could use or put in place, as
// far as they can be read: keptAnswers tells of the others.
func (s *job) allKept() []grant.Journal {
	kept, _, _ := s.Vault.Kept(grant.ID{})
	elsewhere, _ := s.Vault.SealedElsewhere()
	return append(kept, elsewhere...)
}

// checkSecrets opens the secrets of grants, on all cores, and returns what is
// wrong with each, nil where nothing is. A home that is closed is not asked again.
func checkSecrets(ctx context.Context, s *job, records []grant.Record) []error {
	errs := make([]error, len(records))
	var bar *progress
	if s.env.ErrTerminal && len(records) > 100 {
		bar = newProgress(s.env.Err, s.env.Now, len(records))
		defer bar.end()
	}
	var mu sync.Mutex
	closed := map[string]error{}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(records) || ctx.Err() != nil {
					return
				}
				r := records[i]
				mu.Lock()
				err := closed[r.Home]
				mu.Unlock()
				if err == nil {
					err = s.Vault.CheckRecord(ctx, r)
				}
				if whole := wholeHome(err); whole != nil {
					mu.Lock()
					closed[r.Home] = err
					mu.Unlock()
				}
				errs[i] = err
				if bar != nil {
					bar.step(err != nil, "")
				}
			}
		})
	}
	workers.Wait()
	return errs
}

// wholeHome is the error of a home as a whole, nil where it is about one item.
func wholeHome(err error) *vault.HomeError {
	var home *vault.HomeError
	if errors.As(err, &home) && !home.Damaged && !home.OfItem {
		return home
	}
	return nil
}

// secrets opens the secrets of grants, and tells which are not whole. What is
// the matter with a home as a whole is told once for all that are in it.
func (f *findings) secrets(ctx context.Context, s *job, records []grant.Record, repair bool) {
	whole, all := 0, len(records)
	unknown := map[string]int{}
	closed := map[string]*vault.HomeError{}
	errs := checkSecrets(ctx, s, records)
	if ctx.Err() != nil {
		return
	}
	for i, r := range records {
		err := errs[i]
		var home *vault.HomeError
		var noKey *vault.JournalKeyError
		switch {
		case err == nil:
			whole++
		case errors.Is(err, grant.ErrNoGrant): // revoked meanwhile
			all--
		case errors.As(err, &noKey) && repair:
			if err := s.Vault.RepairJournalKey(ctx, r.ID); err != nil {
				f.fail("secrets", err)
				continue
			}
			whole++
			f.ok("repaired", "%s: the journal has a new key", r.ID)
		case errors.As(err, &noKey):
			f.warn("secrets", message(err), "Run: upsauth vault check --repair")
		case wholeHome(err) != nil:
			closed[r.Home] = wholeHome(err)
			unknown[r.Home]++
		case errors.As(err, &home):
			f.failWith(exitVault, "secrets", about(r.String(), err), "Restore it from a backup, or run: "+companyCommand("authorize", r.ID))
		default:
			f.fail("secrets", err)
		}
	}
	for name, home := range closed {
		f.worst = worse(f.worst, exitVault)
		if !f.told(home) {
			f.failWith(exitVault, "secrets", fmt.Sprintf("%s in the %s can't be looked at: %s", counted(unknown[name], "authorization"), vault.Describe(name), message(home)), advice(home))
		}
	}
	switch {
	case all > 0 && whole == all:
		f.ok("secrets", "%s: each is whole", counted(whole, "authorization"))
	case whole > 0:
		f.warn("secrets", someOf(whole, all, "authorization", "whole"), "")
	}
}

// leftovers clears away what commands left that were cut off, and tells of it.
func (f *findings) leftovers(ctx context.Context, s *job) {
	finished, err := s.FinishWork(ctx)
	for _, w := range finished {
		f.ok("leftovers", "%s was cut off, and is finished or cleared away", w)
	}
	var home *vault.HomeError
	switch {
	case errors.As(err, &home):
		// Many a session has no keychain; another one clears it away.
		f.warn("leftovers", "what a command left that was cut off can't be cleared away yet: "+message(home), advice(home))
	case err != nil:
		f.fail("leftovers", err)
	}
	removed, err := s.Vault.Sweep()
	if err == nil {
		err = safefile.Sweep(filepath.Join(s.Config.Paths.Config, "applications.toml"))
	}
	if err != nil {
		f.fail("leftovers", err)
	}
	f.listing, f.listed = s.Vault.ListHomes(ctx), true
	ofGrants, _, err := s.Vault.Probes(f.listing)
	if err == nil && len(ofGrants) > 0 {
		var n int
		n, err = s.Vault.DropProbes(ctx, ofGrants)
		removed += n
	}
	if err != nil {
		f.fail("leftovers", err)
	}
	if removed > 0 {
		f.ok("leftovers", "%s of commands that were cut off removed from %s: files that were never finished, probes, notes of locks", counted(removed, "leftover"), s.Config.Paths.State)
	}
}

// someOf says that not all of several are as they should be. What is wrong with the
// others is told before.
func someOf(n, of int, what, how string) string {
	are := "are"
	if n == 1 {
		are = "is"
	}
	return fmt.Sprintf("only %d of %s %s %s", n, counted(of, what), are, how)
}
