package keeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/ups"
)

// Login is one authorization of a company.
type Login struct {
	grant.ID
	// Home is where the secrets of the new grant go.
	Home   string
	Client *ups.Client
	// Listen, where set, is another loopback address for the callback server.
	Listen string
	// PortHolder, where set, names the program that has a port, where the system
	// does not tell.
	PortHolder func(port int) string
	// TLS serves an https redirect URI on loopback.
	TLS *tls.Config
	// NoPreflight leaves out asking UPS before the browser opens.
	NoPreflight bool
	// Timeout is how long to wait for the person at the browser.
	Timeout time.Duration
	// Step is told what happens, in order.
	Step func(Step)
	// Open opens the browser; it must not wait for it. Its context ends when
	// nobody waits for the sign-in any more.
	Open func(ctx context.Context, address string)
	// Paste, where set, gets the address that the browser ended on from a person
	// who copied it; read makes a callback of it, or says what is wrong with it.
	// It returns io.EOF where nothing more can be pasted. With it a redirect URI
	// that does not lead to this machine needs no callback server.
	Paste func(ctx context.Context, read func(pasted string) (loopback.Callback, error)) (loopback.Callback, error)
	// ExpectUser, where set, is the only ups.com user whose sign-in is kept.
	ExpectUser string
	// Asks says that somebody is there to confirm a user who is not the one of the
	// company's earlier authorization.
	Asks bool
	// Doubts reports whether the user who signed in, empty where UPS does not
	// say, has to be confirmed, and Confirm has somebody do so: with its error
	// nothing is stored.
	Doubts  func(user string) bool
	Confirm func(ctx context.Context, user string) error
	// Learned is told that UPS wants the Authorization header beside the
	// verifier from this application.
	Learned func(needsBasic bool)
	// Page makes the browser's last page of the outcome.
	Page func(grant.Grant, error) loopback.Page
}

// Step is a moment of an authorization.
type Step struct {
	Kind StepKind
	// Address is where the browser goes, for StepOpen; where the callback is
	// awaited, for StepListen.
	Address string
	// At is where on this machine that is, host and port, for StepListen.
	At string
	// User is who signed in, for StepSignedIn.
	User string
}

// StepKind names a moment of an authorization.
type StepKind int

// The moments in their order.
const (
	StepListen StepKind = iota
	StepPreflight
	StepOpen
	StepExchange
	StepSignedIn
	StepSaved
)

// DeclinedError says that the person at the browser said no, or that UPS did.
type DeclinedError struct {
	Code, Description string // as in RFC 6749 4.1.2.1
}

func (e *DeclinedError) Error() string {
	if e.Code == "access_denied" {
		return "the consent was declined at ups.com; nothing was changed"
	}
	sentence := fmt.Sprintf("UPS ended the sign-in with the error %q", e.Code)
	if e.Description != "" {
		sentence += fmt.Sprintf(" (%s)", e.Description)
	}
	return sentence + "; nothing was changed"
}

// NobodyError says that nobody finished the sign-in in time.
type NobodyError struct{ Waited time.Duration }

