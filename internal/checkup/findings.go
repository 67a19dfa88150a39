package checkup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// findings collects what is found.
type findings struct {
	found []Finding
	// closed are the homes that can't be used at all, by their names: whatever
	// needs one of them fails for the same cause, which is told once.
	closed map[string]*vault.HomeError
	// stateErr is why nothing can be written where the state is, nil where it can.
	stateErr error
	// noDatabase says that the database can't be used, and that this was told: all that asks
	// it fails for the same cause.
	noDatabase bool
	// listing is what the homes had when leftovers asked them, if listed says so.
	listing vault.Listing
	listed  bool
	// flawed are the damaged journals that were told of, by their Token Vault Keys.
	flawed map[string]files.FlawedJournal
}

// list returns what the homes have, in the listing that was made earlier unless that
// has something to be told of, or lacks a home in use. To list a vault of thousands
// takes a good part of the time.
func (l *look) list(ctx context.Context, records []grant.Record, inUse []string) vault.Listing {
	if l.listed && l.listing.Accounted(records) && len(l.listing.Among(inUse...).Problems) == 0 {
		return l.listing
	}
	return l.s.Vault.ListHomes(ctx)
}

func (f *findings) ok(check, format string, args ...any) {
	f.found = append(f.found, Finding{Level: OK, Check: check, Found: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(check, found string, do []explain.Remedy) {
	f.found = append(f.found, Finding{Level: Warning, Check: check, Found: found, Do: do})
}

// warnOf is a warning that an error tells of, behind some words.
func (f *findings) warnOf(check, found string, err error) {
	f.found = append(f.found, Finding{Level: Warning, Check: check, Found: found, Err: err})
}

// fail is a failure that is an error.
func (f *findings) fail(check string, err error) {
	f.found = append(f.found, Finding{Level: Failure, Check: check, Err: err, Again: f.told(err)})
}

// failAs is a failure that means what is said here, whatever its error means.
func (f *findings) failAs(class explain.Class, check, found string, err error, do []explain.Remedy) {
	f.found = append(f.found, Finding{Level: Failure, Check: check, Found: found, Err: err, Class: class, Do: do})
}

// told reports whether the cause of an error was told before.
func (f *findings) told(err error) bool {
	if f.stateErr != nil && !errors.Is(err, f.stateErr) && (explain.IsStorage(err) || errors.As(err, new(*vault.LockError))) {
		return true
	}
	var damage *vault.JournalDamageError
	if errors.As(err, &damage) {
		_, told := f.flawed[filepath.Base(damage.Path)]
		return told
	}
	if noDatabase(err) {
		told := f.noDatabase
		f.noDatabase = true
		return told
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
func (l *look) state() bool {
	l.stateErr = l.s.Disk.Rehearse()
	if l.stateErr != nil {
		l.fail("state", l.stateErr)
	}
	return l.stateErr == nil
}

// keyrings tells which of the keychain's keyrings have secrets of upsauth, where
// it has several. What gets the new ones changes when a keyring appears that is
// named login. The only one is told of with all.
func (l *look) keyrings(ctx context.Context, all bool) {
	keyrings, err := l.s.Ring.Keyrings(ctx)
	if err != nil {
		l.fail("keyrings", err)
		return
	}
	if len(keyrings) == 1 && !all && !keyrings[0].Locked {
		return
	}
	for _, k := range keyrings {
		name := "the keyring " + k.Label
		switch {
		case k.Unsearched:
			l.warn("keyrings", name+" is locked, so nobody can tell what is in it", sentence("If secrets are missing, unlock it and check again."))
		case k.Items > 0 && k.Locked:
			l.warn("keyrings", fmt.Sprintf("%s has %s of upsauth and is locked", name, counted(k.Items, "secret")), sentence("Unlock it before upsauth needs them."))
		case k.Items > 0 && !k.New:
			l.ok("keyrings", "%s has %s of upsauth; new ones go elsewhere", name, counted(k.Items, "secret"))
		case k.New:
			l.ok("keyrings", "%s has %s of upsauth and gets the new ones", name, counted(k.Items, "secret"))
		}
	}
}

// keptAnswers tells of UPS's answers that are kept, sealed: those that nobody could
// use, and those that could not be put in their place. Records are those of the grants
// that stand: the file of such a one's answer is its journal, and stays.
func (l *look) keptAnswers(ctx context.Context, records []grant.Record) {
	kept, problems, err := l.s.Vault.Kept(ctx)
	for _, problem := range append(problems, err) {
		if problem != nil {
			l.fail("kept answers", problem)
		}
	}
	for _, j := range kept {
		end := "Once the company works again, delete the file."
		if slices.ContainsFunc(records, func(r grant.Record) bool { return r.TokenVaultKey == j.TokenVaultKey }) {
			end = "It goes with the next refresh that succeeds, or with the authorization."
		}
		l.warn("kept answers", fmt.Sprintf("%s: UPS's answer of %s can't be used by this upsauth; it is kept, sealed, in %s", j.ID, j.Time.UTC().Format(time.RFC3339), j.Path),
			sentence("A newer upsauth may read it, and tries by itself. docs/troubleshooting.md says how to open it. "+end))
	}
	elsewhere, err := l.s.Disk.SealedElsewhere(ctx)
	if err != nil {
		l.fail("kept answers", err)
	}
	for _, j := range elsewhere {
		l.warn("kept answers", fmt.Sprintf("%s: UPS's answer of %s could not be put in place; it is sealed in %s", j.ID, j.Time.UTC().Format(time.RFC3339), j.Path),
			act("Make sure that the state directory of the company's authorization can be written. Then [run: {}|refresh the company].", explain.Refresh, j.ID))
	}
}

// journals reads the journals of all grants, and tells which are damaged: nobody else
// opens one without news. It reports whether any was repaired.
func (l *look) journals(ctx context.Context, records []grant.Record) (repaired bool) {
	flawed, err := l.s.Disk.Flawed(ctx, records)
	if err != nil && ctx.Err() == nil {
		l.fail("journals", err)
	}
	for _, j := range flawed {
		if j.Slots && j.Slot != "" && l.o.Repair != nil && l.stateErr == nil {
			aside, err := l.s.Disk.SetJournalAside(ctx, j)
			if err != nil {
				l.fail("journals", err)
				continue
			}
			repaired = true
			if aside != "" {
				l.ok("repaired", "%sthe damaged parts of the journal are cleared; a copy is set aside as %s", nameOf(j), aside)
			}
			continue
		}
		l.flawedJournal(j)
	}
	return repaired
}

// flawedJournal tells of one journal, and what that means.
func (l *look) flawedJournal(j files.FlawedJournal) {
	if j.Aside {
		l.warn("journals", fmt.Sprintf("%sa damaged journal was set aside as %s", nameOf(j), j.Path),
			[]explain.Remedy{{Text: "If the company's authorization works, delete the file[: {}]", Acts: []explain.Act{{Do: explain.DeleteFile, Path: j.Path}}}})
		return
	}
	if !errors.As(j.Err, new(*vault.JournalDamageError)) {
		l.found = append(l.found, Finding{Level: Failure, Check: "journals", Found: nameOf(j), Err: j.Err, Again: l.told(j.Err)})
		return
	}
	means := "Nothing is lost while the company's secrets are whole."
	if j.News {
		means = "If the journal had UPS's last answer, the company must be authorized again."
	}
	do := []explain.Remedy{{Text: means}}
	switch {
	case j.Slot == "":
		do = []explain.Remedy{{Text: "No company is known to need this journal. If every company has its authorization, delete the file[: {}]", Acts: []explain.Act{{Do: explain.DeleteFile, Path: j.Path}}}}
	case j.Slots:
		do = append(do, act("[To set the damaged part aside, run: {}]", explain.RepairVault, grant.ID{})...)
	default:
		do = append(do, act("[The next refresh writes a new one. Run: {}]", explain.Refresh, j.ID)...)
	}
	l.failAs(explain.Failed, "journals", nameOf(j), j.Err, do)
	if l.flawed == nil {
		l.flawed = map[string]files.FlawedJournal{}
	}
	l.flawed[filepath.Base(j.Path)] = j
}

// nameOf begins a sentence with the grant of a journal, where that is known.
func nameOf(j files.FlawedJournal) string {
	if j.Company == "" {
		return ""
	}
	return j.ID.String() + ": "
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
func (l *look) allKept(ctx context.Context) []grant.Journal {
	kept, _, _ := l.s.Vault.Kept(ctx)
	elsewhere, _ := l.s.Disk.SealedElsewhere(ctx)
	return append(kept, elsewhere...)
}

// open opens the secrets of grants, on all cores, and returns what is wrong with
// each, nil where nothing is. A home that is closed is not asked again.
func (l *look) open(ctx context.Context, records []grant.Record) []error {
	errs := make([]error, len(records))
	step := func(bool) {}
	if l.o.Progress != nil {
		var end func()
		step, end = l.o.Progress(len(records))
		defer end()
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
					err = l.s.Vault.CheckRecord(ctx, r)
				}
				if whole := wholeHome(err); whole != nil {
					mu.Lock()
					closed[r.Home] = err
					mu.Unlock()
				}
				errs[i] = err
				step(err != nil)
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
func (l *look) secrets(ctx context.Context, records []grant.Record) {
	whole, all := 0, len(records)
	unknown := map[string]int{}
	closed := map[string]*vault.HomeError{}
	errs := l.open(ctx, records)
	if ctx.Err() != nil {
		return
	}
	for i, r := range records {
		err := errs[i]
		if errors.Is(err, grant.ErrNoSecrets) || errors.Is(err, grant.ErrOlder) {
			if told, mended := l.rescue(ctx, r, err); told {
				whole += mended
				continue
			}
		}
		var home *vault.HomeError
		var noKey *vault.JournalKeyError
		switch {
		case err == nil:
			whole++
		case errors.Is(err, grant.ErrNoGrant): // revoked meanwhile
			all--
		case errors.As(err, &noKey) && l.o.Repair != nil:
			if err := l.s.Vault.RepairJournalKey(ctx, r.ID); err != nil {
				l.fail("secrets", err)
				continue
			}
			whole++
			l.ok("repaired", "%s: the journal has a new key", r.ID)
		case errors.As(err, &noKey):
			l.found = append(l.found, Finding{Level: Warning, Check: "secrets", Err: err, Do: act("[Run: {}|Give the journal a new key]", explain.RepairVault, grant.ID{})})
		case wholeHome(err) != nil:
			closed[r.Home] = wholeHome(err)
			unknown[r.Home]++
		case errors.As(err, &home):
			about := r.String() + ": "
			if strings.HasPrefix(err.Error(), r.String()) {
				about = ""
			}
			l.failAs(explain.Vault, "secrets", about, err, act("Restore it from a backup, or [run: {}|authorize the company again]", explain.AuthorizeCompany, r.ID))
		default:
			l.fail("secrets", err)
		}
	}
	for name, home := range closed {
		found := fmt.Sprintf("%s in the %s can't be looked at: ", counted(unknown[name], "authorization"), vault.Describe(name))
		l.found = append(l.found, Finding{Level: Failure, Check: "secrets", Found: found, Err: home, Class: explain.Vault, Do: explain.Error(home).Do, Again: l.told(home)})
	}
	switch {
	case all > 0 && whole == all:
		l.ok("secrets", "%s: each is whole", counted(whole, "authorization"))
	case whole > 0:
		l.warn("secrets", someOf(whole, all, "authorization", "whole"), nil)
	}
}

// rescue tells of secrets that are lost, or older than their record, where the journal has
// them, or may have them. A repair makes them again, and so does the next use of the
// company. Mended is 1 where they are whole now.
func (l *look) rescue(ctx context.Context, r grant.Record, lost error) (told bool, mended int) {
	if l.flawed[r.TokenVaultKey].Slots {
		// To read what is left of it, the damaged part is set aside.
		l.failAs(explain.Vault, "secrets", "", lost, act("[First run: {}|Repair the vault first]; the rest of the journal may have the tokens", explain.RepairVault, grant.ID{}))
		return true, 0
	}
	can, err := l.s.Keeper.CanRescue(ctx, r.ID)
	switch {
	case err != nil:
		l.failAs(explain.Vault, "secrets", lost.Error()+"; the journal may have the tokens: ", err, explain.Error(err).Do)
		return true, 0
	case !can:
		return false, 0
	case l.o.Repair == nil:
		what := "are not in the " + vault.Describe(r.Home)
		if errors.Is(lost, grant.ErrOlder) {
			what = fmt.Sprintf("in the %s are older than the record", vault.Describe(r.Home))
		}
		l.warn("secrets", fmt.Sprintf("%s: the secrets %s, but the journal has the newest tokens", r.ID, what),
			act("The next use of the company puts them in place[, and so does: {}]", explain.RepairVault, grant.ID{}))
		return true, 0
	}
	if _, err := l.s.Keeper.Settle(ctx, r.ID); err != nil && !errors.As(err, new(*keeper.PendingError)) {
		l.fail("secrets", err)
		return true, 0
	}
	l.ok("repaired", "%s: the secrets are made again of UPS's answer in the journal", r.ID)
	return true, 1
}

// leftovers clears away what commands left that were cut off, and tells of it.
func (l *look) leftovers(ctx context.Context) {
	finished, err := l.s.FinishWork(ctx)
	for _, w := range finished {
		l.ok("leftovers", "%s was cut off, and is now finished or cleared away", w)
	}
	var home *vault.HomeError
	switch {
	case errors.As(err, &home):
		// Many a session has no keychain; another one clears it away.
		l.warnOf("leftovers", "the leftovers of a command that was cut off can't be cleared away yet: ", home)
	case err != nil:
		l.fail("leftovers", err)
	}
	removed, err := l.s.Disk.Sweep()
	if err == nil {
		err = safefile.Sweep(filepath.Join(l.s.Config.Paths.Config, "applications.toml"))
	}
	if err != nil {
		l.fail("leftovers", err)
	}
	l.listing, l.listed = l.s.Vault.ListHomes(ctx), true
	ofGrants, _, err := l.s.Probes(ctx, l.listing)
	if err == nil && len(ofGrants) > 0 {
		var n int
		n, err = l.s.Vault.DropProbes(ctx, ofGrants)
		removed += n
	}
	if err != nil {
		l.fail("leftovers", err)
	}
	if removed > 0 {
		l.ok("leftovers", "removed from %[2]s: %[1]s of commands that were cut off (unfinished files, probes, notes of locks)", counted(removed, "leftover"), l.s.Config.Paths.State)
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
