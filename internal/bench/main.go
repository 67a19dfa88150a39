//go:build linux

// Command bench measures upsauth as its users run it, the built program, against
// programs that do nothing or the least, in the same run, and writes the figures
// into docs/performance.md. Nothing here passes or fails by a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/keyringtest"
	"github.com/upsauth/upsauth/internal/realpart"
)

func main() {
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what the measurements have in common.
type bench struct {
	dir       string
	hyperfine string // empty where it is not installed
	runs      int    // of each measurement of which nothing else is said
	refreshed int    // companies, in the measurement of refreshes
	report    report
}

func measure() error {
	b := &bench{}
	all := []struct {
		name string
		run  func() error
	}{{"start", b.start}, {"init", b.inits}, {"token", b.token}, {"status", b.status}, {"check", b.check}, {"flow", b.flow}, {"refresh", b.refresh}, {"serve", b.serve},
		{"shared-token", b.needing(b.sharedToken)}, {"shared-status", b.needing(b.sharedStatus)}, {"shared-refresh", b.needing(b.sharedRefresh)}}
	var names []string
	for _, m := range all {
		names = append(names, m.name)
	}
	only := flag.String("only", strings.Join(names, ","), "which measurements")
	write := flag.String("write", "", "the document that gets the figures; without it they are only printed")
	flag.IntVar(&b.runs, "runs", 50, "how often each command runs")
	flag.IntVar(&b.refreshed, "refreshed", 10_000, "how many companies are refreshed")
	flag.Parse()
	if b.runs < 1 || b.refreshed < 10 {
		return errors.New("-runs must be at least 1, and -refreshed at least 10")
	}
	if *write != "" {
		if _, err := os.Stat(*write); err != nil {
			return err // now, and not when all is measured
		}
	}
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no measurement %q: there are %s", name, strings.Join(names, ", "))
		}
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "upsauth-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.hyperfine, _ = exec.LookPath("hyperfine")
	if err := b.build(); err != nil {
		return err
	}
	for _, m := range all {
		if !slices.Contains(chosen, m.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", m.name)
		if err := m.run(); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	text, err := b.report.markdown(b)
	if err != nil {
		return err
	}
	fmt.Print(text)
	if *write == "" {
		return nil
	}
	return into(*write, text)
}

func (b *bench) program(name string) string { return filepath.Join(b.dir, "bin", name) }

// build makes upsauth as a release is, and what it is compared with in the same
// way, and installs them by a copy: what the linker has written lies in small pieces of
// memory, and to begin takes a quarter longer until it is read from the disk again.
func (b *bench) build() error {
	built := filepath.Join(b.dir, "built")
	command := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", built+"/",
		"./cmd/upsauth", "./internal/bench/hello", "./internal/bench/keyread", "./internal/bench/client", "./internal/bench/opener", "./internal/bench/peak", "./internal/bench/asker")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("the programs can't be built, run this in the root of the repository: %w\n%s", err, out)
	}
	return os.CopyFS(filepath.Join(b.dir, "bin"), os.DirFS(built))
}

// place makes a configuration and a vault.
func (b *bench) place(name, server string) (*place, error) {
	return newPlace(filepath.Join(b.dir, "places", name), server)
}

// nowhere is a server that is never asked.
const nowhere = "http://127.0.0.1:9"

// upsauth is a command line of the program.
func (b *bench) upsauth(args ...string) []string {
	return append([]string{b.program("upsauth")}, args...)
}

// line is one command of a comparison with hello.
type line struct {
	name  string
	ratio float64 // to hello, that it is to have at most, 0 for any, or bothBefore
	args  []string
}

// bothBefore is the target of a command that does what the two before it do.
const bothBefore = -1

// compare measures commands against hello, their memory too.
func (b *bench) compare(title string, env []string, lines ...line) error {
	commands := [][]string{{b.program("hello")}}
	for _, l := range lines {
		commands = append(commands, l.args)
	}
	times, err := b.race(env, commands...)
	if err != nil {
		return err
	}
	t := b.report.table(title)
	for i, command := range commands {
		l := line{name: "Go hello-world"}
		if i > 0 {
			l = lines[i-1]
		}
		if l.ratio == bothBefore {
			l.ratio = float64(times[i-2]+times[i-1]-times[0]) / float64(times[0])
		}
		memory, _, err := b.peak(run, env, command)
		if err != nil {
			return err
		}
		t.add(l.name, times[i], float64(times[i])/float64(times[0]), target{ratio: l.ratio}, memory)
	}
	return nil
}

