package serve

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault/agefile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rooms are sessions over directories of their own.
type rooms struct {
	*sessions
	t        *testing.T
	dir      string
	settings map[string]string
	ahead    time.Duration
	opened   int
}

func newRooms(t *testing.T) *rooms {
	t.Helper()
	r := &rooms{t: t, dir: t.TempDir()}
	r.settings = map[string]string{
		"HOME": r.dir, "USERPROFILE": r.dir, "UPSAUTH_CONFIG_DIR": filepath.Join(r.dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(r.dir, "state"), "UPSAUTH_VAULT": "file",
	}
	getenv := func(name string) string { return r.settings[name] }
	now := func() time.Time { return time.Now().Add(r.ahead) }
	r.sessions = &sessions{getenv: getenv, now: now, shut: (*session.Session).Close, open: func() (*session.Session, error) {
		r.opened++
		return session.Open(session.Options{Getenv: getenv, Now: now, Passphrase: func(context.Context, string, bool) (string, error) {
			return "", agefile.ErrNoPassphrase
		}})
	}}
	t.Cleanup(r.close)
	r.write("config/config.toml", "")
	return r
}

func (r *rooms) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	// As editors do: another file in its place.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

// want wants a session to have been opened so many times in all.
func (r *rooms) want(what string, opened int) *session.Session {
	r.t.Helper()
	s, err := r.get(r.t.Context())
	if err != nil || r.opened != opened {
		r.t.Fatalf("%s: opened %d times, want %d; %v", what, r.opened, opened, err)
	}
	return s
}

func TestSessionIsTheSameUntilSomethingChanges(t *testing.T) {
	r := newRooms(t)
	first := r.want("first", 1)
	if again := r.want("nothing changed", 1); again != first {
		t.Error("it is another one")
	}
	r.write("config/config.toml", "[refresh]\nretry_unknown_after = \"2h\"\n")
	if s := r.want("config.toml changed", 2); s.Config.RetryUnknownAfter != 2*time.Hour {
		t.Errorf("it has %s", s.Config.RetryUnknownAfter)
	}
	r.want("nothing changed again", 2)
	// Damaged, it is nobody's, and good again it is a new one's.
	r.write("config/config.toml", "vault = 7\n")
	if _, err := r.get(t.Context()); err == nil {
		t.Error("a damaged config.toml does nothing")
	}
	r.write("config/config.toml", "")
	opened := r.opened
	r.want("mended", opened+1)
	if err := os.Remove(filepath.Join(r.dir, "config", "config.toml")); err != nil {
		t.Fatal(err)
	}
	r.want("removed", opened+2)
	r.renew()
	r.want("asked for", opened+3)
	r.want("once", opened+3)
	// What opens the vault.
	r.write("state/vault/identity.age", "another passphrase")
	r.want("another identity", opened+4)
	r.settings["UPSAUTH_PASSPHRASE_FILE"] = filepath.Join(r.dir, "passphrase")
	r.renew()
	r.want("a passphrase file", opened+5)
	r.write("passphrase", "a passphrase")
	r.want("it is there", opened+6)
}

// A home that could not be opened is tried again, and not with each request.
func TestAHomeThatCouldNotBeOpenedIsTriedAgain(t *testing.T) {
	r := newRooms(t)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r.write("identity.txt", "nothing that opens a vault\n")
	r.settings["UPSAUTH_IDENTITY"] = filepath.Join(r.dir, "identity.txt")
	s := r.want("first", 1)
	if err := s.Vault.Open(t.Context(), "file"); err == nil {
		t.Fatal("it opens")
	}
	r.want("at once", 1)
	r.ahead = tryAgain
	r.want("later", 2)
	// Whoever hangs up while it is opened spoils it for nobody.
	r.write("identity.txt", identity.String()+"\n")
	s = r.want("mended", 3)
	hungUp, hangUp := context.WithCancel(t.Context())
	hangUp()
	if err := s.Vault.Open(hungUp, "file"); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("hung up: %v", err)
	}
	if err := s.Vault.Open(t.Context(), "file"); err != nil {
		t.Errorf("the next one: %v", err)
	}
	r.ahead *= 2
	r.want("it is open", 3)
}

// A home that nobody can open for days, and a file that changes all the time, fill no
// memory: a session goes once nothing can work with it any more.
func TestSessionsOfEarlierAreLetGo(t *testing.T) {
	r := newRooms(t)
	first := r.want("first", 1)
	var closed int
	r.shut = func(s *session.Session) {
		if s == first {
			closed++
		}
		s.Close()
	}
	const every = time.Minute
	for n := range 1000 {
		r.ahead += every
		r.renew()
		r.want("again", n+2)
		if n < int(mayWork/every)-1 && closed > 0 {
			t.Fatalf("it is closed after %d minutes, when a sign-in may work with it", n)
		}
		if most := int(mayWork/every) + 2; len(r.earlier) > most {
			t.Fatalf("%d sessions are kept", len(r.earlier))
		}
	}
	if closed != 1 {
		t.Errorf("the first one was closed %d times", closed)
	}
	// By a clock that was put back, those that came since are as old as they can be known to be.
	r.ahead -= 100 * time.Hour
	r.renew()
	r.want("the clock was put back", 1002)
	r.ahead += 2 * mayWork
	r.renew()
	r.want("later", 1003)
	if len(r.earlier) > 1 {
		t.Errorf("%d sessions are kept", len(r.earlier))
	}
}
