package company_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/company/companytest"
	"github.com/upsauth/upsauth/internal/company/files"
	"github.com/upsauth/upsauth/internal/company/postgres"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

// shelf is a book over one of the stores, with what breaks its rows.
type shelf struct {
	*company.Book
	store company.Store
	// again is the same store as another process has it.
	again func() company.Store
	// breakRow makes a row one that can't be read, and damage one that is no entry.
	breakRow, damage func(name string, part company.Part)
}

func keyOf(name string, part company.Part) company.Key {
	return company.Key{Slot: grant.CompanySlot(name), Part: part}
}

func fileShelf(t testing.TB) shelf {
	dir := filepath.Join(t.TempDir(), "companies")
	open := func() company.Store { return files.New(dir, &safefile.Places{}) }
	path := func(name string, part company.Part) string {
		check(t, os.MkdirAll(dir, 0o700))
		path := filepath.Join(dir, grant.CompanySlot(name)+map[company.Part]string{company.Added: ".json", company.History: ".log"}[part])
		check(t, os.RemoveAll(path))
		return path
	}
	store := open()
	return shelf{company.Open(store), store, open, func(name string, part company.Part) {
		check(t, os.Mkdir(path(name, part), 0o700))
	}, func(name string, part company.Part) {
		check(t, os.WriteFile(path(name, part), nil, 0o600))
	}}
}

func memoryShelf(testing.TB) shelf {
	store := companytest.New()
	return shelf{company.Open(store), store, func() company.Store { return store },
		func(name string, part company.Part) { store.Break(keyOf(name, part)) },
		func(name string, part company.Part) { store.Damage(keyOf(name, part)) }}
}

func databaseShelf(t testing.TB) shelf {
	tables := tablestest.New(t)
	store, other := postgres.New(tables.Open()), postgres.New(tables.Open())
	change := func(name string, part company.Part, entry string) {
		slot := grant.CompanySlot(name)
		if part == company.History {
			tables.SQL("INSERT INTO upsauth.histories (slot, version, format) VALUES ('" + slot + "', 1, 99) ON CONFLICT (slot) DO UPDATE SET format = 99")
			return
		}
		tables.SQL("INSERT INTO upsauth.companies VALUES ('" + slot + "', 1, '" + entry + "') ON CONFLICT (slot) DO UPDATE SET version = 2, entry = excluded.entry")
	}
	return shelf{company.Open(store), store, func() company.Store { return other },
		func(name string, part company.Part) { change(name, part, `{"version":99}`) },
		func(name string, part company.Part) { change(name, part, `[]`) }}
}

// eachStore runs a test of the rules over every store.
func eachStore(t *testing.T, test func(t *testing.T, b shelf)) {
	t.Run("files", func(t *testing.T) { test(t, fileShelf(t)) })
	t.Run("memory", func(t *testing.T) { test(t, memoryShelf(t)) })
	t.Run("database", func(t *testing.T) { test(t, databaseShelf(t)) })
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func event(company string, what grant.EventKind, minute int) grant.Event {
	return grant.Event{Time: noon.Add(time.Duration(minute) * time.Minute), What: what, ID: grant.ID{Company: company, Application: "a", Environment: "e"}}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func note(t testing.TB, b shelf, events ...grant.Event) {
	t.Helper()
	for _, e := range events {
		check(t, b.Note(t.Context(), e))
	}
}

func history(t testing.TB, b shelf, name string) []string {
	t.Helper()
	events, err := b.History(t.Context(), name)
	check(t, err)
	var lines []string
	for _, e := range events {
		lines = append(lines, fmt.Sprintf("%s x%d %s", e.What, max(e.Count, 1), e.Time.Format("15:04")))
	}
	return lines
}

// list is List with the names alone.
func list(t testing.TB, b shelf) (names []string, problems []error, err error) {
	companies, problems, err := b.List(t.Context(), "")
	for _, c := range companies {
		names = append(names, c.Name)
	}
	return names, problems, err
}

func wantHistory(t testing.TB, b shelf, name string, want ...string) {
	t.Helper()
	if got := history(t, b, name); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHistoryCountsWhatComesInARow(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		wantHistory(t, b, "Acme")
		refused := event("Acme", grant.EventFailed, 5)
		refused.Detail = "503"
		other := event("Acme", grant.EventFailed, 7)
		other.Detail = "429"
		note(t, b, event("Acme", grant.EventAuthorized, 0),
			event("Acme", grant.EventRefreshed, 1), event("acme", grant.EventRefreshed, 2), event("ACME", grant.EventRefreshed, 3),
			refused, refused, other, event("Acme", grant.EventRevoked, 8), event("Acme", grant.EventRevoked, 9), event("Apex", grant.EventAuthorized, 1))
		wantHistory(t, b, "aCME", "authorized x1 12:00", "refreshed x3 12:03", "refresh failed x2 12:05", "refresh failed x1 12:07", "revoked x1 12:08", "revoked x1 12:09")
		events, err := b.History(t.Context(), "Acme")
		check(t, err)
		if !events[1].Since.Equal(noon.Add(time.Minute)) {
			t.Errorf("refreshed since %v", events[1].Since)
		}
		// Another grant of the company is another row, also where the two take turns.
		for n := range 3 {
			mine := event("Apex", grant.EventRefreshed, 2+n)
			theirs := mine
			theirs.Application = "b"
			note(t, b, mine, theirs)
		}
		wantHistory(t, b, "Apex", "authorized x1 12:01", "refreshed x3 12:04", "refreshed x3 12:04")
	})
}

// A log of years stays small, and its counts true.
func TestHistoryIsBounded(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		const refreshes = 5000
		note(t, b, event("Acme", grant.EventAuthorized, 0))
		for n := range refreshes {
			note(t, b, event("Acme", grant.EventRefreshed, n))
		}
		wantHistory(t, b, "Acme", "authorized x1 12:00", fmt.Sprintf("refreshed x%d %s", refreshes, noon.Add((refreshes-1)*time.Minute).Format("15:04")))
		for n := range 3000 {
			e := event("Acme", grant.EventFailed, n)
			e.Detail = fmt.Sprint("reason ", n)
			note(t, b, e)
		}
		size, err := b.store.Append(t.Context(), grant.CompanySlot("Acme"), event("Acme", grant.EventFailed, 1))
		check(t, err)
		if size > company.MaxHistory+1000 {
			t.Errorf("the history has %d bytes", size)
		}
		if got := history(t, b, "Acme"); got[0] != "authorized x1 12:00" || len(got) < company.MaxEvents {
			t.Errorf("%d events are left, the first is %s", len(got), got[0])
		}
	})
}

func TestNotesOfManyAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		var users sync.WaitGroup
		for range 8 {
			users.Go(func() {
				for n := range 200 {
					if err := company.Open(b.again()).Note(t.Context(), event("Acme", grant.EventRefreshed, n)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		users.Wait()
		events, err := b.History(t.Context(), "Acme")
		check(t, err)
		if len(events) != 1 || events[0].Count != 1600 {
			t.Errorf("%+v", events)
		}
	})
}

func TestAddListRenameRemove(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		for _, name := range []string{"Acme", "CON", "a/b:c", "Größe 株式会社", strings.Repeat("é", 200)} {
			for want := range 2 {
				if added, err := b.Add(t.Context(), name, noon); err != nil || added != (want == 0) {
					t.Errorf("%q: %t, %v", name, added, err)
				}
			}
		}
		if added, err := b.Add(t.Context(), "ACME", noon); added || err != nil {
			t.Errorf("%t, %v", added, err)
		}
		note(t, b, event("Acme", grant.EventAdded, 0))
		check(t, b.Rename(t.Context(), "acme", "Apex", noon))
		check(t, b.Rename(t.Context(), "Apex", "APEX", noon))
		check(t, b.Rename(t.Context(), "Nobody", "Somebody", noon))
		note(t, b, event("Apart", grant.EventAuthorized, -5))
		check(t, b.Rename(t.Context(), "Apart", "Apex", noon))
		wantHistory(t, b, "Apex", "authorized x1 11:55", "added x1 12:00", "renamed x1 12:00")
		wantHistory(t, b, "Apart")
		note(t, b, event("Acme", grant.EventAuthorized, 1))
		check(t, b.Remove(t.Context(), "Acme"))
		wantHistory(t, b, "Acme")
		names, problems, err := list(t, b)
		slices.Sort(names)
		if err != nil || len(problems) != 0 || len(names) != 5 || names[0] != "APEX" {
			t.Errorf("%q, %v, %v", names, problems, err)
		}
		check(t, b.Remove(t.Context(), "apex"))
		check(t, b.Remove(t.Context(), "apex"))
		wantHistory(t, b, "Apex")
		if names, _, _ := list(t, b); len(names) != 4 {
			t.Errorf("%q", names)
		}
	})
}

