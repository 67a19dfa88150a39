package render

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

func TestSortRecords(t *testing.T) {
	record := func(company string, state grant.State, ends time.Duration) grant.Record {
		r := of(company, state)
		if state != grant.Unauthorized {
			r.RefreshTokenExpires = issued.Add(ends)
			r.Expires, r.Issued = r.Expires.Add(-ends), r.Issued.Add(-ends/2)
		}
		return r
	}
	unknown := record("unknown", grant.Refreshable, 0)
	unknown.Issued, unknown.Expires, unknown.RefreshTokenExpires = time.Time{}, time.Time{}, time.Time{}
	other := record("beta", grant.Authorized, 50*day)
	other.Application = "batch-suite"
	cie := record("BETA", grant.Authorized, 50*day)
	cie.Environment = "cie"
	records := []grant.Record{
		unknown,
		record("none", grant.Unauthorized, 0),
		record("beta", grant.Authorized, 50*day),
		cie,
		other,
		record("Alpha", grant.Authorized, 50*day),
		record("soon", grant.Expiring, 2*day),
		record("later", grant.Expiring, 5*day),
		record("cut off", grant.Interrupted, 40*day),
		record("ended", grant.Expired, -day),
		record("refused", grant.Void, 30*day),
		record("old", grant.Refreshable, 20*day),
	}
	for order, want := range map[Order]string{
		ByUrgency: "refused,ended,none,cut off,soon,later,old,Alpha,beta/batch-suite,BETA/cie,beta,unknown",
		ByCompany: "Alpha,beta/batch-suite,BETA/cie,beta,cut off,ended,later,none,old,refused,soon,unknown",
		ByState:   "refused,ended,cut off,soon,later,none,old,unknown,Alpha,beta/batch-suite,BETA/cie,beta",
		ByExpires: "Alpha,beta/batch-suite,BETA/cie,beta,cut off,refused,old,later,soon,ended,none,unknown",
		ByIssued:  "Alpha,beta/batch-suite,BETA/cie,beta,cut off,refused,old,later,soon,ended,none,unknown",
	} {
		for range 2 {
			SortRecords(records, order, issued)
			var names []string
			for _, r := range records {
				name := r.Company
				if r.Application != "intelligent-rating" {
					name += "/" + r.Application
				}
				if r.Environment != "production" {
					name += "/" + r.Environment
				}
				names = append(names, name)
			}
			if got := strings.Join(names, ","); got != want {
				t.Errorf("by %s it is\n%s, want\n%s", order, got, want)
			}
			slices.Reverse(records)
		}
	}
}

func TestSortingIsStable(t *testing.T) {
	for _, order := range Orders() {
		var records []grant.Record
		for i := range int64(50) {
			r := acme()
			r.Generation = i
			records = append(records, r)
		}
		SortRecords(records, order, issued)
		for i, r := range records {
			if r.Generation != int64(i) {
				t.Fatalf("by %s equal records change places", order)
			}
		}
	}
}

func TestParseOrder(t *testing.T) {
	for _, order := range Orders() {
		if got, err := ParseOrder(string(order)); got != order || err != nil {
			t.Errorf("%q is read as %q, %v", order, got, err)
		}
	}
	const want = `"name" is no order: it is urgency, company, state, issued or expires`
	if _, err := ParseOrder("name"); err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}
