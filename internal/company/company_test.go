package company

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

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

func note(t testing.TB, b Book, events ...grant.Event) {
	t.Helper()
	for _, e := range events {
		check(t, b.Note(e))
	}
}

func history(t testing.TB, b Book, name string) []string {
	t.Helper()
	events, err := b.History(name)
	check(t, err)
	var lines []string
	for _, e := range events {
		lines = append(lines, fmt.Sprintf("%s x%d %s", e.What, max(e.Count, 1), e.Time.Format("15:04")))
	}
	return lines
}

// list is List with the names alone.
func list(b Book) (names []string, problems []error, err error) {
	companies, problems, err := b.List("")
	for _, c := range companies {
		names = append(names, c.Name)
	}
	return names, problems, err
}

func wantHistory(t testing.TB, b Book, name string, want ...string) {
	t.Helper()
	if got := history(t, b, name); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHistoryCountsWhatComesInARow(t *testing.T) {
	b := Open(filepath.Join(t.TempDir(), "companies"))
	wantHistory(t, b, "Acme")
	refused := event("Acme", grant.EventFailed, 5)
	refused.Detail = "503"
	other := event("Acme", grant.EventFailed, 7)
	other.Detail = "429"
	note(t, b, event("Acme", grant.EventAuthorized, 0),
		event("Acme", grant.EventRefreshed, 1), event("acme", grant.EventRefreshed, 2), event("ACME", grant.EventRefreshed, 3),
		refused, refused, other, event("Acme", grant.EventRevoked, 8), event("Acme", grant.EventRevoked, 9), event("Apex", grant.EventAuthorized, 1))
	wantHistory(t, b, "aCME", "authorized x1 12:00", "refreshed x3 12:03", "refresh failed x2 12:05", "refresh failed x1 12:07", "revoked x1 12:08", "revoked x1 12:09")
	events, err := b.History("Acme")
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
}

// A log of years stays small, and its counts true.
func TestHistoryIsBounded(t *testing.T) {
	b := Open(t.TempDir())
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
	info, err := os.Stat(b.path("Acme", ".log"))
	check(t, err)
	if info.Size() > maxLog+1000 {
		t.Errorf("the log has %d bytes", info.Size())
	}
	if got := history(t, b, "Acme"); got[0] != "authorized x1 12:00" || len(got) < maxEvents {
		t.Errorf("%d events are left, the first is %s", len(got), got[0])
	}
}

func TestNotesOfManyAtOnce(t *testing.T) {
	b := Open(t.TempDir())
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for n := range 200 {
				if err := Open(b.dir).Note(event("Acme", grant.EventRefreshed, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
	events, err := b.History("Acme")
	check(t, err)
	if len(events) != 1 || events[0].Count != 1600 {
		t.Errorf("%+v", events)
	}
}

func TestHistoryThatIsDamaged(t *testing.T) {
	b := Open(t.TempDir())
	note(t, b, event("Acme", grant.EventAuthorized, 0))
	log, err := os.ReadFile(b.path("Acme", ".log"))
	check(t, err)
	check(t, os.WriteFile(b.path("Acme", ".log"), slices.Concat([]byte("\x00\xff\n{}\n"), log, log[:20]), 0o600))
	wantHistory(t, b, "Acme", "authorized x1 12:00")
}

func TestAddListRenameRemove(t *testing.T) {
	b := Open(filepath.Join(t.TempDir(), "companies"))
	for _, name := range []string{"Acme", "CON", "a/b:c", "Größe 株式会社", strings.Repeat("é", 200)} {
		for want := range 2 {
			if added, err := b.Add(name, noon); err != nil || added != (want == 0) {
				t.Errorf("%q: %t, %v", name, added, err)
			}
		}
	}
	if added, err := b.Add("ACME", noon); added || err != nil {
		t.Errorf("%t, %v", added, err)
	}
	note(t, b, event("Acme", grant.EventAdded, 0))
	check(t, b.Rename("acme", "Apex", noon))
	check(t, b.Rename("Apex", "APEX", noon))
	check(t, b.Rename("Nobody", "Somebody", noon))
	note(t, b, event("Apart", grant.EventAuthorized, -5))
	check(t, b.Rename("Apart", "Apex", noon))
	wantHistory(t, b, "Apex", "authorized x1 11:55", "added x1 12:00", "renamed x1 12:00")
	wantHistory(t, b, "Apart")
	note(t, b, event("Acme", grant.EventAuthorized, 1))
	check(t, b.Remove("Acme"))
	wantHistory(t, b, "Acme")
	names, problems, err := list(b)
	slices.Sort(names)
	if err != nil || len(problems) != 0 || len(names) != 5 || names[0] != "APEX" {
		t.Errorf("%q, %v, %v", names, problems, err)
	}
	check(t, b.Remove("apex"))
	check(t, b.Remove("apex"))
	wantHistory(t, b, "Apex")
	if names, _, _ := list(b); len(names) != 4 {
		t.Errorf("%q", names)
	}
}

func TestListTellsWhatItCantUse(t *testing.T) {
	b := Open(t.TempDir())
	for name, text := range map[string]string{"x.json": "{", "y.json": `{"version":1,"company":"Acme"}`, "z.json": `{"version":99,"company":"Acme"}`, "w.json": "{}"} {
		check(t, os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600))
	}
	if _, err := b.Add("Acme", noon); err != nil {
		t.Fatal(err)
	}
	if _, problems, err := b.List("acme"); err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
	check(t, os.WriteFile(b.path("Apex", ".json"), nil, 0o600))
	if added, err := b.Add("Apex", noon); !added || err != nil {
		t.Errorf("a damaged one: %t, %v", added, err)
	}
	check(t, b.Remove("Apex"))
	names, problems, err := list(b)
	if err != nil || len(problems) != 4 || !slices.Equal(names, []string{"Acme"}) {
		t.Errorf("%q, %v, %v", names, problems, err)
	}
}

func TestDetails(t *testing.T) {
	b := Open(filepath.Join(t.TempDir(), "companies"))
	details := func(name string) Details {
		t.Helper()
		companies, problems, err := b.List(name)
		if err != nil || len(problems) > 0 || len(companies) != 1 {
			t.Fatalf("%v, %v, %v", companies, problems, err)
		}
		return companies[0].Details
	}
	describe := func(name string, want bool, change func(*Details)) {
		t.Helper()
		if changed, err := b.Describe(name, noon, change); err != nil || changed != want {
			t.Errorf("changed %t, %v", changed, err)
		}
	}
	// A company that is not known becomes so, also without details.
	describe("Acme", true, func(d *Details) { d.Contact = "Jane, +49 431 1" })
	describe("Apex", true, func(*Details) {})
	describe("ACME", false, func(d *Details) { d.Contact = "Jane, +49 431 1" })
	describe("acme", true, func(d *Details) { d.Note = "since 2019" })
	if got := details("Acme"); got != (Details{"Jane, +49 431 1", "since 2019"}) {
		t.Errorf("%q", got)
	}
	if added, err := b.Add("Acme", noon); added || err != nil || details("Acme").Contact == "" {
		t.Errorf("adding it again: %t, %v, %q", added, err, details("Acme"))
	}
	check(t, b.Rename("Acme", "ACME Corp", noon))
	check(t, b.Rename("ACME Corp", "Acme Corp", noon))
	if got := details("Acme Corp"); got != (Details{"Jane, +49 431 1", "since 2019"}) {
		t.Errorf("after renaming it: %q", got)
	}
	// Two that become one: what both have stays.
	describe("Apex", true, func(d *Details) { d.Contact = "Joe" })
	check(t, b.Rename("Acme Corp", "Apex", noon))
	if got := details("Apex"); got != (Details{"Joe; Jane, +49 431 1", "since 2019"}) {
		t.Errorf("after the merger: %q", got)
	}
	describe("Apex", true, func(d *Details) { *d = Details{} })
	if got := details("Apex"); got != (Details{}) {
		t.Errorf("after taking them away: %q", got)
	}
	check(t, os.WriteFile(b.path("New", ".json"), []byte(`{"version":99,"company":"New"}`), 0o600))
	if _, err := b.Describe("New", noon, func(d *Details) { d.Note = "x" }); err == nil {
		t.Error("the file of a newer program was overwritten")
	}
}

func TestCleanDetail(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "  Jane  Doe ": "Jane Doe", "Jane\n+49 431 1\t": "Jane +49 431 1", "Cafe\u0301": "Caf\u00e9",
		strings.Repeat("é", MaxDetail): strings.Repeat("é", MaxDetail),
	} {
		if got, err := CleanDetail("contact", text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"\xff", "a\x1b[31mb", "a\x00", strings.Repeat("é", MaxDetail+1)} {
		if got, err := CleanDetail("contact", text); err == nil || !strings.Contains(err.Error(), "the contact") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// A rename that was killed after the new history was written told everything
// twice, and one that only wrote a name in another way forgot the company.
func TestRenameThatWasCutOff(t *testing.T) {
	b := Open(filepath.Join(t.TempDir(), "companies"))
	_, err := b.Add("Acme", noon)
	check(t, err)
	note(t, b, event("Acme", grant.EventAuthorized, 0), event("Acme", grant.EventRefreshed, 1), event("Acme", grant.EventRefreshed, 2))
	before, err := os.ReadFile(b.path("Acme", ".log"))
	check(t, err)
	check(t, b.Rename("Acme", "Apex", noon))
	want := history(t, b, "Apex")
	// As it was before the old files went.
	check(t, os.WriteFile(b.path("Acme", ".log"), before, 0o600))
	_, err = b.Add("Acme", noon)
	check(t, err)
	check(t, b.Rename("Acme", "Apex", noon))
	wantHistory(t, b, "Apex", want...)
	wantHistory(t, b, "Acme")
	if companies, _, err := b.List(""); err != nil || len(companies) != 1 || companies[0].Name != "Apex" {
		t.Errorf("%v, %v", companies, err)
	}
}

// What comes from disk becomes names of files and is shown: nothing else than a
// company that there can be comes out of it.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"company":"Acme","added":"2026-11-21T16:05:03Z"}`, `{"version":2}`, `{"company":"../../x"}`, "{", "null", "[]",
		`{"time":"2026-11-21T16:05:03Z","event":"added","company":"Acme","application":"","environment":""}` + "\n",
		`{"event":"revoked","company":"A\u001b[2J","application":"../x","environment":"y"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := parse(data, grant.CompanySlot("Acme")+".json"); err == nil && grant.Fold(e.Company) != "acme" {
			t.Errorf("%q is in Acme's file", e.Company)
		}
		for _, e := range parseLog(data) {
			if err := grant.CheckCompany(e.Company); err != nil || strings.Contains(e.Application+e.Environment, "/") {
				t.Errorf("the history has %+v", e)
			}
		}
	})
}
