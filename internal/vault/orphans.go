package vault

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// lister is a home that can tell which items it has, or says ErrNoList.
type lister interface {
	Accounts(context.Context) ([]string, error)
}

// Listing is what homes said that they have when they were asked.
type Listing struct {
	places, probes []grant.Place
	secrets        map[string][]string
	// Problems are the homes that should be listed and can't be.
	Problems []error
	closed   []string // their names
}

// Among is what the homes named have of a listing.
func (l Listing) Among(homes ...string) Listing {
	elsewhere := func(p grant.Place) bool { return !slices.Contains(homes, p.Home) }
	among := Listing{
		places:  slices.DeleteFunc(slices.Clone(l.places), elsewhere),
		probes:  slices.DeleteFunc(slices.Clone(l.probes), elsewhere),
		secrets: map[string][]string{},
	}
	for home, accounts := range l.secrets {
		if slices.Contains(homes, home) {
			among.secrets[home] = accounts
		}
	}
	for i, home := range l.closed {
		if slices.Contains(homes, home) {
			among.closed, among.Problems = append(among.closed, home), append(among.Problems, l.Problems[i])
		}
	}
	return among
}

// Accounted reports whether records speak of all grants in a listing, and there are
// no probes. What a listing has beyond that may be gone or known by now: before
// anything is told of it the homes are asked again.
func (l Listing) Accounted(known []grant.Record) bool {
	return len(l.probes) == 0 && len(l.unknown(known)) == 0
}

// unknown are the places in a listing that none of the records speaks of.
func (l Listing) unknown(known []grant.Record) []grant.Place {
	places := make(map[grant.Place]bool, len(known))
	for _, record := range known {
		places[record.Place()] = true
		for _, place := range record.Superseded {
			places[place] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(l.places), func(p grant.Place) bool { return places[p] })
}

// ListHomes asks the homes named, or all, what they have, as far as they can be
// listed. A home that should be and can't is a problem and no harm to the others.
func (v *Vault) ListHomes(ctx context.Context, among ...string) Listing {
	l := Listing{secrets: map[string][]string{}}
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
			l.Problems, l.closed = append(l.Problems, err), append(l.closed, home.Name())
			continue
		}
		seen := ""
		for _, account := range accounts {
			if strings.HasPrefix(account, "app/") && strings.Count(strings.TrimSuffix(account, "/new"), "/") == 2 {
				l.secrets[home.Name()] = append(l.secrets[home.Name()], account)
			}
			key, part, _ := strings.Cut(account, "/")
			if key != seen && !isKey(key) {
				continue
			}
			place := grant.Place{TokenVaultKey: key, Home: home.Name()}
			if key != seen {
				seen = key
				l.places = append(l.places, place)
			}
			if part == "probe" {
				l.probes = append(l.probes, place)
			}
		}
	}
	return l
}

// Secrets are the client secrets in a listing: account names by home.
func (l Listing) Secrets() map[string][]string { return l.secrets }

// Orphans returns the Token Vault Keys under which homes have secrets that
// neither a record nor a journal speaks of. Known are records that were read
// before: only what none of them speaks of is looked for anew.
func (v *Vault) Orphans(l Listing, known []grant.Record) (orphans []grant.Place, err error) {
	unknown := l.unknown(known)
	if len(unknown) == 0 {
		return nil, nil
	}
	// The homes were asked before: a journal is written before the first item of
	// its Token Vault Key.
	spoken, err := v.spokenOf()
	if err != nil {
		return nil, err
	}
	seen := map[grant.Place]bool{}
	for _, o := range unknown {
		if !spoken.places[o] && !spoken.announced[o.TokenVaultKey] && !seen[o] {
			seen[o] = true
			orphans = append(orphans, o)
		}
	}
	return orphans, nil
}

// spoken is what records and journals speak of.
type spoken struct {
	places map[grant.Place]bool
	// records are the grants by their Token Vault Keys, announced the keys of
	// authorizations that are under way, whose home is not known.
	records   map[string]grant.ID
	announced map[string]bool
}

// spokenOf reads all records and the journals of authorizations. A refresh's
// journal alone speaks of nothing: a record goes with it, or is lost. Where a
// record can't be read that may be good for another upsauth, nobody can say what
// is an orphan.
func (v *Vault) spokenOf() (spoken, error) {
	for attempt := 0; ; attempt++ {
		before, err := v.recordNames()
		if err != nil {
			return spoken{}, err
		}
		s, missed, err := v.readSpoken(before)
		if err != nil {
			return spoken{}, err
		}
		after, err := v.recordNames()
		if err != nil {
			return spoken{}, err
		}
		// A record that is being renamed can be missed under both names, also
		// where it is back under the first one by now.
		if !missed && slices.Equal(before, after) || attempt == 100 {
			return s, nil
		}
	}
}

// recordNames lists the slots that have records, in order.
func (v *Vault) recordNames() ([]string, error) {
	files, err := safefile.ReadDir(filepath.Join(v.dir, "records"))
	if err != nil {
		return nil, fmt.Errorf("the records can't be read: %w", err)
	}
	var slots []string
	for _, file := range files {
		if slot, ok := strings.CutSuffix(file, ".json"); ok && !strings.HasPrefix(slot, ".") {
			slots = append(slots, slot)
		}
	}
	slices.Sort(slots)
	return slots, nil
}

func (v *Vault) readSpoken(slots []string) (s spoken, missed bool, err error) {
	s = spoken{places: map[grant.Place]bool{}, records: map[string]grant.ID{}, announced: map[string]bool{}}
	// The journals first: an authorization that ends meanwhile has its record
	// then.
	names, err := journalNames(v.dir, journalSuffix)
	if err != nil {
		return s, false, err
	}
	for _, name := range names {
		_, key, _ := strings.Cut(strings.TrimSuffix(name, journalSuffix), ".")
		j, err := readJournal(filepath.Join(v.dir, "journals", name))
		if err != nil || j.Purpose != grant.Refreshing {
			s.announced[key] = true
		}
	}
	// A key that opens an answer which is kept is no orphan.
	kept, err := journalNames(v.dir, unreadSuffix)
	if err != nil {
		return s, false, err
	}
	for _, name := range kept {
		if _, rest, ok := strings.Cut(name, "."); ok {
			key, _, _ := strings.Cut(rest, ".")
			s.announced[key] = true
		}
	}
	records, errs := v.readRecords(slots)
	for i, record := range records {
		err := errs[i]
		if errors.Is(err, grant.ErrNoGrant) || errors.As(err, new(*DamagedError)) {
			missed = missed || errors.Is(err, grant.ErrNoGrant)
			continue
		}
		if err != nil {
			return s, false, err
		}
		for _, place := range append(record.Superseded, record.Place()) {
			s.places[place] = true
			s.records[place.TokenVaultKey] = record.ID
		}
	}
	return s, missed, nil
}
