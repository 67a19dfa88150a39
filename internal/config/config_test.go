package config

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/ups"
)

// newUser returns the environment of a user with directories of their own,
// which are there when the test writes to them.
func newUser(t *testing.T, variables map[string]string) (getenv func(string) string, paths Paths) {
	t.Helper()
	dir := t.TempDir()
	paths = Paths{Config: filepath.Join(dir, "config"), State: filepath.Join(dir, "state")}
	return func(name string) string {
		switch name {
		case EnvConfigDir:
			return paths.Config
		case EnvStateDir:
			return paths.State
		}
		return variables[name]
	}, paths
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// refused wants an *Error about a path, on one line, with some words in it.
func refused(t *testing.T, err error, path string, says ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("the error is %#v, want an *Error", err)
	}
	if e.Path != path {
		t.Errorf("the error is about %s, want %s", e.Path, path)
	}
	if text := err.Error(); !strings.HasPrefix(text, path+" can't be used: ") || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("the error is not one line about its file: %q", text)
	}
	for _, want := range says {
		if !strings.Contains(e.Err.Error(), want) {
			t.Errorf("the error is %q, want %q in it", e.Err, want)
		}
	}
}

// unshared is what is known of a shared vault where nothing is set.
func unshared(t *testing.T) Shared {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return Shared{Host: name, TakeOverAfter: 10 * time.Minute}
}

func TestLoadWithoutAnyFile(t *testing.T) {
	getenv, paths := newUser(t, nil)
	got, err := Load(getenv)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Paths: paths, Vault: "keychain", RetryUnknownAfter: time.Minute, Environments: ups.BuiltinEnvironments(), Shared: unshared(t)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the configuration is\n%+v, want\n%+v", got, want)
	}
	if _, err := os.Stat(paths.Config); !os.IsNotExist(err) {
		t.Errorf("reading made a directory: %v", err)
	}
}

func TestLoad(t *testing.T) {
	// No variable of these users names their home, so it is the user database's.
	account, err := user.Current()
	if err != nil {
		realpart.Missing(t, err)
	}
	home := account.HomeDir
	lab := ups.Environment{Name: "lab", BaseURL: "https://ups.lab.example/api", Origin: "https://ups.lab.example/api"}
	local := ups.Environment{Name: "local-1", BaseURL: "http://127.0.0.1:8080", Origin: "http://127.0.0.1:8080"}
	for _, test := range []struct {
		name, text string
		variables  map[string]string
		want       Config // what differs from the default
	}{
		{name: "empty"},
		{name: "comments and empty tables", text: "# nothing\n[refresh]\n[environments]\n"},
		{name: "byte order mark", text: "\ufeffvault = \"file\"\n", want: Config{Vault: "file"}},
		{name: "Windows line ends", text: "vault = \"file\"\r\nidentity = '/keys/\\id'\r\n", want: Config{Vault: "file", Identity: `/keys/\id`}},
		{name: "vault keychain", text: `vault = "keychain"`},
		{name: "everything", text: `
vault = "file"
identity = "/keys/id.txt"
[refresh]
retry_unknown_after = "1m30s"
[environments.local-1]
base_url = "http://127.0.0.1:8080/"
[environments.lab]
base_url = "https://ups.lab.example/api"
`, want: Config{Vault: "file", Identity: "/keys/id.txt", RetryUnknownAfter: 90 * time.Second, Environments: []ups.Environment{lab, local}}},
		{name: "callback", text: "[callback]\nlisten = \"127.0.0.1:8400\"\ntls_cert = \"cert.pem\"\ntls_key = \"/k.pem\"\n",
			want: Config{Callback: Callback{Listen: "127.0.0.1:8400", TLSCert: "config/cert.pem", TLSKey: "/k.pem"}}},
		{name: "serve", text: "[serve]\nlisten = \"localhost:9000\"\nmanager_url = \"https://upsauth.agency.example\"\npublic_listen = \"0.0.0.0:8489\"\npublic_url = \"https://auth.agency.example/ups\"\nfrom = \"Agency GmbH\"\ncontact = \"+49 30 123\"\nreturn_urls = [\"https://shop.example/done\"]\n[events]\ncommand = [\"/usr/local/bin/tell\", \"--json\"]\n",
			want: Config{
				Serve: Serve{Listen: "localhost:9000", ManagerURL: "https://upsauth.agency.example", PublicListen: "0.0.0.0:8489", PublicURL: "https://auth.agency.example/ups",
					From: "Agency GmbH", Contact: "+49 30 123", ReturnURLs: []string{"https://shop.example/done"}},
				Events: Events{Command: []string{"/usr/local/bin/tell", "--json"}},
			}},
		{name: "dotted keys", text: "refresh.retry_unknown_after = \"2h\"\nenvironments.lab.base_url = \"https://ups.lab.example/api\"\n",
			want: Config{RetryUnknownAfter: 2 * time.Hour, Environments: []ups.Environment{lab}}},
		{name: "at once", text: "[refresh]\nretry_unknown_after = \"0s\"\n", want: Config{RetryUnknownAfter: -1}},
		{name: "identity at home", text: `identity = "~/keys/id.txt"`, want: Config{Identity: filepath.Join(home, "keys/id.txt")}},
		{name: "identity of somebody else", text: `identity = "~jane/id.txt"`, want: Config{Identity: "config/~jane/id.txt"}},
		{name: "identity beside the file", text: `identity = "id.txt"`, want: Config{Identity: "config/id.txt"}},
		{name: "vault by the environment", text: `vault = "keychain"`, variables: map[string]string{EnvVault: "file"}, want: Config{Vault: "file"}},
		{name: "identity by the environment", text: `identity = "/keys/id.txt"`, variables: map[string]string{EnvIdentity: "~/other"},
			want: Config{Identity: filepath.Join(home, "other")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			getenv, paths := newUser(t, test.variables)
			write(t, filepath.Join(paths.Config, "config.toml"), test.text)
			got, err := Load(getenv)
			if err != nil {
				t.Fatal(err)
			}
			want := Config{Paths: paths, Vault: "keychain", Identity: test.want.Identity, RetryUnknownAfter: time.Minute}
			if rest, ok := strings.CutPrefix(want.Identity, "config/"); ok {
				want.Identity = filepath.Join(paths.Config, rest)
			}
			if test.want.Vault != "" {
				want.Vault = test.want.Vault
			}
			if test.want.RetryUnknownAfter != 0 {
				want.RetryUnknownAfter = max(0, test.want.RetryUnknownAfter)
			}
			want.Callback, want.Serve, want.Events, want.Shared = test.want.Callback, test.want.Serve, test.want.Events, unshared(t)
			if rest, ok := strings.CutPrefix(want.Callback.TLSCert, "config/"); ok {
				want.Callback.TLSCert = filepath.Join(paths.Config, rest)
			}
			want.Environments = append(ups.BuiltinEnvironments(), test.want.Environments...)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the configuration is\n%+v, want\n%+v", got, want)
			}
		})
	}
}

