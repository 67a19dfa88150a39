package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// InviteRequest says whom to invite for what.
type InviteRequest struct {
	Target
	// ExpectUser is the only ups.com user whose sign-in is kept. AnyUser says that it may
	// be another one than that of the company's earlier authorization.
	ExpectUser string
	AnyUser    bool
	// Note is for the customer, ReturnURL where their browser goes in the end.
	Note, ReturnURL string
	By              string // as in histories, empty for a command
	Lasts           time.Duration
	// Another says that a person knows the company to be new, although its name is near
	// a known one.
	Another bool
}

// Invited is an invitation as it is now. Its Company is what the company is called now.
type Invited struct {
	invitation.Invitation
	Key invitation.Key
	// Earlier says that an address which the customer may have works no more, because this
	// one took its place. Only Invite says so.
	Earlier bool
}

// GrantID names the grant that it is for.
func (i Invited) GrantID() grant.ID {
	return grant.ID{Company: i.Company, Application: i.Application, Environment: i.Environment}
}

// Invite makes an invitation, and returns the address that nobody can make again. A
// company that is not known is added. It is a *HeldError while a user of an earlier
// invitation waits for the sender.
func (s *Session) Invite(ctx context.Context, r InviteRequest) (Invited, string, error) {
	var err error
	if r.Company, err = grant.CleanCompany(r.Company); err != nil {
		return Invited{}, "", &NameError{err}
	}
	registration, err := s.PickApplication(ctx, r.Target)
	if err != nil {
		return Invited{}, "", err
	}
	if err := s.CanInvite(registration); err != nil {
		return Invited{}, "", err
	}
	if r.ReturnURL != "" && !s.mayReturn(r.ReturnURL) {
		return Invited{}, "", &ReturnURLError{r.ReturnURL}
	}
	// Before the company is added.
	draft, err := invitation.Draft{ExpectUser: r.ExpectUser, AnyUser: r.AnyUser, Note: r.Note, ReturnURL: r.ReturnURL, By: r.By, Lasts: r.Lasts}.Clean()
	if err != nil {
		return Invited{}, "", err
	}
	id := grant.ID{Company: r.Company, Application: registration.Name, Environment: registration.Environment}
	if id.Company, err = s.calledAlready(ctx, r); err != nil {
		return Invited{}, "", err
	}
	now := s.Now()
	companyID, err := s.Companies.Identify(ctx, id.Company, now)
	if err != nil {
		return Invited{}, "", err
	}
	before, earlier, err := s.takenOver(ctx, id, now)
	if err != nil {
		return Invited{}, "", err
	}
	record, err := s.Vault.Record(ctx, id)
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return Invited{}, "", err
	}
	draft.CompanyID, draft.Company, draft.Application, draft.Environment = companyID, id.Company, id.Application, id.Environment
	draft.ClientID, draft.Replaces = registration.ClientID, record.TokenVaultKey
	// Nothing that takes long comes between the making and the address: whoever is killed in
	// between leaves an invitation that nobody can open.
	made, secret, err := s.Invitations.Make(ctx, draft, now)
	if err != nil {
		return Invited{}, "", err
	}
	for _, l := range before {
		// A customer who came back while the new one was made may be put in place, which the
		// new one then has to replace.
		if meanwhile, err := s.Invitations.Get(ctx, l.Key); err == nil && l.End == nil && signInOf(meanwhile) != signInOf(l.Invitation) {
			if _, err := s.settleSignIn(ctx, id, invitation.Listed{Key: l.Key, Invitation: meanwhile}); err != nil {
				return Invited{}, "", err
			}
			return s.Invite(ctx, r)
		}
		// The earlier one is replaced by what was made. One of another company that became this
		// one is ended.
		if l.CompanyID != companyID {
			l.Company = id.Company
			if err := s.end(ctx, Invited{Invitation: l.Invitation, Key: l.Key}, invitation.End{Why: invitation.Replaced, At: now}, ""); err != nil && !errors.As(err, new(*invitation.OverError)) {
				s.step(ctx, err.Error()) // it is settled later
			}
		}
	}
	key, _ := invitation.KeyOf(secret)
	s.happened(ctx, grant.Event{Time: now.UTC(), ID: id, What: grant.EventInvited})
	return Invited{made, key, earlier}, s.publicAddress("i/" + secret), nil
}

