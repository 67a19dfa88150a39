package ledger

import (
	"fmt"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// ClaimedError says that another attempt may be on its way. Until is when the next one may
// follow, by the database's clock; zero is not without a person.
type ClaimedError struct {
	Claim Claim
	// Name is the claim's host's, empty where the database does not know the host.
	Name  string
	Until time.Time
	// ID is the grant's, as far as who asked has named it.
	ID grant.ID
}

func (e *ClaimedError) Error() string {
	return fmt.Sprintf("%s asked UPS at %s; its answer has not arrived here", named(e.Name, e.Claim.Host), e.Claim.At.UTC().Format(time.TimeOnly))
}

// named is what people read of a host: its name, or its ID where the name is not known.
func named(name, id string) string {
	if name == "" {
		return "the host " + id
	}
	return name
}

// FrozenError says that nobody spends: the database is another one than it was, and not
// every host has said yet what it has. Answer says that this host has not.
type FrozenError struct {
	Epoch   int64
	Waiting []string // the names of the hosts that have not answered
	Answer  bool
}

func (e *FrozenError) Error() string {
	if e.Answer {
		return "the database changed hands, and this host has not told it yet what it holds"
	}
	return "the database changed hands; waiting for " + strings.Join(e.Waiting, ", ")
}

// ConflictError has the row that is there instead of the one that was meant. WentBack says
// that its token is older than one that this host has seen there, Missing that no host has
// delivered that one although all were asked.
type ConflictError struct {
	Grant             Grant
	WentBack, Missing bool
}

func (e *ConflictError) Error() string {
	switch {
	case e.Missing:
		return "the database has an older token than this host has seen, and no host has the newer one; nothing was sent"
	case e.WentBack:
		return "the database has an older token than this host has seen; nothing was sent"
	}
	return "the grant was changed meanwhile"
}

// Reason is why a host may not spend.
type Reason string

const (
	// Stranger: the database knows no such host, or another incarnation of it.
	Stranger Reason = "is not known to the database"
	// RemovedHost: a person removed it. It may deliver what it has.
	RemovedHost Reason = "was removed by a person"
	// Alone: it is new, and no other host has been here for AloneAfter. A person is to
	// say that this is the right database.
	Alone Reason = "is new, and no other host has reached the database for 24 hours"
)

// HostError says that a host may not spend.
type HostError struct {
	Host string
	// Name is what people read of it, empty where that is not known.
	Name   string
	Reason Reason
}

func (e *HostError) Error() string { return fmt.Sprintf("%s %s", named(e.Name, e.Host), e.Reason) }

// SettledError says that the claim of an intent has ended already.
type SettledError struct{ Claim Claim }

func (e *SettledError) Error() string { return "the attempt has ended: " + string(e.Claim.Outcome) }

// LateError says that too much time passed between a claim and its request.
type LateError struct{ After time.Duration }

func (e *LateError) Error() string {
	return fmt.Sprintf("%s passed since the claim, more than %s; nothing was sent", e.After.Round(time.Millisecond), SendWithin)
}
