package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// An authorization is begun and finished, perhaps by two processes. Whoever begins
// one sends a person to the address of its SignIn, and finishes it with what the
// browser brings back. Then the new tokens are sealed and not yet in place: Keep puts
// them there, Drop forgets them.

// Request says which authorization is asked for.
type Request struct {
	grant.ID
	// Home is where the secrets of the new grant go.
	Home string
	// Client is the application. Its redirect URI is the one that UPS is asked with.
	Client *ups.Client
	// ExpectUser, where set, is the only ups.com user whose sign-in is kept.
	ExpectUser string
	// Asks says that somebody is there to confirm a user who is not the one of the
	// company's earlier authorization.
	Asks bool
	// Lasts is how long what is remembered of it can be finished.
	Lasts time.Duration
	// Ref is the caller's own and remembered with the rest, such as what it is
	// for. It has no secrets.
	Ref string
}

// Turn is a company's turn to be authorized: nobody else can sign in for it, and what
// earlier sign-ins left is settled. It is over when its SignIn is closed.
type Turn struct {
	k      *Keeper
	r      Request
	unlock func()
}

// Turn takes the company's turn, or fails where somebody else has it.
func (k *Keeper) Turn(ctx context.Context, r Request) (*Turn, error) {
	unlock, err := k.Vault.LockLogin(r.Company)
	if err != nil {
		return nil, err
	}
	if err := k.settleLogins(ctx, r.ID, r.Home, r.ExpectUser); err != nil {
		unlock()
		return nil, err
	}
	return &Turn{k, r, unlock}, nil
}

// Close gives the turn back. It does nothing once a SignIn has it.
func (t *Turn) Close() {
	if t.unlock != nil {
		t.unlock()
		t.unlock = nil
	}
}

// Begin begins the sign-in: it announces the new grant on disk, and shows that its
// home can be written, before a person is asked for anything. The redirect URI is the
// request's, or another where that names no port.
func (t *Turn) Begin(ctx context.Context, redirectURI string) (*SignIn, error) {
	client := *t.r.Client
	client.RedirectURI = redirectURI
	t.r.Client = &client
	remembered, err := t.k.Prepare(t.r)
	if err != nil {
		return nil, err
	}
	return t.begin(ctx, &client, remembered)
}

func (t *Turn) begin(ctx context.Context, client *ups.Client, remembered Remembered) (*SignIn, error) {
	j, err := t.k.announce(ctx, remembered)
	if err != nil {
		return nil, err
	}
	s := &SignIn{k: t.k, client: client, remembered: remembered, j: &j, unlock: t.unlock}
	t.unlock = nil
	return s, nil
}

// Begin takes the company's turn and begins the sign-in.
func (k *Keeper) Begin(ctx context.Context, r Request) (*SignIn, error) {
	t, err := k.Turn(ctx, r)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.Begin(ctx, r.Client.RedirectURI)
}

// Prepare makes what a sign-in has to remember, and touches nothing: no lock, no
// journal. Resume does all of that when somebody comes back.
func (k *Keeper) Prepare(r Request) (Remembered, error) {
	now := k.Now().UTC()
	remembered := Remembered{
		ID: r.ID, Home: r.Home, ClientID: r.Client.ClientID, Origin: r.Client.Origin, RedirectURI: r.Client.RedirectURI,
		ExpectUser: r.ExpectUser, Asks: r.Asks, Begun: now, Ends: now.Add(r.Lasts), Ref: r.Ref,
		secrets: newSecrets(oauth2.GenerateVerifier(), oauth2.GenerateVerifier()),
	}
	record, err := k.Vault.Record(r.ID)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return Remembered{}, err
	}
	remembered.Replaces = record.TokenVaultKey
	return remembered, nil
}

