package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gokeyring "github.com/zalando/go-keyring"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/vault/keychain"
)

// dirRing is a keychain in a directory, so that it outlives the processes that use
// it, with one file for each item. It ends its process before or after its call
// number endAt, where that is not 0: nothing that would come later happens.
type dirRing struct {
	dir   string
	endAt int
	after bool
	calls int // one at a time: keychain.Home sees to that for one grant or application
}

// ringFromEnvironment is the keychain that TEST_KEYCHAIN and TEST_END_AT describe,
// nil for none.
func ringFromEnvironment() keychain.Ring {
	dir := os.Getenv("TEST_KEYCHAIN")
	if dir == "" {
		return nil
	}
	number, after := strings.CutSuffix(os.Getenv("TEST_END_AT"), "+")
	endAt, _ := strconv.Atoi(number)
	return &dirRing{dir: dir, endAt: endAt, after: after}
}

// endedThere is the exit code of a process that the ring ended.
const endedThere = 99

func (r *dirRing) call(do func() error) error {
	r.calls++
	end := r.calls == r.endAt
	if end && !r.after {
		os.Exit(endedThere)
	}
	err := do()
	if end && r.after {
		os.Exit(endedThere)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return gokeyring.ErrNotFound
	}
	return err
}

func (r *dirRing) path(account string) string { return filepath.Join(r.dir, url.PathEscape(account)) }

func (r *dirRing) Get(_, account string) (secret string, err error) {
	err = r.call(func() error {
		data, err := os.ReadFile(r.path(account))
		secret = string(data)
		return err
	})
	return secret, err
}

func (r *dirRing) Set(_, account, secret string) error {
	return r.call(func() error { return os.WriteFile(r.path(account), []byte(secret), 0o600) })
}

func (r *dirRing) Delete(_, account string) error {
	return r.call(func() error { return os.Remove(r.path(account)) })
}

// List is no step: it changes nothing.
func (r *dirRing) List(string) ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	var accounts []string
	for _, entry := range entries {
		account, err := url.PathUnescape(entry.Name())
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, account)
	}
	return accounts, err
}

// appWorld is one user's directories with such a keychain.
type appWorld struct {
	t   *testing.T
	dir string
}

