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
		if l.Open(now) {
			open = append(open, Invited{l.Invitation, l.Key})
		}
	}
	open, err = s.judgedBeside(ctx, open, record)
	return slices.DeleteFunc(open, func(i Invited) bool { return !i.Open(now) }), err
}

// judgedBeside gives invitations the end that each has come to by now, and what its company
// is called now. Record is as for openInvitations.
func (s *Session) judgedBeside(ctx context.Context, list []Invited, record func(grant.ID) grant.Record) ([]Invited, error) {
	if len(list) == 0 {
		return nil, nil
	}
	identified, err := s.Companies.Identified(ctx)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	type application struct{ name, environment string }
	clients := map[application]string{}
	for at := range list {
		i := &list[at]
		around := invitation.Around{Company: identified.Name(i.CompanyID)}
		if around.Company != "" {
			i.Company = around.Company
		}
		if i.End != nil {
			continue
		}
		of := application{i.Application, i.Environment}
		client, looked := clients[of]
		if !looked {
			r, err := s.Registration(ctx, i.Application, i.Environment)
			if err != nil && !errors.As(err, new(*NotFoundError)) {
				return nil, err
			}
			client = r.ClientID
			clients[of] = client
		}
		around.Registered, around.ClientID = client != "", client
		around.TokenVaultKey = record(i.GrantID()).TokenVaultKey
		i.Invitation = i.Judged(now, around)
	}
	return list, nil
}

// InvitationsBeside are all invitations where the grants have been read already, the latest
// made first. The records of each company must be all that there are of it, and with a
// company, only its invitations are returned. What can't be read is told by a notice.
func (s *Session) InvitationsBeside(ctx context.Context, records []grant.Record, company string) ([]Invited, error) {
	all, problems, err := s.Invitations.List(ctx)
	if err != nil {
		return nil, err
	}
	s.problems(ctx, problems)
	if len(all) == 0 {
		return nil, nil
	}
	if company != "" {
		identified, err := s.Companies.Identified(ctx)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(l invitation.Listed) bool {
			return grant.Fold(cmp.Or(identified.Name(l.CompanyID), l.Company)) != grant.Fold(company)
		})
	}
	list := make([]Invited, len(all))
	for i, l := range all {
		list[i] = Invited{l.Invitation, l.Key}
	}
	there := make(map[string]int, len(records))
	for i, r := range records {
		if r.TokenVaultKey != "" {
			there[r.Slot()] = i
		}
	}
	return s.judgedBeside(ctx, list, func(id grant.ID) grant.Record {
		if i, ok := there[id.Slot()]; ok && !records[i].Removing {
			return records[i]
		}
		return grant.Record{}
	})
}

// MarkInvited notes in records until when the address works that their customers were
// sent, for a grant that has one. A record of a company without a grant has the time of the
// company's last invitation. The records of each company must be all that there are of it.
// What can't be read is told by a notice.
func (s *Session) MarkInvited(ctx context.Context, records []grant.Record) error {
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
		i, ok := at[keyOf(invited.GrantID())]
		if !ok {
			// A company without any grant has one record.
			i, ok = at[keyOf(grant.ID{Company: invited.Company})]
		}
		if ok && records[i].InvitedUntil.Before(invited.Expires) {
			records[i].InvitedUntil = invited.Expires
		}
	}
	return nil
}
