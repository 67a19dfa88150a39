package grant

import (
	"cmp"
	"slices"
	"time"
)

// Purpose is what an exchange with UPS is for.
type Purpose string

const (
	Authorizing Purpose = "authorize"
	Refreshing  Purpose = "refresh"
)

// Journal is the trace of one attempt at an exchange with UPS that may be cut off at
// any instant: what is about to be sent, written before; then the answer, sealed; and
// what became of it, where that is not in the grant.
type Journal struct {
	Version int `json:"version"`
	// Nonce tells this attempt from all others, and Attempt counts how often the same
	// token was sent, from 1.
	Nonce string `json:"nonce,omitempty"`
	ID
	Purpose Purpose `json:"purpose"`
	// TokenVaultKey and Generation are of the grant that the exchange makes.
	TokenVaultKey string `json:"token_vault_key"`
	Generation    int64  `json:"generation"`
	// Replaces is the Token Vault Key that the company had when an
	// authorization began, empty for none: once it has another, or none any
	// more, the authorization has been overtaken.
	Replaces string `json:"replaces,omitempty"`
	// ReplacesIn is the home that has the grant that is replaced.
	ReplacesIn string `json:"replaces_vault,omitempty"`
	// ExpectUser is the only ups.com user whose authorization may be kept, empty
	// for any.
	ExpectUser string `json:"expect_user,omitempty"`
	// ClientID and BaseURL are what the exchange is made with.
	ClientID string `json:"client_id"`
	BaseURL  string `json:"base_url"`
	Attempt  int    `json:"attempt"`
	// Proxied says that the attempt went through a proxy, which may deliver it
	// after this process.
	Proxied bool `json:"proxied,omitempty"`
	// Home is the home that has the identity which opens the answer, and
	// Recipient what it is sealed to.
	Home      string `json:"vault"`
	Recipient string `json:"recipient"`

	Fate

	// Shared is what the hosts that share a vault tell attempts by, nil in any other vault.
	Shared *Shared `json:"shared,omitempty"`
	// Spare is the nonce of an attempt whose answer has the token that is sent, empty where
	// that is the grant's.
	Spare string `json:"-"`
	// Answered says that a sealed answer is in the journal.
	Answered bool `json:"-"`
	// Path is the file that has the journal. Elsewhere says that it has a copy with
	// the answer, which could not be sealed into the journal itself.
	Path      string `json:"-"`
	Elsewhere bool   `json:"-"`
	// News says that whoever claimed the attempt has not come to its end.
	News bool `json:"-"`
}

// Shared is whose an attempt is, and which token it sends, among hosts that share a vault.
type Shared struct {
	// Host is the host's ID, Incarnation which of its lives, Epoch the database's when the
	// attempt was written.
	Host        string `json:"host"`
	Incarnation int64  `json:"incarnation"`
	Epoch       int64  `json:"epoch"`
	// Sends is the place, among the attempts that made it, of the token that is sent; zero
	// for a sign-in.
	Sends int `json:"sends,omitempty"`
	// Name is the host's name where the attempt is another host's; empty for this host's. Until
	// is when any host may send the token again, zero for not without a person.
	Name  string    `json:"-"`
	Until time.Time `json:"-"`
}

// AnotherHost is the name of the host whose attempt it is, empty for this host.
func (j Journal) AnotherHost() string {
	if j.Shared == nil {
		return ""
	}
	return j.Shared.Name
}

// Fate is what is known of an attempt beside its answer. It changes.
type Fate struct {
	// Time is when the token was sent, UTC, by this machine's clock; later where that
	// was set back since.
	Time time.Time `json:"time"`
	// Outcome is what became of the attempt where its fate is unknown.
	Outcome string `json:"outcome,omitempty"`
	// Asks says that somebody is to be asked where it is another user than that
	// of the grant that is replaced. Unconfirmed says that another signed in than was to
	// be expected, and that nobody has said yes to that.
	Asks        bool `json:"asks,omitempty"`
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	// Unsent says that the attempt spent nothing: the fate of an earlier one is as
	// unknown as before.
	Unsent bool `json:"unsent,omitempty"`
	// Refused says that UPS refused the token in the end, and that an answer which
	// nobody could use is kept: there is nothing left to send.
	Refused bool `json:"refused,omitempty"`
	// Over says that nothing is to come of this attempt nor of those before it.
	Over bool `json:"over,omitempty"`
	// Dead says that UPS refused the refresh token of the answer, which had another place too.
	Dead bool `json:"dead,omitempty"`
	// Place is the attempt's among those of all hosts at its generation, where a database that
	// lost it gave it another since; zero where it is as it was claimed.
	Place int `json:"place,omitempty"`
}

// Later orders attempts by what they make, then by their number.
func (j Journal) Later(other Journal) int {
	return cmp.Or(cmp.Compare(j.Generation, other.Generation), cmp.Compare(j.Attempt, other.Attempt))
}

// Reached is the generation that a grant certainly had, of attempts under its Token Vault
// Key: each is made with the generation before it.
func Reached(attempts []Journal) (generation int64) {
	for _, j := range attempts {
		generation = max(generation, j.Generation-1)
	}
	return generation
}

// Ended reports whether UPS refused the refresh token of a generation for good, as far as
// attempts tell that are all under one Token Vault Key.
func Ended(attempts []Journal, generation int64) bool {
	return slices.ContainsFunc(attempts, func(j Journal) bool {
		return j.Purpose == Refreshing && j.Over && !j.Unsent && j.Generation == generation+1
	})
}

// Unsettled are the attempts at what a grant of a generation does not have yet, of
// attempts under one Token Vault Key with the latest first: those whose answer is to be
// put in place, or whose fate nobody knows. Kept are those with an answer that nobody
// could use.
func Unsettled(attempts []Journal, generation int64) (open, kept []Journal) {
	over := int64(0)
	for _, j := range attempts {
		if j.Generation <= generation || j.Unsent {
			continue
		}
		if j.Over {
			over = j.Generation
		}
		if j.Answered && (j.Generation == over || j.Outcome != "") {
			kept = append(kept, j)
		}
		if j.Generation != over {
			open = append(open, j)
		}
	}
	return open, kept
}
