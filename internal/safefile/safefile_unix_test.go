//go:build unix

package safefile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
)

// Whatever the user's umask and whatever mode a file had before, what upsauth
// writes is the user's alone.
func TestWriteIsPrivateUnderEveryUmask(t *testing.T) {
	for _, umask := range []int{0o000, 0o022, 0o077} {
		t.Run(fmt.Sprintf("%03o", umask), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new", "dir")
			path := filepath.Join(dir, "file")
			defer syscall.Umask(syscall.Umask(umask))
			if err := Write(path, []byte("one")); err != nil {
				t.Fatal(err)
			}
			wantMode(t, path, 0o600)
			wantMode(t, dir, 0o700)
			wantMode(t, filepath.Dir(dir), 0o700)

			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
			if err := Write(path, []byte("two")); err != nil {
				t.Fatal(err)
			}
			wantMode(t, path, 0o600)
		})
	}
}

// The file of metrics is read by another user, also where the service that
// writes it has a umask of its own.
func TestWritePublicIsReadableUnderEveryUmask(t *testing.T) {
	for _, umask := range []int{0o000, 0o077} {
		t.Run(fmt.Sprintf("%03o", umask), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			defer syscall.Umask(syscall.Umask(umask))
			for _, content := range []string{"one", "two"} {
				if err := WritePublic(path, []byte(content)); err != nil {
					t.Fatal(err)
				}
				wantMode(t, path, 0o644)
				if got := read(t, path); got != content {
					t.Errorf("it has %q", got)
				}
			}
			if err := WritePublic(filepath.Join(filepath.Dir(path), "misspelt", "file"), nil); err == nil {
				t.Error("a directory was made")
			}
		})
	}
}

// Who follows a link that somebody put in the file's place must not be made to
// write elsewhere.
func TestWriteReplacesALinkAndNotItsTarget(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := Write(target, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, target); got != "kept" {
		t.Errorf("the link's target has %q", got)
	}
	if got := read(t, link); got != "new" {
		t.Errorf("the file has %q", got)
	}
}

func TestChecks(t *testing.T) {
	tests := []struct {
		mode                os.FileMode
		private, unwritable bool
	}{
		{0o600, true, true},
		{0o700, true, true},
		{0o400, true, true},
		{0o000, true, true},
		{0o640, false, true},
		{0o604, false, true},
		{0o610, false, true},
		{0o601, false, true},
		{0o644, false, true},
		{0o755, false, true},
		{0o622, false, false},
		{0o602, false, false},
		{0o666, false, false},
		{0o777, false, false},
	}
	for _, kind := range []string{"file", "directory"} {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s %04o", kind, test.mode), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "it")
				makeWith(t, kind, path, test.mode)
				for name, check := range map[string]struct {
					f    func(string) error
					pass bool
				}{
					"CheckSecret": {new(Places).CheckSecret, test.private},
					"Check":       {new(Places).Check, test.unwritable},
				} {
					err := check.f(path)
					var open *PermissionError
					if check.pass != (err == nil) || err != nil && !errors.As(err, &open) {
						t.Errorf("%s: %v", name, err)
					}
					if err != nil && (open.Path != path || open.Mode.Perm() != test.mode) {
						t.Errorf("%s says %q, %v", name, open.Path, open.Mode)
					}
				}
			})
		}
	}
}

// A link to a file that others can read is as bad as the file.
func TestChecksLookThroughLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	makeWith(t, "file", target, 0o644)
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	var open *PermissionError
	if err := new(Places).CheckSecret(link); !errors.As(err, &open) {
		t.Errorf("got %v", err)
	}
}

func TestCheckOfWhatCantBeLookedAt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	makeWith(t, "file", file, 0o600)
	var open *PermissionError
	if err := new(Places).CheckSecret(filepath.Join(file, "below")); err == nil || errors.As(err, &open) {
		t.Errorf("got %v", err)
	}
}

// People paste the remedy into their shell: it must mend the very file that the
// sentence is about, whatever that is called, and do nothing else.
func TestRemedyMendsTheFile(t *testing.T) {
	sh := realpart.Program(t, "sh", "dash")
	for _, name := range []string{
		"plain", "two words", "it's", `"quoted"`, `back\slash`, "$HOME", "$(touch pwned)", "`touch pwned`", "a;touch pwned",
		"new\nline", "tab\there", "ümläut 📦", "*", "~", "!!", "#", "&", "''", `\'`,
	} {
		for check, mode := range map[string]os.FileMode{"CheckSecret": 0o644, "Check": 0o666} {
			t.Run(check+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				path, other := filepath.Join(dir, name), filepath.Join(dir, "other")
				makeWith(t, "file", path, mode)
				makeWith(t, "file", other, mode)
				f := map[string]func(string) error{"CheckSecret": new(Places).CheckSecret, "Check": new(Places).Check}[check]
				var open *PermissionError
				if err := f(path); !errors.As(err, &open) {
					t.Fatalf("got %v", err)
				}
				if !strings.HasSuffix(open.Error(), "Run: "+open.Remedy) {
					t.Errorf("the sentence does not end in the remedy: %s", open)
				}
				cmd := exec.Command(sh, "-c", open.Remedy)
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", open.Remedy, err, out)
				}
				if err := f(path); err != nil {
					t.Errorf("after the remedy: %v", err)
				}
				wantMode(t, other, mode)
				if names := list(t, dir); len(names) != 2 {
					t.Errorf("the remedy %s made something: %q", open.Remedy, names)
				}
			})
		}
	}
}

func makeWith(t *testing.T, kind, path string, mode os.FileMode) {
	t.Helper()
	var err error
	if kind == "directory" {
		err = os.Mkdir(path, 0o700)
	} else {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	// t.TempDir's clean-up has to get in.
	t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
}

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %04o, want %04o", path, got, want)
	}
}
