package vault

import (
	"context"

	"github.com/upsauth/upsauth/internal/grant"
)

// Rename gives a grant to another name of its company; *TakenError where that has one.
// The caller holds the locks of both and has settled the journals.
func (v *Vault) Rename(ctx context.Context, from, to grant.ID) error {
	record, err := v.Record(ctx, from)
	if err != nil {
		return err
	}
	_, err = v.store.Rename(ctx, record, to.Company)
	return err
}
