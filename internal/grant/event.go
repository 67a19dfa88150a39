package grant

import "time"

// Event is something that happened to a grant, for people who look back. No
// secret is in it.
type Event struct {
	Time time.Time `json:"time"`
	What EventKind `json:"event"`
	ID
	// User is who signed in, for Authorized.
	User string `json:"user,omitempty"`
	// By is who did it, where that was not somebody at a command line: "manager" for the
	// company manager's pages, "key NAME" for a program with that key, "program" for one
	// at the service's socket, and "invitation ID" for a customer who was invited.
	By string `json:"by,omitempty"`
	// Detail says more, such as UPS's words.
	Detail string `json:"detail,omitempty"`
	// Count is how many events of the same kind in a row this one stands for,
	// and Since when the first of them was.
	Count int       `json:"count,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// EventKind is a kind of event.
type EventKind string

// What can happen to a grant.
const (
	EventAuthorized EventKind = "authorized"
	EventRefreshed  EventKind = "refreshed"
	EventFailed     EventKind = "refresh failed"
	EventVoid       EventKind = "void"
	EventRevoked    EventKind = "revoked"
	EventRenamed    EventKind = "renamed"
	EventMoved      EventKind = "moved"
	EventImported   EventKind = "imported"
	EventAdded      EventKind = "added"
	// What people do with invitations.
	EventInvited       EventKind = "invited"
	EventWithdrawn     EventKind = "invitation withdrawn"
	EventUserConfirmed EventKind = "user confirmed"
	EventUserRefused   EventKind = "user refused"
)
