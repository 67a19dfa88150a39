package vault_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

func TestRecordComesBackAsItWas(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := grantOf(acme, keyA, 7)
	g.JournalRecipient, g.NoRefreshToken = "age1xyz", true
	mustPut(t, v, g, 0)
	noted := g.Record
	noted.Void, noted.LastError = true, &grant.LastError{Code: "10400", Message: "Invalid \"Refresh\" Token <é>", Time: noon}
	check(t, v.Note(noted))

	for _, v := range []*vault.Vault{v, w.open()} {
		record, err := v.Record(acme)
		check(t, err)
		sameJSON(t, record, noted)
		sameJSON(t, w.list(v), []grant.Record{noted})
	}
}

// status is run by prompts and monitors: it must not have anybody asked to
// unlock a keychain.
func TestRecordsAreReadWithoutTheHome(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.open(), grantOf(acme, keyA, 1))
	home := locked(w.home())
	v := w.open(home)
	if records := w.list(v); len(records) != 1 {
		t.Errorf("there are %d records", len(records))
	}
	if _, err := v.Record(acme); err != nil {
		t.Error(err)
	}
	if _, err := v.Record(apex); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("a grant that there is not: %v", err)
	}
	if home.calls.Load() != 0 {
		t.Error("the home was opened")
	}
}

func TestListOfNothing(t *testing.T) {
	w := newWorld(t)
	if records := w.list(w.open()); len(records) != 0 {
		t.Errorf("there are %v", records)
	}
	if _, err := os.Stat(w.dir); !os.IsNotExist(err) {
		t.Errorf("looking made the directory: %v", err)
	}
}

func TestListOfOneCompany(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	cafe := grant.ID{Company: "Caf\u00e9", Application: "intelligent-rating", Environment: "production"}
	other := grant.ID{Company: "Cafe", Application: "intelligent-rating", Environment: "production"}
	second := cafe
	second.Environment = "cie"
	for key, id := range map[string]grant.ID{keyA: cafe, keyB: second, keyC: other} {
		mustPut(t, v, grantOf(id, key, 1), 0)
	}
	w.write(w.recordPath(apex), []byte("damaged"))
	w.write(w.journalPath(apex, keyC), []byte("damaged"))
	for _, name := range []string{"Caf\u00e9", "CAFE\u0301", " cafe\u0301 "} {
		records, problems, err := v.List(name)
		if err != nil || len(problems) != 0 {
			t.Errorf("List(%+q): %v, %v", name, problems, err)
		}
		var keys []string
		for _, r := range records {
			keys = append(keys, r.TokenVaultKey)
		}
		slices.Sort(keys)
		if !slices.Equal(keys, []string{keyA, keyB}) {
			t.Errorf("List(%+q) has %q", name, keys)
		}
		if record, err := v.Record(grant.ID{Company: name, Application: cafe.Application, Environment: cafe.Environment}); err != nil || record.TokenVaultKey != keyA {
			t.Errorf("Record of %+q: %q, %v", name, record.TokenVaultKey, err)
		}
	}
}

