package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func registered(name, environment string) Registration {
	return Registration{Name: name, Environment: environment, ClientID: "id of " + name, RedirectURI: "http://localhost:8765", Home: "keychain"}
}

// updateApplications changes all that is registered in a directory, and saves once.
func updateApplications(dir string, change func(*Applications) error) error {
	return NewRegister(dir).Edit(context.Background(), func(a *Applications, save func() error) error {
		if err := change(a); err != nil {
			return err
		}
		return save()
	})
}

func update(t *testing.T, dir string, change func(*Applications)) {
	t.Helper()
	if err := updateApplications(dir, func(a *Applications) error { change(a); return nil }); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, dir string) Applications {
	t.Helper()
	a, err := LoadApplications(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestApplicationsWithoutFileAreNone(t *testing.T) {
	a := load(t, filepath.Join(t.TempDir(), "none"))
	if len(a.Applications) != 0 || a.Default != nil || len(a.Find("", "")) != 0 {
		t.Errorf("there are %+v", a)
	}
}

func TestApplicationsComeBackAsTheyWerePut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	full := Registration{
		Name: "batch-suite", Environment: "production", DisplayName: "UPS® \"Batch\"\tSuite \\ 日本\n", ClientID: "Kx2v'G8d", RedirectURI: "https://x.example/cb?a=%20&b=%23",
		Scope: "read write", PKCE: "on", PKCENeedsBasic: true, Home: "file",
	}
	plain := registered("intelligent-rating", "production")
	other := registered("zz", "cie")
	update(t, dir, func(a *Applications) {
		for _, r := range []Registration{plain, full, other} {
			a.Put(r)
		}
		a.Default = &Default{Application: "zz", Environment: "cie"}
	})
	got := load(t, dir)
	if want := []Registration{other, full, plain}; !reflect.DeepEqual(got.Applications, want) {
		t.Errorf("the applications are\n%+v, want\n%+v", got.Applications, want)
	}
	if got.Default == nil || *got.Default != (Default{Application: "zz", Environment: "cie"}) {
		t.Errorf("the default is %+v", got.Default)
	}

	path := filepath.Join(dir, "applications.toml")
	before := read(t, path)
	update(t, dir, func(*Applications) {})
	if after := read(t, path); after != before {
		t.Errorf("a change of nothing made\n%s out of\n%s", after, before)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What upsauth does not understand it must not overwrite: the file of a newer
// one, or one that a person may still mend.
func TestApplicationsThatCannotBeUsedAreLeftAlone(t *testing.T) {
	const head = "version = 1\n[[application]]\nname = \"a\"\nenvironment = \"cie\"\nclient_id = \"x\"\nvault = \"file\"\n"
	for _, test := range []struct {
		name, text string
		says       []string
	}{
		{"newer", strings.Replace(head, "1", "2", 1), []string{"written by a newer upsauth (format 2, this one knows 1)"}},
		{"newer and of another shape", "version = 7\napplication = \"a\"\ndefault = [1]\n", []string{"written by a newer upsauth (format 7, this one knows 1)"}},
		{"version that is none", "version = \"one\"\n", []string{"line 1, column 11", "string"}},
		{"damaged", head + "[[application\n", []string{"line 7, column 14"}},
		{"cut", head[:70], []string{"line 5, column "}},
		{"number for a name", strings.Replace(head, `"a"`, "3", 1), []string{"line 3, column 8", "integer"}},
		{"table for a list", "version = 1\n[application]\nname = \"a\"\n", []string{"application no. 1 is not complete"}},
		{"no name", head + strings.Replace(head[len("version = 1\n"):], "name =", "nom =", 1), []string{"application no. 2 is not complete"}},
		{"no environment", strings.Replace(head, "environment =", "e =", 1), []string{"application no. 1 is not complete"}},
		{"no client ID", strings.Replace(head, "client_id =", "e =", 1), []string{"application no. 1 is not complete"}},
		{"redirect URI with a wildcard", head + "redirect_uri = \"http://*.example.com/cb\"\n", []string{"application no. 1", "wildcard"}},
		{"redirect URI in the clear", head + "redirect_uri = \"http://example.com/cb\"\n", []string{"application no. 1", "plain http"}},
		{"redirect URI with a port beyond all", head + "redirect_uri = \"https://host.example:99999/cb\"\n", []string{"application no. 1", "1 to 65535"}},
		{"redirect URI with a user", head + "redirect_uri = \"https://u@host.example/cb\"\n", []string{"application no. 1", "user name"}},
		{"redirect URI with a fragment", head + "redirect_uri = \"https://host.example/cb#x\"\n", []string{"application no. 1", "fragment"}},
		{"PKCE that is none", head + "pkce = \"maybe\"\n", []string{"application no. 1 is not complete"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "applications.toml")
			write(t, path, test.text)
			_, err := LoadApplications(dir)
			refused(t, err, path, test.says...)
			if strings.Contains(err.Error(), "config.") {
				t.Errorf("the error speaks of the program's own types: %v", err)
			}
			err = updateApplications(dir, func(*Applications) error {
				t.Error("it was to be changed all the same")
				return nil
			})
			refused(t, err, path, test.says...)
			if got := read(t, path); got != test.text {
				t.Errorf("the file has become\n%s", got)
			}
		})
	}
}

func TestUpdateThatFailsChangesNothing(t *testing.T) {
	dir := t.TempDir()
	update(t, dir, func(a *Applications) { a.Put(registered("a", "cie")) })
	before := read(t, filepath.Join(dir, "applications.toml"))
	no := errors.New("no")
	err := updateApplications(dir, func(a *Applications) error {
		a.Remove("a", "cie")
		return no
	})
	if !errors.Is(err, no) {
		t.Errorf("the error is %v, want %v", err, no)
	}
	if after := read(t, filepath.Join(dir, "applications.toml")); after != before {
		t.Errorf("the file has become\n%s", after)
	}
	// The lock is free again.
	update(t, dir, func(a *Applications) { a.Put(registered("b", "cie")) })
}

// Several processes learn and register at the same time; each reads what the
// one before it wrote, and who only reads sees a whole file at every instant.
func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	const writers, each = 8, 5
	dir := t.TempDir()
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := updateApplications(dir, func(a *Applications) error {
					a.Put(registered(fmt.Sprintf("app-%d-%d", w, i), "cie"))
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	reading.Go(func() {
		most := 0
		for {
			a, err := LoadApplications(dir)
			if err != nil || len(a.Applications) < most {
				t.Errorf("after %d applications there are %d, %v", most, len(a.Applications), err)
			}
			most = len(a.Applications)
			select {
			case <-done:
				return
			default:
			}
		}
	})
	writing.Wait()
	close(done)
	reading.Wait()
	a := load(t, dir)
	for w := range writers {
		for i := range each {
			if name := fmt.Sprintf("app-%d-%d", w, i); len(a.Find(name, "cie")) != 1 {
				t.Errorf("%s was lost", name)
			}
		}
	}
}

// An editor takes no lock: what a person saved meanwhile was overwritten.
func TestSaveOverwritesOnlyWhatWasRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	path := filepath.Join(dir, "applications.toml")
	register := NewRegister(dir)
	for what, meanwhile := range map[string]func(){
		"made":    func() { write(t, path, "version = 1\n") },
		"changed": func() { write(t, path, read(t, path)+"\n# a note\n") },
		"removed": func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"emptied": func() { write(t, path, "") },
		"newer":   func() { write(t, path, "version = 2\n") },
	} {
		for _, again := range []bool{false, true} {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if what != "made" {
				update(t, dir, func(a *Applications) { a.Put(registered("a", "cie")) })
			} else if again {
				continue // it is there then
			}
			var want string
			err := register.Edit(t.Context(), func(a *Applications, save func() error) error {
				if again {
					a.Put(registered("b", "cie"))
					if err := save(); err != nil {
						t.Error(err)
					}
				}
				meanwhile()
				text, _ := os.ReadFile(path)
				want = string(text)
				a.Put(registered("c", "cie"))
				return save()
			})
			if !errors.As(err, new(*ConflictError)) {
				t.Errorf("%s: %v", what, err)
			}
			if text, _ := os.ReadFile(path); string(text) != want {
				t.Errorf("%s: the file has become\n%s", what, text)
			}
		}
	}
}

// What an edit changes in place is not what others read from the same register.
func TestEditSharesNothing(t *testing.T) {
	dir := t.TempDir()
	update(t, dir, func(a *Applications) {
		a.Put(registered("a", "cie"))
		a.Default = &Default{Application: "a", Environment: "cie"}
	})
	register := NewRegister(dir)
	before, err := register.Applications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := register.Edit(t.Context(), func(a *Applications, _ func() error) error {
		a.Applications[0].ClientID, a.Default.Application = "other", "other"
		return nil // and saves nothing
	}); err != nil {
		t.Fatal(err)
	}
	now, err := register.Applications(t.Context())
	if err != nil || now.Applications[0].ClientID != "id of a" || before.Applications[0].ClientID != "id of a" || now.Default.Application != "a" {
		t.Errorf("%+v, %v", now, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := register.Applications(canceled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestPutReplacesAndFindFinds(t *testing.T) {
	var a Applications
	a.Put(registered("a", "cie"))
	a.Put(registered("a", "production"))
	a.Put(registered("b", "production"))
	rotated := registered("a", "cie")
	rotated.ClientID = "another"
	a.Put(rotated)
	for _, test := range []struct {
		name, environment string
		want              []Registration
	}{
		{"", "", []Registration{registered("a", "production"), registered("b", "production"), rotated}},
		{"a", "", []Registration{registered("a", "production"), rotated}},
		{"", "production", []Registration{registered("a", "production"), registered("b", "production")}},
		{"a", "cie", []Registration{rotated}},
		{"b", "cie", nil},
		{"A", "", nil},
	} {
		if got := a.Find(test.name, test.environment); !slices.Equal(got, test.want) {
			t.Errorf("%q in %q is %+v, want %+v", test.name, test.environment, got, test.want)
		}
	}
}

// A default that names nothing would make every command fail.
func TestRemovingTheDefaultLeavesNoDefault(t *testing.T) {
	for _, test := range []struct {
		name, environment string
		left              int
		keeps             bool
	}{
		{"a", "cie", 2, false},
		{"a", "production", 2, true},
		{"b", "cie", 2, true},
		{"c", "cie", 3, true},
	} {
		t.Run(test.name+" in "+test.environment, func(t *testing.T) {
			dir := t.TempDir()
			update(t, dir, func(a *Applications) {
				a.Put(registered("a", "cie"))
				a.Put(registered("a", "production"))
				a.Put(registered("b", "cie"))
				a.Default = &Default{Application: "a", Environment: "cie"}
			})
			update(t, dir, func(a *Applications) { a.Remove(test.name, test.environment) })
			a := load(t, dir)
			if len(a.Applications) != test.left || len(a.Find(test.name, test.environment)) != 0 {
				t.Errorf("what is left is %+v", a.Applications)
			}
			if got := a.Default != nil; got != test.keeps {
				t.Errorf("there is a default: %t, want %t", got, test.keeps)
			}
		})
	}
}

func TestReplacingTheDefaultKeepsIt(t *testing.T) {
	a := Applications{Default: &Default{Application: "a", Environment: "cie"}}
	a.Put(registered("a", "cie"))
	a.Put(registered("a", "cie"))
	if a.Default == nil {
		t.Error("there is no default any more")
	}
}

// The vault has the client secrets under these names: a changed name is a lost
// secret.
func TestSecretAccount(t *testing.T) {
	if got, want := registered("batch-suite", "cie").SecretAccount(), "app/cie/batch-suite"; got != want {
		t.Errorf("the account is %q, want %q", got, want)
	}
}

func TestBuiltinDisplayNamesAreUPSs(t *testing.T) {
	for name, want := range map[string]string{
		"intelligent-rating": "UPS® Intelligent Rating", "batch-suite": "UPS® Batch Suite", "Batch-Suite": "", "": "",
	} {
		if got := BuiltinDisplayName(name); got != want {
			t.Errorf("%q is called %q, want %q", name, got, want)
		}
	}
}

// Names in the file become names of other files and of accounts.
func TestNamesThatAreNotClean(t *testing.T) {
	for name, text := range map[string]string{
		"name":           "[[application]]\nname = \"../x\"\nenvironment = \"cie\"\nclient_id = \"c\"\n",
		"environment":    "[[application]]\nname = \"x\"\nenvironment = \"..\"\nclient_id = \"c\"\n",
		"upper case":     "[[application]]\nname = \"X\"\nenvironment = \"cie\"\nclient_id = \"c\"\n",
		"vault":          "[[application]]\nname = \"x\"\nenvironment = \"cie\"\nclient_id = \"c\"\nvault = \"../file\"\n",
		"default":        "[default]\napplication = \"a/b\"\nenvironment = \"cie\"\n",
		"line in a name": "[[application]]\nname = \"x\\ny\"\nenvironment = \"cie\"\nclient_id = \"c\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			getenv, paths := newUser(t, nil)
			write(t, filepath.Join(paths.Config, "applications.toml"), text)
			_, err := Load(getenv)
			refused(t, err, filepath.Join(paths.Config, "applications.toml"))
		})
	}
}

func FuzzApplications(f *testing.F) {
	for _, seed := range []string{
		"", "version = 2\n", "[[application]]\nname = \"x\"\nenvironment = \"cie\"\nclient_id = \"c\"\nvault = \"file\"\n",
		"[[application]]\nname = \"../x\"\nenvironment = \"cie\"\nclient_id = \"c\"\n", "[default]\napplication = \"x\"\nenvironment = \"y\"\n",
		"application = 1\n", "[[application]]\nname = \"\\u0000\"\n", "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := parseApplications(text)
		if err != nil {
			return
		}
		for _, r := range a.Applications {
			if account := r.SecretAccount(); !filepath.IsLocal(account) || strings.Count(account, "/") != 2 {
				t.Errorf("the secret would be under %q", account)
			}
		}
	})
}
