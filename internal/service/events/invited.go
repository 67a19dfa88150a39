package events

import (
	"slices"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
)

// What happens to invitations.
const (
	InvitationCompleted Kind = "invitation.completed"  // the customer has authorized
	InvitationWrongUser Kind = "invitation.wrong_user" // another user than the expected one signed in
	InvitationHeld      Kind = "invitation.held"       // a user signed in whom the sender has to confirm
	InvitationEnded     Kind = "invitation.ended"      // it ended otherwise
)

// Invited is what was told of an invitation.
type Invited struct {
	// ID is how its grant was called at the last look, and Lane as in a memory.
	grant.ID
	Lane string `json:"lane"`
	// Wrong and Held are when the users signed in who were told last.
	Wrong time.Time `json:"wrong_user,omitzero"`
	Held  time.Time `json:"held,omitzero"`
	// Ended is the end that was told, empty for none, and Ends how many were: what was
	// removed may come again.
	Ended invitation.Why `json:"ended,omitempty"`
	Ends  int            `json:"ends,omitempty"`
	// Gone is when it was missed first, zero while it is there.
	Gone time.Time `json:"gone,omitzero"`
}

func (m Invited) same(other Invited) bool {
	return m.ID == other.ID && m.Lane == other.Lane && m.Wrong.Equal(other.Wrong) && m.Held.Equal(other.Held) &&
		m.Ended == other.Ended && m.Ends == other.Ends && m.Gone.Equal(other.Gone)
}

// oldestFirst are invitations in the order in which they happened: a new one ends another of
// its company's, also if it was made in the same second.
func oldestFirst(list []invitation.Listed) []invitation.Listed {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b invitation.Listed) int {
		if byTime := a.Made.Compare(b.Made); byTime != 0 {
			return byTime
		}
		switch {
		case a.End != nil && b.End == nil:
			return -1
		case a.End == nil && b.End != nil:
			return 1
		}
		return 0
	})
	return sorted
}

// compareInvited finds the events of an invitation: what it says, and m does not know.
// Silent says that only what lasts is told: a user who waits for the sender.
func compareInvited(l invitation.Listed, m Invited, silent bool, now time.Time) (found []Header, after Invited) {
	key := string(l.Key)
	m.ID, m.Gone = grant.ID{Company: l.Company, Application: l.Application, Environment: l.Environment}, time.Time{}
	if l.Wrong != nil && !l.Wrong.At.Equal(m.Wrong) {
		m.Wrong = l.Wrong.At.UTC()
		if !silent {
			found = append(found, Header{ID: identify(InvitationWrongUser, key, m.Wrong.Unix()), Event: InvitationWrongUser})
		}
	}
	state := l.State(now)
	if state == invitation.StateHeld && !l.SignIn.At.Equal(m.Held) {
		m.Held = l.SignIn.At.UTC()
		found = append(found, Header{ID: identify(InvitationHeld, key, m.Held.Unix()), Event: InvitationHeld})
	}
	why, kind := invitation.Why(""), InvitationEnded
	switch {
	case state == invitation.StateCompleted:
		why, kind = invitation.Completed, InvitationCompleted
	case state == invitation.StateEnded && l.End == nil:
		why = invitation.Expired
	case state == invitation.StateEnded:
		why = l.End.Why
	}
	if why != "" && (m.Ended == "" || why == invitation.Completed && m.Ended != why) {
		if !silent {
			found = append(found, Header{ID: identify(kind, key, m.Ends), Event: kind})
		}
		m.Ends++
	}
	m.Ended = why
	return found, m
}

// asOf is an invitation as it was when an event happened: another user may have signed in
// since the wrong one.
func asOf(i invitation.Invitation, kind Kind) invitation.Invitation {
	if kind == InvitationWrongUser {
		i.SignIn, i.End = nil, nil
	}
	return i
}
