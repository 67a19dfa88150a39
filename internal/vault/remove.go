package vault

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Delete removes a grant for good: a tombstone in the record, then journals,
// items and the record. One that was cut off is finished by the next call.
// grant.ErrNoGrant where there is nothing to remove; a *NothingThereError where
// there was a record, which is gone then, and no secrets. The caller holds the
// lock.
func (v *Vault) Delete(ctx context.Context, id grant.ID) error {
	slot := id.Slot()
	if v.isStuck(slot) {
		return stuckError("vault")
	}
	record, err := v.readRecord(slot)
	if errors.Is(err, grant.ErrNoGrant) {
		if found, err := v.dropAbandoned(ctx, id, grant.Authorizing, grant.Refreshing); err != nil || found {
			return err
		}
		return grant.ErrNoGrant
	}
	if err != nil {
		return err
	}
	nothing := false
	if !record.Removing {
		// Where the grant's own home can't be opened nothing is changed.
		if home, err := v.homes.named(record.Home); err != nil {
			return err
		} else if err := home.CanDelete(ctx, record.TokenVaultKey); errors.Is(err, ErrNoItem) {
			nothing = true
		} else if err != nil {
			return err
		}
		// Behind the tombstone, an authorization that can still be finished
		// would bring the company back to life.
		if _, err := v.dropAbandoned(ctx, id, grant.Authorizing); err != nil {
			return err
		}
		record.Removing = true
		if err := v.writeRecord(record); err != nil {
			return err
		}
	}
	if _, err := v.dropAbandoned(ctx, id, grant.Authorizing, grant.Refreshing); err != nil {
		return err
	}
	if err := v.dropAllKept(ctx, id); err != nil {
		return err
	}
	if err := safefile.Remove(v.journalPath(id, record.TokenVaultKey)); err != nil {
		return err
	}
	if err := v.watch(slot, v.dropItems(ctx, record.Home, record.TokenVaultKey, false)); err != nil {
		return err
	}
	left, err := v.dropSuperseded(ctx, record)
	if len(left.Superseded) > 0 {
		return &LeftError{ID: id, Err: err}
	}
	if err != nil {
		return err
	}
	if err := v.dropDamaged(slot); err != nil {
		return err
	}
	if err := safefile.Remove(v.recordPath(slot)); err != nil || !nothing {
		return err
	}
	return &NothingThereError{ID: id, Home: record.Home}
}

// NothingThereError says that a grant is removed, and that its home had no
// secrets of it. They may be in another one, such as another session's keychain.
type NothingThereError struct {
	ID   grant.ID
	Home string
}

func (e *NothingThereError) Error() string {
	return fmt.Sprintf("the record of %s is removed; its tokens were not in the %s, so none were removed", e.ID, Describe(e.Home))
}

func (e *NothingThereError) Unwrap() error { return grant.ErrNothingThere }

// LeftError says that a grant is removed, and that another home which had
// secrets of it earlier does not let them go. The tombstone stays, and the next
// removal tries again.
type LeftError struct {
	ID  grant.ID
	Err error
}

func (e *LeftError) Error() string {
	return fmt.Sprintf("the authorization of %s is removed, but its older secrets in another vault are not: %v", e.ID, e.Err)
}

func (e *LeftError) Unwrap() []error { return []error{e.Err, grant.ErrLeft} }

// dropAbandoned removes what cut-off exchanges of those purposes left behind. The
// caller holds the grant's lock, so nobody is at work on a refresh.
func (v *Vault) dropAbandoned(ctx context.Context, id grant.ID, purposes ...grant.Purpose) (found bool, err error) {
	journals, err := v.Journals(id)
	if err != nil {
		return false, err
	}
	for _, j := range journals {
		if !slices.Contains(purposes, j.Purpose) {
			continue
		}
		if j.Purpose == grant.Authorizing && v.busy(loginLock(id.Company)) {
			continue
		}
		found = true
		if err := v.Abandon(ctx, j); err != nil {
			return found, err
		}
	}
	return found, nil
}

