package keeper

import (
	"context"
	"errors"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// What becomes of the answer to a sign-in.

// keepUnread puts an answer aside that may have tokens which nobody can use, so that
// somebody can look into it. The sign-in came to nothing.
func (k *Keeper) keepUnread(ctx context.Context, j *grant.Journal, refusal error) error {
	j.Attempt++
	if err := k.Vault.Begin(ctx, j); err != nil {
		return errors.Join(refusal, err)
	}
	return k.named(ctx, j.ID, j.TokenVaultKey, refusal)
}

// putNew stores a new grant and returns with its lock held. An answer that is not
// sealed in its journal is tried again for a while.
func (k *Keeper) putNew(ctx context.Context, g grant.Grant, a ups.Answer, j *grant.Journal, sealed bool) (unlock func(), err error) {
	for waited := time.Duration(0); ; waited += placingPause {
		unlock, err := k.Vault.Lock(ctx, g.ID)
		if err == nil {
			if err = k.Vault.Put(ctx, g, 0); err == nil {
				return unlock, nil
			}
			unlock()
		}
		if sealed && !j.Elsewhere {
			return nil, err
		}
		most := placingNowhere
		if sealed {
			most = placingElsewhere
		}
		switch {
		case waited == 0:
			k.warn(ctx, g.ID, "The new tokens of %s can't be saved; trying again for %s: %s.", g.ID, most, clause(err))
		case waited >= most && sealed:
			return nil, &ElsewhereError{ID: g.ID, Path: j.Path, Err: err}
		case waited >= most:
			return nil, err
		}
		_ = k.Wait(ctx, placingPause)
		if err := k.keep(j)(a); err != nil {
			k.log(ctx, g.ID, "%v", err)
		} else {
			sealed = true
		}
	}
}

// amend changes what a journal says. That it can't must not cost the tokens that
// are about to be stored.
func (k *Keeper) amend(ctx context.Context, j grant.Journal) {
	if err := k.Vault.Amend(j); err != nil {
		k.warn(ctx, j.ID, "%v", err)
	}
}

// granted is the grant that an authorization made.
func granted(j grant.Journal, a ups.Answer, t ups.Tokens) grant.Grant {
	g := grant.Grant{Record: grant.Record{
		ID: j.ID, TokenVaultKey: j.TokenVaultKey, Generation: j.Generation,
		ClientID: j.ClientID, BaseURL: j.BaseURL,
		Vault: j.Vault, JournalRecipient: j.Recipient, NoRefreshToken: true,
	}}
	applyTokens(&g, a, t)
	return g
}
