package keys

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/safefile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)

func open(t *testing.T, path string) *Book {
	t.Helper()
	b := Open(path, Options{
		Places: &safefile.Places{Trusted: []string{filepath.Dir(path)}},
		Now:    func() time.Time { return start },
		Log:    t.Logf,
	})
	t.Cleanup(func() { _ = b.Close() })
	return b
}

const (
	sum1 = "0000000000000000000000000000000000000000000000000000000000000001"
	sum2 = "0000000000000000000000000000000000000000000000000000000000000002"
)

// What can't be understood as a whole is never taken for no keys, or for keys without
// limits, and is left alone.
func TestDamagedFile(t *testing.T) {
	entry := func(more string) string {
		return `{"version":1,"keys":[{"name":"a","sha256":"` + sum1 + `","added":"2026-11-21T16:05:03Z","rights":["token"]` + more + `}]}`
	}
	if _, err := parse([]byte(entry(""))); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":                 "",
		"no JSON":               "keys",
		"cut off":               entry("")[:60],
		"something behind":      entry("") + "{}",
		"another list":          `[]`,
		"null":                  `null`,
		"no list":               `{"version":1}`,
		"no version":            `{"keys":[]}`,
		"newer":                 `{"version":2,"keys":[]}`,
		"a member more":         `{"version":1,"keys":[],"more":1}`,
		"a limit more":          entry(`,"until":"2026-11-22T00:00:00Z"`),
		"companies null":        entry(`,"companies":null`),
		"no companies":          entry(`,"companies":[]`),
		"a company of no name":  entry(`,"companies":[""]`),
		"companies as a text":   entry(`,"companies":"x"`),
		"application null":      entry(`,"application":null`),
		"no application's name": entry(`,"application":"A B"`),
		"a member twice":        entry(`,"application":"a","application":"b"`),
		"another case":          entry(`,"Companies":["x"]`),
		"no rights":             strings.Replace(entry(""), `["token"]`, `[]`, 1),
		"a right unknown":       strings.Replace(entry(""), `"token"`, `"root"`, 1),
		"no digest":             strings.Replace(entry(""), sum1, "01", 1),
		"no name":               strings.Replace(entry(""), `"name":"a"`, `"name":""`, 1),
		"a name twice":          `{"version":1,"keys":[` + strings.Join([]string{entry("")[21 : len(entry(""))-2], strings.Replace(strings.Replace(entry("")[21:len(entry(""))-2], `"a"`, `"A"`, 1), sum1, sum2, 1)}, ",") + `]}`,
		"a digest twice":        `{"version":1,"keys":[` + strings.Join([]string{entry("")[21 : len(entry(""))-2], strings.Replace(entry("")[21:len(entry(""))-2], `"a"`, `"b"`, 1)}, ",") + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, path)
			_, found := s.Find(t.Context(), "upsauth_x")
			_, listed := s.List(t.Context())
			_, added := s.Add(t.Context(), "b", Scope{})
			for what, err := range map[string]error{"find": found, "list": listed, "add": added, "remove": s.Remove(t.Context(), "a")} {
				if !errors.As(err, new(*FileError)) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != text {
				t.Errorf("it was changed: %q, %v", now, err)
			}
		})
	}
}

// A store that has read keys goes on with none of them where the file is damaged since,
// and with those that are there once it is mended.
func TestFileThatIsDamagedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	s := open(t, path)
	secret, err := s.Add(t.Context(), "a", Scope{})
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(t.Context(), secret); !errors.As(err, new(*FileError)) {
			t.Errorf("%v", err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context(), secret); err != nil {
		t.Error(err)
	}
}

// Whatever is in the file: it is refused, or it is read so that it is written and read
// again as the same keys.
func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"keys":[{"name":"a","sha256":"` + sum1 + `","added":"2026-11-21T16:05:03Z","rights":["token"]}]}`))
	f.Add([]byte(`{"version":1,"keys":[{"name":"a","sha256":"` + sum2 + `","added":"2026-11-21T16:05:03Z","companies":["x"],"application":"a","environment":"e","rights":["token","invite"],"used":"2026-11-21T16:05:03.5Z"}]}`))
	f.Add([]byte(`{"version":1,"keys":[]}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := parse(text)
		if err != nil {
			if entries != nil {
				t.Error("keys beside an error")
			}
			return
		}
		for _, e := range entries {
			if len(e.Rights) == 0 || e.Name == "" || e.Companies != nil && len(e.Companies) == 0 || e.digest == (Digest{}) && !strings.Contains(string(text), strings.Repeat("0", 64)) {
				t.Errorf("%+v", e)
			}
		}
		written, err := encode(slices.Clone(entries))
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(written)
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%d of %d keys, %v", len(again), len(entries), err)
		}
		for _, e := range entries {
			i := find(again, e.Name)
			if i < 0 || again[i].digest != e.digest || !slices.Equal(again[i].Companies, e.Companies) || again[i].Application != e.Application || !slices.Equal(again[i].Rights, e.Rights) {
				t.Errorf("%+v was written as another", e)
			}
		}
	})
}
