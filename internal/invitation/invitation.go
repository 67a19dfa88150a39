// Package invitation has the rules of invitations: an address that a customer opens on a
// machine of their own, to sign in at ups.com for one company, application and
// environment. It has no secrets: of an address only the SHA-256 is kept.
package invitation

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/grant"
)

// Invitation is what is known of one.
type Invitation struct {
	// ID is what people and commands call it by: the first letters of its Key.
	ID string
	// CompanyID is the identity of the company, which follows renames (see company.Book),
	// and Company what it was called when it was invited.
	CompanyID, Company       string
	Application, Environment string
	// ClientID is the application's as it was, and Replaces the Token Vault Key of the
	// grant that there was, empty for none.
	ClientID, Replaces string
	// ExpectUser is the only ups.com user whose sign-in is kept. AnyUser says that it may
	// be another one than that of the earlier grant.
	ExpectUser string
	AnyUser    bool
	// Note is for the customer, ReturnURL where their browser goes at the end; both are
	// empty for none.
	Note, ReturnURL string
	// By is who invited, as histories say it; empty for a command.
	By string
	// Made is finer than a second: of two invitations of a grant it tells which came first.
	Made, Expires time.Time

	// Wrong is the last user who signed in and was not the expected one, nil for none.
	Wrong *Visit
	// SignIn is what UPS granted, nil before. It is noted before it is put in place.
	SignIn *SignIn
	// End is how it ended, nil while nothing has noted that.
	End *End
}

// Visit is a user who signed in at ups.com. User is empty where UPS named none.
type Visit struct {
	User string
	At   time.Time
}

// Named is the user as the sender reads it in a sentence.
func (v Visit) Named() string { return cmp.Or(v.User, "a user whom UPS does not name") }

// SignIn is a sign-in that UPS granted, with the Token Vault Key that the grant has, or is
// about to get.
type SignIn struct {
	Visit
	TokenVaultKey string
	// Home is the home of the secrets that wait, for one that is held.
	Home string
	// Held says that it is not put in place until the sender confirms the user, and
	// Doubts why, as sentences for the sender.
	Held   bool
	Doubts []string
}

// End is how an invitation ended.
type End struct {
	Why Why
	At  time.Time
	// User is who signed in, for Completed and Refused.
	User string
}

// Why is what ended an invitation.
type Why string

// What ends an invitation.
const (
	Completed          Why = "completed"           // its sign-in is in place
	Expired            Why = "expired"             // it was not used in time
	Withdrawn          Why = "withdrawn"           // by the sender
	Replaced           Why = "replaced"            // by a newer address for the same grant
	Refused            Why = "refused"             // the sender refused the user who signed in
	CompanyRemoved     Why = "company-removed"     // the company is not known any more
	ApplicationRemoved Why = "application-removed" // the application is not registered any more
	ClientChanged      Why = "client-changed"      // the application has another client ID
	Overtaken          Why = "overtaken"           // the grant was authorized otherwise
)

// Whys are all that end an invitation.
func Whys() []Why {
	return []Why{Completed, Expired, Withdrawn, Replaced, Refused, CompanyRemoved, ApplicationRemoved, ClientChanged, Overtaken}
}

// Check reports what can't be so in an invitation: what a store has may be anything.
func (i Invitation) Check() error {
	if err := (grant.ID{Company: i.Company, Application: i.Application, Environment: i.Environment}).Check(); err != nil {
		return err
	}
	switch {
	case i.CompanyID == "":
		return errors.New("it names no company")
	case i.ClientID == "":
		return errors.New("it names no client ID")
	case i.Made.IsZero(), !i.Made.Before(i.Expires):
		return errors.New("it ends before it begins")
	case i.SignIn != nil && i.SignIn.TokenVaultKey == "":
		return errors.New("it has a sign-in without a Token Vault Key")
	case i.End != nil && !slices.Contains(Whys(), i.End.Why):
		return errors.New("it has ended for no known reason")
	}
	return nil
}

// State is how far an invitation is.
type State string

// The states, as contracts for programs name them.
const (
	StateOpen      State = "open"
	StateWrongUser State = "wrong-user" // open, and the last who signed in was the wrong one
	StateHeld      State = "held"
	StateCompleted State = "completed"
	StateEnded     State = "ended"
)

