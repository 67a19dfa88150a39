//go:build unix

package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPrivateGroups(t *testing.T) {
	passwd := [][]string{{"root", "x", "0", "0"}, {"jane", "x", "1000", "1000"}, {"joe", "x", "1001", "50"}, {"eve", "x", "1002", "50"}}
	groups := [][]string{
		{"root", "x", "0", ""}, {"jane", "x", "1000", ""}, {"joe", "x", "50", ""},
		{"eve", "x", "70", "eve"}, {"many", "x", "80", "jane, joe"}, {"broken", "x"},
	}
	for _, test := range []struct {
		name string
		gid  int
		want bool
	}{
		{"jane", 1000, true}, {"root", 0, true}, {"eve", 70, true},
		{"joe", 50, false}, // eve's primary group too
		{"joe", 1000, false}, {"jane", 80, false}, {"jane", 99, false}, {"jane", 0, false},
	} {
		if got := isPrivateGroup(test.name, test.gid, passwd, groups); got != test.want {
			t.Errorf("group %d is %s's own: %t", test.gid, test.name, got)
		}
	}
}

// Whoever can write any directory on the way can put something else there.
func TestEveryDirectoryOnTheWayCounts(t *testing.T) {
	base := t.TempDir()
	place := filepath.Join(base, "a", "b", "c", "file")
	if err := Write(place, nil); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(base, "other")
	makeWith(t, "directory", other, 0o700)
	link := filepath.Join(base, "link")
	if err := os.Symlink("other/../a/b", link); err != nil {
		t.Fatal(err)
	}
	through := filepath.Join(link, "c", "file")
	for dir, places := range map[string][]string{
		filepath.Join(base, "a"): {place, through}, filepath.Join(base, "a", "b"): {place, through},
		filepath.Join(base, "a", "b", "c"): {place, through}, base: {place, through}, other: {through},
	} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, path := range append(places, filepath.Join(filepath.Dir(places[0]), "none")) {
			var open *PermissionError
			if err := new(Places).Check(path); dir != other && (!errors.As(err, &open) || open.Path != dir) {
				t.Errorf("%s with %s open: %v", path, dir, err)
			}
			if err := (&Places{Trusted: []string{base}}).Check(path); err != nil {
				t.Errorf("trusted: %v", err)
			}
		}
		if dir == other {
			if err := new(Places).Check(through); err == nil {
				t.Error("what a link leads through is not looked at")
			}
		}
		if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
			t.Fatal(err)
		}
		if err := new(Places).Check(place); err != nil {
			t.Errorf("in a sticky directory: %v", err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinksToNothing(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("none", link); err != nil {
		t.Fatal(err)
	}
	var broken *LinkError
	for _, path := range []string{link, filepath.Join(link, "below")} {
		if err := new(Places).Check(path); !errors.As(err, &broken) || broken.Target != "none" {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := ReadFile(link); !errors.As(err, &broken) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading it: %v", err)
	}
	if _, err := ReadDir(link); !errors.As(err, &broken) {
		t.Errorf("listing it: %v", err)
	}
	if err := os.Symlink(link, filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenOwn(link, os.O_CREATE|os.O_WRONLY); !errors.As(err, &broken) {
		t.Errorf("writing through it: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "none")); err == nil {
		t.Error("a file was made through a link")
	}
}

func TestReadInADirectory(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "dir")
	for _, path := range []string{filepath.Join(dir, "a", "in"), filepath.Join(base, "out")} {
		if err := Write(path, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..", filepath.Join(dir, "up")); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadIn(dir, "a/in"); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"../out", "a/../../out", "up/out", filepath.Join(base, "out")} {
		if got, err := ReadIn(dir, name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := CheckIn(dir, "up/new"); err == nil {
		t.Error("a file may be written outside")
	}
	if err := errors.Join(CheckIn(dir, "b/new"), CheckIn(filepath.Join(base, "none"), "x")); err != nil {
		t.Error(err)
	}
}

// A place that is checked once costs next to nothing later.
func TestAPlaceIsCheckedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	p := new(Places)
	start := time.Now()
	for range 1000 {
		if err := p.Check(filepath.Join(dir, "file")); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a check takes %s", time.Since(start)/1000)
	if !strings.HasPrefix(dir, "/") || !p.good[dir] {
		t.Error("the directory is looked at anew each time")
	}
}
