package grant

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// fresh is a grant as UPS gives it at noon: an hour and sixty days.
func fresh(change ...func(*Record)) Record {
	r := Record{
		Facts: Facts{
			TokenVaultKey: "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA",
			Requested:     noon,
			AccessUntil:   noon.Add(time.Hour),
			RefreshUntil:  noon.Add(60 * 24 * time.Hour),
		},
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

func TestStateAt(t *testing.T) {
	const day, tick = 24 * time.Hour, time.Nanosecond
	var (
		void        = func(r *Record) { r.Void = true }
		interrupted = func(r *Record) { r.Interrupted = true }
		removing    = func(r *Record) { r.Removing = true }
		noRefresh   = func(r *Record) { r.NoRefreshToken, r.RefreshUntil = true, time.Time{} }
		endUnknown  = func(r *Record) { r.RefreshUntil = time.Time{} }
		noAccess    = func(r *Record) { r.AccessUntil = r.Requested }
	)
	tests := []struct {
		name   string
		record Record
		after  time.Duration // noon
		want   State
	}{
		{"just issued", fresh(), 0, Authorized},
		{"a tick before the access token ends", fresh(), time.Hour - tick, Authorized},
		{"when the access token ends", fresh(), time.Hour, Refreshable},
		{"clock set back behind the request", fresh(), -tick, Refreshable},
		{"clock set back a year", fresh(), -365 * day, Refreshable},
		{"a tick before the last 7 days", fresh(), 53*day - tick, Refreshable},
		{"when the last 7 days begin", fresh(), 53 * day, Expiring},
		{"a tick before the refresh token ends", fresh(), 60*day - tick, Expiring},
		{"when the refresh token ends", fresh(), 60 * day, Expired},
		{"a year later", fresh(), 365 * day, Expired},
		{"access good in the last 7 days", fresh(func(r *Record) { r.RefreshUntil = noon.Add(7 * day) }), 0, Expiring},
		{"access good, refresh token ended", fresh(func(r *Record) { r.RefreshUntil = noon }), 0, Expired},
		{"end of the refresh token unknown", fresh(endUnknown), 0, Authorized},
		{"end unknown, access ended long ago", fresh(endUnknown), 365 * day, Refreshable},
		{"answer without access token", fresh(noAccess), 0, Refreshable},
		{"no refresh token, access good", fresh(noRefresh), 0, Authorized},
		{"no refresh token, access ended", fresh(noRefresh), time.Hour, Expired},
		{"no refresh token, clock set back", fresh(noRefresh), -tick, Expired},
		{"no times at all", Record{Facts: Facts{TokenVaultKey: "K"}}, 0, Refreshable},
		{"no times and no refresh token", Record{Facts: Facts{TokenVaultKey: "K", NoRefreshToken: true}}, 0, Expired},
		{"refused", fresh(void), 0, Void},
		{"refused, and ended since", fresh(void), 365 * day, Void},
		{"refused, and authorized anew but cut off", fresh(void, interrupted), 0, Interrupted},
		{"cut off", fresh(interrupted), 0, Interrupted},
		{"cut off, and ended since", fresh(interrupted), 365 * day, Interrupted},
		{"cut off without refresh token", fresh(interrupted, noRefresh), 365 * day, Interrupted},
		{"being removed", fresh(removing), 0, Unauthorized},
		{"being removed, refused and cut off", fresh(removing, void, interrupted), 0, Unauthorized},
		{"no grant", Record{Facts: Facts{ID: ID{Company: "Acme"}}}, 0, Unauthorized},
		{"no grant, cut off", Record{Interrupted: true}, 0, Unauthorized},
	}
	reached := map[State]bool{}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := test.record.StateAt(noon.Add(test.after))
			if got != test.want {
				t.Errorf("it is %s, want %s", got, test.want)
			}
			// A moment is the same in every time zone.
			kiribati := time.FixedZone("UTC+14", 14*60*60)
			if zoned := test.record.StateAt(noon.Add(test.after).In(kiribati)); zoned != got {
				t.Errorf("elsewhere it is %s", zoned)
			}
			reached[got] = true
		})
	}
	for _, state := range States() {
		if !reached[state] {
			t.Errorf("no case reaches %s", state)
		}
	}
}

