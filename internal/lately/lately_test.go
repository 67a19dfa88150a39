package lately

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/vault"
)

var (
	errAway = errors.New("away")
	errGone = errors.New("gone")
	noon    = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
)

// place is what is read, on a clock that stands still.
type place struct {
	t     *testing.T
	now   time.Time
	value string
	err   error
	asked int
	*Memory
}

func newPlace(t *testing.T) *place {
	p := &place{t: t, now: noon, value: "first"}
	p.Memory = New(Options{Dir: t.TempDir(), Now: func() time.Time { return p.now }, Away: func(err error) bool { return errors.Is(err, errAway) }})
	return p
}

func (p *place) read(ctx context.Context, of *Of[string, string], key string) (string, error) {
	return of.Read(ctx, key, func(context.Context) (string, error) { p.asked++; return p.value, p.err })
}

// want reads, and compares what came and whether the place was asked.
func (p *place) want(ctx context.Context, what string, of *Of[string, string], value string, err error, asked bool) {
	p.t.Helper()
	p.asked = 0
	got, gotErr := p.read(ctx, of, "key")
	if err != nil {
		value, got = "", ""
	}
	if got != value || !errors.Is(gotErr, err) || (p.asked > 0) != asked {
		p.t.Errorf("%s: %q, %v, asked %d times", what, got, gotErr, p.asked)
	}
}

// What was good is served for five minutes without a question, and for longer only while the
// place is away; whoever wants to know now asks each time.
func TestWhatWasGood(t *testing.T) {
	p := newPlace(t)
	of := Keep[string, string](p.Memory, "things")
	now, recent := t.Context(), vault.Recent(t.Context())
	p.want(recent, "first", of, "first", nil, true)
	p.value = "second"
	p.now = p.now.Add(For - 1)
	p.want(recent, "recent", of, "first", nil, false)
	p.want(vault.Latest(recent), "latest of recent", of, "second", nil, true)
	p.value = "third"
	p.want(now, "now", of, "third", nil, true)

	p.err = errAway
	p.want(recent, "recent while away", of, "third", nil, false)
	p.want(now, "now while away", of, "third", nil, true)
	p.want(now, "again", of, "third", nil, false)
	if p.AwayError() == nil {
		t.Error("it is not known to be away")
	}
	p.now = p.now.Add(For)
	p.want(recent, "long away", of, "third", nil, true)
	p.now = p.now.Add(AwayFor - For - 1)
	p.want(recent, "nearly a day away", of, "third", nil, true)
	p.now = p.now.Add(1)
	p.want(recent, "a day away", of, "", errAway, false)
	p.now = p.now.Add(leaveFor)
	p.want(recent, "and asked", of, "", errAway, true)

	p.err, p.value = nil, "fourth"
	p.now = p.now.Add(leaveFor)
	p.want(recent, "back", of, "fourth", nil, true)
	if p.AwayError() != nil {
		t.Errorf("away: %v", p.AwayError())
	}
}

// What is not there is asked for each time, and what is there no more is not kept for an
// outage.
func TestWhatIsNotThere(t *testing.T) {
	p := newPlace(t)
	of := Keep[string, string](p.Memory, "things")
	recent := vault.Recent(t.Context())
	p.want(recent, "first", of, "first", nil, true)
	p.now, p.err = p.now.Add(For), errGone
	p.want(recent, "gone", of, "", errGone, true)
	p.want(recent, "gone again", of, "", errGone, true)
	p.err = errAway
	p.want(recent, "away", of, "", errAway, true)
	p.want(recent, "nobody asks who has just not answered", of, "", errAway, false)
	p.err, p.now = nil, p.now.Add(-time.Hour)
	p.want(recent, "the clock was set back", of, "first", nil, true)
}

// A change on this host is known to all of its processes at once, also while the place is
// away, and to whoever was reading meanwhile.
func TestChange(t *testing.T) {
	p := newPlace(t)
	recent := vault.Recent(t.Context())
	of, other := Keep[string, string](p.Memory, "things"), Keep[string, string](p.Memory, "others")
	if Keep[string, string](p.Memory, "things") != of {
		t.Error("a kind is kept twice")
	}
	process := New(p.Options)
	p.want(recent, "first", of, "first", nil, true)
	p.want(recent, "other", other, "first", nil, true)
	if err := Keep[string, string](process, "things").Changed(); err != nil {
		t.Fatal(err)
	}
	p.want(recent, "other stays", other, "first", nil, false)
	p.err = errAway
	p.want(recent, "away", of, "", errAway, true)
	p.want(recent, "other while away", other, "first", nil, false)

	p.err, p.now = nil, p.now.Add(leaveFor)
	got, err := of.Read(recent, "key", func(context.Context) (string, error) { return "old", of.Changed() })
	if err != nil || got != "old" {
		t.Fatalf("%q, %v", got, err)
	}
	p.value = "new"
	p.want(recent, "changed while it was read", of, "new", nil, true)
}
