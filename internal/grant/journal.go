package grant

import "time"

// Purpose is what an exchange with UPS is for.
type Purpose string

const (
	Authorizing Purpose = "authorize"
	Refreshing  Purpose = "refresh"
)

// Journal is the trace of an exchange with UPS that may be cut off at any
// instant: written before the request is sent, completed with the sealed
// answer, gone once grant and record have what the answer said.
type Journal struct {
	Version int `json:"version"`
	ID
	Purpose Purpose `json:"purpose"`
	// TokenVaultKey and Generation are of the grant that the exchange makes.
	TokenVaultKey string `json:"token_vault_key"`
	Generation    int64  `json:"generation"`
	// Replaces is the Token Vault Key that the company had when an
	// authorization began, empty for none: once it has another, or none any
	// more, the authorization has been overtaken.
	Replaces string `json:"replaces,omitempty"`
	// ExpectUser is the only ups.com user whose authorization may be kept, empty
	// for any. Unconfirmed says that another signed in than was to be expected,
	// and that nobody has said yes to that.
	ExpectUser string `json:"expect_user,omitempty"`
	// Asks says that somebody is to be asked where it is another user than that
	// of the grant that is replaced.
	Asks        bool `json:"asks,omitempty"`
	Unconfirmed bool `json:"unconfirmed,omitempty"`
	// ClientID and BaseURL are what the exchange is made with.
	ClientID string `json:"client_id"`
	BaseURL  string `json:"base_url"`
	// Attempt counts how often the same token was sent, from 1, and Time is
	// when it was sent last, UTC, by this machine's clock.
	Attempt int       `json:"attempt"`
	Time    time.Time `json:"time"`
	// Proxied says that the last attempt went through a proxy, which may deliver it
	// after this process.
	Proxied bool `json:"proxied,omitempty"`
	// Outcome is what became of the last attempt where its fate is unknown.
	Outcome string `json:"outcome,omitempty"`
	// Refused says that UPS refused the token in the end, and that an answer which
	// nobody could use is kept: there is nothing left to send.
	Refused bool `json:"refused,omitempty"`
	// Home is the home that has the identity which opens the answer, and
	// Recipient what it is sealed to.
	Home      string `json:"vault"`
	Recipient string `json:"recipient"`

	// Answered says that a sealed answer is in the journal.
	Answered bool `json:"-"`
	// Path is the file that has the journal. Elsewhere says that it has a copy with
	// the answer, which could not be sealed into the journal itself.
	Path      string `json:"-"`
	Elsewhere bool   `json:"-"`
}
