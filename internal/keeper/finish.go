package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// Outcome is what an exchange told.
type Outcome struct {
	// SignedIn says that UPS named a user, or granted without a name: User is
	// empty then.
	SignedIn bool
	User     string
	// Learned says that UPS wants the Authorization header beside the verifier from
	// this application, or wants it no more: NeedsBasic is to be kept for the next.
	Learned, NeedsBasic bool
}

// Finish exchanges the code at once, because a code lives for half a minute, and
// seals the answer. Nothing cancels the exchange once its first byte is sent. An
// *AwaitedError says that this try failed and that another callback can still finish
// the sign-in; any other error ends the sign-in. Without an error, somebody signed
// in and the new grant is not in place yet. The caller then calls Keep or Drop. If
// the caller asks a person which of the two, it first calls MarkUnconfirmed.
func (s *SignIn) Finish(ctx context.Context, callback grant.Callback) (Outcome, error) {
	var outcome Outcome
	if s.unlock == nil || s.answered {
		return outcome, errors.New("the sign-in is over already; nothing was exchanged")
	}
	s.answered = true
	err := s.exchange(ctx, callback, &outcome)
	if !worthAnother(err) {
		return outcome, err
	}
	if beginErr := s.beginAgain(ctx); beginErr != nil {
		return outcome, errors.Join(err, beginErr)
	}
	s.answered = false
	return outcome, &AwaitedError{Err: err}
}

func (s *SignIn) exchange(ctx context.Context, callback grant.Callback, outcome *Outcome) error {
	if callback.Error != "" {
		return &DeclinedError{Code: ups.Presentable(callback.Error), Description: ups.Presentable(callback.ErrorDescription)}
	}
	k, verifier := s.k, s.remembered.verifier()
	whole := context.WithoutCancel(ctx)
	asking, intent := *s.client, *s.j
	asking.Ready = func() error { return k.Vault.LastLook(whole, intent) }
	answer, needsBasic, err := asking.Exchange(whole, callback.Code, verifier, k.keep(whole, s.j, nil))
	if needsBasic != s.client.PKCENeedsBasic {
		s.client.PKCENeedsBasic = needsBasic // for the next try
		outcome.Learned, outcome.NeedsBasic = true, needsBasic
	}
	if err != nil && !answer.OK() {
		return err
	}
	if err != nil {
		k.warn(ctx, s.j.ID, "%v", err)
	}
	tokens := answer.Tokens()
	if !usable(tokens) {
		refusal := ups.NoTokens(answer, callback.Code, verifier)
		if s.j.Answered && tokens.Unread {
			return k.keepUnread(whole, s.j, refusal)
		}
		// Nothing in it is to be kept: it must never be taken for the answer of a later
		// try.
		s.j.Answered, s.j.Unsent = false, true
		return errors.Join(refusal, k.Vault.Mark(whole, s.j))
	}
	// From here on there is something to lose, whether it could be sealed or not.
	s.j.Answered = true
	g := granted(*s.j, answer, tokens)
	outcome.SignedIn, outcome.User = true, g.User
	if expect := s.remembered.ExpectUser; expect != "" && !SameUser(expect, g.User) {
		s.j.Answered = false
		return &OtherUserError{ID: s.j.ID, User: g.User, Expect: expect}
	}
	s.signed = &signed{answer: answer, tokens: tokens, grant: g, sealed: err == nil}
	return nil
}

// beginAgain makes the journal ready for the next try.
func (s *SignIn) beginAgain(ctx context.Context) error {
	if !s.j.Unsent {
		return nil
	}
	s.j.Unsent = false
	s.j.Attempt++
	return s.k.Vault.Claim(context.WithoutCancel(ctx), s.j)
}

// MarkUnconfirmed notes in the journal that nobody has confirmed the user yet. If
// the process ends before somebody confirms the user, nothing is stored.
func (s *SignIn) MarkUnconfirmed(ctx context.Context) {
	s.j.Unconfirmed = true
	s.k.mark(ctx, s.j)
}

// Keep puts the new grant in place of the company's earlier one, which works until
// then. A *SavedError says that it did so although the context had ended.
func (s *SignIn) Keep(ctx context.Context) (grant.Grant, error) {
	if s.signed == nil {
		return grant.Grant{}, errors.New("nobody has signed in, so there is nothing to save")
	}
	k, whole, signed := s.k, context.WithoutCancel(ctx), s.signed
	s.signed = nil
	if s.j.Unconfirmed {
		s.j.Unconfirmed, s.j.Asks = false, false
		k.mark(whole, s.j)
	}
	g := signed.grant
	g.LastError = k.oddity(g, signed.tokens)
	unlock, err := k.putNew(whole, g, signed.answer, s.j, signed.sealed)
	if err != nil {
		return grant.Grant{}, err
	}
	defer unlock()
	k.tellOdd(whole, g)
	k.happened(whole, g.ID, grant.EventAuthorized, g.User, "")
	if ctx.Err() != nil {
		return g, &SavedError{Err: ctx.Err()}
	}
	return g, nil
}

// Drop discards the new grant, and ends the sign-in. The company's earlier grant
// stays.
func (s *SignIn) Drop(ctx context.Context) {
	if s.signed != nil {
		s.signed, s.j.Answered = nil, false
	}
	s.Close(ctx)
}

