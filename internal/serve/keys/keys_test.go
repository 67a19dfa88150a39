package keys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/safefile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)

// store is a process with a clock that the test sets ahead.
type store struct {
	*Store
	ahead atomic.Int64
}

func open(t *testing.T, path string) *store {
	t.Helper()
	s := &store{}
	s.Store = Open(path, Options{
		Places: &safefile.Places{Trusted: []string{filepath.Dir(path)}},
		Now:    func() time.Time { return start.Add(time.Duration(s.ahead.Load())) },
		Log:    t.Logf,
	})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (s *store) advance(d time.Duration) { s.ahead.Add(int64(d)) }

func (s *store) add(t *testing.T, name string, scope Scope) string {
	t.Helper()
	secret, err := s.Add(t.Context(), name, scope)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestLifeOfAKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "keys.json")
	s, other := open(t, path), open(t, path)
	ctx := t.Context()
	if _, err := s.Find(ctx, "upsauth_x"); !errors.Is(err, ErrWrong) {
		t.Errorf("without keys: %v", err)
	}
	scope := Scope{Companies: []string{"id-1"}, Application: "rating", Environment: "cie", Rights: []Right{Token, Refresh}}
	secret := s.add(t, "web-shop", scope)
	if !regexp.MustCompile(`^upsauth_[a-z2-7]{52}$`).MatchString(secret) {
		t.Errorf("the key %q is not recognized as one", secret)
	}
	if again := s.add(t, "all", Scope{}); again == secret {
		t.Error("two keys are the same")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) || strings.Contains(string(text), strings.TrimPrefix(secret, prefix)) {
		t.Error("the key itself is kept")
	}
	for _, s := range []*store{s, other} {
		key, err := s.Find(ctx, secret)
		if err != nil || key.Name != "web-shop" || !slices.Equal(key.Companies, scope.Companies) || key.Application != "rating" || key.Environment != "cie" || !key.Allows(Refresh) || key.Allows(Invite) {
			t.Errorf("%+v, %v", key, err)
		}
		list, err := s.List(ctx)
		if err != nil || len(list) != 2 || list[0].Name != "all" || !slices.Equal(list[0].Rights, []Right{Token}) || list[0].Companies != nil {
			t.Errorf("%+v, %v", list, err)
		}
		for _, wrong := range []string{"", "upsauth_", secret[:len(secret)-1], secret + "a", strings.ToUpper(secret), strings.TrimPrefix(secret, prefix)} {
			if _, err := s.Find(ctx, wrong); !errors.Is(err, ErrWrong) {
				t.Errorf("%q: %v", wrong, err)
			}
		}
	}
	if _, err := other.Add(ctx, "WEB-shop", Scope{}); !errors.As(err, new(*ExistsError)) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := other.Remove(ctx, "web-shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(ctx, secret); !errors.Is(err, ErrWrong) {
		t.Errorf("another process has removed it: %v", err)
	}
	if err := s.Remove(ctx, "web-shop"); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("removed twice: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestNamesAndScopes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.json"))
	for _, name := range []string{"", " ", "a b", "-a", "a/b", "a\n", "é", strings.Repeat("a", 65)} {
		if _, err := s.Add(t.Context(), name, Scope{}); !errors.As(err, new(*NameError)) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, scope := range []Scope{
		{Companies: []string{}}, {Companies: []string{""}}, {Application: "A"}, {Environment: "a/b"},
		{Rights: []Right{"all"}}, {Rights: []Right{Token, Token}},
	} {
		if _, err := s.Add(t.Context(), "a", scope); !errors.As(err, new(*ScopeError)) {
			t.Errorf("%+v: %v", scope, err)
		}
	}
	if rights, err := ParseRights("token, refresh"); err != nil || !slices.Equal(rights, []Right{Token, Refresh}) {
		t.Errorf("%v, %v", rights, err)
	}
	for _, text := range []string{"", "token,", "token,token", "Token", "root"} {
		if rights, err := ParseRights(text); err == nil {
			t.Errorf("%q: %v", text, rights)
		}
	}
}

// When a key was used is written once a minute, at the end, and by no request.
func TestWhenAKeyWasUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	s, reader := open(t, path), open(t, path)
	secret := s.add(t, "a", Scope{})
	used := func(s *store) time.Time {
		t.Helper()
		list, err := s.List(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		return list[0].Used
	}
	find := func() {
		t.Helper()
		if _, err := s.Find(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	if !used(s).IsZero() {
		t.Error("it was never used")
	}
	find()
	s.writers.Wait()
	if got := used(reader); !got.Equal(start) {
		t.Errorf("the first use: %v", got)
	}
	s.advance(30 * time.Second)
	find()
	s.writers.Wait()
	if got := used(reader); !got.Equal(start) {
		t.Errorf("written again after 30 s: %v", got)
	}
	if got := used(s); !got.Equal(start.Add(30 * time.Second)) {
		t.Errorf("this process knows better: %v", got)
	}
	s.advance(31 * time.Second)
	find()
	s.writers.Wait()
	if got := used(reader); !got.Equal(start.Add(61 * time.Second)) {
		t.Errorf("after a minute: %v", got)
	}
	s.advance(time.Second)
	find()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := used(reader); !got.Equal(start.Add(62 * time.Second)) {
		t.Errorf("at the end: %v", got)
	}
}

// Two processes that change the file at once lose nothing of each other.
func TestTwoProcessesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	var all sync.WaitGroup
	for p := range 2 {
		s := open(t, path)
		for i := range 20 {
			all.Go(func() {
				secret, err := s.Add(t.Context(), fmt.Sprintf("key-%d-%d", p, i), Scope{})
				if err == nil {
					_, err = s.Find(t.Context(), secret)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if list, err := open(t, path).List(t.Context()); err != nil || len(list) != 40 {
		t.Errorf("%d keys, %v", len(list), err)
	}
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
	secret := s.add(t, "a", Scope{})
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

// A request that is over asks for nothing.
func TestCanceled(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.json"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Find(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := s.Add(ctx, "x", Scope{}); !errors.Is(err, context.Canceled) {
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
			if len(e.Rights) == 0 || e.Name == "" || e.Companies != nil && len(e.Companies) == 0 || e.digest == (digest{}) && !strings.Contains(string(text), strings.Repeat("0", 64)) {
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
