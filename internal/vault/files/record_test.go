package files_test

import (
	"bytes"
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
		"without a version":      strings.Replace(whole, `"version": 2`, `"version": 0`, 1),
		"a version below 0":      strings.Replace(whole, `"version": 2`, `"version": -1`, 1),
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
				records, problems, err := v.List(t.Context(), "")
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
				if _, err := v.Record(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
					t.Errorf("afterwards: %v", err)
				}
				// It is told again until the company has a record again.
				records, problems, err = v.List(t.Context(), "")
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
		"Record": func(_ *testing.T, v *vault.Vault) error { _, err := v.Record(t.Context(), acme); return err },
		"Get":    func(t *testing.T, v *vault.Vault) error { _, err := v.Get(t.Context(), acme); return err },
		"Put":    func(t *testing.T, v *vault.Vault) error { return v.Put(t.Context(), grantOf(acme, keyA, 1), 0, nil) },
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
	check(t, w.open().Claim(t.Context(), &j))

	t.Run("record", func(t *testing.T) {
		for name, change := range map[string]func(string) string{
			"with more in it":     func(s string) string { return strings.Replace(s, "{", `{"more": true,`, 1) },
			"with other types":    func(s string) string { return strings.Replace(s, `"Acme Corp"`, `["Acme Corp"]`, 1) },
			"with other times":    func(s string) string { return strings.Replace(s, `"2026-11-21`, `"week 47 of 2026`, 1) },
			"of another slot":     func(s string) string { return strings.Replace(s, "Acme Corp", "Acme", 1) },
			"the version at last": func(s string) string { return strings.TrimSuffix(strings.TrimSpace(s), "}") + `, "version": 3}` },
		} {
			t.Run(name, func(t *testing.T) {
				w := w.clone()
				path := w.recordPath(acme)
				content := []byte(change(strings.Replace(string(w.read(path)), `"version": 2`, `"version": 3`, 1)))
				w.write(path, content)
				v := w.open()
				records, problems, err := v.List(t.Context(), "")
				var e *vault.NewerError
				if err != nil || len(problems) != 1 || !errors.As(problems[0], &e) || e.Version != 3 || e.Path != path || len(records) != 0 {
					t.Errorf("List: %v, %v, %v", records, problems, err)
				}
				_, recordErr := v.Record(t.Context(), acme)
				_, getErr := v.Get(t.Context(), acme)
				for _, err := range []error{recordErr, getErr, v.Put(t.Context(), grantOf(acme, keyB, 1), 0, nil), v.Delete(t.Context(), acme)} {
					if !errors.As(err, &e) {
						t.Errorf("got %v", err)
					}
				}
				finishRemovals(t, v)
				if !bytes.Equal(w.read(path), content) {
					t.Error("it was changed")
				}
			})
		}
	})
	t.Run("journal", func(t *testing.T) {
		w := w.clone()
		path := w.journalPath(keyA)
		content := bytes.Replace(w.read(path), []byte(`"version":`), []byte(`"version":9, "was":`), 1)
		w.write(path, content)
		v := w.open()
		var e *vault.NewerError
		if _, err := v.Attempts(t.Context(), acme); !errors.As(err, &e) {
			t.Errorf("Journals: %v", err)
		}
		if _, problems, err := v.List(t.Context(), ""); err != nil || len(problems) != 1 || !errors.As(problems[0], &e) {
			t.Errorf("List: %v, %v", problems, err)
		}
		if !bytes.Equal(w.read(path), content) {
			t.Error("it was changed")
		}
	})
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
	if journals, err := v.Attempts(t.Context(), acme); err != nil || len(journals) != 0 {
		t.Errorf("the journals are %v, %v", journals, err)
	}
	cut := filepath.Join(w.dir, "vault", "."+keyA+".age123")
	w.write(cut, []byte("no item"))
	check(t, w.disk().SweepWrites())
	if _, err := os.Stat(cut); !os.IsNotExist(err) {
		t.Errorf("the room for an item that was never put is still there: %v", err)
	}
	// What a write left that was cut off is nothing, and goes.
	if got := w.files("records"); len(got) != 5 || slices.Contains(got, "."+acme.Slot()+".json123") {
		t.Errorf("there are %q", got)
	}
}

// FuzzRecord has whatever a disk may make of a record read: it never ends the
// program, harms another company, or throws away what was in it.
func FuzzRecord(f *testing.F) {
	w := newWorld(f)
	v := w.open()
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
		records, problems, err := v.List(t.Context(), "")
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
		_, _ = v.Record(t.Context(), acme)

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

// The item is written before the record: where a process was cut off between
// the two, the item has the refresh token that is good.
func TestItemCountsBeforeTheRecord(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	first := authorize(t, v, grantOf(acme, keyA, 1))
	noted := first.Record
	noted.Void, noted.LastError = true, &grant.LastError{Code: "10400", Message: "refused", Time: noon}
	check(t, v.Note(t.Context(), acme, func(l *grant.Local) { *l = noted.Local }))
	// What the record says of the item's own generation counts.
	if g := mustGet(t, v, acme); !g.Void || g.LastError == nil {
		t.Errorf("the note is lost: %+v", g.Record)
	}
	record := w.read(w.recordPath(acme))
	item, err := w.home().Get(t.Context(), keyA)
	check(t, err)
	second := grantOf(acme, keyA, 2)
	mustPut(t, v, second, 1)
	w.write(w.recordPath(acme), record)

	g := mustGet(t, v, acme)
	if wantWhole(t, g); g.Generation != 2 || g.Void || g.LastError != nil {
		t.Errorf("it is %+v", g.Record)
	}
	// The next refresh expects what the item says.
	if err := v.Put(t.Context(), grantOf(acme, keyA, 2), 1, nil); !errors.Is(err, grant.ErrConflict) {
		t.Errorf("got %v", err)
	}
	mustPut(t, v, grantOf(acme, keyA, 3), 2)

	// An item older than its record comes from a backup: its refresh token is
	// spent, and UPS may take its second use for theft.
	check(t, w.home().Put(t.Context(), keyA, 1, item))
	_, err = v.Get(t.Context(), acme)
	if e := wantHomeError(t, err); e.Damaged || errors.Is(err, grant.ErrNoSecrets) || !strings.Contains(e.What, "generation 1 instead of 3") {
		t.Errorf("got %+v", e)
	}
}

// Who lost the identity of the file vault can still clear it away.
func TestDeleteWithoutTheIdentity(t *testing.T) {
	w := newWorld(t)
	authorize(t, w.open(), grantOf(acme, keyA, 1))
	w.identity += ".lost"
	_, err := w.open().Get(t.Context(), acme)
	wantHomeError(t, err)
	check(t, w.open().Delete(t.Context(), acme))
	w.wantNothing()
}

// doctor says that orphans may be deleted: where a record can't be read that may be good
// for another upsauth, nobody can say what is one.
func TestNoOrphansBesideANewerRecord(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	path := w.recordPath(acme)
	w.write(path, bytes.Replace(w.read(path), []byte(`"version": 2`), []byte(`"version": 3`), 1))
	survey, err := v.Survey(t.Context(), "")
	check(t, err)
	var newer *vault.NewerError
	if orphans, err := v.Orphans(t.Context(), v.ListHomes(t.Context()), survey.Records); !errors.As(err, &newer) || len(orphans) != 0 {
		t.Errorf("%+v, %v", orphans, err)
	}
}