// start measures commands that need nothing.
func (b *bench) start() error {
	p, err := b.place("start", nowhere)
	if err != nil {
		return err
	}
	return b.compare("Start-up", b.othersEnv(p.env("true")), append([]line{
		{"`version`", 1.75, b.upsauth("version")}, {"`help`", 0, b.upsauth("help")},
	}, othersStart()...)...)
}

// inits measures what packages do before main.
func (b *bench) inits() error {
	clock, allocations := map[string][]time.Duration{}, map[string]string{}
	for range b.runs {
		command := exec.Command(b.program("upsauth"), "version")
		command.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := command.CombinedOutput()
		if err != nil {
			return err
		}
		for text := range strings.Lines(string(out)) {
			// init PACKAGE @2.3 ms, 0.062 ms clock, 28864 bytes, 226 allocs
			f := strings.Fields(text)
			if len(f) != 11 || f[0] != "init" {
				continue
			}
			ms, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				return err
			}
			clock[f[1]] = append(clock[f[1]], time.Duration(ms*float64(time.Millisecond)))
			allocations[f[1]] = f[9]
		}
	}
	b.report.inits(clock, allocations)
	return nil
}

// token measures what a script waits for.
func (b *bench) token() error {
	server := newServer(0)
	defer server.Close()
	p, err := b.place("token", server.URL)
	if err != nil {
		return err
	}
	env := p.env(b.program("opener"))
	if _, err := run(env, b.authorize("File")); err != nil {
		return err
	}
	others, env, end, err := b.othersToken(env)
	defer end()
	if err != nil {
		return err
	}
	lines := append([]line{{"`token`, file home", 2.3, b.upsauth("token", "--company", "File")}}, others...)
	keyring, err := keyringtest.Launch()
	var missing *realpart.MissingError
	if errors.As(err, &missing) {
		fmt.Fprintf(os.Stderr, "without the keychain: %v\n", err)
		return b.compare("A valid token", env, lines...)
	}
	if err != nil {
		return err
	}
	defer func() { _ = keyring.Close() }()
	env = append(env, keyring.Env()...)
	if _, err := run(append(env, "UPSAUTH_VAULT=keychain"), b.authorize("Keychain")); err != nil {
		return err
	}
	records, _, err := p.vault.List(context.Background(), "Keychain")
	if err != nil || len(records) != 1 {
		return fmt.Errorf("there are %d grants in the keychain: %w", len(records), err)
	}
	return b.compare("A valid token", env, slices.Insert(lines, 1,
		line{"one read of the keychain and nothing else", 0, []string{b.program("keyread"), records[0].TokenVaultKey}},
		line{"`token`, gnome-keyring", bothBefore, b.upsauth("token", "--company", "Keychain")})...)
}

func (b *bench) authorize(company string) []string {
	return b.upsauth("authorize", "--env", environment, "--app", application, "--company", company)
}

// status measures the table on a terminal, the table in a pipe, and JSON.
func (b *bench) status() error {
	for _, of := range []struct {
		companies   int
		table, json float64
	}{{3, 2.3, 2.3}, {1000, 0, 8}, {10_000, 0, 60}} {
		p, err := b.place(fmt.Sprint("status", of.companies), nowhere)
		if err != nil {
			return err
		}
		if err := p.companies(of.companies); err != nil {
			return err
		}
		title := fmt.Sprintf("`status` of %d companies", of.companies)
		err = b.compare(title, p.env("true"),
			line{"`status`, piped", of.table, b.upsauth("status")},
			line{"`status -o json`", of.json, b.upsauth("status", "-o", "json")})
		if err != nil {
			return err
		}
		commands := [][]string{{b.program("hello")}, b.upsauth("status")}
		times, err := b.alternate(len(commands), func(i int) (time.Duration, error) { return runOnTerminal(p.env("true"), commands[i]) })
		if err != nil {
			return err
		}
		t := b.report.table(title + ", on a terminal")
		for i, name := range []string{"Go hello-world", "`status`"} {
			memory, _, err := b.peak(runOnTerminal, p.env("true"), commands[i])
			if err != nil {
				return err
			}
			t.add(name, times[i], float64(times[i])/float64(times[0]), target{ratio: []float64{0, of.table}[i]}, memory)
		}
	}
	return nil
}

