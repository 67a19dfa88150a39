package session

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault"
)

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
	// Until it is announced in the invitation, what was laid aside is all that counts.
	signIn.MarkUnconfirmed(ctx)
	if _, err := signIn.TakeUp(ctx, text); err != nil {
		return came, err
	}
	if err := s.announce(ctx, signIn, &came); err != nil {
		return came, err
	}
	if err := s.keep(ctx, signIn, &came); err != nil {
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

// HeldError says that a sign-in waits for the sender, so that its company is not invited
// again.
type HeldError struct{ Invited Invited }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s has signed in already for %s with the invitation %s, and waits for your answer",
		e.Invited.SignIn.Named(), e.Invited.GrantID(), e.Invited.Invitation.ID)
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

// HeldSignIns are the invitations whose sign-in waits for the sender. Problems are those
// that can't be read.
func (s *Session) HeldSignIns(ctx context.Context) (held []Invited, problems []error, err error) {
	all, problems, err := s.ListInvitations(ctx, Target{})
	if err != nil {
		return nil, nil, err
	}
	return slices.DeleteFunc(all, func(i Invited) bool { return i.State(s.Now()) != invitation.StateHeld }), problems, nil
}

// CheckHeld returns what keeps a sign-in that waits from being confirmed.
func (s *Session) CheckHeld(ctx context.Context, i Invited) error {
	_, err := s.Vault.Secret(ctx, i.SignIn.Home, vault.HeldAccount(string(i.Key)))
	if errors.Is(err, vault.ErrNoItem) {
		return &HeldGoneError{i}
	}
	return err
}

// HeldLeftover reports whether what a home has under the account of a sign-in that waits is
// left over: no invitation says that it waits there. With drop it is removed then. What is
// just being put there is none.
func (s *Session) HeldLeftover(ctx context.Context, home, account string, drop bool) (bool, error) {
	key := invitation.Key(vault.HeldKey(account))
	i := Invited{}
	read := func() (err error) {
		if !key.Valid() {
			return nil
		}
		if i, err = s.InvitationOf(ctx, key); errors.Is(err, invitation.ErrUnknown) {
			i, err = Invited{}, nil
		}
		return err
	}
	left := func() bool {
		return i.End != nil || i.SignIn == nil || !i.SignIn.Held || i.SignIn.Home != home
	}
	if err := read(); err != nil || !left() {
		return false, err
	}
	if i.End == nil && i.Company != "" {
		// It is put there under the company's login lock, before the invitation says so.
		unlock, err := s.Vault.LockLogin(ctx, i.Company)
		if errors.As(err, new(*vault.LoginBusyError)) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer unlock()
		if err := read(); err != nil || !left() {
			return false, err
		}
	}
	var err error
	if drop {
		err = s.Vault.DeleteSecret(ctx, home, account)
	} else {
		err = s.Vault.CanDeleteSecret(ctx, home, account)
	}
	if errors.Is(err, vault.ErrNoItem) {
		return false, nil // it is gone by now
	}
	return true, err
}

// MoveHeld puts a sign-in that waits in another home. At every instant its invitation
// names a home that has it; what is left in the other one is known as a leftover.
func (s *Session) MoveHeld(ctx context.Context, i Invited, to string) error {
	unlock, err := s.Vault.LockLogin(ctx, i.Company)
	if err != nil {
		return err
	}
	defer unlock()
	if i, err = s.InvitationOf(ctx, i.Key); err != nil {
		return err
	}
	if i.State(s.Now()) != invitation.StateHeld || i.SignIn.Home == to {
		return nil
	}
	account, from := vault.HeldAccount(string(i.Key)), i.SignIn.Home
	text, err := s.Vault.Secret(ctx, from, account)
	if errors.Is(err, vault.ErrNoItem) {
		return &HeldGoneError{i}
	}
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.Vault.PutSecret(ctx, to, account, text); err != nil {
		return err
	}
	_, err = s.Invitations.Change(ctx, i.Key, func(i *invitation.Invitation) error {
		if i.SignIn == nil || !i.SignIn.Held {
			return &NotHeldError{Invited{Invitation: *i}}
		}
		moved := *i.SignIn
		moved.Home = to
		i.SignIn = &moved
		return nil
	})
	if err != nil {
		return errors.Join(err, s.dropHeld(ctx, to, i.Key))
	}
	return s.dropHeld(ctx, from, i.Key)
}

// HeldIn are the sign-ins that wait, of those that a target names, in another home than one.
func (s *Session) HeldIn(ctx context.Context, t Target, besides string) ([]Invited, error) {
	held, problems, err := s.HeldSignIns(ctx)
	if err != nil {
		return nil, err
	}
	s.problems(ctx, problems)
	return slices.DeleteFunc(held, func(i Invited) bool {
		return i.SignIn.Home == besides || !t.Fits(i.GrantID())
	}), nil
}
