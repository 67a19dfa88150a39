package events

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// world is what a test that kills the service shows to it.
type world struct {
	N       int
	Records []grant.Record
}

// child is a service that looks at what is in a file, again and again, until its standard
// input ends.
func child() {
	dir := os.Getenv("EVENTS_CHILD")
	done := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(done) }()
	ctx, stop := context.WithCancel(context.Background())
	runner := Runner{Environ: os.Environ()}
	q := New(Options{
		Store: NewFiles(filepath.Join(dir, "events"), time.Now), Now: time.Now, Facts: facts, Run: runner.Run,
		After:   func(time.Duration) <-chan time.Time { return time.After(5 * time.Millisecond) },
		Event:   func(string, ...any) {},
		Trouble: func(_, _, text string) { fmt.Fprintln(os.Stderr, text) },
	})
	ended := make(chan struct{})
	go func() { q.Work(ctx); close(ended) }()
	command := []string{"/bin/sh", "-c", `cat >>"$0"`, filepath.Join(dir, "got")}
	for {
		var w world
		text, err := os.ReadFile(filepath.Join(dir, "world"))
		if err == nil {
			err = json.Unmarshal(text, &w)
		}
		if err == nil {
			err = q.Look(context.Background(), Known{Records: w.Records, Complete: true}, command)
		}
		if err == nil {
			err = safefile.WritePassing(filepath.Join(dir, "seen"), strconv.AppendInt(nil, int64(w.N), 10))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {
		case <-done:
			stop()
			<-ended
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// A service that is killed at any moment loses no event, gives none another ID and keeps
// their order. It may tell one twice.
func TestKilledAtAnyMoment(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the command is a shell's")
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	const companies = 4
	var (
		w     world
		want  [companies][]string
		next  = 100
		kills int
	)
	for c := range companies {
		w.Records = append(w.Records, record(fmt.Sprintf("company %d", c), c+1, noon.Add(1e6*time.Hour)))
	}
	show := func() {
		w.N++
		text, err := json.Marshal(w)
		if err == nil {
			err = safefile.Write(filepath.Join(dir, "world"), text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	start := func() (kill func(), end func()) {
		c := self(t, "EVENTS_CHILD="+dir)
		var said bytes.Buffer
		c.Stderr = &said
		stdin, err := c.StdinPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		wait := func() {
			_ = c.Wait()
			if said.Len() > 0 {
				t.Errorf("the service said %s", said.String())
			}
		}
		return func() { _ = c.Process.Kill(); wait() }, func() { stdin.Close(); wait() }
	}
	waitFor := func(what string, ready func() bool) {
		for deadline := time.Now().Add(30 * time.Second); !ready(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	seen := func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "seen"))
		n, _ := strconv.Atoi(string(text))
		return n == w.N
	}
	show()
	kill, end := start()
	for range 40 {
		waitFor("a look", seen)
		for c := range companies {
			one := &w.Records[c]
			switch {
			case r.IntN(2) == 0:
			case one.Void:
				next++
				*one = record(one.Company, next, noon.Add(1e6*time.Hour))
				want[c] = append(want[c], "authorized", "recovered")
			default:
				*one = void(*one)
				want[c] = append(want[c], "void")
			}
		}
		show()
		for range r.IntN(3) {
			time.Sleep(time.Duration(r.IntN(20_000)) * time.Microsecond) // the moment
			kill()
			kills++
			kill, end = start()
		}
	}
	waitFor("a look", seen)
	waitFor("all to be told", func() bool {
		names, err := os.ReadDir(filepath.Join(dir, "events"))
		return err == nil && len(names) == 1
	})
	end()
	text, err := os.ReadFile(filepath.Join(dir, "got"))
	if err != nil {
		t.Fatal(err)
	}
	var got [companies][]string
	ids := map[string]string{}
	for line := range strings.Lines(string(text)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("told %q: %v", line, err)
		}
		if before, again := ids[e.Header.ID]; again {
			if before != line {
				t.Errorf("told once %s and then %s", before, line)
			}
			continue
		}
		ids[e.Header.ID] = line
		c, _ := strconv.Atoi(strings.TrimPrefix(e.Company, "company "))
		got[c] = append(got[c], string(e.Event))
	}
	for c := range got {
		if !slices.Equal(got[c], want[c]) {
			t.Errorf("company %d got %q, want %q", c, got[c], want[c])
		}
	}
	t.Logf("%d events, %d deliveries, %d kills", len(ids), strings.Count(string(text), "\n"), kills)
}