func (e *NobodyError) Error() string {
	return fmt.Sprintf("nobody finished the sign-in within %s; nothing was changed", e.Waited)
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

// Authorize makes a grant: it proves that the home can be written and that UPS
// knows the application, has a person sign in, exchanges the code and puts the
// new grant in place of the company's earlier one, which works until then.
func (k *Keeper) Authorize(ctx context.Context, login Login) (grant.Grant, error) {
	unlock, err := k.Vault.LockLogin(login.Company)
	if err != nil {
		return grant.Grant{}, err
	}
	defer unlock()
	if err := k.settleLogins(ctx, login.ID, login.Home, login.ExpectUser); err != nil {
		return grant.Grant{}, err
	}

	verifier, state := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	server, err := k.listen(ctx, login, state)
	if err != nil {
		return grant.Grant{}, err
	}
	client := *login.Client
	if server != nil {
		defer func() { _ = server.Close() }()
		client.RedirectURI = server.RedirectURI()
		login.Step(Step{Kind: StepListen, Address: client.RedirectURI, At: server.Addrs()[0]})
	}
	login.Client = &client

	j, err := k.prepare(ctx, login)
	if err != nil {
		return grant.Grant{}, err
	}
	g, err := k.signIn(ctx, login, server, state, verifier, &j)
	if err != nil && !j.Answered {
		// The secrets that were announced are of no use without an answer.
		k.abandon(ctx, j)
	}
	return g, err
}

// listen opens the callback server; nil where there is none and the address can
// be pasted.
func (k *Keeper) listen(ctx context.Context, login Login, state string) (*loopback.Server, error) {
	uri := login.Client.RedirectURI
	if login.Paste != nil && login.Listen == "" && !loopback.CanListen(uri, login.TLS != nil) {
		return nil, nil
	}
	server, err := loopback.Listen(ctx, loopback.Config{
		RedirectURI: uri, State: state, Listen: login.Listen, TLS: login.TLS, Holder: login.PortHolder,
		Log: func(line string) { k.log("%s", line) },
	})
	if login.Paste != nil && (errors.As(err, new(*loopback.PortError)) || errors.As(err, new(*loopback.BindError))) {
		k.warn("The callback can't be caught here, so the address has to be pasted: %v.", err)
		return nil, nil
	}
	return server, err
}

// prepare announces the new grant on disk and shows that its home can be
// written, before a person is asked for anything.
func (k *Keeper) prepare(ctx context.Context, login Login) (grant.Journal, error) {
	j := grant.Journal{
		ID: login.ID, Purpose: grant.Authorizing, TokenVaultKey: strings.ToUpper(uuid.NewString()), Generation: 1,
		ClientID: login.Client.ClientID, BaseURL: login.Client.Origin,
		Time: k.Now().UTC(), Vault: login.Home, ExpectUser: login.ExpectUser, Asks: login.Asks,
	}
	if record, err := k.Vault.Record(login.ID); err == nil {
		j.Replaces = record.TokenVaultKey
	} else if !errors.Is(err, grant.ErrNoGrant) {
		return j, err
	}
	if err := k.Vault.Begin(ctx, &j); err != nil {
		return j, err
	}
	const roomy = 4 << 10 // bytes; UPS's tokens take about half of it
	if err := k.Vault.Prove(ctx, login.ID, j.Vault, j.TokenVaultKey, roomy); err != nil {
		k.abandon(ctx, j)
		return j, err
	}
	return j, nil
}

// abandon clears away an authorization that came to nothing. What can't be
// cleared now is cleared by the company's next authorization.
func (k *Keeper) abandon(ctx context.Context, j grant.Journal) {
	if err := k.Vault.Abandon(context.WithoutCancel(ctx), j); err != nil {
		k.log("the traces of an unfinished authorization of %s stay for now: %v", j.ID, err)
	}
}

func (k *Keeper) signIn(ctx context.Context, login Login, server *loopback.Server, state, verifier string, j *grant.Journal) (grant.Grant, error) {
	if !login.NoPreflight {
		login.Step(Step{Kind: StepPreflight})
		if err := login.Client.Preflight(ctx); err != nil {
			return grant.Grant{}, err
		}
	}
	address := login.Client.AuthorizeURL(state, verifier)
	login.Step(Step{Kind: StepOpen, Address: address})
	waiting, cancel := context.WithTimeout(ctx, login.Timeout)
	login.Open(waiting, address)
	callback, err := awaitCallback(waiting, login, server, state)
	cancel()
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = &NobodyError{Waited: login.Timeout}
		}
		return grant.Grant{}, err
	}
	g, err := k.exchange(ctx, login, callback, verifier, j)
	if server != nil {
		// The page is for the person at the browser; whoever waits at the
		// terminal gets the outcome in any case.
		if pageErr := server.Finish(context.WithoutCancel(ctx), login.Page(g, err)); pageErr != nil {
			k.log("%v", pageErr)
		}
	}
	if err == nil && ctx.Err() != nil {
		err = &SavedError{Err: ctx.Err()}
	}
	return g, err
}

