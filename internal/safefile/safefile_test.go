package safefile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestWriteMakesMissingDirectories(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c", "file")
	for _, content := range []string{"first", "", strings.Repeat("larger ", 10_000)} {
		if err := Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != content {
			t.Errorf("read back %d bytes, wrote %d", len(got), len(content))
		}
	}
	if names := list(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("beside the file lies something: %q", names)
	}
}

// A status that runs beside a refresh must never see half a record, and on
// Windows it must not keep the refresh from writing either.
func TestReadersSeeOldOrNewContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	contents := [][]byte{bytes.Repeat([]byte("old"), 30_000), bytes.Repeat([]byte("newer"), 50_000)}
	if err := Write(path, contents[0]); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				start := time.Now()
				got, err := ReadFile(path)
				if runtime.GOOS == "windows" {
					// Where the file system does not know the renaming of POSIX, as
					// FAT and wine's, nothing replaces a file that somebody has open
					// at every instant, which on a busy machine is soon so.
					time.Sleep(max(5*time.Millisecond, 10*time.Since(start)))
				}
				if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
					t.Errorf("a reader got %d bytes that nobody wrote, %v", len(got), err)
					return
				}
			}
		})
	}
	for n := range 50 {
		if err := Write(path, contents[n%2]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	readers.Wait()
}

func TestReadIntoABuffer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	buf := make([]byte, 0, 10)
	for _, content := range []string{"", "short", "ten bytes!", strings.Repeat("longer", 10_000), "short again"} {
		if err := Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path, buf)
		if err != nil || string(got) != content {
			t.Errorf("read %d bytes of %d, %v", len(got), len(content), err)
		}
		buf = got
	}
	if _, err := Read(path+"none", buf); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Read(filepath.Dir(path), buf); err == nil {
		t.Error("a directory is read")
	}
}

// One process may remove the directory of its last file just when another is
// about to put a file there.
func TestWritersAndRemoversOfOneDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shared")
	var writers sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		writers.Go(func() {
			path := filepath.Join(dir, name)
			for range 60 {
				if err := Write(path, []byte(name)); err != nil {
					t.Error(err)
				}
				if got, err := ReadFile(path); err != nil || string(got) != name {
					t.Errorf("%q, %v", got, err)
				}
				if err := Remove(path); err != nil {
					t.Error(err)
				}
				_ = os.Remove(dir)
			}
		})
	}
	writers.Wait()
}

func TestFailedWriteLeavesAllAsItWas(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := Write(file, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "by a directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(file, "below"), filepath.Join(file, "far", "below"), taken} {
		err := Write(path, []byte("new"))
		if err == nil || !strings.Contains(err.Error(), filepath.Dir(path)) {
			t.Errorf("writing %s: %v", path, err)
		}
	}
	if got := read(t, file); got != "kept" {
		t.Errorf("the file has %q", got)
	}
	if names := list(t, dir); len(names) != 2 {
		t.Errorf("left behind: %q", names)
	}
}

func TestMkdirAllBelowAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := Write(file, nil); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(file, "below")
	if err := MkdirAll(below); err == nil || !strings.Contains(err.Error(), below) {
		t.Errorf("got %v", err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := Write(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing, which is no error
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the file is still there: %v", err)
		}
	}
	if err := Remove(filepath.Join(dir, "no", "such", "directory")); err != nil {
		t.Error(err)
	}
	full := filepath.Join(dir, "full")
	if err := Write(filepath.Join(full, "file"), nil); err != nil {
		t.Fatal(err)
	}
	if err := Remove(full); err == nil || !strings.Contains(err.Error(), full) {
		t.Errorf("removing a directory with a file in it: %v", err)
	}
}

// A process that was killed within a write leaves what it wrote, perhaps the
// whole secret, under a name that nobody looks for.
func TestRemoveTakesLeftoversAlong(t *testing.T) {
	for name, there := range map[string]bool{"the file is there": true, "the first write of it was cut off": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file.age")
			if there {
				if err := Write(path, []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			others := []string{".file.age", ".file.age1x", ".file.agex", ".file2.age1", "file.age1", "file.age.damaged", ".other.age123"}
			for _, name := range append([]string{".file.age1", ".file.age7342240670819280156"}, others...) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("part"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := Remove(path); err != nil {
				t.Fatal(err)
			}
			if names, want := list(t, dir), slices.Sorted(slices.Values(others)); !slices.Equal(names, want) {
				t.Errorf("left: %q, want %q", names, want)
			}
		})
	}
}

func TestMissingPathIsNoDanger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	if err := new(Places).CheckSecret(path); err != nil {
		t.Error(err)
	}
	if err := new(Places).Check(path); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// A directory, and the one above it, may go as empty ones while they are made.
func TestDirectoriesAreMadeBesideTheirRemoval(t *testing.T) {
	t.Parallel()
	top := filepath.Join(t.TempDir(), "a")
	below := filepath.Join(top, "b")
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for range 500 {
				if err := MkdirAll(below); err != nil {
					t.Error(err)
				}
				_ = os.Remove(below) // another's attempt may have been quicker
				_ = os.Remove(top)
			}
		})
	}
	users.Wait()
}
