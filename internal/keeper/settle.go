package keeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// Settle finishes interrupted work on a grant without sending anything, and returns
// the grant as it is then. A refresh with an unknown outcome can only be finished by
// sending the token again. Settle then returns a *PendingError beside the grant.
func (k *Keeper) Settle(ctx context.Context, id grant.ID) (grant.Grant, error) {
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return grant.Grant{}, err
	}
	defer unlock()
	ctx = vault.Latest(ctx) // what is put in place is compared with no copy
	g, pending, err := k.settle(ctx, id)
	if err == nil && pending != nil {
		err = k.pendingError(ctx, g, pending)
	}
	return g, err
}

// Pending returns what Settle would return about a refresh without an answer. It
// decides by the grant's record, its journal and the kept answers of all grants.
func (k *Keeper) Pending(r grant.Record, j grant.Journal, kept []grant.Journal) *PendingError {
	return k.pendingOf(grant.Grant{Record: r}, &j, latestKept(kept, j.TokenVaultKey))
}

func (k *Keeper) pendingError(ctx context.Context, g grant.Grant, j *grant.Journal) *PendingError {
	return k.pendingOf(g, j, k.keptPath(ctx, g.ID, j.TokenVaultKey, g.Generation))
}

func (k *Keeper) pendingOf(g grant.Grant, j *grant.Journal, kept string) *PendingError {
	return &PendingError{ID: g.ID, Since: j.Time, Again: max(0, k.tooEarly(g, j)), What: outcome(j), Kept: kept}
}

// settle finishes what an earlier process left undone and returns the grant as
// it is then, with the refresh whose fate is still unknown, if there is one.
func (k *Keeper) settle(ctx context.Context, id grant.ID) (g grant.Grant, pending *grant.Journal, err error) {
	for tries := 0; ; tries++ {
		g, pending, err = k.settleOnce(ctx, id)
		if !errors.Is(err, grant.ErrOvertaken) || tries == mostOvertaken {
			return g, pending, err
		}
	}
}

func (k *Keeper) settleOnce(ctx context.Context, id grant.ID) (grant.Grant, *grant.Journal, error) {
	journals, record, err := k.beside(ctx, id)
	if err != nil {
		return grant.Grant{}, nil, err
	}
	for _, j := range loginsIn(journals, record) {
		if err := k.settleLogin(ctx, j); err != nil {
			record, missing := k.Vault.Record(ctx, id)
			switch {
			case errors.Is(err, grant.ErrLoginBusy):
				// Whoever signs somebody in is about to finish it. Until then
				// the company has the grant that stands, or none.
			case missing != nil:
				return grant.Grant{}, nil, err
			case errors.Is(err, grant.ErrNoSecrets), j.Home != record.Home:
				// Its key may be in another keychain. The grant that
				// stands works all the same.
				k.warn(ctx, id, "a later authorization of %s can't be finished here: %v", id, err)
			default:
				return grant.Grant{}, nil, err
			}
		}
	}
	g, err := k.Vault.Get(ctx, id)
	if errors.Is(err, grant.ErrNoGrant) && !errors.Is(err, grant.ErrRemoving) {
		g, err = k.restoreRecord(ctx, id, journals, err)
	}
	if errors.Is(err, grant.ErrNoSecrets) || errors.Is(err, grant.ErrOlder) {
		g, err = k.rescue(ctx, id, journals, err)
	}
	if err != nil {
		return grant.Grant{}, nil, err
	}
	return k.settleRefreshes(ctx, g, journals)
}

// restoreRecord makes the record anew of a grant that has lost it, of its item or of the
// latest sealed answer: a removal takes the journals away before the record. Cause is the
// error where there is nothing to make it of.
func (k *Keeper) restoreRecord(ctx context.Context, id grant.ID, attempts []grant.Journal, cause error) (grant.Grant, error) {
	for _, j := range attempts {
		if j.Purpose != grant.Refreshing || j.Unsent {
			continue
		}
		g, err := k.Vault.Announced(ctx, j)
		if errors.Is(err, grant.ErrNoSecrets) && j.Answered {
			var answer ups.Answer
			var old *grant.Grant
			if answer, old, err = k.openAnswer(ctx, j); err == nil {
				if old == nil || !remakes(answer.Tokens(), j, attempts) {
					continue
				}
				g = renewed(*old, answer, answer.Tokens())
			}
		}
		if err != nil {
			continue
		}
		g.ID = id
		own := slices.DeleteFunc(slices.Clone(attempts), func(other grant.Journal) bool { return other.TokenVaultKey != g.TokenVaultKey })
		g.Void = grant.Ended(own, g.Generation)
		if err := k.Vault.Put(ctx, g, 0, nil); err != nil {
			return g, err
		}
		k.log(ctx, id, "the record of %s was lost, and was made again of its secrets", id)
		return k.Vault.Get(ctx, id)
	}
	return grant.Grant{}, cause
}

