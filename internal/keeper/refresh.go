package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

var zeroTime time.Time

// Need is what a caller wants of a grant.
type Need struct {
	// MinValid is how long the access token must still be good.
	MinValid time.Duration
	// Always refreshes even a token that is good, unless somebody else did so
	// since Seen was read.
	Always bool
	// Seen is what this request read of the grant first, where it has read it
	// already: with Always, tokens of another generation are fresh ones. It is no
	// matter of time, as clocks are set and processes live for months.
	Seen Seen
	// Refused is an access token that UPS did not take: any other that is good
	// will do.
	Refused string
}

// Seen is a generation of a grant, zero for none.
type Seen struct {
	TokenVaultKey string
	Generation    int64
}

// SeenIn is the generation that a record speaks of.
func SeenIn(r grant.Record) Seen {
	return Seen{TokenVaultKey: r.TokenVaultKey, Generation: r.Generation}
}

// Result is a grant and whether this call refreshed it.
type Result struct {
	grant.Grant
	Refreshed bool
}

// Token returns a grant whose access token is valid for at least minValid. Token
// refreshes the grant at most once, and locks nothing if the stored token is
// sufficient.
func (k *Keeper) Token(ctx context.Context, id grant.ID, minValid time.Duration) (grant.Grant, error) {
	record, err := k.Vault.Record(ctx, id)
	if err == nil && !record.Void && record.AccessGood(k.Now(), minValid) {
		g, err := k.Vault.GetOf(ctx, record)
		switch {
		case err == nil && !g.Void && g.AccessToken != "" && g.AccessGood(k.Now(), minValid):
			return g, nil
		case err != nil && !errors.Is(err, grant.ErrNoSecrets) && !errors.Is(err, grant.ErrOlder):
			return grant.Grant{}, err
		}
		// Without its lock a grant can be replaced between record and item.
	}
	result, err := k.Refresh(ctx, id, Need{MinValid: minValid})
	if unknown := result.Refreshed && result.Lifetime() == 0; err == nil && !unknown && !result.AccessGood(k.Now(), minValid) {
		err = &TooShortError{Asked: minValid, Lifetime: result.Lifetime()}
	}
	return result.Grant, err
}

// Refresh makes a grant meet the need, by the eight rules that never lose a refresh
// token.
func (k *Keeper) Refresh(ctx context.Context, id grant.ID, need Need) (Result, error) {
	seen := need.Seen
	if seen == (Seen{}) {
		if record, err := k.Vault.Record(ctx, id); err == nil {
			seen = SeenIn(record)
		}
	}
	unlock, err := k.Vault.Lock(ctx, id)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	ctx = vault.Latest(ctx) // what is spent is no copy
	for tries := 0; ; tries++ {
		result, err := k.refresh(ctx, id, need, seen)
		if !errors.Is(err, grant.ErrOvertaken) || tries == mostOvertaken {
			return result, err
		}
		k.log(ctx, id, "%s: %v; looking again", id, err)
	}
}

// mostOvertaken is how often a grant is read again that another host has changed meanwhile.
const mostOvertaken = 5

// refresh is Refresh with the grant's lock, for grants as they are now.
func (k *Keeper) refresh(ctx context.Context, id grant.ID, need Need, seen Seen) (Result, error) {
	// What is settled below was asked for earlier, and is nobody's fresh answer.
	record, err := k.Vault.Record(ctx, id)
	fresh := err == nil && seen != (Seen{}) && SeenIn(record) != seen
	g, pending, err := k.settle(ctx, id)
	if err != nil {
		return Result{}, err
	}
	if !fresh && seen != (Seen{}) && SeenIn(g.Record) != seen {
		// It was put in place meanwhile. No other process of this host could do that.
		fresh = !k.answeredHere(ctx, g)
	}
	if k.meets(g, need) && (fresh || !need.Always) {
		return Result{Grant: g}, nil
	}
	if g.Void {
		return Result{Grant: g}, Gone(g.Record, grant.Void, refusedBefore(g))
	}
	// One that has ended is refreshed first: UPS may have changed the lifetime.
	if lifetime := g.Lifetime(); !need.Always && need.MinValid > lifetime && g.AccessGood(k.Now(), 0) {
		return Result{Grant: g}, &TooShortError{Asked: need.MinValid, Lifetime: lifetime}
	}
	if g.RefreshToken == "" {
		return Result{Grant: g}, &GoneError{ID: id, Why: "UPS gave no refresh token with the last authorization"}
	}
	if g.Contested {
		return k.spendSpare(ctx, g)
	}
	if pending != nil {
		if pending.Refused {
			return Result{Grant: g}, &GoneError{ID: id, Why: outcome(pending)}
		}
		if k.tooEarly(g, pending) > 0 {
			return Result{Grant: g}, k.pendingError(ctx, g, pending)
		}
	}
	return k.spend(ctx, g, pending, "")
}

