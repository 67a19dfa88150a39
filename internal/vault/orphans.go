package vault

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
)

// lister is a home that can tell which items it has, or says ErrNoList.
type lister interface {
	Accounts(context.Context) ([]string, error)
}

// Listing is what homes said that they have when they were asked.
type Listing struct {
	places, probes []grant.Place
	secrets, held  map[string][]string
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
		secrets: map[string][]string{}, held: map[string][]string{},
	}
	for home, accounts := range l.secrets {
		if slices.Contains(homes, home) {
			among.secrets[home] = accounts
		}
	}
	for home, accounts := range l.held {
		if slices.Contains(homes, home) {
			among.held[home] = accounts
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
	l := Listing{secrets: map[string][]string{}, held: map[string][]string{}}
	for _, home := range v.homes() {
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
			if item := heldItem(account); item != "" {
				if !slices.Contains(l.held[home.Name()], item) {
					l.held[home.Name()] = append(l.held[home.Name()], item)
				}
				continue
			}
			key, part, _ := strings.Cut(account, "/")
			if key != seen && grant.CheckTokenVaultKey(key) != nil {
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

// heldItem is the item of a sign-in that waits to be confirmed, of which an account may be
// a part: a keychain has parts below the account of what is long. Empty is for another.
func heldItem(account string) string {
	words := strings.SplitN(account, "/", 3)
	if len(words) < 2 || HeldKey(words[0]+"/"+words[1]) == "" {
		return ""
	}
	return words[0] + "/" + words[1]
}

// Held are the customers' sign-ins that wait to be confirmed in a listing: account names by
// home.
func (l Listing) Held() map[string][]string { return l.held }

// Orphans returns the Token Vault Keys under which homes have secrets that
// neither a record nor a journal speaks of. Known are records that were read
// before: only what none of them speaks of is looked for anew.
func (v *Vault) Orphans(ctx context.Context, l Listing, known []grant.Record) (orphans []grant.Place, err error) {
	unknown := l.unknown(known)
	if len(unknown) == 0 {
		return nil, nil
	}
	// The homes were asked before: a journal is written before the first item of
	// its Token Vault Key.
	spoken, err := v.spokenOf(ctx)
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
func (v *Vault) spokenOf(ctx context.Context) (spoken, error) {
	s := spoken{places: map[grant.Place]bool{}, records: map[string]grant.ID{}, announced: map[string]bool{}}
	// The journals first: an authorization that ends meanwhile has its record
	// then.
	news, err := v.store.News(ctx, "")
	if err != nil {
		return s, err
	}
	for _, group := range grouped(news) {
		first := group[0]
		if first.Err != nil || first.Journal.Purpose != grant.Refreshing {
			s.announced[first.TokenVaultKey] = true
			continue
		}
		// A key that opens an answer which is kept is no orphan.
		if _, kept := grant.Unsettled(journalsOf(group), grant.Reached(journalsOf(group))); len(kept) > 0 {
			s.announced[first.TokenVaultKey] = true
		}
	}
	records, problems, err := v.store.Grants(ctx, "")
	if err != nil {
		return s, err
	}
	for _, problem := range problems {
		moved := new(MovedError)
		switch {
		case errors.As(problem, &moved):
			// What is left beside a tombstone, or came before its grant, is no orphan.
			for _, r := range moved.Records {
				s.announced[r.TokenVaultKey] = true
			}
		case !errors.As(problem, new(*DamagedError)):
			return s, problem
		}
	}
	for _, record := range records {
		for _, place := range append(record.Superseded, record.Place()) {
			s.places[place] = true
			s.records[place.TokenVaultKey] = record.ID
		}
	}
	return s, nil
}

// Probes returns the probes in a listing that lie in homes although nobody is at
// work with them, with the records that they are of; those of no record may be of
// another state directory, or of an upsauth that did not note what it was about
// to do. Noted reports whether somebody has noted that a key is being tried.
func (v *Vault) Probes(ctx context.Context, l Listing, noted func(tokenVaultKey string) bool) (ofGrants, ofNobody []grant.Place, err error) {
	found := l.probes
	if len(found) == 0 {
		return nil, nil, nil
	}
	spoken, err := v.spokenOf(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, place := range found {
		switch {
		case spoken.announced[place.TokenVaultKey], noted(place.TokenVaultKey):
		case spoken.records[place.TokenVaultKey].Company != "":
			ofGrants = append(ofGrants, place)
		default:
			ofNobody = append(ofNobody, place)
		}
	}
	return ofGrants, ofNobody, nil
}

// DropProbes removes probes that Probes found. A probe has no secret in it. That
// of a grant is removed under the grant's lock, which a refresh holds from before
// its probe; for one of nobody there is no lock, and whoever is just probing with
// it, from another state directory, is told that the home forgot it, with nothing
// sent.
func (v *Vault) DropProbes(ctx context.Context, probes []grant.Place) (removed int, problems error) {
	spoken, err := v.spokenOf(ctx)
	if err != nil {
		return 0, err
	}
	for _, place := range probes {
		unlock := func() {}
		if id, ok := spoken.records[place.TokenVaultKey]; ok {
			if v.busy(ctx, id.Slot()) {
				continue
			}
			var err error
			if unlock, err = v.Lock(ctx, id); err != nil {
				return removed, errors.Join(problems, err)
			}
		}
		err := v.DropProbe(ctx, place.Home, place.TokenVaultKey)
		unlock()
		if err != nil {
			problems = errors.Join(problems, err)
			continue
		}
		removed++
	}
	return removed, problems
}

// DropProbe removes the probe under a key from a home.
func (v *Vault) DropProbe(ctx context.Context, homeName, tokenVaultKey string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	return home.Delete(ctx, probeAccount(tokenVaultKey))
}

// CanProbe returns what keeps a home from being probed, before anything is noted of it.
func (v *Vault) CanProbe(ctx context.Context, homeName, tokenVaultKey string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	if err := home.CanDelete(ctx, probeAccount(tokenVaultKey)); err != nil && !errors.Is(err, ErrNoItem) {
		return err
	}
	return nil
}
