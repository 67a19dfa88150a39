package session

import (
	"slices"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// Guards against green where a company needs somebody, and an alarm where none does.
func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	of := func(company string, state grant.State) grant.Record {
		if state == grant.Unauthorized {
			return grant.Record{Facts: grant.Facts{ID: grant.ID{Company: company}}}
		}
		r := grant.Record{
			Facts: grant.Facts{
				ID:            grant.ID{Company: company, Application: "a", Environment: "e"},
				TokenVaultKey: "K",
				Requested:     now.Add(-time.Minute),
				AccessUntil:   now.Add(time.Hour),
				RefreshUntil:  now.Add(50 * day),
			},
		}
		switch state {
		case grant.Refreshable:
			r.AccessUntil = now
		case grant.Expiring:
			r.RefreshUntil = now.Add(4 * day)
		case grant.Expired:
			r.RefreshUntil = now
		case grant.Void:
			r.Void = true
		case grant.Interrupted:
			r.Interrupted = true
		}
		return r
	}
	all := func(states ...grant.State) []grant.Record {
		var records []grant.Record
		for i, state := range states {
			records = append(records, of(string(rune('A'+i)), state))
		}
		return records
	}
	doubt := func(r grant.Record) grant.Record { r.VoidWith = &grant.ID{Company: "Other"}; return r }
	companies := func(records []grant.Record) string {
		var names string
		for _, r := range records {
			names += r.Company
		}
		return names
	}
	need := func(n int) Expected { return Expected{Required: &Required{Grants: n}} }
	everyone := Expected{Required: &Required{All: true}}
	const unused = "it was never used"
	for name, test := range map[string]struct {
		records  []grant.Record
		unread   int
		unused   string
		expected Expected
		level    Level
		short    bool
		// The companies of each kind.
		bad, doubtful, lacking string
		// How many are grants, can be used, are interrupted and have none.
		counts [4]int
	}{
		"nothing":               {level: LevelOK},
		"never used":            {unused: unused, level: LevelUnknown},
		"never used, one asked": {unused: unused, expected: need(1), level: LevelCritical, short: true},
		"never used, none asked, which is as well": {unused: unused, expected: need(0), level: LevelOK},
		"never used, all asked":                    {unused: unused, expected: everyone, level: LevelCritical, short: true},
		"all can be used":                          {records: all(grant.Authorized, grant.Refreshable, grant.Expiring), level: LevelOK, counts: [4]int{3, 3, 0, 0}},
		"interrupted ones and ones without any alarm nobody": {records: all(grant.Authorized, grant.Interrupted, grant.Unauthorized), level: LevelOK,
			lacking: "BC", counts: [4]int{2, 1, 1, 1}},
		"but where all are asked": {records: all(grant.Authorized, grant.Interrupted, grant.Unauthorized), expected: everyone, level: LevelCritical, short: true,
			lacking: "BC", counts: [4]int{2, 1, 1, 1}},
		"void and expired":                       {records: all(grant.Authorized, grant.Void, grant.Expired), level: LevelCritical, bad: "BC", counts: [4]int{3, 1, 0, 0}},
		"void, and all asked: that is told once": {records: all(grant.Authorized, grant.Void), expected: everyone, level: LevelCritical, bad: "B", counts: [4]int{2, 1, 0, 0}},
		"as many as are asked":                   {records: all(grant.Authorized, grant.Refreshable, grant.Expiring, grant.Unauthorized), expected: need(3), level: LevelOK, lacking: "D", counts: [4]int{3, 3, 0, 1}},
		"fewer":                                  {records: all(grant.Authorized, grant.Interrupted), expected: need(2), level: LevelCritical, short: true, lacking: "B", counts: [4]int{2, 1, 1, 0}},
		"it ends in time":                        {records: all(grant.Expiring, grant.Authorized), expected: Expected{Within: 3 * day}, level: LevelOK, counts: [4]int{2, 2, 0, 0}},
		"it ends too soon":                       {records: all(grant.Expiring, grant.Authorized), expected: Expected{Within: 4 * day}, level: LevelCritical, bad: "A", counts: [4]int{2, 2, 0, 0}},
		"probably void":                          {records: []grant.Record{doubt(of("A", grant.Authorized)), of("B", grant.Authorized)}, level: LevelWarning, doubtful: "A", counts: [4]int{2, 2, 0, 0}},
		"void for certain is no doubt":           {records: []grant.Record{doubt(of("A", grant.Void))}, level: LevelCritical, bad: "A", counts: [4]int{1, 0, 0, 0}},
		"doubt beside void":                      {records: []grant.Record{doubt(of("A", grant.Authorized)), of("B", grant.Void)}, level: LevelCritical, bad: "B", doubtful: "A", counts: [4]int{2, 1, 0, 0}},
		"a file can't be read":                   {records: all(grant.Authorized), unread: 1, level: LevelWarning, counts: [4]int{1, 1, 0, 0}},
		"a file can't be read, and nothing else": {unread: 1, level: LevelWarning},
		"a file can't be read, beside void":      {records: all(grant.Void), unread: 1, level: LevelCritical, bad: "A", counts: [4]int{1, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			v := Judge(test.records, test.unread, test.unused, test.expected, now)
			if v.Level != test.level || v.Short != test.short || v.Unread != test.unread || v.Unused != test.unused || v.Err != nil {
				t.Errorf("%s, short %t, %d unread, unused %q; want %s, %t", v.Level, v.Short, v.Unread, v.Unused, test.level, test.short)
			}
			got := []string{companies(v.Bad), companies(v.Doubtful), companies(v.Lacking)}
			if want := []string{test.bad, test.doubtful, test.lacking}; !slices.Equal(got, want) {
				t.Errorf("bad, doubtful, lacking are %q, want %q", got, want)
			}
			if counts := [4]int{v.Grants, v.Usable, v.Interrupted, v.Unauthorized}; counts != test.counts {
				t.Errorf("grants, usable, interrupted, unauthorized are %d, want %d", counts, test.counts)
			}
		})
	}
}

// A session's OK says that a refresh can be made, and its UNKNOWN why nobody knows.
func TestJudgeTriesWhatARefreshNeeds(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		if v := w.Judge(t.Context(), nil, 0, Expected{}, time.Now()); v.Level != LevelUnknown || v.Unused == "" {
			t.Errorf("before anything is kept it is %+v", v)
		}
		w.register("mine", "lab")
		records := []grant.Record{w.grant("Acme", "mine", "lab")}
		if v := w.Judge(t.Context(), records, 0, Expected{}, time.Now()); v.Level != LevelOK || v.Err != nil {
			t.Errorf("all is well, and it is %s: %v", v.Level, v.Err)
		}
		records[0].Application = "nobody's"
		if v := w.Judge(t.Context(), records, 0, Expected{}, time.Now()); v.Level != LevelUnknown || v.Err == nil {
			t.Errorf("its application is not registered, and it is %s", v.Level)
		}
	})
}