// Close ends the sign-in and gives the company's turn back. Without an answer, Close
// removes all that Begin made. An answer that was neither kept nor dropped stays,
// sealed, and the next use of the grant decides about the answer by the journal.
func (s *SignIn) Close(ctx context.Context) {
	if s.unlock == nil {
		return
	}
	if !s.j.Answered {
		// The secrets that were announced are of no use without an answer.
		s.k.abandon(ctx, *s.j)
	}
	s.unlock()
	s.unlock = nil
}

// keepUnread keeps an answer that may have tokens which nobody can use, so that
// somebody can look into it. The sign-in came to nothing.
func (k *Keeper) keepUnread(ctx context.Context, j *grant.Journal, refusal error) error {
	j.Over, j.Outcome = true, refusal.Error()
	err := k.Vault.Mark(ctx, j)
	j.Answered = false // nothing of it is to be put in place
	return errors.Join(&UnreadError{Path: j.Path, Err: refusal}, err)
}

// putNew stores a new grant and returns with its lock held. An answer that is not
// sealed in its journal is tried again for a while.
func (k *Keeper) putNew(ctx context.Context, g grant.Grant, a ups.Answer, j *grant.Journal, sealed bool) (unlock func(), err error) {
	for waited := time.Duration(0); ; waited += placingPause {
		unlock, err := k.Vault.Lock(ctx, g.ID)
		if err == nil {
			if err = k.Vault.Put(ctx, g, 0, j); err == nil {
				return unlock, nil
			}
			unlock()
		}
		if sealed && !j.Elsewhere {
			return nil, err
		}
		most := placingNowhere
		if sealed {
			most = placingElsewhere
		}
		switch {
		case waited == 0:
			k.warn(ctx, g.ID, "The new tokens of %s can't be saved; trying again for %s: %s.", g.ID, most, clause(err))
		case waited >= most && sealed:
			return nil, &ElsewhereError{ID: g.ID, Path: j.Path, Err: err}
		case waited >= most:
			return nil, err
		}
		_ = k.Wait(ctx, placingPause)
		if err := k.keep(ctx, j, nil)(a); err != nil {
			k.log(ctx, g.ID, "%v", err)
		} else {
			sealed = true
		}
	}
}

// mark notes what became of an attempt. That it can't must not cost the tokens that
// are about to be stored.
func (k *Keeper) mark(ctx context.Context, j *grant.Journal) {
	if err := k.Vault.Mark(ctx, j); err != nil {
		k.warn(ctx, j.ID, "%v", err)
	}
}

// granted is the grant that an authorization made.
func granted(j grant.Journal, a ups.Answer, t ups.Tokens) grant.Grant {
	g := grant.Grant{Record: grant.Record{
		Facts: grant.Facts{
			ID:               j.ID,
			TokenVaultKey:    j.TokenVaultKey,
			Generation:       j.Generation,
			ClientID:         j.ClientID,
			BaseURL:          j.BaseURL,
			Home:             j.Home,
			JournalRecipient: j.Recipient,
			NoRefreshToken:   true,
		},
	}}
	applyTokens(&g, a, t)
	return g
}

// AwaitedError says that a try failed, and that the sign-in is still awaited at the
// same address.
type AwaitedError struct{ Err error }

func (e *AwaitedError) Error() string { return e.Err.Error() }

func (e *AwaitedError) Unwrap() error { return e.Err }

// DeclinedError says that the person at the browser said no, or that UPS did.
type DeclinedError struct {
	Code, Description string // as in RFC 6749 4.1.2.1
}

func (e *DeclinedError) Error() string { return e.What() + "; nothing was changed" }

// What is what happened, without what came of it.
func (e *DeclinedError) What() string {
	if e.Code == "access_denied" {
		return "the consent was declined at ups.com"
	}
	sentence := fmt.Sprintf("UPS ended the sign-in with the error %q", e.Code)
	if e.Description != "" {
		sentence += fmt.Sprintf(" (%s)", e.Description)
	}
	return sentence
}

// OtherUserError says that another ups.com user signed in than was expected.
// Nothing was stored.
type OtherUserError struct {
	ID           grant.ID
	User, Expect string // User is empty where UPS does not say who it was
}

func (e *OtherUserError) Error() string {
	if e.User == "" {
		return fmt.Sprintf("UPS does not say who signed in for %s, and only %s may; nothing was saved", e.ID, e.Expect)
	}
	return fmt.Sprintf("%[2]s signed in for %[1]s, and only %[3]s may; nothing was saved", e.ID, e.User, e.Expect)
}

// SameUser reports whether two names are the same ups.com user's.
func SameUser(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}

// worthAnother reports whether the same person can do better at the same address:
// a declined consent, or a code that UPS does not take, as one that was pasted too
// late. UPS's words for that are not published, so any refusal of the exchange as a
// bad request (400) that upsauth has no better reason for counts. What is wrong
// with the application, or with UPS, stays wrong; and where nobody knows what
// became of the code, UPS may have granted it already: a person decides then,
// and the exit code says that UPS was the reason.
func worthAnother(err error) bool {
	var declined *DeclinedError
	if errors.As(err, &declined) {
		// RFC 6749 4.1.2.1: these are about the request, which stays the same.
		switch declined.Code {
		case "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope":
			return false
		}
		return true
	}
	var refusal *ups.Error
	return errors.As(err, &refusal) && refusal.Endpoint == ups.TokenEndpoint &&
		(refusal.Kind == ups.CodeRefused || refusal.Kind == ups.Unknown && refusal.Status == http.StatusBadRequest)
}
