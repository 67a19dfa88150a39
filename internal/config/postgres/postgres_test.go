package postgres

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

// What a session does with applications is tested over this register with all others, in
// session.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func registered(name, environment string) config.Registration {
	return config.Registration{Name: name, Environment: environment, ClientID: "id of " + name, Home: config.HomeShared}
}

func update(t *testing.T, r *Register, change func(*config.Applications)) {
	t.Helper()
	check(t, r.Edit(t.Context(), func(a *config.Applications, save func() error) error {
		change(a)
		return save()
	}))
}

func load(t *testing.T, r *Register) config.Applications {
	t.Helper()
	a, err := r.Applications(t.Context())
	check(t, err)
	return a
}

// A field of a registration that the table had no place for would be gone after the next
// save.
func TestApplicationsComeBackAsTheyWerePut(t *testing.T) {
	tables := tablestest.New(t)
	r, other := New(tables.Open()), New(tables.Open())
	if a := load(t, r); len(a.Applications) != 0 || a.Default != nil || a.Version != 1 {
		t.Errorf("there are %+v", a)
	}
	full := registered("batch-suite", "production")
	fields := reflect.ValueOf(&full).Elem()
	for i := range fields.NumField() {
		if f := fields.Field(i); f.IsZero() && f.Kind() == reflect.Bool {
			f.SetBool(true)
		} else if f.IsZero() {
			f.SetString("größe \"\t\x00 " + fields.Type().Field(i).Name)
		}
	}
	full.RedirectURI, full.PKCE, full.LeftIn = "https://x.example/cb?a=%20&b=%23", "on", "file"
	plain, last := registered("intelligent-rating", "production"), registered("zz", "cie")
	update(t, r, func(a *config.Applications) {
		for _, r := range []config.Registration{plain, full, last} {
			a.Put(r)
		}
		a.Default = &config.Default{Application: "zz", Environment: "cie"}
	})
	a := load(t, other)
	if want := []config.Registration{last, full, plain}; !reflect.DeepEqual(a.Applications, want) {
		t.Errorf("the applications are\n%+v, want\n%+v", a.Applications, want)
	}
	if a.Default == nil || *a.Default != (config.Default{Application: "zz", Environment: "cie"}) {
		t.Errorf("the default is %+v", a.Default)
	}
	update(t, other, func(a *config.Applications) { a.Remove("zz", "cie") })
	if a := load(t, r); len(a.Applications) != 2 || a.Default != nil {
		t.Errorf("after a removal: %+v", a)
	}
	update(t, r, func(a *config.Applications) {
		a.Default = &config.Default{Application: "batch-suite", Environment: "production"}
	})
	if a := load(t, r); a.Default == nil || a.Default.Application != "batch-suite" {
		t.Errorf("the default is %+v", a.Default)
	}
}

// A save writes what was changed, and no row besides.
func TestSaveWritesWhatWasChanged(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	r := New(tables.Open())
	update(t, r, func(a *config.Applications) {
		for n := range 3 {
			a.Put(registered(fmt.Sprint("a", n), "cie"))
		}
	})
	versions := func() []string {
		var all []string
		for _, row := range tables.SQL("SELECT version FROM upsauth.applications ORDER BY name") {
			all = append(all, row[0])
		}
		return all
	}
	before, revision := versions(), load(t, r).Revision
	update(t, r, func(*config.Applications) {})
	if !slices.Equal(versions(), before) || load(t, r).Revision != revision {
		t.Error("a change of nothing changed something")
	}
	check(t, r.Edit(ctx, func(a *config.Applications, save func() error) error {
		for _, client := range []string{"first", "second", "third"} {
			r := a.Find("a1", "cie")[0]
			r.ClientID = client
			a.Put(r)
			if err := save(); err != nil {
				return err
			}
			if now := load(t, New(tables.Open())); now.Revision != a.Revision || now.Find("a1", "cie")[0].ClientID != client {
				t.Errorf("saved as %s: %+v", a.Revision, now)
			}
		}
		return nil
	}))
	if after := versions(); after[0] != before[0] || after[1] == before[1] || after[2] != before[2] {
		t.Errorf("the versions were %v and are %v", before, after)
	}
	no := errors.New("no")
	if err := r.Edit(ctx, func(a *config.Applications, save func() error) error { a.Remove("a0", "cie"); return no }); !errors.Is(err, no) || len(load(t, r).Applications) != 3 {
		t.Errorf("an edit that failed: %v", err)
	}
	bad := registered("bad", "cie")
	bad.PKCE = "maybe"
	for _, fresh := range []config.Registration{bad, registered("a0", "cie")} {
		err := r.Edit(ctx, func(a *config.Applications, save func() error) error {
			a.Applications = append(a.Applications, fresh)
			return save()
		})
		if !errors.As(err, new(*config.Error)) {
			t.Errorf("%+v: %v", fresh, err)
		}
	}
}

