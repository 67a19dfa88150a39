package keeper

import (
	"context"
	"errors"

	"github.com/upsauth/upsauth/internal/grant"
)

// Revoke removes a grant with all its secrets from this machine. UPS has no
// revocation endpoint: issued tokens stay valid until they expire.
func (k *Keeper) Revoke(ctx context.Context, id grant.ID) error {
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	err = k.Vault.Delete(ctx, id)
	if err == nil || errors.Is(err, grant.ErrLeft) || errors.Is(err, grant.ErrNothingThere) {
		k.happened(ctx, id, grant.EventRevoked, "", "")
	}
	return err
}
