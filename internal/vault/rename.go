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
	return fmt.Sprintf("%s exists already; revoke it first, or choose another name", e.ID)
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
	aside, err := journalNames(v.dir, unreadSuffix)
	if err != nil {
		return err
	}
	for _, name := range aside {
		rest, ok := strings.CutPrefix(name, from.Slot())
		if !ok {
			continue
		}
		// They go with the grant when it is removed.
		dir := filepath.Join(v.dir, "journals")
		if err := safefile.Rename(filepath.Join(dir, name), filepath.Join(dir, to.Slot()+rest)); err != nil {
			return fmt.Errorf("an answer that was put aside can't be renamed: %w", err)
		}
	}
	if err := safefile.SyncDir(filepath.Dir(moved)); err != nil {
		return err
	}
	record.Was = ""
	return v.writeRecord(record)
}