// takenOver are the invitations of a grant that a new one takes the place of, once what is as
// good as in place is, and whether an address of theirs works.
func (s *Session) takenOver(ctx context.Context, id grant.ID, now time.Time) (before []invitation.Listed, works bool, err error) {
	if before, err = s.latestOf(ctx, id); err != nil {
		return nil, false, err
	}
	for n, l := range before {
		if before[n], err = s.settleSignIn(ctx, id, l); err != nil {
			return nil, false, err
		}
		i, err := s.judged(ctx, l.Key, before[n].Invitation, id.Company)
		if err != nil {
			return nil, false, err
		}
		if i.State(now) == invitation.StateHeld {
			return nil, false, &HeldError{i}
		}
		works = works || i.Open(now)
	}
	return before, works, nil
}

// calledAlready is the name of the company that a request means, which is new where nobody
// knows it.
func (s *Session) calledAlready(ctx context.Context, r InviteRequest) (string, error) {
	known, err := s.Known(ctx, r.Company)
	if err != nil {
		return "", err
	}
	if len(known.Records) > 0 {
		return known.Records[0].Company, nil
	}
	near, err := s.Near(ctx, []string{r.Company}, "")
	if err == nil && len(near) > 0 && !r.Another {
		err = &NearNameError{near[0]}
	}
	return r.Company, err
}

// publicAddress is an address below public_url.
func (s *Session) publicAddress(path string) string {
	return strings.TrimSuffix(s.Config.Serve.PublicURL, "/") + "/" + path
}

// ProposedRedirectURI is a public redirect URI that fits public_url, empty where that is not
// set.
func (s *Session) ProposedRedirectURI() string {
	if s.Config.Serve.PublicURL == "" {
		return ""
	}
	return s.publicAddress("callback")
}

// CanInvite reports what an application or the settings lack for invitations.
func (s *Session) CanInvite(r config.Registration) error {
	switch front := s.Config.Serve.PublicURL; {
	case front == "":
		return &NoPublicURLError{}
	case r.PublicRedirectURI == "":
		return &PublicRedirectError{Application: r.Name, Environment: r.Environment, Proposed: s.publicAddress("callback"), Unregistered: r.Home == ""}
	case !below(r.PublicRedirectURI, front):
		return &PublicRedirectError{Application: r.Name, Environment: r.Environment, Has: r.PublicRedirectURI, Proposed: s.publicAddress("callback")}
	}
	return nil
}

// below reports whether an address is below another one, and stays there in a browser,
// which follows dots.
func below(address, front string) bool {
	a, err := url.Parse(address)
	if err != nil {
		return false
	}
	f, err := url.Parse(front)
	if err != nil {
		return false
	}
	dots := func(segment string) bool { return segment == "." || segment == ".." }
	if a.User != nil || slices.ContainsFunc(strings.Split(a.Path, "/"), dots) {
		return false
	}
	path := strings.TrimSuffix(f.EscapedPath(), "/")
	return strings.EqualFold(a.Scheme, f.Scheme) && strings.EqualFold(a.Host, f.Host) &&
		strings.HasPrefix(a.EscapedPath(), path+"/")
}

func (s *Session) mayReturn(address string) bool {
	for _, allowed := range s.Config.Serve.ReturnURLs {
		if at, _, _ := strings.Cut(address, "?"); at == allowed || below(address, allowed) {
			return true
		}
	}
	return false
}

// Invitation returns the one of an address's secret, as mail programs leave it. It is
// invitation.ErrUnknown where there is none.
func (s *Session) Invitation(ctx context.Context, secret string) (Invited, error) {
	key, ok := invitation.KeyOf(secret)
	if !ok {
		return Invited{}, invitation.ErrUnknown
	}
	return s.InvitationOf(ctx, key)
}

// InvitationOf returns the invitation with a key, judged by what it hangs on.
func (s *Session) InvitationOf(ctx context.Context, key invitation.Key) (Invited, error) {
	i, err := s.Invitations.Get(ctx, key)
	if err != nil {
		return Invited{}, err
	}
	called, err := s.called(ctx)
	if err != nil {
		return Invited{}, err
	}
	name, err := called(i.CompanyID)
	if err != nil {
		return Invited{}, err
	}
	return s.judged(ctx, key, i, name)
}

