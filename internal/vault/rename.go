package vault

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// TakenError says that a company has a grant of its own already.
type TakenError struct{ ID grant.ID }

func (e *TakenError) Error() string {
	return fmt.Sprintf("%s already exists; revoke it first, or choose another name", e.ID)
}

// Rename gives a grant to another name of its company. The caller holds the
// locks of both and has settled the journals. At every instant there is one
// record: it says both names first, then it is moved, and the name that fits
// the place where it lies is the name that counts.
func (v *Vault) Rename(from, to grant.ID) error {
	record, err := v.readRecord(from.Slot())
	if err != nil {
		return err
	}
	if record.Removing {
		return grant.ErrNoGrant
	}
	record.Was, record.Company = record.Company, to.Company
	if from.Slot() == to.Slot() {
		record.Was = ""
		return v.writeRecord(record)
	}
	if _, err := v.readRecord(to.Slot()); err == nil {
		return &TakenError{ID: to}
	} else if !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	old, moved := v.recordPath(from.Slot()), v.recordPath(to.Slot())
	if err := writeRecordTo(old, record); err != nil {
		return err
	}
	if err := safefile.Rename(old, moved); err != nil {
		return fmt.Errorf("the record can't be renamed: %w", err)
	}
	return v.endRename(record, from)
}

// endRename does what is left of a rename once the record lies in its new place:
// the answers that were put aside go along, as they are removed with the grant.
func (v *Vault) endRename(record grant.Record, from grant.ID) error {
	aside, err := journalNames(v.dir, unreadSuffix)
	if err != nil {
		return err
	}
	dir := filepath.Join(v.dir, "journals")
	for _, name := range aside {
		rest, ok := strings.CutPrefix(name, from.Slot()+"."+record.TokenVaultKey+".")
		if !ok {
			continue
		}
		fresh := record.Slot() + "." + record.TokenVaultKey + "." + rest
		if err := safefile.Rename(filepath.Join(dir, name), filepath.Join(dir, fresh)); err != nil {
			return fmt.Errorf("an answer that was set aside can't be renamed: %w", err)
		}
	}
	if err := safefile.SyncDir(filepath.Join(v.dir, "records")); err != nil {
		return err
	}
	record.Was = ""
	return v.writeRecord(record)
}

// finishRename makes a record whole that a cut-off rename left with both names:
// the one that fits its place is the name. The caller holds the grant's lock.
func (v *Vault) finishRename(record grant.Record) error {
	from := record.ID
	from.Company = record.Was
	return v.endRename(record, from)
}
