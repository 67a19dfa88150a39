package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/company/companytest"
	sharedcompanies "github.com/upsauth/upsauth/internal/company/postgres"
	"github.com/upsauth/upsauth/internal/config"
	sharedregister "github.com/upsauth/upsauth/internal/config/postgres"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

// memoryRegister is a Register as a database would be: nobody is kept out during an
// edit, and what was changed meanwhile shows when it is saved.
type memoryRegister struct {
	mu     sync.Mutex
	kept   config.Applications
	broken error
}

func copyOf(a config.Applications) config.Applications {
	a.Applications = slices.Clone(a.Applications)
	if a.Default != nil {
		d := *a.Default
		a.Default = &d
	}
	return a
}

func (m *memoryRegister) Applications(ctx context.Context) (config.Applications, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copyOf(m.kept), errors.Join(m.broken, ctx.Err())
}

func (m *memoryRegister) Edit(ctx context.Context, edit func(a *config.Applications, save func() error) error) error {
	a, err := m.Applications(ctx)
	if err != nil {
		return err
	}
	return edit(&a, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if a.Revision != m.kept.Revision {
			return &config.ConflictError{Path: "memory"}
		}
		n, _ := strconv.Atoi(a.Revision)
		a.Revision = strconv.Itoa(n + 1)
		m.kept = copyOf(a)
		return nil
	})
}

// eachStore runs a test over this machine's files, and over stores in memory and in a
// database in their place.
func eachStore(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("files", func(t *testing.T) { test(t, newWorld(t)) })
	t.Run("memory", func(t *testing.T) {
		w := newWorld(t)
		w.companies = companytest.New()
		w.Companies, w.Session.register = company.Open(w.companies), &memoryRegister{}
		test(t, w)
		w.wantNoFiles()
	})
	t.Run("database", func(t *testing.T) {
		w := newWorld(t)
		w.tables = tablestest.New(t)
		db := w.tables.Open()
		w.Companies, w.Session.register = company.Open(sharedcompanies.New(db)), sharedregister.New(db)
		test(t, w)
		w.wantNoFiles()
	})
}

func (w *world) wantNoFiles() {
	w.t.Helper()
	for _, name := range []string{"config/applications.toml", "state/companies/*"} {
		if found, _ := filepath.Glob(filepath.Join(w.dir, name)); len(found) > 0 {
			w.t.Errorf("files were written beside the stores: %q", found)
		}
	}
}

// breakCompany makes what is known of a company one that can't be read.
func (w *world) breakCompany(name string, part company.Part) {
	if w.companies != nil {
		w.companies.Break(company.Key{Slot: grant.CompanySlot(name), Part: part})
		return
	}
	if w.tables != nil {
		text := map[company.Part]string{company.Added: "companies VALUES ('%s', 1, '{\"version\":99}')", company.History: "histories VALUES ('%s', 1, 99)"}[part]
		w.tables.SQL("INSERT INTO upsauth." + fmt.Sprintf(text, grant.CompanySlot(name)))
		return
	}
	ending := map[company.Part]string{company.Added: ".json", company.History: ".log"}[part]
	w.write("state/companies/"+grant.CompanySlot(name)+ending+"/x", "")
}

func (w *world) add(name, contact string) {
	w.t.Helper()
	if err := w.AddCompanies(w.t.Context(), []company.New{{Name: name, Contact: &contact}}, func(string, Outcome) {}); err != nil {
		w.t.Fatal(err)
	}
}

// The whole life of a company, over every store.
func TestLifeOfACompany(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		names := func() (names []string) {
			t.Helper()
			list, err := w.Listed(ctx, "")
			if err != nil || len(list.Problems) > 0 {
				t.Fatalf("%v, %v", list.Problems, err)
			}
			for _, r := range list.Records {
				names = append(names, fmt.Sprintf("%s %s %t", r.Company, r.Contact, r.TokenVaultKey != ""))
			}
			return names
		}
		want := func(want ...string) {
			t.Helper()
			if got := names(); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
		w.register("mine", "lab")
		w.grant("Acme", "mine", "lab")
		w.add("Acme", "Jane")
		w.add("Apex", "Joe")
		want("Acme Jane true", "Apex Joe false")
		list, err := w.Known(ctx, "Acme")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Rename(ctx, "Acme", Authorized(list.Records), "Apex"); err != nil {
			t.Fatal(err)
		}
		want("Apex Joe; Jane true")
		if other, err := w.Other(ctx, "Acme", "apex"); err != nil || other == nil || other.Name != "Apex" {
			t.Errorf("%+v, %v", other, err)
		}
		list, events, err := w.Remembered(ctx, "Apex")
		if err != nil || len(events) == 0 || len(list.Records) != 1 {
			t.Fatalf("%+v, %v, %v", list, events, err)
		}
		near, err := w.Near(ctx, []string{"Apexx"}, "")
		if err != nil || len(near) != 1 || near[0].Known != "Apex" {
			t.Errorf("%+v, %v", near, err)
		}
		if err := w.Keeper.Revoke(ctx, list.Records[0].ID); err != nil {
			t.Fatal(err)
		}
		want("Apex Joe; Jane false")
		if err := w.Forget(ctx, "Apex", nil, nil); err != nil {
			t.Fatal(err)
		}
		want()
		if _, _, err := w.Remembered(ctx, "Apex"); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%v", err)
		}
	})
}