// FindInvitation returns the invitation that people call by an ID.
func (s *Session) FindInvitation(ctx context.Context, id string) (Invited, error) {
	found, err := s.Invitations.Find(ctx, id)
	if err != nil {
		return Invited{}, err
	}
	return s.InvitationOf(ctx, found.Key)
}

// ListInvitations returns all invitations that fit a target, the latest first.
func (s *Session) ListInvitations(ctx context.Context, t Target) (list []Invited, problems []error, err error) {
	all, problems, err := s.Invitations.List(ctx)
	if err != nil || len(all) == 0 {
		return nil, problems, err
	}
	called, err := s.called(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range all {
		name, err := called(l.CompanyID)
		one := Invited{}
		if err == nil {
			one, err = s.judged(ctx, l.Key, l.Invitation, name)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if t.Fits(one.GrantID()) {
			list = append(list, one)
		}
	}
	return list, problems, nil
}

// judged is an invitation with the end that it has come to by now. Company is what the
// company is called, empty for one that was removed.
func (s *Session) judged(ctx context.Context, key invitation.Key, i invitation.Invitation, company string) (Invited, error) {
	if company != "" {
		i.Company = company
	}
	if i.End != nil {
		return Invited{Invitation: i, Key: key}, nil
	}
	client, err := s.clientID(ctx, i.Application, i.Environment)
	if err != nil {
		return Invited{}, err
	}
	record, err := s.Vault.Record(ctx, grant.ID{Company: i.Company, Application: i.Application, Environment: i.Environment})
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return Invited{}, err
	}
	around := invitation.Around{Company: company, ClientID: client, TokenVaultKey: record.TokenVaultKey}
	return Invited{Invitation: i.Judged(s.Now(), around), Key: key}, nil
}

// clientID is an application's, empty for one that is not registered.
func (s *Session) clientID(ctx context.Context, application, environment string) (string, error) {
	r, err := s.Registration(ctx, application, environment)
	if errors.As(err, new(*NotFoundError)) {
		return "", nil
	}
	return r.ClientID, err
}

// Pressed is what a press of the customer's made: the address at UPS, and the text that
// the callback has to bring back, sealed, until it ends.
type Pressed struct {
	Address, Sealed string
	Ends            time.Time
}

// pressLasts is how long a customer has to come back from ups.com.
const pressLasts = 30 * time.Minute

// sealedFor is the purpose of what a press seals.
const sealedFor = "invitation"

// Press makes state and verifier for a sign-in with an invitation that is open. It writes
// nothing.
func (s *Session) Press(ctx context.Context, i Invited) (Pressed, error) {
	if !i.Open(s.Now()) {
		return Pressed{}, &invitation.OverError{Invitation: i.Invitation}
	}
	client, err := s.publicClient(ctx, i.GrantID())
	if err != nil {
		return Pressed{}, err
	}
	key, err := s.sealingKey(ctx, true)
	if err != nil {
		return Pressed{}, err
	}
	expect, err := s.ExpectedUser(ctx, i)
	if err != nil {
		return Pressed{}, err
	}
	remembered, err := s.Keeper.Prepare(ctx, keeper.Request{
		ID: i.GrantID(), Home: s.Config.Vault, Client: client, ExpectUser: expect, Lasts: pressLasts, Ref: string(i.Key),
	})
	if err != nil {
		return Pressed{}, err
	}
	// The invitation knows what the company is called then, and a browser has no room for
	// the longest names.
	remembered.Company = ""
	sealed, err := remembered.Seal(key, sealedFor)
	if err != nil {
		return Pressed{}, err
	}
	return Pressed{Address: remembered.Address(client), Sealed: sealed, Ends: remembered.Ends}, nil
}

// ExpectedUser is the only user whose sign-in is kept, empty for any.
func (s *Session) ExpectedUser(ctx context.Context, i Invited) (string, error) {
	if i.ExpectUser != "" || i.AnyUser {
		return i.ExpectUser, nil
	}
	record, err := s.Vault.Record(ctx, i.GrantID())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return "", err
	}
	return record.User, nil
}