// Abandon removes a journal of an exchange that came to nothing, and what its
// home has under its Token Vault Key, unless the grant stands under it. The key of an
// answer that is kept stays.
func (v *Vault) Abandon(ctx context.Context, j grant.Journal) error {
	if v.isStuck(j.Slot()) {
		return stuckError(j.Home)
	}
	record, err := v.readRecord(j.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if record.TokenVaultKey == j.TokenVaultKey {
		return v.DropJournal(j)
	}
	kept, err := v.hasKept(j.ID, j.TokenVaultKey)
	if err != nil {
		return err
	}
	if err := v.watch(j.Slot(), v.dropItems(ctx, j.Home, j.TokenVaultKey, kept)); err != nil {
		return err
	}
	return v.DropJournal(j)
}

// FinishRemovals finishes the removals that were cut off, of grants and of what
// they left behind elsewhere, as far as their homes can be opened, and returns
// the grants that it removed. Records that a rename left with two names get one,
// and what cut-off writes left of records and journals goes. Grants that somebody
// is at work on are skipped.
func (v *Vault) FinishRemovals(ctx context.Context) (removed []grant.ID, err error) {
	slots, err := v.recordNames()
	if err != nil {
		return nil, err
	}
	records, errs := v.readRecords(slots)
	var whole []grant.Record
	for i, record := range records {
		if errs[i] == nil {
			whole = append(whole, record)
		}
	}
	return v.FinishRemovalsOf(ctx, whole)
}

// FinishRemovalsOf is FinishRemovals for records that were read before.
func (v *Vault) FinishRemovalsOf(ctx context.Context, records []grant.Record) (removed []grant.ID, err error) {
	var problems error
	for _, part := range []string{"records", "journals"} {
		if _, err := safefile.SweepDir(filepath.Join(v.dir, part)); err != nil {
			problems = errors.Join(problems, err)
		}
	}
	closed := map[string]bool{} // homes that can't be opened, asked once each
	for _, r := range records {
		if !unfinished(r, closed) {
			continue
		}
		slot := r.Slot()
		record, err := v.readRecord(slot) // as it is by now
		if err != nil || !unfinished(record, closed) || v.busy(slot) {
			continue
		}
		unlock, err := v.Lock(ctx, record.ID)
		if err != nil {
			return removed, errors.Join(problems, err)
		}
		left, err := v.finishRemoval(ctx, slot)
		unlock()
		switch {
		case errors.Is(err, grant.ErrNoGrant):
		case err != nil:
			for _, place := range left {
				closed[place.Home] = true
			}
			problems = errors.Join(problems, err)
		case record.Removing:
			removed = append(removed, record.ID)
		}
	}
	return removed, problems
}

// unfinished reports whether something is to be removed yet, from a home that
// is not known to be closed.
func unfinished(r grant.Record, closed map[string]bool) bool {
	if r.Was != "" && !r.Removing {
		return true
	}
	if r.Removing && len(r.Superseded) == 0 {
		return !closed[r.Home]
	}
	return slices.ContainsFunc(r.Superseded, func(p grant.Place) bool { return !closed[p.Home] })
}

// finishRemoval returns the places that are left where it fails.
func (v *Vault) finishRemoval(ctx context.Context, slot string) (left []grant.Place, err error) {
	record, err := v.readRecord(slot)
	if err != nil {
		return nil, err
	}
	if !record.Removing {
		if record.Was != "" {
			if err := v.finishRename(record); err != nil {
				return nil, err
			}
			record.Was = ""
		}
		record, err = v.dropSuperseded(ctx, record)
		return record.Superseded, err
	}
	err = v.Delete(ctx, record.ID)
	if errors.Is(err, grant.ErrNothingThere) {
		return nil, nil
	}
	if errors.As(err, new(*LeftError)) {
		if record, readErr := v.readRecord(slot); readErr == nil {
			return record.Superseded, err
		}
	}
	return []grant.Place{record.Place()}, err
}

// dropSuperseded removes what a grant left in other places, and returns its
// record as it is then, with what went wrong. What can't be removed now stays in
// the record for the next time.
func (v *Vault) dropSuperseded(ctx context.Context, r grant.Record) (grant.Record, error) {
	var stay []grant.Place
	var problems error
	for _, old := range r.Superseded {
		kept, err := v.hasKept(r.ID, old.TokenVaultKey)
		if err == nil && old != r.Place() {
			err = v.watch(r.Slot(), v.dropItems(ctx, old.Home, old.TokenVaultKey, kept && old.TokenVaultKey != r.TokenVaultKey))
		}
		if err == nil && old.TokenVaultKey != r.TokenVaultKey {
			err = errors.Join(v.dropElsewhereOf(r.ID, old.TokenVaultKey), safefile.Remove(v.journalPath(r.ID, old.TokenVaultKey)))
		}
		if err != nil {
			stay = append(stay, old)
			problems = errors.Join(problems, err)
		}
	}
	if len(stay) == len(r.Superseded) {
		return r, problems
	}
	r.Superseded = stay
	return r, errors.Join(problems, v.writeRecord(r))
}

// dropItems removes all that a home has under a Token Vault Key, the grant's
// own item last, so that what is left of a cut-off removal can still be found.
// With keepJournalKey the key of its journals stays, for an answer that is kept.
func (v *Vault) dropItems(ctx context.Context, homeName, tokenVaultKey string, keepJournalKey bool) error {
	home, err := v.homes.named(homeName)
	if err != nil {
		return err
	}
	for _, account := range []string{probeAccount(tokenVaultKey), journalAccount(tokenVaultKey), tokenVaultKey} {
		if keepJournalKey && account == journalAccount(tokenVaultKey) {
			continue
		}
		if err := home.Delete(ctx, account); err != nil {
			return err
		}
	}
	return nil
}