// exchange trades the code at once, as it lives for half a minute, and stores
// what comes back. Nothing cancels it from the first byte on.
func (k *Keeper) exchange(ctx context.Context, login Login, callback loopback.Callback, verifier string, j *grant.Journal) (grant.Grant, error) {
	if callback.Error != "" {
		return grant.Grant{}, &DeclinedError{Code: ups.Presentable(callback.Error), Description: ups.Presentable(callback.ErrorDescription)}
	}
	login.Step(Step{Kind: StepExchange})
	whole := context.WithoutCancel(ctx)
	answer, needsBasic, err := login.Client.Exchange(whole, callback.Code, verifier, k.keep(j))
	if login.Learned != nil && needsBasic != login.Client.PKCENeedsBasic {
		login.Learned(needsBasic)
	}
	if err != nil && !answer.OK() {
		return grant.Grant{}, err
	}
	if err != nil {
		k.warn("%v", err)
	}
	tokens := answer.Tokens()
	if !usable(tokens) {
		j.Answered = false
		return grant.Grant{}, ups.NoTokens(answer, callback.Code, verifier)
	}
	// From here on there is something to lose, whether it could be sealed or not.
	j.Answered = true
	g := granted(*j, answer, tokens)
	if err := k.rightUser(ctx, login, g.User, j); err != nil {
		j.Answered = false
		return grant.Grant{}, err
	}
	unlock, err := k.Vault.Lock(whole, login.ID)
	if err != nil {
		return grant.Grant{}, err
	}
	defer unlock()
	if err := k.Vault.Put(whole, g, 0); err != nil {
		return grant.Grant{}, err
	}
	k.happened(g.ID, grant.EventAuthorized, g.User, "")
	if err := k.doubt(&g, tokens); err != nil {
		return g, err
	}
	login.Step(Step{Kind: StepSaved})
	return g, k.Vault.Settle(*j)
}

// rightUser returns an error where the person who signed in is not the right
// one. The journal says so first, so that a process that ends here has stored
// nothing either.
func (k *Keeper) rightUser(ctx context.Context, login Login, user string, j *grant.Journal) error {
	doubtful := login.ExpectUser == "" && login.Doubts != nil && login.Doubts(user)
	if doubtful {
		j.Unconfirmed = true
		k.amend(*j)
	}
	login.Step(Step{Kind: StepSignedIn, User: user})
	if login.ExpectUser != "" && !SameUser(login.ExpectUser, user) {
		return &OtherUserError{ID: login.ID, User: user, Expect: login.ExpectUser}
	}
	if !doubtful {
		return nil
	}
	if err := login.Confirm(ctx, user); err != nil {
		return err
	}
	j.Unconfirmed, j.Asks = false, false
	k.amend(*j)
	return nil
}

// amend changes what a journal says. That it can't must not cost the tokens that
// are about to be stored.
func (k *Keeper) amend(j grant.Journal) {
	if err := k.Vault.Amend(j); err != nil {
		k.warn("%v", err)
	}
}

// granted is the grant that an authorization made.
func granted(j grant.Journal, a ups.Answer, t ups.Tokens) grant.Grant {
	g := grant.Grant{Record: grant.Record{
		ID: j.ID, TokenVaultKey: j.TokenVaultKey, Generation: j.Generation,
		ClientID: j.ClientID, BaseURL: j.BaseURL,
		Vault: j.Vault, JournalRecipient: j.Recipient, NoRefreshToken: true,
	}}
	applyTokens(&g, a, t)
	return g
}