// A misspelt or misunderstood setting must not be without effect, and whoever
// wrote it must find the place.
func TestLoadRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, test := range []struct {
		name, text string
		says       []string
	}{
		{"unknown setting", "vault = \"file\"\n\nvalut = \"file\"\n", []string{"line 3", `"valut" is not a setting`}},
		{"unknown setting in a table", "[refresh]\nretry_after = \"60s\"\n", []string{"line 2", `"refresh.retry_after" is not a setting`}},
		{"unknown setting of an environment", "[environments.lab]\nbase_url = \"https://x.example\"\nurl = \"x\"\n", []string{"line 3", `"environments.lab.url"`}},
		{"unknown table", "[vaults]\n", []string{"line 1", `"vaults"`}},
		{"unknown setting of two lines", "\"a\\nb\" = 1\n", []string{"line 1", `"a\nb"`}},
		{"settings are lower case", "Vaults = \"file\"\n", []string{"line 1", `"Vaults"`}},

		{"string without end", "vault = \"file\"\nidentity = \"/keys\n", []string{"line 2, column 18"}},
		{"table without end", "\n[refresh\n", []string{"line 2, column 9"}},
		{"no value", "vault =\n", []string{"line 1, column "}},
		{"no TOML", "vault: file\n", []string{"line 1, column "}},
		{"not UTF-8", "vault = \"\xff\"\n", []string{"line 1, column "}},
		{"binary", "\x7fELF\x02\x01\x01\x00", []string{"line 1, column 1"}},
		{"setting twice", "vault = \"file\"\nvault = \"keychain\"\n", []string{"line 2, column 1", "vault"}},
		{"setting of two lines twice", "\"a\\nb\" = 1\n\"a\\nb\" = 2\n", []string{"line 2, column 1"}},

		{"number for a string", "vault = 3\n", []string{"line 1, column 9", "integer"}},
		{"list for a string", "identity = [\"a\"]\n", []string{"line 1, column 12", "array"}},
		{"number for a duration", "[refresh]\nretry_unknown_after = 60\n", []string{"line 2, column 23", "integer"}},
		{"string for a table", "environments = \"lab\"\n", []string{"line 1, column 16", "string"}},
		{"string for an environment", "[environments]\nlab = \"https://x.example\"\n", []string{"line 2, column 7", "string"}},
		{"tables for a table", "[[refresh]]\n", []string{"line 1, column 3"}},

		{"unknown vault", `vault = "Keychain"`, []string{`"Keychain" is not a vault: use keychain, file or shared`}},
		{"no duration", "[refresh]\nretry_unknown_after = \"60\"\n", []string{`retry_unknown_after = "60" is not a duration such as "60s"`}},
		{"negative duration", "[refresh]\nretry_unknown_after = \"-1s\"\n", []string{`retry_unknown_after = "-1s"`}},
		{"plain http", "[environments.lab]\nbase_url = \"http://ups.lab.example\"\n", []string{`"lab"`, "plain http"}},
		{"no base_url", "[environments.lab]\n", []string{`base_url of environment "lab"`}},
		{"no URL", "[environments.lab]\nbase_url = \"ups.lab.example\"\n", []string{`"lab" is not a URL`}},
		{"production again", "[environments.production]\nbase_url = \"https://evil.example\"\n", []string{`"production" is built in`}},
		{"cie again", "[environments.cie]\nbase_url = \"https://evil.example\"\n", []string{`"cie" is built in`}},
		{"sandbox again", "[environments.sandbox]\nbase_url = \"http://127.0.0.1:1\"\n", []string{`"sandbox" is built in`}},
		{"name that no flag could say", "[environments.\"Lab 1\"]\nbase_url = \"https://x.example\"\n", []string{`"Lab 1" can't be the name of an environment`}},
		{"unknown setting of serve", "[serve]\nlisten = \"127.0.0.1:8488\"\nport = 1\n", []string{"line 3", `"serve.port"`}},
		{"manager beyond loopback", "[serve]\nlisten = \"0.0.0.0:8488\"\n", []string{"listen of [serve]", "is not on loopback", "the company manager"}},
		{"manager without a host", "[serve]\nlisten = \":8488\"\n", []string{"listen of [serve]", "is not on loopback"}},
		{"manager without a port", "[serve]\nlisten = \"localhost\"\n", []string{"listen of [serve]", "is not host:port"}},
		{"manager_url in the clear", "[serve]\nmanager_url = \"http://upsauth.agency.example\"\n", []string{"manager_url of [serve]", "is not an address such as https://"}},
		{"manager_url with a path", "[serve]\nmanager_url = \"https://agency.example/upsauth\"\n", []string{"manager_url of [serve]", "has a path"}},
		{"manager_url with a name", "[serve]\nmanager_url = \"https://jane@agency.example\"\n", []string{"manager_url of [serve]"}},
		{"public_listen without a port", "[serve]\npublic_listen = \"0.0.0.0\"\n", []string{"public_listen of [serve]", "is not host:port"}},
		{"public_url with a query", "[serve]\npublic_url = \"https://auth.example/?a\"\n", []string{"public_url of [serve]"}},
		{"return_urls in the clear", "[serve]\nreturn_urls = [\"https://a.example\", \"http://shop.example\"]\n", []string{"return_urls of [serve]", "shop.example"}},
		{"from of two lines", "[serve]\nfrom = \"a\\nb\"\n", []string{"from of [serve]", "one line"}},
		{"no command", "[events]\ncommand = []\n", []string{"command of [events] names no program"}},
		{"command in PATH", "[events]\ncommand = [\"tell\"]\n", []string{"command of [events]", "not a full path"}},
		{"command in one string", "[events]\ncommand = \"/bin/tell --json\"\n", []string{"line 2, column 11", "string"}},
		{"name of two lines", "[environments.\"a\\nb\"]\nbase_url = \"https://x.example\"\n", []string{`"a\nb" can't be the name`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			getenv, paths := newUser(t, nil)
			path := filepath.Join(paths.Config, "config.toml")
			write(t, path, test.text)
			_, err := Load(getenv)
			refused(t, err, path, test.says...)
			if text := err.Error(); strings.Contains(text, "struct {") || strings.Contains(text, "config.file") {
				t.Errorf("the error speaks of the program's own types: %v", err)
			}
		})
	}
}

