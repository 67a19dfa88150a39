// Package events tells a program of what happens to grants and invitations. It finds events
// by comparing what is kept of them with what was told last, so that none is missed, whoever caused it and
// whenever. It keeps them in files until the program has taken them.
package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
)

// Kind is what happened. Programs rely on the names.
type Kind string

// What happens to grants. Other packages may add kinds of their own.
const (
	Authorized    Kind = "authorized"     // the company has a new authorization
	Void          Kind = "void"           // UPS refused the refresh token
	Expiring      Kind = "expiring"       // the refresh token ends within Header.Days
	Expired       Kind = "expired"        // the refresh token has ended
	Recovered     Kind = "recovered"      // Header.After is over
	RefusedClient Kind = "refused_client" // UPS refused the application
)

// version is the version of an event's JSON.
const version = 1

// Header is what an event's JSON begins with. What is known of the grant follows on the
// same level, by the names that status has for it.
type Header struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // the same in each attempt to tell it
	Event   Kind   `json:"event"`
	// Time is when the event was found.
	Time time.Time `json:"time"`
	// Days are 14, 7 or 1, for Expiring.
	Days int `json:"days,omitempty"`
	// After is the kind of trouble that is over, for Recovered.
	After Kind `json:"after,omitempty"`
}

// namespace is that of the events' IDs.
var namespace = uuid.MustParse("6f1b5c1e-3a0e-4b55-9d0c-8a3b8f1f5e27")

// identify is the ID of an event, made of what tells it from all others: even where it is
// no longer known what was told, the same event gets the same ID again.
func identify(kind Kind, key string, occurrence ...any) string {
	return uuid.NewSHA1(namespace, fmt.Appendln(nil, append([]any{kind, key}, occurrence...)...)).String()
}

// encode is the event as one line of JSON. Facts are a JSON object of the grant.
func encode(h Header, facts []byte) (json.RawMessage, error) {
	text, err := marshal(h)
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSpace(text)
	var more bytes.Buffer
	if err := json.Compact(&more, facts); err != nil {
		return nil, err
	}
	rest, isObject := bytes.CutPrefix(more.Bytes(), []byte("{"))
	if !isObject {
		return nil, fmt.Errorf("the facts of an event are no JSON object")
	}
	if !bytes.Equal(rest, []byte("}")) {
		text = append(text[:len(text)-1], ',')
		return append(text, rest...), nil
	}
	return text, nil
}

// Memory is what was told of a grant.
type Memory struct {
	// ID is how the grant was called at the last look.
	grant.ID
	// Lane is the same for all grants of a company, whatever it was called: its events
	// are told in order.
	Lane string `json:"lane"`
	// Wrong is Void or Expired, Refused whether UPS refused the application.
	Wrong   Kind `json:"wrong,omitempty"`
	Refused bool `json:"refused,omitempty"`
	// Days is the nearest end of the refresh token that was told, zero for none, and Ends
	// the end that was meant.
	Days int       `json:"days,omitempty"`
	Ends time.Time `json:"ends,omitzero"`
	// Told is how often each kind was told since the grant has this generation.
	Generation int64        `json:"generation"`
	Told       map[Kind]int `json:"told,omitempty"`
	// Gone is when the grant was missed first, zero while it is there.
	Gone time.Time `json:"gone,omitzero"`
}

// days are how long before its end a refresh token is told to be expiring, the nearest
// first.
var days = [...]int{1, 7, 14}

const day = 24 * time.Hour

// refusals are how records say that UPS refused the application: those of earlier versions
// have UPS's code alone.
var refusals = map[string]bool{"client-refused": true, "blocked": true, "10401": true, "invalid_client": true, "unauthorized_client": true}

func refusedClient(e *grant.LastError) bool {
	if e == nil {
		return false
	}
	if e.Kind != "" {
		return refusals[e.Kind]
	}
	return refusals[e.Code]
}

// compare finds the events of a grant: what its record says, and m does not know. Fresh
// says that nothing was known of the grant; m is then what was known of the one that it
// replaces. It returns the events, without what is the same in all, and what is known once
// they are told.
func compare(r grant.Record, m Memory, fresh, silent bool, now time.Time) (found []Header, after Memory) {
	told := map[Kind]int{}
	if !fresh && m.Generation == r.Generation {
		for kind, n := range m.Told {
			told[kind] = n
		}
	}
	tell := func(h Header) {
		h.ID = identify(h.Event, r.TokenVaultKey, r.Generation, told[h.Event])
		told[h.Event]++
		found = append(found, h)
	}
	if fresh {
		m.Days, m.Ends = 0, time.Time{}
		if !silent {
			found = append(found, Header{ID: identify(Authorized, r.TokenVaultKey), Event: Authorized})
		}
	}
	refreshed := fresh || r.Generation > m.Generation
	before := m
	m.ID, m.Gone = r.ID, time.Time{}
	switch r.StateAt(now) {
	case grant.Void:
		m.Wrong = Void
	case grant.Expired:
		m.Wrong = Expired
	case grant.Interrupted:
		// The next use settles what is cut off; until then nobody can say.
	default:
		m.Wrong = ""
	}
	switch {
	case refusedClient(r.LastError):
		m.Refused = true
	case r.LastError == nil || refreshed || m.Wrong == Void:
		m.Refused = false // else UPS has not judged the application since
	}
	switch {
	case m.Wrong != "" && m.Wrong != before.Wrong:
		tell(Header{Event: m.Wrong})
	case m.Wrong == "" && before.Wrong != "":
		tell(Header{Event: Recovered, After: before.Wrong})
	case m.Wrong == "" && before.Refused && !m.Refused:
		tell(Header{Event: Recovered, After: RefusedClient})
	}
	if m.Refused && !before.Refused {
		tell(Header{Event: RefusedClient})
	}
	if m.Wrong == "" {
		if d := m.nearing(r, now); d != 0 {
			found = append(found, Header{ID: identify(Expiring, r.TokenVaultKey, d, m.Ends.Unix()), Event: Expiring, Days: d})
		}
	}
	m.Generation, m.Told = r.Generation, orNil(told)
	return found, m
}

func orNil(told map[Kind]int) map[Kind]int {
	if len(told) == 0 {
		return nil
	}
	return told
}

// nearing returns how near the end of the refresh token is, where that has to be told. An
// end is told once at each distance, whatever the clock does and however often the access
// token is refreshed; an end that has moved away is another one.
func (m *Memory) nearing(r grant.Record, now time.Time) int {
	const moved = time.Hour // less is how two reckonings of one end differ
	ends := r.RefreshEnds(now)
	if ends.IsZero() {
		return 0
	}
	near := 0
	for _, d := range days {
		if ends.Sub(now) <= time.Duration(d)*day {
			near = d
			break
		}
	}
	if m.Days != 0 && ends.Sub(m.Ends) > moved {
		// It was told of an earlier end. Where this one is as near, it was told enough.
		if near == 0 || near >= m.Days {
			m.Days = near
			m.Ends = time.Time{}
			if near != 0 {
				m.Ends = ends.UTC().Truncate(time.Second)
			}
			return 0
		}
	}
	if near == 0 || m.Days != 0 && near >= m.Days {
		return 0
	}
	m.Days, m.Ends = near, ends.UTC().Truncate(time.Second)
	return near
}
