package keeper

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// SettleLogins finishes or clears away what cut-off authorizations of a company
// left.
func (k *Keeper) SettleLogins(ctx context.Context, id grant.ID) error {
	unlock, err := k.Vault.LockLogin(ctx, id.Company)
	if err != nil {
		return err
	}
	defer unlock()
	return k.settleLogins(ctx, id, "", "")
}

// settleLogins finishes or clears away what cut-off authorizations left.
// What can't be finished because it is in another home than the one that is
// asked for, or its key is elsewhere, stays. Where a user is expected, that of
// anybody else is cleared away.
func (k *Keeper) settleLogins(ctx context.Context, id grant.ID, home, expect string) error {
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	journals, record, err := k.beside(ctx, id)
	if err != nil {
		return err
	}
	for _, j := range loginsIn(journals, record) {
		if err := k.finishLogin(ctx, j, expect); err != nil {
			if !errors.Is(err, grant.ErrNoSecrets) && j.Home == home {
				return err
			}
			k.warn(ctx, id, "an earlier authorization of %s can't be finished here: %v", id, err)
		}
	}
	for _, j := range journals {
		// The grant is about to be replaced, and with it goes what nobody needs.
		if j.Purpose == grant.Refreshing && j.TokenVaultKey == record.TokenVaultKey && j.Generation > record.Generation {
			j.Home = record.Home // the key moves with the grant
			k.judge(ctx, &j)
		}
	}
	return nil
}

// beside are the attempts that lie beside a grant, and its record, which is zero where
// there is none.
func (k *Keeper) beside(ctx context.Context, id grant.ID) ([]grant.Journal, grant.Record, error) {
	attempts, err := k.Vault.Attempts(ctx, id)
	if err != nil {
		return nil, grant.Record{}, err
	}
	record, err := k.Vault.Record(ctx, id)
	if errors.Is(err, grant.ErrNoGrant) {
		err = nil
	}
	return attempts, record, err
}

// loginsIn are the authorizations that nobody has finished: the latest try of each that
// was sent, or else the latest. One that was refreshed since has long made its grant.
func loginsIn(attempts []grant.Journal, record grant.Record) (logins []grant.Journal) {
	seen := map[string]bool{}
	unsent := func(j grant.Journal) int {
		if j.Unsent && j.Purpose == grant.Authorizing {
			return 1
		}
		return 0
	}
	attempts = slices.SortedStableFunc(slices.Values(attempts), func(a, b grant.Journal) int { return unsent(a) - unsent(b) })
	for _, j := range attempts {
		if seen[j.TokenVaultKey] {
			continue
		}
		seen[j.TokenVaultKey] = true
		if j.Purpose != grant.Authorizing {
			continue
		}
		if j.TokenVaultKey == record.TokenVaultKey && !j.News {
			continue // it made the grant that stands
		}
		if !j.Over {
			logins = append(logins, j)
		}
	}
	return logins
}

// settleLogin finishes an authorization that was cut off after UPS answered,
// unless somebody is at work on it. The grant's lock is held.
func (k *Keeper) settleLogin(ctx context.Context, j grant.Journal) error {
	if !j.Answered {
		return nil
	}
	unlock, err := k.Vault.LockLogin(ctx, j.Company)
	if err != nil {
		return err
	}
	defer unlock()
	return k.finishLogin(ctx, j, "")
}

// finishLogin puts the answer of a cut-off authorization in place, or clears
// away what it left. Both locks are held. Expect is the only user whose answer is
// wanted, empty for any.
func (k *Keeper) finishLogin(ctx context.Context, j grant.Journal, expect string) error {
	record, err := k.Vault.Record(ctx, j.ID)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	switch {
	case record.TokenVaultKey == j.TokenVaultKey:
		return k.Vault.FinishReplacing(ctx, j)
	case record.TokenVaultKey == j.Replaces:
	case errors.Is(err, grant.ErrSetAside):
		// Its record is gone because it was damaged, not because of a revoke.
	default:
		k.abandon(ctx, j)
		return nil
	}
	g, err := k.announced(ctx, j)
	if errors.Is(err, grant.ErrNoAnswer) {
		k.judge(ctx, &j)
		k.abandon(ctx, j)
		return nil
	}
	if err != nil {
		return err
	}
	wrong := func(expected string) bool { return expected != "" && !SameUser(expected, g.User) }
	if j.Unconfirmed || wrong(j.ExpectUser) || wrong(expect) || j.Asks && wrong(record.User) {
		k.warn(ctx, j.ID, "An authorization of %s was cut off before anybody confirmed that %s is the right ups.com user; it was removed.", j.ID, cmp.Or(g.User, "who signed in"))
		k.abandon(ctx, j)
		return nil
	}
	k.log(ctx, j.ID, "finishing an earlier authorization of %s", j.ID)
	err = k.Vault.Put(ctx, g, 0, &j)
	if errors.Is(err, grant.ErrNoGrant) {
		return nil // a revoke of it has begun, and will take it away
	}
	if err != nil {
		return err
	}
	k.happened(ctx, g.ID, grant.EventAuthorized, g.User, "finished after it was cut off")
	return nil
}

// judge notes of a sealed answer whether nobody can use it, where whoever got it did not
// come to that: then it is kept.
func (k *Keeper) judge(ctx context.Context, j *grant.Journal) {
	if !j.Answered || j.Unsent || j.Outcome != "" {
		return
	}
	answer, _, err := k.openAnswer(ctx, *j)
	if err != nil {
		return // nothing is to be kept, or it can't be said here
	}
	tokens := answer.Tokens()
	switch {
	case usable(tokens), j.Purpose == grant.Authorizing && !tokens.Unread:
		return
	case j.Purpose == grant.Authorizing:
		j.Over = true
	}
	j.Outcome = ups.NoTokens(answer).Error()
	k.mark(ctx, j)
}

// announced is the grant that a cut-off authorization was about to put in
// place: out of the sealed answer, or where that could not be sealed out of the
// item, or where that has newer tokens, as beside a journal out of a backup.
// grant.ErrNoAnswer says that there is certainly none.
func (k *Keeper) announced(ctx context.Context, j grant.Journal) (grant.Grant, error) {
	there, missing := k.Vault.Announced(ctx, j)
	if missing == nil && there.Generation > j.Generation {
		return there, nil
	}
	if j.Answered {
		answer, _, err := k.openAnswer(ctx, j)
		if err == nil {
			if tokens := answer.Tokens(); usable(tokens) {
				return granted(j, answer, tokens), nil
			}
		} else if !errors.Is(err, grant.ErrNoAnswer) {
			return grant.Grant{}, err
		}
	}
	if errors.Is(missing, grant.ErrNoSecrets) {
		return grant.Grant{}, grant.ErrNoAnswer
	}
	return there, missing
}
