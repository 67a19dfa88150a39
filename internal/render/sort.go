package render

import (
	"cmp"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// Order is what records are sorted by.
type Order string

const (
	// ByUrgency has those first that need a person, then those whose refresh
	// token ends soonest.
	ByUrgency Order = "urgency"
	ByCompany Order = "company"
	// ByExpires and ByIssued are about the access token, as the columns of that
	// name are. The earliest stands first, the unknown last.
	ByExpires Order = "expires"
	ByIssued  Order = "issued"
	// ByState has the most urgent state first.
	ByState Order = "state"
)

// Orders lists every order, the default first.
func Orders() []Order {
	return []Order{ByUrgency, ByCompany, ByState, ByIssued, ByExpires}
}

// ParseOrder reads an order from a flag. The error lists them all.
func ParseOrder(text string) (Order, error) {
	return choose(text, "order", Orders())
}

// SortRecords sorts records in place. What is equal in the order stands by the
// names of company, application and environment, without regard to case.
func SortRecords(records []grant.Record, by Order, now time.Time) {
	// States and folded names are worked out once, not at each comparison, and
	// the records are moved once.
	type entry struct {
		record  *grant.Record
		from    int
		company grant.Folded
		rank    int
		at      time.Time
	}
	ranks := map[string]int{}
	switch by {
	case ByUrgency:
		// The others are as urgent as their refresh token is near its end.
		first := []string{string(grant.Void), string(grant.Expired), probablyVoid, string(grant.Unauthorized), string(grant.Interrupted)}
		for i, state := range first {
			ranks[state] = i - len(first)
		}
	case ByState:
		for i, state := range grant.States() {
			ranks[string(state)] = i
		}
		ranks[probablyVoid] = ranks[string(grant.Expired)]
	}
	entries := make([]entry, len(records))
	for i := range records {
		r := &records[i]
		e := entry{record: r, from: i, company: grant.Fold(r.Company), rank: ranks[shown(r, now)]}
		switch by {
		case ByUrgency, ByState:
			e.at = r.RefreshTokenExpires
		case ByExpires:
			e.at = r.Expires
		case ByIssued:
			e.at = r.Issued
		}
		entries[i] = e
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(a.rank, b.rank),
			compareTimes(a.at, b.at),
			cmp.Compare(a.company, b.company),
			cmp.Compare(a.record.Application, b.record.Application),
			cmp.Compare(a.record.Environment, b.record.Environment),
		)
	})
	// Along the cycles of the order: a copy of all takes as much memory again.
	for start := range entries {
		first, to := records[start], start
		for entries[to].from != start {
			from := entries[to].from
			records[to], entries[to].from = records[from], to
			to = from
		}
		records[to], entries[to].from = first, to
	}
}

// compareTimes puts the unknown behind the known.
func compareTimes(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}
