// Testreport makes go test -json readable: a package's closing line as it comes,
// the whole output of what failed, and at the end which tests were skipped, and why.
//
//	go test -json ./... | go run ./internal/testreport
//
// It ends with 1 if a test or a build failed.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	failed, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// event is what go test -json says; see go doc test2json.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type test struct{ pkg, name string }

type skip struct {
	test
	reason string
}

// report copies what a person wants to know of the events in r to w.
func report(r io.Reader, w io.Writer) (failed bool, err error) {
	out := bufio.NewWriter(w)
	defer func() { err = cmp.Or(err, out.Flush()) }()
	// What each test said, and under an empty name its package; and the tests that
	// have not ended, in the order in which they began.
	said := map[test]*strings.Builder{}
	var open []test
	var skips []skip
	passed := 0
	in := bufio.NewReader(r)
	for {
		line, readErr := in.ReadString('\n')
		var e event
		if line == "" {
			if readErr == io.EOF {
				break
			}
			return true, readErr
		}
		if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
			fmt.Fprint(out, line) // of go itself
			continue
		}
		key := test{e.Package, e.Test}
		switch e.Action {
		case "output":
			if e.Test == "" && isClosing(e.Output) {
				fmt.Fprint(out, e.Output)
				if err := out.Flush(); err != nil {
					return true, err
				}
				break
			}
			if strings.HasPrefix(e.Output, "=== ") {
				continue // which test runs now, as with -v
			}
			if said[key] == nil {
				said[key] = &strings.Builder{}
				open = append(open, key)
			}
			said[key].WriteString(e.Output)
			continue
		case "build-output":
			fmt.Fprint(out, e.Output)
			continue
		case "build-fail":
			failed = true
			continue
		case "fail":
			failed = true
			if e.Test == "" {
				// Also what was under way when the package's process ended.
				for _, t := range open {
					if t.pkg == e.Package {
						fmt.Fprint(out, said[t])
					}
				}
			} else if said[key] != nil {
				fmt.Fprint(out, said[key])
			}
		case "pass":
			if e.Test != "" {
				passed++
			}
		case "skip":
			if e.Test != "" {
				reason := "no reason"
				if said[key] != nil {
					reason = reasonOf(said[key].String())
				}
				skips = append(skips, skip{key, reason})
			}
		default:
			continue
		}
		if e.Action != "output" {
			ended := func(t test) bool { return t == key || e.Test == "" && t.pkg == e.Package }
			open = slices.DeleteFunc(open, ended)
			delete(said, key)
			if e.Test == "" {
				for t := range said {
					if ended(t) {
						delete(said, t)
					}
				}
			}
		}
	}
	slices.SortFunc(skips, func(a, b skip) int {
		return cmp.Or(cmp.Compare(a.pkg, b.pkg), cmp.Compare(a.name, b.name))
	})
	for _, s := range skips {
		fmt.Fprintf(out, "skipped: %s %s: %s\n", s.pkg, s.name, s.reason)
	}
	fmt.Fprintf(out, "%d tests passed, %d were skipped\n", passed, len(skips))
	return failed, nil
}

// isClosing tells the line that go test ends a package with.
func isClosing(line string) bool {
	for _, start := range []string{"ok  \t", "FAIL\t", "?   \t"} {
		if strings.HasPrefix(line, start) {
			return true
		}
	}
	return false
}

var place = regexp.MustCompile(`^\w+\.go:\d+: `)

// reasonOf is the last line that a test said before it was skipped: a script's
// command, or the text behind file and line.
func reasonOf(said string) string {
	reason := "no reason"
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "--- ") {
			reason = line
		}
	}
	return place.ReplaceAllString(reason, "")
}