// Of two hosts that change what both have read, one is told and has changed nothing.
func TestOneOfTwoIsToldOfTheConflict(t *testing.T) {
	tables := tablestest.New(t)
	registers := []*Register{New(tables.Open()), New(tables.Open())}
	for n := range 20 {
		for what, change := range map[string]func(host int, a *config.Applications){
			"the same application": func(host int, a *config.Applications) {
				r := registered("same", "cie")
				r.ClientID = fmt.Sprint(n, " of ", host)
				a.Put(r)
			},
			"the default": func(host int, a *config.Applications) {
				a.Default = &config.Default{Application: fmt.Sprint("d", n, "-", host), Environment: "cie"}
			},
			"two applications": func(host int, a *config.Applications) { a.Put(registered(fmt.Sprint("a", n, "-", host), "cie")) },
		} {
			var read, done sync.WaitGroup
			errs := make([]error, 2)
			saved := make([]config.Applications, 2)
			read.Add(2)
			for i, r := range registers {
				done.Go(func() {
					errs[i] = r.Edit(t.Context(), func(a *config.Applications, save func() error) error {
						read.Done()
						read.Wait()
						change(i, a)
						err := save()
						saved[i] = *a
						return err
					})
				})
			}
			done.Wait()
			winner := 0
			if errs[0] != nil {
				winner = 1
			}
			if errs[winner] != nil || !errors.As(errs[1-winner], new(*config.ConflictError)) {
				t.Fatalf("%s: %v", what, errs)
			}
			now, err := registers[0].Applications(t.Context())
			check(t, err)
			if now.Revision != saved[winner].Revision || len(now.Applications) != len(saved[winner].Applications) || !reflect.DeepEqual(now.Default, saved[winner].Default) {
				t.Errorf("%s: %+v was saved, and there is %+v", what, saved[winner], now)
			}
		}
	}
}

// Whoever looks for an application must not find none because a row can't be read.
func TestRowThatCantBeReadIsNotNothing(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	r := New(tables.Open())
	update(t, r, func(a *config.Applications) {
		a.Put(registered("good", "cie"))
		a.Default = &config.Default{Application: "good", Environment: "cie"}
	})
	const application = "UPDATE upsauth.applications SET application = '%s' WHERE name = 'good'"
	const chosen = "UPDATE upsauth.settings SET value = '%s'"
	for text, says := range map[string]string{
		fmt.Sprintf(application, `{"version":2,"client_id":["x"]}`):                         "newer upsauth (format 2, this one knows 1)",
		fmt.Sprintf(application, `[]`):                                                      "damaged",
		fmt.Sprintf(application, `{"version":1}`):                                           "not complete",
		fmt.Sprintf(application, `{"version":1,"client_id":"c","vault":"moon"}`):            "moon",
		fmt.Sprintf(application, `{"version":1,"client_id":"c","client_id":"d"}`):           "damaged",
		"UPDATE upsauth.applications SET name = 'A b' WHERE name = 'good'":                  "A b",
		fmt.Sprintf(chosen, `{"version":2}`):                                                "newer upsauth",
		fmt.Sprintf(chosen, `{"version":1,"application":"A b","environment":"cie"}`):        "A b",
		fmt.Sprintf(chosen, `{"version":1,"application":"good","environment":"../../cie"}`): "cie",
		"DELETE FROM upsauth.readings WHERE about = 'applications'":                         "readings",
	} {
		dump := tables.SQL("SELECT application::text, (SELECT value::text FROM upsauth.settings) FROM upsauth.applications")[0]
		tables.SQL(text)
		_, err := r.Applications(ctx)
		edit := r.Edit(ctx, func(*config.Applications, func() error) error {
			t.Errorf("%s: it was to be changed all the same", text)
			return nil
		})
		for what, err := range map[string]error{"read": err, "edit": edit} {
			if !errors.As(err, new(*config.Error)) && !errors.As(err, new(*postgres.Error)) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %s: %v", text, what, err)
			}
		}
		tables.SQL(fmt.Sprintf(application+"; "+chosen, dump[0], dump[1]))
		tables.SQL("UPDATE upsauth.applications SET name = 'good'; INSERT INTO upsauth.readings (about) VALUES ('applications') ON CONFLICT DO NOTHING")
		load(t, r)
	}
}

// What a newer upsauth of another host knows of an application stays when this one
// changes it.
func TestWhatOthersWroteStays(t *testing.T) {
	tables := tablestest.New(t)
	r := New(tables.Open())
	tables.SQL(`INSERT INTO upsauth.applications VALUES ('cie', 'a', 1, '{"version":1,"client_id":"c","vault":"shared","later":{"x":[1,2]}}')`)
	update(t, r, func(a *config.Applications) {
		one := a.Find("a", "cie")[0]
		one.ClientID = "d"
		a.Put(one)
	})
	if text := tables.SQL("SELECT application::text FROM upsauth.applications")[0][0]; !strings.Contains(text, `"later":{"x":[1,2]}`) || !strings.Contains(text, `"client_id":"d"`) {
		t.Errorf("it is %s", text)
	}
}

// A database that is away is no list without applications.
func TestDatabaseThatIsAway(t *testing.T) {
	tables := tablestest.New(t)
	r := New(tables.Away())
	_, readErr := r.Applications(t.Context())
	editErr := r.Edit(t.Context(), func(*config.Applications, func() error) error { t.Error("edited"); return nil })
	for what, err := range map[string]error{"read": readErr, "edit": editErr} {
		var away *postgres.Error
		if !errors.As(err, &away) || away.Reason != postgres.Away {
			t.Errorf("%s: %v", what, err)
		}
	}
	here := New(tables.Open())
	err := here.Edit(t.Context(), func(a *config.Applications, save func() error) error {
		a.Put(registered("a", "cie"))
		here.db = tables.Away()
		return save()
	})
	var away *postgres.Error
	if !errors.As(err, &away) || away.Reason != postgres.Away {
		t.Errorf("save: %v", err)
	}
}