// Resume goes on with a sign-in that perhaps another process began, right before its
// answer is exchanged. It takes the company's turn, and fails with a *StaleError where
// the sign-in has ended or been overtaken since.
func (k *Keeper) Resume(ctx context.Context, remembered Remembered) (*SignIn, error) {
	stale := func(why StaleReason) error { return &StaleError{ID: remembered.ID, Why: why} }
	switch {
	case remembered.secrets == nil:
		return nil, errNotRemembered
	case !k.Now().Before(remembered.Ends):
		return nil, stale(StaleExpired)
	}
	client, err := k.Client(ctx, remembered.ID)
	if err != nil {
		return nil, err
	}
	if client.ClientID != remembered.ClientID || client.Origin != remembered.Origin {
		return nil, stale(StaleClient)
	}
	its := *client
	its.RedirectURI = remembered.RedirectURI // whatever is registered by now, the exchange needs the same
	t, err := k.Turn(ctx, Request{ID: remembered.ID, Home: remembered.Home, Client: &its, ExpectUser: remembered.ExpectUser})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	record, err := k.Vault.Record(remembered.ID)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return nil, err
	}
	if record.TokenVaultKey != remembered.Replaces {
		return nil, stale(StaleOvertaken)
	}
	return t.begin(ctx, &its, remembered)
}

// StaleError says that a sign-in can't be finished any more. Nothing was exchanged.
type StaleError struct {
	ID  grant.ID
	Why StaleReason
}

// StaleReason is why a sign-in can't be finished any more.
type StaleReason string

// What ends a sign-in before its answer comes.
const (
	StaleExpired   StaleReason = "it took too long"
	StaleClient    StaleReason = "the application has another client ID or base URL now"
	StaleOvertaken StaleReason = "the company was authorized or revoked after the sign-in began"
)

func (e *StaleError) Error() string {
	return fmt.Sprintf("the sign-in for %s can't be finished: %s; nothing was changed", e.ID, e.Why)
}

// announce writes the journal of the new grant and shows that its home can be
// written. Each journal has a Token Vault Key of its own: what is remembered can be
// finished more than once, and must never write over the grant that it made before.
func (k *Keeper) announce(ctx context.Context, r Remembered) (grant.Journal, error) {
	j := grant.Journal{
		ID: r.ID, Purpose: grant.Authorizing, TokenVaultKey: strings.ToUpper(uuid.NewString()), Generation: 1,
		Replaces: r.Replaces, ClientID: r.ClientID, BaseURL: r.Origin,
		Time: k.Now().UTC(), Vault: r.Home, ExpectUser: r.ExpectUser, Asks: r.Asks,
	}
	if err := k.Vault.Begin(ctx, &j); err != nil {
		return j, err
	}
	const roomy = 4 << 10 // bytes; UPS's tokens take about half of it
	if err := k.Vault.Prove(ctx, r.ID, j.Vault, j.TokenVaultKey, roomy); err != nil {
		k.abandon(ctx, j)
		return j, err
	}
	return j, nil
}

// abandon clears away an authorization that came to nothing. What can't be
// cleared now is cleared by the company's next authorization.
func (k *Keeper) abandon(ctx context.Context, j grant.Journal) {
	if err := k.Vault.Abandon(context.WithoutCancel(ctx), j); err != nil {
		k.log(ctx, j.ID, "the traces of an unfinished authorization of %s stay for now: %v", j.ID, err)
	}
}

// SignIn is an authorization that was begun. It is used by one goroutine at a time.
type SignIn struct {
	k          *Keeper
	client     *ups.Client
	remembered Remembered
	j          *grant.Journal
	unlock     func()
	answered   bool    // a callback ended it, one way or the other
	signed     *signed // until Keep or Drop
}

// signed is a sign-in that UPS granted and that is not in place yet.
type signed struct {
	answer ups.Answer
	tokens ups.Tokens
	grant  grant.Grant
	sealed bool // in the journal, or elsewhere on this machine
}

// Format names the company and shows nothing else, whatever the verb.
func (s SignIn) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "the sign-in for %s", s.remembered.ID)
}

// State is what the answer has to carry.
func (s *SignIn) State() string { return s.remembered.State() }