// State is the one at a time.
func (i Invitation) State(now time.Time) State {
	switch {
	case i.End != nil && i.End.Why == Completed:
		return StateCompleted
	case i.End != nil:
		return StateEnded
	case i.held():
		return StateHeld
	case !now.Before(i.Expires):
		return StateEnded
	case i.Wrong != nil:
		return StateWrongUser
	}
	return StateOpen
}

func (i Invitation) held() bool { return i.SignIn != nil && i.SignIn.Held }

// Open reports whether somebody can still sign in with it.
func (i Invitation) Open(now time.Time) bool {
	s := i.State(now)
	return s == StateOpen || s == StateWrongUser
}

// Lives reports whether an authorization can still come of it: it is open, or its user
// waits for the sender.
func (i Invitation) Lives(now time.Time) bool { return i.Open(now) || i.State(now) == StateHeld }

// Usual is how long an invitation lasts where nobody says otherwise.
const Usual = 7 * 24 * time.Hour

// Around is what an invitation hangs on, as it is now.
type Around struct {
	// Company is what the company is called, empty for one that was removed.
	Company string
	// ClientID is the application's, empty for one that is not registered.
	ClientID string
	// TokenVaultKey is the grant's, empty for none.
	TokenVaultKey string
}

// Judged is the invitation with the end that it has come to by now. What is noted counts
// first. A sign-in that is held waits for an answer however long that takes.
func (i Invitation) Judged(now time.Time, a Around) Invitation {
	if i.End != nil {
		return i
	}
	end := End{At: now.UTC().Truncate(time.Second)}
	switch {
	case i.SignIn != nil && a.TokenVaultKey == i.SignIn.TokenVaultKey:
		end = End{Why: Completed, At: i.SignIn.At, User: i.SignIn.User}
	case a.Company == "":
		end.Why = CompanyRemoved
	case a.ClientID == "":
		end.Why = ApplicationRemoved
	case a.ClientID != i.ClientID:
		end.Why = ClientChanged
	case a.TokenVaultKey != "" && a.TokenVaultKey != i.Replaces:
		end.Why = Overtaken
	case !i.held() && !now.Before(i.Expires):
		end = End{Why: Expired, At: i.Expires}
	default:
		return i
	}
	i.End = &end
	return i
}

// An address ends in a secret of 160 bits, which no wrapping or change of case by a mail
// program can harm.
const (
	secretBytes   = 20
	secretLetters = 32
	idLetters     = 10
)

var letters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewSecret makes the secret of an address.
func NewSecret() string {
	random := make([]byte, secretBytes)
	_, _ = rand.Read(random) // it never fails
	return letters.EncodeToString(random)
}

// Key is what an invitation is kept by: the SHA-256 of its secret, in letters.
type Key string

// KeyOf is the key of the secret in the last part of an address, as mail programs and
// people leave it: in any case, wrapped, in brackets, and with whatever came behind it as
// long as that is no letter or digit at first. False is for what can be no secret.
func KeyOf(text string) (Key, bool) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || r == '=' {
			return -1 // a line that was wrapped, or its mark in a mail
		}
		return r
	}, text)
	text = strings.TrimLeftFunc(text, func(r rune) bool { return !isLetter(r) })
	if len(text) < secretLetters {
		return "", false
	}
	secret, rest := strings.ToLower(text[:secretLetters]), text[secretLetters:]
	if next, _ := utf8.DecodeRuneInString(rest); rest != "" && isLetter(next) {
		return "", false
	}
	if _, err := letters.DecodeString(secret); err != nil || len(secret) != secretLetters {
		return "", false
	}
	sum := sha256.Sum256([]byte(secret))
	return Key(letters.EncodeToString(sum[:])), true
}

func isLetter(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// ID is what people call the invitation with a valid key.
func (k Key) ID() string { return string(k[:idLetters]) }

// Valid reports whether there can be such a key.
func (k Key) Valid() bool {
	raw, err := letters.DecodeString(string(k))
	return err == nil && len(raw) == sha256.Size && letters.EncodeToString(raw) == string(k)
}