// spendSpare refreshes a grant whose refresh token UPS refused with another answer to the
// request that brought it, if this host has one: two hosts may both have been granted it.
func (k *Keeper) spendSpare(ctx context.Context, g grant.Grant) (Result, error) {
	contested := &ContestedError{ID: g.ID, Why: refusedBefore(g), Loss: g.Loss}
	attempts, err := k.Vault.Attempts(ctx, g.ID)
	if err != nil {
		return Result{Grant: g}, err
	}
	for _, j := range attempts {
		if j.TokenVaultKey != g.TokenVaultKey || j.Generation != g.Generation || !j.Answered || j.Unsent {
			continue
		}
		answer, _, err := k.openAnswer(ctx, j)
		if err != nil {
			k.log(ctx, g.ID, "%v", err)
			continue
		}
		switch tokens := answer.Tokens(); tokens.RefreshToken {
		case "":
		case g.RefreshToken:
			// The vault may have it at a second place, and wait for what it takes for a spare.
			if !j.Dead {
				j.Dead = true
				k.mark(ctx, &j)
			}
		default:
			k.log(ctx, g.ID, "UPS refused the refresh token of %s; trying the one that this host has got for the same request", g.ID)
			spare := g
			spare.RefreshToken = tokens.RefreshToken
			return k.spend(ctx, spare, nil, j.Nonce)
		}
	}
	return Result{Grant: g}, contested
}

// answeredHere reports whether this host has the answer that made the tokens of a grant. The
// lock is held.
func (k *Keeper) answeredHere(ctx context.Context, g grant.Grant) bool {
	attempts, err := k.Vault.Attempts(ctx, g.ID)
	return err != nil || slices.ContainsFunc(attempts, func(j grant.Journal) bool {
		return j.TokenVaultKey == g.TokenVaultKey && j.Generation == g.Generation && j.Answered && !j.Unsent
	})
}

// meets reports whether the grant as it is will do.
func (k *Keeper) meets(g grant.Grant, need Need) bool {
	if g.Void || g.AccessToken == "" || g.AccessToken == need.Refused || !g.AccessGood(k.Now(), need.MinValid) {
		return false
	}
	return true
}

func refusedBefore(g grant.Grant) string {
	if g.LastError != nil {
		return g.LastError.Message
	}
	return refusedForGood
}

// withLoss is why a grant needs a person, with what the requests of the hosts that share the
// vault tell of that.
func withLoss(why string, r grant.Record) string {
	if r.Loss == "" {
		return why
	}
	return legible.Sentence(why) + " " + r.Loss
}

func outcome(j *grant.Journal) string {
	if j.Outcome != "" {
		return j.Outcome
	}
	return "upsauth was cut off while it waited"
}

// spend sends the refresh token, once, and keeps what comes back. Pending is
// the earlier attempt whose fate is unknown, or nil. Spare is the nonce of the attempt whose
// answer has the token, empty for the grant's own. The lock is held.
func (k *Keeper) spend(ctx context.Context, g grant.Grant, pending *grant.Journal, spare string) (Result, error) {
	client, err := k.Client(ctx, g.ID)
	if err != nil {
		return Result{Grant: g}, err
	}
	if err := k.sameClient(g, client); err != nil {
		return Result{Grant: g}, err
	}
	if err := k.checkRetry(client); err != nil {
		return Result{Grant: g}, err
	}
	done, err := k.Vault.MakeRoom(ctx, g.ID, g.Home, g.TokenVaultKey, itemSize(g))
	if err != nil {
		return Result{Grant: g}, err
	}
	defer done()
	if g, err = k.Vault.ProveJournal(ctx, g); err != nil {
		return Result{Grant: g}, err
	}
	for limited := 0; ; limited++ {
		if err := k.awaitPause(ctx, client.Origin); err != nil {
			return Result{Grant: g}, err
		}
		result, err := k.send(ctx, g, client, pending, spare)
		var refusal *ups.Error
		if !errors.As(err, &refusal) || refusal.Kind != ups.RateLimited {
			return result, err
		}
		wait, ok := pauseAfter(refusal.RetryAfter, limited)
		if !ok {
			return result, err
		}
		k.pause(ctx, g.ID, client.Origin, wait)
	}
}

