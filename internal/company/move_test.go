package company_test

import (
	"slices"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/company/companytest"
	"github.com/upsauth/upsauth/internal/grant"
)

// What a book knows comes into another one once, however often a move is begun, beside what
// that one knows. Only then it is gone.
func TestMoveTo(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		ctx := t.Context()
		_, err := b.Describe(ctx, "Acme", noon, func(d *company.Details) { d.Contact = "ring Jane" })
		check(t, err)
		check(t, b.Note(ctx, event("Acme", grant.EventAuthorized, 1)))
		check(t, b.Note(ctx, event("Acme", grant.EventRefreshed, 3)))
		check(t, b.Note(ctx, event("Zeta", grant.EventAuthorized, 1)))
		id, err := b.Identify(ctx, "Acme", noon)
		check(t, err)

		to := company.Open(companytest.New())
		_, err = to.Describe(ctx, "Acme", noon.Add(time.Hour), func(d *company.Details) { d.Note = "pays late" })
		check(t, err)
		check(t, to.Note(ctx, event("Acme", grant.EventMoved, 2)))
		other, err := to.Identify(ctx, "Acme", noon)
		check(t, err)

		check(t, b.CopyTo(ctx, to))
		check(t, b.CopyTo(ctx, to))
		if events, err := b.History(ctx, "Acme"); err != nil || len(events) != 2 {
			t.Errorf("a copy took away: %v, %v", events, err)
		}
		check(t, b.Note(ctx, event("Acme", grant.EventRevoked, 4)))
		check(t, b.MoveTo(ctx, to))
		check(t, b.MoveTo(ctx, to))

		events, err := to.History(ctx, "Acme")
		check(t, err)
		var what []grant.EventKind
		for _, e := range events {
			what = append(what, e.What)
		}
		if want := []grant.EventKind{grant.EventAuthorized, grant.EventMoved, grant.EventRefreshed, grant.EventRevoked}; !slices.Equal(what, want) {
			t.Errorf("the history is %v, want %v", what, want)
		}
		list, problems, err := to.List(ctx, "Acme")
		if err != nil || len(problems) > 0 || len(list) != 1 || list[0].Contact != "ring Jane" || list[0].Note != "pays late" {
			t.Errorf("there is %+v, %v, %v", list, problems, err)
		}
		identified, err := to.Identified(ctx)
		if err != nil || identified.Name(id) != "Acme" || identified.Name(other) != "Acme" {
			t.Errorf("the identities are %q and %q: %v", identified.Name(id), identified.Name(other), err)
		}
		if left, problems, err := b.List(ctx, ""); err != nil || len(left)+len(problems) > 0 {
			t.Errorf("left are %v, %v, %v", left, problems, err)
		}
		if names, _, err := b.Remembered(ctx, nil); err != nil || len(names) > 0 {
			t.Errorf("histories are left of %v, %v", names, err)
		}
		if events, err := to.History(ctx, "Zeta"); err != nil || len(events) != 1 {
			t.Errorf("Zeta's history is %v, %v", events, err)
		}
	})
}

// What can't be read is moved nowhere, and nothing is removed for it.
func TestMoveToLeavesWhatCantBeRead(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		_, err := b.Add(t.Context(), "Acme", noon)
		check(t, err)
		b.breakRow("Zeta", company.Added)
		if err := b.MoveTo(t.Context(), company.Open(companytest.New())); err == nil {
			t.Error("it moved")
		}
		if list, _, err := b.List(t.Context(), "Acme"); err != nil || len(list) != 1 {
			t.Errorf("there is %v, %v", list, err)
		}
	})
}
