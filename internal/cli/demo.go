package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/sandbox"
)

type demoOptions struct{ env *Env }

func newDemoCmd(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the whole life of a grant against the sandbox, in seconds",
		Long: `Authorizes a company, shows its status, refreshes its tokens and removes them. The
demo runs the real commands against the embedded sandbox, in a temporary directory
that it removes afterwards. The demo needs no browser, no keychain, no network and
no account, and asks no question.`,
		Example: "  upsauth demo",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), demoOptions{env: env}) },
	}
}

// demoCommands are the command lines that the demo runs.
func demoCommands() [][]string {
	return [][]string{
		{"authorize", "--company", "Acme Corp", "--env", "sandbox"},
		{"status"},
		{"refresh", "--company", "acme corp"},
		{"status", "--company", "Acme Corp"},
		{"revoke", "--company", "Acme Corp", "--yes"},
		{"status"},
	}
}

func runDemo(ctx context.Context, opts demoOptions) error {
	dir, err := os.MkdirTemp("", "upsauth-demo-")
	if err != nil {
		return fmt.Errorf("the demo needs a temporary directory: %w", err)
	}
	defer os.RemoveAll(dir)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("the demo's file vault needs a key: %w", err)
	}
	identityFile := filepath.Join(dir, "identity.txt")
	if err := safefile.Write(identityFile, []byte(identity.String()+"\n")); err != nil {
		return err
	}
	settings := map[string]string{
		config.EnvConfigDir: filepath.Join(dir, "config"),
		config.EnvStateDir:  filepath.Join(dir, "state"),
		config.EnvVault:     "file",
		config.EnvIdentity:  identityFile,
	}
	// Both streams are written by one command at a time, and by the person at
	// the sandbox's pages while authorize waits.
	transcript := &lockedWriter{w: opts.env.Out}
	var person sync.WaitGroup
	demo := *opts.env
	demo.In, demo.Out, demo.Err = strings.NewReader(""), transcript, transcript
	demo.lines = nil // those are of another standard input
	demo.InTerminal, demo.OutTerminal, demo.ErrTerminal = false, false, false
	demo.Getenv = func(name string) string { return settings[name] }
	demo.OpenBrowser = func(_ context.Context, address string, _ func(string, error)) error {
		// The person reads the last page, when nobody waits for the sign-in any
		// more.
		person.Go(func() { signInAtSandbox(ctx, transcript, address) })
		return nil
	}
	fmt.Fprintln(transcript, "The whole life of a grant, at the embedded sandbox, with a file vault in a temporary directory.")
	for _, args := range demoCommands() {
		fmt.Fprintf(transcript, "\n$ upsauth %s\n", commandLine(args))
		code := Run(ctx, &demo, args)
		person.Wait()
		if code != exitDone {
			return &statusError{code: code, what: fmt.Sprintf("the demo's command upsauth %s ended with exit code %d", commandLine(args), code)}
		}
	}
	fmt.Fprintln(transcript, "\nNext: upsauth authorize --company NAME --env sandbox does the same with your browser and your keychain.")
	return nil
}

func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = shellQuote(arg)
	}
	return strings.Join(quoted, " ")
}

// signInAtSandbox does what a person at a browser would.
func signInAtSandbox(ctx context.Context, w io.Writer, address string) {
	fmt.Fprintln(w, "   [A person signs in on the sandbox's two pages as jane@acme.example and agrees.]")
	page, err := sandbox.Person{User: "jane@acme.example", Password: "any password"}.SignIn(ctx, address)
	if inner := new(url.Error); errors.As(err, &inner) {
		err = inner.Err // the address has the code in it
	}
	if err != nil {
		fmt.Fprintf(w, "   [The sign-in failed: %v]\n", err)
		return
	}
	fmt.Fprintf(w, "   [The browser shows: %s]\n", firstWords(page.Text, 12))
}

func firstWords(text string, n int) string {
	words := strings.Fields(text)
	if len(words) <= n {
		return strings.Join(words, " ")
	}
	return strings.Join(words[:n], " ") + " …"
}

// lockedWriter lets several goroutines write whole pieces.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