func TestListTellsWhatItCantUse(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		ctx := t.Context()
		b.damage("X", company.Added)
		b.breakRow("Z", company.Added)
		b.breakRow("Z", company.History)
		// A row under another company's key is no entry either.
		strange := company.Row{Key: keyOf("Y", company.Added), Entry: company.Entry{Company: "Acme", Added: noon}}
		empty := company.Row{Key: keyOf("W", company.Added)}
		check(t, b.store.Commit(ctx, []company.Row{strange, empty}, nil))
		if _, err := b.Add(ctx, "Acme", noon); err != nil {
			t.Fatal(err)
		}
		if _, problems, err := b.List(ctx, "acme"); err != nil || len(problems) != 0 {
			t.Errorf("%v, %v", problems, err)
		}
		b.damage("Apex", company.Added)
		if added, err := b.Add(ctx, "Apex", noon); !added || err != nil {
			t.Errorf("a damaged one: %t, %v", added, err)
		}
		check(t, b.Remove(ctx, "Apex"))
		names, problems, err := list(t, b)
		if err != nil || len(problems) != 4 || !slices.Equal(names, []string{"Acme"}) {
			t.Errorf("%q, %v, %v", names, problems, err)
		}
		for _, name := range []string{"X", "Y", "Z", "W"} {
			var file *company.FileError
			if companies, problems, err := b.List(ctx, name); len(companies) != 0 || len(problems) != 1 || err != nil || !errors.As(problems[0], &file) || file.Path == "" {
				t.Errorf("%s: %v, %v, %v", name, companies, problems, err)
			}
		}
		if names, problems, err := b.Remembered(ctx, nil); len(names) != 0 || len(problems) != 1 || err != nil {
			t.Errorf("%v, %v, %v", names, problems, err)
		}
	})
}

func TestDetails(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		details := func(name string) company.Details {
			t.Helper()
			companies, problems, err := b.List(t.Context(), name)
			if err != nil || len(problems) > 0 || len(companies) != 1 {
				t.Fatalf("%v, %v, %v", companies, problems, err)
			}
			return companies[0].Details
		}
		describe := func(name string, want bool, change func(*company.Details)) {
			t.Helper()
			if changed, err := b.Describe(t.Context(), name, noon, change); err != nil || changed != want {
				t.Errorf("changed %t, %v", changed, err)
			}
		}
		// A company that is not known becomes so, also without details.
		describe("Acme", true, func(d *company.Details) { d.Contact = "Jane, +49 431 1" })
		describe("Apex", true, func(*company.Details) {})
		describe("ACME", false, func(d *company.Details) { d.Contact = "Jane, +49 431 1" })
		describe("acme", true, func(d *company.Details) { d.Note = "since 2019" })
		if got := details("Acme"); got != (company.Details{"Jane, +49 431 1", "since 2019"}) {
			t.Errorf("%q", got)
		}
		if added, err := b.Add(t.Context(), "Acme", noon); added || err != nil || details("Acme").Contact == "" {
			t.Errorf("adding it again: %t, %v, %q", added, err, details("Acme"))
		}
		check(t, b.Rename(t.Context(), "Acme", "ACME Corp", noon))
		check(t, b.Rename(t.Context(), "ACME Corp", "Acme Corp", noon))
		if got := details("Acme Corp"); got != (company.Details{"Jane, +49 431 1", "since 2019"}) {
			t.Errorf("after renaming it: %q", got)
		}
		// Two that become one: what both have stays.
		describe("Apex", true, func(d *company.Details) { d.Contact = "Joe" })
		check(t, b.Rename(t.Context(), "Acme Corp", "Apex", noon))
		if got := details("Apex"); got != (company.Details{"Joe; Jane, +49 431 1", "since 2019"}) {
			t.Errorf("after the merger: %q", got)
		}
		describe("Apex", true, func(d *company.Details) { *d = company.Details{} })
		if got := details("Apex"); got != (company.Details{}) {
			t.Errorf("after taking them away: %q", got)
		}
	})
}

func TestCleanDetail(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "  Jane  Doe ": "Jane Doe", "Jane\n+49 431 1\t": "Jane +49 431 1", "Cafe\u0301": "Caf\u00e9",
		strings.Repeat("é", company.MaxDetail): strings.Repeat("é", company.MaxDetail),
	} {
		if got, err := company.CleanDetail("contact", text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"\xff", "a\x1b[31mb", "a\x00", strings.Repeat("é", company.MaxDetail+1)} {
		if got, err := company.CleanDetail("contact", text); err == nil || !strings.Contains(err.Error(), "the contact") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// A rename that was killed after the new history was written told everything
// twice, and one that only wrote a name in another way forgot the company.
func TestRenameThatWasCutOff(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		ctx := t.Context()
		_, err := b.Add(ctx, "Acme", noon)
		check(t, err)
		note(t, b, event("Acme", grant.EventAuthorized, 0), event("Acme", grant.EventRefreshed, 1), event("Acme", grant.EventRefreshed, 2))
		before, err := b.store.Get(ctx, keyOf("Acme", company.History))
		check(t, err)
		check(t, b.Rename(ctx, "Acme", "Apex", noon))
		want := history(t, b, "Apex")
		// As it was before the old rows went.
		before.Version = ""
		check(t, b.store.Commit(ctx, []company.Row{before}, nil))
		_, err = b.Add(ctx, "Acme", noon)
		check(t, err)
		check(t, b.Rename(ctx, "Acme", "Apex", noon))
		wantHistory(t, b, "Apex", want...)
		wantHistory(t, b, "Acme")
		if companies, _, err := b.List(ctx, ""); err != nil || len(companies) != 1 || companies[0].Name != "Apex" {
			t.Errorf("%v, %v", companies, err)
		}
	})
}

