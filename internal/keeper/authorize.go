package keeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
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
	// Timeout is how long to wait for the person at the browser, declined consents
	// and codes that came too late included.
	Timeout time.Duration
	// Step is told what happens, in order.
	Step func(Step)
	// Open opens the browser; it must not wait for it. Its context ends when
	// nobody waits for the sign-in any more. StepOpen has said before how the
	// address may be opened.
	Open func(ctx context.Context, address string)
	// Paste, where set, gets the address that the browser ended on from a person
	// who copied it; read makes a callback of it, or says what is wrong with it.
	// It returns io.EOF where nothing more can be pasted. With it a redirect URI
	// that does not lead to this machine needs no callback server.
	Paste func(ctx context.Context, read func(pasted string) (grant.Callback, error)) (grant.Callback, error)
	// GiveUp, where set, waits beside the sign-in once a try came to nothing. Its
	// error ends the sign-in, io.EOF aside.
	GiveUp func(ctx context.Context) error
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
	// Asked, where set, makes the browser's page while Confirm asks about the user.
	Asked func(user string) loopback.Page
	// Page makes the browser's page of the outcome, of an *AwaitedError too.
	Page func(grant.Grant, error) loopback.Page
}

// Step is a moment of an authorization.
type Step struct {
	Kind StepKind
	// Address is where a person can go, for StepOpen; where the callback is
	// awaited, for StepListen.
	Address string
	// ByHand says that no program may be started with the address that is opened,
	// as it carries the sign-in's state, for StepOpen; Private says that no other
	// user of this machine may read the address.
	ByHand, Private bool
	// At is where on this machine that is, host and port, for StepListen.
	At string
	// User is who signed in, for StepSignedIn.
	User string
	// Err is why a try came to nothing, for StepAwaited.
	Err error
	// Notice is what to know, for StepNotice.
	Notice loopback.Notice
}

// StepKind names a moment of an authorization.
type StepKind int

// The moments in their order. StepAwaited and StepNotice come at any time after
// StepOpen: a try came to nothing, and the sign-in is awaited further; something
// is to be known.
const (
	StepListen StepKind = iota
	StepPreflight
	StepOpen
	StepExchange
	StepSignedIn
	StepSaved
	StepAwaited
	StepNotice
)

// DeclinedError says that the person at the browser said no, or that UPS did.
type DeclinedError struct {
	Code, Description string // as in RFC 6749 4.1.2.1
}

func (e *DeclinedError) Error() string { return e.what() + "; nothing was changed" }

func (e *DeclinedError) what() string {
	if e.Code == "access_denied" {
		return "the consent was declined at ups.com"
	}
	sentence := fmt.Sprintf("UPS ended the sign-in with the error %q", e.Code)
	if e.Description != "" {
		sentence += fmt.Sprintf(" (%s)", e.Description)
	}
	return sentence
}

// NobodyError says that nobody finished the sign-in in time.
type NobodyError struct {
	Waited time.Duration
	// Last is why the last try came to nothing, nil where there was none.
	Last error
}

func (e *NobodyError) Error() string {
	sentence := fmt.Sprintf("nobody finished the sign-in within %s", e.Waited)
	var declined *DeclinedError
	switch {
	case errors.As(e.Last, &declined):
		sentence += fmt.Sprintf(" (the last try: %s)", declined.what())
	case e.Last != nil:
		sentence += fmt.Sprintf(" (the last try: %v)", e.Last)
	}
	return sentence + "; nothing was changed"
}

// AwaitedError says that a try came to nothing, and that the sign-in is still
// awaited at the same address.
type AwaitedError struct{ Err error }

func (e *AwaitedError) Error() string { return e.Err.Error() }

