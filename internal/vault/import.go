package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// PresentError says that a grant was not imported as its Token Vault Key is here
// already.
type PresentError struct {
	Where string
	Do    Act // Repair or Check, empty where there is nothing to do
}

func (e *PresentError) Error() string {
	return fmt.Sprintf("it was not imported: its Token Vault Key is here already, %s", e.Where)
}

// Import stores a grant from elsewhere of which no record speaks here, or whose
// record has lost its secrets. It goes the way of an authorization: a journal
// tells of it, made at a moment by this machine's clock, before the journal's key
// and the item are written. Where it is cut off, the same call finishes it, or
// whoever settles authorizations: with the item the grant is put in place, without
// it the rest is cleared away. *PresentError where any home has other secrets of
// the grant. The caller holds the grant's lock and its company's login lock.
//
// Pending, where it is not nil, is a refresh of the grant whose fate is not known.
// Its journal is the one that tells of the import then, as there is one of a Token
// Vault Key, and it stays: only the same call finishes what is cut off.
func (v *Vault) Import(ctx context.Context, g grant.Grant, at time.Time, pending *grant.Journal) error {
	if v.isStuck(g.Slot()) {
		return stuckError(g.Home)
	}
	record, err := v.store.Grant(ctx, g.Slot())
	if errors.Is(err, grant.ErrSetAside) {
		return &PresentError{Where: "with a damaged record", Do: Repair}
	}
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	if record.TokenVaultKey != g.TokenVaultKey {
		// Before the journal: it may keep the host waiting for itself.
		if err := v.Ready(ctx); err != nil {
			return err
		}
	}
	present, err := v.present(ctx, g)
	if err != nil {
		return err
	}
	home, err := v.homes().Named(g.Home)
	if err != nil {
		return err
	}
	if g.JournalRecipient, err = journalRecipient(ctx, home, g.TokenVaultKey); err != nil {
		return err
	}
	// The key that is here already may have to open an older answer.
	j := grant.Journal{
		ID: g.ID, Purpose: grant.Authorizing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation,
		Replaces: record.TokenVaultKey, ReplacesIn: record.Home, ClientID: g.ClientID, BaseURL: g.BaseURL,
		Attempt: 1, Fate: grant.Fate{Time: at.UTC()}, Home: g.Home, Recipient: g.JournalRecipient,
	}
	if pending != nil {
		j.Purpose, j.Replaces, j.ReplacesIn, j.Generation = grant.Refreshing, "", "", pending.Generation
		j.Attempt, j.Time, j.Outcome, j.Proxied = pending.Attempt, pending.Time, pending.Outcome, pending.Proxied
	}
	if err := v.Claim(ctx, &j); err != nil {
		return err
	}
	g.JournalRecipient = j.Recipient
	superseded := without(record.Superseded, g.Place())
	g, err = v.commit(ctx, g, record, superseded, Change{})
	if err != nil {
		// What was here before stays; what can't be cleared away now, the journal
		// keeps for later, and a write that may still land as well.
		if !present && isHomeError(err) && !timedOut(err) {
			if alone, lookErr := v.alone(ctx, j); lookErr == nil && alone {
				_ = v.Abandon(ctx, j)
			} else if lookErr == nil {
				_ = v.withdraw(ctx, j)
			}
		}
		return err
	}
	return v.store.Settle(ctx, g.Slot(), g.TokenVaultKey, g.Generation)
}

// present reports whether the home that an imported grant goes to has its item already;
// *PresentError where other secrets of the grant are in any home, or a record of another
// name speaks of it.
func (v *Vault) present(ctx context.Context, g grant.Grant) (bool, error) {
	spoken, err := v.spokenOf(ctx)
	if err != nil {
		return false, err
	}
	if id, ok := spoken.records[g.TokenVaultKey]; ok && id.Slot() != g.Slot() {
		return false, &PresentError{Where: fmt.Sprintf("under the name %s", id)}
	}
	present := false
	for _, home := range v.homes() {
		there, err := readItem(ctx, home, g.TokenVaultKey)
		switch {
		case errors.Is(err, ErrNoItem), errors.Is(err, grant.ErrNoSecrets):
		case err != nil && home.Name() != g.Home:
			// Many a machine has only one of the homes.
		case err != nil:
			return false, err
		case home.Name() != g.Home || there.RefreshToken != g.RefreshToken || there.AccessToken != g.AccessToken:
			return false, &PresentError{Where: fmt.Sprintf("in the %s and without a record", Describe(home.Name())), Do: Check}
		default:
			present = true
		}
	}
	return present, nil
}
