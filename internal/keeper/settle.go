package keeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
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
	return k.pendingOf(g, j, k.keptPath(ctx, g.ID, j.TokenVaultKey))
}

func (k *Keeper) pendingOf(g grant.Grant, j *grant.Journal, kept string) *PendingError {
	return &PendingError{ID: g.ID, Since: j.Time, Again: max(0, k.tooEarly(g, j)), What: outcome(j), Kept: kept}
}

// settle finishes what an earlier process left undone and returns the grant as
// it is then, with the refresh whose fate is still unknown, if there is one.
func (k *Keeper) settle(ctx context.Context, id grant.ID) (grant.Grant, *grant.Journal, error) {
	journals, err := k.Vault.Journals(id)
	if err != nil {
		return grant.Grant{}, nil, err
	}
	for _, j := range journals {
		if j.Purpose == grant.Authorizing {
			if err := k.settleLogin(ctx, j); err != nil {
				record, missing := k.Vault.Record(id)
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
	}
	g, err := k.Vault.Get(ctx, id)
	if errors.Is(err, grant.ErrNoSecrets) {
		g, err = k.rescue(ctx, id, journals, err)
	}
	if err != nil {
		return grant.Grant{}, nil, err
	}
	var pending *grant.Journal
	for _, j := range journals {
		if j.Purpose != grant.Refreshing {
			continue
		}
		var unknown *grant.Journal
		if g, unknown, err = k.settleRefresh(ctx, g, j); err != nil {
			return grant.Grant{}, nil, err
		}
		pending = cmp.Or(unknown, pending)
	}
	if pending != nil && pending.Generation <= g.Generation {
		pending = nil // a later answer was put in place
	}
	if pending != nil || g.Void {
		return k.readAgain(ctx, g, pending)
	}
	return g, pending, nil
}

// rescue makes a grant whose item is gone out of its record and the sealed
// answer of its last refresh; cause is the error where that can't be done.
func (k *Keeper) rescue(ctx context.Context, id grant.ID, journals []grant.Journal, cause error) (grant.Grant, error) {
	record, err := k.Vault.Record(id)
	if err != nil {
		return grant.Grant{}, cause
	}
	for _, j := range journals {
		if j.Purpose != grant.Refreshing || j.TokenVaultKey != record.TokenVaultKey || !j.Answered {
			continue
		}
		answer, err := k.openAnswer(ctx, j)
		if err != nil {
			continue
		}
		if tokens := answer.Tokens(); tokens.RefreshToken != "" {
			g := grant.Grant{Record: record}
			g.Generation = j.Generation - 1
			g = renewed(g, answer, tokens)
			return g, k.Vault.Put(ctx, g, 0)
		}
	}
	return grant.Grant{}, cause
}

// settleRefresh finishes one refresh that was cut off.
func (k *Keeper) settleRefresh(ctx context.Context, g grant.Grant, j grant.Journal) (grant.Grant, *grant.Journal, error) {
	if j.TokenVaultKey != g.TokenVaultKey {
		// It belongs to an earlier grant of the company, which is gone.
		return g, nil, k.Vault.DropJournal(j)
	}
	if g.Generation >= j.Generation {
		// The item was written, perhaps the record was not.
		if err := k.Vault.Note(g.Record); err != nil {
			return g, nil, err
		}
		k.log(ctx, g.ID, "finished an earlier refresh of %s", g.ID)
		return g, nil, k.Vault.DropJournal(j)
	}
	if !j.Answered {
		return k.stillUnknown(ctx, g, j)
	}
	answer, err := k.openAnswer(ctx, j)
	if errors.Is(err, grant.ErrNoAnswer) {
		j.Outcome = "the answer arrived, but was not saved to disk completely"
		return k.stillUnknown(ctx, g, j)
	}
	if err != nil {
		return g, nil, err
	}
	tokens := answer.Tokens()
	if !usable(tokens) {
		j.Outcome = ups.NoTokens(answer, g.RefreshToken).Error()
		return k.stillUnknown(ctx, g, j)
	}
	k.log(ctx, g.ID, "putting the answer of an earlier refresh of %s in place", g.ID)
	stored, pending, err := k.store(ctx, g, answer, tokens, j)
	if err != nil && j.Elsewhere {
		err = &ElsewhereError{ID: g.ID, Path: j.Path, Err: err}
	}
	return stored, pending, err
}

// stillUnknown leaves a refresh pending. Where the clock was set back since it
// was sent, the wait for the next attempt begins anew.
func (k *Keeper) stillUnknown(ctx context.Context, g grant.Grant, j grant.Journal) (grant.Grant, *grant.Journal, error) {
	if now := k.Now(); now.Before(j.Time) {
		j.Time = now.UTC()
		if err := k.Vault.Begin(ctx, &j); err != nil {
			return g, nil, err
		}
	}
	return g, &j, nil
}

// openAnswer reads the sealed answer of a journal; grant.ErrNoAnswer where what
// was sealed is not whole.
func (k *Keeper) openAnswer(ctx context.Context, j grant.Journal) (ups.Answer, error) {
	plain, err := k.Vault.Answer(ctx, j)
	if err != nil {
		return ups.Answer{}, err
	}
	var answer ups.Answer
	if err := json.Unmarshal(plain, &answer); err != nil {
		return ups.Answer{}, grant.ErrNoAnswer
	}
	return answer, nil
}
