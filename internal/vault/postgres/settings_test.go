package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// noLibpq takes every setting of the person's out of a test.
func noLibpq(t testing.TB) (home string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
	home = t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("PGPASSFILE", filepath.Join(home, ".pgpass"))
	t.Setenv("PGSERVICEFILE", filepath.Join(home, ".pg_service.conf"))
	return home
}

func reasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// A database on another machine that is spoken to in the clear, or whose certificate nobody
// checks, gives the ledger to whoever is on the way.
func TestOnlyAVerifiedServerOrThisMachine(t *testing.T) {
	noLibpq(t)
	for _, test := range []struct {
		url  string
		good bool
	}{
		{"postgres://u@db.example/d?sslmode=verify-full", true},
		{"postgres://u@10.1.2.3/d?sslmode=verify-full", true},
		{"host=db.example sslmode=verify-full", true},
		{"postgres://u@db.example/d", false},
		{"postgres://u@db.example/d?sslmode=require", false},
		{"postgres://u@db.example/d?sslmode=verify-ca", false},
		{"postgres://u@db.example/d?sslmode=disable", false},
		{"postgres://u@localhost,db.example/d?sslmode=prefer", false},
		{"postgres://u@localhost.example/d", false},
		{"postgres://u@128.0.0.1/d", false},
		{"postgres://u@localhost/d", true},
		{"postgres://u@LOCALHOST./d?sslmode=disable", true},
		{"postgres://u@127.8.9.10/d?sslmode=disable", true},
		{"postgres://u@[::1]/d?sslmode=disable", true},
		{"postgres://u@/d?host=/run/postgresql", true},
		{"host=/run/postgresql dbname=d", true},
	} {
		err := Settings{URL: test.url}.Check()
		if (err == nil) != test.good {
			t.Errorf("%s: %v", test.url, err)
		}
		if err != nil && (reasonOf(err) != BadSettings || !strings.Contains(err.Error(), "verify-full")) {
			t.Errorf("%s: %v", test.url, err)
		}
	}
}

