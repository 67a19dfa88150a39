package files

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func event(name string, what grant.EventKind, minute int) grant.Event {
	return grant.Event{Time: noon.Add(time.Duration(minute) * time.Minute), What: what, ID: grant.ID{Company: name, Application: "a", Environment: "e"}}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open returns a book over files, and where a company has them.
func open(t testing.TB) (b *company.Book, path func(name, ending string) string) {
	dir := t.TempDir()
	return company.Open(New(dir, &safefile.Places{})), func(name, ending string) string {
		return filepath.Join(dir, grant.CompanySlot(name)+ending)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return string(text)
}

// Releases before this one wrote these files, and later ones read them.
func TestFormats(t *testing.T) {
	b, path := open(t)
	ctx := t.Context()
	_, err := b.Describe(ctx, "Acme", noon, func(d *company.Details) { *d = company.Details{Contact: "Jane <j@x>", Note: "ü"} })
	check(t, err)
	_, err = b.Add(ctx, "Größe 株式会社", noon)
	check(t, err)
	e := event("Acme", grant.EventRefreshed, 1)
	check(t, b.Note(ctx, e))
	e.Detail, e.Count, e.Since = "x", 3, noon
	check(t, b.Note(ctx, e))
	for file, want := range map[string]string{
		path("Acme", ".json"):       `{"version":1,"company":"Acme","added":"2026-11-22T12:00:00Z","contact":"Jane \u003cj@x\u003e","note":"ü"}` + "\n",
		path("Größe 株式会社", ".json"): `{"version":1,"company":"Größe 株式会社","added":"2026-11-22T12:00:00Z"}` + "\n",
		path("Acme", ".log"): `{"time":"2026-11-22T12:01:00Z","event":"refreshed","company":"Acme","application":"a","environment":"e"}` + "\n" +
			`{"time":"2026-11-22T12:01:00Z","event":"refreshed","company":"Acme","application":"a","environment":"e","detail":"x","count":3,"since":"2026-11-22T12:00:00Z"}` + "\n",
	} {
		if got := read(t, file); got != want {
			t.Errorf("%s has\n%s, want\n%s", file, got, want)
		}
		if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

// A file of a newer program, or behind a link, was replaced by one that says less.
func TestFilesThatAreLeftAlone(t *testing.T) {
	for what, put := range map[string]func(path string) error{
		"newer": func(path string) error {
			return os.WriteFile(path, []byte(`{"version":99,"company":["New"]}`), 0o600)
		},
		"newer, as today's": func(path string) error {
			return os.WriteFile(path, []byte(`{"version":99,"company":"New"}`), 0o600)
		},
		"a link":      func(path string) error { return os.Symlink(filepath.Join(filepath.Dir(path), "elsewhere"), path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(what, func(t *testing.T) {
			b, path := open(t)
			ctx := t.Context()
			_, err := b.Add(ctx, "Apex", noon)
			check(t, err)
			if err := put(path("New", ".json")); err != nil && runtime.GOOS == "windows" {
				t.Skip("this user may make no links:", err)
			} else {
				check(t, err)
			}
			before, err := os.Lstat(path("New", ".json"))
			check(t, err)
			_, added := b.Add(ctx, "New", noon)
			_, described := b.Describe(ctx, "New", noon, func(d *company.Details) { d.Note = "x" })
			for attempt, err := range map[string]error{
				"add": added, "describe": described, "rename": b.Rename(ctx, "New", "Other", noon), "rename to it": b.Rename(ctx, "Apex", "New", noon), "remove": b.Remove(ctx, "New"),
			} {
				if err == nil || !strings.Contains(err.Error(), path("New", ".json")) {
					t.Errorf("%s: %v", attempt, err)
				}
			}
			after, err := os.Lstat(path("New", ".json"))
			if err != nil || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
				t.Errorf("%v, %v", after, err)
			}
			companies, problems, err := b.List(ctx, "")
			if len(companies) != 1 || companies[0].Name != "Apex" || len(problems) != 1 || err != nil {
				t.Errorf("%v, %v, %v", companies, problems, err)
			}
		})
	}
}

func wantHistory(t testing.TB, b *company.Book, name string, want ...grant.EventKind) {
	t.Helper()
	events, err := b.History(t.Context(), name)
	check(t, err)
	var got []grant.EventKind
	for _, e := range events {
		got = append(got, e.What)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHistoryThatIsDamaged(t *testing.T) {
	b, path := open(t)
	check(t, b.Note(t.Context(), event("Acme", grant.EventAuthorized, 0)))
	log := read(t, path("Acme", ".log"))
	check(t, os.WriteFile(path("Acme", ".log"), []byte("\x00\xff\n{}\n"+log+log[:20]), 0o600))
	wantHistory(t, b, "Acme", grant.EventAuthorized)
	// The next event was part of the torn line, and lost.
	check(t, b.Note(t.Context(), event("Acme", grant.EventRevoked, 1)))
	check(t, b.Note(t.Context(), event("Acme", grant.EventAuthorized, 2)))
	wantHistory(t, b, "Acme", grant.EventAuthorized, grant.EventRevoked, grant.EventAuthorized)
}

// The size decides when a history is made shorter.
func TestAppendReturnsTheSize(t *testing.T) {
	dir := t.TempDir()
	s := New(dir, &safefile.Places{})
	slot := grant.CompanySlot("Acme")
	for n := range 3 {
		if n == 2 {
			file, err := os.OpenFile(filepath.Join(dir, slot+".log"), os.O_APPEND|os.O_WRONLY, 0)
			check(t, err)
			_, err = file.WriteString("torn")
			check(t, err)
			check(t, file.Close())
		}
		size, err := s.Append(t.Context(), slot, event("Acme", grant.EventRefreshed, n))
		check(t, err)
		if info, err := os.Stat(filepath.Join(dir, slot+".log")); err != nil || int64(size) != info.Size() {
			t.Errorf("%d bytes, the file has %d, %v", size, info.Size(), err)
		}
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
	b, path := open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, ending := range []string{".json", ".log"} {
			check(t, os.WriteFile(path("Acme", ending), data, 0o600))
		}
		companies, problems, err := b.List(t.Context(), "")
		if err != nil || len(companies)+len(problems) != 1 {
			t.Errorf("%v, %v, %v", companies, problems, err)
		}
		for _, c := range companies {
			if grant.Fold(c.Name) != "acme" {
				t.Errorf("%q is in Acme's file", c.Name)
			}
		}
		events, err := b.History(t.Context(), "Acme")
		check(t, err)
		for _, e := range events {
			if err := grant.CheckCompany(e.Company); err != nil || strings.Contains(e.Application+e.Environment, "/") {
				t.Errorf("the history has %+v", e)
			}
		}
		if names, problems, err := b.Remembered(t.Context(), nil); err != nil || len(problems) > 0 || len(names) > 1 {
			t.Errorf("%v, %v, %v", names, problems, err)
		}
		if _, err := json.Marshal(events); err != nil {
			t.Error(err)
		}
	})
}
