package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
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
	record, err := v.store.Grant(ctx, slot)
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
		if home, err := v.homes().Named(record.Home); err != nil {
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
		if record, err = v.store.Commit(ctx, Change{Record: record}); err != nil {
			return err
		}
	}
	if _, err := v.dropAbandoned(ctx, id, grant.Authorizing, grant.Refreshing); err != nil {
		return err
	}
	if err := v.dropReplaced(ctx, record); err != nil {
		return err
	}
	// The journal is gone for good before anything else goes: it could bring the grant
	// back.
	if err := v.store.Forget(ctx, slot, record.TokenVaultKey, true); err != nil {
		return err
	}
	if err := v.dropItems(ctx, slot, record.Place(), false); err != nil {
		return err
	}
	if home, err := v.homes().Named(record.Home); err == nil {
		if err := Sync(ctx, home, record.TokenVaultKey); err != nil {
			return err
		}
	}
	left, err := v.dropSuperseded(ctx, record)
	if len(left.Superseded) > 0 {
		return &LeftError{ID: id, Err: err}
	}
	if err != nil {
		return err
	}
	if err := v.store.Drop(ctx, left); err != nil || !nothing {
		return err
	}
	return &NothingThereError{ID: id, Home: record.Home}
}

// dropReplaced removes what the authorization that made a grant took the place of, as far
// as that was cut off.
func (v *Vault) dropReplaced(ctx context.Context, r grant.Record) error {
	attempts, err := v.store.Attempts(ctx, r.Slot(), r.TokenVaultKey)
	if err != nil {
		return err
	}
	for _, j := range attempts {
		if j.TokenVaultKey != r.TokenVaultKey || j.Replaces == "" || j.ReplacesIn == "" {
			continue
		}
		old := grant.Place{TokenVaultKey: j.Replaces, Home: j.ReplacesIn}
		if v.standsElsewhere(ctx, r, old) {
			continue
		}
		if _, err := v.dropPlaces(ctx, r, []grant.Place{old}); err != nil && !isHomeError(err) {
			return err
		}
		if home, err := v.homes().Named(old.Home); err == nil {
			if err := Sync(ctx, home, old.TokenVaultKey); err != nil {
				return err
			}
		}
	}
	return nil
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

// Where says where the secrets may be yet.
func (e *NothingThereError) Where() string {
	if e.Home == "keychain" {
		return "in another session's keychain, or in a keyring that is not available now"
	}
	return "in another copy of the vault's directory"
}

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
	attempts, err := v.Attempts(ctx, id)
	if err != nil {
		return false, err
	}
	record, err := v.store.Grant(ctx, id.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return false, err
	}
	for _, j := range attempts {
		if j.TokenVaultKey == record.TokenVaultKey || !slices.Contains(purposes, j.Purpose) {
			continue
		}
		if j.Purpose == grant.Authorizing && v.busy(ctx, loginLock(id.Company)) {
			continue
		}
		found = true
		if err := v.dropItems(ctx, id.Slot(), grant.Place{TokenVaultKey: j.TokenVaultKey, Home: j.Home}, false); err != nil {
			return found, err
		}
		if err := v.store.Forget(ctx, id.Slot(), j.TokenVaultKey, true); err != nil {
			return found, err
		}
	}
	return found, nil
}

// Abandon ends an authorization that came to nothing, and removes what its home has
// under its Token Vault Key, unless the grant stands under it. An answer that nobody
// could use stays, with the key that opens it.
func (v *Vault) Abandon(ctx context.Context, j grant.Journal) error {
	slot := j.Slot()
	if v.isStuck(slot) {
		return stuckError(j.Home)
	}
	record, err := v.store.Grant(ctx, slot)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if record.TokenVaultKey == j.TokenVaultKey {
		return v.Settle(ctx, record)
	}
	kept, err := v.keeps(ctx, slot, j.TokenVaultKey)
	if err != nil {
		return err
	}
	if err := v.dropItems(ctx, slot, grant.Place{TokenVaultKey: j.TokenVaultKey, Home: j.Home}, kept); err != nil {
		return err
	}
	if kept {
		j.Over = true
		return v.store.Mark(ctx, &j)
	}
	return v.store.Forget(ctx, slot, j.TokenVaultKey, false)
}