// One damaged file must not take the other companies down with it, and nothing
// in it may be thrown away.
func TestDamagedRecordIsSetAside(t *testing.T) {
	w := newWorld(t)
	mustPut(t, w.open(), grantOf(acme, keyA, 1), 0)
	whole := string(w.read(w.recordPath(acme)))
	for name, damaged := range map[string]string{
		"empty":                  "",
		"cut short":              whole[:len(whole)/2],
		"zeroes":                 strings.Repeat("\x00", len(whole)),
		"not JSON":               "company: Acme",
		"two records":            whole + whole,
		"null":                   "null",
		"a list":                 "[" + whole + "]",
		"a number for a name":    strings.Replace(whole, `"Acme Corp"`, "42", 1),
		"a time that is none":    strings.Replace(whole, `"2026-11-21`, `"yesterday`, 1),
		"another company's":      strings.Replace(whole, "Acme Corp", "Acme Co", 1),
		"another application's":  strings.Replace(whole, "intelligent-rating", "batch-suite", 1),
		"another environment's":  strings.Replace(whole, `"production"`, `"cie"`, 1),
		"without a key":          strings.Replace(whole, keyA, "", 1),
		"without a version":      strings.Replace(whole, `"version": 1`, `"version": 0`, 1),
		"a version below 0":      strings.Replace(whole, `"version": 1`, `"version": -1`, 1),
		"a company not in UTF-8": strings.Replace(whole, "Acme Corp", "Acme\xffCorp", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if damaged == whole {
				t.Fatal("nothing was damaged")
			}
			w := newWorld(t)
			v := w.open()
			mustPut(t, v, grantOf(apex, keyB, 1), 0)
			path := w.recordPath(acme)
			for n := 1; n <= 3; n++ { // it may happen again, and nothing set aside is lost
				content := []byte(damaged + strings.Repeat(" ", n))
				w.write(path, content)
				records, problems, err := v.List("")
				var damage *vault.DamagedError
				if err != nil || len(problems) != 1 || !errors.As(problems[0], &damage) {
					t.Fatalf("List: %v, %v", problems, err)
				}
				if len(records) != 1 || records[0].ID != apex {
					t.Errorf("the others are %v", records)
				}
				if damage.Journal || !strings.HasPrefix(damage.Path, path) || !strings.HasSuffix(damage.Path, ".damaged") || !strings.Contains(damage.Error(), damage.Path) {
					t.Errorf("it says %v", damage)
				}
				if !bytes.Equal(w.read(damage.Path), content) {
					t.Error("what was set aside is not what there was")
				}
				if _, err := v.Record(acme); !errors.Is(err, grant.ErrNoGrant) {
					t.Errorf("afterwards: %v", err)
				}
				// It is told again until the company has a record again.
				records, problems, err = v.List("")
				if err != nil || len(records) != 1 || len(problems) != n {
					t.Errorf("afterwards: %v, %v, %v", records, problems, err)
				}
				for _, problem := range problems {
					if !errors.As(problem, &damage) || !strings.HasPrefix(damage.Path, path+".") {
						t.Errorf("afterwards: %v", problem)
					}
				}
			}
			if got := w.files("records"); len(got) != 4 {
				t.Errorf("there are %q", got)
			}
			// The company can be authorized again.
			mustPut(t, v, grantOf(acme, keyC, 1), 0)
			wantWhole(t, mustGet(t, v, acme))
			w.list(v)
		})
	}
}