func TestLoadRefusesAnUnknownVaultInTheEnvironment(t *testing.T) {
	getenv, _ := newUser(t, map[string]string{EnvVault: "clear"})
	_, err := Load(getenv)
	refused(t, err, EnvVault, `"clear" is not a vault`)
}

func TestLoadRefusesWhatCannotBeRead(t *testing.T) {
	getenv, paths := newUser(t, nil)
	path := filepath.Join(paths.Config, "config.toml")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Load(getenv)
	refused(t, err, path)
}

// Whoever can write in these directories can send the tokens to a host of
// theirs.
func TestLoadRefusesDirectoriesThatOthersCanWrite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has access lists, no modes")
	}
	for _, test := range []struct {
		mode os.FileMode
		ok   bool
	}{{0o700, true}, {0o755, true}, {0o702, false}, {0o777, false}} {
		for _, which := range []func(Paths) string{func(p Paths) string { return p.Config }, func(p Paths) string { return p.State }} {
			getenv, paths := newUser(t, nil)
			dir := which(paths)
			t.Run(filepath.Base(dir)+" "+test.mode.String(), func(t *testing.T) {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(dir, test.mode); err != nil {
					t.Fatal(err)
				}
				_, err := Load(getenv)
				if test.ok {
					if err != nil {
						t.Error(err)
					}
					return
				}
				var open *safefile.PermissionError
				if !errors.As(err, &open) {
					t.Fatalf("the error is %#v, want a *safefile.PermissionError", err)
				}
				refused(t, err, dir, "Run: "+open.Remedy)
				if text, err := exec.Command("sh", "-c", open.Remedy).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", open.Remedy, err, text)
				}
				if _, err := Load(getenv); err != nil {
					t.Errorf("after %s it is %v", open.Remedy, err)
				}
			})
		}
	}
}

