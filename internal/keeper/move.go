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