// What can't be read is not what is not there: adding, describing, renaming and
// removing a company replaced it without a word.
func TestWhatCantBeReadIsLeftAlone(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		ctx := t.Context()
		describe := func(name string) error {
			_, err := b.Describe(ctx, name, noon, func(d *company.Details) { d.Note = "x" })
			return err
		}
		add := func(name string) error {
			_, err := b.Add(ctx, name, noon)
			return err
		}
		check(t, add("Apex"))
		note(t, b, event("Apex", grant.EventAuthorized, 0))
		for name, part := range map[string]company.Part{"Entry": company.Added, "Log": company.History} {
			check(t, add(name))
			note(t, b, event(name, grant.EventAuthorized, 0))
			b.breakRow(name, part)
			attempts := map[string]error{
				"rename":    b.Rename(ctx, name, "Other", noon),
				"rename to": b.Rename(ctx, "Apex", name, noon),
				"remove":    b.Remove(ctx, name),
			}
			if part == company.Added {
				attempts["add"], attempts["describe"] = add(name), describe(name)
				attempts["respell"] = b.Rename(ctx, name, strings.ToUpper(name), noon)
			} else {
				attempts["note"] = b.Note(ctx, event(name, grant.EventRevoked, 1))
				_, attempts["history"] = b.History(ctx, name)
			}
			for what, err := range attempts {
				if err == nil {
					t.Errorf("%s of %s: no error", what, name)
				}
			}
		}
		names, problems, err := list(t, b)
		slices.Sort(names)
		if !slices.Equal(names, []string{"Apex", "Log"}) || len(problems) != 1 || err != nil {
			t.Errorf("%q, %v, %v", names, problems, err)
		}
		wantHistory(t, b, "Entry", "authorized x1 12:00")
		wantHistory(t, b, "Apex", "authorized x1 12:00")
	})
}

// meddled is a store in which others change a row between its reading and the change
// that is made of it.
type meddled struct {
	company.Store
	meddle func() // before each Commit
}

func (m *meddled) Commit(ctx context.Context, put, remove []company.Row) error {
	m.meddle()
	return m.Store.Commit(ctx, put, remove)
}