func (e *AwaitedError) Unwrap() error { return e.Err }

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
func (k *Keeper) listen(ctx context.Context, login Login, state string) (*callbackServer, error) {
	uri := login.Client.RedirectURI
	if login.Paste != nil && login.Listen == "" && !loopback.CanListen(uri, login.TLS != nil) {
		return nil, nil
	}
	server, err := openCallbackServer(ctx, login, state, func(line string) { k.log(ctx, login.ID, "%s", line) })
	if login.Paste != nil && (errors.As(err, new(*loopback.PortError)) || errors.As(err, new(*loopback.BindError))) {
		k.warn(ctx, login.ID, "The callback can't be caught here, so the address has to be pasted: %v.", err)
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
		k.log(ctx, j.ID, "the traces of an unfinished authorization of %s stay for now: %v", j.ID, err)
	}
}

func (k *Keeper) signIn(ctx context.Context, login Login, server *callbackServer, state, verifier string, j *grant.Journal) (grant.Grant, error) {
	if !login.NoPreflight {
		login.Step(Step{Kind: StepPreflight})
		if err := login.Client.Preflight(ctx); err != nil {
			return grant.Grant{}, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, login.Timeout)
	defer cancel()
	k.open(waiting, login, server, state, verifier)
	var last error
	for {
		callback, caught, err := awaitCallback(waiting, login, server, state, last != nil)
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = &NobodyError{Waited: login.Timeout, Last: last}
			}
			return grant.Grant{}, err
		}
		g, err := k.exchange(ctx, login, callback, verifier, j)
		if waiting.Err() == nil && worthAnother(err) {
			if beginErr := k.beginAgain(ctx, j); beginErr != nil {
				return grant.Grant{}, errors.Join(err, beginErr)
			}
			last = err
			if caught {
				k.show(ctx, login.ID, server.Again(login.Page(grant.Grant{}, &AwaitedError{Err: err})))
			}
			login.Step(Step{Kind: StepAwaited, Err: err})
			continue
		}
		if server != nil {
			// The page is for the person at the browser; whoever waits at the
			// terminal gets the outcome in any case.
			k.show(ctx, login.ID, server.Finish(context.WithoutCancel(ctx), login.Page(g, err)))
		}
		if err == nil && ctx.Err() != nil {
			err = &SavedError{Err: ctx.Err()}
		}
		return g, err
	}
}

func (k *Keeper) show(ctx context.Context, id grant.ID, err error) {
	if err != nil {
		k.log(ctx, id, "%v", err)
	}
}

// open has the browser opened. UPS's address carries the state, and other users of
// this machine read what the opener is started with: it gets one of the callback
// server's instead. Where an address can be pasted, or none leads here, the person
// opens UPS's by hand, and it never leaves the terminal.
func (k *Keeper) open(ctx context.Context, login Login, server *callbackServer, state, verifier string) {
	address := login.Client.AuthorizeURL(state, verifier)
	if server == nil || login.Paste != nil {
		login.Step(Step{Kind: StepOpen, Address: address, ByHand: true})
		login.Open(ctx, address)
		return
	}
	start := server.Guard(loopback.Guard{
		Address: func(state string) string { return login.Client.AuthorizeURL(state, verifier) },
		Lasts:   login.Timeout,
	})
	if login.Listen == "" {
		// The cookie that it gives has to be in the browser that signs in.
		address = start
	}
	login.Step(Step{Kind: StepOpen, Address: address, Private: !server.TellsUsers()})
	login.Open(ctx, start)
}

// beginAgain makes the journal ready for the next try. One whose answer was sealed,
// granted by its status and refused by its words, is dropped and begun anew: its answer must never be taken for that of a later try.
func (k *Keeper) beginAgain(ctx context.Context, j *grant.Journal) error {
	if !j.Answered {
		return nil
	}
	j.Answered = false
	j.Attempt++
	if err := k.Vault.Begin(context.WithoutCancel(ctx), j); err != nil {
		return err
	}
	return k.Vault.DropKept(j.ID, j.TokenVaultKey) // a refusal in words has nothing in it
}

