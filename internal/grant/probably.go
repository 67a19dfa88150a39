package grant

import (
	"strings"
	"time"
)

// MarkProbablyVoid sets VoidWith on the grants among records that are probably
// void: another grant among all, of the same ups.com user in the same
// environment, was refused by UPS, and nothing has shown since that this one is
// still good. A changed ups.com password voids all authorizations of its user,
// and UPS says so of one at a time. The records of all have to be among it.
func MarkProbablyVoid(records, all []Record, now time.Time) {
	type user struct{ name, environment string }
	of := func(r *Record) user { return user{strings.ToLower(strings.TrimSpace(r.User)), r.Environment} }
	// The latest refusal of each user says most.
	refused := map[user]*Record{}
	for i := range all {
		r := &all[i]
		if r.User == "" || r.StateAt(now) != Void || r.Loss != "" {
			continue // or it is told otherwise how it came to be void
		}
		if before := refused[of(r)]; before == nil || refusedAt(r).After(refusedAt(before)) {
			refused[of(r)] = r
		}
	}
	for i := range records {
		r := &records[i]
		r.VoidWith = nil
		switch r.StateAt(now) {
		case Authorized, Refreshable, Expiring, Interrupted:
		default:
			continue // nobody doubts that a person is needed
		}
		other := refused[of(r)]
		if r.User == "" || other == nil || r.Requested.After(refusedAt(other)) {
			continue
		}
		id := other.ID
		r.VoidWith = &id
	}
}

// refusedAt is when UPS refused a void grant's refresh token, as far as that is
// known.
func refusedAt(r *Record) time.Time {
	if r.LastError != nil && !r.LastError.Time.IsZero() {
		return r.LastError.Time
	}
	return r.Requested // it was good then, and was refused later
}

// ProbablyVoid reports whether VoidWith is set.
func (r Record) ProbablyVoid() bool { return r.VoidWith != nil }
