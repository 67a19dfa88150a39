package keeper

import (
	"context"

	"github.com/upsauth/upsauth/internal/grant"
)

// Move puts a grant's secrets in another home, after it has settled interrupted
// work. A refresh with an unknown outcome must be finished first; Move then returns
// a *PendingError. Superseded in the returned record lists what could not be removed
// from the old home yet.
func (k *Keeper) Move(ctx context.Context, id grant.ID, home string) (grant.Record, error) {
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return grant.Record{}, err
	}
	defer unlock()
	g, pending, err := k.settle(ctx, id)
	if err != nil {
		return grant.Record{}, err
	}
	if pending != nil {
		return grant.Record{}, k.pendingError(ctx, g, pending)
	}
	record, err := k.Vault.Move(ctx, id, home)
	if err == nil {
		k.happened(ctx, id, grant.EventMoved, "", "to the "+home)
	}
	return record, err
}

// Settled finishes what was cut off of a grant and calls do with it, with the locks of the
// grant and of its company's sign-ins held. Nothing of it may be open: a refresh whose outcome
// is unknown is a *PendingError, a sign-in that waits for its person a *vault.LoginBusyError.
func (k *Keeper) Settled(ctx context.Context, id grant.ID, do func(grant.Grant) error) error {
	unlockLogin, err := k.Vault.LockLogin(ctx, id.Company)
	if err != nil {
		return err
	}
	defer unlockLogin()
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	g, pending, err := k.settle(ctx, id)
	if err != nil {
		return err
	}
	if pending != nil {
		return k.pendingError(ctx, g, pending)
	}
	return do(g)
}