// Adding a company while another process described it took the description away.
// Whoever comes second sees what the first one did, and loses none of it.
func TestWhoComesSecondLosesNothing(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		ctx := t.Context()
		// slow is a book whose first change comes after somebody else's.
		slow := func(others ...func()) *company.Book {
			return company.Open(&meddled{b.store, func() {
				if len(others) > 0 {
					others[0]()
					others = others[1:]
				}
			}})
		}
		contact := func(name, text string) func() {
			return func() {
				_, err := b.Describe(ctx, name, noon, func(d *company.Details) { d.Contact = text })
				check(t, err)
			}
		}
		details := func(name string) company.Details {
			t.Helper()
			companies, problems, err := b.List(ctx, name)
			if err != nil || len(problems) > 0 || len(companies) != 1 {
				t.Fatalf("%v, %v, %v", companies, problems, err)
			}
			return companies[0].Details
		}

		added, err := slow(contact("Acme", "Jane")).Add(ctx, "Acme", noon)
		check(t, err)
		if added || details("Acme").Contact != "Jane" {
			t.Errorf("added %t, %+v", added, details("Acme"))
		}
		changed, err := slow(contact("Acme", "Joe"), contact("Acme", "Jim")).Describe(ctx, "Acme", noon, func(d *company.Details) { d.Note += "new" })
		check(t, err)
		if want := (company.Details{Contact: "Jim", Note: "new"}); !changed || details("Acme") != want {
			t.Errorf("changed %t, %+v", changed, details("Acme"))
		}
		// The other one said the same.
		changed, err = slow(contact("Acme", "Jill")).Describe(ctx, "Acme", noon, func(d *company.Details) { d.Contact = "Jill" })
		check(t, err)
		if changed {
			t.Error("what another process changed counts as changed here")
		}
		check(t, slow(contact("Acme", "Jack"), func() { note(t, b, event("Acme", grant.EventAuthorized, 0)) }, contact("Apex", "Ann")).Rename(ctx, "Acme", "Apex", noon))
		if got := details("Apex"); got.Contact != "Ann; Jack" || got.Note != "new" {
			t.Errorf("after the merger: %+v", got)
		}
		wantHistory(t, b, "Apex", "authorized x1 12:00", "renamed x1 12:00")
		check(t, slow(contact("Apex", "Ada")).Rename(ctx, "Apex", "APEX", noon))
		if companies, _, _ := b.List(ctx, "apex"); len(companies) != 1 || companies[0].Name != "APEX" || companies[0].Contact != "Ada" {
			t.Errorf("written in another way: %+v", companies)
		}
		check(t, slow(contact("Apex", "Al"), func() { note(t, b, event("Apex", grant.EventRefreshed, 3)) }).Remove(ctx, "Apex"))
		if names, problems, err := list(t, b); len(names) != 0 || len(problems) != 0 || err != nil {
			t.Errorf("after the removal: %v, %v, %v", names, problems, err)
		}
		wantHistory(t, b, "Apex")
		// What became one that can't be read meanwhile.
		contact("Bad", "x")()
		if _, err := slow(func() { b.breakRow("Bad", company.Added) }).Describe(ctx, "Bad", noon, func(d *company.Details) { d.Note = "x" }); !errors.As(err, new(*company.FileError)) {
			t.Errorf("%v", err)
		}
	})
}

// Of many who change one company at once none loses what it wrote.
func TestManyDescribeAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		const writers = 8
		var users sync.WaitGroup
		for n := range writers {
			users.Go(func() {
				mine := company.Open(b.again())
				if _, err := mine.Add(t.Context(), "Acme", noon); err != nil {
					t.Error(err)
				}
				_, err := mine.Describe(t.Context(), "Acme", noon, func(d *company.Details) { d.Note += fmt.Sprint(n, ".") })
				if err != nil {
					t.Error(err)
				}
			})
		}
		users.Wait()
		companies, _, err := b.List(t.Context(), "Acme")
		check(t, err)
		if len(companies) != 1 || strings.Count(companies[0].Note, ".") != writers {
			t.Errorf("%+v", companies)
		}
	})
}

// A history that others add to all the time is not made shorter by force.
func TestShorteningLosesNoEvent(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		meddling := 0
		busy := company.Open(&meddled{b.store, func() {
			meddling++
			_, err := b.store.Append(t.Context(), grant.CompanySlot("Acme"), event("Acme", grant.EventRevoked, meddling))
			check(t, err)
		}})
		for n := 0; meddling == 0; n++ {
			e := event("Acme", grant.EventFailed, n)
			e.Detail = fmt.Sprint("reason ", n)
			check(t, busy.Note(t.Context(), e))
		}
		revoked := func() int { return strings.Count(strings.Join(history(t, b, "Acme"), "\n"), "revoked") }
		if revoked() != meddling {
			t.Errorf("%d events of %d are left", revoked(), meddling)
		}
		note(t, b, event("Acme", grant.EventRefreshed, 0))
		if got := len(history(t, b, "Acme")); got > company.MaxEvents || revoked() == 0 {
			t.Errorf("%d events are left, %d of them what a person did", got, revoked())
		}
	})
}

// A canceled request reads nothing and changes nothing.
func TestContextEndsEverything(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		_, err := b.Add(t.Context(), "Acme", noon)
		check(t, err)
		note(t, b, event("Acme", grant.EventAuthorized, 0))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, addErr := b.Add(ctx, "Apex", noon)
		_, _, listErr := b.List(ctx, "")
		_, _, oneErr := b.List(ctx, "Acme")
		_, _, rememberedErr := b.Remembered(ctx, nil)
		_, historyErr := b.History(ctx, "Acme")
		for what, err := range map[string]error{
			"add": addErr, "list": listErr, "list of one": oneErr, "remembered": rememberedErr, "history": historyErr,
			"note": b.Note(ctx, event("Acme", grant.EventRevoked, 1)), "remove": b.Remove(ctx, "Acme"), "rename": b.Rename(ctx, "Acme", "Apex", noon),
		} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
		}
		wantHistory(t, b, "Acme", "authorized x1 12:00")
		if names, _, err := list(t, b); len(names) != 1 || err != nil {
			t.Errorf("%v, %v", names, err)
		}
	})
}
