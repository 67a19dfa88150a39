package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/ups"
)

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
	// put in place. Keep says when that is known.
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
	if err := s.announce(ctx, signIn, &came); err != nil {
		return came, err
	}
	if expected == "" {
		if doubts := s.doubtsMeanwhile(ctx, came); len(doubts) > 0 {
			came.Held = true
			return came, s.hold(ctx, signIn, came, doubts)
		}
	}
	return came, s.keep(ctx, signIn, &came)
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

// announce notes which sign-in is about to be put in place, so that the invitation is known
// to be completed whatever happens afterwards.
func (s *Session) announce(ctx context.Context, signIn *keeper.SignIn, came *Came) error {
	visit := invitation.Visit{User: came.User, At: s.stamp()}
	noted, err := s.Invitations.Change(ctx, came.Key, func(i *invitation.Invitation) error {
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
	noted.Company = came.Company
	came.Invitation = noted
	return nil
}

// keep puts a sign-in in place that was announced.
func (s *Session) keep(ctx context.Context, signIn *keeper.SignIn, came *Came) (err error) {
	came.Grant, err = signIn.Keep(ctx)
	if err != nil && !errors.As(err, new(*keeper.SavedError)) {
		return err
	}
	closed, err := s.Invitations.Close(ctx, came.Key, invitation.End{Why: invitation.Completed, At: came.SignIn.At, User: came.User})
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
