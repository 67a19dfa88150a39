package safefile

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// Two changes in one tick of the file system's clock leave the same time: whoever goes by
// that would never see the second.
func TestListingSeesEveryChange(t *testing.T) {
	dir := t.TempDir()
	listing := NewListing(dir)
	want := []string{}
	r := rand.New(rand.NewPCG(1, 2))
	check := func() {
		t.Helper()
		got, err := listing.Below("")
		got = slices.Sorted(slices.Values(got))
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q, %v; there are %q", got, err, want)
		}
	}
	check()
	for i := range 3000 {
		// Some are made, some replaced, some renamed and some removed.
		name := fmt.Sprintf("%04d", i)
		switch n := r.IntN(4); {
		case n == 0 && len(want) > 0:
			if err := os.Remove(filepath.Join(dir, want[0])); err != nil {
				t.Fatal(err)
			}
			want = slices.Delete(slices.Clone(want), 0, 1)
		case n == 1 && len(want) > 0:
			if err := os.Rename(filepath.Join(dir, want[0]), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			want = append(slices.Delete(slices.Clone(want), 0, 1), name)
		default:
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			want = append(slices.Clone(want), name)
		}
		check()
	}
}

// A directory that stays as it is is not read again, and its first change is seen.
func TestListingReadsOnlyWhatChanged(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("on Windows directories are read each time")
	}
	dir := filepath.Join(t.TempDir(), "sub")
	listing := NewListing(dir)
	if names, err := listing.Below(""); err != nil || len(names) != 0 {
		t.Fatalf("%q, %v", names, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	reading := func() uint64 {
		t.Helper()
		reading, err := listing.Reading()
		if err != nil {
			t.Fatal(err)
		}
		return reading
	}
	quiet := func() uint64 {
		t.Helper()
		for {
			if now := reading(); now == reading() {
				return now
			}
		}
	}
	for i, change := range []func() error{
		func() error { return os.WriteFile(filepath.Join(dir, "a"), nil, 0o600) },
		func() error { return Write(filepath.Join(dir, "a"), []byte("again")) },
		func() error { return os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")) },
		func() error { return os.Remove(filepath.Join(dir, "b")) },
		// Another directory takes its place, with the same times.
		func() error {
			info, err := os.Stat(dir)
			if err == nil {
				err = os.Rename(dir, dir+"-away")
			}
			if err == nil {
				err = os.Mkdir(dir, 0o700)
			}
			if err == nil {
				err = os.Chtimes(dir, info.ModTime(), info.ModTime())
			}
			return err
		},
	} {
		before := quiet()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if reading() == before {
			t.Errorf("change %d is not seen", i)
		}
	}
}

func TestTimesThatCanBeTrusted(t *testing.T) {
	now := time.Date(2026, 11, 21, 16, 5, 3, 500_000_001, time.UTC)
	for _, test := range []struct {
		name string
		at   time.Time
		want bool
	}{
		{"long ago", now.Add(-time.Hour), true},
		{"a tick ago", now.Add(-4 * time.Millisecond), false},
		{"some ticks ago", now.Add(-fineTick - time.Millisecond), true},
		{"whole seconds, lately", now.Add(-2 * time.Second).Truncate(time.Second), false},
		{"whole seconds, a while ago", now.Add(-5 * time.Second).Truncate(time.Second), true},
		{"the future", now.Add(time.Hour), false},
	} {
		if got := overAt(test.at, now); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

func TestBelow(t *testing.T) {
	dir := t.TempDir()
	names := []string{"a", "ab-1", "ab-2", "ab.", "b"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listing := NewListing(dir)
	check := func() {
		t.Helper()
		for prefix, want := range map[string][]string{"ab-": {"ab-1", "ab-2"}, "": names, "c": nil, "a": names[:4], "ab-3": nil, "0": nil} {
			got, err := listing.Below(prefix)
			if got = slices.Sorted(slices.Values(got)); err != nil || !slices.Equal(got, want) {
				t.Errorf("%q: %q, %v, want %q", prefix, got, err, want)
			}
		}
	}
	check()
	for runtime.GOOS != "windows" {
		before, _ := listing.Reading()
		if after, _ := listing.Reading(); before == after {
			break
		}
	}
	check() // of what is kept
}
