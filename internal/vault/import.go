package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// PresentError says that a grant was not imported as its Token Vault Key is here
// already.
type PresentError struct{ Where string }

func (e *PresentError) Error() string {
	return fmt.Sprintf("it was not imported: its Token Vault Key is here already, %s", e.Where)
}

// Import stores a grant from elsewhere of which no record speaks here, or whose
// record has lost its secrets. Where it is cut off, the same call finishes it, or
// Lost and Rebuild. *PresentError where any home has other secrets of the grant.
// The caller holds the grant's lock.
func (v *Vault) Import(ctx context.Context, g grant.Grant) error {
	if v.isStuck(g.Slot()) {
		return stuckError(g.Vault)
	}
	if v.SetAside(g.ID) {
		return &PresentError{Where: "with a damaged record; first run: upsauth vault check --repair"}
	}
	spoken, err := v.spokenOf()
	if err != nil {
		return err
	}
	if id, ok := spoken.records[g.TokenVaultKey]; ok && id.Slot() != g.Slot() {
		return &PresentError{Where: fmt.Sprintf("under the name %s", id)}
	}
	for _, home := range v.homes {
		there, err := readItem(ctx, home, g.TokenVaultKey)
		switch {
		case errors.Is(err, ErrNoItem), errors.Is(err, grant.ErrNoSecrets):
		case err != nil && home.Name() != g.Vault:
			// Many a machine has only one of the homes.
		case err != nil:
			return err
		case home.Name() != g.Vault || there.RefreshToken != g.RefreshToken || there.AccessToken != g.AccessToken:
			return &PresentError{Where: fmt.Sprintf("in the %s and without a record; look with: upsauth vault check", Describe(home.Name()))}
		}
	}
	home, err := v.homes.named(g.Vault)
	if err != nil {
		return err
	}
	if g.JournalRecipient, err = journalRecipient(ctx, home, g.TokenVaultKey); err != nil {
		return err
	}
	if g.JournalRecipient == "" {
		var key []byte
		if key, g.JournalRecipient, err = newJournalKey(); err != nil {
			return err
		}
		if err := v.watch(g.Slot(), home.Put(ctx, journalAccount(g.TokenVaultKey), 0, key)); err != nil {
			return err
		}
	}
	record, err := v.readRecord(g.Slot())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	void, lastError := g.Void, g.LastError
	g.Void, g.LastError = false, nil
	if err := v.putItem(ctx, &g); err != nil {
		return err
	}
	g.Void, g.LastError = void, lastError
	g.Superseded = slices.DeleteFunc(record.Superseded, func(p grant.Superseded) bool { return p == g.Place() })
	return v.writeRecord(g.Record)
}
