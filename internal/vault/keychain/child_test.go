package keychain

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keyringtest"
	"github.com/upsauth/upsauth/internal/vault"
)

// The tests of a real keychain run upsauth's part in processes of their own, as
// a command would: go-keyring keeps one connection to the bus a process, and a
// call that hangs hangs until its process ends.

const childVariable = "UPSAUTH_KEYCHAIN_TEST"

// task is what a child does.
type task struct {
	Op         string // get, put, delete, list, or churn: put without end
	Account    string
	Secret     string
	Generation int64
	Size       int // of the secrets that churn puts
	Limit      int
	Deadline   time.Duration
}

// outcome is what came of it.
type outcome struct {
	Secret    string
	Accounts  []string
	Keyrings  []Keyring
	Err       string
	Do        []vault.Act
	NoItem    bool
	HomeError bool
	TimedOut  bool
	Damaged   bool
	Took      time.Duration
}

// runChild does a child's task and ends the process, in a child.
func runChild() {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	var do task
	if err := json.Unmarshal([]byte(text), &do); err != nil {
		panic(err)
	}
	h := New(System{}, do.Limit, do.Deadline, nil)
	out := json.NewEncoder(os.Stdout)
	ctx := context.Background()
	start := time.Now()
	var o outcome
	var err error
	switch do.Op {
	case "get":
		var secret []byte
		secret, err = h.Get(ctx, do.Account)
		o.Secret = string(secret)
	case "put":
		err = h.Put(ctx, do.Account, do.Generation, []byte(do.Secret))
	case "delete":
		err = h.Delete(ctx, do.Account)
	case "list":
		o.Accounts, err = h.Accounts(ctx)
	case "can delete":
		err = h.CanDelete(ctx, do.Account)
	case "keyrings":
		o.Keyrings, err = h.Keyrings(ctx)
	case "churn":
		for generation := int64(1); err == nil; generation++ {
			start = time.Now()
			if err = h.Put(ctx, do.Account, generation, []byte(secretOf(generation, do.Size, "churn"))); err == nil {
				fmt.Println(generation)
			}
		}
	}
	o.Took = time.Since(start)
	if err != nil {
		o.Err = err.Error()
		o.NoItem = errors.Is(err, vault.ErrNoItem)
		var e *vault.HomeError
		if errors.As(err, &e) {
			o.HomeError, o.Do, o.TimedOut, o.Damaged = true, e.Do, e.TimedOut, e.Damaged
		}
	}
	if err := out.Encode(o); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// childCommand is the command that does a task on a keyring, or without any
// where env is empty.
func childCommand(t *testing.T, env []string, do task) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(do)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	// A process under the race detector sleeps for a second before it ends,
	// unless it is told not to.
	cmd.Env = append(cmd.Env, childVariable+"="+string(text), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

func inChild(t *testing.T, env []string, do task) outcome {
	t.Helper()
	out, err := childCommand(t, env, do).Output()
	if err != nil {
		t.Fatalf("the child ended with %v: %s", err, out)
	}
	var o outcome
	if err := json.Unmarshal(out, &o); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return o
}

// churn is a child that puts one generation after another.
type churn struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
}

// startChurn returns once a few writes are done and one is under way.
func startChurn(t *testing.T, env []string, do task) *churn {
	t.Helper()
	do.Op = "churn"
	c := &churn{t: t, cmd: childCommand(t, env, do)}
	pipe, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(pipe)
	for range 3 {
		if line, err := c.out.ReadString('\n'); err != nil {
			t.Fatalf("the child says %q, %v", line, err)
		}
	}
	return c
}

// end waits for the churn to fail and returns what it says.
func (c *churn) end() outcome {
	c.t.Helper()
	rest, err := io.ReadAll(c.out)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("the child ended with %v: %s", err, rest)
	}
	var o outcome
	if err := json.Unmarshal(lastLine(rest), &o); err != nil {
		c.t.Fatalf("%v: %s", err, rest)
	}
	return o
}

func lastLine(text []byte) []byte {
	var last []byte
	for line := range bytes.Lines(text) {
		last = line
	}
	return last
}

func mustItems(t *testing.T, k *keyringtest.Keyring) []string {
	t.Helper()
	items, err := k.Items(Service)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
