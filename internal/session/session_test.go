package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/company/companytest"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

// world is a session over directories of its own, with an environment lab where
// nobody listens.
type world struct {
	*Session
	t   *testing.T
	dir string
	// companies is the store in memory, nil for files.
	companies *companytest.Memory
	// tables are those of the stores in a database, nil for others.
	tables  *tablestest.Tables
	mu      sync.Mutex
	notices []Notice
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("identity.txt", identity.String()+"\n")
	w.write("config/config.toml", "[environments.lab]\nbase_url = \"http://127.0.0.1:1\"\n")
	settings := map[string]string{
		"HOME": w.dir, "USERPROFILE": w.dir, "UPSAUTH_CONFIG_DIR": filepath.Join(w.dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(w.dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(w.dir, "identity.txt"),
	}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	w.Session, err = Open(Options{
		Getenv: func(name string) string { return settings[name] }, Now: time.Now, Transport: transport,
		Notice: func(_ context.Context, n Notice) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.notices = append(w.notices, n)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// grant puts a grant in the vault whose access token is good for an hour.
func (w *world) grant(company, application, environment string) grant.Record {
	w.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	g := grant.Grant{
		Record: grant.Record{
			Facts: grant.Facts{
				ID:                  grant.ID{Company: company, Application: application, Environment: environment},
				TokenVaultKey:       strings.ToUpper(uuid.NewString()),
				Generation:          1,
				ClientID:            "cid",
				BaseURL:             "http://127.0.0.1:1",
				Home:                "file",
				Requested:           now,
				Issued:              now,
				Expires:             now.Add(time.Hour),
				AccessUntil:         now.Add(time.Hour),
				RefreshTokenIssued:  now,
				RefreshTokenExpires: now.Add(60 * 24 * time.Hour),
			},
		},
		Secrets: grant.Secrets{AccessToken: "access of " + company, RefreshToken: "refresh"},
	}
	if _, err := w.Keeper.Import(w.t.Context(), g); err != nil {
		w.t.Fatal(err)
	}
	record, err := w.Vault.Record(w.t.Context(), g.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return record
}

// register registers an application with its secret.
func (w *world) register(name, environment string) {
	w.t.Helper()
	r := config.Registration{Name: name, Environment: environment, ClientID: "cid", RedirectURI: "http://localhost:0/cb", Home: "file"}
	err := w.EditApplications(w.t.Context(), func(a *config.Applications, save func() error) error {
		return w.AddSecret(w.t.Context(), a, save, r, "s3cret")
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// One session serves any number of callers at once: what they ask for at the same time
// is what each would have got alone.
func TestManyUseOneSession(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		w.register("mine", "lab")
		const companies = 4
		for n := range companies {
			w.grant(fmt.Sprint("Company ", n), "mine", "lab")
		}
		ctx := t.Context()
		var callers sync.WaitGroup
		for n := range 2 * companies {
			name := fmt.Sprint("Company ", n%companies)
			callers.Go(func() {
				record, err := w.Pick(ctx, Target{Company: name})
				if err != nil {
					t.Error(err)
					return
				}
				g, err := w.Token(ctx, record, time.Minute)
				if err != nil || g.AccessToken != "access of "+name {
					t.Errorf("%s: %q, %v", name, g.AccessToken, err)
				}
				// Nobody listens there: nothing is spent, whoever asks.
				var refused *ups.Error
				if _, err := w.Refresh(ctx, record); !errors.As(err, &refused) || refused.Kind != ups.Unreachable {
					t.Errorf("%s: refreshed, %v", name, err)
				}
			})
			callers.Go(func() {
				list, err := w.Known(ctx, "")
				if err != nil || len(list.Problems) > 0 || len(Authorized(list.Records)) != companies {
					t.Errorf("%d known, %v, %v", len(list.Records), list.Problems, err)
				}
				if _, err := w.PickApplication(ctx, Target{}); err != nil {
					t.Error(err)
				}
			})
			callers.Go(func() {
				contact := fmt.Sprint("contact ", n)
				name := fmt.Sprint("Added ", n)
				err := w.AddCompanies(ctx, []company.New{{Name: name, Contact: &contact}}, func(told string, o Outcome) {
					if told != name || o != Added {
						t.Errorf("%s: %v", told, o)
					}
				})
				if err != nil || w.Contact(ctx, name) != contact {
					t.Errorf("%s: %q, %v", name, w.Contact(ctx, name), err)
				}
			})
		}
		callers.Wait()
		for _, n := range w.notices {
			if n.Kind != Step {
				t.Errorf("%+v", n)
			}
		}
	})
}

// The applications are as their file is, also for a process that has read them
// before, and for many at once.
func TestApplicationsAreAsTheirFileIs(t *testing.T) {
	w := newWorld(t)
	names := func() (names []string) {
		applications, err := w.Applications(t.Context())
		if err != nil {
			t.Error(err)
		}
		for _, r := range applications.Applications {
			names = append(names, r.Name)
		}
		return names
	}
	if got := names(); got != nil {
		t.Errorf("%v", got)
	}
	w.register("a", "lab")
	w.register("b", "lab")
	if got := names(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v", got)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 50 {
				if got := names(); len(got) < 2 || got[0] != "a" {
					t.Errorf("%v", got)
				}
			}
		})
	}
	w.register("c", "lab")
	readers.Wait()
	if got := names(); len(got) != 3 {
		t.Errorf("%v", got)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "config", "applications.toml"), []byte("version = 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Applications(t.Context()); err == nil {
		t.Error("a newer file was read")
	}
	if err := os.Remove(filepath.Join(w.dir, "config", "applications.toml")); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != nil {
		t.Errorf("%v", got)
	}
}

// What is not there is told by its kind, with what was meant perhaps.
func TestWhatIsNotThere(t *testing.T) {
	eachStore(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		missing := func(err error) Missing {
			t.Helper()
			var e *NotFoundError
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			if strings.Contains(e.Error(), "--") || strings.Contains(e.Error(), "upsauth") {
				t.Errorf("%q names a flag or a command", e.Error())
			}
			return e.Kind
		}
		pick := func(company, application, environment string) error {
			_, err := w.Pick(ctx, Target{Company: company, Application: application, Environment: environment})
			return err
		}
		if err := pick("Acme", "", ""); missing(err) != NoCompany || err.(*NotFoundError).Unused == "" {
			t.Errorf("%#v", err)
		}
		if _, err := w.PickApplication(ctx, Target{}); missing(err) != NoRegistration {
			t.Errorf("%#v", err)
		}
		w.register("mine", "lab")
		w.grant("Acme Corp", "mine", "lab")
		if err := pick("Acme Crop", "", ""); missing(err) != NoCompany || err.(*NotFoundError).Near != "Acme Corp" {
			t.Errorf("%#v", err)
		}
		if err := pick("acme corp", "other", ""); missing(err) != NoGrant || len(err.(*NotFoundError).Has) != 1 {
			t.Errorf("%#v", err)
		}
		if err := w.AddCompanies(ctx, []company.New{{Name: "Later"}}, func(string, Outcome) {}); err != nil {
			t.Fatal(err)
		}
		if err := pick("Later", "", ""); missing(err) != NoAuthorization {
			t.Errorf("%#v", err)
		}
		if _, err := w.Environment("nowhere"); missing(err) != NoEnvironment {
			t.Errorf("%#v", err)
		}
		if _, err := w.FindApplication(ctx, "other", ""); missing(err) != NoApplicationOfName {
			t.Errorf("%#v", err)
		}
		if _, err := Matching(ctx, "Nord*[", w.Known); missing(err) != NoPattern {
			t.Errorf("%#v", err)
		}
		if err := w.NothingFits(ctx, Target{Company: "Nord*"}); missing(err) != NothingFits {
			t.Errorf("%#v", err)
		}
		w.grant("Acme Corp", "other", "lab")
		var several *SeveralError
		if err := pick("Acme Corp", "", ""); !errors.As(err, &several) || len(several.Grants) != 2 {
			t.Errorf("%#v", err)
		}
		// What can't be read is never this error.
		w.write("state/records/"+grant.ID{Company: "Nobody", Application: "mine", Environment: "lab"}.Slot()+".json", "{")
		if err := pick("Nobody", "", ""); err == nil || errors.As(err, new(*NotFoundError)) {
			t.Errorf("%#v", err)
		}
	})
}
