package powerloss

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	gosync "sync"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
)

var (
	random    = flag.Int("powerloss.n", 24, "how many ways at random the power fails at each step")
	sampled   = flag.Int("powerloss.states", usualStates, "how many states of each scenario are judged")
	allOf     = flag.Bool("powerloss.all", false, "judge every state")
	syncTable = flag.Bool("powerloss.syncs", false, "tell for each sync whether a loss of power shows that it is missing")
	knownToo  = flag.Bool("powerloss.known", false, "run the scenarios too that are known to fail")
	listing   = flag.Bool("powerloss.list", false, "list the operations of each scenario, and what is known behind each")
	seed      = flag.Uint64("powerloss.seed", 1, "of what is random")
)

// state is one disk, one memory of UPS's and one moment, of which many crashes may be.
type state struct {
	step   int
	name   string // of the first crash that leads to it
	disk   *disk
	ups    files
	moment moment
}

func (rec *recording) name(s state) string {
	behind := "before anything"
	if s.step > 0 {
		behind = fmt.Sprintf("behind %d %s", s.step, rec.list[s.step-1])
	}
	return behind + "; " + s.name
}

// operations lists what happened, with what is known of UPS behind each.
func (rec *recording) operations() string {
	var lines strings.Builder
	for i, o := range rec.list {
		fmt.Fprintf(&lines, "\n%3d %s", i+1, o)
		if o.isMoment() || o.kind == sync {
			for ups, m := range rec.moments(i + 1) {
				fmt.Fprintf(&lines, "\n      with %d requests granted: known %q maybe %q spent %v waiting %v intending %v revoke %d %q",
					ups, m.Known, m.Maybe, m.Spent, m.Waiting, m.Intending, m.Revoke, m.Companies)
			}
		}
	}
	return lines.String()
}

// states are all that a loss of power can lead to, each once. Without some syncs, by
// their index among the operations, they are those of a program that does not make
// them; what is known of UPS stays what the real program promised.
func (rec *recording) states(n int, rng *rand.Rand, without ...int) []state {
	var list []state
	seen := map[string]bool{}
	s := newSimulation(rec.base)
	for step := range len(rec.list) + 1 {
		if step > 0 && !slices.Contains(without, step-1) {
			s.step(rec.list[step-1])
		}
		moments := rec.moments(step)
		s.crashes(n, rng, func(c crash) {
			sum := c.disk.sum()
			for _, ups := range slices.Sorted(maps.Keys(moments)) {
				m := moments[ups]
				if key := fmt.Sprintf("%s %d %+v", sum, ups, m); !seen[key] {
					seen[key] = true
					list = append(list, state{step, c.name, c.disk, rec.ups[ups], m})
				}
			}
		})
	}
	return list
}

// sample chooses n states, from every step as many as from the others where there are
// enough.
func sample(all []state, n int, rng *rand.Rand) []state {
	if *allOf || len(all) <= n {
		return all
	}
	all = slices.Clone(all)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	rank, taken := map[int][]state{}, 0
	for _, s := range all {
		rank[s.step] = append(rank[s.step], s)
	}
	var chosen []state
	for round := 0; taken < n; round++ {
		for _, step := range slices.Sorted(maps.Keys(rank)) {
			if list := rank[step]; round < len(list) && taken < n {
				chosen = append(chosen, list[round])
				taken++
			}
		}
	}
	return chosen
}

// TestPowerLoss lets the power fail behind every system call of every scenario, in
// every way that file systems know. The next commands must find the newest answer that
// was sealed, spend nothing twice, wait where they must, and say of nobody who has a
// grant that there is none.
func TestPowerLoss(t *testing.T) {
	program := programForStrace(t)
	dir := fast(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if why := known[s.name]; why != "" && !*knownToo {
				t.Skip(why)
			}
			rec := record(t, program, s)
			rec.judgeAndReport(t, dir)
		})
	}
}

// TestPowerLossAgain lets the power fail again while the next command puts in place
// what the first loss of power has left: an answer that is sealed, and nothing or
// half of what follows from it done.
func TestPowerLossAgain(t *testing.T) {
	program := programForStrace(t)
	dir := fast(t)
	for _, name := range []string{"first sign-in", "refresh", "sign-in again"} {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, half done %v", name, half), func(t *testing.T) {
				l, rec := recordIn(t, program, named(name))
				e := rec.exchanges[0]
				behind := e.sealed
				if half {
					behind += (e.end - e.sealed) / 2
				}
				s := newSimulation(rec.base)
				for _, o := range rec.list[:behind] {
					s.step(o)
				}
				l.restore(state{disk: s.durable, ups: rec.ups[1]})
				again := l.record(scenario{name: "the next refresh", steps: []step{refresh}}, e.family)
				again.judgeAndReport(t, dir)
			})
		}
	}
}

// named is the scenario of a name.
func named(name string) scenario {
	return scenarios[slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })]
}

// known are the scenarios that the program does not pass, each with the sentence why.
// There is none.
var known = map[string]string{}

