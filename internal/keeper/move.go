package keeper

import (
	"context"

	"github.com/upsauth/upsauth/internal/grant"
)

// Move puts a grant's secrets in another home, once what was cut off is settled.
// A refresh whose fate is unknown has to be finished first: that is a
// *PendingError. The record returned has in Superseded what could not be
// removed from the old home yet.
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
