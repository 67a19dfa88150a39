package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

// The rules of companies are tested over this store with all others, in company.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func keyOf(name string, part company.Part) company.Key {
	return company.Key{Slot: grant.CompanySlot(name), Part: part}
}

func entry(name string) company.Row {
	return company.Row{Key: keyOf(name, company.Added), Entry: company.Entry{Company: name, Added: noon}}
}

func event(name, detail string) grant.Event {
	return grant.Event{Time: noon, What: grant.EventFailed, ID: grant.ID{Company: name, Application: "a", Environment: "e"}, Detail: detail}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Two hosts that write what both have read: one must be told, and see what the other did.
func TestOneOfTwoIsToldOfTheConflict(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	stores := []*Store{New(tables.Open()), New(tables.Open())}
	check(t, stores[0].Commit(ctx, []company.Row{entry("Acme")}, nil))
	_, err := stores[0].Append(ctx, grant.CompanySlot("Acme"), event("Acme", "one"))
	check(t, err)
	for n := range 20 {
		for what, change := range map[string]func(s *Store, row company.Row) error{
			"put":    func(s *Store, row company.Row) error { return s.Commit(ctx, []company.Row{row}, nil) },
			"insert": func(s *Store, row company.Row) error { return s.Commit(ctx, []company.Row{entry(fmt.Sprint(n))}, nil) },
		} {
			row, err := stores[0].Get(ctx, keyOf("Acme", company.Added))
			check(t, err)
			row.Entry.Note = fmt.Sprint(n)
			oneOfTwo(t, what, func(i int) error { return change(stores[i], row) })
		}
		row, err := stores[0].Get(ctx, keyOf("Acme", company.History))
		check(t, err)
		// A history that is made shorter, against an event that is added to it: the event is
		// there in any case.
		var all sync.WaitGroup
		var short error
		all.Go(func() { short = stores[0].Commit(ctx, []company.Row{row}, nil) })
		all.Go(func() {
			if _, err := stores[1].Append(ctx, row.Slot, event("Acme", fmt.Sprint("added ", n))); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		if short != nil && !errors.As(short, new(*company.ConflictError)) {
			t.Errorf("made shorter: %v", short)
		}
		now, err := stores[1].Get(ctx, row.Key)
		check(t, err)
		if len(now.Events) != len(row.Events)+1 {
			t.Fatalf("%d events, and one was added: %d", len(row.Events), len(now.Events))
		}
	}
}

// oneOfTwo has two clients do the same at once, and checks that one of them succeeds.
func oneOfTwo(t *testing.T, what string, do func(client int) error) {
	t.Helper()
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	if errs[0] == nil {
		slices.Reverse(errs)
	}
	var conflict *company.ConflictError
	if errs[1] != nil || !errors.As(errs[0], &conflict) || conflict.Row.Version == "" || conflict.Row.Entry.Company == "" {
		t.Fatalf("%s: %v", what, errs)
	}
}

// A Commit with one row that somebody has changed changes no other.
func TestCommitIsWholeOrNothing(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	s := New(tables.Open())
	check(t, s.Commit(ctx, []company.Row{entry("Acme"), entry("Apex")}, nil))
	acme, err := s.Get(ctx, keyOf("Acme", company.Added))
	check(t, err)
	before, err := s.Reading(ctx)
	check(t, err)
	for what, rows := range map[string][2][]company.Row{
		"a row that is there":        {{entry("New"), entry("Apex")}, {acme}},
		"a row that is gone":         {{entry("New")}, {acme, {Key: keyOf("Gone", company.Added), Version: "1"}}},
		"a row that was not there":   {{entry("New")}, {acme, entry("Apex")}},
		"a history that is gone":     {{entry("New"), {Key: keyOf("Acme", company.History), Version: "1"}}, nil},
		"a history that was removed": {{entry("New")}, {acme, {Key: keyOf("Acme", company.History), Version: "1"}}},
	} {
		if err := s.Commit(ctx, rows[0], rows[1]); !errors.As(err, new(*company.ConflictError)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	rows, problems, err := s.List(ctx, company.Added, nil)
	if len(rows) != 2 || len(problems) != 0 || err != nil {
		t.Errorf("%+v, %v, %v", rows, problems, err)
	}
	after, err := s.Reading(ctx)
	check(t, err)
	if after != before || after == 0 {
		t.Errorf("nothing was changed, and the reading went from %d to %d", before, after)
	}
	tables.SQL("UPDATE upsauth.companies SET version = version")
	if after, err = s.Reading(ctx); err != nil || after == before {
		t.Errorf("somebody else's change is not told: %d, %v", after, err)
	}
}

// Two hosts that change the same companies in another order would wait for each other.
func TestHostsDoNotWaitForEachOther(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	var all sync.WaitGroup
	for host := range 2 {
		s := New(tables.Open())
		all.Go(func() {
			for n := range 100 {
				rows := []company.Row{entry("Acme"), entry("Apex")}
				if host == 1 {
					slices.Reverse(rows)
				}
				for i := range rows {
					now, err := s.Get(ctx, rows[i].Key)
					if err != nil {
						t.Error(err)
					}
					rows[i].Version, rows[i].Entry.Note = now.Version, fmt.Sprint(host, n)
				}
				if err := s.Commit(ctx, rows, nil); err != nil && !errors.As(err, new(*company.ConflictError)) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// What UPS says may have in it what a database's text can't.
func TestEventsAreKeptAsTheyAre(t *testing.T) {
	s, ctx := New(tablestest.New(t).Open()), t.Context()
	slot, want := grant.CompanySlot("Acme"), event("Acme", "a\x00b\"\\u0000 \u2028 €")
	_, err := s.Append(ctx, slot, want)
	check(t, err)
	row, err := s.Get(ctx, keyOf("Acme", company.History))
	check(t, err)
	check(t, s.Commit(ctx, []company.Row{row}, nil))
	row, err = s.Get(ctx, keyOf("Acme", company.History))
	if err != nil || len(row.Events) != 1 || row.Events[0] != want {
		t.Errorf("%+v, %v", row.Events, err)
	}
}

// An event that can't be read is a problem of its history, and the last sound event is
// found behind others.
func TestHistoriesOfStrangeEvents(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	s := New(tables.Open())
	for _, name := range []string{"Acme", "Apex", "Odd", "Left"} {
		_, err := s.Append(ctx, grant.CompanySlot(name), event(name, ""))
		check(t, err)
	}
	put := func(name, event string) {
		tables.SQL("INSERT INTO upsauth.history (slot, event) VALUES ('" + grant.CompanySlot(name) + "', '" + event + "')")
	}
	put("Apex", `{"event":"revoked","company":"\u001b"}`)
	put("Odd", `[]`)
	if _, err := s.Get(ctx, keyOf("Odd", company.History)); !errors.As(err, new(*company.FileError)) {
		t.Errorf("%v", err)
	}
	rows, problems, err := s.List(ctx, company.History, map[string]bool{grant.CompanySlot("Left"): true})
	if err != nil || len(problems) != 1 || len(rows) != 2 {
		t.Fatalf("%+v, %v, %v", rows, problems, err)
	}
	for _, row := range rows {
		if len(row.Events) != 1 || grant.CompanySlot(row.Events[0].Company) != row.Slot {
			t.Errorf("%+v", row)
		}
	}
}

// A database that is away is no list without companies.
func TestDatabaseThatIsAway(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	s := New(tables.Away())
	_, getErr := s.Get(ctx, keyOf("Acme", company.Added))
	_, _, listErr := s.List(ctx, company.Added, nil)
	_, _, historiesErr := s.List(ctx, company.History, nil)
	_, appendErr := s.Append(ctx, grant.CompanySlot("Acme"), event("Acme", ""))
	_, readingErr := s.Reading(ctx)
	for what, err := range map[string]error{
		"get": getErr, "list": listErr, "list of histories": historiesErr, "append": appendErr, "reading": readingErr,
		"commit": s.Commit(ctx, []company.Row{entry("Acme")}, nil),
	} {
		var away *postgres.Error
		if !errors.As(err, &away) || away.Reason != postgres.Away {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// BenchmarkList lists ten thousand companies.
func BenchmarkList(b *testing.B) {
	tables, ctx := tablestest.New(b), context.Background()
	s := New(tables.Open())
	for from := 0; from < 10000; from += 100 {
		var rows []company.Row
		for n := range 100 {
			rows = append(rows, entry(fmt.Sprint("Company ", from+n)))
		}
		check(b, s.Commit(ctx, rows, nil))
	}
	for b.Loop() {
		rows, problems, err := s.List(ctx, company.Added, nil)
		if len(rows) != 10000 || len(problems) > 0 || err != nil {
			b.Fatal(len(rows), problems, err)
		}
	}
}
