package grant

import (
	"errors"
	"fmt"
)

// CheckTokenVaultKey reports what is wrong with a Token Vault Key. It is a part of
// the names of files and items, so nothing but a GUID in upper case is one.
func CheckTokenVaultKey(key string) error {
	if len(key) != 36 {
		return errors.New("the Token Vault Key is not a GUID in upper case")
	}
	for i := range len(key) {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		digit := key[i] >= '0' && key[i] <= '9' || key[i] >= 'A' && key[i] <= 'F'
		if hyphen != (key[i] == '-') || !hyphen && !digit {
			return errors.New("the Token Vault Key is not a GUID in upper case")
		}
	}
	return nil
}

// Check reports what is wrong with names that were read from a file.
func (id ID) Check() error {
	if err := CheckCompany(id.Company); err != nil {
		return err
	}
	if _, err := CleanName("application", id.Application); err != nil {
		return err
	}
	_, err := CleanName("environment", id.Environment)
	return err
}

// Check reports what makes a record from a file unfit for use: its values become
// names of files and items.
func (r Record) Check() error {
	if err := r.ID.Check(); err != nil {
		return err
	}
	if r.Was != "" {
		if err := CheckCompany(r.Was); err != nil {
			return fmt.Errorf("its earlier name: %w", err)
		}
	}
	if err := CheckTokenVaultKey(r.TokenVaultKey); err != nil {
		return err
	}
	for _, old := range r.Superseded {
		if err := CheckTokenVaultKey(old.TokenVaultKey); err != nil {
			return fmt.Errorf("of an earlier grant: %w", err)
		}
	}
	if r.Generation < 0 {
		return fmt.Errorf("its generation is %d", r.Generation)
	}
	return nil
}

// Check reports what makes a journal from a file unfit for use, as for a record.
func (j Journal) Check() error {
	if err := j.ID.Check(); err != nil {
		return err
	}
	if err := CheckTokenVaultKey(j.TokenVaultKey); err != nil {
		return err
	}
	if j.Replaces != "" {
		if err := CheckTokenVaultKey(j.Replaces); err != nil {
			return fmt.Errorf("of the grant that it replaces: %w", err)
		}
	}
	if j.Purpose != Authorizing && j.Purpose != Refreshing {
		return fmt.Errorf("its purpose is %q", j.Purpose)
	}
	return nil
}
