package manager

import (
	"context"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/serve/signins"
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
	View() signins.View
	// Paste takes the address of the browser's last page. An error changes nothing: the
	// sign-in still waits.
	Paste(ctx context.Context, address string) error
	// Answer says whether the right person signed in, where View asks.
	Answer(ctx context.Context, yes bool) error
	// End ends a sign-in that nobody goes on with.
	End(ctx context.Context) error
}
