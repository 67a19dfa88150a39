package session

import (
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/vault"
)

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
