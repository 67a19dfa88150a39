package safefile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// texts is what Read makes of a directory's files: their texts.
type texts struct {
	dir    string
	memory *Memory[string]
	read   atomic.Int64 // files
}

func (x *texts) all(t *testing.T) map[string]string {
	t.Helper()
	names, err := ReadDir(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	var places Places
	values, errs := x.memory.Read(names, func(at int, buf []byte) (string, []byte, error) {
		x.read.Add(1)
		text, err := places.Read(filepath.Join(x.dir, names[at]), buf)
		return string(text), text, err
	})
	found := map[string]string{}
	for i, name := range names {
		if errs[i] == nil {
			found[name] = values[i]
		} else {
			found[name] = "error"
		}
	}
	return found
}

// TestMemorySeesEveryChange prevents that something is answered from memory that is no
// longer so: after each of many changes, of every kind and at any distance in time, the
// memory says what the files say.
func TestMemorySeesEveryChange(t *testing.T) {
	dir := t.TempDir()
	x := &texts{dir: dir, memory: NewMemory[string](dir)}
	fresh := &texts{dir: dir}
	random := rand.New(rand.NewPCG(1, 2))
	old := time.Now().Add(-time.Hour)
	at := func() string { return filepath.Join(dir, fmt.Sprint(random.IntN(12))) }
	changes := []func(text string) error{
		func(text string) error { return Write(at(), []byte(text)) },
		func(text string) error { return os.WriteFile(at(), []byte(text), 0o600) }, // in its place
		func(text string) error { // of the same size and with an old time
			path := at()
			return errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, old, old))
		},
		func(string) error { return os.Remove(at()) },
		func(string) error { return os.Rename(at(), at()) },
		func(string) error {
			path := at()
			return errors.Join(os.Remove(path), os.Symlink(filepath.Join(dir, "1"), path))
		},
		func(string) error { return os.Chmod(at(), 0o666) },
		func(string) error { return os.Chmod(at(), 0o600) },
		func(string) error { return nil },
	}
	for i := range 600 {
		err := changes[random.IntN(len(changes))](fmt.Sprintf("text %04d", i))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) && !isLink(errors.Unwrap(err)) && !strings.Contains(err.Error(), "link") {
			t.Fatal(err)
		}
		if i%10 == 9 {
			time.Sleep(time.Duration(random.IntN(2)) * (fineTick + 10*time.Millisecond)) // texts are kept only then
		}
		want := fresh.all(t)
		for range 2 {
			if got := x.all(t); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("change %d: from memory %v, the files say %v", i, got, want)
			}
		}
	}
	if kept := len(x.memory.kept); kept > 12 {
		t.Errorf("%d files are kept, and there are at most 12", kept)
	}
	if x.read.Load() >= 2*fresh.read.Load() && stampsIn(dir) != nil {
		t.Errorf("%d files were read, as many as without memory", x.read.Load())
	}
}

// TestMemoryReadsOnce prevents that files are read again which nobody has changed, and that
// what is gone is kept.
func TestMemoryReadsOnce(t *testing.T) {
	if stampsIn(t.TempDir()) == nil {
		t.Skip("here files are read each time")
	}
	dir := t.TempDir()
	x := &texts{dir: dir, memory: NewMemory[string](dir)}
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x.all(t)
	if len(x.memory.kept) == 100 {
		t.Error("files are kept that can change without another time")
	}
	for len(x.memory.kept) < 100 {
		x.all(t)
	}
	before := x.read.Load()
	if x.all(t); x.read.Load() != before {
		t.Errorf("%d files were read again", x.read.Load()-before)
	}
	if err := os.Remove(filepath.Join(dir, "7")); err != nil {
		t.Fatal(err)
	}
	if x.all(t); len(x.memory.kept) != 99 {
		t.Errorf("%d files are kept of 99", len(x.memory.kept))
	}
	x.memory.End()
	if x.all(t); len(x.memory.kept) != 0 {
		t.Errorf("%d files are kept after the end", len(x.memory.kept))
	}
}
