package session

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
)

// openInvitations are the invitations that are open, with what their companies are called
// now. Record returns a grant as it was read; without Token Vault Key there is none. Where
// nobody was invited, that takes a look at one directory.
func (s *Session) openInvitations(ctx context.Context, record func(grant.ID) grant.Record) ([]Invited, error) {
	all, problems, err := s.Invitations.List(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	if err != nil {
		problems = []error{err} // what is known of the grants can be told all the same
	}
	s.problems(ctx, problems)
	now := s.Now()
	var open []Invited
	for _, l := range all {
		if l.Lives(now) {
			open = append(open, Invited{Invitation: l.Invitation, Key: l.Key})
		}
	}
	open, err = s.judgedBeside(ctx, open, record)
	return slices.DeleteFunc(open, func(i Invited) bool { return !i.Lives(now) }), err
}

// judgedBeside gives invitations the end that each has come to by now, and what its company
// is called now. Those whose company may stand in what can't be read are left out: that is
// told with the grants. Record is as for openInvitations.
func (s *Session) judgedBeside(ctx context.Context, list []Invited, record func(grant.ID) grant.Record) ([]Invited, error) {
	if len(list) == 0 {
		return nil, nil
	}
	called, err := s.called(ctx)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	type application struct{ name, environment string }
	clients := map[application]string{}
	kept := list[:0]
	for _, i := range list {
		name, err := called(i.CompanyID)
		if err != nil && i.End == nil {
			continue
		}
		if name != "" {
			i.Company = name
		}
		if i.End != nil {
			kept = append(kept, i)
			continue
		}
		of := application{i.Application, i.Environment}
		client, looked := clients[of]
		if !looked {
			if client, err = s.clientID(ctx, i.Application, i.Environment); err != nil {
				return nil, err
			}
			clients[of] = client
		}
		i.Invitation = i.Judged(now, invitation.Around{Company: name, ClientID: client, TokenVaultKey: record(i.GrantID()).TokenVaultKey})
		kept = append(kept, i)
	}
	return kept, nil
}

// InvitationsBeside are all invitations where the grants have been read already, the latest
// made first. The records of each company must be all that there are of it, and with a
// company, only its invitations are returned. What can't be read is told by a notice.
func (s *Session) InvitationsBeside(ctx context.Context, records []grant.Record, company string) ([]Invited, error) {
	list, _, err := s.invitationsBeside(ctx, records, company)
	return list, err
}

// InvitationsNow is InvitationsBeside of all companies, for whoever compares them again and
// again. Whole says that they are all that there are: nothing was unreadable.
func (s *Session) InvitationsNow(ctx context.Context, records []grant.Record) (list []invitation.Listed, whole bool, err error) {
	all, whole, err := s.invitationsBeside(ctx, records, "")
	for _, i := range all {
		list = append(list, invitation.Listed{Key: i.Key, Invitation: i.Invitation})
	}
	return list, whole, err
}

func (s *Session) invitationsBeside(ctx context.Context, records []grant.Record, company string) (list []Invited, whole bool, err error) {
	all, problems, err := s.Invitations.List(ctx)
	if err != nil {
		return nil, false, err
	}
	s.problems(ctx, problems)
	if len(all) == 0 {
		return nil, len(problems) == 0, nil
	}
	if company != "" {
		identified, err := s.Companies.Identified(ctx)
		if err != nil {
			return nil, false, err
		}
		all = slices.DeleteFunc(all, func(l invitation.Listed) bool {
			return grant.Fold(cmp.Or(identified.Name(l.CompanyID), l.Company)) != grant.Fold(company)
		})
	}
	list = make([]Invited, len(all))
	for i, l := range all {
		list[i] = Invited{Invitation: l.Invitation, Key: l.Key}
	}
	there := make(map[string]int, len(records))
	for i, r := range records {
		if r.TokenVaultKey != "" {
			there[r.Slot()] = i
		}
	}
	list, err = s.judgedBeside(ctx, list, func(id grant.ID) grant.Record {
		if i, ok := there[id.Slot()]; ok && !records[i].Removing {
			return records[i]
		}
		return grant.Record{}
	})
	return list, len(problems) == 0 && len(list) == len(all), err
}

// MarkInvited notes in records until when the address works that their customers were
// sent, for a grant that has one. A record of a company without a grant has the time of the
// company's last invitation. The records of each company must be all that there are of it.
// What can't be read is told by a notice.
func (s *Session) MarkInvited(ctx context.Context, records []grant.Record) error {
	return s.MarkInvitedFor(ctx, records, func(grant.ID) bool { return true })
}

// MarkInvitedFor is MarkInvited with the invitations for some grants alone.
func (s *Session) MarkInvitedFor(ctx context.Context, records []grant.Record, wanted func(grant.ID) bool) error {
	type key struct{ slot, application, environment string }
	keyOf := func(id grant.ID) key { return key{grant.CompanySlot(id.Company), id.Application, id.Environment} }
	at := make(map[key]int)
	indexed := false
	index := func() {
		if indexed {
			return
		}
		indexed = true
		for i, r := range records {
			at[keyOf(r.ID)] = i
		}
	}
	open, err := s.openInvitations(ctx, func(id grant.ID) grant.Record {
		index()
		if i, ok := at[keyOf(id)]; ok {
			return records[i]
		}
		return grant.Record{}
	})
	if err != nil {
		return err
	}
	for _, invited := range open {
		if !wanted(invited.GrantID()) {
			continue
		}
		i, ok := at[keyOf(invited.GrantID())]
		if !ok {
			// A company without any grant has one record.
			i, ok = at[keyOf(grant.ID{Company: invited.Company})]
		}
		switch state := invited.State(s.Now()); {
		case !ok:
		case state == invitation.StateHeld:
			records[i].Waits = invited.ID
		case records[i].InvitedUntil.Before(invited.Expires):
			records[i].InvitedUntil, records[i].WrongUser = invited.Expires, state == invitation.StateWrongUser
		}
	}
	return nil
}

// called returns what the company with an identity is called now, empty for one that was
// removed. It is an error where that may stand in what can't be read.
func (s *Session) called(ctx context.Context) (func(id string) (string, error), error) {
	identified, err := s.Companies.Identified(ctx)
	if err != nil {
		return nil, err
	}
	var unread error
	looked := false
	return func(id string) (string, error) {
		name := identified.Name(id)
		if name == "" && !looked {
			_, problems, err := s.Companies.List(ctx, "")
			looked, unread = true, errors.Join(append(problems, err)...)
		}
		if name == "" {
			return "", unread
		}
		return name, nil
	}, nil
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