// Address is where at UPS a person signs in with a state: with State's, or with
// another one that took its place.
func (s *SignIn) Address(state string) string {
	return s.client.AuthorizeURL(state, s.remembered.verifier())
}

// Preflight asks UPS whether it knows the application and its redirect URI.
func (s *SignIn) Preflight(ctx context.Context) error { return s.client.Preflight(ctx) }

// Remember is what another process needs to finish the sign-in. It can begin once
// this one is closed.
func (s *SignIn) Remember() Remembered { return s.remembered }

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

// Finish exchanges the code at once, as it lives for half a minute, and seals what
// comes back. Nothing cancels it from the first byte on. An *AwaitedError says that
// the try came to nothing and that the sign-in can be finished by another callback;
// any other error ends it. Without an error somebody signed in, and the new grant is
// not in place yet: the caller calls Keep or Drop next, and Doubt before it asks
// anybody which of the two.
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
	answer, needsBasic, err := s.client.Exchange(whole, callback.Code, verifier, k.keep(s.j))
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
		// A next try begins the journal anew; else nothing is in it to be kept.
		s.j.Answered = s.j.Answered && worthAnother(refusal)
		return refusal
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

// beginAgain makes the journal ready for the next try. One whose answer was sealed,
// granted by its status and refused by its words, is dropped and begun anew: its
// answer must never be taken for that of a later try.
func (s *SignIn) beginAgain(ctx context.Context) error {
	if !s.j.Answered {
		return nil
	}
	s.j.Answered = false
	s.j.Attempt++
	if err := s.k.Vault.Begin(context.WithoutCancel(ctx), s.j); err != nil {
		return err
	}
	return s.k.Vault.DropKept(s.j.ID, s.j.TokenVaultKey) // a refusal in words has nothing in it
}

// Doubt says in the journal that nobody has confirmed the user yet, so that a process
// that ends before somebody did has stored nothing.
func (s *SignIn) Doubt(ctx context.Context) {
	s.j.Unconfirmed = true
	s.k.amend(ctx, *s.j)
}

// Keep puts the new grant in place of the company's earlier one, which works until
// then. A *SavedError says that it did so although the context had ended.
func (s *SignIn) Keep(ctx context.Context) (grant.Grant, error) {
	if s.signed == nil {
		return grant.Grant{}, errors.New("nobody has signed in, so there is nothing to be kept")
	}
	k, whole, signed := s.k, context.WithoutCancel(ctx), s.signed
	s.signed = nil
	if s.j.Unconfirmed {
		s.j.Unconfirmed, s.j.Asks = false, false
		k.amend(ctx, *s.j)
	}
	g := signed.grant
	unlock, err := k.putNew(whole, g, signed.answer, s.j, signed.sealed)
	if err != nil {
		return grant.Grant{}, err
	}
	defer unlock()
	k.happened(whole, g.ID, grant.EventAuthorized, g.User, "")
	if err := k.doubt(whole, &g, signed.tokens); err != nil {
		return g, err
	}
	if err := k.Vault.Settle(*s.j); err != nil {
		return g, err
	}
	if ctx.Err() != nil {
		return g, &SavedError{Err: ctx.Err()}
	}
	return g, nil
}

// Drop forgets what somebody signed in for, and ends the sign-in. The company's
// earlier grant stays.
func (s *SignIn) Drop(ctx context.Context) {
	if s.signed != nil {
		s.signed, s.j.Answered = nil, false
	}
	s.Close(ctx)
}

// Close ends the sign-in and gives the company's turn back. Without an answer all
// that was begun is cleared away. An answer that was neither kept nor dropped stays,
// sealed, and the next use of the grant decides by what the journal says.
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

// AwaitedError says that a try came to nothing, and that the sign-in is still
// awaited at the same address.
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
		return fmt.Sprintf("UPS does not say who signed in for %s, and only %s was to; nothing was stored", e.ID, e.Expect)
	}
	return fmt.Sprintf("the sign-in for %s was by %s, and not by %s; nothing was stored", e.ID, e.User, e.Expect)
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