// CanRescue reports whether Settle makes the secrets of a grant again that are lost, or
// older than its record.
func (k *Keeper) CanRescue(ctx context.Context, id grant.ID) (bool, error) {
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return false, err
	}
	defer unlock()
	attempts, record, err := k.beside(ctx, id)
	if err != nil {
		return false, err
	}
	_, _, found := k.rescued(ctx, record, attempts)
	return found, nil
}

// rescue makes a grant whose item is gone, or is older than its record, out of the
// latest sealed answer; cause is the error where that can't be done.
func (k *Keeper) rescue(ctx context.Context, id grant.ID, attempts []grant.Journal, cause error) (grant.Grant, error) {
	record, err := k.Vault.Record(ctx, id)
	if err != nil {
		return grant.Grant{}, cause
	}
	g, j, found := k.rescued(ctx, record, attempts)
	if !found {
		return grant.Grant{}, cause
	}
	if err := k.Vault.Put(ctx, g, 0, &j); err != nil {
		return grant.Grant{}, err
	}
	k.log(ctx, id, "the secrets of %s were lost or older, and were made again of UPS's sealed answer", id)
	return k.Vault.Get(ctx, id)
}

// rescued is the grant that the latest sealed answer makes of a record without its item,
// and the attempt that has the answer.
func (k *Keeper) rescued(ctx context.Context, record grant.Record, attempts []grant.Journal) (g grant.Grant, from grant.Journal, found bool) {
	for _, j := range attempts {
		if j.TokenVaultKey != record.TokenVaultKey || !j.Answered || j.Unsent || j.Generation < record.Generation {
			continue
		}
		j.Home = record.Home // the key moves with the grant
		answer, old, err := k.openAnswer(ctx, j)
		if err != nil {
			continue
		}
		tokens := answer.Tokens()
		if !remakes(tokens, j, attempts) {
			continue
		}
		switch {
		case j.Purpose == grant.Authorizing:
			g = granted(j, answer, tokens)
		case old != nil:
			g = renewed(*old, answer, tokens)
		case tokens.RefreshToken == "":
			continue // nothing has the old one
		default:
			g = grant.Grant{Record: record}
			g.Generation = j.Generation - 1
			g = renewed(g, answer, tokens)
		}
		g.JournalRecipient = record.JournalRecipient
		g.LastError = k.oddity(g, tokens)
		if j.Generation == record.Generation {
			g.Void = record.Void
		}
		return g, j, true
	}
	return g, from, false
}

// remakes reports whether a grant can be made again of what an answer has. One that was cut
// off before its refresh token leaves the old one in doubt, which only a later attempt tells.
func remakes(t ups.Tokens, j grant.Journal, attempts []grant.Journal) bool {
	if !cutShort(t) {
		return usable(t)
	}
	return usable(t) && slices.ContainsFunc(attempts, func(other grant.Journal) bool {
		return other.TokenVaultKey == j.TokenVaultKey && other.Generation > j.Generation && !other.Unsent
	})
}