func TestDamagedRecordIsToldToWhoAsksForIt(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *vault.Vault) error{
		"Record": func(_ *testing.T, v *vault.Vault) error { _, err := v.Record(acme); return err },
		"Get":    func(t *testing.T, v *vault.Vault) error { _, err := v.Get(t.Context(), acme); return err },
		"Put":    func(t *testing.T, v *vault.Vault) error { return v.Put(t.Context(), grantOf(acme, keyA, 1), 0) },
		"Delete": func(t *testing.T, v *vault.Vault) error { return v.Delete(t.Context(), acme) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.write(w.recordPath(acme), []byte("damaged"))
			var damage *vault.DamagedError
			if err := ask(t, w.open()); !errors.As(err, &damage) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What a newer upsauth wrote is not for this one to judge, least of all to call
// damaged: it may well look different.
func TestNewerFormatIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	g := authorize(t, w.open(), grantOf(acme, keyA, 1))
	j := refreshing(g)
	check(t, w.open().Begin(t.Context(), &j))
	newer := func(text string) []byte { return []byte(strings.Replace(text, `"version":`, `"version":9, "was":`, 1)) }

	t.Run("record", func(t *testing.T) {
		for name, change := range map[string]func(string) string{
			"with more in it":     func(s string) string { return strings.Replace(s, "{", `{"more": true,`, 1) },
			"with other types":    func(s string) string { return strings.Replace(s, `"Acme Corp"`, `["Acme Corp"]`, 1) },
			"with other times":    func(s string) string { return strings.Replace(s, `"2026-11-21`, `"week 47 of 2026`, 1) },
			"of another slot":     func(s string) string { return strings.Replace(s, "Acme Corp", "Acme", 1) },
			"the version at last": func(s string) string { return strings.TrimSuffix(strings.TrimSpace(s), "}") + `, "version": 2}` },
		} {
			t.Run(name, func(t *testing.T) {
				w := w.clone()
				path := w.recordPath(acme)
				content := []byte(change(strings.Replace(string(w.read(path)), `"version": 1`, `"version": 2`, 1)))
				w.write(path, content)
				v := w.open()
				records, problems, err := v.List("")
				var e *vault.NewerError
				if err != nil || len(problems) != 1 || !errors.As(problems[0], &e) || e.Version != 2 || e.Path != path || len(records) != 0 {
					t.Errorf("List: %v, %v, %v", records, problems, err)
				}
				_, recordErr := v.Record(acme)
				_, getErr := v.Get(t.Context(), acme)
				for _, err := range []error{recordErr, getErr, v.Put(t.Context(), grantOf(acme, keyB, 1), 0), v.Delete(t.Context(), acme)} {
					if !errors.As(err, &e) {
						t.Errorf("got %v", err)
					}
				}
				check(t, finishRemovals(t.Context(), v))
				if !bytes.Equal(w.read(path), content) {
					t.Error("it was changed")
				}
			})
		}
	})
	t.Run("journal", func(t *testing.T) {
		w := w.clone()
		path := w.journalPath(acme, keyA)
		content := newer(string(w.read(path)))
		w.write(path, content)
		v := w.open()
		var e *vault.NewerError
		if _, err := v.Journals(acme); !errors.As(err, &e) {
			t.Errorf("Journals: %v", err)
		}
		if _, problems, err := v.List(""); err != nil || len(problems) != 1 || !errors.As(problems[0], &e) {
			t.Errorf("List: %v, %v", problems, err)
		}
		if !bytes.Equal(w.read(path), content) {
			t.Error("it was changed")
		}
	})
	t.Run("items", func(t *testing.T) {
		w := w.clone()
		v, home := w.open(), w.home()
		check(t, v.PutSecret(t.Context(), "file", "app/production/x", "client secret"))
		for account, ask := range map[string]func() error{
			keyA:               func() error { _, err := v.Get(t.Context(), acme); return err },
			keyA + "/journal":  func() error { _, err := v.Answer(t.Context(), j); return err },
			"app/production/x": func() error { _, err := v.Secret(t.Context(), "file", "app/production/x"); return err },
		} {
			item, err := home.Get(t.Context(), account)
			check(t, err)
			changed := newer(string(item))
			check(t, home.Put(t.Context(), account, 1, changed))
			var e *vault.NewerError
			if err := ask(); !errors.As(err, &e) || e.Version != 9 || !strings.Contains(e.Path, account) {
				t.Errorf("%s: %v", account, err)
			}
			if left, err := home.Get(t.Context(), account); err != nil || !bytes.Equal(left, changed) {
				t.Errorf("%s was changed, %v", account, err)
			}
		}
	})
}

// A rename writes the new name, with the old one beside it, and then moves the
// file: wherever it is cut off, the slot says which of the two counts.
func TestRenameThatWasCutOff(t *testing.T) {
	renamed := grant.ID{Company: "Acme Holding", Application: acme.Application, Environment: acme.Environment}
	for _, test := range []struct {
		name string
		slot grant.ID // where the file lies
		want grant.ID
	}{
		{"before the file was moved", acme, acme},
		{"after the file was moved", renamed, renamed},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			mustPut(t, w.open(), grantOf(acme, keyA, 1), 0)
			text := strings.Replace(string(w.read(w.recordPath(acme))), `"Acme Corp"`, `"Acme Holding", "was": "Acme Corp"`, 1)
			check(t, os.Remove(w.recordPath(acme)))
			w.write(w.recordPath(test.slot), []byte(text))

			v := w.open()
			records := w.list(v)
			if len(records) != 1 || records[0].ID != test.want {
				t.Fatalf("there are %v, want %v", records, test.want)
			}
			// The item still says the old name; the record's counts.
			if g := mustGet(t, v, test.want); g.ID != test.want {
				t.Errorf("the grant is %v's", g.ID)
			}
			other := map[grant.ID]grant.ID{acme: renamed, renamed: acme}[test.want]
			if _, err := v.Record(other); !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("under the other name: %v", err)
			}
			// The next refresh settles the name.
			g := mustGet(t, v, test.want)
			next := grantOf(g.ID, keyA, 2)
			mustPut(t, v, next, 1)
			if text := string(w.read(w.recordPath(test.want))); strings.Contains(text, `"was"`) || !strings.Contains(text, test.want.Company) {
				t.Errorf("the record says %s", text)
			}
			check(t, v.Delete(t.Context(), test.want))
			w.wantNothing()
		})
	}
}