func (s *Session) publicClient(ctx context.Context, id grant.ID) (*ups.Client, error) {
	registration, err := s.Registration(ctx, id.Application, id.Environment)
	if err != nil {
		return nil, err
	}
	if err := s.CanInvite(registration); err != nil {
		return nil, err
	}
	client, err := s.Client(ctx, registration)
	if err != nil {
		return nil, err
	}
	its := *client
	its.RedirectURI = registration.PublicRedirectURI
	return &its, nil
}

// sealing is a key that seals what browsers keep.
type sealing struct {
	home string
	key  []byte
	till time.Time
}

// sealingLasts is how long the key is not read again: whoever finds the public face can
// have it asked for.
const sealingLasts = time.Minute

// sealingKey is the key of this vault that seals what browsers keep. It is
// vault.ErrNoItem where there is none, unless it shall be made.
func (s *Session) sealingKey(ctx context.Context, made bool) ([]byte, error) {
	home, now := s.Config.Vault, s.Now()
	if k := s.sealing.Load(); k != nil && k.home == home && now.Before(k.till) && k.till.Sub(now) <= sealingLasts {
		return k.key, nil
	}
	for range 2 {
		text, err := s.Vault.Secret(ctx, home, vault.InvitationKeyAccount)
		var damage *vault.HomeError
		switch {
		case err == nil:
			key, wrong := base64.StdEncoding.DecodeString(text)
			if wrong == nil && len(key) == keeper.KeySize {
				s.sealing.Store(&sealing{home, key, now.Add(sealingLasts)})
				return key, nil
			}
			// A damaged key costs the customers who are at ups.com one more press.
			err = fmt.Errorf("the key under %s in the %s is damaged", vault.InvitationKeyAccount, vault.Describe(home))
		case errors.As(err, &damage) && damage.Damaged, errors.Is(err, vault.ErrNoItem):
		default:
			return nil, err
		}
		if !made {
			return nil, err
		}
		if !errors.Is(err, vault.ErrNoItem) {
			s.stepf(ctx, "%v: a new one is made", err)
		}
		if err := s.Vault.Make(ctx, home); err != nil {
			return nil, err
		}
		key := make([]byte, keeper.KeySize)
		_, _ = rand.Read(key)
		// It is read again: another process may have been later.
		if err := s.Vault.PutSecret(ctx, home, vault.InvitationKeyAccount, base64.StdEncoding.EncodeToString(key)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the key under %s in the %s can't be kept", vault.InvitationKeyAccount, vault.Describe(home))
}

// ReadyForCustomers makes the key that seals what browsers keep, so that no press has to.
func (s *Session) ReadyForCustomers(ctx context.Context) error {
	_, err := s.sealingKey(ctx, true)
	return err
}

// AskUPS asks UPS whether it would let somebody sign in with an invitation. Only what
// certainly ends the sign-in is an error.
func (s *Session) AskUPS(ctx context.Context, i Invited) error {
	client, err := s.publicClient(ctx, i.GrantID())
	if err != nil {
		return err
	}
	return client.Preflight(ctx)
}

// Came is what became of a customer's return from ups.com.
type Came struct {
	Invited
	// User is who signed in, empty where UPS named nobody.
	User string
	// Held says that the sender has to confirm the user. Grant is what is in place
	// otherwise.
	Held  bool
	Grant grant.Grant
}

// byInvitation lets a history say that what happens came by an invitation.
func byInvitation(ctx context.Context, i Invited) context.Context {
	return company.By(ctx, "invitation "+i.ID)
}

// ForeignPressError says that a text is nothing that a press sealed, or not any more.
type ForeignPressError struct{ Err error }

func (e *ForeignPressError) Error() string { return e.Err.Error() }

func (e *ForeignPressError) Unwrap() error { return e.Err }

// OpenPress opens what a press sealed. Any text that a browser sends may come here: a
// *ForeignPressError is about the text, any other error about this machine.
func (s *Session) OpenPress(ctx context.Context, sealed string) (keeper.Remembered, error) {
	key, err := s.sealingKey(ctx, false)
	if errors.Is(err, vault.ErrNoItem) {
		return keeper.Remembered{}, &ForeignPressError{err}
	}
	if err != nil {
		return keeper.Remembered{}, err
	}
	remembered, err := keeper.Open(key, sealedFor, sealed, s.Now())
	if err != nil {
		return keeper.Remembered{}, &ForeignPressError{err}
	}
	return remembered, nil
}

// Return finishes a customer's sign-in with what the browser brought back. Whether the
// invitation is open is looked at under the company's login lock, before the code is
// exchanged and before anything is put in place. An *invitation.OverError,
// *keeper.StaleError, *keeper.AwaitedError or *keeper.OtherUserError leaves everything as
// it was.
func (s *Session) Return(ctx context.Context, remembered keeper.Remembered, callback grant.Callback) (Came, error) {
	key := invitation.Key(remembered.Ref)
	came := Came{}
	open := func() (err error) {
		if came.Invited, err = s.InvitationOf(ctx, key); err == nil && !came.Open(s.Now()) {
			err = &invitation.OverError{Invitation: came.Invitation}
		}
		return err
	}
	if err := open(); err != nil {
		return came, err
	}
	ctx = byInvitation(ctx, came.Invited)
	if callback.Error != "" {
		// Nothing is exchanged, so it is nobody's turn.
		return came, &keeper.AwaitedError{Err: &keeper.DeclinedError{Code: ups.Presentable(callback.Error), Description: ups.Presentable(callback.ErrorDescription)}}
	}
	// Whom UPS does not name may be the expected user, whom nobody has to turn away: the users
	// are compared here.
	expected := remembered.ExpectUser
	remembered.ExpectUser = ""
	signIn, err := s.resume(ctx, remembered, &came)
	if err != nil {
		return came, err
	}
	defer signIn.Close(context.WithoutCancel(ctx))
	if err := open(); err != nil {
		return came, err
	}
	// If the process ends before it is known that nobody has to confirm the user, nothing is
	// put in place. keep says when that is known.
	signIn.MarkUnconfirmed(ctx)
	outcome, err := signIn.Finish(ctx, callback)
	// From here on something may be granted: nothing ends half-way.
	ctx = context.WithoutCancel(ctx)
	came.User = outcome.User
	if outcome.Learned {
		if err := s.learn(ctx, came.Application, came.Environment, outcome.NeedsBasic); err != nil {
			s.step(ctx, err.Error())
		}
	}
	if err != nil {
		return came, err
	}
	if expected != "" && came.User != "" && !keeper.SameUser(expected, came.User) {
		signIn.Drop(ctx)
		_, noteErr := s.Invitations.Change(ctx, key, func(i *invitation.Invitation) error {
			i.Wrong = &invitation.Visit{User: came.User, At: s.stamp()}
			return nil
		})
		return came, errors.Join(&keeper.OtherUserError{ID: came.GrantID(), User: came.User, Expect: expected}, noteErr)
	}
	// One that was still open a moment ago does not expire while UPS answers.
	if err := open(); err != nil && (came.End == nil || came.End.Why != invitation.Expired) {
		signIn.Drop(ctx)
		return came, err
	}
	if doubts := s.doubts(ctx, came, expected); len(doubts) > 0 {
		came.Held = true
		return came, s.hold(ctx, signIn, came, doubts)
	}
	return came, s.keep(ctx, signIn, &came, func() []string {
		if expected != "" {
			return nil
		}
		return s.doubtsMeanwhile(ctx, came)
	})
}

// turnPatience is how long a customer's turn is waited for: a code lives for 30 s.
const turnPatience = 15 * time.Second

// resume continues a sign-in once nobody else is at the company's, such as the same
// browser that asks twice.
func (s *Session) resume(ctx context.Context, remembered keeper.Remembered, came *Came) (*keeper.SignIn, error) {
	const every = 100 * time.Millisecond
	for waited := time.Duration(0); ; waited += every {
		// A rename since the press changes nothing about whose it is.
		remembered.Company = came.Company
		signIn, err := s.Keeper.Resume(ctx, remembered)
		if !errors.Is(err, grant.ErrLoginBusy) || waited >= turnPatience {
			return signIn, err
		}
		if err := s.options.Wait(ctx, every); err != nil {
			return nil, err
		}
		if came.Invited, err = s.InvitationOf(ctx, came.Key); err != nil {
			return nil, err
		}
	}
}

func (s *Session) stamp() time.Time { return s.Now().UTC().Truncate(time.Second) }

// doubts are why the sender has to confirm who signed in, as sentences.
func (s *Session) doubts(ctx context.Context, came Came, expected string) []string {
	if came.User == "" {
		return []string{"UPS does not say who signed in."}
	}
	if expected != "" {
		return nil // it is this one
	}
	return s.People(ctx, came.GrantID()).Elsewhere(came.User)
}

// doubtsMeanwhile are doubts about a user who came back for two companies at the same time,
// each of which has a turn of its own. Each notes the user before it looks at the others, so
// one of them sees the other.
func (s *Session) doubtsMeanwhile(ctx context.Context, came Came) []string {
	list, _, err := s.Invitations.List(ctx)
	if err != nil {
		return []string{"Whether the same user signs in for another company at this moment can't be read."}
	}
	for _, l := range list {
		if l.End == nil && l.SignIn != nil && l.CompanyID != came.CompanyID && keeper.SameUser(l.SignIn.User, came.User) {
			return []string{fmt.Sprintf("%s has signed in for %s at the same time.", came.User, l.Company)}
		}
	}
	return s.People(ctx, came.GrantID()).Elsewhere(came.User)
}

// hold lays aside what UPS granted until the sender says whether it is the right user.
func (s *Session) hold(ctx context.Context, signIn *keeper.SignIn, came Came, doubts []string) error {
	home := s.Config.Vault
	err := signIn.LayAside(ctx, func(ctx context.Context, text string) error {
		if err := s.Vault.PutSecret(ctx, home, vault.HeldAccount(string(came.Key)), text); err != nil {
			return err
		}
		_, err := s.Invitations.Change(ctx, came.Key, func(i *invitation.Invitation) error {
			i.SignIn = &invitation.SignIn{
				Visit: invitation.Visit{User: came.User, At: s.stamp()}, TokenVaultKey: signIn.TokenVaultKey(), Home: home, Held: true, Doubts: doubts,
			}
			return nil
		})
		return err
	})
	if err != nil {
		// Nothing is to be left of it: the customer can sign in again.
		return errors.Join(err, s.dropHeld(ctx, home, came.Key))
	}
	return nil
}

func (s *Session) dropHeld(ctx context.Context, home string, key invitation.Key) error {
	err := s.Vault.DeleteSecret(ctx, home, vault.HeldAccount(string(key)))
	if errors.Is(err, vault.ErrNoItem) {
		return nil
	}
	return err
}

// keep puts a customer's sign-in in place. Which one it is about to be is noted before, so
// that the invitation is known to be completed whatever happens afterwards. Doubts are looked
// for behind the note: with any, the sign-in is held.
func (s *Session) keep(ctx context.Context, signIn *keeper.SignIn, came *Came, doubts func() []string) error {
	now := s.stamp()
	visit := invitation.Visit{User: came.User, At: now}
	_, err := s.Invitations.Change(ctx, came.Key, func(i *invitation.Invitation) error {
		next := invitation.SignIn{Visit: visit, TokenVaultKey: signIn.TokenVaultKey()}
		if i.SignIn != nil && i.SignIn.Held {
			next.Held, next.Home, next.Doubts = true, i.SignIn.Home, i.SignIn.Doubts
		}
		i.SignIn = &next
		return nil
	})
	if err != nil {
		signIn.Drop(ctx)
		return err
	}
	if found := doubts(); len(found) > 0 {
		came.Held = true
		return s.hold(ctx, signIn, *came, found)
	}
	came.Grant, err = signIn.Keep(ctx)
	if err != nil && !errors.As(err, new(*keeper.SavedError)) {
		return err
	}
	closed, err := s.Invitations.Close(ctx, came.Key, invitation.End{Why: invitation.Completed, At: now, User: came.User})
	if over := new(invitation.OverError); errors.As(err, &over) {
		closed, err = over.Invitation, nil // noted once the grant was authorized
	}
	if err != nil {
		s.step(ctx, err.Error()) // it is judged to be completed all the same
		return nil
	}
	closed.Company = came.Company
	came.Invitation = closed
	return nil
}

// Confirm puts a sign-in in place that was held, as the sender knows the user.
func (s *Session) Confirm(ctx context.Context, i Invited) (Came, error) {
	came := Came{Invited: i}
	if i.State(s.Now()) != invitation.StateHeld {
		return came, &NotHeldError{i}
	}
	came.User = i.SignIn.User
	// Nobody is sent anywhere any more, so it does not matter where to.
	client, err := s.ClientFor(ctx, i.GrantID())
	if err != nil {
		return came, err
	}
	text, err := s.Vault.Secret(ctx, i.SignIn.Home, vault.HeldAccount(string(i.Key)))
	if errors.Is(err, vault.ErrNoItem) {
		return came, &HeldGoneError{i}
	}
	if err != nil {
		return came, err
	}
	signIn, err := s.Keeper.Begin(ctx, keeper.Request{ID: i.GrantID(), Home: s.Config.Vault, Client: client, Lasts: pressLasts})
	if err != nil {
		return came, err
	}
	confirmed := context.WithoutCancel(ctx)
	ctx = byInvitation(confirmed, i)
	defer signIn.Close(ctx)
	// As it is now that nobody else can sign in for the company.
	if came.Invited, err = s.InvitationOf(ctx, i.Key); err != nil {
		return came, err
	}
	if came.State(s.Now()) != invitation.StateHeld {
		return came, &NotHeldError{came.Invited}
	}
	home := came.SignIn.Home // another one than before where it was moved meanwhile
	// Until keep notes it in the invitation, what was laid aside is all that counts.
	signIn.MarkUnconfirmed(ctx)
	if _, err := signIn.TakeUp(ctx, text); err != nil {
		return came, err
	}
	if err := s.keep(ctx, signIn, &came, func() []string { return nil }); err != nil {
		return came, err
	}
	s.happened(confirmed, grant.Event{Time: s.Now().UTC(), ID: came.GrantID(), What: grant.EventUserConfirmed, Detail: came.User})
	return came, s.dropHeld(ctx, home, i.Key)
}

// Refuse forgets a sign-in that was held: it was the wrong user. The invitation has ended.
func (s *Session) Refuse(ctx context.Context, i Invited) error {
	if i.State(s.Now()) != invitation.StateHeld {
		return &NotHeldError{i}
	}
	return s.end(ctx, i, invitation.End{Why: invitation.Refused, At: s.stamp(), User: i.SignIn.User}, grant.EventUserRefused)
}

// Withdraw ends an invitation; a sign-in that is held is forgotten. One that has ended is
// an *invitation.OverError.
func (s *Session) Withdraw(ctx context.Context, i Invited) error {
	if i.End != nil {
		return &invitation.OverError{Invitation: i.Invitation}
	}
	return s.end(ctx, i, invitation.End{Why: invitation.Withdrawn, At: s.stamp()}, grant.EventWithdrawn)
}

// end ends an invitation. The company's login lock is taken, so that it is not in the
// midst of a sign-in. What is how histories say it, empty for not at all.
func (s *Session) end(ctx context.Context, i Invited, end invitation.End, what grant.EventKind) error {
	now, unlock, err := s.settledTurn(ctx, i)
	if err != nil {
		return err
	}
	defer unlock()
	if now.End != nil {
		return &invitation.OverError{Invitation: now.Invitation}
	}
	if _, err := s.Invitations.Close(ctx, i.Key, end); err != nil {
		return err
	}
	if what != "" {
		s.happened(ctx, grant.Event{Time: s.Now().UTC(), ID: now.GrantID(), What: what, Detail: end.User})
	}
	if now.SignIn == nil || !now.SignIn.Held {
		return nil
	}
	return s.dropHeld(ctx, now.SignIn.Home, i.Key)
}

// settledTurn takes the company's turn, and returns the invitation as it is then. A process
// may have ended right before it put the sign-in in place, or what was confirmed of it:
// nothing of that is to come to life once the invitation has ended.
func (s *Session) settledTurn(ctx context.Context, i Invited) (now Invited, unlock func(), err error) {
	for {
		if i.SignIn != nil {
			if err := s.Keeper.SettleLogins(ctx, i.GrantID()); err != nil {
				return i, nil, err
			}
		}
		if unlock, err = s.Vault.LockLogin(ctx, i.Company); err != nil {
			return i, nil, err
		}
		if now, err = s.InvitationOf(ctx, i.Key); err != nil {
			unlock()
			return i, nil, err
		}
		if now.End != nil || signInOf(now.Invitation) == signInOf(i.Invitation) && now.Company == i.Company {
			return now, unlock, nil
		}
		unlock() // it came to this since it was read
		i = now
	}
}

// settleSignIn lets a sign-in come to its end that a customer has made with an earlier
// invitation of a grant: it may be in the midst of being put in place.
func (s *Session) settleSignIn(ctx context.Context, id grant.ID, l invitation.Listed) (invitation.Listed, error) {
	if l.SignIn == nil {
		return l, nil
	}
	const every = 100 * time.Millisecond
	for waited := time.Duration(0); ; waited += every {
		err := s.Keeper.SettleLogins(ctx, id)
		if err == nil {
			break
		}
		if !errors.Is(err, grant.ErrLoginBusy) || waited >= turnPatience {
			return l, err
		}
		if err := s.options.Wait(ctx, every); err != nil {
			return l, err
		}
	}
	i, err := s.settleInvitation(ctx, l, func(string) (string, error) { return id.Company, nil })
	return invitation.Listed{Key: l.Key, Invitation: i.Invitation}, err
}

// signInOf names the sign-in of an invitation, as it was last tried to be put in place.
func signInOf(i invitation.Invitation) string {
	if i.SignIn == nil {
		return ""
	}
	return i.SignIn.TokenVaultKey
}

// Revoke forgets a grant. The invitation that made it is noted to be completed before: it
// can't be told from the grant any more.
func (s *Session) Revoke(ctx context.Context, id grant.ID) error {
	if err := s.settled(ctx, id); err != nil {
		s.step(ctx, err.Error()) // whatever is wrong with invitations, what shall go goes
	}
	return s.Keeper.Revoke(ctx, id)
}

// NoPublicURLError says that invitations have no address yet.
type NoPublicURLError struct{}

func (*NoPublicURLError) Error() string {
	return "public_url of [serve] is not set, so invitations have no address"
}

// PublicRedirectError says that an application has no redirect URI to which UPS could send
// customers' browsers, or one that does not lead to public_url.
type PublicRedirectError struct {
	Application, Environment string
	Has, Proposed            string
	// Unregistered says that the application comes from elsewhere than the list of
	// applications, such as the sandbox's.
	Unregistered bool
}

func (e *PublicRedirectError) Error() string {
	if e.Has != "" {
		return fmt.Sprintf("the public redirect URI of %s is %s, which is not below public_url", named(e.Application, e.Environment), e.Has)
	}
	return named(e.Application, e.Environment) + " has no public redirect URI"
}

// ReturnURLError says that an address is not among those where invitations may lead.
type ReturnURLError struct{ URL string }

func (e *ReturnURLError) Error() string {
	return fmt.Sprintf("%s is not below any of return_urls of [serve]", e.URL)
}

// NearNameError says that a company is new and that its name is near a known one.
type NearNameError struct{ Near NearName }

func (e *NearNameError) Error() string { return e.Near.Sentence() }

// HeldError says that a sign-in waits for the sender, so that its company is not invited
// again.
type HeldError struct{ Invited Invited }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s has signed in already for %s with the invitation %s, and waits for your answer",
		cmp.Or(e.Invited.SignIn.User, "a user whom UPS does not name"), e.Invited.GrantID(), e.Invited.Invitation.ID)
}

// NotHeldError says that an invitation has no sign-in that waits for the sender.
type NotHeldError struct{ Invited Invited }

func (e *NotHeldError) Error() string {
	return fmt.Sprintf("no sign-in of the invitation %s waits to be confirmed", e.Invited.Invitation.ID)
}

// HeldGoneError says that a sign-in that waits to be confirmed is not where it was put.
type HeldGoneError struct{ Invited Invited }

func (e *HeldGoneError) Error() string {
	return fmt.Sprintf("the sign-in of the invitation %s for %s is not in the %s any more", e.Invited.Invitation.ID, e.Invited.GrantID(), vault.Describe(e.Invited.SignIn.Home))
}
