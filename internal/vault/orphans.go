package vault

import (
	"context"
	"errors"
	"fmt"
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
	// The homes are asked first: a journal is written before the first item of
	// its Token Vault Key.
	var found []grant.Superseded
	for _, home := range v.homes {
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
			if _, err := uuid.Parse(key); err == nil {
				found = append(found, grant.Superseded{TokenVaultKey: key, Vault: home.Name()})
			}
		}
	}
	spoken, err := v.spokenOf()
	if err != nil {
		return nil, err
	}
	var orphans []grant.Superseded
	for _, o := range found {
		if !spoken[o.TokenVaultKey] {
			spoken[o.TokenVaultKey] = true
			orphans = append(orphans, o)
		}
	}
	return orphans, nil
}

// spokenOf collects the Token Vault Keys in records and names of journals. Where
// a record can't be read that may be good for another upsauth, nobody can say
// what is an orphan.
func (v *Vault) spokenOf() (map[string]bool, error) {
	spoken := map[string]bool{}
	files, err := os.ReadDir(filepath.Join(v.dir, "records"))
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("the records can't be read: %w", err)
	}
	for _, file := range files {
		slot, ok := strings.CutSuffix(file.Name(), ".json")
		if !ok || strings.HasPrefix(slot, ".") {
			continue
		}
		record, err := v.readRecord(slot)
		var damage *DamagedError
		if errors.Is(err, grant.ErrNoGrant) || errors.As(err, &damage) {
			continue
		}
		if err != nil {
			return nil, err
		}
		spoken[record.TokenVaultKey] = true
		for _, old := range record.Superseded {
			spoken[old.TokenVaultKey] = true
		}
	}
	names, err := journalNames(v.dir, journalSuffix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		_, key, _ := strings.Cut(strings.TrimSuffix(name, journalSuffix), ".")
		spoken[key] = true
	}
	return spoken, nil
}
