package sandbox

import (
	"slices"
	"sync"
	"time"
)

// Outcome is what became of a code or a refresh token.
type Outcome string

// The outcomes. Only the first two issued tokens, whatever the client was
// told.
const (
	Committed Outcome = "committed" // spent, and tokens issued for it
	Graced    Outcome = "graced"    // spent before, but within [Options].Grace: tokens issued again
	Reused    Outcome = "reused"    // spent before: refused
	Refused   Outcome = "refused"   // unknown, expired, void, another client's, or with a wrong verifier or redirect URI
)

// Event is one use of a code or a refresh token that got past the
// authentication of the client.
type Event struct {
	Time     time.Time `json:"time"`
	Endpoint string    `json:"endpoint"`         // "token" or "refresh"
	Family   string    `json:"family,omitempty"` // one UUID for all that descends from one sign-in, as in the access token's sid; empty where unknown
	User     string    `json:"user,omitempty"`
	Outcome  Outcome   `json:"outcome"`
	Message  string    `json:"message,omitempty"` // of a refusal
}

// maxEvents is how many are remembered.
const maxEvents = 10_000

type events struct {
	mu   sync.Mutex
	list []Event
}

func (e *events) add(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) == maxEvents {
		e.list = slices.Delete(e.list, 0, maxEvents/10)
	}
	e.list = append(e.list, event)
}

// Refreshes returns what became of the codes and refresh tokens that this
// server was sent, oldest first. The oldest of many are forgotten.
func (s *Server) Refreshes() []Event {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return append([]Event{}, s.events.list...)
}
