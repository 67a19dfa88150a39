package files_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// What matters between processes is tested with processes: the test binary
// starts itself with a task in this variable.
const childVariable = "UPSAUTH_VAULT_TEST"

type task struct {
	Op            string
	Dir, Identity string
	Times         int
}

// child is a process that does a task until it is told to end.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Scanner
}

func startChild(t *testing.T, w *world, do task) *child {
	t.Helper()
	do.Dir, do.Identity = w.dir, w.identity
	text, err := json.Marshal(do)
	check(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	// A process under the race detector sleeps for a second before it ends,
	// unless it is told not to.
	cmd.Env = append(os.Environ(), childVariable+"="+string(text), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	c := &child{t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return c
}

// wait waits for the next line, which must be the one wanted.
func (c *child) wait(want string) {
	c.t.Helper()
	if !c.out.Scan() || c.out.Text() != want {
		c.t.Fatalf("the child says %q (%v), want %q", c.out.Text(), c.out.Err(), want)
	}
}

// end tells the child to end, and waits until it has.
func (c *child) end() {
	c.t.Helper()
	check(c.t, c.in.Close())
	for c.out.Scan() {
		c.t.Errorf("the child says %q", c.out.Text())
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the child ended with %v", err)
	}
}

// kill ends the child in the middle of what it does, and returns what it said.
func (c *child) kill() (lines []string) {
	c.t.Helper()
	check(c.t, c.cmd.Process.Kill())
	for c.out.Scan() {
		lines = append(lines, c.out.Text())
	}
	_ = c.cmd.Wait()
	return lines
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
	homes := vault.Homes{agefile.New(filepath.Join(do.Dir, "vault"), do.Identity)}
	v := vault.New(files.New(do.Dir, homes))
	switch do.Op {
	case "lock":
		unlock := must(v.Lock(context.Background(), acme))
		untilTold("locked")
		unlock()
	case "login":
		unlock := must(v.LockLogin(context.Background(), acme.Company))
		untilTold("locked")
		unlock()
	case "count":
		count(v, do)
	case "churn":
		churn(v)
	}
	os.Exit(0)
}

func must[T any](value T, err error) T {
	noError(err)
	return value
}

func noError(err error) {
	if err != nil {
		panic(err)
	}
}

func untilTold(line string) {
	fmt.Println(line)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// count adds one to the number in a file, over and over, each time under the
// lock.
func count(v *vault.Vault, do task) {
	path := filepath.Join(do.Dir, "count")
	for range do.Times {
		unlock := must(v.Lock(context.Background(), acme))
		text, _ := os.ReadFile(path)
		n, _ := strconv.Atoi(string(text))
		noError(os.WriteFile(path, []byte(strconv.Itoa(n+1)), 0o600))
		unlock()
	}
}

// churn authorizes, refreshes and removes a company without end, and says what
// the next command must find. A line is written by one call, so that it is
// there whole or not at all, whenever the process ends.
func churn(v *vault.Vault) {
	ctx := context.Background()
	for n := 1; ; n++ {
		key := fmt.Sprintf("%08d-3C21-4F7E-B122-8BF55EA80CDA", n)
		unlock := must(v.Lock(ctx, acme))
		j := login(acme, key)
		if old, err := v.Record(ctx, acme); err == nil {
			j.Replaces = old.TokenVaultKey
		}
		noError(v.Claim(ctx, &j))
		for generation := int64(1); generation <= 3; generation++ {
			g := grantOf(acme, key, generation)
			if generation > 1 {
				old := must(v.Get(ctx, acme))
				j = refreshing(old)
				noError(v.Claim(ctx, &j))
			}
			g.JournalRecipient = j.Recipient
			noError(v.Seal(ctx, &j, nil, must(json.Marshal(g))))
			fmt.Printf("have %s %d\n", key, generation)
			noError(v.Put(ctx, g, generation-1, &j))
		}
		if n%3 == 0 {
			fmt.Println("removing")
			noError(v.Delete(ctx, acme))
			fmt.Println("removed")
		}
		unlock()
	}
}

// after is what there must be once the process that said the lines was killed:
// a grant at least as new, or none. It may also be gone where it was just being
// removed.
func after(lines []string) (g grant.Grant, mayBeGone bool) {
	mayBeGone = true
	for _, line := range lines {
		switch what, rest, _ := strings.Cut(line, " "); what {
		case "have":
			key, generation, _ := strings.Cut(rest, " ")
			n, _ := strconv.ParseInt(generation, 10, 64)
			g, mayBeGone = grantOf(acme, key, n), false
		case "removing":
			mayBeGone = true
		case "removed":
			g = grant.Grant{}
		}
	}
	return g, mayBeGone
}