// sameClient refuses to send a refresh token on behalf of another client or to
// another host than those it was given to.
func (k *Keeper) sameClient(g grant.Grant, client *ups.Client) error {
	if g.ClientID != client.ClientID {
		return &ClientChangedError{ID: g.ID, What: "client ID", Made: g.ClientID, Have: client.ClientID}
	}
	if g.BaseURL != client.Origin {
		return &ClientChangedError{ID: g.ID, What: "base URL", Made: g.BaseURL, Have: client.Origin}
	}
	return nil
}

// itemSize is about how large the grant's item is, in bytes.
func itemSize(g grant.Grant) int {
	item, err := json.Marshal(g)
	if err != nil {
		return 4096
	}
	return len(item)
}

// send makes one attempt. From the intent in the journal on, nothing cancels
// it: the exchange is finished and saved, and only then is an interruption
// reported.
func (k *Keeper) send(ctx context.Context, g grant.Grant, client *ups.Client, pending *grant.Journal, spare string) (Result, error) {
	attempt := 1
	if pending != nil {
		attempt = pending.Attempt + 1
	}
	j := grant.Journal{
		ID: g.ID, Purpose: grant.Refreshing, TokenVaultKey: g.TokenVaultKey, Generation: g.Generation + 1,
		ClientID: g.ClientID, BaseURL: g.BaseURL,
		Attempt: attempt, Fate: grant.Fate{Time: k.Now().UTC()}, Home: g.Home, Recipient: g.JournalRecipient,
		Proxied: ups.ThroughProxy(client.BaseURL), Spare: spare,
	}
	if err := k.Vault.Claim(ctx, &j); err != nil {
		return Result{Grant: g}, err
	}
	whole := context.WithoutCancel(ctx)
	asking, intent := *client, j
	asking.Ready = func() error { return k.Vault.LastLook(whole, intent) }
	defer context.AfterFunc(ctx, func() {
		k.warn(ctx, g.ID, "Interrupted: upsauth first waits for the answer for %s and saves it.", g.ID)
	})()
	k.log(ctx, g.ID, "asking UPS for new tokens for %s (attempt %d)", g.ID, attempt)
	answer, err := asking.Refresh(whole, g.RefreshToken, k.keep(whole, &j, &g))
	var refusal *ups.Error
	switch {
	case errors.As(err, &refusal):
		return Result{Grant: g}, k.failed(whole, g, j, pending, refusal)
	case err != nil && !answer.OK():
		// The request could not even be made, or must not be.
		withdrawn := k.withdraw(whole, j)
		if withdrawn != nil && withdrawn.Error() == err.Error() {
			withdrawn = nil // the vault says the same twice
		}
		return Result{Grant: g}, errors.Join(err, withdrawn)
	case err != nil:
		// The item is still to be written, so all is well if that works.
		k.warn(ctx, g.ID, "%v", err)
	}
	tokens := answer.Tokens()
	if !usable(tokens) {
		return Result{Grant: g}, k.failed(whole, g, j, pending, ups.NoTokens(answer, g.RefreshToken))
	}
	fresh, err := k.putInPlace(whole, g, answer, tokens, &j)
	if err != nil {
		return Result{Grant: g}, err
	}
	result := Result{Grant: fresh, Refreshed: true}
	if fresh.AccessToken == "" {
		return result, ups.NoAccessToken(answer, tokens, g.RefreshToken, fresh.RefreshToken)
	}
	if ctx.Err() != nil {
		return result, &SavedError{Err: ctx.Err()}
	}
	return result, nil
}

