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
