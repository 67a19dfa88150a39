package session

import (
	"context"
	"errors"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
)

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

// SettleInvitations notes of invitations how they ended because of what they hang on: the
// company or the application was removed, the client ID is another one, or the grant was
// authorized otherwise. A customer's sign-in that waits for the sender goes with its
// invitation. Without invitations it is one look at a directory.
func (s *Session) SettleInvitations(ctx context.Context) error {
	all, _, err := s.Invitations.List(ctx) // what can't be read is told by whoever lists them
	if err != nil || len(all) == 0 {
		return err
	}
	called, err := s.called(ctx)
	if err != nil {
		return err
	}
	var failed []error
	waits := map[string]bool{}
	for _, l := range all {
		if l.End != nil {
			continue
		}
		if name, err := called(l.CompanyID); err == nil && name != "" && l.SignIn != nil {
			// What is as good as in place makes it a completed one, whatever has gone since.
			err := s.Keeper.SettleLogins(ctx, grant.ID{Company: name, Application: l.Application, Environment: l.Environment})
			if errors.Is(err, grant.ErrLoginBusy) {
				continue // whoever is at it notes what comes of it
			}
			if err != nil {
				failed = append(failed, err)
				continue
			}
		}
		i, err := s.settleInvitation(ctx, l, called)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if i.Lives(s.Now()) {
			// Two companies that became one may both have been invited: the latest counts.
			if slot := i.GrantID().Slot(); !waits[slot] {
				waits[slot] = true
			} else if err := s.end(ctx, i, invitation.End{Why: invitation.Replaced, At: s.stamp()}, ""); err != nil {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

// errStays says that an invitation has not ended by what it hangs on.
var errStays = errors.New("the invitation stays")

// settleInvitation is SettleInvitations for one, and returns it as it is now. It needs no
// lock: the end that is noted counts already, and is judged again with what the note
// replaces.
func (s *Session) settleInvitation(ctx context.Context, l invitation.Listed, called func(string) (string, error)) (Invited, error) {
	name, err := called(l.CompanyID)
	if err != nil {
		return Invited{}, err
	}
	var now Invited
	ended, err := s.Invitations.Change(ctx, l.Key, func(i *invitation.Invitation) error {
		var err error
		if now, err = s.judged(ctx, l.Key, *i, name); err != nil {
			return err
		}
		if now.End == nil || now.End.Why == invitation.Expired {
			return errStays // or it says so already by what is noted
		}
		i.End = now.End
		return nil
	})
	over := new(invitation.OverError)
	switch {
	case errors.Is(err, errStays):
		return now, nil
	case errors.As(err, &over):
		return Invited{Invitation: over.Invitation, Key: l.Key}, nil
	case err != nil:
		return Invited{}, err
	}
	if ended.SignIn == nil || !ended.SignIn.Held {
		return now, nil
	}
	return now, s.dropHeld(ctx, ended.SignIn.Home, l.Key)
}

// latestOf are the invitations of a grant that were made last: one for each company that
// became this one.
func (s *Session) latestOf(ctx context.Context, id grant.ID) (list []invitation.Listed, err error) {
	identities, err := s.Companies.Identities(ctx, id.Company)
	for _, companyID := range identities {
		latest, err := s.Invitations.Latest(ctx, companyID, id.Application, id.Environment)
		if err != nil && !errors.Is(err, invitation.ErrUnknown) {
			return nil, err
		}
		if err == nil && latest.End == nil {
			list = append(list, latest)
		}
	}
	return list, err
}

// settled notes how the invitation of a grant ended that was authorized otherwise.
func (s *Session) settled(ctx context.Context, id grant.ID) error {
	some, err := s.Invitations.Any(ctx)
	if err != nil || !some {
		return err
	}
	list, err := s.latestOf(ctx, id)
	if err != nil {
		return err
	}
	for _, latest := range list {
		_, settleErr := s.settleInvitation(ctx, latest, func(string) (string, error) { return id.Company, nil })
		err = errors.Join(err, settleErr)
	}
	return err
}

// SweepInvitations settles invitations and forgets those that ended long ago.
func (s *Session) SweepInvitations(ctx context.Context) error {
	err := s.SettleInvitations(ctx)
	return errors.Join(err, s.Invitations.Sweep(ctx, s.Now()))
}
