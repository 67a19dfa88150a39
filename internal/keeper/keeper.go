// Package keeper has the rules by which a grant is made, refreshed, used and
// removed, so that no refresh token is ever lost. docs/architecture.md tells
// them in one place, each with its reason.
package keeper

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// Vault is all that the rules need from a place that keeps grants. The caller must
// hold the grant's lock to write a grant or a journal.
type Vault interface {
	// Lock waits for a grant's lock, LockLogin takes a company's or fails.
	Lock(context.Context, grant.ID) (unlock func(), err error)
	LockLogin(ctx context.Context, company string) (unlock func(), err error)

	// Record returns what is not secret about a grant, Get the whole of it, and GetOf the
	// same where the record was read before.
	Record(context.Context, grant.ID) (grant.Record, error)
	Get(context.Context, grant.ID) (grant.Grant, error)
	GetOf(context.Context, grant.Record) (grant.Grant, error)
	// Put stores a grant in place of the generation expected, 0 for a new
	// Token Vault Key, which takes the place of the company's earlier grant. Settles is
	// the attempt whose answer it is made of.
	Put(ctx context.Context, g grant.Grant, expected int64, settles *grant.Journal) error
	// Note changes what is said of a grant's state, Align a record that is older than
	// its item.
	Note(context.Context, grant.ID, func(*grant.Local)) error
	Align(context.Context, grant.Grant) error
	// Rename gives a grant to another name of its company, Move puts its secrets in
	// another home, Delete removes it for good.
	Rename(ctx context.Context, from, to grant.ID) error
	Move(ctx context.Context, id grant.ID, home string) (grant.Record, error)
	Delete(context.Context, grant.ID) error
	// Import stores a grant of which no record or no item is here, with the journal
	// of a refresh that is pending, if there is one; it fails where any other home
	// has it.
	Import(ctx context.Context, g grant.Grant, at time.Time, pending *grant.Journal) error
	// Prove shows that a secret of so many bytes could be written, MakeRoom also keeps
	// room for it until done is called. ProveJournal shows that what is sealed for a
	// grant can be opened again; it returns the grant with a new key where it could not.
	Prove(ctx context.Context, id grant.ID, home, tokenVaultKey string, size int) error
	MakeRoom(ctx context.Context, id grant.ID, home, tokenVaultKey string, size int) (done func(), err error)
	ProveJournal(context.Context, grant.Grant) (grant.Grant, error)

	// Ready says why no new authorization could be put in place now, before a person is asked.
	Ready(context.Context) error
	// Claim writes an attempt before a request is sent, LastLook makes sure that it is
	// the latest, Seal puts the answer into it,
	// with the grant that the token was sent of, Mark notes what became of it.
	Claim(context.Context, *grant.Journal) error
	LastLook(context.Context, grant.Journal) error
	Seal(ctx context.Context, j *grant.Journal, old *grant.Grant, answer []byte) error
	Mark(context.Context, *grant.Journal) error
	// Attempts are those beside a grant, Answer opens one's answer.
	Attempts(context.Context, grant.ID) ([]grant.Journal, error)
	Answer(context.Context, grant.Journal) (vault.Answer, error)
	// Settle says that a grant has all that its attempts made, Forget removes those of a
	// grant that is no more, Abandon those of an authorization with the secrets that it
	// announced.
	Settle(context.Context, grant.Record) error
	Forget(context.Context, grant.Journal) error
	Abandon(context.Context, grant.Journal) error
	// Announced returns the grant that a journal announced, where its item is
	// in the home already and no record speaks of it. FinishReplacing removes what that
	// took the place of.
	Announced(context.Context, grant.Journal) (grant.Grant, error)
	FinishReplacing(context.Context, grant.Journal) error
}

// Keeper applies the rules to the grants of a vault. A process has one Keeper for
// its whole life, and any number of goroutines use it at once. A Keeper holds no
// state of a single call, and its fields do not change while it is used.
type Keeper struct {
	Vault Vault
	// Client returns the application that a grant belongs to, with its secret.
	// It is asked only when a request is going to be sent.
	Client func(context.Context, grant.ID) (*ups.Client, error)
	Now    func() time.Time
	// RetryUnknownAfter is how long to wait before a refresh token whose fate
	// is unknown is sent again: to a strict server a late first request and its
	// retry together look like theft.
	RetryUnknownAfter time.Duration
	// Wait waits for a moment or for the context, whichever is first.
	Wait func(context.Context, time.Duration) error
	// Happened, where set, is told what became of grants, and Notice what to know
	// beside what a call returns. Both get the context of the call that they come
	// from, so that whoever serves many at once can tell whose it is. They may be
	// called by several goroutines at once.
	Happened func(context.Context, grant.Event)
	Notice   func(context.Context, Notice)

	pauses pauses
}

// Notice is something to know beside what a call returns. It has no secrets.
type Notice struct {
	Level Level
	ID    grant.ID // the grant that the call is about
	Text  string
	// About is the text without what differs from one time to the next, and Err the
	// error in it, nil for none: what tells one notice from another.
	About string
	Err   error
}

