package agefile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	key    = "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA"
	secret = `{"access_token":"access-s3cret","refresh_token":"refresh-s3cret"}`
)

var _ vault.Home = New("", "")

// newIdentity writes an age identity and returns the path.
func newIdentity(t *testing.T) string {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return writeIdentity(t, "# created for a test\n# public key: "+identity.Recipient().String()+"\n"+identity.String()+"\n")
}

func writeIdentity(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identity.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newHome(t *testing.T) (h *Home, dir, identity string) {
	t.Helper()
	dir, identity = filepath.Join(t.TempDir(), "vault"), newIdentity(t)
	return New(dir, identity), dir, identity
}

func mustPut(t *testing.T, h *Home, account, secret string) {
	t.Helper()
	if err := h.Put(t.Context(), account, 1, []byte(secret)); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t *testing.T, h *Home, account string) string {
	t.Helper()
	got, err := h.Get(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func advises(e *vault.HomeError, act vault.Act) bool { return slices.Contains(e.Do, act) }

func homeError(t *testing.T, err error) *vault.HomeError {
	t.Helper()
	var e *vault.HomeError
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want a *vault.HomeError", err, err)
	}
	if e.Home != "file" || e.TimedOut || errors.Is(err, vault.ErrNoItem) {
		t.Errorf("the error is %+v", e)
	}
	if strings.Contains(fmt.Sprintf("%+v", e), "s3cret") || strings.Contains(e.What, "AGE-SECRET") {
		t.Errorf("the error has a secret in it: %+v", e)
	}
	return e
}

// files lists what lies below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(dir, path)
			found = append(found, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}

func TestRoundTrip(t *testing.T) {
	h, dir, identity := newHome(t)
	accounts := []string{key, key + "/journal", key + "/probe", "app/production/batch-suite", "app/production/intelligent-rating"}
	for _, account := range accounts {
		if _, err := h.Get(t.Context(), account); !errors.Is(err, vault.ErrNoItem) {
			t.Errorf("%s before it is there: %v", account, err)
		}
		for _, size := range []int{0, 1, 2000, 200_000} {
			want := account + strings.Repeat("\x00é😀\n", size/8)
			mustPut(t, h, account, want)
			// A later command opens the same.
			for _, home := range []*Home{h, New(dir, identity)} {
				if got := mustGet(t, home, account); got != want {
					t.Errorf("%s: %d bytes came back of %d", account, len(got), len(want))
				}
			}
		}
	}
	want := []string{key + ".age", "journal/" + key + ".age", "probe/" + key + ".age", "app/production/batch-suite.age", "app/production/intelligent-rating.age"}
	if got := files(t, dir); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("the files are %q", got)
	}
	for i, account := range accounts {
		for range 2 { // the second finds nothing, which is no error
			if err := h.Delete(t.Context(), account); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.Get(t.Context(), account); !errors.Is(err, vault.ErrNoItem) {
			t.Errorf("%s after it was deleted: %v", account, err)
		}
		if left := files(t, dir); len(left) != len(accounts)-i-1 {
			t.Errorf("after %s was deleted there are %q", account, left)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, key)); !os.IsNotExist(err) {
		t.Errorf("a grant's empty directory is left: %v", err)
	}
}

func TestNoPlaintextOnDisk(t *testing.T) {
	h, dir, _ := newHome(t)
	for _, account := range []string{key, key + "/journal", "app/production/batch-suite"} {
		mustPut(t, h, account, secret)
		mustPut(t, h, account, secret+" ")
	}
	for _, name := range files(t, dir) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("s3cret")) || !bytes.HasPrefix(content, []byte("age-encryption.org/v1\n")) {
			t.Errorf("%s is no age file: %.60q", name, content)
		}
	}
}

// Who reads while another command writes gets the old secret or the new one.
func TestReadersSeeWholeSecrets(t *testing.T) {
	h, dir, identity := newHome(t)
	secrets := []string{strings.Repeat("old", 30_000), strings.Repeat("newer", 50_000)}
	mustPut(t, h, key, secrets[0])
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			reader := New(dir, identity)
			for {
				select {
				case <-stop:
					return
				default:
				}
				start := time.Now()
				got, err := reader.Get(t.Context(), key)
				if runtime.GOOS == "windows" { // as in safefile's test
					time.Sleep(max(5*time.Millisecond, 10*time.Since(start)))
				}
				if err != nil || !slices.Contains(secrets, string(got)) {
					t.Errorf("a reader got %d bytes, %v", len(got), err)
					return
				}
			}
		})
	}
	for n := range 20 {
		mustPut(t, h, key, secrets[n%2])
	}
	close(stop)
	readers.Wait()
}

