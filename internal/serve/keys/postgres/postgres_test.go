package postgres

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

// The rules of keys are tested over this store with all others, in keys.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func entry(name string, sum byte) keys.Entry {
	return keys.Entry{Digest: keys.Digest{sum}, Key: keys.Key{Name: name, Added: noon, Scope: keys.Scope{Rights: []keys.Right{keys.Token}}}}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeysAreKeptAsTheyAre(t *testing.T) {
	s, ctx := New(tablestest.New(t).Open(), tablestest.Code), t.Context()
	full := entry("Web-shop.1", 1)
	full.Scope = keys.Scope{Companies: []string{"a", "b"}, Application: "rating", Environment: "cie", Rights: keys.Rights()}
	check(t, s.Add(ctx, full))
	check(t, s.Use(ctx, map[keys.Digest]time.Time{full.Digest: noon.Add(time.Second), {9}: noon}))
	check(t, s.Use(ctx, map[keys.Digest]time.Time{full.Digest: noon})) // by a host that is late
	full.Used = noon.Add(time.Second)
	got, err := s.Find(ctx, full.Digest)
	if err != nil || !reflect.DeepEqual(got, full) {
		t.Errorf("%+v, %v\nis not %+v", got, err, full)
	}
	if list, err := s.List(ctx); err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], full) {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := s.Find(ctx, keys.Digest{2}); !errors.Is(err, keys.ErrWrong) {
		t.Errorf("another key: %v", err)
	}
}

// Of two hosts that give a name, or remove a key, at once, one is told.
func TestOneOfTwoIsTold(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	stores := []*Store{New(tables.Open(), tablestest.Code), New(tables.Open(), tablestest.Code)}
	oneOfTwo := func(what string, told error, do func(host int) error) {
		t.Helper()
		var both sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			both.Go(func() { errs[i] = do(i) })
		}
		both.Wait()
		if errs[0] == nil {
			errs[0], errs[1] = errs[1], nil
		} else if errs[1] != nil {
			t.Fatalf("%s: %v", what, errs)
		}
		if reflect.TypeOf(errs[0]) != reflect.TypeOf(told) {
			t.Fatalf("%s: %v", what, errs)
		}
	}
	for n := range 20 {
		names := []string{fmt.Sprint("key-", n), fmt.Sprint("KEY-", n)}
		oneOfTwo("add", &keys.ExistsError{}, func(host int) error { return stores[host].Add(ctx, entry(names[host], byte(2*n+host))) })
		oneOfTwo("remove", &keys.NotFoundError{}, func(host int) error { return stores[host].Remove(ctx, names[host]) })
	}
	// Hosts that note the same uses do not wait for each other for ever.
	used := map[keys.Digest]time.Time{}
	for n := range 50 {
		e := entry(fmt.Sprint("key-", n), byte(n))
		check(t, stores[0].Add(ctx, e))
		used[e.Digest] = noon
	}
	var all sync.WaitGroup
	for _, s := range stores {
		all.Go(func() {
			for n := range 20 {
				news := map[keys.Digest]time.Time{}
				for sum := range used {
					news[sum] = noon.Add(time.Duration(n) * time.Second)
				}
				if err := s.Use(ctx, news); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// A key that can't be read is not a wrong one, and harms no other; nobody takes it for one
// without limits.
func TestKeyThatCantBeRead(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	s := New(tables.Open(), tablestest.Code)
	good, bad := entry("good", 1), entry("bad", 2)
	check(t, s.Add(ctx, good))
	check(t, s.Add(ctx, bad))
	text := tables.SQL("SELECT key::text FROM upsauth.keys WHERE name = 'bad'")[0][0]
	other := tables.SQL("SELECT key::text FROM upsauth.keys WHERE name = 'good'")[0][0]
	for name, damaged := range map[string]string{
		"empty": `{}`, "null": `null`, "newer": strings.Replace(text, `"version":1`, `"version":2`, 1),
		"a limit more":    strings.Replace(text, `"version":1`, `"version":1,"until":1`, 1),
		"a limit is null": strings.Replace(text, `"version":1`, `"version":1,"application":null`, 1),
		"a limit twice":   strings.Replace(text, `"version":1`, `"version":1,"application":"a","application":"b"`, 1),
		"no rights":       strings.Replace(text, `["token"]`, `[]`, 1),
		"another key's":   other,
	} {
		if damaged == text {
			t.Fatalf("%s: %s", name, text)
		}
		tables.SQL("UPDATE upsauth.keys SET key = '" + damaged + "' WHERE name = 'bad'")
		var file *keys.FileError
		if _, err := s.Find(ctx, bad.Digest); !errors.As(err, &file) || file.Damaged == (name == "newer") || !strings.Contains(err.Error(), "bad") {
			t.Errorf("%s: found %v", name, err)
		}
		if list, err := s.List(ctx); !errors.As(err, &file) {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
		if err := s.Add(ctx, entry("BAD", 3)); !errors.As(err, new(*keys.ExistsError)) {
			t.Errorf("%s: its name is free: %v", name, err)
		}
		if e, err := s.Find(ctx, good.Digest); err != nil || e.Name != "good" {
			t.Errorf("%s: it harms another key: %v", name, err)
		}
	}
	// Not even with a text that is right, but nobody's.
	tables.SQL("UPDATE upsauth.keys SET key = '" + strings.Replace(text, `"rights":["token"]`, `"rights":["token","refresh"]`, 1) + "' WHERE name = 'bad'")
	var file *keys.FileError
	if e, err := s.Find(ctx, bad.Digest); !errors.As(err, &file) || !strings.Contains(err.Error(), "not what upsauth put there") {
		t.Errorf("without its code: %+v, %v", e, err)
	}
	check(t, s.Remove(ctx, "bad"))
	if list, err := s.List(ctx); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// A database that is away is no list without keys, and makes no key a wrong one.
func TestDatabaseThatIsAway(t *testing.T) {
	s, ctx := New(tablestest.New(t).Away(), tablestest.Code), t.Context()
	_, findErr := s.Find(ctx, keys.Digest{1})
	_, listErr := s.List(ctx)
	for what, err := range map[string]error{
		"find": findErr, "list": listErr, "add": s.Add(ctx, entry("a", 1)), "remove": s.Remove(ctx, "a"),
		"use": s.Use(ctx, map[keys.Digest]time.Time{{1}: noon}),
	} {
		var away *postgres.Error
		if !errors.As(err, &away) || away.Reason != postgres.Away {
			t.Errorf("%s: %v", what, err)
		}
	}
}