// A clock that was wrong when the tokens were asked for, or was set since: UPS's
// times and this machine's differ, and what is shown must not contradict the
// state.
func TestStateByAWrongClock(t *testing.T) {
	const day = 24 * time.Hour
	// asked is a grant that UPS gave at noon, by its clock, when this machine's was
	// off by so much.
	asked := func(off time.Duration) Record {
		return Record{
			Facts: Facts{
				TokenVaultKey:       "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA",
				Issued:              noon,
				Expires:             noon.Add(time.Hour),
				RefreshTokenIssued:  noon,
				RefreshTokenExpires: noon.Add(60 * day),
				Requested:           noon.Add(off),
				AccessUntil:         noon.Add(off + time.Hour),
				RefreshUntil:        noon.Add(off + 60*day),
			},
		}
	}
	tests := []struct {
		name         string
		then, now    time.Duration // how far the clock was off at the request, and is
		after        time.Duration // the request, in truth
		want         State
		accessIsGood bool
	}{
		{"right, right", 0, 0, time.Minute, Authorized, true},
		{"400 days behind, then right", -400 * day, 0, time.Minute, Refreshable, false},
		{"400 days behind, then right, in the last week", -400 * day, 0, 54 * day, Expiring, false},
		{"400 days behind, then right, ended", -400 * day, 0, 60 * day, Expired, false},
		{"400 days behind all the time", -400 * day, -400 * day, time.Minute, Authorized, true},
		{"400 days behind all the time, two hours", -400 * day, -400 * day, 2 * time.Hour, Refreshable, false},
		{"2 hours behind, then right", -2 * time.Hour, 0, time.Minute, Refreshable, false},
		{"400 days ahead, then right", 400 * day, 0, time.Minute, Refreshable, false},
		{"400 days ahead, then right, in the last week", 400 * day, 0, 54 * day, Expiring, false},
		{"400 days ahead, then right, ended", 400 * day, 0, 61 * day, Expired, false},
		{"400 days ahead all the time", 400 * day, 400 * day, time.Minute, Authorized, true},
		{"400 days ahead all the time, in the last week", 400 * day, 400 * day, 54 * day, Expiring, false},
		{"400 days ahead all the time, ended", 400 * day, 400 * day, 60 * day, Expired, false},
		{"right, then 400 days behind", 0, -400 * day, time.Minute, Refreshable, false},
		{"right, then a day ahead", 0, day, time.Minute, Refreshable, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := asked(test.then)
			now := noon.Add(test.after + test.now)
			if got := r.StateAt(now); got != test.want {
				t.Errorf("it is %s, want %s", got, test.want)
			}
			if got := r.AccessGood(now, 0); got != test.accessIsGood {
				t.Errorf("the access token is good: %v", got)
			}
			if test.now == 0 && r.StateAt(now) == Expired && now.Before(r.RefreshTokenExpires) {
				t.Error("it is called expired before the time that is shown")
			}
		})
	}
}

func TestEveryStateHasAMeaning(t *testing.T) {
	all := []State{Authorized, Refreshable, Expiring, Expired, Void, Interrupted, Unauthorized}
	for _, state := range all {
		if !slices.Contains(States(), state) {
			t.Errorf("States leaves out %s", state)
		}
		if !strings.HasSuffix(state.Meaning(), ".") && !strings.HasSuffix(state.Meaning(), "?") {
			t.Errorf("%s means %q", state, state.Meaning())
		}
	}
	if len(States()) != len(all) {
		t.Errorf("States has %d states, want %d", len(States()), len(all))
	}
	if meaning := State("other").Meaning(); meaning != "" {
		t.Errorf("a state that there is not means %q", meaning)
	}
}

func TestAccessGood(t *testing.T) {
	const tick = time.Nanosecond
	tests := []struct {
		name    string
		record  Record
		after   time.Duration // noon
		atLeast time.Duration
		want    bool
	}{
		{"at the request", fresh(), 0, 0, true},
		{"a tick before the request", fresh(), -tick, 0, false},
		{"a tick before the end", fresh(), time.Hour - tick, 0, true},
		{"at the end", fresh(), time.Hour, 0, false},
		{"after the end", fresh(), time.Hour + tick, 0, false},
		{"just long enough", fresh(), 55 * time.Minute, 5 * time.Minute, true},
		{"a tick too short", fresh(), 55*time.Minute + tick, 5 * time.Minute, false},
		{"its whole life", fresh(), 0, time.Hour, true},
		{"longer than its life", fresh(), 0, time.Hour + tick, false},
		{"the longest wish", fresh(), 0, 1<<63 - 1, false},
		{"clock set back, long good", fresh(), -time.Hour, 5 * time.Minute, false},
		{"end unknown", Record{Facts: Facts{Requested: noon}}, 0, 0, false},
		{"request unknown", Record{Facts: Facts{AccessUntil: noon.Add(time.Hour)}}, 0, 0, true},
		{"nothing known", Record{}, 0, 0, false},
		{"no lifetime", Record{Facts: Facts{Requested: noon, AccessUntil: noon}}, 0, 0, false},
		{"a lifetime below nothing", Record{Facts: Facts{Requested: noon, AccessUntil: noon.Add(-time.Hour)}}, 0, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.record.AccessGood(noon.Add(test.after), test.atLeast); got != test.want {
				t.Errorf("it is %v, want %v", got, test.want)
			}
		})
	}
}

func TestLifetime(t *testing.T) {
	for _, test := range []struct {
		record Record
		want   time.Duration
	}{
		{fresh(), time.Hour},
		{Record{Facts: Facts{Requested: noon}}, 0},
		{Record{Facts: Facts{AccessUntil: noon}}, 0},
		{Record{}, 0},
	} {
		if got := test.record.Lifetime(); got != test.want {
			t.Errorf("the lifetime from %v to %v is %v, want %v", test.record.Requested, test.record.AccessUntil, got, test.want)
		}
	}
}
