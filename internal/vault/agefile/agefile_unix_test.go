//go:build unix

package agefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/safefile"

	"github.com/upsauth/upsauth/internal/vault"
)

func TestFilesAreTheUsersAlone(t *testing.T) {
	h, dir, _ := newHome(t)
	for _, account := range []string{key, key + "/journal", "app/production/batch-suite"} {
		mustPut(t, h, account, secret)
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What others can read is no secret any more: the vault is not used before its
// user has mended that, with the very command that the error names.
func TestOpenToOthers(t *testing.T) {
	sh := realpart.Program(t, "sh", "dash")
	for _, what := range []string{"identity", "directory"} {
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o755, 0o777} {
			t.Run(fmt.Sprintf("%s %04o", what, mode), func(t *testing.T) {
				base := filepath.Join(t.TempDir(), "it's $HOME")
				dir, identity := filepath.Join(base, "vault"), filepath.Join(base, "identity")
				if err := os.Mkdir(base, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(identity, []byte(read(t, newIdentity(t))), 0o600); err != nil {
					t.Fatal(err)
				}
				mustPut(t, New(dir, identity), key, secret)
				open := map[string]string{"identity": identity, "directory": dir}[what]
				if err := os.Chmod(open, mode); err != nil {
					t.Fatal(err)
				}

				h := New(dir, identity)
				_, getErr := h.Get(t.Context(), key)
				var command string
				for _, err := range []error{getErr, h.Put(t.Context(), key, 2, []byte("new"))} {
					e := homeError(t, err)
					var found bool
					if _, command, found = strings.Cut(e.What, "Run: "); !found || !strings.HasPrefix(command, "chmod go-rwx ") {
						t.Fatalf("it says %q", e.What)
					}
					var cause *safefile.PermissionError
					if !errors.As(err, &cause) || cause.Path != open {
						t.Errorf("the cause is %v", e.Err)
					}
				}
				if out, err := exec.Command(sh, "-c", command).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", command, err, out)
				}
				if got := mustGet(t, New(dir, identity), key); got != secret {
					t.Errorf("after the remedy there is %q", got)
				}
			})
		}
	}
}

// The files are no format of upsauth's own: whoever has the identity opens them
// without upsauth, and upsauth opens what others made.
func TestAgeProgramOpensTheFiles(t *testing.T) {
	ageProgram := realpart.Program(t, "age", "age")
	sshKeygen := realpart.Program(t, "ssh-keygen", "openssh-client")
	identities := map[string]string{}
	identities["age"] = newIdentity(t)
	identities["SSH"] = filepath.Join(t.TempDir(), "id_ed25519")
	if out, err := exec.Command(sshKeygen, "-q", "-t", "ed25519", "-N", "", "-f", identities["SSH"]).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for kind, identity := range identities {
		t.Run(kind+" identity", func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "vault")
			h := New(dir, identity)
			for _, account := range []string{key, key + "/journal"} {
				mustPut(t, h, account, secret)
				out, err := exec.Command(ageProgram, "-d", "-i", identity, h.path(account)).Output()
				if err != nil || string(out) != secret {
					t.Errorf("age gives %q, %v", out, err)
				}
			}
			cmd := exec.Command(ageProgram, "-e", "-i", identity, "-o", filepath.Join(dir, "app.age"))
			cmd.Stdin = strings.NewReader("made by age")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got := mustGet(t, h, "app"); got != "made by age" {
				t.Errorf("upsauth gives %q", got)
			}
		})
	}
}

func TestSSHIdentityWithPassphrase(t *testing.T) {
	identity := filepath.Join(t.TempDir(), "id_ed25519")
	if out, err := exec.Command(realpart.Program(t, "ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-a", "1", "-N", "s3cret", "-f", identity).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "vault")
	mustPut(t, locked(dir, identity, "s3cret"), key, secret)
	if got := mustGet(t, locked(dir, identity, "s3cret"), key); got != secret {
		t.Errorf("there is %q", got)
	}
	for passphrase, want := range map[string]string{"": "locked by a passphrase", "wrong": "does not open " + identity} {
		_, err := locked(dir, identity, passphrase).Get(t.Context(), key)
		if e := homeError(t, err); !strings.Contains(e.What, want) || !advises(e, map[string]vault.Act{"": vault.GivePassphrase, "wrong": vault.OtherPassphrase}[passphrase]) {
			t.Errorf("%q: %+v", passphrase, e)
		}
	}
}

// The identity that a passphrase unlocks is nothing of upsauth's own: age asks
// for the same passphrase and opens the vault.
func TestAgeProgramOpensWithThePassphrase(t *testing.T) {
	ageProgram, script := realpart.Program(t, "age", "age"), realpart.Program(t, "script", "bsdutils")
	dir := filepath.Join(t.TempDir(), "vault")
	mustPut(t, locked(dir, "", "open sesame"), key, secret)
	out := filepath.Join(t.TempDir(), "out")
	command := fmt.Sprintf("%s -d -i %s -o %s %s", ageProgram, filepath.Join(dir, "identity.age"), out, filepath.Join(dir, key+".age"))
	// age reads passphrases from a terminal only, and script makes one.
	cmd := exec.Command(script, "-qec", command, "/dev/null")
	cmd.Stdin = strings.NewReader("open sesame\n")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := read(t, out); got != secret {
		t.Errorf("age gives %q", got)
	}
}

func TestAgeProgramOfAnotherIdentityOpensNothing(t *testing.T) {
	ageProgram := realpart.Program(t, "age", "age")
	h, dir, _ := newHome(t)
	mustPut(t, h, key, secret)
	out, err := exec.Command(ageProgram, "-d", "-i", newIdentity(t), filepath.Join(dir, key+".age")).Output()
	if err == nil || len(out) != 0 {
		t.Errorf("age gives %q", out)
	}
}
