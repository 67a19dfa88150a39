package vault

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
)

// lister is a home that can tell which items it has. The keychains can't:
// go-keyring knows no listing.
type lister interface {
	Accounts(context.Context) ([]string, error)
}

// Orphans returns the Token Vault Keys under which a home has secrets that
// neither a record nor a journal speaks of, as far as homes can be listed.
func (v *Vault) Orphans(ctx context.Context) ([]grant.Superseded, error) {
	spoken, err := v.spokenOf()
	if err != nil {
		return nil, err
	}
	var orphans []grant.Superseded
	for _, home := range v.homes.All {
		listing, ok := home.(lister)
		if !ok {
			continue
		}
		accounts, err := listing.Accounts(ctx)
		if err != nil {
			return nil, err
		}
		for _, account := range accounts {
			key, _, _ := strings.Cut(account, "/")
			if _, err := uuid.Parse(key); err != nil || spoken[key] {
				continue
			}
			spoken[key] = true
			orphans = append(orphans, grant.Superseded{TokenVaultKey: key, Vault: home.Name()})
		}
	}
	return orphans, nil
}

// spokenOf collects the Token Vault Keys in records and names of journals.
func (v *Vault) spokenOf() (map[string]bool, error) {
	spoken := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(v.dir, "records", "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		record, err := v.readRecord(strings.TrimSuffix(filepath.Base(path), ".json"))
		if err != nil {
			continue // List tells of it
		}
		spoken[record.TokenVaultKey] = true
		for _, old := range record.Superseded {
			spoken[old.TokenVaultKey] = true
		}
	}
	names, err := journalNames(v.dir, journalSuffix)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, name := range names {
		_, key, _ := strings.Cut(strings.TrimSuffix(name, journalSuffix), ".")
		spoken[key] = true
	}
	return spoken, nil
}