// check measures the commands that open every secret, against status, which opens
// none, at several sizes: what a grant takes must not grow with their number.
func (b *bench) check() error {
	server := newServer(0)
	defer server.Close()
	for _, n := range []int{100, 1000, 10_000} {
		p, err := b.place(fmt.Sprint("check", n), server.URL)
		if err != nil {
			return err
		}
		if err := p.grants(n); err != nil {
			return err
		}
		commands := [][]string{b.upsauth("status"), b.upsauth("doctor"), b.upsauth("vault", "check")}
		names := []string{"`status`, which opens none", "`doctor`", "`vault check`"}
		times := make([][]time.Duration, len(commands))
		memory := make([]int, len(commands))
		for range min(b.runs, 5) {
			for i, command := range commands {
				kb, took, err := b.peak(run, p.env("true"), command)
				if err != nil {
					return err
				}
				times[i], memory[i] = append(times[i], took), max(memory[i], kb)
			}
		}
		t := b.report.table(fmt.Sprintf("The secrets of %d companies, file home", n))
		for i, median := range medians(times) {
			each, aim := median/time.Duration(n), target{}
			if i > 0 && n == 10_000 {
				aim.time = 3 * time.Second
			}
			t.add(fmt.Sprintf("%s, %d µs a grant", names[i], each.Microseconds()), median, float64(median)/float64(medians(times)[0]), aim, memory[i])
		}
	}
	return nil
}

// flow measures a sign-in from the start of the process to its end, when the
// grant is saved, into a vault that has another company's.
func (b *bench) flow() error {
	server := newServer(0)
	defer server.Close()
	p, err := b.place("flow", server.URL)
	if err != nil {
		return err
	}
	env, client := p.env(b.program("opener")), []string{b.program("client"), server.URL, b.program("opener")}
	if _, err := run(env, b.authorize("Another")); err != nil {
		return err
	}
	times, err := b.alternate(2, func(i int) (time.Duration, error) {
		if i == 0 {
			return run(env, client)
		}
		took, err := run(env, b.authorize("Acme"))
		if err == nil {
			_, err = run(env, b.upsauth("revoke", "--company", "Acme", "--yes"))
		}
		return took, err
	})
	if err != nil {
		return err
	}
	t := b.report.table("The whole code flow")
	for i, name := range []string{"a client that only exchanges and prints", "`authorize`, saved durably"} {
		command := client
		if i > 0 {
			command = b.authorize("Acme")
		}
		memory, _, err := b.peak(run, env, command)
		if err != nil {
			return err
		}
		t.add(name, times[i], float64(times[i])/float64(times[0]), target{ratio: []float64{0, 2}[i]}, memory)
	}
	return nil
}

// refresh measures many refreshes against a server that takes its time: few jobs, where
// the server's time hides what a refresh takes, and more than two cores can do.
func (b *bench) refresh() error {
	const latency = 100 * time.Millisecond
	server := newServer(latency)
	defer server.Close()
	for _, of := range []struct {
		companies, jobs int
		ratio           float64
	}{{b.refreshed / 10, 8, 1.15}, {b.refreshed, 64, 1.3}} {
		p, err := b.place(fmt.Sprint("refresh", of.jobs), server.URL)
		if err != nil {
			return err
		}
		if err := p.grants(of.companies); err != nil {
			return err
		}
		var times []time.Duration
		memory := 0
		for range min(3, b.runs) {
			kb, took, err := b.peak(run, p.env("true"), b.upsauth("refresh", "--all", "--force", "--jobs", strconv.Itoa(of.jobs)))
			if err != nil {
				return err
			}
			times, memory = append(times, took), max(memory, kb)
		}
		t := b.report.table(fmt.Sprintf("`refresh --all --force --jobs %d` of %d companies, a server that takes %s", of.jobs, of.companies, latency))
		ideal := time.Duration(of.companies) * latency / time.Duration(of.jobs)
		median := medians([][]time.Duration{times})[0]
		t.add("the server alone, ideally", ideal, 1, target{}, 0)
		t.add(fmt.Sprintf("upsauth, %d runs", len(times)), median, float64(median)/float64(ideal), target{ratio: of.ratio, memory: 60 << 10}, memory)
	}
	return nil
}
