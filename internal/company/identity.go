package company

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
)

// Identify returns the identity of a company, which it gets now if it has none yet. The
// identity follows the company through renames and new authorizations. When the company
// is removed, its identity goes too: a company that is added under the same name later is
// another one. A company that was not added is added.
func (b *Book) Identify(ctx context.Context, name string, now time.Time) (id string, err error) {
	err = b.change(ctx, []Key{keyOf(name, Added)}, func(rows []Row) (put, remove []Row) {
		row := rows[0]
		if !row.known() {
			row.Entry = Entry{Company: name, Added: now.UTC()}
		}
		if len(row.Entry.IDs) > 0 {
			id = row.Entry.IDs[0]
			return nil, nil
		}
		id = uuid.NewString()
		row.Entry.IDs = []string{id}
		return []Row{row}, nil
	})
	return id, err
}

// Identities returns the identities of a company: none where it has none yet, several where
// companies became one.
func (b *Book) Identities(ctx context.Context, name string) (ids []string, err error) {
	err = b.change(ctx, []Key{keyOf(name, Added)}, func(rows []Row) (put, remove []Row) {
		ids = nil
		if rows[0].known() {
			ids = slices.Clone(rows[0].Entry.IDs)
		}
		return nil, nil
	})
	return ids, err
}

// union are the identities of two companies that become one: whatever was given to either
// counts for both.
func union(kept, other []string) []string {
	all := slices.Concat(kept, other)
	slices.Sort(all)
	return slices.Compact(all)
}

// Identified are the companies that have identities, as they were at one moment.
type Identified struct {
	reading uint64
	byName  map[grant.Folded][]identified
	names   map[string]string
}

type identified struct {
	slot string
	ids  []string
}

// Identified returns the companies that have identities now. Entries that can't be used
// have none. They are read again only where rows may have changed.
func (b *Book) Identified(ctx context.Context) (*Identified, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Before the rows: what changes while they are read is read again the next time.
	reading, err := b.store.Reading(ctx)
	if err != nil {
		return nil, err
	}
	if b.identified != nil && reading != 0 && b.identified.reading == reading {
		return b.identified, nil
	}
	rows, _, err := b.store.List(ctx, Added, nil)
	if err != nil {
		return nil, err
	}
	fresh := &Identified{reading: reading, byName: map[grant.Folded][]identified{}, names: map[string]string{}}
	for _, row := range rows {
		if row = checked(row); !row.known() || len(row.Entry.IDs) == 0 {
			continue
		}
		name := grant.Fold(row.Entry.Company)
		fresh.byName[name] = append(fresh.byName[name], identified{slot: row.Slot, ids: row.Entry.IDs})
		for _, id := range row.Entry.IDs {
			fresh.names[id] = row.Entry.Company
		}
	}
	b.identified = fresh
	return fresh, nil
}

// Has reports whether a company by this name, in any spelling, has one of some
// identities.
func (i *Identified) Has(name string, ids []string) bool {
	return slices.ContainsFunc(i.byName[grant.Fold(name)], func(c identified) bool { return c.is(ids) })
}

// Is reports whether the company that is kept by just this name has one of some
// identities: companies of earlier versions may look the same.
func (i *Identified) Is(name string, ids []string) bool {
	slot := grant.CompanySlot(name)
	return slices.ContainsFunc(i.byName[grant.Fold(name)], func(c identified) bool { return c.slot == slot && c.is(ids) })
}

func (c identified) is(ids []string) bool {
	return slices.ContainsFunc(c.ids, func(id string) bool { return slices.Contains(ids, id) })
}

// Name is what the company with an identity is called now, empty for one that was
// removed.
func (i *Identified) Name(id string) string { return i.names[id] }
