// Package grant is the vocabulary of upsauth: what a grant is, what is secret
// about it, and which state it is in.
package grant

import (
	"encoding/json"
	"time"
)

// RecordVersion is the format version of a record, of an item and of a journal. The
// second is that of journals with two slots: an upsauth that does not know these must
// not touch their grants.
const RecordVersion = 2

// MovedVersion is the format version of a record whose grant lives in another vault: an
// upsauth that does not know tombstones must not use what is left beside it.
const MovedVersion = 3

// FormatOf is the format version that a file or an item names, read on its own
// as nothing else in it need be as it is now; 0 where it names none.
func FormatOf(data []byte) int {
	var format struct {
		Version int `json:"version"`
	}
	_ = json.Unmarshal(data, &format)
	return format.Version
}

// Facts are what is not secret about a grant and what its item says too: whoever
// has the item can tell them again. All times are UTC.
type Facts struct {
	ID

	// TokenVaultKey is the grant's GUID, upper case, new at each
	// authorization. It is the account name of the grant's item.
	TokenVaultKey string `json:"token_vault_key"`
	// Generation counts the token pairs of one Token Vault Key, from 1.
	Generation int64 `json:"generation"`
	// User is who signed in at ups.com, as the access token says. It is for
	// display and comparison only: nobody here verifies the token.
	User string `json:"user,omitempty"`
	// ClientID and BaseURL are what the grant was made with. A refresh token
	// is never sent on behalf of another client or to another host.
	ClientID string `json:"client_id"`
	BaseURL  string `json:"base_url"`

	// The four times as UPS gives them, by UPS's clock.
	Issued              time.Time `json:"issued,omitzero"`
	Expires             time.Time `json:"expires,omitzero"`
	RefreshTokenIssued  time.Time `json:"refresh_token_issued,omitzero"`
	RefreshTokenExpires time.Time `json:"refresh_token_expires,omitzero"`

	// The same reckoned by this machine's clock: Requested is the moment
	// before the request for the access token was sent, the others follow from
	// the lifetimes in UPS's answer. Zero is unknown.
	Requested    time.Time `json:"requested,omitzero"`
	AccessUntil  time.Time `json:"access_until,omitzero"`
	RefreshUntil time.Time `json:"refresh_until,omitzero"`

	// RefreshCount is how often the grant was refreshed, as this vault counted.
	RefreshCount int64 `json:"refresh_count"`
	// NoRefreshToken says that UPS never gave a refresh token.
	NoRefreshToken bool `json:"no_refresh_token,omitzero"`

	// Home names the home that has the secrets: "keychain" or "file".
	Home string `json:"vault"`
	// JournalRecipient is the age recipient that answers are sealed to.
	JournalRecipient string `json:"journal_recipient,omitempty"`
}

// Local is what this vault alone knows of a grant: no item tells it, and an item
// that is put in place of another leaves it as it was unless the change says so.
type Local struct {
	// Was is the company's name before a rename that may have been cut off:
	// the name whose slot the record lies in is the one that counts.
	Was string `json:"was,omitempty"`
	// Void says that UPS refused the refresh token.
	Void bool `json:"void,omitzero"`
	// Removing is the tombstone of a revoke that has begun: the grant is gone,
	// the next command that opens its home finishes the removal.
	Removing bool `json:"removing,omitzero"`
	// Superseded are earlier grants of the same company whose items may still
	// be in their homes.
	Superseded []Place `json:"superseded,omitempty"`
	// LastError is what went wrong last, nil once something succeeded.
	LastError *LastError `json:"last_error,omitempty"`
	// Moved says that the grant lives in another vault, or comes from there and is not
	// used here yet; nil for a grant that lives here.
	Moved *Moved `json:"moved,omitempty"`
}

// Moved is what a vault knows of a grant that another vault has: a tombstone, or the mark
// of one that is on its way.
type Moved struct {
	// Home has the secrets in the other vault: "shared", "keychain" or "file".
	Home string `json:"vault"`
	// Vault tells the other vault from all others: a random ID, that of the shared vault
	// or that of the host.
	Vault string `json:"id"`
	// Host is what people call the machine whose vault it is, empty for a shared one.
	Host string    `json:"host,omitempty"`
	At   time.Time `json:"time"`
	// Arriving says that the grant is to be moved here. It is the other vault's until that
	// has a tombstone, and from then on it is this one's.
	Arriving bool `json:"arriving,omitzero"`
}