// The client secrets of one environment share a directory, which goes with the
// last of them.
func TestNeighboursComeAndGoAtOnce(t *testing.T) {
	_, dir, identity := newHome(t)
	var users sync.WaitGroup
	for n := range 3 {
		users.Go(func() {
			h, account := New(dir, identity), fmt.Sprint("app/production/", n)
			for range 25 {
				if err := h.Put(t.Context(), account, 0, []byte(account)); err != nil {
					t.Error(err)
				}
				if got, err := h.Get(t.Context(), account); err != nil || string(got) != account {
					t.Errorf("%s: %q, %v", account, got, err)
				}
				if err := h.Delete(t.Context(), account); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
}

// A process cut off within a write leaves a file with a name of its own.
func TestLeftoversOfACutOffWriteAreNoItems(t *testing.T) {
	h, dir, _ := newHome(t)
	mustPut(t, h, key, secret)
	if err := os.WriteFile(filepath.Join(dir, "."+key+".age123"), []byte("age-encryp"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, h, key); got != secret {
		t.Errorf("there is %q", got)
	}
	mustPut(t, h, key, "new")
	if got := mustGet(t, h, key); got != "new" {
		t.Errorf("there is %q", got)
	}
}

func TestDamagedFile(t *testing.T) {
	whole := func(t *testing.T) []byte {
		h, dir, _ := newHome(t)
		mustPut(t, h, key, secret)
		content, err := os.ReadFile(filepath.Join(dir, key+".age"))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}(t)
	header := bytes.LastIndex(whole, []byte("---"))
	changed := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	for name, damage := range map[string]func([]byte) []byte{
		"empty":                   func([]byte) []byte { return nil },
		"cut within the header":   func(b []byte) []byte { return b[:header/2] },
		"cut after the header":    func(b []byte) []byte { return b[:header+50] },
		"last byte missing":       func(b []byte) []byte { return b[:len(b)-1] },
		"a byte too many":         func(b []byte) []byte { return append(b, 'x') },
		"first byte changed":      changed(0),
		"MAC changed":             changed(header + 10),
		"last byte changed":       changed(len(whole) - 1),
		"overwritten with zeroes": func(b []byte) []byte { return make([]byte, len(b)) },
		"not an age file":         func([]byte) []byte { return []byte(secret) },
		"armored":                 func([]byte) []byte { return []byte("-----BEGIN AGE ENCRYPTED FILE-----\n") },
	} {
		t.Run(name, func(t *testing.T) {
			h, dir, _ := newHome(t)
			mustPut(t, h, key, secret)
			mustPut(t, h, "app/production/other", "unharmed")
			path := filepath.Join(dir, key+".age")
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = h.Get(t.Context(), key)
			e := homeError(t, err)
			if !e.Damaged || !strings.Contains(e.What, path) || !advises(e, vault.Authorize) {
				t.Errorf("got %+v", e)
			}
			if got := mustGet(t, h, "app/production/other"); got != "unharmed" {
				t.Errorf("the neighbour has %q", got)
			}
			mustPut(t, h, key, secret)
			if got := mustGet(t, h, key); got != secret {
				t.Errorf("written anew, there is %q", got)
			}
		})
	}
}

func TestWrongIdentity(t *testing.T) {
	h, dir, identity := newHome(t)
	mustPut(t, h, key, secret)
	other := newIdentity(t)
	_, err := New(dir, other).Get(t.Context(), key)
	e := homeError(t, err)
	// It must not be called damaged: with the right identity all is well.
	if e.Damaged || !strings.Contains(e.What, other) || !strings.Contains(e.What, key) || !advises(e, vault.OtherIdentity) {
		t.Errorf("got %+v", e)
	}
	if strings.Contains(e.Error(), "\n") {
		t.Errorf("it is more than one line: %q", e.Error())
	}
	if got := mustGet(t, New(dir, identity), key); got != secret {
		t.Errorf("with the right one there is %q", got)
	}
}

// An identity file that was rotated keeps the old identity behind the new one:
// what was written before is still read, what is written now needs the first.
func TestSeveralIdentitiesInOneFile(t *testing.T) {
	h, dir, old := newHome(t)
	mustPut(t, h, key, secret)
	fresh := newIdentity(t)
	both := writeIdentity(t, read(t, fresh)+read(t, old))
	rotated := New(dir, both)
	if got := mustGet(t, rotated, key); got != secret {
		t.Errorf("there is %q", got)
	}
	mustPut(t, rotated, key, "written anew")
	if got := mustGet(t, New(dir, fresh), key); got != "written anew" {
		t.Errorf("there is %q", got)
	}
	_, err := New(dir, old).Get(t.Context(), key)
	homeError(t, err)
}

func TestHybridIdentity(t *testing.T) {
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	h := New(filepath.Join(t.TempDir(), "vault"), writeIdentity(t, identity.String()+"\n"))
	mustPut(t, h, key, secret)
	if got := mustGet(t, h, key); got != secret {
		t.Errorf("there is %q", got)
	}
}

func TestSSHIdentity(t *testing.T) {
	dir, identity := filepath.Join(t.TempDir(), "vault"), writeIdentity(t, sshKey(t, "ed25519"))
	mustPut(t, New(dir, identity), key, secret)
	if got := mustGet(t, New(dir, identity), key); got != secret {
		t.Errorf("there is %q", got)
	}
	for name, other := range map[string]string{"another SSH key": writeIdentity(t, sshKey(t, "ed25519")), "an age identity": newIdentity(t)} {
		_, err := New(dir, other).Get(t.Context(), key)
		if e := homeError(t, err); e.Damaged || !strings.Contains(e.What, other) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestIdentityThatCantBeUsed(t *testing.T) {
	none, directory := filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "directory")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		what       []string // in the sentence
		advice     []string
	}{
		{"not named", "", []string{"no identity"}, []string{"make-file-vault"}},
		{"not there", none, []string{none}, []string{"readable-identity"}},
		{"a directory", directory, []string{directory}, []string{"readable-identity"}},
		{"empty", writeIdentity(t, ""), []string{"no age identity"}, []string{"AGE-SECRET-KEY-1"}},
		{"only comments", writeIdentity(t, "# public key: age1xyz\n"), []string{"no age identity"}, []string{"AGE-SECRET-KEY-1"}},
		{"a recipient", writeIdentity(t, "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n"), []string{"not an age identity"}, nil},
		{"garbled", writeIdentity(t, "AGE-SECRET-KEY-1s3cret\n"), []string{"not an age identity"}, nil},
		{"a plugin's", writeIdentity(t, "AGE-PLUGIN-YUBIKEY-1s3cret\n"), []string{"not an age identity"}, nil},
		{"not text", writeIdentity(t, "\xff\xfe\x00"), []string{"not an age identity"}, nil},
		{"an SSH key of another kind", writeIdentity(t, sshKey(t, "ecdsa")), []string{"SSH"}, []string{"ed25519"}},
		{"a broken SSH key", writeIdentity(t, "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cret\n-----END OPENSSH PRIVATE KEY-----\n"), []string{"SSH private key"}, []string{"ed25519"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "vault")
			h := New(dir, test.path)
			_, getErr := h.Get(t.Context(), key)
			if test.path == "" {
				// Nothing has been put there yet, so nothing is missing.
				if !errors.Is(getErr, vault.ErrNoItem) {
					t.Errorf("it reads %v", getErr)
				}
				getErr = h.Put(t.Context(), key, 1, []byte(secret))
			}
			for _, err := range []error{getErr, h.Put(t.Context(), key, 1, []byte(secret))} {
				e := homeError(t, err)
				for _, want := range test.what {
					if !strings.Contains(e.What, want) {
						t.Errorf("it says %q, without %q", e.What, want)
					}
				}
				for _, want := range test.advice {
					if !strings.Contains(e.Advice, want) && !advises(e, vault.Act(want)) {
						t.Errorf("it advises %q by %q, without %q", e.Advice, e.Do, want)
					}
				}
			}
			if got := files(t, dir); len(got) != 0 {
				t.Errorf("something was written: %q", got)
			}
			// What was encrypted to it can still be removed.
			for _, err := range []error{h.CanDelete(t.Context(), key), h.Delete(t.Context(), key)} {
				if err != nil && !errors.Is(err, vault.ErrNoItem) {
					t.Error(err)
				}
			}
		})
	}
}

func TestDirectoryThatCantBeUsed(t *testing.T) {
	file := writeIdentity(t, "in the way")
	h := New(filepath.Join(file, "vault"), newIdentity(t))
	homeError(t, h.Put(t.Context(), key, 1, []byte(secret)))
	if runtime.GOOS == "windows" {
		return // which does not tell a path through a file from one that is missing
	}
	_, getErr := h.Get(t.Context(), key)
	homeError(t, getErr)
	homeError(t, h.Delete(t.Context(), key))
}

// FuzzParseIdentity guards the file that people write by hand: nothing in it
// may crash a command, be repeated in an error, or make a vault that can be
// written and not read.
func FuzzParseIdentity(f *testing.F) {
	x25519, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"", "\n", "# comment\n", x25519.String(), x25519.String() + "\r\n", "# c\n\n" + x25519.String() + "\n" + hybrid.String() + "\n",
		hybrid.String() + "\n" + x25519.String(), x25519.Recipient().String(), "\ufeff" + x25519.String(), " " + x25519.String(),
		strings.ToLower(x25519.String()), "AGE-PLUGIN-X-1QQQQ", "-----BEGIN OPENSSH PRIVATE KEY-----", "  -----BEGIN", "-----BEGIN AGE ENCRYPTED FILE-----\n",
		sshKey(f, "ed25519"), sshKey(f, "ecdsa"), sshKey(f, "ed25519")[:200],
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		identities, recipients, err := ParseIdentity(text)
		if err != nil {
			if len(identities)+len(recipients) != 0 {
				t.Error("there are identities beside the error")
			}
			for line := range strings.Lines(string(text)) {
				if line = strings.TrimSpace(line); len(line) > 16 && strings.Contains(err.Error(), line) {
					t.Errorf("the error repeats the file: %v", err)
				}
			}
			return
		}
		if len(identities) == 0 || len(recipients) == 0 {
			t.Fatalf("%d identities and %d recipients", len(identities), len(recipients))
		}
		var sealed bytes.Buffer
		w, err := age.Encrypt(&sealed, recipients...)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := age.Decrypt(&sealed, identities...); err != nil {
			t.Errorf("what is written can't be read: %v", err)
		}
	})
}

// sshKey makes a private key as ssh-keygen would.
func sshKey(tb testing.TB, kind string) string {
	tb.Helper()
	var private crypto.PrivateKey
	var err error
	if kind == "ecdsa" {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		_, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// A probe is written without care, and an application may be called so.
func TestIsProbe(t *testing.T) {
	for account, want := range map[string]bool{
		key: false, key + "/journal": false, key + "/probe": true,
		"app/production/probe": false, "app/probe/probe": false, "app/production/probe/new": false,
	} {
		if got := isProbe(account); got != want {
			t.Errorf("isProbe(%q) = %v", account, got)
		}
	}
}

// What was proved to fit is still there when the item comes, whatever else has filled the
// disk meanwhile.
func TestRoomIsKeptForTheItem(t *testing.T) {
	names := func(t *testing.T, dir string) (found []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			found = append(found, e.Name())
		}
		return found
	}
	room := func(t *testing.T, h *Home) (done func()) {
		t.Helper()
		done, err := h.Room(t.Context(), key, []byte(strings.Repeat("0", 2*len(secret))))
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	read := func(t *testing.T, dir, identity, want string) {
		t.Helper()
		if got, err := New(dir, identity).Get(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("got %q, %v", got, err)
		}
	}
	t.Run("taken", func(t *testing.T) {
		h, dir, identity := newHome(t)
		mustPut(t, h, key, "old")
		done := room(t, h)
		read(t, dir, identity, "old")
		if got := names(t, dir); len(got) != 2 {
			t.Fatalf("there are %q", got)
		}
		if _, err := safefile.SweepDir(dir); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(filepath.Join(dir, names(t, dir)[0]))
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, h, key, secret)
		done()
		read(t, dir, identity, secret)
		after, err := os.Stat(h.path(key))
		if got := names(t, dir); err != nil || len(got) != 1 || !os.SameFile(before, after) {
			t.Errorf("there are %q, and the item has the room: %v", got, err == nil && os.SameFile(before, after))
		}
		mustPut(t, h, key, "newer") // without room
		read(t, dir, identity, "newer")
	})
	t.Run("longer than the room", func(t *testing.T) {
		h, dir, identity := newHome(t)
		defer room(t, h)()
		long := strings.Repeat(secret, 1000)
		mustPut(t, h, key, long)
		read(t, dir, identity, long)
	})
	t.Run("not taken", func(t *testing.T) {
		h, dir, identity := newHome(t)
		mustPut(t, h, key, "old")
		room(t, h)()
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("there are %q", got)
		}
		read(t, dir, identity, "old")
	})
	t.Run("taken away", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("nobody can remove the file while it is open")
		}
		h, dir, identity := newHome(t)
		defer room(t, h)()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		mustPut(t, h, key, secret)
		read(t, dir, identity, secret)
	})
}
