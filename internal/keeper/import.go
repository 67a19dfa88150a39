package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// OtherGrantError says that a grant was not imported, because another grant stands
// in its place.
type OtherGrantError struct {
	Here string // what stands in its place
}

func (e *OtherGrantError) Error() string {
	return "it was not imported: " + e.Here
}

// Import stores an exported grant in the home that the grant names, or else in the
// home of the grant that is here. Import returns the home that has the grant then.
// The home is empty if nothing was done, because the same or a later generation is
// here. Import never replaces that generation, nor another grant; another grant is
// an *OtherGrantError. Pending is a refresh of the grant whose outcome is unknown at
// the grant's origin: here its outcome is unknown too.
func (k *Keeper) Import(ctx context.Context, g grant.Grant, pending ...grant.Journal) (home string, err error) {
	defer func() {
		if err == nil && home != "" {
			k.happened(ctx, g.ID, grant.EventImported, "", "")
		}
	}()
	unlockLogin, err := k.Vault.LockLogin(ctx, g.Company)
	if err != nil {
		return "", err
	}
	defer unlockLogin()
	unlock, err := k.Vault.Lock(ctx, g.ID)
	if err != nil {
		return "", err
	}
	defer unlock()
	journals, record, err := k.beside(ctx, g.ID)
	if err != nil {
		return "", err
	}
	for _, j := range loginsIn(journals, record) {
		if err := k.finishLogin(ctx, j, ""); err != nil {
			if j.Answered {
				// It may be newer than what is imported, and would be overtaken.
				return "", err
			}
			k.warn(ctx, g.ID, "an earlier authorization of %s can't be finished here: %v", g.ID, err)
		}
	}
	record, err = k.Vault.Record(ctx, g.ID)
	switch {
	case errors.Is(err, grant.ErrNoGrant):
		return g.Home, k.Vault.Import(ctx, g, k.Now(), pendingOf(g, pending))
	case err != nil:
		return "", err
	case record.TokenVaultKey != g.TokenVaultKey:
		return "", &OtherGrantError{Here: "it has another authorization here, with the Token Vault Key " + record.TokenVaultKey}
	}
	g.Home = record.Home
	here, _, err := k.settle(ctx, g.ID)
	switch {
	case errors.Is(err, grant.ErrNoSecrets):
		return g.Home, k.restore(ctx, g, record, pendingOf(g, pending))
	case err != nil:
		return "", err
	case here.Generation >= g.Generation:
		return "", nil
	}
	g.JournalRecipient = here.JournalRecipient
	if j := pendingOf(g, pending); j != nil {
		// The journal first: without it, a retry would be taken for a first attempt.
		j.ID, j.Purpose, j.ClientID, j.BaseURL = g.ID, grant.Refreshing, g.ClientID, g.BaseURL
		j.Home, j.Recipient = g.Home, g.JournalRecipient
		if err := k.Vault.Claim(ctx, j); err != nil {
			return "", err
		}
	}
	return g.Home, k.Vault.Put(ctx, g, here.Generation, nil)
}

// pendingOf is the refresh of a grant whose fate is unknown, nil for none or where
// the grant has what that would have made.
func pendingOf(g grant.Grant, pending []grant.Journal) *grant.Journal {
	for _, j := range pending {
		if j.TokenVaultKey == g.TokenVaultKey && j.Generation > g.Generation {
			return &j
		}
	}
	return nil
}

// restore puts back the secrets of a grant that has only its record left. Older
// ones are spent.
func (k *Keeper) restore(ctx context.Context, g grant.Grant, record grant.Record, pending *grant.Journal) error {
	if g.Generation < record.Generation {
		return &OtherGrantError{Here: fmt.Sprintf("its refresh token is spent: it is of generation %d, and the record here is of generation %d", g.Generation, record.Generation)}
	}
	if g.Generation == record.Generation {
		g.Void, g.LastError = record.Void, record.LastError
	}
	attempts, err := k.Vault.Attempts(ctx, g.ID)
	if err != nil {
		return err
	}
	own := slices.DeleteFunc(attempts, func(j grant.Journal) bool {
		return j.Purpose != grant.Refreshing || j.TokenVaultKey != g.TokenVaultKey
	})
	if open, _ := grant.Unsettled(own, g.Generation); len(open) > 0 {
		// It tells of a refresh whose fate is unknown, and stays to tell it.
		j := open[0]
		if _, err := k.Vault.Answer(ctx, j); errors.Is(err, grant.ErrNoSecrets) {
			j.Recipient = ""
			if err := k.Vault.Claim(ctx, &j); err != nil {
				return err
			}
		}
		g.JournalRecipient = j.Recipient
		return k.Vault.Put(ctx, g, 0, nil)
	}
	return k.Vault.Import(ctx, g, k.Now(), pending)
}
