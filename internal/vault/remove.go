package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Delete removes a grant for good: a tombstone in the record, then journals,
// items and the record. One that was cut off is finished by the next call.
// grant.ErrNoGrant where there is nothing to remove. The caller holds the lock.
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
	if !record.Removing {
		// A home that can't be opened is told before anything is changed.
		if home, err := v.homes.named(record.Vault); err != nil {
			return err
		} else if err := home.CanDelete(ctx, record.TokenVaultKey); err != nil {
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
	all := append(slices.Clone(record.Superseded), record.Place())
	for _, key := range all {
		if err := v.dropJournals(id, key.TokenVaultKey); err != nil {
			return err
		}
		if err := v.watch(slot, v.dropItems(ctx, key.Vault, key.TokenVaultKey)); err != nil {
			return err
		}
	}
	if err := v.dropDamaged(slot); err != nil {
		return err
	}
	return safefile.Remove(v.recordPath(slot))
}

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
// home has under its Token Vault Key, unless the grant stands under it.
func (v *Vault) Abandon(ctx context.Context, j grant.Journal) error {
	if v.isStuck(j.Slot()) {
		return stuckError(j.Vault)
	}
	record, err := v.readRecord(j.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if record.TokenVaultKey == j.TokenVaultKey {
		return v.Settle(j)
	}
	if err := v.watch(j.Slot(), v.dropItems(ctx, j.Vault, j.TokenVaultKey)); err != nil {
		return err
	}
	return v.Settle(j)
}

// FinishRemovals finishes the removals that were cut off, of grants and of what
// they left behind elsewhere, as far as their homes can be opened, and returns
// the grants that it removed. Grants that somebody is at work on are passed
// over.
func (v *Vault) FinishRemovals(ctx context.Context) (removed []grant.ID, err error) {
	entries, err := os.ReadDir(filepath.Join(v.dir, "records"))
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("the records can't be read: %w", err)
	}
	var problems error
	closed := map[string]bool{} // homes that can't be opened, asked once each
	for _, entry := range entries {
		slot, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok || strings.HasPrefix(slot, ".") {
			continue
		}
		record, err := v.readRecord(slot)
		home, toDo := unfinished(record)
		if err != nil || !toDo || closed[home] || v.busy(slot) {
			continue
		}
		unlock, err := v.Lock(ctx, record.ID)
		if err != nil {
			return removed, errors.Join(problems, err)
		}
		err = v.finishRemoval(ctx, slot)
		unlock()
		switch {
		case errors.Is(err, grant.ErrNoGrant):
		case err != nil:
			closed[home] = true
			problems = errors.Join(problems, err)
		case record.Removing:
			removed = append(removed, record.ID)
		}
	}
	return removed, problems
}

// unfinished reports whether something is to be removed yet, and from which
// home first.
func unfinished(r grant.Record) (home string, toDo bool) {
	if len(r.Superseded) > 0 {
		return r.Superseded[0].Vault, true
	}
	return r.Vault, r.Removing
}

func (v *Vault) finishRemoval(ctx context.Context, slot string) error {
	record, err := v.readRecord(slot)
	if err != nil {
		return err
	}
	if record.Removing {
		return v.Delete(ctx, record.ID)
	}
	_, err = v.dropSuperseded(ctx, record)
	return err
}

// dropSuperseded removes what a grant left in other places, and returns its
// record as it is then. What can't be removed now stays in the record for the
// next time.
func (v *Vault) dropSuperseded(ctx context.Context, r grant.Record) (grant.Record, error) {
	before := len(r.Superseded)
	var problem error
	for len(r.Superseded) > 0 && problem == nil {
		old := r.Superseded[0]
		if old != r.Place() {
			problem = v.watch(r.Slot(), v.dropItems(ctx, old.Vault, old.TokenVaultKey))
		}
		if old.TokenVaultKey != r.TokenVaultKey && problem == nil {
			problem = v.dropJournals(r.ID, old.TokenVaultKey)
		}
		if problem == nil {
			r.Superseded = r.Superseded[1:]
		}
	}
	if len(r.Superseded) == before {
		return r, problem
	}
	return r, errors.Join(problem, v.writeRecord(r))
}

// dropItems removes all that a home has under a Token Vault Key, the grant's
// own item last, so that what is left of a cut-off removal can still be found.
func (v *Vault) dropItems(ctx context.Context, homeName, tokenVaultKey string) error {
	home, err := v.homes.named(homeName)
	if err != nil {
		return err
	}
	for _, account := range []string{probeAccount(tokenVaultKey), journalAccount(tokenVaultKey), tokenVaultKey} {
		if err := home.Delete(ctx, account); err != nil {
			return err
		}
	}
	return nil
}
