package events

import (
	"context"
	"time"
)

// Store keeps what was told, and the events that wait for the command: this machine's files,
// or a database that several hosts share.
type Store interface {
	// Read returns what was told. Nobody may change what is in it. What is damaged is set
	// aside, and told by the second result.
	Read(ctx context.Context) (t Told, damaged []error, err error)
	// Keep keeps what was found since then, events and what is known once they are told: when
	// it returns nil, that survives a loss of power. An event whose ID is there already is
	// left out. If another host has kept something since, Keep keeps nothing and returns a
	// *ConflictError.
	Keep(ctx context.Context, f Found) error
	// TurnOff notes that nobody is to be told, and returns how many events wait; changed says
	// that this is news. Where several hosts share the store, one of them turns nothing off.
	TurnOff(ctx context.Context) (waiting int, changed bool, err error)
	// Hurry ends the pauses before all attempts.
	Hurry(ctx context.Context) error

	// Next returns the event that is to be told next, nil for none; wait is how long it is
	// until one may be, zero where none waits. It is the first of its company that waits.
	// Nobody else is given it for as long as the command may take.
	Next(ctx context.Context) (e *Event, wait time.Duration, err error)
	// Done takes an event out that was told, or is dropped. Later puts it off, with all of its
	// company that wait behind it. Leave gives it back as it was.
	Done(ctx context.Context, e Event, told bool) error
	Later(ctx context.Context, e Event, pause time.Duration) (waiting int, err error)
	Leave(ctx context.Context, e Event) error
}

// Told is what was told of each grant and invitation.
type Told struct {
	// Version tells the store which reading it is.
	Version string
	// Silent says that nobody was to be told so far: only what lasts is told then.
	Silent bool
	// Unsaved says that the store has less than this.
	Unsaved     bool
	Grants      map[string]Memory  // by Token Vault Key
	Invitations map[string]Invited // by the invitations' keys
	// Waiting are the IDs of events that are not told yet, as far as the store knows them.
	Waiting map[string]bool
}

// Found is what one look has found.
type Found struct {
	Before Told
	// Grants and Invitations are what was told once the events are.
	Grants      map[string]Memory
	Invitations map[string]Invited
	Batches     []*Batch // the events, in their order
	// Joined are lanes that have become others.
	Joined map[string]string
}

// LaneOf is the lane in which an event is told.
func (f Found) LaneOf(e *Event) string { return e.lane(f.Grants, f.Invitations) }

// lane is the lane of an event by what is known of its grant or invitation.
func (e *Event) lane(grants map[string]Memory, invitations map[string]Invited) string {
	if e.Invitation != "" {
		if m, ok := invitations[e.Invitation]; ok {
			return m.Lane
		}
		return e.Invitation
	}
	if m, ok := grants[e.Key]; ok {
		return m.Lane
	}
	return e.Key
}

// ConflictError says that another host has kept events since a look began.
type ConflictError struct{}

func (e *ConflictError) Error() string {
	return "another host has found events at the same time"
}
