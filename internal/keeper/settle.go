package keeper

import (
	"context"

	"github.com/upsauth/upsauth/internal/grant"
)

// Settle finishes what was cut off of a grant without sending anything, and
// returns its record as it is then. A refresh whose fate is unknown can only be
// finished by sending the token again: that is a *PendingError.
func (k *Keeper) Settle(ctx context.Context, id grant.ID) (grant.Record, error) {
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
		return g.Record, k.pendingError(id, pending)
	}
	return g.Record, nil
}

func (k *Keeper) pendingError(id grant.ID, j *grant.Journal) *PendingError {
	return &PendingError{ID: id, Since: j.Time, Again: max(0, k.tooEarly(j)), What: outcome(j)}
}
