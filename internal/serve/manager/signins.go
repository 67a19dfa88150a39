package manager

import (
	"context"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// SignIns is where sign-ins that begin on these pages are carried out.
type SignIns interface {
	// Begin begins a sign-in; an earlier one of the same grant ends.
	Begin(ctx context.Context, r Request) (SignIn, error)
	// Get finds a sign-in by its handle, false where there is none or it was forgotten.
	Get(handle string) (SignIn, bool)
}

// Request is a sign-in that somebody asks for.
type Request struct {
	ID grant.ID
	// Page is the address of the sign-in's page, as the person's browser reaches it.
	Page func(handle string) string
	// Elsewhere says that the browser is certainly on another machine, or that the
	// person pastes the address.
	Elsewhere bool
	// Another says that a person knows the company to be new, although its name is near
	// a known one.
	Another bool
}

// SignIn is one sign-in.
type SignIn interface {
	// Handle is random, and what the page's address has.
	Handle() string
	ID() grant.ID
	View() View
	// Paste takes the address of the browser's last page. An error changes nothing: the
	// sign-in still waits.
	Paste(ctx context.Context, address string) error
	// Answer says whether the right person signed in, where View asks.
	Answer(ctx context.Context, yes bool) error
	// End ends a sign-in that nobody goes on with.
	End(ctx context.Context) error
}

// State is how far a sign-in is.
type State string

const (
	// Waiting: for the person at ups.com. Last says why the last try came to nothing.
	Waiting State = "waiting"
	// Exchanging: UPS answered, and its code is exchanged for tokens.
	Exchanging State = "exchanging"
	// Asking: somebody signed in, and a person has to say whether that is the right
	// user. Nothing is in place yet.
	Asking State = "asking"
	// Done: the new grant is in place. In every other state nothing comes of it any more,
	// and Err says why.
	Done State = "done"
)

// Over reports whether a sign-in has ended.
func (s State) Over() bool { return s != Waiting && s != Exchanging && s != Asking }

// View is a sign-in as it is at a moment.
type View struct {
	State State
	// Address is where the person goes on, and AtUPS is UPS's own address, for a browser
	// on another machine whose answer is pasted. They are http or https, and empty once
	// the sign-in is no longer awaited.
	Address, AtUPS string
	// RedirectURI is where UPS sends the browser, ListensAt where that arrives on this
	// machine, host and port; empty where it does not, and the address is pasted. Port is
	// that of the redirect URI, which a browser on another machine needs forwarded to
	// ListensAt. Machine is the name of this one.
	RedirectURI, ListensAt string
	Port                   int
	Machine                string
	// Until is when the sign-in ends at the latest, and with Asking, when the answer has
	// to be there.
	Until time.Time
	// Last is why the last try came to nothing, nil where there was none.
	Last error
	// Warnings are sentences about others who took part.
	Warnings []string
	// User is who signed in, empty before, or where UPS does not say. Doubts are the
	// reasons to think that it is the wrong person, as sentences.
	User   string
	Doubts []string
	// Record is the new grant's, for Done. SecretUntried says that the client secret has
	// not been used yet.
	Record        grant.Record
	SecretUntried bool
	// Err is why it came to nothing, and for Done, what could not be done afterwards.
	Err error
}