// exchange trades the code at once, as it lives for half a minute, and stores
// what comes back. Nothing cancels it from the first byte on.
func (k *Keeper) exchange(ctx context.Context, login Login, callback grant.Callback, verifier string, j *grant.Journal) (grant.Grant, error) {
	if callback.Error != "" {
		return grant.Grant{}, &DeclinedError{Code: ups.Presentable(callback.Error), Description: ups.Presentable(callback.ErrorDescription)}
	}
	login.Step(Step{Kind: StepExchange})
	whole := context.WithoutCancel(ctx)
	answer, needsBasic, err := login.Client.Exchange(whole, callback.Code, verifier, k.keep(j))
	if needsBasic != login.Client.PKCENeedsBasic {
		login.Client.PKCENeedsBasic = needsBasic // for the next try
		if login.Learned != nil {
			login.Learned(needsBasic)
		}
	}
	if err != nil && !answer.OK() {
		return grant.Grant{}, err
	}
	if err != nil {
		k.warn(ctx, j.ID, "%v", err)
	}
	tokens := answer.Tokens()
	if !usable(tokens) {
		refusal := ups.NoTokens(answer, callback.Code, verifier)
		if j.Answered && tokens.Unread {
			return grant.Grant{}, k.keepUnread(whole, j, refusal)
		}
		// A next try begins the journal anew; else nothing is in it to be kept.
		j.Answered = j.Answered && worthAnother(refusal)
		return grant.Grant{}, refusal
	}
	sealed := err == nil
	// From here on there is something to lose, whether it could be sealed or not.
	j.Answered = true
	g := granted(*j, answer, tokens)
	if err := k.rightUser(ctx, login, g.User, j); err != nil {
		j.Answered = false
		return grant.Grant{}, err
	}
	unlock, err := k.putNew(whole, g, answer, j, sealed)
	if err != nil {
		return grant.Grant{}, err
	}
	defer unlock()
	k.happened(whole, g.ID, grant.EventAuthorized, g.User, "")
	if err := k.doubt(whole, &g, tokens); err != nil {
		return g, err
	}
	login.Step(Step{Kind: StepSaved})
	return g, k.Vault.Settle(*j)
}

// keepUnread puts an answer aside that may have tokens which nobody can use, so that
// somebody can look into it. The sign-in came to nothing.
func (k *Keeper) keepUnread(ctx context.Context, j *grant.Journal, refusal error) error {
	j.Attempt++
	if err := k.Vault.Begin(ctx, j); err != nil {
		return errors.Join(refusal, err)
	}
	return k.named(ctx, j.ID, j.TokenVaultKey, refusal)
}

// putNew stores a new grant and returns with its lock held. An answer that is not
// sealed in its journal is tried again for a while.
func (k *Keeper) putNew(ctx context.Context, g grant.Grant, a ups.Answer, j *grant.Journal, sealed bool) (unlock func(), err error) {
	for waited := time.Duration(0); ; waited += placingPause {
		unlock, err := k.Vault.Lock(ctx, g.ID)
		if err == nil {
			if err = k.Vault.Put(ctx, g, 0); err == nil {
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
		if err := k.keep(j)(a); err != nil {
			k.log(ctx, g.ID, "%v", err)
		} else {
			sealed = true
		}
	}
}

// rightUser returns an error where the person who signed in is not the right
// one. The journal says so first, so that a process that ends here has stored
// nothing either.
func (k *Keeper) rightUser(ctx context.Context, login Login, user string, j *grant.Journal) error {
	doubtful := login.ExpectUser == "" && login.Doubts != nil && login.Doubts(user)
	if doubtful {
		j.Unconfirmed = true
		k.amend(ctx, *j)
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
	k.amend(ctx, *j)
	return nil
}

// amend changes what a journal says. That it can't must not cost the tokens that
// are about to be stored.
func (k *Keeper) amend(ctx context.Context, j grant.Journal) {
	if err := k.Vault.Amend(j); err != nil {
		k.warn(ctx, j.ID, "%v", err)
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
