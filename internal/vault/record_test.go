package vault_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
	check(t, v.Note(t.Context(), acme, func(l *grant.Local) { *l = noted.Local }))

	for _, v := range []*vault.Vault{v, w.open()} {
		record, err := v.Record(t.Context(), acme)
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
	if _, err := v.Record(t.Context(), acme); err != nil {
		t.Error(err)
	}
	if _, err := v.Record(t.Context(), apex); !errors.Is(err, grant.ErrNoGrant) {
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
	if _, err := os.Stat(w.dir); w.memory == nil && !os.IsNotExist(err) {
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
	if w.memory != nil {
		w.memory.Damage(apex.Slot())
	} else {
		w.write(w.recordPath(apex), []byte("damaged"))
		w.write(w.journalPath(apex, keyC), []byte("damaged"))
	}
	for _, name := range []string{"Caf\u00e9", "CAFE\u0301", " cafe\u0301 "} {
		records, problems, err := v.List(t.Context(), name)
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
		if record, err := v.Record(t.Context(), grant.ID{Company: name, Application: cafe.Application, Environment: cafe.Environment}); err != nil || record.TokenVaultKey != keyA {
			t.Errorf("Record of %+q: %q, %v", name, record.TokenVaultKey, err)
		}
	}
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
		if w.memory != nil {
			_, err := w.memory.With().Commit(t.Context(), vault.Change{Record: grantOf(id, keyA, 1).Record})
			check(t, err)
			continue
		}
		text, err := json.Marshal(grantOf(id, keyA, 1).Record)
		check(t, err)
		w.write(w.recordPath(id), text)
	}
	v := w.open()
	if got := w.list(v); len(got) != len(names) {
		t.Errorf("%d records of %d companies", len(got), len(names))
	}
	for _, name := range names[:30] {
		records, problems, err := v.List(t.Context(), strings.ToUpper(name))
		if name == "ızmir" || name == "İzmir" {
			records, problems, err = v.List(t.Context(), name) // in upper case they are others
		}
		if err != nil || len(problems) != 0 || len(records) != 1 || records[0].Company != name {
			t.Errorf("%q: %+v, %v, %v", name, records, problems, err)
		}
	}
}

// What a newer upsauth wrote is not for this one to judge: it may well look different.
func TestNewerItemsAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	j := refreshing(authorize(t, w.open(), grantOf(acme, keyA, 1)))
	check(t, w.open().Claim(t.Context(), &j))
	v, home := w.open(), w.home()
	check(t, v.PutSecret(t.Context(), "file", "app/production/x", "client secret"))
	for account, ask := range map[string]func() error{
		keyA:               func() error { _, err := v.Get(t.Context(), acme); return err },
		keyA + "/journal":  func() error { _, err := v.Answer(t.Context(), j); return err },
		"app/production/x": func() error { _, err := v.Secret(t.Context(), "file", "app/production/x"); return err },
	} {
		item, err := home.Get(t.Context(), account)
		check(t, err)
		changed := bytes.Replace(item, []byte(`"version":`), []byte(`"version":9, "was":`), 1)
		check(t, home.Put(t.Context(), account, 1, changed))
		var e *vault.NewerError
		if err := ask(); !errors.As(err, &e) || e.Version != 9 || !strings.Contains(e.Path, account) {
			t.Errorf("%s: %v", account, err)
		}
		if left, err := home.Get(t.Context(), account); err != nil || !bytes.Equal(left, changed) {
			t.Errorf("%s was changed, %v", account, err)
		}
	}
}
