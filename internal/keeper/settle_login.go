package keeper

import (
	"cmp"
	"context"
	"errors"

	"github.com/upsauth/upsauth/internal/grant"
)

// SettleLogins finishes or clears away what cut-off authorizations of a company
// left.
func (k *Keeper) SettleLogins(ctx context.Context, id grant.ID) error {
	unlock, err := k.Vault.LockLogin(id.Company)
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
	journals, err := k.Vault.Journals(id)
	if err != nil {
		return err
	}
	for _, j := range journals {
		if j.Purpose != grant.Authorizing {
			continue
		}
		if err := k.finishLogin(ctx, j, expect); err != nil {
			if !errors.Is(err, grant.ErrNoSecrets) && j.Home == home {
				return err
			}
			k.warn(ctx, id, "an earlier authorization of %s can't be finished here: %v", id, err)
		}
	}
	return nil
}

// settleLogin finishes an authorization that was cut off after UPS answered,
// unless somebody is at work on it. The grant's lock is held.
func (k *Keeper) settleLogin(ctx context.Context, j grant.Journal) error {
	if !j.Answered {
		return nil
	}
	unlock, err := k.Vault.LockLogin(j.Company)
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
	record, err := k.Vault.Record(j.ID)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	switch {
	case record.TokenVaultKey == j.TokenVaultKey:
		return k.Vault.DropJournal(j)
	case record.TokenVaultKey == j.Replaces:
	case record.TokenVaultKey == "" && k.Vault.SetAside(j.ID):
		// Its record is gone because it was damaged, not because of a revoke.
	default:
		k.abandon(ctx, j)
		return nil
	}
	g, err := k.announced(ctx, j)
	if errors.Is(err, grant.ErrNoAnswer) {
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
	if err := k.Vault.Put(ctx, g, 0); err != nil {
		return err
	}
	k.happened(ctx, g.ID, grant.EventAuthorized, g.User, "finished after it was cut off")
	return k.Vault.DropJournal(j)
}

// announced is the grant that a cut-off authorization was about to put in
// place: out of the sealed answer, or where that could not be sealed out of the
// item. grant.ErrNoAnswer says that there is certainly none.
func (k *Keeper) announced(ctx context.Context, j grant.Journal) (grant.Grant, error) {
	if j.Answered {
		answer, err := k.openAnswer(ctx, j)
		if err == nil {
			if tokens := answer.Tokens(); usable(tokens) {
				return granted(j, answer, tokens), nil
			}
		} else if !errors.Is(err, grant.ErrNoAnswer) {
			return grant.Grant{}, err
		}
	}
	g, err := k.Vault.Announced(ctx, j)
	if errors.Is(err, grant.ErrNoSecrets) {
		return grant.Grant{}, grant.ErrNoAnswer
	}
	return g, err
}
