package checkup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

// Guards against: a page that shows a finding in which a command stands; a finding
// that is lost, or told ten thousand times; a repair that nobody agreed to.

// world is a session over directories of its own, with an environment lab.
type world struct {
	*session.Session
	t        *testing.T
	dir      string
	settings map[string]string
	server   *httptest.Server
	// answer is the status of what is not a look at the sign-in, date what the lab has
	// for the time.
	answer int
	date   time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), answer: http.StatusServiceUnavailable, date: time.Now()}
	w.server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Date", w.date.UTC().Format(http.TimeFormat))
		if r.Method == http.MethodPost {
			out.WriteHeader(w.answer)
		}
	}))
	t.Cleanup(w.server.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("identity.txt", identity.String()+"\n")
	w.write("config/config.toml", fmt.Sprintf("[environments.lab]\nbase_url = %q\n", w.server.URL))
	w.settings = map[string]string{
		"HOME": w.dir, "USERPROFILE": w.dir, config.EnvConfigDir: w.path("config"), config.EnvStateDir: w.path("state"),
		config.EnvVault: "file", config.EnvIdentity: w.path("identity.txt"),
	}
	w.open()
	return w
}

// open opens the session anew, with the settings as they are now.
func (w *world) open() {
	w.t.Helper()
	transport := ups.NewTransport()
	w.t.Cleanup(transport.CloseIdleConnections)
	s, err := session.Open(session.Options{
		Getenv: func(name string) string { return w.settings[name] }, Now: time.Now, Transport: transport, WorkFactor: 8,
		Passphrase: func(context.Context, string, bool) (string, error) {
			if passphrase := w.settings[config.EnvPassphrase]; passphrase != "" {
				return passphrase, nil
			}
			return "", agefile.ErrNoPassphrase
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Session = s
	w.t.Cleanup(s.Close)
}

func (w *world) path(name string) string { return filepath.Join(w.dir, filepath.FromSlash(name)) }

func (w *world) write(name, text string) {
	w.t.Helper()
	path := w.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(pattern string) {
	w.t.Helper()
	paths, err := filepath.Glob(w.path(pattern))
	if err != nil || len(paths) == 0 {
		w.t.Fatalf("there is no %s: %v", pattern, err)
	}
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			w.t.Fatal(err)
		}
	}
}

// grant puts a grant in the vault that an hour's access token belongs to.
func (w *world) grant(company string, change ...func(*grant.Grant)) grant.Record {
	w.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	g := grant.Grant{
		Record: grant.Record{
			Facts: grant.Facts{
				ID:                  grant.ID{Company: company, Application: "mine", Environment: "lab"},
				TokenVaultKey:       strings.ToUpper(uuid.NewString()),
				Generation:          1,
				ClientID:            "cid",
				BaseURL:             w.server.URL,
				Home:                "file",
				Requested:           now,
				Issued:              now,
				Expires:             now.Add(time.Hour),
				AccessUntil:         now.Add(time.Hour),
				RefreshTokenIssued:  now,
				RefreshTokenExpires: now.Add(60 * 24 * time.Hour),
				RefreshUntil:        now.Add(60 * 24 * time.Hour),
			},
		},
		Secrets: grant.Secrets{AccessToken: "access of " + company, RefreshToken: "refresh of " + company},
	}
	for _, change := range change {
		change(&g)
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

// register registers the application of the grants with its secret.
func (w *world) register() {
	w.t.Helper()
	r := config.Registration{Name: "mine", Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:0/cb", Home: "file"}
	err := w.EditApplications(w.t.Context(), func(a *config.Applications, save func() error) error {
		return w.AddSecret(w.t.Context(), a, save, r, "s3cret")
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

var plainWords = Words{
	Time:   func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
	Span:   func(d time.Duration) string { return d.Round(time.Hour).String() },
	Grants: func(records []grant.Record, _ time.Time) string { return fmt.Sprintf("%d of them", len(records)) },
}

func (w *world) machine(o Options) []Finding {
	w.t.Helper()
	o.Words = plainWords
	found, err := Machine(w.t.Context(), w.Session, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.fit(found)
}

func (w *world) vault(o Options) []Finding {
	w.t.Helper()
	o.Words = plainWords
	found, err := Vault(w.t.Context(), w.Session, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.fit(found)
}

// unfit is what no page may say.
var unfit = regexp.MustCompile(`upsauth (authorize|status|refresh|revoke|token|exec|api|company|app|vault|doctor|sandbox|demo|serve|invite|help)\b|(^|[^-a-z])--[a-z]{3,}|UPSAUTH_|[Rr]un the command|\{\}|\[: |%!|  |: *\.|\( *\)|, *\.|[a-z]:$`)

// fit sees that a reader without a command line can read all of what was found.
func (w *world) fit(found []Finding) []Finding {
	w.t.Helper()
	for _, f := range found {
		what, remedy := f.Explanation().Plain()
		if f.Level == "" || f.Check == "" || len(strings.Fields(what)) < 2 {
			w.t.Errorf("%+v says %q: that is no sentence", f, what)
		}
		for _, text := range []string{what, remedy} {
			if bad := unfit.FindString(text); bad != "" {
				w.t.Errorf("a page says %q in %q", bad, text)
			}
		}
		if f.Level != Failure && (f.Class != explain.Failed || f.Again) {
			w.t.Errorf("%+v is no failure, and has the marks of one", f)
		}
	}
	return found
}

// want is a part of one finding.
type want struct {
	level        Level
	check        string
	class        explain.Class
	what, remedy string
}

func (w *world) wants(found []Finding, wanted ...want) {
	w.t.Helper()
	for _, want := range wanted {
		if !slices.ContainsFunc(found, func(f Finding) bool {
			e := f.Explanation()
			what, remedy := e.Plain()
			return f.Level == want.level && f.Check == want.check && (f.Level != Failure || e.Class == want.class) && !f.Again &&
				strings.Contains(what, want.what) && strings.Contains(remedy, want.remedy) && (remedy == "") == (want.remedy == "")
		}) {
			w.t.Errorf("nothing is like %+v in\n%s", want, listed(found))
		}
	}
}

func listed(found []Finding) string {
	var text strings.Builder
	for _, f := range found {
		what, remedy := f.Explanation().Plain()
		fmt.Fprintf(&text, "%s %s (%s, again %t): %s | %s\n", f.Level, f.Check, f.Explanation().Class, f.Again, what, remedy)
	}
	return text.String()
}

func worstOf(found []Finding) Level {
	worst := OK
	for _, f := range found {
		if f.Level == Failure || worst == OK {
			worst = f.Level
		}
		if worst == Failure {
			break
		}
	}
	return worst
}

func TestAllIsWell(t *testing.T) {
	w := newWorld(t)
	w.register()
	w.grant("Acme")
	w.grant("Bolt")
	face := Finding{Level: OK, Check: "of the face", Found: "its own finding"}
	found := w.machine(Options{Face: func() []Finding { return []Finding{face} }})
	if worstOf(found) != OK {
		t.Errorf("something is wrong:\n%s", listed(found))
	}
	var checks []string
	for _, f := range found {
		checks = append(checks, f.Check)
	}
	order := []string{"configuration", "permissions", "state", "vault", "applications", "of the face", "grants", "secrets", "UPS", "clock"}
	if !slices.Equal(checks, order) {
		t.Errorf("it looked at %q, want %q", checks, order)
	}
	w.wants(found, want{OK, "grants", 0, "2 of them", ""}, want{OK, "secrets", 0, "2 authorizations: each is whole", ""})

	found = w.vault(Options{})
	if worstOf(found) != OK || len(found) != 2 {
		t.Errorf("something is wrong in the vault:\n%s", listed(found))
	}
}

func TestNothingIsThereYet(t *testing.T) {
	w := newWorld(t)
	w.wants(w.machine(Options{}), want{Warning, "applications", 0, "No application is registered", "Register the application"})
	w.wants(w.vault(Options{}), want{OK, "secrets", 0, "There is no authorization on record", ""})
	if _, err := os.Stat(w.path("state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a look made the state directory: %v", err)
	}
}

func TestWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		// spoil makes a vault with two grants what it is found as.
		spoil          func(w *world, acme grant.Record)
		machine, vault []want
	}{
		"a record that is damaged": {
			func(w *world, acme grant.Record) { w.write(w.recordOf(acme), "junk") },
			[]want{{Failure, "records", explain.Failed, "A damaged record was set aside", "unaffected"}, {Warning, "orphans", 0, "1 Token Vault Key", "Check the vault."}},
			[]want{{Failure, "records", explain.Failed, "A damaged record was set aside", "unaffected"},
				{Failure, "lost", explain.Failed, "Acme (mine, lab) has its secrets in the file vault and no record", "Unless another state directory of yours uses them, repair the vault."}},
		},
		"secrets that are gone": {
			func(w *world, acme grant.Record) { w.remove("state/vault/" + acme.TokenVaultKey + "*") },
			[]want{{Failure, "secrets", explain.Vault, "Acme", "authorize the company again"}, {Warning, "secrets", 0, "Only 1 of 2 authorizations is whole", ""}},
			[]want{{Failure, "secrets", explain.Vault, "Acme", "authorize the company again"}, {Warning, "secrets", 0, "Only 1 of 2 authorizations is whole", ""}},
		},
		"secrets that are damaged": {
			func(w *world, acme grant.Record) { w.write("state/vault/"+acme.TokenVaultKey+".age", "junk") },
			[]want{{Failure, "secrets", explain.Vault, "Acme", "Restore it from a backup, or authorize the company again."}},
			[]want{{Failure, "secrets", explain.Vault, "Acme", "Restore it from a backup, or authorize the company again."}},
		},
		"a journal's key that is gone": {
			func(w *world, acme grant.Record) { w.remove("state/vault/journal/" + acme.TokenVaultKey + ".age") },
			[]want{{Warning, "secrets", 0, "Acme", "Give the journal a new key."}},
			[]want{{Warning, "secrets", 0, "Acme", "Give the journal a new key."}},
		},
		"a client secret that is gone": {
			func(w *world, _ grant.Record) { w.remove("state/vault/app/lab/mine.age") },
			[]want{{Failure, "applications", explain.Vault, "mine", "Enter the client secret of the application again."}},
			[]want{{Failure, "client secrets", explain.Vault, "mine", "Enter the client secret of the application again."}},
		},
		"a client secret of nobody": {
			func(w *world, _ grant.Record) { w.write("state/vault/app/lab/other.age", "junk") },
			nil,
			[]want{{Warning, "orphans", 0, "has a client secret under app/lab/other", "Delete "}},
		},
		"remains": {
			func(w *world, _ grant.Record) {
				w.write("state/vault/journal/FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA.age", "junk")
			},
			[]want{{Warning, "orphans", 0, "1 Token Vault Key", "Check the vault."}},
			[]want{{Warning, "orphans", 0, "remains of a grant", "Only if every company has its authorization"}},
		},
		"secrets that can't be read": {
			func(w *world, _ grant.Record) {
				w.write("state/vault/FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA.age", "junk")
			},
			[]want{{Warning, "orphans", 0, "1 Token Vault Key", "Check the vault."}},
			[]want{{Failure, "orphans", explain.Vault, "FD4C8DB3", "Only if every company has its authorization"}},
		},
		"a refresh without an answer": {
			func(w *world, acme grant.Record) {
				if _, err := w.Refresh(w.t.Context(), acme); err == nil {
					w.t.Fatal("it was answered")
				}
			},
			[]want{{Warning, "interrupted", 0, "Acme", "Try again then."}},
			nil,
		},
		"a clock that is behind": {
			func(w *world, _ grant.Record) { w.date = w.date.Add(3 * time.Hour) },
			[]want{{Warning, "clock", 0, "3h0m0s behind that of http", "Set the clock"}},
			nil,
		},
		"nobody answers": {
			func(w *world, _ grant.Record) { w.server.Close() },
			[]want{{Failure, "UPS", explain.UPS, "connect", "Check the network"}},
			nil,
		},
		"a proxy that is not read": {
			func(w *world, _ grant.Record) { w.settings["ALL_PROXY"] = "http://127.0.0.1:1" },
			[]want{{Warning, "network", 0, "ALL_PROXY is set, but upsauth does not read it", "Set HTTPS_PROXY"}},
			nil,
		},
		"a proxy that can't be used": {
			func(w *world, _ grant.Record) { w.settings["HTTPS_PROXY"] = "gopher://127.0.0.1:1" },
			[]want{{Failure, "network", explain.Usage, "HTTPS_PROXY can't be used", "Write it as http://HOST:PORT"}},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.register()
			acme := w.grant("Acme")
			w.grant("Bolt")
			test.spoil(w, acme)
			w.open() // as a command does that comes later
			w.wants(w.machine(Options{}), test.machine...)
			w.wants(w.vault(Options{}), test.vault...)
		})
	}
}

// recordOf is the file of a grant's record.
func (w *world) recordOf(r grant.Record) string {
	w.t.Helper()
	paths, err := filepath.Glob(w.path("state/records/*.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.Contains(string(text), r.TokenVaultKey) {
			return "state/records/" + filepath.Base(path)
		}
	}
	w.t.Fatalf("%s has no record", r.ID)
	return ""
}

func TestGrantsByState(t *testing.T) {
	w := newWorld(t)
	w.register()
	soon := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	w.grant("Soon", func(g *grant.Grant) { g.RefreshUntil, g.RefreshTokenExpires = soon, soon })
	w.grant("Void", func(g *grant.Grant) { g.Void = true })
	found := w.machine(Options{})
	w.wants(found,
		want{Warning, "grants", 0, "Soon (mine, lab): the refresh token expires " + soon.Format(time.DateOnly), "Refresh the tokens."},
		want{Failure, "grants", explain.Authorize, "Void (mine, lab) must be authorized again", "Authorize the company again."})
}

// What keeps all of a home's secrets away is told once, and counts each time.
func TestOneCauseIsToldOnce(t *testing.T) {
	w := newWorld(t)
	w.register()
	for n := range 20 {
		w.grant(fmt.Sprint("Company ", n))
	}
	w.remove("identity.txt")
	w.open()
	for name, look := range map[string]func(Options) []Finding{"machine": w.machine, "vault": w.vault} {
		found := look(Options{})
		told := slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Level != Failure || f.Again })
		if len(told) != 1 || told[0].Explanation().Class != explain.Vault {
			t.Errorf("%s: it should be told once:\n%s", name, listed(found))
		}
		if again := len(slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return !f.Again })); again == 0 {
			t.Errorf("%s: nothing depends on it:\n%s", name, listed(found))
		}
	}
}

// A file vault that there is not yet is judged by what is at hand to make it.
func TestUnmadeFileVault(t *testing.T) {
	for name, test := range map[string]struct {
		canMake func(context.Context) error
		want    want
	}{
		"nobody says":  {nil, want{OK, "vault", 0, "There is no file vault yet", ""}},
		"it can":       {func(context.Context) error { return nil }, want{OK, "vault", 0, "There is no file vault yet", ""}},
		"with nothing": {func(context.Context) error { return agefile.ErrNoPassphrase }, want{Failure, "vault", explain.Vault, "no passphrase", "Give the file vault a passphrase"}},
		"with what can't be used": {func(context.Context) error { return errors.New("the file is not there") },
			want{Failure, "vault", explain.Vault, "The file is not there", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			delete(w.settings, config.EnvIdentity)
			w.open()
			w.wants(w.machine(Options{CanMake: test.canMake}), test.want)
		})
	}
}

// Nothing is repaired unless somebody asks for it, and what can be somebody else's
// not before it was agreed to.
func TestRepair(t *testing.T) {
	w := newWorld(t)
	w.register()
	acme := w.grant("Acme")
	bolt := w.grant("Bolt")
	w.write(w.recordOf(acme), "junk")
	w.write("state/vault/app/lab/other.age", "junk")
	w.remove("state/vault/journal/" + bolt.TokenVaultKey + ".age")
	w.open()
	w.vault(Options{})
	if _, err := w.Vault.Record(w.t.Context(), acme.ID); err == nil {
		t.Fatal("the record was made anew, and nobody asked for it")
	}

	declined := errors.New("declined")
	var asked []Question
	ask := func(answer error) Options {
		asked = nil
		return Options{Words: plainWords, Repair: func(_ context.Context, q Question) error {
			asked = append(asked, q)
			return answer
		}}
	}
	if _, err := Vault(t.Context(), w.Session, ask(declined)); !errors.Is(err, declined) {
		t.Errorf("nobody agreed, and it ended with %v", err)
	}
	if _, err := w.Vault.Record(w.t.Context(), acme.ID); err == nil {
		t.Fatal("the record was made anew, and nobody agreed to it")
	}
	if _, err := os.Stat(w.path("state/vault/app/lab/other.age")); err != nil {
		t.Fatalf("the client secret is gone, and nobody agreed to it: %v", err)
	}

	found := w.vault(ask(nil))
	want1, want2 := Question{Ask: RemoveSecret, Home: "file", Account: "app/lab/other"}, Question{Ask: MakeRecords, Lost: 1}
	if !slices.Equal(asked, []Question{want1, want2}) {
		t.Errorf("it asked %+v", asked)
	}
	w.wants(found, want{OK, "repaired", 0, "Acme (mine, lab): has its record again", ""}, want{OK, "repaired", 0, "Bolt (mine, lab): the journal has a new key", ""},
		want{OK, "repaired", 0, "Removed the client secret under app/lab/other", ""}, want{OK, "secrets", 0, "2 authorizations: each is whole", ""})
	if found := w.vault(Options{}); worstOf(found) == Warning {
		t.Errorf("after the repair:\n%s", listed(found))
	}
	if record, err := w.Vault.Record(w.t.Context(), acme.ID); err != nil || record.TokenVaultKey != acme.TokenVaultKey {
		t.Errorf("the record is %+v, %v", record, err)
	}
}

// What nothing can be made of is told with the way to be rid of it.
func TestRepairOfNothing(t *testing.T) {
	w := newWorld(t)
	w.grant("Acme")
	w.write("state/records/zz.json", "junk")
	found := w.vault(Options{Repair: func(_ context.Context, q Question) error {
		t.Errorf("it asked %+v", q)
		return nil
	}})
	w.wants(found, want{Failure, "records", explain.Failed, "no secrets were found that could belong to it", "If every company has its authorization, delete the file."})
	path := w.path("state/records/zz.json.damaged")
	if !slices.ContainsFunc(found, func(f Finding) bool { return len(f.Do) == 1 && len(f.Do[0].Acts) == 1 && f.Do[0].Acts[0].Path == path }) {
		t.Errorf("no act has the path %s", path)
	}
}

// A look at the machine repairs nothing, whatever a face gives it.
func TestMachineDoesNotRepair(t *testing.T) {
	w := newWorld(t)
	acme := w.grant("Acme")
	w.remove("state/vault/journal/" + acme.TokenVaultKey + ".age")
	w.open()
	found := w.machine(Options{Repair: func(context.Context, Question) error {
		t.Error("it asked whether to repair")
		return nil
	}})
	w.wants(found, want{Warning, "secrets", 0, "Acme", "Give the journal a new key."})
}

func TestProgress(t *testing.T) {
	w := newWorld(t)
	w.register()
	const companies = 7
	for n := range companies {
		w.grant(fmt.Sprint("Company ", n))
	}
	w.remove("state/vault/journal/*.age")
	w.open()
	for name, look := range map[string]func(Options) []Finding{"machine": w.machine, "vault": w.vault} {
		var begun, done, bad, ended atomic.Int64
		look(Options{Progress: func(total int) (func(bool), func()) {
			begun.Add(int64(total))
			return func(isBad bool) {
				done.Add(1)
				if isBad {
					bad.Add(1)
				}
			}, func() { ended.Add(1) }
		}})
		if begun.Load() != companies || done.Load() != companies || bad.Load() != companies || ended.Load() != 1 {
			t.Errorf("%s: of %d it did %d, %d of them bad, and ended %d times", name, begun.Load(), done.Load(), bad.Load(), ended.Load())
		}
	}
}

// Whoever gives up waiting gets no half of the findings as if they were all.
func TestGivenUp(t *testing.T) {
	w := newWorld(t)
	w.grant("Acme")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Machine(ctx, w.Session, Options{Words: plainWords}); !errors.Is(err, context.Canceled) {
		t.Errorf("machine: %v", err)
	}
	if _, err := Vault(ctx, w.Session, Options{Words: plainWords}); !errors.Is(err, context.Canceled) {
		t.Errorf("vault: %v", err)
	}
}

func TestUnopened(t *testing.T) {
	w := newWorld(t)
	found := w.fit(Unopened(&config.Error{Path: "/c/config.toml", Err: errors.New("it is no TOML")}))
	w.wants(found, want{Failure, "configuration", explain.Failed, "it is no TOML", ""})
}
