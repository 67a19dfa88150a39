package vault

import (
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// Claim writes an attempt to disk, with room for the answer, before anything is sent. An
// attempt without recipient is the first of its Token Vault Key: it gets an identity of
// its own, which is put in the home once the journal that tells of it is on disk.
func (v *Vault) Claim(ctx context.Context, j *grant.Journal) error {
	if v.isStuck(j.Slot()) {
		return stuckError(j.Home)
	}
	if j.Replaces != "" && j.ReplacesIn == "" {
		replaced, err := v.store.Grant(ctx, j.Slot())
		if err != nil && !errors.Is(err, grant.ErrNoGrant) {
			return err
		}
		if replaced.TokenVaultKey == j.Replaces {
			j.ReplacesIn = replaced.Home
		}
	}
	if j.Recipient != "" {
		return v.store.Claim(ctx, j)
	}
	home, err := v.homes().Named(j.Home)
	if err != nil {
		return err
	}
	key, recipient, err := newJournalKey()
	if err != nil {
		return err
	}
	j.Recipient = recipient
	if err := v.store.Claim(ctx, j); err != nil {
		return err
	}
	if err := v.watch(j.Slot(), home.Put(ctx, JournalAccount(j.TokenVaultKey), 0, key)); err != nil {
		// A write that may still land has to be found again later.
		if !timedOut(err) {
			err = errors.Join(err, v.withdraw(ctx, *j))
		}
		return err
	}
	return Sync(ctx, home, JournalAccount(j.TokenVaultKey))
}

// withdraw takes an attempt back for which nothing was sent. Others under its Token Vault
// Key stay.
func (v *Vault) withdraw(ctx context.Context, j grant.Journal) error {
	alone, err := v.alone(ctx, j)
	switch {
	case err != nil:
		return err
	case alone:
		return v.store.Forget(ctx, j.Slot(), j.TokenVaultKey, false)
	}
	j.Unsent = true
	return v.store.Mark(ctx, &j)
}

// alone reports whether there is no other attempt under the Token Vault Key of one.
func (v *Vault) alone(ctx context.Context, j grant.Journal) (bool, error) {
	attempts, err := v.store.Attempts(ctx, j.Slot(), j.TokenVaultKey)
	return !slices.ContainsFunc(attempts, func(other grant.Journal) bool {
		return other.TokenVaultKey == j.TokenVaultKey && other.Nonce != j.Nonce && !other.Unsent
	}), err
}

// LastLook is what comes right before the first byte is sent: grant.ErrConflict where
// somebody has begun a later attempt, as where locks hold nobody off.
func (v *Vault) LastLook(ctx context.Context, j grant.Journal) error { return v.store.Check(ctx, j) }

// Mark notes what became of an attempt.
func (v *Vault) Mark(ctx context.Context, j *grant.Journal) error { return v.store.Mark(ctx, j) }

// Settle says that nothing of a grant's attempts up to its generation is news any more.
func (v *Vault) Settle(ctx context.Context, r grant.Record) error {
	return v.store.Settle(ctx, r.Slot(), r.TokenVaultKey, r.Generation)
}

// Forget removes the journals under a Token Vault Key of an earlier grant, which is gone.
// Those of a grant that has another name by now stay.
func (v *Vault) Forget(ctx context.Context, j grant.Journal) error {
	spoken, err := v.spokenOf(ctx)
	if err != nil {
		return nil //nolint:nilerr // they are in nobody's way: whoever can tell removes them
	}
	if id, ok := spoken.records[j.TokenVaultKey]; ok && id.Slot() != j.Slot() {
		return nil
	}
	return v.store.Forget(ctx, j.Slot(), j.TokenVaultKey, false)
}

// Attempts returns the attempts that lie beside a grant: those at its refreshes, the
// latest first, then those at authorizations, by the time of their latest; none of a
// grant whose removal has begun. A damaged journal is set aside. The caller holds the grant's lock.
func (v *Vault) Attempts(ctx context.Context, id grant.ID) ([]grant.Journal, error) {
	record, err := v.store.Grant(ctx, id.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) && !errors.As(err, new(*DamagedError)) {
		return nil, err
	}
	attempts, err := v.store.Attempts(ctx, id.Slot(), record.TokenVaultKey)
	if err != nil {
		return nil, err
	}
	if record.Removing {
		// What is being removed must not come back out of its journal.
		attempts = slices.DeleteFunc(attempts, func(j grant.Journal) bool { return j.TokenVaultKey == record.TokenVaultKey })
	}
	for i := range attempts {
		attempts[i].ID = id // what a journal says itself may be an older name
	}
	newest := map[string]grant.Journal{}
	for _, j := range attempts {
		if other, ok := newest[j.TokenVaultKey]; !ok || j.Later(other) > 0 {
			newest[j.TokenVaultKey] = j
		}
	}
	slices.SortStableFunc(attempts, func(a, b grant.Journal) int {
		switch {
		case a.TokenVaultKey == b.TokenVaultKey:
			return b.Later(a)
		case a.TokenVaultKey == record.TokenVaultKey:
			return -1
		case b.TokenVaultKey == record.TokenVaultKey:
			return 1
		case newest[a.TokenVaultKey].Purpose != newest[b.TokenVaultKey].Purpose:
			if newest[a.TokenVaultKey].Purpose == grant.Refreshing {
				return -1
			}
			return 1
		}
		return newest[b.TokenVaultKey].Time.Compare(newest[a.TokenVaultKey].Time)
	})
	return attempts, nil
}

// HomesOf names the homes that the records and journals of grants speak of, without
// opening any, as far as they can be read. The journals are listed once for all.
func (v *Vault) HomesOf(ctx context.Context, ids ...grant.ID) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var homes []string
	slots := make(map[string]bool, len(ids))
	for _, id := range ids {
		slots[id.Slot()] = true
		record, err := v.store.Grant(ctx, id.Slot())
		if err == nil {
			homes = append(homes, record.Home)
		} else if !errors.Is(err, grant.ErrNoGrant) && !errors.As(err, new(*DamagedError)) {
			return nil, err
		}
	}
	news, err := v.store.News(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, n := range news {
		if n.Err == nil && slots[n.Slot] {
			homes = append(homes, n.Journal.Home)
		}
	}
	return homes, nil
}

// UnfinishedLogins names the grants beside which traces of an authorization lie
// that nobody is at work on.
func (v *Vault) UnfinishedLogins(ctx context.Context) (found []grant.ID, err error) {
	news, err := v.store.News(ctx, "")
	for _, group := range grouped(news) {
		n := group[0] // one that was refreshed since has long made its grant
		if n.Err != nil || n.Journal.Purpose != grant.Authorizing || slices.Contains(found, n.Journal.ID) {
			continue
		}
		abandoned, lockErr := v.abandoned(ctx, n)
		err = errors.Join(err, lockErr)
		if abandoned {
			found = append(found, n.Journal.ID)
		}
	}
	return found, err
}

// Kept returns the answers of all grants that nobody could use. Their Path says where
// they lie. What can't be read is a problem.
func (v *Vault) Kept(ctx context.Context) (kept []grant.Journal, problems []error, err error) {
	news, err := v.store.News(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	for _, group := range grouped(news) {
		if err := group[0].Err; err != nil {
			problems = append(problems, err)
			continue
		}
		generation := int64(0)
		if r, err := v.store.Grant(ctx, group[0].Slot); err == nil {
			for i := range group {
				group[i].Journal.ID = r.ID
			}
			if r.TokenVaultKey == group[0].TokenVaultKey {
				generation = r.Generation
			}
		}
		_, unread := grant.Unsettled(journalsOf(group), generation)
		kept = append(kept, unread...)
	}
	return kept, problems, nil
}

// grouped puts the attempts under one Token Vault Key together, the latest first.
func grouped(news []News) (groups [][]News) {
	at := map[string]int{}
	for _, n := range news {
		if n.Err != nil {
			groups = append(groups, []News{n})
			continue
		}
		i, ok := at[n.Slot+n.TokenVaultKey]
		if !ok {
			i = len(groups)
			at[n.Slot+n.TokenVaultKey] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], n)
	}
	for _, group := range groups {
		slices.SortStableFunc(group, func(a, b News) int { return b.Journal.Later(a.Journal) })
	}
	return groups
}

func journalsOf(news []News) []grant.Journal {
	journals := make([]grant.Journal, len(news))
	for i, n := range news {
		journals[i] = n.Journal
	}
	return journals
}

// abandoned reports whether nobody is at work on an attempt that there is news of:
// whoever is holds the lock for as long as there is.
func (v *Vault) abandoned(ctx context.Context, n News) (bool, error) {
	name := n.Slot
	if n.Journal.Purpose == grant.Authorizing {
		name = loginLock(n.Journal.Company)
	}
	done, free, err := v.store.Look(ctx, name)
	if !free {
		return false, err
	}
	defer done()
	return v.store.Still(ctx, n)
}
