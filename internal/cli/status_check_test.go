package cli

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

func TestMonitorsLine(t *testing.T) {
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
		if r.StateAt(now) != state {
			t.Fatalf("%s is %s", state, r.StateAt(now))
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
	ring := func(r grant.Record, contact string) grant.Record { r.Contact = contact; return r }
	doubt := func(r grant.Record) grant.Record { r.VoidWith = &grant.ID{Company: "Other"}; return r }
	need := func(text string) *session.Required {
		r, err := parseRequired(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	type checked struct {
		records  []grant.Record
		problems []error
		unused   string
		within   time.Duration
		require  *session.Required
	}
	const unused = "the state directory /nonexist was never used: it does not exist"
	for name, test := range map[string]struct {
		checked
		want string
		code int
	}{
		"all is well": {checked{records: all(grant.Authorized, grant.Refreshable, grant.Expiring)},
			"OK - 3 companies: 1 authorized, 1 refreshable, 1 expiring", 0},
		"never used":                      {checked{unused: unused}, "UNKNOWN - " + unused, 3},
		"never used, some required":       {checked{unused: unused, require: need("1")}, "CRITICAL - 0 of 1 required grants can be used; " + unused, 4},
		"never used, all required":        {checked{unused: unused, require: need("all")}, "CRITICAL - all companies are required, and no company is known; " + unused, 4},
		"never used, and that is as well": {checked{unused: unused, require: need("0")}, "OK - 0 companies; " + unused, 0},
		"used, and empty":                 {checked{}, "OK - 0 companies", 0},
		"used and empty, all required":    {checked{require: need("all")}, "CRITICAL - all companies are required, and no company is known", 4},
		"interrupted and not authorized are counted where all is well": {checked{records: all(grant.Authorized, grant.Interrupted, grant.Unauthorized)},
			"OK - 3 companies: 1 authorized, 1 not authorized, 1 interrupted", 0},
		"and where it is not": {checked{records: all(grant.Void, grant.Interrupted, grant.Unauthorized, grant.Unauthorized)},
			"CRITICAL - 1 of 2 grants need a person: A is void; 1 interrupted, 2 not authorized", 4},
		"ends soon": {checked{records: all(grant.Expiring, grant.Authorized), within: 7 * day},
			"CRITICAL - 1 of 2 grants need a person or expire within 7 days: A expires in 4 days", 4},
		"enough": {checked{records: all(grant.Authorized, grant.Refreshable, grant.Expiring, grant.Unauthorized), require: need("3")},
			"OK - 4 companies: 1 authorized, 1 refreshable, 1 not authorized, 1 expiring", 0},
		"too few": {checked{records: all(grant.Authorized, grant.Interrupted, grant.Unauthorized), require: need("2")},
			"CRITICAL - 1 of 2 required grants can be used; 1 interrupted, 1 not authorized", 4},
		"void ones are not counted": {checked{records: all(grant.Authorized, grant.Void, grant.Expired), require: need("2")},
			"CRITICAL - 2 of 3 grants need a person: B is void, C is expired; 1 of 2 required grants can be used", 4},
		"all of them": {checked{records: all(grant.Authorized, grant.Refreshable, grant.Expiring), require: need("all")},
			"OK - 3 companies: 1 authorized, 1 refreshable, 1 expiring", 0},
		"one of all is not authorized": {checked{records: all(grant.Authorized, grant.Unauthorized), require: need("all")},
			"CRITICAL - all companies are required: B is not authorized; 1 not authorized", 4},
		"one of all is interrupted": {checked{records: all(grant.Authorized, grant.Interrupted), require: need("all")},
			"CRITICAL - all companies are required: B is interrupted; 1 interrupted", 4},
		"one of all is void": {checked{records: all(grant.Authorized, grant.Void), require: need("all")},
			"CRITICAL - 1 of 2 grants need a person: B is void", 4},
		"probably void": {checked{records: []grant.Record{doubt(of("A", grant.Authorized)), of("B", grant.Authorized)}},
			"WARNING - 1 of 2 grants probably void: A is probably void; 2 companies: 1 authorized, 1 probably void", 4},
		"probably void beside void": {checked{records: []grant.Record{doubt(of("A", grant.Authorized)), of("B", grant.Void)}},
			"CRITICAL - 1 of 2 grants need a person: B is void; 1 of 2 grants probably void: A is probably void", 4},
		"whom to ring, without what Nagios takes for numbers": {checked{records: []grant.Record{ring(of("A|B", grant.Void), "Jane|+49 431 1")}},
			"CRITICAL - 1 of 1 grants need a person: A/B is void (contact Jane/+49 431 1)", 4},
		"damaged": {checked{records: all(grant.Authorized), problems: []error{&vault.DamagedError{}}},
			"WARNING - 1 records are damaged, see upsauth status; 1 company: 1 authorized", 1},
		"damaged beside void": {checked{records: all(grant.Void), problems: []error{&vault.DamagedError{}, &vault.DamagedError{}}},
			"CRITICAL - 1 of 1 grants need a person: A is void; 2 records are damaged, see upsauth status", 4},
		"the database is away": {checked{records: all(grant.Authorized), problems: []error{&shared.StaleError{Err: &postgres.Error{Reason: postgres.Away}}}},
			"WARNING - the database that hosts share can't be reached, see upsauth status; 1 company: 1 authorized", 1},
		"many": {checked{records: all(grant.Void, grant.Void, grant.Void, grant.Void, grant.Void, grant.Void, grant.Void)},
			"CRITICAL - 7 of 7 grants need a person: A is void, B is void, C is void, D is void, E is void, and 2 more", 4},
	} {
		t.Run(name, func(t *testing.T) {
			line := monitorLine{records: test.records, problems: test.problems, now: now, expected: session.Expected{Within: test.within, Required: test.require}}
			if line, code := line.words(session.Judge(test.records, len(test.problems), test.unused, line.expected, now)); line != test.want || code != test.code {
				t.Errorf("%d, %s\nwant %d, %s", code, line, test.code, test.want)
			}
		})
	}
	for _, text := range []string{"", "-1", "some", "1.5", "ALL"} {
		if _, err := parseRequired(text); exitCode(err) != exitUsage {
			t.Errorf("--require %q: %v", text, err)
		}
	}
}