// keep seals an answer into a journal before anybody reads it, with the grant that the
// token was sent of, nil for a sign-in. Nothing may cancel the context.
func (k *Keeper) keep(ctx context.Context, j *grant.Journal, old *grant.Grant) ups.Keep {
	return func(a ups.Answer) error {
		text, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("the answer can't be sealed: %w", err)
		}
		return k.Vault.Seal(ctx, j, old, text)
	}
}

// store puts a granted answer in place. Where a damaged answer had no refresh token in
// it, UPS's new one was most likely in the part that is lost, and what became of the old
// one is as unknown as without any answer: that is what the journal then says.
func (k *Keeper) store(ctx context.Context, old grant.Grant, a ups.Answer, t ups.Tokens, j grant.Journal) (grant.Grant, *grant.Journal, error) {
	g := renewed(old, a, t)
	g.LastError = k.oddity(g, t)
	if err := k.Vault.Put(ctx, g, old.Generation, &j); err != nil {
		return old, nil, err
	}
	k.tellOdd(ctx, g)
	defer k.happened(ctx, g.ID, grant.EventRefreshed, "", "") // once the journal is settled
	if !cutShort(t) {
		return g, nil, nil
	}
	j.Generation, j.Outcome, j.Answered = g.Generation+1, g.LastError.Message, false
	return g, &j, k.Vault.Claim(ctx, &j)
}

// cutShort reports whether the answer's refresh token may be in a part of it
// that is lost or can't be read.
func cutShort(t ups.Tokens) bool { return (t.Damaged || t.Unread) && t.RefreshToken == "" }

// tellOdd says what was odd about the answer that a grant was made of.
func (k *Keeper) tellOdd(ctx context.Context, g grant.Grant) {
	if g.LastError != nil {
		k.warn(ctx, g.ID, "%s: %s", g.ID, g.LastError.Message)
	}
}

// codeNotRotated is of a refresh whose answer brought no new refresh token.
const codeNotRotated = "no-new-refresh-token"

// oddity is what was odd about an answer that was kept all the same.
func (k *Keeper) oddity(g grant.Grant, t ups.Tokens) *grant.LastError {
	var note *grant.LastError
	switch {
	case t.AccessToken == "" && t.Unclean:
		note = &grant.LastError{Code: "damaged-answer", Message: "UPS's answer was damaged: its access token has invalid characters. The refresh token was saved, and the next use refreshes again."}
	case t.AccessToken == "":
		note = &grant.LastError{Code: "no-access-token", Message: "UPS's answer had a refresh token and no access token; the refresh token was saved."}
	case cutShort(t) && t.Unread:
		note = &grant.LastError{Code: "damaged-answer", Message: "UPS's answer has a refresh token that can't be read; its access token was saved."}
	case cutShort(t):
		note = &grant.LastError{Code: "damaged-answer", Message: "UPS's answer was cut off before its refresh token; its access token was saved."}
	case t.Wrapped:
		note = &grant.LastError{Code: "unusual-answer", Message: "UPS's answer was not in its usual form; the tokens were found in it and saved."}
	case t.Damaged:
		note = &grant.LastError{Code: "damaged-answer", Message: "UPS's answer was damaged; its complete parts were saved."}
	case t.RefreshToken == "" && g.NoRefreshToken:
		note = &grant.LastError{Code: "no-refresh-token", Message: "UPS's answer had no refresh token: when the access token expires, the company must be authorized again."}
	case t.RefreshToken == "":
		note = &grant.LastError{Code: codeNotRotated, Message: "UPS's answer had no new refresh token; the old one was kept, and works only if UPS did not spend it."}
	case t.ClientID != "" && t.ClientID != g.ClientID:
		note = &grant.LastError{Code: "other-client", Message: "UPS's answer names another client ID than the application's; the tokens were saved."}
	default:
		return nil
	}
	note.Time = k.Now().UTC()
	return note
}

