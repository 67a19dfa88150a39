package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
)

// Lost is what was found under a Token Vault Key that is an orphan somewhere.
type Lost struct {
	grant.ID // empty where nothing tells
	grant.Place
	Kind LostKind
	// Copies are the other places that have items of the same grant, which are
	// older or the same.
	Copies []grant.Place
	// Err is why the place can't be looked into, for LostUnreadable.
	Err error
}

// LostKind is what an orphan turned out to be.
type LostKind int

const (
	// LostGrant is a whole grant without a record: Rebuild makes one.
	LostGrant LostKind = iota
	// LostCopy is of a grant whose record says that it is elsewhere.
	LostCopy
	// LostOther is of a company, application and environment that have another
	// grant, on record or later than this one.
	LostOther
	// LostRemains are a grant's smaller items without its own.
	LostRemains
	// LostUnreadable is a place that can't be looked into, or is damaged.
	LostUnreadable
)

// Lost looks into orphans for what they were. Of several copies of a grant the
// latest counts: the refresh tokens of the others are spent.
func (v *Vault) Lost(ctx context.Context, orphans []grant.Place) ([]Lost, error) {
	if len(orphans) == 0 {
		return nil, nil
	}
	spoken, err := v.spokenOf(ctx)
	if err != nil {
		return nil, err
	}
	damaged, err := v.store.Damaged(ctx)
	if err != nil {
		return nil, err
	}
	listed := map[grant.Place]bool{}
	for _, orphan := range orphans {
		listed[orphan] = true
	}
	var found []Lost
	latest := map[string]grant.Grant{} // slot -> the grant that may get the record
	seen := map[string]bool{}
	for _, orphan := range orphans {
		if spoken.places[orphan] {
			continue // it got its record meanwhile
		}
		if id, ok := spoken.records[orphan.TokenVaultKey]; ok {
			found = append(found, Lost{ID: id, Place: orphan, Kind: LostCopy})
			continue
		}
		if seen[orphan.TokenVaultKey] {
			continue // told with the place that has the latest copy
		}
		seen[orphan.TokenVaultKey] = true
		l, g := v.lookInto(ctx, orphan, listed)
		d := damaged[l.TokenVaultKey]
		if l.Kind == LostGrant && g.Generation < d.Generation {
			l.Kind, l.Err = LostUnreadable, olderItem(grant.Record{Facts: grant.Facts{ID: g.ID, Home: l.Home, Generation: d.Generation}}, g.Generation)
		}
		if l.Kind == LostGrant {
			if d.Company != "" {
				g.Company, l.Company = d.Company, d.Company // it was renamed since
			}
			if _, err := v.store.Grant(ctx, l.Slot()); !errors.Is(err, grant.ErrNoGrant) {
				l.Kind = LostOther
			} else if other, taken := latest[l.Slot()]; !taken || g.Requested.After(other.Requested) {
				latest[l.Slot()] = g
			}
		}
		found = append(found, l)
	}
	for i, l := range found {
		if l.Kind == LostGrant && latest[l.Slot()].TokenVaultKey != l.TokenVaultKey {
			found[i].Kind = LostOther
		}
	}
	return found, nil
}

// lookInto finds the latest copy of a grant among all homes. One that is listed
// and can't be read may be a later one.
func (v *Vault) lookInto(ctx context.Context, orphan grant.Place, listed map[grant.Place]bool) (Lost, grant.Grant) {
	l := Lost{Place: orphan, Kind: LostRemains}
	var best grant.Grant
	for _, home := range v.homes() {
		place := grant.Place{TokenVaultKey: orphan.TokenVaultKey, Home: home.Name()}
		g, err := readItem(ctx, home, orphan.TokenVaultKey)
		switch {
		case errors.Is(err, ErrNoItem):
		case err != nil && listed[place]:
			return Lost{Place: orphan, Kind: LostUnreadable, Err: err}, grant.Grant{}
		case err != nil:
			// Many a machine has only one of the homes.
		case best.TokenVaultKey == "":
			best, l.Place = g, place
		case g.Generation > best.Generation:
			l.Copies = append(l.Copies, l.Place)
			best, l.Place = g, place
		default:
			l.Copies = append(l.Copies, place)
		}
	}
	if best.TokenVaultKey != "" {
		l.ID, l.Kind = best.ID, LostGrant
	}
	return l, best
}

// readItem reads a grant out of a home without a record that says what it is.
func readItem(ctx context.Context, home Home, tokenVaultKey string) (grant.Grant, error) {
	secret, err := home.Get(ctx, tokenVaultKey)
	if err != nil {
		return grant.Grant{}, err
	}
	g, err := decodeItem(secret, "the item "+tokenVaultKey)
	if errors.As(err, new(*NewerError)) {
		return grant.Grant{}, err
	}
	if errors.Join(err, g.ID.Check()) != nil || g.TokenVaultKey != tokenVaultKey || g.Generation < 1 {
		return grant.Grant{}, damagedItem(home.Name(), fmt.Sprintf("The secrets under %s in the %s are damaged.", tokenVaultKey, Describe(home.Name())))
	}
	g.Home = home.Name()
	return g, nil
}

// Rebuild makes a record of a LostGrant, and marks its older copies as what is
// to be removed.
func (v *Vault) Rebuild(ctx context.Context, lost Lost) error {
	unlock, err := v.Lock(ctx, lost.ID)
	if err != nil {
		return err
	}
	defer unlock()
	spoken, err := v.spokenOf(ctx)
	if err != nil {
		return err
	}
	if id, ok := spoken.records[lost.TokenVaultKey]; ok {
		return &TakenError{ID: id}
	}
	if record, err := v.store.Grant(ctx, lost.Slot()); err == nil {
		return &TakenError{ID: record.ID}
	} else if !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	home, err := v.homes().Named(lost.Home)
	if err != nil {
		return err
	}
	g, err := readItem(ctx, home, lost.TokenVaultKey)
	if err != nil {
		return err
	}
	g.ID, g.Superseded = lost.ID, lost.Copies
	// That UPS refused the token, the record alone said, and the journal.
	attempts, err := v.store.Attempts(ctx, lost.Slot(), lost.TokenVaultKey)
	if err != nil {
		return err
	}
	attempts = slices.DeleteFunc(attempts, func(j grant.Journal) bool { return j.TokenVaultKey != lost.TokenVaultKey })
	g.Void = grant.Ended(attempts, g.Generation)
	damaged, err := v.store.Damaged(ctx)
	if err != nil {
		return err
	}
	if d, ok := damaged[lost.TokenVaultKey]; ok && d.Slot != lost.Slot() {
		// Its record was damaged under another name: that is not to be rebuilt as well.
		if err := v.store.Drop(ctx, grant.Record{Facts: grant.Facts{ID: grant.ID{Company: d.Company, Application: g.Application, Environment: g.Environment}}}); err != nil {
			return err
		}
	}
	_, err = v.store.Commit(ctx, Change{Record: g.Record, First: true})
	return err
}
