// Package chromiumtest tests the sign-in in a real Chromium. It is a package of
// its own because what drives Chromium makes every start of a test binary
// slow, and the scripts of package cli start theirs hundreds of times.
package chromiumtest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/cli"
	"github.com/upsauth/upsauth/internal/ups"
)

// chromium starts a real headless Chromium that reaches nothing but this
// machine.
func chromium(t *testing.T) context.Context {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("Chromium is missing: install Debian's package chromium")
		}
		t.Skip("Chromium is missing")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	return ctx
}

// testEnv is an Env of its own directory with a file vault, on which commands
// run in this process.
func testEnv(t *testing.T) (env *cli.Env, out, errOut *lockedBuffer) {
	t.Helper()
	dir := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identityFile := filepath.Join(dir, "identity.txt")
	if err := os.WriteFile(identityFile, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{
		"UPSAUTH_CONFIG_DIR": filepath.Join(dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": identityFile,
	}
	out, errOut = &lockedBuffer{}, &lockedBuffer{}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	return &cli.Env{
		In: strings.NewReader(""), Out: out, Err: errOut,
		Getenv:  func(name string) string { return settings[name] },
		Environ: func() []string { return nil },
		Now:     time.Now, Zone: time.UTC, Transport: transport,
	}, out, errOut
}

// lockedBuffer is a buffer that a command writes while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestChromiumSignsIn guards the minute at the browser in a real one: both
// pages of the sign-in, and a last page that says what really happened, at an
// address without the code.
func TestChromiumSignsIn(t *testing.T) {
	browser := chromium(t)
	for _, test := range []struct {
		name    string
		decline bool
		exit    int
		heading string
		shows   []string
	}{
		{name: "success", exit: 0, heading: "Acme & Söhne is authorized",
			shows: []string{"Success", "An OAuth token exists for this company!", "Token Vault Key", "Refresh Token Expires", "jane", "password"}},
		{name: "declined", decline: true, exit: 1, heading: "Acme & Söhne was not authorized",
			shows: []string{"Failed", "declined"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			env, out, errOut := testEnv(t)
			addresses := make(chan string, 1)
			env.OpenBrowser = func(_ context.Context, address string) error {
				addresses <- address
				return nil
			}
			exit := make(chan int, 1)
			go func() {
				exit <- cli.Run(browser, env, []string{"authorize", "--company", "Acme & Söhne", "--env", "sandbox"})
			}()
			address := <-addresses
			do := func(step string, actions ...chromedp.Action[chromedp.Void]) {
				t.Helper()
				if err := chromedp.Do(browser, actions...); err != nil {
					t.Fatalf("%s: %v\n%s", step, err, errOut)
				}
			}
			text := func(selector string) string {
				t.Helper()
				text, err := chromedp.Run(browser, chromedp.Text(chromedp.CSS(selector)))
				if err != nil {
					t.Fatalf("the text of %s: %v\n%s", selector, err, errOut)
				}
				return text
			}
			do("the first page", chromedp.Navigate(address), chromedp.WaitVisible(chromedp.CSS("#username")))
			if page := text("body"); !strings.Contains(page, "UPS® Intelligent Rating") || !strings.Contains(page, "sandbox") {
				t.Errorf("the first page names neither the application nor the sandbox: %s", page)
			}
			if test.decline {
				do("cancel", chromedp.Click(chromedp.CSS("button[value=cancel]")))
			} else {
				do("the first page's form", chromedp.SendKeys(chromedp.CSS("#username"), "jane"),
					chromedp.Click(chromedp.CSS("#agree")), chromedp.Click(chromedp.CSS("button[value=continue]")),
					chromedp.WaitVisible(chromedp.CSS("#password")))
				if page := text("main"); !strings.Contains(page, "Welcome back, jane") {
					t.Errorf("the second page does not greet: %s", page)
				}
				do("the second page's form", chromedp.SendKeys(chromedp.CSS("#password"), "any"),
					chromedp.Click(chromedp.CSS("button[value=login]")))
			}
			do("the last page", chromedp.WaitVisible(chromedp.CSS(".outcome")))
			if got := text("h1"); got != test.heading {
				t.Errorf("the last page's heading is %q, not %q", got, test.heading)
			}
			page := text("main")
			for _, want := range test.shows {
				if !strings.Contains(page, want) {
					t.Errorf("the last page does not show %q: %s", want, page)
				}
			}
			location, err := chromedp.Run(browser, chromedp.Location())
			if err != nil || !strings.Contains(location, "/done/") || strings.Contains(location, "code=") || strings.Contains(location, "state=") {
				t.Errorf("the last page's address is %q (%v)", location, err)
			}
			history, err := chromedp.Run(browser, chromedp.NavigationEntries())
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range history.Entries {
				if strings.Contains(entry.URL, "code=") && !strings.Contains(entry.URL, "response_type=code") {
					t.Errorf("the history keeps the code: %s", entry.URL)
				}
			}
			if got := <-exit; got != test.exit {
				t.Errorf("exit code %d, not %d\n%s", got, test.exit, errOut)
			}
			if key := vaultKey(out.String()); !test.decline && (key == "" || !strings.Contains(page, key)) {
				t.Errorf("terminal and page show different grants:\n%s\n%s", out, page)
			}
		})
	}
}

func vaultKey(panel string) string {
	_, rest, _ := strings.Cut(panel, "Token Vault Key")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}