// settleRefreshes finishes refreshes that were cut off, the latest first: UPS takes the
// tokens of that one.
func (k *Keeper) settleRefreshes(ctx context.Context, g grant.Grant, attempts []grant.Journal) (grant.Grant, *grant.Journal, error) {
	var own []grant.Journal
	others := map[string][]grant.Journal{}
	for _, j := range attempts {
		switch {
		case j.Purpose != grant.Refreshing:
		case j.TokenVaultKey == g.TokenVaultKey:
			j.Home = g.Home // the key moves with the grant
			own = append(own, j)
		default:
			others[j.TokenVaultKey] = append(others[j.TokenVaultKey], j)
		}
	}
	for _, theirs := range others {
		// They belong to an earlier grant of the company, which is gone.
		if _, kept := grant.Unsettled(theirs, grant.Reached(theirs)); len(kept) > 0 {
			continue
		}
		if err := k.Vault.Forget(ctx, theirs[0]); err != nil {
			return g, nil, err
		}
	}
	record, err := k.Vault.Record(ctx, g.ID)
	if err != nil {
		return g, nil, err
	}
	if record.Generation < g.Generation {
		// The item was written, and the record was not.
		if err := k.Vault.Align(ctx, g); err != nil {
			return g, nil, err
		}
		k.log(ctx, g.ID, "finished an earlier refresh of %s", g.ID)
	}
	if err := k.finishReplacing(ctx, g, attempts); err != nil {
		return g, nil, err
	}
	open, _ := grant.Unsettled(own, g.Generation)
	var pending *grant.Journal
	for _, j := range open {
		if j.Answered {
			told := j.Outcome != ""
			stored, unknown, done, err := k.settleAnswer(ctx, g, &j)
			if err != nil {
				return stored, unknown, err
			}
			if !done && !told && j.Shared != nil {
				k.mark(ctx, &j) // else other hosts wait for it
			}
			if done {
				// One that was made with these tokens since is as open as before.
				if pending != nil && pending.Generation > stored.Generation {
					return k.stillUnknown(ctx, stored, *pending)
				}
				return stored, unknown, nil
			}
		}
		if pending == nil {
			pending = &j
		}
	}
	if pending == nil && !g.Void {
		return g, nil, k.Vault.Settle(ctx, g.Record)
	}
	g, pending, err = k.readAgain(ctx, g, own, pending)
	if err != nil || pending == nil {
		return g, nil, err
	}
	return k.stillUnknown(ctx, g, *pending)
}

// finishReplacing removes what the authorization that made a grant took the place of,
// where that was cut off or came back with a loss of power.
func (k *Keeper) finishReplacing(ctx context.Context, g grant.Grant, attempts []grant.Journal) error {
	for _, j := range attempts {
		if j.TokenVaultKey == g.TokenVaultKey && j.Purpose == grant.Authorizing && j.News && j.Replaces != "" {
			return k.Vault.FinishReplacing(ctx, j)
		}
	}
	return nil
}

// settleAnswer puts the answer of an attempt in place. Where that can't be used, the
// attempt says so, and done is false.
func (k *Keeper) settleAnswer(ctx context.Context, g grant.Grant, j *grant.Journal) (stored grant.Grant, pending *grant.Journal, done bool, err error) {
	answer, old, err := k.openAnswer(ctx, *j)
	if errors.Is(err, grant.ErrNoAnswer) {
		j.Outcome = "the answer arrived, but was not saved to disk completely"
		return g, nil, false, nil
	}
	if err != nil {
		return g, nil, false, err
	}
	tokens := answer.Tokens()
	if !usable(tokens) {
		j.Outcome = cmp.Or(j.Outcome, ups.NoTokens(answer, g.RefreshToken).Error())
		return g, nil, false, nil
	}
	if old == nil || old.Generation == g.Generation {
		old = &g
	}
	k.log(ctx, g.ID, "putting the answer of an earlier refresh of %s in place", g.ID)
	stored, pending, err = k.store(ctx, *old, answer, tokens, *j)
	if err != nil && j.Elsewhere {
		err = &ElsewhereError{ID: g.ID, Path: j.Path, Err: err}
	}
	return stored, pending, true, err
}

// stillUnknown leaves a refresh pending. Where the clock was set back since it
// was sent, the wait for the next attempt begins anew.
func (k *Keeper) stillUnknown(ctx context.Context, g grant.Grant, j grant.Journal) (grant.Grant, *grant.Journal, error) {
	if now := k.Now(); now.Before(j.Time) {
		j.Time = now.UTC()
		if err := k.Vault.Mark(ctx, &j); err != nil {
			return g, nil, err
		}
	}
	return g, &j, nil
}

// openAnswer reads the sealed answer of an attempt, with the grant that the token was
// sent of where the journal has it; grant.ErrNoAnswer where what was sealed is not whole.
func (k *Keeper) openAnswer(ctx context.Context, j grant.Journal) (ups.Answer, *grant.Grant, error) {
	opened, err := k.Vault.Answer(ctx, j)
	if err != nil {
		return ups.Answer{}, nil, err
	}
	var answer ups.Answer
	if err := json.Unmarshal(opened.Text, &answer); err != nil {
		return ups.Answer{}, nil, grant.ErrNoAnswer
	}
	return answer, opened.Old, nil
}