// String is what a sentence calls the other vault, behind "the".
func (m Moved) String() string {
	name := m.Home + " vault"
	if m.Home == "keychain" {
		name = m.Home
	}
	if m.Host == "" {
		return name
	}
	return name + " of " + m.Host
}

// Record is what is not secret about a grant. It is kept apart from the
// secrets so that status never has to open a keychain.
type Record struct {
	Version int `json:"version"`
	Facts
	Local

	// Revision is what a store tells two versions of a row by, opaque to all others;
	// zero for what no store has yet. A change is made only to the revision that was
	// read.
	Revision uint64 `json:"-"`
	// Interrupted says that a journal lies beside the grant and that nobody is
	// at work on it. It is found out when records are read and never stored.
	Interrupted bool `json:"-"`
	// Contested says that UPS refused the refresh token that stands, and that a host which
	// shares the vault may have another: the grant is interrupted until that is known.
	Contested bool `json:"-"`
	Found     `json:"-"`
}

// Found is what is known of a grant from elsewhere than its record. It is never
// stored with the record.
type Found struct {
	// CutOff is what the journal says about the exchange that has no outcome
	// yet, nil for a grant that is not interrupted.
	CutOff *Journal
	// VoidWith is a grant of the same ups.com user that UPS refused after this
	// grant was last good, nil for none: this one is probably void too.
	VoidWith *ID
	// Contact is whom to ring about the company, Note what else is to be known.
	Contact, Note string
	// InvitedUntil is when the address ends that the customer was sent to sign in with,
	// zero where no invitation is open.
	InvitedUntil time.Time
	// WrongUser says that the last who signed in with that address was another user than
	// the expected one. Waits is the ID of an invitation whose user the sender has to
	// confirm or refuse, empty for none.
	WrongUser bool
	Waits     string
	// Asked is who asked UPS for the token that stands, among hosts that share a vault; nil
	// where that is not known. Loss says in sentences how the grant came to be without a
	// token that UPS takes, as far as the hosts' requests tell; empty for nothing.
	Asked *Asked
	Loss  string
}

// Asked is a request of a host that shares a vault.
type Asked struct {
	Host string
	Time time.Time // by the clock that all hosts share
}

// Place is where items of an earlier grant may still be.
type Place struct {
	TokenVaultKey string `json:"token_vault_key"`
	Home          string `json:"vault"`
}

// Place is where the secrets of the grant are.
func (r Record) Place() Place {
	return Place{TokenVaultKey: r.TokenVaultKey, Home: r.Home}
}

// LastError is the last failure of a grant, without secrets.
type LastError struct {
	Code string `json:"code"`
	// Kind is what a refusal of UPS's means, as UPS's codes do not always tell; empty for
	// what earlier versions noted, and for what is no refusal.
	Kind    string    `json:"kind,omitempty"`
	Message string    `json:"message"`
	Time    time.Time `json:"time"`
}

// Secrets are the two tokens of a grant.
type Secrets struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type,omitempty"`
	RefreshToken string `json:"refresh_token"`
	Scope        string `json:"scope,omitempty"`
}

// Grant is a record with its secrets: what the home keeps as one item.
type Grant struct {
	Record
	Secrets
}

// Lifetime is how long the access token was good for when it was issued, zero
// when unknown.
func (r Record) Lifetime() time.Duration {
	if r.AccessUntil.IsZero() || r.Requested.IsZero() {
		return 0
	}
	return r.AccessUntil.Sub(r.Requested)
}

// AccessGood reports whether the access token is good now and for at least
// another atLeast. A clock that stands before the moment of the request was
// set back since, so that nothing can be said: the token counts as expired.
func (r Record) AccessGood(now time.Time, atLeast time.Duration) bool {
	if r.AccessUntil.IsZero() || now.Before(r.Requested) {
		return false
	}
	return now.Before(r.AccessUntil) && !now.Add(atLeast).After(r.AccessUntil)
}
