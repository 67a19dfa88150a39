package grant

import "time"

// State is what a grant is worth at a moment.
type State string

const (
	// Authorized: the access token is good.
	Authorized State = "authorized"
	// Refreshable: the access token expired, the refresh token is good.
	Refreshable State = "refreshable"
	// Expiring: the refresh token ends within ExpiringWithin.
	Expiring State = "expiring"
	// Expired: the refresh token ended.
	Expired State = "expired"
	// Void: UPS refused the refresh token.
	Void State = "void"
	// Interrupted: a refresh or an authorization was cut off; the next use
	// settles it.
	Interrupted State = "interrupted"
	// Unauthorized: the company is known and has no grant.
	Unauthorized State = "unauthorized"
)

// ExpiringWithin is how long before the end of its refresh token a grant is
// called expiring.
const ExpiringWithin = 7 * 24 * time.Hour

// States lists every state, the most urgent first.
func States() []State {
	return []State{Void, Expired, Interrupted, Expiring, Unauthorized, Refreshable, Authorized}
}

// Usable reports whether a grant in a state gives an access token without a person.
func (s State) Usable() bool {
	return s == Authorized || s == Refreshable || s == Expiring
}

// StateAt derives the state of a grant from its record and the clock, and from
// nothing else.
func (r Record) StateAt(now time.Time) State {
	until := r.RefreshEnds(now)
	switch {
	case r.TokenVaultKey == "" || r.Removing:
		return Unauthorized
	case r.Interrupted:
		return Interrupted
	case r.Void:
		return Void
	case r.NoRefreshToken:
		if r.AccessGood(now, 0) {
			return Authorized
		}
		return Expired
	case !until.IsZero() && !now.Before(until):
		return Expired
	case !until.IsZero() && until.Sub(now) <= ExpiringWithin:
		return Expiring
	case r.AccessGood(now, 0):
		return Authorized
	default:
		return Refreshable
	}
}

// RefreshEnds is when the refresh token ends by a clock that says now; zero is
// unknown. There are two reckonings: UPS's own time, and this machine's from the
// moment of the request. They differ by as much as the two clocks did at the
// request, and this machine's may have been set since:
//
//   - It stands before the request: it was set back, and only UPS's time is left.
//   - It was behind at the request: once it is right, this machine's reckoning has
//     ended long before the token does.
//   - It was ahead and is so yet: UPS's time comes too early by this clock.
//
// So the later one counts. Taking a token for good does no harm, as it is tried,
// and UPS decides; taking it for ended sends a person to the browser for nothing.
func (r Record) RefreshEnds(now time.Time) time.Time {
	if r.RefreshUntil.IsZero() || r.RefreshTokenExpires.IsZero() || r.Requested.IsZero() || r.Issued.IsZero() {
		return r.RefreshUntil
	}
	// By how much this machine's clock was ahead of UPS's at the request.
	ahead := r.Requested.Sub(r.Issued)
	if !r.RefreshTokenIssued.Equal(r.Issued) {
		ahead = r.RefreshUntil.Sub(r.RefreshTokenExpires) // it is of an earlier answer
	}
	if ahead < 0 || now.Before(r.Requested) {
		return r.RefreshUntil.Add(-ahead)
	}
	return r.RefreshUntil
}

// Meaning says in one sentence what a state means for the company.
func (s State) Meaning() string {
	switch s {
	case Authorized:
		return "The access token is valid."
	case Refreshable:
		return "The access token has expired; the refresh token is valid. The next use refreshes it."
	case Expiring:
		return "The refresh token expires within 7 days."
	case Expired:
		return "The refresh token has expired."
	case Void:
		return "UPS refused the refresh token. Did the person who signed in change the ups.com password?"
	case Interrupted:
		return "The last exchange with UPS has no outcome yet; the next use finishes it."
	case Unauthorized:
		return "No OAuth token exists for this company."
	}
	return ""
}
