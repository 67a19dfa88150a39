package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
)

// withdraw ends an invitation.
func (m *manager) withdraw(w http.ResponseWriter, r *http.Request) error {
	return m.endInvitation(w, r, "withdrawn", func(ctx context.Context, s *session.Session, i session.Invited) error {
		return s.Withdraw(ctx, i)
	})
}

// confirm puts in place what a user signed in for who was held.
func (m *manager) confirm(w http.ResponseWriter, r *http.Request) error {
	return m.endInvitation(w, r, "confirmed", func(ctx context.Context, s *session.Session, i session.Invited) error {
		if err := s.Open(ctx, true, grant.Record{Facts: grant.Facts{ID: i.GrantID(), Home: s.Config.Vault}}); err != nil {
			return err
		}
		_, err := s.Confirm(ctx, i)
		return err
	})
}

// refuseUser forgets a user who was held.
func (m *manager) refuseUser(w http.ResponseWriter, r *http.Request) error {
	return m.endInvitation(w, r, "refused", func(ctx context.Context, s *session.Session, i session.Invited) error {
		return s.Refuse(ctx, i)
	})
}

// endInvitation does something with an invitation, and ends at its company.
func (m *manager) endInvitation(w http.ResponseWriter, r *http.Request, outcome string, do func(context.Context, *session.Session, session.Invited) error) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	key := invitation.Key(r.PostForm.Get("invitation"))
	if !key.Valid() {
		return errNoInvitation
	}
	i, err := s.InvitationOf(ctx, key)
	if errors.Is(err, invitation.ErrUnknown) {
		return errNoInvitation
	}
	if err != nil {
		return err
	}
	links := []page.Link{{Text: i.Company, Address: address("/company", grant.ID{Company: i.Company})}}
	var over *invitation.OverError
	switch err := do(ctx, s, i); {
	case errors.As(err, &over):
		return &pageError{
			status: http.StatusConflict, heading: "The invitation has ended", what: endWords(*over.Invitation.End) + " Nothing was changed.", links: links,
		}
	case errors.As(err, new(*session.NotHeldError)):
		return &pageError{
			status: http.StatusConflict, heading: "Nobody waits for your answer", what: "No user waits to be confirmed. Nothing was changed.", links: links,
		}
	case err != nil:
		return err
	}
	see(w, address("/company", grant.ID{Company: i.Company}, "done", outcome))
	return nil
}

var errNoInvitation = &pageError{
	status: http.StatusNotFound, heading: "There is no such invitation", what: "The invitation is not known any more. Nothing was changed.",
	links: []page.Link{{Text: "HOME", Address: "/"}},
}

// invitedFor are the invitations that a person or a customer still has to do with, by their
// grants: one that is open, or a user who waits to be confirmed, who counts first.
func invitedFor(all []session.Invited, now time.Time) map[grant.ID]*session.Invited {
	found := map[grant.ID]*session.Invited{}
	for at := range all { // the latest first
		i := &all[at]
		if !i.Lives(now) {
			continue
		}
		if other := found[i.GrantID()]; other == nil || held(i, now) && !held(other, now) {
			found[i.GrantID()] = i
		}
	}
	return found
}

// invitationView is an invitation on its company's page.
type invitationView struct {
	Key, ID, What string // What is the heading
	Text          []string
	Doubts        []string
	Bad           bool
	Open, Held    bool
	Again         string // the grant, where one press makes a new address
}

// mostEnded is how many invitations that have ended the company's page shows.
const mostEnded = 3

// invitationViews are a company's invitations: those that somebody waits for first.
func invitationViews(all []session.Invited, canInvite func(application, environment string) bool, now time.Time) (list []invitationView) {
	ended := 0
	for _, wanted := range []bool{true, false} {
		for _, i := range all {
			if i.Lives(now) != wanted {
				continue
			}
			if !wanted {
				if ended++; ended > mostEnded {
					break
				}
			}
			list = append(list, viewOf(i, canInvite(i.Application, i.Environment), now))
		}
	}
	return list
}

func viewOf(i session.Invited, canInvite bool, now time.Time) invitationView {
	v := invitationView{Key: string(i.Key), ID: i.ID, What: displayName(i.Application) + ", " + i.Environment}
	say := func(format string, args ...any) { v.Text = append(v.Text, fmt.Sprintf(format, args...)) }
	switch state := i.State(now); state {
	case invitation.StateHeld:
		v.Held, v.Bad = true, true
		say("%s. Is this the right user? The authorization is not in place before you confirm it.", signedIn(i.SignIn.Visit))
		v.Doubts = i.SignIn.Doubts
	case invitation.StateCompleted:
		say("%s", endWords(*i.End))
	case invitation.StateEnded:
		end := invitation.End{Why: invitation.Expired, At: i.Expires}
		if i.End != nil {
			end = *i.End
		}
		say("%s", endWords(end))
	default:
		v.Open = true
		if canInvite {
			v.Again = ofGrant(i.GrantID())
		}
		if state == invitation.StateWrongUser {
			v.Bad = true
			say("Wrong user: %s. Nothing was saved.", signedIn(*i.Wrong))
		}
		say("The address works until %s.", when(i.Expires))
		switch {
		case i.ExpectUser != "":
			say("Only %s may sign in.", legible.Line(i.ExpectUser))
		case i.AnyUser:
			say("Anybody may sign in.")
		}
	}
	made := "Made on " + when(i.Made)
	if i.By != "" {
		made += " (" + legible.Line(i.By) + ")"
	}
	say("%s. ID %s.", made, i.ID)
	if i.Note != "" {
		say("Note: %s", legible.Line(i.Note))
	}
	return v
}

// signedIn says who came, and when.
func signedIn(v invitation.Visit) string {
	who := "Somebody whom UPS does not name"
	if v.User != "" {
		who = legible.Line(v.User)
	}
	return who + " signed in on " + when(v.At)
}

// endWords say how an invitation ended.
func endWords(end invitation.End) string {
	at := when(end.At)
	switch end.Why {
	case invitation.Completed:
		if end.User == "" {
			return "Completed on " + at + "."
		}
		return "Completed on " + at + " by " + legible.Line(end.User) + "."
	case invitation.Expired:
		return "Expired on " + at + "."
	case invitation.Withdrawn:
		return "Withdrawn on " + at + "."
	case invitation.Replaced:
		return "A newer address took its place."
	case invitation.Refused:
		return "Refused on " + at + ": " + cmp.Or(legible.Line(end.User), "the user who signed in") + " was not the right user."
	case invitation.CompanyRemoved:
		return "Ended: the company was removed."
	case invitation.ApplicationRemoved:
		return "Ended: the application is not registered any more."
	case invitation.ClientChanged:
		return "Ended: the application has another client ID."
	case invitation.Overtaken:
		return "Ended: the company was authorized otherwise."
	}
	return "Ended on " + at + "."
}
