package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// JournalKeyError says that a grant's secrets are whole and that the key of its
// journals is not: an answer of UPS's that is cut off could not be opened.
type JournalKeyError struct{ ID grant.ID }

func (e *JournalKeyError) Error() string {
	return fmt.Sprintf("the key of the journal of %s is missing, or is another journal's key", e.ID)
}

// Check reports what is wrong with the secrets of a grant, nil where they are
// whole. A *JournalKeyError can be repaired.
func (v *Vault) Check(ctx context.Context, id grant.ID) error {
	_, err := v.check(ctx, id)
	if !errors.As(err, new(*JournalKeyError)) {
		return err
	}
	// Somebody may have been moving or replacing the grant meanwhile.
	unlock, err := v.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = v.check(ctx, id)
	return err
}

// CheckRecord is Check for a record that was read before, which is not read again
// unless something is the matter.
func (v *Vault) CheckRecord(ctx context.Context, record grant.Record) error {
	g, err := v.item(ctx, record)
	if err == nil && g.Generation == record.Generation {
		err = v.checkJournalKey(ctx, g)
		if err == nil {
			return nil
		}
	}
	var home *HomeError
	if errors.As(err, &home) && !home.OfItem && !home.Damaged {
		return err // the home as a whole
	}
	return v.Check(ctx, record.ID)
}

// check returns the grant too, also beside a *JournalKeyError.
func (v *Vault) check(ctx context.Context, id grant.ID) (grant.Grant, error) {
	g, err := v.Get(ctx, id)
	if err != nil {
		return g, err
	}
	return g, v.checkJournalKey(ctx, g)
}

func (v *Vault) checkJournalKey(ctx context.Context, g grant.Grant) error {
	home, err := v.homes().Named(g.Home)
	if err != nil {
		return err
	}
	recipient, err := journalRecipient(ctx, home, g.TokenVaultKey)
	if err != nil {
		return err
	}
	if recipient == "" || recipient != g.JournalRecipient {
		return &JournalKeyError{ID: g.ID}
	}
	return nil
}

// RepairJournalKey gives a grant a new key for its journals, where it lacks one.
// It fails while a journal or an answer that was put aside lies there, which
// only the old key opens.
func (v *Vault) RepairJournalKey(ctx context.Context, id grant.ID) error {
	unlock, err := v.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := v.check(ctx, id)
	if !errors.As(err, new(*JournalKeyError)) {
		return err
	}
	attempts, listErr := v.Attempts(ctx, id)
	if listErr != nil {
		return listErr
	}
	attempts = slices.DeleteFunc(attempts, func(j grant.Journal) bool { return j.TokenVaultKey != g.TokenVaultKey })
	if open, kept := grant.Unsettled(attempts, g.Generation); len(open)+len(kept) > 0 {
		return err
	}
	_, err = v.ProveJournal(ctx, g)
	return err
}

// ProveJournal shows that what is sealed to a grant's journal recipient can be
// opened again, and returns the grant with the recipient that is right: a key that
// is lost is made anew, once no host can have it any more, and of one that is not
// the recipient's the recipient is taken over. The caller holds the grant's lock.
func (v *Vault) ProveJournal(ctx context.Context, g grant.Grant) (grant.Grant, error) {
	if v.isStuck(g.Slot()) {
		return g, stuckError(g.Home)
	}
	home, err := v.homes().Named(g.Home)
	if err != nil {
		return g, err
	}
	recipient, err := journalRecipient(ctx, home, g.TokenVaultKey)
	if err != nil {
		return g, err
	}
	if recipient != "" && recipient == g.JournalRecipient {
		return g, nil
	}
	if recipient == "" {
		// Where several hosts share the vault, one of them may have the key yet.
		if err := v.Ready(ctx); err != nil {
			return g, err
		}
		var key []byte
		if key, recipient, err = newJournalKey(); err != nil {
			return g, err
		}
		if err := v.watch(g.Slot(), home.Put(ctx, JournalAccount(g.TokenVaultKey), 0, key)); err != nil {
			return g, err
		}
	}
	if err := Sync(ctx, home, JournalAccount(g.TokenVaultKey)); err != nil {
		return g, err
	}
	// The item gets the recipient with its next generation: until then the
	// record's counts.
	record, err := v.Record(ctx, g.ID)
	if err != nil {
		return g, err
	}
	record.JournalRecipient, g.JournalRecipient = recipient, recipient
	record, err = v.store.Commit(ctx, Change{Record: record})
	g.Revision = record.Revision
	return g, err
}