// What can't be read is never what is not there.
func TestCompanyThatCantBeRead(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.add("Apex", "Joe")
		w.breakCompany("Acme", company.Added)
		w.breakCompany("Gone", company.History)
		var file *company.FileError
		if _, err := w.Pick(ctx, Target{Company: "Acme"}); !errors.As(err, &file) {
			t.Errorf("picked: %v", err)
		}
		if err := w.AddCompanies(ctx, []company.New{{Name: "Acme"}}, func(string, Outcome) { t.Error("it was added") }); !errors.As(err, &file) {
			t.Errorf("added: %v", err)
		}
		if err := w.Rename(ctx, "Acme", nil, "Other"); !errors.As(err, &file) {
			t.Errorf("renamed: %v", err)
		}
		if err := w.Rename(ctx, "Apex", nil, "Acme"); !errors.As(err, &file) {
			t.Errorf("renamed to it: %v", err)
		}
		if err := w.Forget(ctx, "Gone", nil, nil); !errors.As(err, &file) {
			t.Errorf("forgotten: %v", err)
		}
		if _, _, err := w.Remembered(ctx, "Gone"); !errors.As(err, &file) {
			t.Errorf("remembered: %v", err)
		}
		list, err := w.Listed(ctx, "")
		if err != nil || len(list.Problems) != 2 || len(list.Records) != 1 || list.Records[0].Company != "Apex" {
			t.Errorf("%+v, %v", list, err)
		}
		if contact := w.Contact(ctx, "Apex"); contact != "Joe" {
			t.Errorf("%q", contact)
		}
	})
}

