package keeper

import (
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// Rename gives a grant to another name of its company. Rename first settles
// interrupted exchanges, because journals lie under the old name. While the company
// is being authorized, Rename fails as LockLogin does.
func (k *Keeper) Rename(ctx context.Context, from grant.ID, company string) error {
	to := from
	to.Company = company
	// Both logins and both grants are locked, each pair in one order, so that
	// two renames can't wait for each other.
	logins := []string{from.Company, to.Company}
	if grant.CompanySlot(to.Company) == grant.CompanySlot(from.Company) {
		logins = logins[:1]
	}
	for _, name := range logins {
		unlock, err := k.Vault.LockLogin(ctx, name)
		if err != nil {
			return err
		}
		defer unlock()
	}
	ids := []grant.ID{from, to}
	switch a, b := from.Slot(), to.Slot(); {
	case a == b:
		ids = ids[:1]
	case a > b:
		ids[0], ids[1] = to, from
	}
	for _, id := range ids {
		unlock, err := k.Vault.Lock(ctx, id)
		if err != nil {
			return err
		}
		defer unlock()
	}
	for _, id := range ids {
		if err := k.settleBeforeRename(ctx, id); err != nil {
			return err
		}
	}
	if err := k.Vault.Rename(ctx, from, to); err != nil {
		return err
	}
	k.happened(ctx, to, grant.EventRenamed, "", "it was called "+from.Company)
	return nil
}

// settleBeforeRename opens the home only where there is something to settle. A
// refresh whose fate is unknown has to wait for its retry under the old name.
func (k *Keeper) settleBeforeRename(ctx context.Context, id grant.ID) error {
	journals, record, err := k.beside(ctx, id)
	if err != nil || !slices.ContainsFunc(journals, func(j grant.Journal) bool { return j.News }) {
		return err
	}
	for _, j := range loginsIn(journals, record) {
		if err := k.finishLogin(ctx, j, ""); err != nil {
			return err
		}
	}
	g, pending, err := k.settle(ctx, id)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if pending != nil {
		return k.pendingError(ctx, g, pending)
	}
	return nil
}
