package keeper

import (
	"context"
	"errors"
	"fmt"
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

// Turn is a company's turn to be authorized: nobody else can sign in for the
// company, and the leftovers of earlier sign-ins are settled. The turn ends when its
// SignIn is closed.
type Turn struct {
	k      *Keeper
	r      Request
	unlock func()
}

// Turn takes the company's turn, or fails where somebody else has it.
func (k *Keeper) Turn(ctx context.Context, r Request) (*Turn, error) {
	unlock, err := k.Vault.LockLogin(ctx, r.Company)
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
	remembered, err := t.k.Prepare(ctx, t.r)
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

// Prepare makes what a sign-in must remember. It takes no lock and writes no
// journal; Resume does both when somebody comes back.
func (k *Keeper) Prepare(ctx context.Context, r Request) (Remembered, error) {
	if err := k.Vault.Ready(ctx); err != nil {
		return Remembered{}, err
	}
	now := k.Now().UTC()
	remembered := Remembered{
		ID: r.ID, Home: r.Home, ClientID: r.Client.ClientID, Origin: r.Client.Origin, RedirectURI: r.Client.RedirectURI,
		ExpectUser: r.ExpectUser, Asks: r.Asks, Begun: now, Ends: now.Add(r.Lasts), Ref: r.Ref,
		secrets: newSecrets(oauth2.GenerateVerifier(), oauth2.GenerateVerifier()),
	}
	record, err := k.Vault.Record(ctx, r.ID)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return Remembered{}, err
	}
	remembered.Replaces = record.TokenVaultKey
	return remembered, nil
}

// Resume continues a sign-in that another process may have begun, right before its
// answer is exchanged. Resume takes the company's turn. It fails with a *StaleError
// if the sign-in has ended or been overtaken since.
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
	record, err := k.Vault.Record(ctx, remembered.ID)
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
		Attempt: 1, Home: r.Home, ExpectUser: r.ExpectUser, Fate: grant.Fate{Time: k.Now().UTC(), Asks: r.Asks},
	}
	if err := k.Vault.Claim(ctx, &j); err != nil {
		return j, err
	}
	const roomy = 4 << 10 // bytes; UPS's tokens take about half of it
	if err := k.Vault.Prove(ctx, r.ID, j.Home, j.TokenVaultKey, roomy); err != nil {
		k.abandon(ctx, j)
		return j, err
	}
	return j, nil
}

// abandon clears away an authorization that came to nothing. What can't be
// cleared now is cleared by the company's next authorization.
func (k *Keeper) abandon(ctx context.Context, j grant.Journal) {
	if err := k.Vault.Abandon(context.WithoutCancel(ctx), j); err != nil {
		k.log(ctx, j.ID, "the leftovers of an unfinished authorization of %s can't be removed yet: %v", j.ID, err)
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
