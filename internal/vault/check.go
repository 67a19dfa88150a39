package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
)

// JournalKeyError says that a grant's secrets are whole and that the key of its
// journals is not: an answer of UPS's that is cut off could not be opened.
type JournalKeyError struct{ ID grant.ID }

func (e *JournalKeyError) Error() string {
	return fmt.Sprintf("the key that opens the journal of %s is missing or not its own", e.ID)
}

// Check reports what is wrong with the secrets of a grant, nil where they are
// whole. A *JournalKeyError can be repaired.
func (v *Vault) Check(ctx context.Context, id grant.ID) error {
	g, err := v.Get(ctx, id)
	if err != nil {
		return err
	}
	home, err := v.homes.named(g.Vault)
	if err != nil {
		return err
	}
	secret, err := home.Get(ctx, journalAccount(g.TokenVaultKey))
	if err != nil && !errors.Is(err, ErrNoItem) && !errors.Is(err, grant.ErrNoSecrets) {
		return err
	}
	var key journalKey
	_ = json.Unmarshal(secret, &key)
	identity, err := age.ParseX25519Identity(key.Identity)
	if err != nil || identity.Recipient().String() != g.JournalRecipient {
		return &JournalKeyError{ID: id}
	}
	return nil
}

// RepairJournalKey gives a grant a new key for its journals. It fails while a
// journal lies there, whose answer only the old key opens.
func (v *Vault) RepairJournalKey(ctx context.Context, id grant.ID) error {
	unlock, err := v.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if journals, err := v.Journals(id); err != nil || len(journals) > 0 {
		return errors.Join(err, &JournalKeyError{ID: id})
	}
	g, err := v.Get(ctx, id)
	if err != nil {
		return err
	}
	home, err := v.homes.named(g.Vault)
	if err != nil {
		return err
	}
	record := g.Record
	key, recipient, err := newJournalKey()
	if err != nil {
		return err
	}
	if err := v.watch(id.Slot(), home.Put(ctx, journalAccount(g.TokenVaultKey), 0, key)); err != nil {
		return err
	}
	g.JournalRecipient, g.Void, g.LastError = recipient, false, nil
	if err := v.putItem(ctx, &g); err != nil {
		return err
	}
	record.JournalRecipient = recipient
	return v.writeRecord(record)
}

// Lost is a grant whose secrets are in a home and which no record speaks of.
type Lost struct {
	grant.Superseded
	grant.ID
	// Err is why no record can be made of it, nil where one can: ErrNoItem where
	// only a grant's smaller items are left.
	Err error
}

// Lost looks into an orphan for what it was.
func (v *Vault) Lost(ctx context.Context, place grant.Superseded) Lost {
	g, err := v.lost(ctx, place)
	return Lost{Superseded: place, ID: g.ID, Err: err}
}

func (v *Vault) lost(ctx context.Context, place grant.Superseded) (grant.Grant, error) {
	home, err := v.homes.named(place.Vault)
	if err != nil {
		return grant.Grant{}, err
	}
	secret, err := home.Get(ctx, place.TokenVaultKey)
	if err != nil {
		return grant.Grant{}, err
	}
	if version := versionOf(secret); version > grant.RecordVersion {
		return grant.Grant{}, &NewerError{Path: "the item " + place.TokenVaultKey, Version: version}
	}
	var g grant.Grant
	err = json.Unmarshal(secret, &g)
	if name, nameErr := grant.CleanCompany(g.Company); err != nil || nameErr != nil || name != g.Company || g.TokenVaultKey != place.TokenVaultKey {
		return grant.Grant{}, damagedItem(place.Vault, fmt.Sprintf("The secrets under %s in the %s are damaged.", place.TokenVaultKey, Describe(place.Vault)))
	}
	g.Vault = place.Vault
	if record, err := v.readRecord(g.Slot()); err == nil {
		if record.Removing {
			return g, grant.ErrNoGrant
		}
		return g, &TakenError{ID: record.ID}
	} else if !errors.Is(err, grant.ErrNoGrant) && !errors.As(err, new(*DamagedError)) {
		return g, err
	}
	return g, nil
}

// Rebuild makes a record of what Lost found without error.
func (v *Vault) Rebuild(ctx context.Context, lost Lost) error {
	unlock, err := v.Lock(ctx, lost.ID)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := v.lost(ctx, lost.Superseded)
	if err != nil {
		return err
	}
	if err := v.writeRecord(g.Record); err != nil {
		return err
	}
	return v.dropDamaged(g.Slot())
}
