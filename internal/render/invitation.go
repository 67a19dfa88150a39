package render

import (
	"time"

	"github.com/upsauth/upsauth/internal/invitation"
)

// InvitationVersion is the version of the JSON of invitations.
const InvitationVersion = 1

// Invite is the JSON of a new invitation, with the address that nobody can print again.
type Invite struct {
	Version     int    `json:"version"`
	ID          string `json:"id"`
	Company     string `json:"company"`
	Application string `json:"application"`
	Environment string `json:"environment"`
	URL         string `json:"url"`
	Expires     string `json:"expires"`
}

// NewInvite makes the JSON of a new invitation.
func NewInvite(i invitation.Invitation, address string) Invite {
	return Invite{
		Version: InvitationVersion, ID: i.ID, Company: i.Company, Application: i.Application, Environment: i.Environment,
		URL: address, Expires: *machineTime(i.Expires),
	}
}

// Invitation is the JSON of an invitation, without its address.
type Invitation struct {
	ID          string           `json:"id"`
	Company     string           `json:"company"`
	Application string           `json:"application"`
	Environment string           `json:"environment"`
	State       invitation.State `json:"state"`
	Made        string           `json:"made"`
	Expires     string           `json:"expires"`
	ExpectUser  *string          `json:"expect_user"`
	// User is who signed in: the wrong user, the one who is held, or the one of the
	// authorization.
	User    *string        `json:"user"`
	Doubts  []string       `json:"doubts,omitempty"`
	Why     invitation.Why `json:"why,omitempty"`
	Ended   *string        `json:"ended,omitempty"`
	Note    string         `json:"note,omitempty"`
	Invited string         `json:"invited_by,omitempty"`
}

// NewInvitation makes the JSON of an invitation, as it is at a time.
func NewInvitation(i invitation.Invitation, now time.Time) Invitation {
	user := SignedIn(i)
	j := Invitation{
		ID: i.ID, Company: i.Company, Application: i.Application, Environment: i.Environment, State: i.State(now),
		Made: *machineTime(i.Made), Expires: *machineTime(i.Expires), ExpectUser: orNull(&i.ExpectUser), User: orNull(&user),
		Note: i.Note, Invited: i.By,
	}
	if i.SignIn != nil && i.SignIn.Held && i.End == nil {
		j.Doubts = i.SignIn.Doubts
	}
	if i.End != nil {
		j.Why, j.Ended = i.End.Why, machineTime(i.End.At)
	}
	return j
}

// SignedIn is who signed in last with an invitation, empty for nobody.
func SignedIn(i invitation.Invitation) string {
	switch {
	case i.End != nil && i.End.User != "":
		return i.End.User
	case i.SignIn != nil:
		return i.SignIn.User
	case i.Wrong != nil:
		return i.Wrong.User
	}
	return ""
}

// InvitationFacts is the JSON of an event of an invitation: whose grant it is for, by the
// names that status has for that, and the invitation.
type InvitationFacts struct {
	Company     string     `json:"company"`
	Application string     `json:"application"`
	Environment string     `json:"environment"`
	Invitation  Invitation `json:"invitation"`
}

// NewInvitationFacts makes the JSON of an event of an invitation.
func NewInvitationFacts(i invitation.Invitation, now time.Time) InvitationFacts {
	return InvitationFacts{i.Company, i.Application, i.Environment, NewInvitation(i, now)}
}
