package session

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
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
	if r.ReturnURL != "" && !s.MayReturn(r.ReturnURL) {
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

// MayReturn reports whether an invitation may lead to an address in the end.
func (s *Session) MayReturn(address string) bool {
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