// Level is who a Notice is for.
type Level int

const (
	// Detail is a step, for whoever looks for a fault.
	Detail Level = iota
	// Warning is what a person should know although the call may go well.
	Warning
)

// ClientChangedError says that a grant was made with a client or base URL that
// differs from the configured one. Nothing was sent.
type ClientChangedError struct {
	ID         grant.ID
	What       string // "client ID" or "base URL"
	Made, Have string
}

func (e *ClientChangedError) Error() string {
	return fmt.Sprintf("%s was authorized with the %s %s, and %s is configured now; nothing was sent", e.ID, e.What, e.Made, e.Have)
}

// GoneError says that a grant has to be authorized again, and why.
type GoneError struct {
	ID  grant.ID
	Why string
	// Void says that UPS refused the refresh token, now or earlier, and Told that Why says how
	// that came to be.
	Void, Told bool
	Err        error
}

// Gone is the error of a grant by its record, in a state that only a person ends. Refused is what
// UPS said, empty where that is not known.
func Gone(r grant.Record, state grant.State, refused string) *GoneError {
	e := &GoneError{ID: r.ID, Void: state == grant.Void, Told: r.Loss != ""}
	switch {
	case refused != "":
	case e.Void && e.Told:
		refused = refusedForGood
	default:
		refused = strings.TrimSuffix(state.Meaning(), ".")
	}
	e.Why = withLoss(refused, r)
	return e
}

const refusedForGood = "UPS refused its refresh token"

func (e *GoneError) Error() string {
	return fmt.Sprintf("%s must be authorized again: %s", e.ID, e.Why)
}

func (e *GoneError) Unwrap() error { return e.Err }

// ContestedError says that UPS refused a refresh token, and that another host which shares
// the vault may have the next one: it has asked UPS, and its answer has not arrived.
type ContestedError struct {
	ID  grant.ID
	Why string
	// Loss says which host is awaited, or why that is not known; empty where nothing tells.
	Loss string
	Err  error
}

func (e *ContestedError) Error() string {
	awaited := e.Loss
	if awaited == "" {
		awaited = "Another host has asked UPS, and its answer has not arrived."
	}
	return fmt.Sprintf("%s is interrupted. %s %s", e.ID, awaited, e.Why)
}

func (e *ContestedError) Unwrap() error { return e.Err }

// PendingError says that a refresh token was sent, that the outcome is unknown, and
// that it is too early to send the token again.
type PendingError struct {
	ID    grant.ID
	Since time.Time
	Again time.Duration // how long to wait
	What  string        // what happened, as far as known
	// Kept is the file in which an answer is kept, sealed, that could not be used;
	// empty for none.
	Kept string
}

func (e *PendingError) Error() string {
	what := "has no known outcome"
	kept := ""
	if e.Kept != "" {
		what, kept = "got an answer that can't be used", keptWords(e.Kept)
	}
	return fmt.Sprintf("the refresh of %s at %s %s (%s)%s; upsauth may send the same token again in %s",
		e.ID, e.Since.UTC().Format(time.RFC3339), what, e.What, kept, legible.Duration(e.Again.Round(time.Second)))
}

// TooShortError says that UPS's access tokens do not last as long as asked for.
type TooShortError struct {
	Asked, Lifetime time.Duration
}

func (e *TooShortError) Error() string {
	lasts := e.Lifetime
	if near := lasts.Round(time.Minute); near-lasts == time.Second && near < e.Asked {
		lasts = near // UPS counts 3599 s for an hour
	}
	return fmt.Sprintf("UPS's access tokens last %s, so none can stay valid for another %s", legible.Duration(lasts), legible.Duration(e.Asked))
}

// SavedError says that the tokens are safe, although the command did not finish.
type SavedError struct{ Err error }

func (e *SavedError) Error() string { return e.Err.Error() }

func (e *SavedError) Unwrap() error { return e.Err }

func (k *Keeper) happened(ctx context.Context, id grant.ID, what grant.EventKind, user, detail string) {
	if k.Happened != nil {
		k.Happened(ctx, grant.Event{Time: k.Now().UTC(), What: what, ID: id, User: user, Detail: detail})
	}
}

func (k *Keeper) log(ctx context.Context, id grant.ID, format string, args ...any) {
	k.notice(ctx, Detail, id, format, args...)
}

func (k *Keeper) warn(ctx context.Context, id grant.ID, format string, args ...any) {
	k.notice(ctx, Warning, id, format, args...)
}

func (k *Keeper) notice(ctx context.Context, level Level, id grant.ID, format string, args ...any) {
	if k.Notice != nil {
		n := Notice{Level: level, ID: id, Text: fmt.Sprintf(format, args...), About: format}
		for _, arg := range args {
			if err, ok := arg.(error); ok {
				n.Err = err
			}
		}
		k.Notice(ctx, n)
	}
}