func TestFindPathsWithoutVariablesIsTheUsersOwn(t *testing.T) {
	paths, err := FindPaths(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{paths.Config, paths.State} {
		if !filepath.IsAbs(path) || filepath.Base(path) != "upsauth" {
			t.Errorf("%q is no directory for upsauth", path)
		}
	}
}

func TestEnvironmentsByName(t *testing.T) {
	c, err := parse([]byte("[environments.lab]\nbase_url = \"https://ups.lab.example\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.EnvironmentNames(), []string{"production", "cie", "lab", "sandbox"}; !slices.Equal(got, want) {
		t.Errorf("the environments are %q, want %q", got, want)
	}
	for name, want := range map[string]string{
		"production": "https://onlinetools.ups.com", "cie": "https://wwwcie.ups.com", "lab": "https://ups.lab.example",
		"sandbox": "", "Production": "", "": "",
	} {
		if got, ok := c.Environment(name); got.BaseURL != want || ok != (want != "") {
			t.Errorf("%q is %q, %t; want %q", name, got.BaseURL, ok, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "vault = \"file\"\n", "[refresh]\nretry_unknown_after = \"60s\"\n", "[environments.lab]\nbase_url = \"https://x.example/\"\n",
		"vault = 3\n", "[refresh\n", "vault = \"shared\"\n[shared]\nurl = \"host=/tmp\"\nhost = \" web \"\ntake_over_after = \"never\"\n", "\"a\\nb\" = 1\n\"a\\nb\" = 2\n", "[[environments]]\n", "environments.lab = {base_url = \"http://[::1]\"}",
		"[serve]\nlisten = \"127.0.0.1:1\"\nmanager_url = \"https://[::1]\"\nfrom = \"\u2028\"\n[events]\ncommand = [\"/a\", \"b\"]\n",
		"a.b.c = [1, {d = 1979-05-27T07:32:00Z}]", "identity = '''\nx'''", "\xff\x00", "vault = \"\\uD800\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parse(text)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("the error is not one line: %q", err)
			}
			return
		}
		if c.Vault != "keychain" && c.Vault != "file" && c.Vault != "shared" {
			t.Errorf("the vault is %q", c.Vault)
		}
		if c.Shared.TakeOverAfter < time.Minute || strings.TrimSpace(c.Shared.Host) != c.Shared.Host || strings.ContainsFunc(c.Shared.URL, unicode.IsControl) {
			t.Errorf("the shared vault is %+v", c.Shared)
		}
		if c.RetryUnknownAfter < 0 {
			t.Errorf("retry_unknown_after is %s", c.RetryUnknownAfter)
		}
		seen := map[string]bool{Sandbox: true}
		for _, e := range c.Environments {
			if seen[e.Name] {
				t.Errorf("the environment %q is there twice", e.Name)
			}
			seen[e.Name] = true
			if again, err := ups.NewEnvironment(e.Name, e.BaseURL); err != nil || again != e {
				t.Errorf("the environment %+v would not be taken: %v", e, err)
			}
		}
		for _, builtin := range ups.BuiltinEnvironments() {
			if got, _ := c.Environment(builtin.Name); got != builtin {
				t.Errorf("%s is %+v", builtin.Name, got)
			}
		}
	})
}

func TestFindSocket(t *testing.T) {
	long := "/" + strings.Repeat("a", 100)
	for _, test := range []struct{ value, want, says string }{
		{"", "", ""},
		{"/run/upsauth/serve.sock", "/run/upsauth/serve.sock", ""},
		{long[:100], long[:100], ""},
		{long, "", "101 bytes"},
		{"serve.sock", "", "not a full path"},
	} {
		if runtime.GOOS == "windows" {
			t.Skip("there it is an address")
		}
		got, err := FindSocket(func(string) string { return test.value })
		if got != test.want || (err == nil) != (test.says == "") {
			t.Errorf("%q is %q, %v", test.value, got, err)
		}
		if test.says != "" {
			refused(t, err, EnvSocket, test.says)
		}
	}
}
