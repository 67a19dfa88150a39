package powerloss

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// format1 has what an earlier release left behind that was killed at every step: the
// vault and journals of format 1.
const format1 = "testdata/format1.zip"

var release = flag.String("release", "", "a release's program, by its absolute path, that TestMakeFixtures records into "+format1)

// fixture is one of them. Contents are named by their digests.
type fixture struct {
	Scenario string            `json:"scenario"`
	Step     int               `json:"step"`
	Words    string            `json:"words"`
	Dirs     []string          `json:"dirs"`
	Files    map[string]string `json:"files"`
	UPS      map[string]string `json:"ups"`
	Moment   moment            `json:"moment"`
}

// archive are fixtures and their contents.
type archive struct {
	fixtures []fixture
	contents map[string][]byte
}

func (a *archive) content(data []byte) string {
	digest := sha256.Sum256(data)
	name := hex.EncodeToString(digest[:8])
	a.contents[name] = data
	return name
}

func (a *archive) add(rec *recording) {
	for _, s := range rec.killed() {
		f := fixture{Scenario: rec.scenario.name, Step: s.step, Words: rec.name(s), Files: map[string]string{}, UPS: map[string]string{}, Moment: s.moment}
		s.disk.walk(func(path string, data []byte) {
			if data == nil {
				f.Dirs = append(f.Dirs, path)
			} else {
				f.Files[path] = a.content(data)
			}
		})
		for name, data := range s.ups {
			f.UPS[name] = a.content(data)
		}
		a.fixtures = append(a.fixtures, f)
	}
}

// killed are the states in which a process leaves things that is killed: all that it
// did has happened.
func (rec *recording) killed() []state {
	var list []state
	seen := map[string]bool{}
	now := rec.base.clone()
	for step := range len(rec.list) + 1 {
		if step > 0 {
			o := rec.list[step-1]
			o.introduce(now)
			o.apply(now)
		}
		moments := rec.moments(step)
		for _, ups := range slices.Sorted(maps.Keys(moments)) {
			if key := fmt.Sprintf("%s %d %+v", now.sum(), ups, moments[ups]); !seen[key] {
				seen[key] = true
				list = append(list, state{step, "killed", now.clone(), rec.ups[ups], moments[ups]})
			}
		}
	}
	return list
}

func (a *archive) write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z := zip.NewWriter(file)
	put := func(name string, data []byte) {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	index, err := json.Marshal(a.fixtures)
	if err != nil {
		t.Fatal(err)
	}
	put("fixtures.json", index)
	for _, name := range slices.Sorted(maps.Keys(a.contents)) {
		put(name, a.contents[name])
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
}

func openArchive(t *testing.T, path string) *archive {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	a := &archive{contents: map[string][]byte{}}
	for _, entry := range z.File {
		r, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		a.contents[entry.Name] = data
	}
	if err := json.Unmarshal(a.contents["fixtures.json"], &a.fixtures); err != nil {
		t.Fatal(err)
	}
	return a
}

// state is the disk and the memory of a fixture.
func (a *archive) state(f fixture) state {
	d := newDisk()
	for _, path := range f.Dirs { // parents come first
		d.add(path, nil)
	}
	for _, path := range slices.Sorted(maps.Keys(f.Files)) {
		d.add(path, a.contents[f.Files[path]])
	}
	ups := files{}
	for name, content := range f.UPS {
		ups[name] = a.contents[content]
	}
	return state{f.Step, f.Words, d, ups, f.Moment}
}

// TestMakeFixtures is a maintainer's tool: it makes the fixtures anew, with a release's
// program.
//
//	go test ./internal/powerloss -run TestMakeFixtures -release /path/to/upsauth
func TestMakeFixtures(t *testing.T) {
	if *release == "" {
		t.Skip("-release names the program that makes them")
	}
	a := &archive{contents: map[string][]byte{}}
	// A journal that can't be written has the answer sealed elsewhere. Of the release
	// it is known that nothing else is written at an offset.
	elsewhere := refresh
	elsewhere.inject = "pwrite64:error=EIO"
	for _, s := range append(slices.Clone(scenarios), scenario{name: "refresh, answer sealed elsewhere", signedIn: true, steps: []step{elsewhere}}) {
		if s.name == "sign-in and refresh" || s.name == "refresh and export" {
			continue // nothing lies there that the others have not
		}
		a.add(record(t, *release, s))
	}
	a.write(t, format1)
	t.Logf("%d fixtures with %d contents", len(a.fixtures), len(a.contents))
}

// What an earlier release left behind, wherever it was killed, is taken over: with
// journals under way, answers that nobody could use, and answers sealed elsewhere.
func TestTakenOver(t *testing.T) {
	a := openArchive(t, format1)
	dir := fast(t)
	rec := &recording{}
	names := []string{}
	by := map[string][]state{}
	for _, f := range a.fixtures {
		if !slices.Contains(names, f.Scenario) {
			names = append(names, f.Scenario)
		}
		by[f.Scenario] = append(by[f.Scenario], a.state(f))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			chosen := sample(by[name], 2**sampled, rand.New(rand.NewPCG(*seed, 0)))
			failures := rec.judge(t, dir, chosen)
			report(t, failures, func(s state) string { return s.name })
			t.Logf("%d states, %d judged, %d wrong", len(by[name]), len(chosen), len(failures))
		})
	}
}
