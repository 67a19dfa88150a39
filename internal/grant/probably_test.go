package grant

import (
	"testing"
	"time"
)

func TestMarkProbablyVoid(t *testing.T) {
	now := time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC)
	of := func(company, user, environment string, requested time.Time) Record {
		return Record{
			Facts: Facts{
				ID:            ID{company, "intelligent-rating", environment},
				TokenVaultKey: "K-" + company,
				User:          user,
				Requested:     requested,
				AccessUntil:   requested.Add(time.Hour),
				RefreshUntil:  requested.Add(60 * 24 * time.Hour),
			},
		}
	}
	void := func(company, user, environment string, refused time.Time) Record {
		r := of(company, user, environment, refused.Add(-time.Hour))
		r.Void, r.LastError = true, &LastError{Code: "10400", Message: "Invalid Refresh Token", Time: refused}
		return r
	}
	with := func(r Record, change func(*Record)) Record { change(&r); return r }
	hourAgo, tenAgo := now.Add(-time.Hour), now.Add(-10*time.Minute)
	for name, test := range map[string]struct {
		others []Record
		grant  Record
		want   string // the company that was refused
	}{
		"the same user was refused later": {[]Record{void("Void", "jane", "production", tenAgo)}, of("Acme", "jane", "production", hourAgo), "Void"},
		"users are compared without case": {[]Record{void("Void", "Jane@Acme.Example", "production", tenAgo)}, of("Acme", " jane@acme.example", "production", hourAgo), "Void"},
		"another user":                    {[]Record{void("Void", "joe", "production", tenAgo)}, of("Acme", "jane", "production", hourAgo), ""},
		"another environment":             {[]Record{void("Void", "jane", "cie", tenAgo)}, of("Acme", "jane", "production", hourAgo), ""},
		"no user is known":                {[]Record{void("Void", "", "production", tenAgo)}, of("Acme", "", "production", hourAgo), ""},
		"it was good after the refusal":   {[]Record{void("Void", "jane", "production", hourAgo)}, of("Acme", "jane", "production", tenAgo), ""},
		"the latest refusal counts": {[]Record{void("Early", "jane", "production", now.Add(-2*time.Hour)), void("Late", "jane", "production", tenAgo)},
			of("Acme", "jane", "production", hourAgo), "Late"},
		"it is known how that one was lost":  {[]Record{with(void("Void", "jane", "production", tenAgo), func(r *Record) { r.Loss = "web-1 asked UPS, and no answer came." })}, of("Acme", "jane", "production", hourAgo), ""},
		"nothing void":                       {[]Record{of("Good", "jane", "production", tenAgo)}, of("Acme", "jane", "production", hourAgo), ""},
		"another application of the company": {[]Record{with(void("Acme", "jane", "production", tenAgo), func(r *Record) { r.Application = "batch-suite" })}, of("Acme", "jane", "production", hourAgo), "Acme"},
		"a refusal without its time":         {[]Record{with(void("Void", "jane", "production", tenAgo), func(r *Record) { r.LastError = nil })}, of("Acme", "jane", "production", now.Add(-3*time.Hour)), "Void"},
		"a void grant that is removed":       {[]Record{with(void("Void", "jane", "production", tenAgo), func(r *Record) { r.Removing = true })}, of("Acme", "jane", "production", hourAgo), ""},
		"itself void":                        {[]Record{void("Void", "jane", "production", tenAgo)}, void("Acme", "jane", "production", hourAgo), ""},
		"itself expired":                     {[]Record{void("Void", "jane", "production", tenAgo)}, of("Acme", "jane", "production", now.Add(-61*24*time.Hour)), ""},
		"refreshable":                        {[]Record{void("Void", "jane", "production", tenAgo)}, of("Acme", "jane", "production", now.Add(-30*24*time.Hour)), "Void"},
		"expiring":                           {[]Record{void("Void", "jane", "production", tenAgo)}, of("Acme", "jane", "production", now.Add(-57*24*time.Hour)), "Void"},
		"interrupted":                        {[]Record{void("Void", "jane", "production", tenAgo)}, with(of("Acme", "jane", "production", hourAgo), func(r *Record) { r.Interrupted = true }), "Void"},
		"a company without a grant":          {[]Record{void("Void", "jane", "production", tenAgo)}, Record{Facts: Facts{ID: ID{Company: "Acme"}}}, ""},
		"a mark that was set before goes":    {nil, with(of("Acme", "jane", "production", hourAgo), func(r *Record) { r.VoidWith = &ID{} }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			records := append([]Record{test.grant}, test.others...)
			MarkProbablyVoid(records[:1], records, now)
			got := ""
			if records[0].VoidWith != nil {
				got = records[0].VoidWith.Company
			}
			if got != test.want || records[0].ProbablyVoid() != (test.want != "") {
				t.Errorf("void with %q, want %q", got, test.want)
			}
			if state := test.grant.StateAt(now); records[0].StateAt(now) != state {
				t.Errorf("the state was %s and is %s", state, records[0].StateAt(now))
			}
		})
	}
}