func TestLibpqsVariablesAndFilesCount(t *testing.T) {
	home := noLibpq(t)
	must(t, os.WriteFile(filepath.Join(home, ".pgpass"), []byte("127.0.0.1:6000:shop:web:from the file\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(home, ".pg_service.conf"), []byte("[shop]\nhost=127.0.0.1\nport=6000\ndbname=shop\nuser=web\n"), 0o600))
	read := func(s Settings) *pgx.ConnConfig {
		t.Helper()
		c, err := s.config()
		must(t, err)
		return c
	}
	if c := read(Settings{URL: "service=shop"}); c.Host != "127.0.0.1" || c.Port != 6000 || c.Password != "from the file" {
		t.Errorf("the service is %s:%d", c.Host, c.Port)
	}
	t.Setenv("PGHOST", "127.0.0.2")
	t.Setenv("PGPASSWORD", "from the environment")
	if c := read(Settings{}); c.Host != "127.0.0.2" || c.Password != "from the environment" {
		t.Errorf("the variables give %s", c.Host)
	}
	// What the address says counts before all that.
	if c := read(Settings{URL: "postgres://x:y@127.0.0.3/d", Private: true}); c.Host != "127.0.0.3" || c.Password != "y" {
		t.Errorf("the address gives %s", c.Host)
	}
}

func TestWhatIsSetOnEveryConnection(t *testing.T) {
	noLibpq(t)
	c, err := Settings{URL: "postgres://u@localhost/d?target_session_attrs=any&sslmode=disable"}.config()
	must(t, err)
	if c.ValidateConnect == nil || c.ConnectTimeout != connectTimeout || c.DefaultQueryExecMode != pgx.QueryExecModeExec {
		t.Errorf("the connection is %v %s %s", c.ValidateConnect, c.ConnectTimeout, c.DefaultQueryExecMode)
	}
	if c.RuntimeParams["application_name"] != "upsauth" || len(c.RuntimeParams) > 2 {
		t.Errorf("a pooler would be told %v", c.RuntimeParams)
	}
	if c.RequireAuth != "!password" {
		t.Errorf("whoever listens at the port gets the password (%q)", c.RequireAuth)
	}
}

// In a directory such as /tmp, where libpq looks by default, any user of this machine can make a
// socket of the server's name while the server is down.
func TestSocketThatAnybodyCanMake(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("its sockets have no such modes")
	}
	noLibpq(t)
	for mode, want := range map[os.FileMode]string{0o755: "", 0o775: "", 0o777 | os.ModeSticky: "!password", 0o777: "!password"} {
		dir := t.TempDir()
		must(t, os.Chmod(dir, mode))
		c, err := Settings{URL: "host=" + dir + " dbname=d user=u"}.config()
		must(t, err)
		if c.RequireAuth != want {
			t.Errorf("in a directory of mode %s the server may ask for %q, want %q", mode, c.RequireAuth, want)
		}
	}
	c, err := Settings{URL: "host=/nowhere/at/all dbname=d user=u"}.config()
	must(t, err)
	if c.RequireAuth != "!password" {
		t.Errorf("in a directory that is not there the server may ask for %q", c.RequireAuth)
	}
}

// config.toml is read by backups and colleagues.
func TestNoPasswordInTheFile(t *testing.T) {
	noLibpq(t)
	for _, url := range []string{
		"postgres://u:s3cret@localhost/d", "postgres://u@localhost/d?password=s3cret", "host=localhost password=s3cret",
		"postgres://u@localhost/d?sslpassword=s3cret", "postgres://u:s3cret@a:1,b:2/d", "host=localhost PASSWORD = s3cret",
	} {
		err := Settings{URL: url}.Check()
		if reasonOf(err) != BadSettings || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func FuzzNoErrorHasThePassword(f *testing.F) {
	noLibpq(f)
	for _, url := range []string{
		"postgres://u:s3cretpw@h:port/d", "postgres://u:s3cretpw@h/d?sslmode=strange", "postgres://u:s3cretpw@[h/d",
		"postgres://u:pw/s3cretpw@h/d", "postgres://a@u:s3cretpw@h/d", "host=h password=s3cretpw =", "password='s3cretpw", "postgres://u:%zzs3cretpw@h/d",
		"postgres://u:s3cretpw@h/d?target_session_attrs=s", "postgres://u@h:s3cretpw@h/d", "host=h port=s3cretpw", "postgres://u:s3cretpw@h/d?service=none",
		"postgres://u:s3cretpw@h/d?connect_timeout=x", "postgres://u:s3cretpw@h/d?sslrootcert=/nowhere", "postgres://u:s3cretpw@h/d?sslmode=disable",
		"postgres://u:s3cretpw@localhost,h/d?sslmode=disable", "s3cretpw", "postgres://u:s3cretpw`: @h/d?sslmode=x", "postgres:/u:s3cretpw@h/d",
	} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		if len(url) > 300 {
			t.Skip()
		}
		for _, private := range []bool{true, false} {
			err := Settings{URL: url, Private: private}.Check()
			if err != nil && strings.Contains(err.Error(), "s3cretpw") {
				t.Errorf("%q: %v", url, err)
			}
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.What == "" || e.Advice == "") {
				t.Errorf("%q: %v says nothing", url, err)
			}
		}
	})
}

func TestWhatIsWrongWithSettingsIsSaid(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the texts are the system's")
	}
	noLibpq(t)
	for url, want := range map[string]string{
		"service=none":                                "service",
		"host=localhost sslmode=strange":              "sslmode is invalid",
		"host=localhost sslrootcert=/nowhere/ca.pem":  "/nowhere/ca.pem",
		"host=localhost target_session_attrs=nowhere": "target_session_attrs",
		"host=localhost port=x":                       "understood",
		"localhost":                                   "understood",
	} {
		if err := (Settings{URL: url}).Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
