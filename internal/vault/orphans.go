package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
)

// lister is a home that can tell which items it has, or says ErrNoList.
type lister interface {
	Accounts(context.Context) ([]string, error)
}

// Orphans returns the Token Vault Keys under which a home has secrets that
// neither a record nor a journal speaks of, among the homes named, or all, as far
// as they can be listed. A home that should be and can't is a problem and no harm to the others.
func (v *Vault) Orphans(ctx context.Context, among ...string) (orphans []grant.Superseded, problems []error, err error) {
	// The homes are asked first: a journal is written before the first item of
	// its Token Vault Key.
	var found []grant.Superseded
	for _, home := range v.homes {
		listing, ok := home.(lister)
		if !ok || len(among) > 0 && !slices.Contains(among, home.Name()) {
			continue
		}
		accounts, err := listing.Accounts(ctx)
		if errors.Is(err, ErrNoList) {
			continue
		}
		if err != nil {
			problems = append(problems, err)
			continue
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
		return nil, problems, err
	}
	seen := map[grant.Superseded]bool{}
	for _, o := range found {
		anywhere := grant.Superseded{TokenVaultKey: o.TokenVaultKey}
		if !spoken[o] && !spoken[anywhere] && !seen[o] {
			seen[o] = true
			orphans = append(orphans, o)
		}
	}
	return orphans, problems, nil
}

// spokenOf collects the places that records and the journals of authorizations
// speak of; one without home may be in any. A refresh's journal alone is none: a
// record goes with it, or is lost. Where a record can't be read that may be good
// for another upsauth, nobody can say what is an orphan.
func (v *Vault) spokenOf() (map[grant.Superseded]bool, error) {
	spoken := map[grant.Superseded]bool{}
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
		spoken[record.Place()] = true
		for _, old := range record.Superseded {
			spoken[old] = true
		}
	}
	names, err := journalNames(v.dir, journalSuffix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		_, key, _ := strings.Cut(strings.TrimSuffix(name, journalSuffix), ".")
		j, err := readJournal(filepath.Join(v.dir, "journals", name))
		if err == nil && j.Purpose == grant.Refreshing {
			continue
		}
		spoken[grant.Superseded{TokenVaultKey: key}] = true
	}
	return spoken, nil
}
