//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is the text that the measurements make.
type report struct{ tables []*table }

type table struct {
	title, header string
	rows          []string
}

func (r *report) table(title string) *table {
	t := &table{title: title, header: "| | median | ratio | target | peak memory |\n|---|---:|---:|---:|---:|\n"}
	r.tables = append(r.tables, t)
	return t
}

// target is what a measurement is to be at most, zero for any.
type target struct {
	ratio  float64
	time   time.Duration
	memory int // KB
}

// met says what the target is, and whether it was met; nothing for a target of nothing.
func (t target) met(median time.Duration, ratio float64, memory int) string {
	var aims []string
	met := true
	aim := func(text string, ok bool) {
		aims, met = append(aims, text), met && ok
	}
	if t.ratio > 0 {
		aim(fmt.Sprintf("%.2f", t.ratio), ratio <= t.ratio)
	}
	if t.time > 0 {
		aim(t.time.String(), median <= t.time)
	}
	if t.memory > 0 {
		aim(fmt.Sprintf("%d MB", t.memory/1024), memory <= t.memory)
	}
	switch {
	case aims == nil:
		return ""
	case met:
		return strings.Join(aims, " and ") + ", met"
	}
	return strings.Join(aims, " and ") + ", missed"
}

// add writes a line; memory is in KB and 0 where it was not measured.
func (t *table) add(name string, median time.Duration, ratio float64, aim target, memory int) {
	most := ""
	if memory > 0 {
		most = fmt.Sprintf("%.1f MB", float64(memory)/1024)
	}
	shown := fmt.Sprintf("%.2f ms", float64(median.Microseconds())/1000)
	if median > time.Second {
		shown = fmt.Sprintf("%.2f s", median.Seconds())
	}
	t.rows = append(t.rows, fmt.Sprintf("| %s | %s | %.2f | %s | %s |\n", name, shown, ratio, aim.met(median, ratio, memory), most))
}

// tokens shows what a token takes over a socket, beside the command. Client and server
// share the processors.
func (r *report) tokens(p50, p99, each, command, hello time.Duration, memory int) {
	t := &table{title: fmt.Sprintf("Tokens of %d companies from `serve`, over its socket with keep-alive", served),
		header: "| | median of the runs | target | of `upsauth token` |\n|---|---:|---:|---:|\n"}
	r.tables = append(r.tables, t)
	us := func(d time.Duration) string { return fmt.Sprintf("%.0f µs", float64(d.Nanoseconds())/1000) }
	line := func(name string, d time.Duration, shown string, aim string, met bool) {
		switch {
		case aim == "":
		case met:
			aim += ", met"
		default:
			aim += ", missed"
		}
		t.rows = append(t.rows, fmt.Sprintf("| %s | %s | %s | %.4f |\n", name, shown, aim, float64(d)/float64(command)))
	}
	line("one client, p50", p50, us(p50), "100 µs", p50 <= 100*time.Microsecond)
	line("one client, p99", p99, us(p99), "2000 µs", p99 <= 2*time.Millisecond)
	persec := float64(time.Second) / float64(each)
	line(fmt.Sprintf("%d clients, tokens per second", together), each, fmt.Sprintf("%.0f", persec), "5000", persec >= 5000)
	line(fmt.Sprintf("`upsauth token`, a process each, %.1f MB", float64(memory)/1024), command, us(command), "", false)
	line("Go hello-world", hello, us(hello), "", false)
}

// memory begins a table of how much a service has, now and at most.
func (r *report) memory(title string) *table {
	t := &table{title: title, header: "| | resident | most so far |\n|---|---:|---:|\n"}
	r.tables = append(r.tables, t)
	return t
}

// pages begins a table of pages for browsers.
func (r *report) pages(title string) *table {
	t := &table{title: title, header: "| | median | of `status` | size |\n|---|---:|---:|---:|\n"}
	r.tables = append(r.tables, t)
	return t
}

// page writes a line; a size of 0 is not shown.
func (t *table) page(name string, median, status time.Duration, size int) {
	shown := ""
	if size > 0 {
		shown = fmt.Sprintf("%.1f KB", float64(size)/1024)
	}
	t.rows = append(t.rows, fmt.Sprintf("| %s | %.1f ms | %.3f | %s |\n", name, float64(median.Microseconds())/1000, float64(median)/float64(status), shown))
}

// inits shows the packages whose initialization takes longest.
func (r *report) inits(clock map[string][]time.Duration, allocations map[string]string) {
	t := &table{title: "Initialization of packages, before `main`", header: "| package | median | allocations |\n|---|---:|---:|\n"}
	type entry struct {
		name string
		time time.Duration
	}
	var entries []entry
	sum := time.Duration(0)
	for name, times := range clock {
		median := medians([][]time.Duration{times})[0]
		entries = append(entries, entry{name, median})
		sum += median
	}
	slices.SortFunc(entries, func(a, b entry) int { return int(b.time - a.time) })
	for _, e := range entries[:min(len(entries), 10)] {
		t.rows = append(t.rows, fmt.Sprintf("| %s | %.3f ms | %s |\n", e.name, float64(e.time.Microseconds())/1000, allocations[e.name]))
	}
	t.rows = append(t.rows, fmt.Sprintf("| all %d | %.3f ms | |\n", len(entries), float64(sum.Microseconds())/1000))
	r.tables = append(r.tables, t)
}

func (r *report) markdown(b *bench) (string, error) {
	var text strings.Builder
	machine, err := machine()
	if err != nil {
		return "", err
	}
	clock := "its own clock"
	if b.hyperfine != "" {
		version, err := exec.Command(b.hyperfine, "--version").Output()
		if err != nil {
			return "", err
		}
		clock = strings.TrimSpace(string(version))
	}
	fmt.Fprintf(&text, "%s, %s. Medians of %d runs or more where nothing else is said, times by %s.\n",
		time.Now().UTC().Format(time.DateOnly), machine, b.runs, clock)
	for _, t := range r.tables {
		fmt.Fprintf(&text, "\n### %s\n\n%s%s", t.title, t.header, strings.Join(t.rows, ""))
	}
	return text.String(), nil
}

// machine says what was measured on.
func machine() (string, error) {
	cpu := runtime.GOARCH
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d cores (%s), Linux %s, %s, load %s at the end", runtime.NumCPU(), cpu,
		unix.ByteSliceToString(u.Release[:]), runtime.Version(), strings.Fields(string(load))[0]), nil
}

const begin, end = "<!-- make bench writes what follows -->\n", "<!-- make bench ends here -->\n"

// into puts the text between the two marks of a document.
func into(path, text string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(document), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no place for the figures: it lacks the marks %q and %q", path, begin, end)
	}
	return os.WriteFile(path, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}
