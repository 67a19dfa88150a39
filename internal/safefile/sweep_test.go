package safefile

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// A process that is killed in a write leaves its temporary file, 132 KB of a
// journal, for ever. What may be somebody else's, or is no temporary file, stays.
func TestSweepTakesWhatIsLeftOfWrites(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"a.json", ".a.json1", ".a.json8922387306877539782", ".b.json1", ".a.json.damaged7", ".a.jsonx", ".a.json", ".json5",
		".nfs0000001", ".identity.lock", ".x.age1.age22", "a.json5",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".d.json1"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := func(names ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, entry := range entries {
			got = append(got, entry.Name())
		}
		slices.Sort(names)
		if !slices.Equal(got, names) {
			t.Errorf("there are %q, want %q", got, names)
		}
	}
	if err := Sweep(filepath.Join(dir, "a.json")); err != nil {
		t.Error(err)
	}
	want("a.json", ".b.json1", ".a.json.damaged7", ".a.jsonx", ".a.json", ".json5", ".nfs0000001", ".identity.lock", ".x.age1.age22", "a.json5", ".d.json1")
	if n, err := SweepDir(dir); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	want("a.json", ".a.jsonx", ".a.json", ".json5", ".nfs0000001", ".identity.lock", "a.json5", ".d.json1")
	if n, err := SweepDir(filepath.Join(dir, "none")); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// Whoever sweeps does not know who is writing in other processes.
func TestSweepLeavesWritersAlone(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	var sweepers, writers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := SweepDir(dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, name := range []string{"a.json", "a.json", "b.age"} {
		writers.Go(func() {
			for range 30 {
				if err := Write(filepath.Join(dir, name), []byte("whole")); err != nil {
					t.Error(err)
				}
				if err := WritePublic(filepath.Join(dir, "c.prom"), []byte("whole")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	sweepers.Wait()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
}