func newAppWorld(t *testing.T) *appWorld {
	w := &appWorld{t: t, dir: t.TempDir()}
	for _, name := range []string{"ring", "config", "state"} {
		if err := os.Mkdir(filepath.Join(w.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// clone copies what is there into directories of their own.
func (w *appWorld) clone() *appWorld {
	w.t.Helper()
	copied := &appWorld{t: w.t, dir: filepath.Join(w.t.TempDir(), "copy")}
	if err := os.CopyFS(copied.dir, os.DirFS(w.dir)); err != nil {
		w.t.Fatal(err)
	}
	return copied
}

// run runs upsauth as a process of its own, which ends at a call of the keychain.
func (w *appWorld) run(endAt, stdin string, args ...string) (code int, output string) {
	w.t.Helper()
	cmd := exec.Command("upsauth", args...)
	cmd.Env = append(os.Environ(), "HOME="+w.dir, "USERPROFILE="+w.dir, "UPSAUTH_CONFIG_DIR="+filepath.Join(w.dir, "config"),
		"UPSAUTH_STATE_DIR="+filepath.Join(w.dir, "state"), "UPSAUTH_VAULT=keychain", "UPSAUTH_CLIENT_SECRET=",
		"TEST_KEYCHAIN="+filepath.Join(w.dir, "ring"), "TEST_END_AT="+endAt)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (w *appWorld) must(stdin string, args ...string) string {
	w.t.Helper()
	code, out := w.run("", stdin, args...)
	if code != 0 {
		w.t.Fatalf("upsauth %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// pair is the client ID that is registered and the client secret that goes out
// with it, as an export has them.
func (w *appWorld) pair() string {
	w.t.Helper()
	applications, err := config.LoadApplications(filepath.Join(w.dir, "config"))
	if err != nil {
		w.t.Fatal(err)
	}
	found := applications.Find("mine", "")
	if len(found) != 1 {
		return fmt.Sprintf("%d registrations", len(found))
	}
	env := &Env{Getenv: func(name string) string {
		return map[string]string{"HOME": w.dir, "USERPROFILE": w.dir, "UPSAUTH_CONFIG_DIR": filepath.Join(w.dir, "config"),
			"UPSAUTH_STATE_DIR": filepath.Join(w.dir, "state"), "UPSAUTH_VAULT": "keychain"}[name]
	}, Keychain: &dirRing{dir: filepath.Join(w.dir, "ring")}}
	s, err := openJob(env, false)
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	secret, err := s.StoredSecret(w.t.Context(), found[0])
	if err != nil {
		return err.Error()
	}
	return found[0].ClientID + " " + secret
}

// items are the accounts in the keychain.
func (w *appWorld) items() []string {
	w.t.Helper()
	accounts, err := (&dirRing{dir: filepath.Join(w.dir, "ring")}).List("")
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(accounts)
	return accounts
}

// A registration that is replaced is cut off at every call of the keychain, before
// and after it. A client ID with another client's secret shows only when the next
// refresh is refused, so the two are one pair at every instant, also before anybody
// finishes what was cut off; and afterwards nothing is left.
func TestAppAddThatIsCutOffKeepsThePair(t *testing.T) {
	add := func(id string) []string {
		return []string{"app", "add", "mine", "--env", "sandbox", "--client-id", id, "--redirect-uri", "http://localhost:0/", "--client-secret-stdin"}
	}
	for name, command := range map[string]struct {
		stdin string
		args  []string
		want  string // the new pair
		none  bool   // nothing was registered before
	}{
		"another client":     {"secret-b\n", add("b"), "b secret-b", false},
		"another secret":     {"secret-b\n", add("a"), "a secret-b", false},
		"the same again":     {"secret-a\n", add("a"), "a secret-a", false},
		"a first one":        {"secret-b\n", add("b"), "b secret-b", true},
		"only the secret":    {"secret-b\n", []string{"app", "set-secret", "mine", "--client-secret-stdin"}, "a secret-b", false},
		"removed altogether": {"", []string{"app", "remove", "mine", "--yes"}, "0 registrations", false},
	} {
		finishers := [][]string{{"doctor"}}
		if name == "another client" {
			finishers = append(finishers, []string{"refresh"}, []string{"vault", "check", "--repair", "--yes"})
		}
		for _, finisher := range finishers {
			t.Run(name+", then "+strings.Join(finisher, " "), func(t *testing.T) {
				t.Parallel()
				base, before := newAppWorld(t), "0 registrations"
				if !command.none {
					base.must("secret-a\n", add("a")...)
					before = "a secret-a"
				}
				if got := base.pair(); got != before {
					t.Fatalf("before: %s", got)
				}
				for n := 1; ; n++ {
					ended := false
					for _, at := range []string{fmt.Sprint(n), fmt.Sprintf("%d+", n)} {
						w := base.clone()
						code, out := w.run(at, command.stdin, command.args...)
						if code != endedThere {
							if got := w.pair(); code != 0 || got != command.want {
								t.Fatalf("not cut off: exit code %d, %s\n%s", code, got, out)
							}
							continue
						}
						ended = true
						now := w.pair()
						if now != before && now != command.want {
							t.Errorf("cut off at %s: %s", at, now)
						}
						_, out = w.run("", "", finisher...)
						if got := w.pair(); got != now {
							t.Errorf("cut off at %s: %s, and finished it is %s\n%s", at, now, got, out)
						}
						want := []string{"app/sandbox/mine"}
						if strings.HasPrefix(now, "0 ") {
							want = nil
						}
						if got := w.items(); !slices.Equal(got, want) {
							t.Errorf("cut off at %s: the keychain has %q\n%s", at, got, out)
						}
						if left, _ := filepath.Glob(filepath.Join(w.dir, "state", "unfinished", "*")); len(left) > 0 {
							t.Errorf("cut off at %s: %q is left\n%s", at, left, out)
						}
					}
					if !ended {
						return
					}
				}
			})
		}
	}
}