// failed draws the consequence of a refresh that gave no tokens: the journal
// stays only where the token's fate is unknown, and only words about the
// refresh token itself end the grant.
func (k *Keeper) failed(ctx context.Context, g grant.Grant, j grant.Journal, pending *grant.Journal, refusal *ups.Error) error {
	code := refusal.Code
	if code == "" {
		code = string(refusal.Kind)
	}
	notRotated := g.LastError != nil && g.LastError.Code == codeNotRotated
	failed := &grant.LastError{Code: code, Kind: string(refusal.Kind), Message: refusal.Error(), Time: k.Now().UTC()}
	note := func() error {
		return k.Vault.Note(ctx, g.ID, func(l *grant.Local) { l.LastError = failed })
	}
	if refusal.Kind != ups.RefreshTokenRefused {
		k.happened(ctx, g.ID, grant.EventFailed, "", refusal.Error())
	}
	if refusal.FateUnknown() {
		j.Outcome = refusal.Error()
		// Unmarked, the journal says the same with fewer words.
		k.mark(ctx, &j)
		var failure error = refusal
		if j.Answered {
			failure = &UnreadError{Path: j.Path, Err: refusal}
		}
		return errors.Join(failure, note())
	}
	if refusal.Kind != ups.RefreshTokenRefused {
		var failure error = refusal
		if pending != nil && refusal.Kind == ups.Unknown {
			failed.Message = fmt.Sprintf("UPS refused the refresh token. The previous attempt with the same token got no usable answer, but UPS most likely granted it. %s", refusal.Error())
			failure = &GoneError{ID: g.ID, Why: failed.Message, Err: refusal}
		}
		if err := note(); err != nil {
			return errors.Join(failure, err)
		}
		return errors.Join(failure, k.withdraw(ctx, j))
	}
	if path := k.unreadPath(ctx, g); path != "" {
		// Its tokens may be in there, and a later upsauth may find them.
		failed.Message = fmt.Sprintf("UPS refused the refresh token at attempt %d. UPS granted an earlier attempt with an unusable answer%s. %s", j.Attempt, keptWords(path), refusal.Error())
		k.happened(ctx, g.ID, grant.EventFailed, "", failed.Message)
		j.Outcome, j.Refused = failed.Message, true
		gone := &GoneError{ID: g.ID, Why: failed.Message, Err: refusal}
		return errors.Join(gone, note(), k.Vault.Mark(ctx, &j))
	}
	switch {
	case notRotated:
		failed.Message = "UPS refused the refresh token. UPS's last answer had no new refresh token, so the old one was kept: most likely it was spent then. " + refusal.Error()
	case j.Attempt > 1:
		kept := ""
		if path := k.keptPath(ctx, g.ID, g.TokenVaultKey, g.Generation); path != "" {
			kept = keptWords(path)
		}
		failed.Message = fmt.Sprintf("UPS refused the refresh token at attempt %d. An earlier attempt got no usable answer: most likely UPS granted it%s. %s", j.Attempt, kept, refusal.Error())
	}
	return k.refused(ctx, g, j, failed, refusal)
}

// refused notes that UPS refused a refresh token for good. Where hosts share the vault, that
// is the end of the grant only if none of them can have its next token.
func (k *Keeper) refused(ctx context.Context, g grant.Grant, j grant.Journal, failed *grant.LastError, refusal *ups.Error) error {
	gone := &GoneError{ID: g.ID, Why: failed.Message, Void: true, Err: refusal}
	err := k.Vault.Note(ctx, g.ID, func(l *grant.Local) { l.Void, l.LastError = true, failed })
	if err == nil {
		j.Over = true
		err = k.Vault.Mark(ctx, &j)
	}
	var r grant.Record
	if err == nil {
		r, err = k.Vault.Record(ctx, g.ID)
	}
	switch {
	case err == nil && !r.Void:
		k.happened(ctx, g.ID, grant.EventFailed, "", failed.Message)
		return &ContestedError{ID: g.ID, Why: failed.Message, Loss: r.Loss, Err: refusal}
	case err != nil && j.Shared != nil:
		k.happened(ctx, g.ID, grant.EventFailed, "", failed.Message)
		return &ContestedError{ID: g.ID, Why: failed.Message, Loss: "Whether another host has its next token can't be found out now.", Err: errors.Join(refusal, err)}
	}
	gone.Why, gone.Told = withLoss(gone.Why, r), r.Loss != ""
	k.happened(ctx, g.ID, grant.EventVoid, "", failed.Message)
	return errors.Join(gone, err)
}

// withdraw takes back an attempt that spent nothing. What became of an earlier attempt is
// as unknown as before.
func (k *Keeper) withdraw(ctx context.Context, j grant.Journal) error {
	j.Unsent = true
	return k.Vault.Mark(ctx, &j)
}
