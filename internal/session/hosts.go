package session

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// HostState is what is to be said of a host that shares the vault.
type HostState string

const (
	// HostReady: it has answered the roll call of the epoch.
	HostReady HostState = "ready"
	// HostAwaited: nobody refreshes a token until it has answered the roll call.
	HostAwaited HostState = "awaited"
	// HostWaived: it has not answered, and a person said that nobody is to wait for it.
	HostWaived HostState = "not-awaited"
	// HostToAccept: a person is to say that this is its database.
	HostToAccept HostState = "to-accept"
	// HostSignedOff: it holds nothing.
	HostSignedOff HostState = "signed-off"
	// HostRemoved: a person said that it does not come any more.
	HostRemoved HostState = "removed"
)

// Host is a host that shares the vault.
type Host struct {
	ledger.Host
	State HostState
	// Here says that it is this machine.
	Here bool
}

// shortID is how much of a host's ID people read. It tells random ones apart.
const shortID = 8

// ShortID is the beginning of the ID, by which people name a host.
func (h Host) ShortID() string {
	if len(h.ID) <= shortID {
		return h.ID
	}
	return h.ID[:shortID]
}

// Hosts are all hosts that share the vault, by their names, and the epoch of the last roll
// call.
type Hosts struct {
	Epoch int64
	Hosts []Host
	// Now is the time by the database's clock, by which the hosts were seen.
	Now time.Time
}

// Awaited are the hosts that have not answered the roll call.
func (h Hosts) Awaited() (awaited []Host) {
	for _, host := range h.Hosts {
		if host.State == HostAwaited {
			awaited = append(awaited, host)
		}
	}
	return awaited
}

// HostNotFoundError says that the database knows no host of a name or an ID.
type HostNotFoundError struct {
	// Name is what was asked for, empty for this machine.
	Name string
}

func (e *HostNotFoundError) Error() string {
	if e.Name == "" {
		return "the database does not know this machine as a host yet"
	}
	return fmt.Sprintf("the database knows no host %q", e.Name)
}

// SeveralHostsError says that several hosts have a name, or an ID that begins as was said.
type SeveralHostsError struct {
	Name  string
	Hosts []Host
}

func (e *SeveralHostsError) Error() string {
	var each []string
	for _, h := range e.Hosts {
		each = append(each, fmt.Sprintf("%s (%s)", h.ID, legible.Line(h.Name)))
	}
	return fmt.Sprintf("%d hosts fit %q: %s", len(e.Hosts), e.Name, strings.Join(each, ", "))
}

// Hosts lists the hosts that share the vault.
func (s *Session) Hosts(ctx context.Context) (Hosts, error) {
	here, err := s.HostID()
	if err != nil {
		return Hosts{}, err
	}
	db, err := s.sharedDatabase(ctx)
	if err != nil {
		return Hosts{}, err
	}
	var roll ledger.Book
	err = db.Session(ctx, func(session *postgres.Session) (err error) {
		roll, err = session.Roll(ctx)
		return err
	})
	if err != nil {
		return Hosts{}, err
	}
	list := Hosts{Epoch: roll.Meta.Epoch, Now: roll.Now}
	for _, row := range roll.Hosts {
		list.Hosts = append(list.Hosts, Host{Host: row, Here: row.ID == here, State: hostState(row, roll)})
	}
	slices.SortStableFunc(list.Hosts, func(a, b Host) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}

func hostState(h ledger.Host, roll ledger.Book) HostState {
	switch {
	case h.Removed:
		return HostRemoved
	case h.SignedOff:
		return HostSignedOff
	case len(roll.Meta.Waiting([]ledger.Host{h})) > 0:
		return HostAwaited
	case ledger.MustAsk(h, roll.Hosts, roll.Now):
		return HostToAccept
	case h.Epoch < roll.Meta.Epoch:
		return HostWaived
	}
	return HostReady
}

// FindHost finds the one host that a name, an ID or the beginning of an ID means; empty
// means this machine. The error is a *HostNotFoundError or a *SeveralHostsError where none
// or several are meant.
func (s *Session) FindHost(ctx context.Context, name string) (Host, error) {
	list, err := s.Hosts(ctx)
	if err != nil {
		return Host{}, err
	}
	fits := []func(Host) bool{func(h Host) bool { return h.Here }}
	if name != "" {
		fits = []func(Host) bool{
			func(h Host) bool { return h.ID == name },
			func(h Host) bool { return grant.Fold(h.Name) == grant.Fold(name) },
			func(h Host) bool { return strings.HasPrefix(strings.ToLower(h.ID), strings.ToLower(name)) },
		}
	}
	for _, fit := range fits {
		var found []Host
		for _, h := range list.Hosts {
			if fit(h) {
				found = append(found, h)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return Host{}, &SeveralHostsError{Name: name, Hosts: found}
		}
	}
	return Host{}, &HostNotFoundError{Name: name}
}

// RemoveHost says that a host does not come any more. It may deliver what it has, and
// refreshes nothing.
func (s *Session) RemoveHost(ctx context.Context, h Host) error {
	return s.atDatabase(ctx, func(session *postgres.Session) error { return session.RemoveHost(ctx, h.ID) })
}

// AcceptHost says that a host is at the right database.
func (s *Session) AcceptHost(ctx context.Context, h Host) error {
	return s.atDatabase(ctx, func(session *postgres.Session) error { return session.AcceptHost(ctx, h.ID) })
}

// AcceptFailover says that nobody is to wait for the hosts that have not answered the roll
// call of an epoch, and returns their names. Where another has begun meanwhile, or begins
// now as nobody had noticed that the database changed hands, the error is a
// *ledger.FrozenError.
func (s *Session) AcceptFailover(ctx context.Context, epoch int64) (names []string, err error) {
	self, err := shared.Self(s.sharedDir(), s.Config.Shared.Host)
	if err != nil {
		return nil, err
	}
	err = s.atDatabase(ctx, func(session *postgres.Session) (err error) {
		names, err = session.AcceptFailover(ctx, self, epoch)
		return err
	})
	return names, err
}

func (s *Session) atDatabase(ctx context.Context, do func(*postgres.Session) error) error {
	db, err := s.Database()
	if err != nil {
		return err
	}
	return db.Session(ctx, do)
}
