package vault

import (
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// Move puts the secrets of a grant in another home. At every instant the record
// names a home that has them, and in Superseded what is to be removed: where
// Move is cut off, the grant works from the one home or the other, and
// FinishRemovals clears away the rest. The caller holds the grant's lock and has
// settled its journals. The record returned has in Superseded what the old home
// would not let go yet.
func (v *Vault) Move(ctx context.Context, id grant.ID, to string) (grant.Record, error) {
	slot := id.Slot()
	if v.isStuck(slot) {
		return grant.Record{}, stuckError(to)
	}
	target, err := v.homes().Named(to)
	if err != nil {
		return grant.Record{}, err
	}
	record, err := v.Record(ctx, id)
	if err != nil || record.Home == to {
		return record, err
	}
	g, err := v.GetOf(ctx, record)
	if err != nil {
		return record, err
	}
	source, err := v.homes().Named(record.Home)
	if err != nil {
		return record, err
	}
	journal := JournalAccount(record.TokenVaultKey)
	key, err := source.Get(ctx, journal)
	if err != nil && !errors.Is(err, ErrNoItem) {
		return record, err
	}

	old, fresh := record.Place(), grant.Place{TokenVaultKey: record.TokenVaultKey, Home: to}
	superseded := without(record.Superseded, fresh)
	record.Superseded = slices.Concat(superseded, []grant.Place{fresh})
	if record, err = v.store.Commit(ctx, Change{Record: record}); err != nil {
		return record, err
	}
	if key == nil {
		// Nobody could open the next journal without it.
		if key, g.JournalRecipient, err = newJournalKey(); err != nil {
			return record, err
		}
	}
	err = v.watch(slot, target.Put(ctx, journal, 0, key))
	if err == nil {
		err = Sync(ctx, target, journal)
	}
	if err != nil {
		return v.takeBack(ctx, record, err)
	}
	g.Home = to
	moved, err := v.commit(ctx, g, record, slices.Concat(superseded, []grant.Place{old}), Change{})
	if err != nil {
		if isHomeError(err) {
			return v.takeBack(ctx, record, err)
		}
		return record, err
	}
	left, err := v.dropSuperseded(ctx, moved.Record)
	if isHomeError(err) {
		err = nil
	}
	return left, err
}

// takeBack clears away what a move wrote before it failed with err. What it
// can't, the record keeps for the next removal.
func (v *Vault) takeBack(ctx context.Context, record grant.Record, err error) (grant.Record, error) {
	if timedOut(err) {
		return record, err
	}
	record, dropErr := v.dropSuperseded(ctx, record)
	if isHomeError(dropErr) {
		dropErr = nil // it would say the same
	}
	return record, errors.Join(err, dropErr)
}

func without(places []grant.Place, place grant.Place) []grant.Place {
	return slices.DeleteFunc(slices.Clone(places), func(p grant.Place) bool { return p == place })
}

func isHomeError(err error) bool { return errors.As(err, new(*HomeError)) }