// programForStrace is the built command, where there is a strace that may run it.
func programForStrace(t *testing.T) string {
	t.Helper()
	strace := realpart.Program(t, "strace", "strace")
	program, err := upsauthProgram()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(strace, "-f", "-o", os.DevNull, program, "version").CombinedOutput(); err != nil {
		realpart.Missing(t, fmt.Errorf("strace may not trace here: %w: %s", err, out))
	}
	return program
}

// failure is a state that is judged to be wrong.
type failure struct {
	state       state
	wrong, told []string
	same        int // how many were wrong in the same way, with this one
}

// judge judges states, a few at a time.
func (rec *recording) judge(tb testing.TB, dir string, states []state) []failure {
	var (
		mu       gosync.Mutex
		failures []failure
		ways     = map[string]int{}
	)
	each(states, func(s state) {
		wrong, told := judged(tb, dir, s.disk, s.ups, s.moment)
		if len(wrong) == 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		ways[wrong[0]]++
		failures = append(failures, failure{s, wrong, told, ways[wrong[0]]})
	})
	return failures
}

// judgeAndReport judges a sample of what a loss of power can lead to.
func (rec *recording) judgeAndReport(t *testing.T, dir string) {
	t.Helper()
	if *listing {
		t.Log(rec.operations())
	}
	for _, name := range rec.namesBeforeData() {
		t.Error(name)
	}
	rng := rand.New(rand.NewPCG(*seed, 0))
	all := rec.states(*random, rng)
	chosen := sample(all, *sampled, rng)
	failures := rec.judge(t, dir, chosen)
	report(t, failures, rec.name)
	t.Logf("%d operations, %d syncs, %d states, %d judged, %d wrong", len(rec.list), len(rec.syncs()), len(all), len(chosen), len(failures))
}

// report tells of failures, of those alike the first two.
func report(t *testing.T, failures []failure, name func(state) string) {
	t.Helper()
	for _, f := range failures {
		if f.same <= 2 || *listing {
			t.Errorf("%s\n%+v\n%s\n%s\n%s", name(f.state), f.state.moment, strings.Join(f.wrong, "\n"), listed(f.state.disk), strings.Join(f.told, ""))
		}
	}
}

// namesBeforeData are the renames of files with data that is not synced. Some file
// systems then have a name without its data.
func (rec *recording) namesBeforeData() []string {
	unsynced := map[node]operation{}
	var list []string
	for i, o := range rec.list {
		switch {
		case o.isData():
			unsynced[o.node] = o
		case o.kind == sync:
			delete(unsynced, o.node)
		case o.kind == syncAll:
			clear(unsynced)
		case o.kind == rename:
			if w, ok := unsynced[o.node]; ok {
				list = append(list, fmt.Sprintf("operation %d, %s, comes before a sync of: %s", i+1, o, w))
			}
		}
	}
	return list
}

// syncs are the indices of the operations that make something durable.
func (rec *recording) syncs() []int {
	var list []int
	for i, o := range rec.list {
		if o.kind == sync || o.kind == syncAll {
			list = append(list, i)
		}
	}
	return list
}

// The judge sees the syncs that are missing: of a program that makes none, of one that
// does not sync what it notes before it asks UPS, and of one that does not sync UPS's
// answer. What it would not see here, it could not see above either.
func TestMissingSyncsAreSeen(t *testing.T) {
	program := programForStrace(t)
	dir := fast(t)
	for _, s := range scenarios {
		if !slices.Contains([]string{"first sign-in", "refresh"}, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			rec := record(t, program, s)
			first, all := rec.exchanges[0], rec.syncs()
			var before, atAnswer []int
			for _, i := range all {
				if i < first.asked {
					before = append(before, i)
				}
				if i+1 == first.sealed {
					atAnswer = append(atAnswer, i)
				}
			}
			for what, missing := range map[string][]int{"all of them": all, "those before UPS is asked": before, "that of UPS's answer": atAnswer} {
				rng := rand.New(rand.NewPCG(*seed, 0))
				seen := false
				for some := range slices.Chunk(sample(rec.states(4, rng, missing...), 100, rng), 10) {
					if seen = len(rec.judge(t, dir, some)) > 0; seen {
						break
					}
				}
				if !seen {
					t.Errorf("nobody misses %s: %v", what, missing)
				}
			}
		})
	}
}

// TestEachSync tells which syncs nobody would miss: a table for who thinks about them.
func TestEachSync(t *testing.T) {
	if !*syncTable {
		t.Skip("-powerloss.syncs makes the table")
	}
	program := programForStrace(t)
	dir := fast(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			rec := record(t, program, s)
			for _, i := range rec.syncs() {
				rng := rand.New(rand.NewPCG(*seed, 0))
				states := sample(rec.states(*random, rng, i), *sampled, rng)
				failures := rec.judge(t, dir, states)
				t.Logf("%3d %-90s missed in %d of %d states", i+1, rec.list[i], len(failures), len(states))
			}
		})
	}
}

// each calls f for every element, for a few at a time.
func each[T any](list []T, f func(T)) {
	work := make(chan T)
	var all gosync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 1 {
		all.Go(func() {
			for v := range work {
				f(v)
			}
		})
	}
	for _, v := range list {
		work <- v
	}
	close(work)
	all.Wait()
}