// Notes of cut-off work that can't be read may name a company on the list.
func TestUnreadableWorkIsAProblem(t *testing.T) {
	w := newWorld(t)
	w.add("Apex", "Joe")
	w.write("state/unfinished/x.json", "{")
	list, err := w.Listed(t.Context(), "")
	if err != nil || len(list.Records) != 1 || len(list.Problems) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// What happened is in the history, also of a request that was canceled meanwhile; of a
// list of companies nothing more is added then.
func TestCanceledRequest(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		companies := []company.New{{Name: "Acme"}, {Name: "Apex"}}
		err := w.AddCompanies(ctx, companies, func(string, Outcome) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		w.Note(ctx, grant.EventRevoked, grant.ID{Company: "Acme"}, "")
		list, events, err := w.Remembered(t.Context(), "Acme")
		if err != nil || len(list.Records) != 1 || len(events) != 2 {
			t.Errorf("%+v, %v, %v", list, events, err)
		}
		if list, err := w.Known(t.Context(), ""); err != nil || len(list.Records) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := w.Applications(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if err := w.EditApplications(ctx, func(*config.Applications, func() error) error { t.Error("edited"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// meddled is a Register whose applications somebody else changes during an edit.
type meddled struct {
	Register
	meddle func()
}

func (m *meddled) Edit(ctx context.Context, edit func(a *config.Applications, save func() error) error) error {
	return m.Register.Edit(ctx, func(a *config.Applications, save func() error) error {
		return edit(a, func() error {
			m.meddle()
			return save()
		})
	})
}

// A change of the applications is made again over what somebody else saved; a client
// secret that was to go with one that could not be saved is gone.
func TestApplicationsThatOthersChange(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.register("mine", "lab")
		register, others := w.Session.register, 0
		// An editor takes no lock.
		meddle := func() {
			others++
			if m, ok := register.(*memoryRegister); ok {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.kept.Revision += "0"
				m.kept.Put(config.Registration{Name: fmt.Sprint("other", others), Environment: "lab", ClientID: "c", Home: "file"})
				return
			}
			if w.tables != nil {
				w.tables.SQL(fmt.Sprintf(`INSERT INTO upsauth.applications VALUES ('lab', 'other%d', 1, '{"version":1,"client_id":"c","vault":"file"}')`, others))
				return
			}
			path := filepath.Join(w.dir, "config", "applications.toml")
			w.write("config/applications.toml", readFile(t, path)+fmt.Sprintf("\n[[application]]\nname = \"other%d\"\nenvironment = \"lab\"\nclient_id = \"c\"\nvault = \"file\"\n", others))
		}
		w.Session.register = &meddled{register, func() {
			if others < 2 {
				meddle()
			}
		}}
		if err := w.UpdateApplications(ctx, func(a *config.Applications) {
			a.Default = &config.Default{Application: "mine", Environment: "lab"}
		}); err != nil {
			t.Fatal(err)
		}
		applications, err := w.Applications(ctx)
		if err != nil || len(applications.Applications) != 3 || applications.Default == nil {
			t.Errorf("%+v, %v", applications, err)
		}
		// Somebody who is always faster ends it.
		w.Session.register = &meddled{register, meddle}
		if err := w.UpdateApplications(ctx, func(*config.Applications) {}); !errors.As(err, new(*config.ConflictError)) {
			t.Errorf("%v", err)
		}
		fresh := config.Registration{Name: "fresh", Environment: "lab", ClientID: "cid", Home: "file"}
		err = w.EditApplications(ctx, func(a *config.Applications, save func() error) error {
			return w.AddSecret(ctx, a, save, fresh, "s3cret")
		})
		if !errors.As(err, new(*config.ConflictError)) {
			t.Errorf("%v", err)
		}
		if _, err := w.StoredSecret(ctx, fresh); !errors.As(err, new(*SecretGoneError)) {
			t.Errorf("the secret of what was not registered: %v", err)
		}
		if _, err := w.FindApplication(ctx, "fresh", "lab"); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%v", err)
		}
		if client, err := w.ClientFor(ctx, grant.ID{Company: "Acme", Application: "mine", Environment: "lab"}); err != nil || client.ClientSecret != "s3cret" {
			t.Errorf("%v", err)
		}
	})
}

// Applications that can't be read are not none, and no secret of theirs is gone.
func TestApplicationsThatCantBeRead(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.grant("Acme", "mine", "lab")
		w.register("mine", "lab")
		registration, err := w.Registration(ctx, "mine", "lab")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Vault.DeleteSecret(ctx, "file", registration.SecretAccount()); err != nil {
			t.Fatal(err)
		}
		if m, ok := w.Session.register.(*memoryRegister); ok {
			m.broken = &config.Error{Path: "memory", Err: errors.New("broken")}
		} else if w.tables != nil {
			w.tables.SQL(`UPDATE upsauth.applications SET application = '{"version":99}'`)
		} else {
			w.write("config/applications.toml", "version = 99\n")
		}
		broken := func(what string, err error) {
			t.Helper()
			if !errors.As(err, new(*config.Error)) {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err = w.Registration(ctx, "mine", "lab")
		broken("registration", err)
		_, err = w.FindApplication(ctx, "mine", "lab")
		broken("found", err)
		_, err = w.PickApplication(ctx, Target{})
		broken("picked", err)
		_, err = w.StoredSecret(ctx, registration)
		broken("secret", err)
		_, err = w.ChosenApplications(ctx, Target{})
		broken("chosen", err)
		_, _, err = w.NewHere(ctx, backup.Document{})
		broken("new here", err)
		_, err = w.SharedRedirect(ctx, registration)
		broken("shared", err)
		broken("updated", w.UpdateApplications(ctx, func(*config.Applications) { t.Error("changed") }))
		records, err := w.Records(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		broken("can refresh", w.CanRefresh(ctx, records.Records))
		broken("opened", w.Open(ctx, true, records.Records...))
		_, err = w.AnnounceNewSecret(ctx, registration)
		broken("announced", err)
	})
}

// A secret that can't be read is not replaced by that of a backup.
func TestRestoreLeavesSecretsThatCantBeRead(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	r := config.Registration{Name: "mine", Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:0/cb", Home: "file"}
	if err := w.Vault.Make(ctx, "file"); err != nil {
		t.Fatal(err)
	}
	if err := w.Vault.PutSecret(ctx, "file", r.SecretAccount(), "of another directory"); err != nil {
		t.Fatal(err)
	}
	var damaged string
	err := filepath.WalkDir(filepath.Join(w.dir, "state", "vault"), func(path string, d fs.DirEntry, err error) error {
		if strings.Contains(path, "mine") && !d.IsDir() {
			damaged = path
		}
		return err
	})
	if err != nil || damaged == "" {
		t.Fatalf("%q, %v", damaged, err)
	}
	rest, err := filepath.Rel(w.dir, damaged)
	if err != nil {
		t.Fatal(err)
	}
	w.write(rest, "damaged")
	document := backup.Document{Applications: []backup.Application{{Registration: r, ClientSecret: "s3cret"}}}
	if _, err := w.Restore(ctx, document, func(c Copied) {
		if c.Err == nil {
			t.Errorf("put into the %s over what can't be read", c.Home)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if text := readFile(t, damaged); text != "damaged" {
		t.Error("it was replaced")
	}
}

// Whoever read a registration before another command replaced or moved its secret finds
// the secret all the same.
func TestSecretThatMovedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.register("mine", "lab")
	read, err := w.Registration(t.Context(), "mine", "lab")
	if err != nil {
		t.Fatal(err)
	}
	err = w.EditApplications(t.Context(), func(a *config.Applications, save func() error) error {
		r := a.Find("mine", "lab")[0]
		r.Fresh = true
		a.Put(r)
		return errors.Join(
			w.Vault.DeleteSecret(t.Context(), "file", r.SecretAccount()),
			w.Vault.PutSecret(t.Context(), "file", r.FreshAccount(), "the new one"), save())
	})
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := w.StoredSecret(t.Context(), read); err != nil || secret != "the new one" {
		t.Errorf("the secret is %q, %v", secret, err)
	}
}