func TestWhatIsNoRecordIsPassedOver(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	mustPut(t, v, grantOf(acme, keyA, 1), 0)
	records := filepath.Dir(w.recordPath(acme))
	for _, name := range []string{"." + acme.Slot() + ".json123", "." + apex.Slot() + ".json", acme.Slot() + ".json.damaged", "README", "x.json.bak"} {
		w.write(filepath.Join(records, name), []byte("no record"))
		w.write(filepath.Join(w.dir, "journals", name), []byte("no journal"))
	}
	if list := w.list(v); len(list) != 1 {
		t.Errorf("there are %v", list)
	}
	if journals, err := v.Journals(acme); err != nil || len(journals) != 0 {
		t.Errorf("the journals are %v, %v", journals, err)
	}
	check(t, finishRemovals(t.Context(), v))
	// What a write left that was cut off is nothing, and goes.
	if got := w.files("records"); len(got) != 5 || slices.Contains(got, "."+acme.Slot()+".json123") {
		t.Errorf("there are %q", got)
	}
}

// FuzzRecord has whatever a disk may make of a record read: it never ends the
// program, harms another company, or throws away what was in it.
func FuzzRecord(f *testing.F) {
	w := newWorld(f)
	v := w.open(locked(w.home()))
	open := w.open()
	mustPut(f, open, grantOf(apex, keyB, 1), 0)
	mustPut(f, open, grantOf(acme, keyA, 1), 0)
	path := w.recordPath(acme)
	whole := w.read(path)
	for _, seed := range []string{
		string(whole), "", "{}", "null", "[]", `{"version":2}`, `{"version":1e9}`, `{"version":"1"}`, `{"version":-1}`,
		strings.Replace(string(whole), `"vault"`, `"removing": true, "vault"`, 1),
		strings.Replace(string(whole), `"vault"`, `"was": "Acme Corp", "superseded": [{}], "vault"`, 1),
		fmt.Sprintf(`{"version":1,"company":"acme corp","application":%q,"environment":%q,"token_vault_key":"x","issued":"9999-12-31T23:59:59Z"}`, acme.Application, acme.Environment),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		w.t = t
		w.write(path, content)
		records, problems, err := v.List("")
		if err != nil {
			t.Fatal(err)
		}
		others := 0
		for _, r := range records {
			if r.ID == apex && r.TokenVaultKey == keyB {
				others++
			} else if r.Slot() != acme.Slot() || r.TokenVaultKey == "" {
				t.Errorf("a record came of it that has no place here: %+v", r)
			}
		}
		if others != 1 {
			t.Errorf("the other company is there %d times", others)
		}
		_, _ = v.Record(acme)

		// It is where it was, or beside it.
		left, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			var damage *vault.DamagedError
			if len(problems) != 1 || !errors.As(problems[0], &damage) {
				t.Fatalf("it is gone, and the problems are %v", problems)
			}
			left = w.read(damage.Path)
			if err := os.Remove(damage.Path); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(left, content) {
			t.Errorf("%q was made of %q", left, content)
		}
	})
}

// Five thousand companies, among them names that file systems reserve or that
// differ only where some of them see no difference.
func TestManyCompanies(t *testing.T) {
	w := newWorld(t)
	names := []string{"CON", "nul.txt", "..", "a/b", "a:b", "Ａcme", "Straße", "Strasse Nord", "İzmir", "ızmir", "Café", "Cafe", "名前", "🏳️‍🌈", "a\u200bb", "acme.", "acme .", strings.Repeat("é", 200)}
	for n := range 5000 {
		names = append(names, fmt.Sprintf("Company no. %d", n))
	}
	for _, name := range names {
		id := acme
		id.Company = name
		text, err := json.Marshal(grantOf(id, keyA, 1).Record)
		check(t, err)
		w.write(w.recordPath(id), text)
	}
	v := w.open()
	if got := w.list(v); len(got) != len(names) {
		t.Errorf("%d records of %d companies", len(got), len(names))
	}
	for _, name := range names[:30] {
		records, problems, err := v.List(strings.ToUpper(name))
		if name == "ızmir" || name == "İzmir" {
			records, problems, err = v.List(name) // in upper case they are others
		}
		if err != nil || len(problems) != 0 || len(records) != 1 || records[0].Company != name {
			t.Errorf("%q: %+v, %v, %v", name, records, problems, err)
		}
	}
}