// keeps reports whether there is an answer under a Token Vault Key that nobody could use.
func (v *Vault) keeps(ctx context.Context, slot, tokenVaultKey string) (bool, error) {
	attempts, err := v.store.Attempts(ctx, slot, tokenVaultKey)
	if err != nil {
		return false, err
	}
	attempts = slices.DeleteFunc(attempts, func(j grant.Journal) bool { return j.TokenVaultKey != tokenVaultKey })
	slices.SortStableFunc(attempts, func(a, b grant.Journal) int { return b.Later(a) })
	_, kept := grant.Unsettled(attempts, grant.Reached(attempts))
	return len(kept) > 0, nil
}

// FinishRemovals finishes the removals that were cut off, of grants and of what
// they left behind elsewhere, as far as their homes can be opened, and returns
// the grants that it removed. Records that a rename left with two names get one.
// Grants that somebody is at work on are skipped.
func (v *Vault) FinishRemovals(ctx context.Context) (removed []grant.ID, err error) {
	records, _, err := v.store.Grants(ctx, "")
	if err != nil {
		return nil, err
	}
	return v.FinishRemovalsOf(ctx, records)
}

// FinishRemovalsOf is FinishRemovals for records that were read before.
func (v *Vault) FinishRemovalsOf(ctx context.Context, records []grant.Record) (removed []grant.ID, err error) {
	var problems error
	closed := map[string]bool{} // homes that can't be opened, asked once each
	for _, r := range records {
		if !unfinished(r, closed) {
			continue
		}
		slot := r.Slot()
		record, err := v.store.Grant(ctx, slot) // as it is by now
		if err != nil || !unfinished(record, closed) || v.busy(ctx, slot) {
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
	record, err := v.store.Grant(ctx, slot)
	if err != nil {
		return nil, err
	}
	if !record.Removing {
		if record.Was != "" {
			if record, err = v.store.FinishRename(ctx, record); err != nil {
				return nil, err
			}
		}
		record, err = v.dropSuperseded(ctx, record)
		return record.Superseded, err
	}
	err = v.Delete(ctx, record.ID)
	if errors.Is(err, grant.ErrNothingThere) {
		return nil, nil
	}
	if errors.As(err, new(*LeftError)) {
		if record, readErr := v.store.Grant(ctx, slot); readErr == nil {
			return record.Superseded, err
		}
	}
	return []grant.Place{record.Place()}, err
}

// dropSuperseded removes what a grant left in other places, and returns its
// record as it is then, with what went wrong. What can't be removed now stays in
// the record for the next time.
func (v *Vault) dropSuperseded(ctx context.Context, r grant.Record) (grant.Record, error) {
	stay, problems := v.dropPlaces(ctx, r, r.Superseded)
	if len(stay) == len(r.Superseded) {
		return r, problems
	}
	r.Superseded = stay
	r, err := v.store.Commit(ctx, Change{Record: r})
	return r, errors.Join(problems, err)
}

// dropPlaces removes what a grant left in other places, and returns those that stay, with
// what went wrong.
func (v *Vault) dropPlaces(ctx context.Context, r grant.Record, places []grant.Place) (stay []grant.Place, problems error) {
	for _, old := range places {
		sameKey := old.TokenVaultKey == r.TokenVaultKey
		kept, err := false, error(nil)
		if !sameKey {
			kept, err = v.keeps(ctx, r.Slot(), old.TokenVaultKey)
		}
		if err == nil && old != r.Place() {
			err = v.dropItems(ctx, r.Slot(), old, kept)
		}
		if err == nil && !sameKey && !kept {
			err = v.store.Forget(ctx, r.Slot(), old.TokenVaultKey, false)
		}
		if err != nil {
			stay = append(stay, old)
			problems = errors.Join(problems, err)
		}
	}
	return stay, problems
}

// dropItems removes all that a home has under a Token Vault Key, the grant's
// own item last, so that what is left of a cut-off removal can still be found.
// With keepJournalKey the key of its journals stays, for an answer that is kept.
func (v *Vault) dropItems(ctx context.Context, slot string, place grant.Place, keepJournalKey bool) error {
	home, err := v.homes().Named(place.Home)
	if err != nil {
		return err
	}
	key := place.TokenVaultKey
	for _, account := range []string{probeAccount(key), JournalAccount(key), key} {
		if keepJournalKey && account == JournalAccount(key) {
			continue
		}
		if err := v.watch(slot, home.Delete(ctx, account)); err != nil {
			return err
		}
	}
	return nil
}
