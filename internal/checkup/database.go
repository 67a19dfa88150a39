package checkup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// absentFor is how long a host may stay away from the database before that is worth a word:
// after a failover all others wait for it.
const absentFor = 7 * 24 * time.Hour

// database looks at the database that hosts share, and at what this host has on its own disk
// for that. It changes nothing there. Without a shared vault it does nothing.
func (m *machine) database(ctx context.Context) {
	if m.s.Shared == nil {
		return
	}
	m.durable()
	db, err := m.s.Database()
	if err != nil {
		m.fail("database", err)
		return
	}
	state, err := db.Look(ctx)
	if err != nil {
		m.fail("database", err)
		return
	}
	m.ok("database", "%s at %s takes writes and answers in %s (PostgreSQL %d)", state.Database, state.Where, milliseconds(state.Latency), state.Server/10000)
	m.durability(state)
	m.databaseClock(state)
	if err := state.Check(); err != nil {
		m.fail("database", err)
		return
	}
	m.ok("database", "the tables are of version %d, which this upsauth knows; a failover will be noticed", state.Version)
	m.rights(state)
	there, err := db.Vault(ctx, "")
	if err != nil {
		m.fail("database", err)
		return
	}
	m.unsealed = there.Recipient == ""
	start := m.s.Now()
	if err := m.s.Shared.Rehearse(ctx); err != nil {
		m.fail("claim", err)
	} else {
		m.ok("claim", "a claim was written, closed and taken back in %s", milliseconds(m.s.Now().Sub(start)))
	}
	m.hosts(ctx)
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// durability tells what becomes of a commit when the server's power fails, or the server is
// lost.
func (m *machine) durability(state postgres.State) {
	var off []string
	if !state.FSync {
		off = append(off, "fsync")
	}
	if !state.FullPageWrites {
		off = append(off, "full_page_writes")
	}
	if len(off) > 0 {
		are := "is"
		if len(off) > 1 {
			are = "are"
		}
		m.warn("durability", fmt.Sprintf("%s %s off: if the database's machine fails, the database may lose what it has committed, or be damaged", strings.Join(off, " and "), are),
			sentence("Set fsync and full_page_writes to on in the database's configuration."))
	} else {
		m.ok("durability", "fsync and full_page_writes are on")
	}
	if state.Standbys == "" {
		m.ok("durability", "no standby is synchronous: if the primary is lost, commits of its last moments can be lost with it")
		return
	}
	m.ok("durability", "a commit waits for a synchronous standby (synchronous_standby_names: %s)", state.Standbys)
}

func (m *machine) databaseClock(state postgres.State) {
	offset := state.Offset
	if offset.Abs() <= skewAllowed {
		m.ok("clock", "agrees with the database's (%s apart, to about %s)", milliseconds(offset.Abs()), milliseconds(state.Latency/2))
		return
	}
	direction := "behind"
	if offset < 0 {
		direction = "ahead of"
	}
	m.warn("clock", fmt.Sprintf("this machine's clock is %s %s the database's", m.o.Words.Span(offset.Abs()), direction),
		sentence("Set the clock, for instance with "+setClock()+". Claims count by the database's clock; this machine's says whether access tokens are valid."))
}

func (m *machine) rights(state postgres.State) {
	if state.Excess {
		m.warn("rights", fmt.Sprintf("the role %s may do more than a host needs: remove any row", state.Role),
			[]explain.Remedy{{Text: "Let each host use a role that owns nothing[: {} prints its SQL]", Acts: []explain.Act{{Do: explain.PrintSchema}}}})
		return
	}
	m.ok("rights", "the role %s may do what a host needs, and no more; the tables are %s's", state.Role, state.Owner)
}

// hosts tells who shares the vault, and who is awaited.
func (m *machine) hosts(ctx context.Context) {
	list, err := m.s.Hosts(ctx)
	if err != nil {
		m.fail("hosts", err)
		return
	}
	var sharing []session.Host
	here := false
	for _, h := range list.Hosts {
		here = here || h.Here
		if h.State != session.HostRemoved && h.State != session.HostSignedOff {
			sharing = append(sharing, h)
		}
	}
	told := fmt.Sprintf("%d hosts share the vault", len(sharing))
	switch len(sharing) {
	case 0:
		told = "no host uses the vault yet"
	case 1:
		told = sharing[0].Name + " is the only host that uses the vault"
	}
	if !here {
		told += "; this one makes itself known with its first refresh or sign-in"
	}
	var awaited []string
	thisOne := false
	for _, h := range list.Awaited() {
		if thisOne = thisOne || h.Here; !h.Here {
			awaited = append(awaited, h.Name)
		}
	}
	if thisOne { // it is told what to do itself
		m.found = append(m.found, Finding{Level: Warning, Check: "hosts", Err: &ledger.FrozenError{Epoch: list.Epoch, Answer: true}})
	}
	switch {
	case thisOne && len(awaited) == 0:
	case len(sharing) < 2 && len(awaited) == 0:
		m.ok("hosts", "%s", told)
	case len(awaited) == 0:
		m.ok("hosts", "%s; none is awaited at a roll call", told)
	default:
		m.fail("hosts", &ledger.FrozenError{Epoch: list.Epoch, Waiting: awaited})
	}
	for _, h := range list.Hosts {
		away := list.Now.Sub(h.Seen)
		switch {
		case h.State == session.HostToAccept && h.Here:
			m.fail("hosts", &ledger.HostError{Host: h.ID, Name: h.Name, Reason: ledger.Alone})
		case h.State == session.HostToAccept:
			m.found = append(m.found, Finding{Level: Warning, Check: "hosts", Err: &ledger.HostError{Host: h.ID, Name: h.Name, Reason: ledger.Alone}})
		case h.State == session.HostRemoved && h.Here:
			m.fail("hosts", &ledger.HostError{Host: h.ID, Name: h.Name, Reason: ledger.RemovedHost})
		case h.State == session.HostReady && !h.Here && away > absentFor:
			m.warn("hosts", fmt.Sprintf("%s has not reached the database for %s; after a failover, all hosts would wait for it", h.Name, m.o.Words.Span(away)),
				act("If the host will not come back, remove the host[: {}]", explain.RemoveHost, grant.ID{}))
		}
	}
}

// durable tells whether this host's directory outlasts a restart. In it are the answers of UPS
// that the database does not have yet.
func (m *machine) durable() {
	where := m.s.Config.Paths.State
	kind := passing(where)
	if kind == "" {
		m.ok("disk", "%s keeps its files when this machine starts again", where)
		return
	}
	m.warn("disk", fmt.Sprintf("%s is not durable: it is on %s. An answer of UPS that the database does not have yet would be lost with it", where, kind),
		act("Put the state directory on a disk or a volume that outlasts the container[: {}]", explain.MoveState, grant.ID{}))
}

// noDatabase reports whether an error says that the database can't be used at all, whatever
// it is asked.
func noDatabase(err error) bool {
	var e *postgres.Error
	return errors.As(err, &e) && e.Reason != postgres.Busy && e.Reason != postgres.Failed || errors.As(err, new(*session.NoDatabaseError))
}

// inDatabase reports whether the home is the database, which has no secret yet. It is not
// opened then: the identity that is used first becomes the vault's.
func (m *machine) inDatabase(home string) bool {
	if m.s.Shared == nil || home != m.s.Shared.Homes()[0].Name() || !m.unsealed {
		return false
	}
	m.ok("vault", "there is no secret in the %s yet; the first one is sealed to this host's identity, which all hosts need", vault.Describe(home))
	return true
}
