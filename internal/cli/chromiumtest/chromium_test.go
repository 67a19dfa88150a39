// Package chromiumtest tests the sign-in in a real Chromium. It is a package of
// its own because what drives Chromium makes every start of a test binary
// slow, and the scripts of package cli start theirs hundreds of times.
package chromiumtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/realpart"
)

func TestMain(m *testing.M) {
	code := m.Run()
	endChromium()
	if dir, err := sandboxDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// theBrowser is the one Chromium of all tests, started by the first that needs
// it and ended by TestMain.
var theBrowser = sync.OnceValues(startChromium)

var endChromium = func() {}

var errNoChromium = errors.New("there is no Chromium: install Debian's package chromium-headless-shell")

// startChromium starts a real headless Chromium that reaches nothing but this
// machine.
func startChromium() (context.Context, error) {
	program := ""
	// The headless shell has the same engine, and no windows to draw: half of the work.
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		return nil, errNoChromium
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"),
		// Without this cache a page that is gone back to is really loaded again.
		chromedp.Flag("disable-features", "Translate,BackForwardCache"),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
		// Without this, keys that are pressed before a page is drawn do nothing.
		chromedp.Flag("allow-pre-commit-input", true),
		chromedp.Flag("disable-gpu", true), // there is none to speak of, and to play one takes longer
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, endProcess := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closeBrowser := chromedp.NewContext(ctx)
	endChromium = func() {
		closeBrowser()
		endProcess()
	}
	return ctx, chromedp.Do(ctx)
}

// patience is how long a test waits for something before it fails.
const patience = 90 * time.Second

// tab is a tab in which scripts are switched off: no page may need one. It notes
// what is loaded and what the console says.
type tab struct {
	t   *testing.T
	ctx context.Context // ends after patience
	raw context.Context // the tab's own

	mu        sync.Mutex
	requests  []string
	method    string // with which the latest page was asked for
	documents []*network.Response
	console   []*log.Entry
}

// spareTabs are those of tests that are over: to open a window takes Chromium
// longer than most tests.
var spareTabs = make(chan context.Context, 10)

// newTab returns a tab in a window of its own, with cookies, cache and history
// of its own.
func newTab(t *testing.T) *tab {
	t.Helper()
	realpart.Wanted(t)
	ctx, err := theBrowser()
	if errors.Is(err, errNoChromium) {
		realpart.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var raw context.Context
	select {
	case raw = <-spareTabs:
	default:
		raw, _ = chromedp.NewContext(ctx, chromedp.WithNewBrowserContext())
	}
	t.Cleanup(func() {
		if !t.Failed() && blank(raw) == nil {
			spareTabs <- raw
		}
	})
	return watch(raw, t)
}

// blank takes from a tab what a test has left in it.
func blank(raw context.Context) error {
	ctx, cancel := context.WithTimeout(raw, patience)
	defer cancel()
	return errors.Join(
		chromedp.Do(ctx, chromedp.Navigate("about:blank")),
		command(ctx, page.ResetNavigationHistory, cdp.Empty{}),
		command(ctx, network.ClearBrowserCookies, cdp.Empty{}),
		command(ctx, network.ClearBrowserCache, cdp.Empty{}),
		command(ctx, emulation.ClearDeviceMetricsOverride, cdp.Empty{}),
		command(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{}),
	)
}

func command[P, R any](ctx context.Context, c cdp.Command[P, R], params P) error {
	_, err := chromedp.Call(ctx, c, params)
	return err
}

// another opens a second tab in the same window.
func (b *tab) another() *tab {
	b.t.Helper()
	raw, closeTab := chromedp.NewContext(b.raw)
	b.t.Cleanup(closeTab)
	return watch(raw, b.t)
}

func watch(raw context.Context, t *testing.T) *tab {
	t.Helper()
	ctx, end := context.WithTimeout(raw, patience)
	b := &tab{t: t, ctx: ctx, raw: raw}
	// The first to use the tab's own context opens it.
	if err := chromedp.Do(raw); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	call(b, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	return b
}

func (b *tab) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
		if e.Type == network.ResourceTypeDocument {
			b.method = e.Request.Method
		}
	case *network.EventResponseReceived:
		if e.Type == network.ResourceTypeDocument {
			b.documents = append(b.documents, e.Response)
		}
	case *log.EventEntryAdded:
		b.console = append(b.console, e.Entry)
	case *runtime.EventExceptionThrown:
		b.console = append(b.console, &log.Entry{Text: e.ExceptionDetails.Text})
	}
}

// call sends a command of the DevTools protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

func run[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	result, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// load does what leads to another page, and waits for that.
func (b *tab) load(action chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if _, err := chromedp.RunResponse(b.ctx, action); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) open(address string) {
	b.t.Helper()
	b.load(chromedp.Navigate(address))
}

// follow clicks on a link or a button and waits for the page that it leads to.
func (b *tab) follow(selector string) {
	b.t.Helper()
	if !evaluate[bool](b, fmt.Sprintf("document.querySelector(%q) !== null", selector)) {
		b.t.Fatalf("the page has no %s:\n%s", selector, b.text("body"))
	}
	b.load(chromedp.Click(chromedp.CSS(selector)))
}

func (b *tab) back() {
	b.t.Helper()
	b.load(chromedp.NavigateBack())
}

func (b *tab) forward() {
	b.t.Helper()
	b.load(chromedp.NavigateForward())
}

func (b *tab) reload() {
	b.t.Helper()
	b.load(chromedp.Reload())
}

// text is what stands there just now. It waits for nothing, as chromedp's own
// query does while another page is on its way.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return evaluate[string](b, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

// evaluate is what an expression comes to on the page that is there. It is asked again
// where that page was just leaving, so it must not press anything.
func evaluate[T any](b *tab, expression string) T {
	b.t.Helper()
	for {
		result, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
		if leaving(err) {
			continue
		}
		if err != nil {
			b.t.Fatal(err)
		}
		return result
	}
}

// leaving reports whether a command failed because another page came meanwhile.
func leaving(err error) bool {
	var refused *cdproto.Error
	return errors.As(err, &refused) && (strings.Contains(refused.Message, "navigated or closed") ||
		strings.Contains(refused.Message, "context was destroyed") || strings.Contains(refused.Message, "Cannot find context"))
}

// waitFor waits until a page that comes by itself is there.
func waitFor(b *tab, there func() bool) {
	b.t.Helper()
	for !there() {
		select {
		case <-b.ctx.Done():
			ctx, cancel := context.WithTimeout(b.raw, 5*time.Second)
			defer cancel()
			shown, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.activeElement.outerHTML + '\\n' + document.body.innerText"))
			b.t.Fatalf("it did not come; there is (%v)\n%s", err, shown)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// comesTo waits for a page of that heading that leads on to no other by itself.
func (b *tab) comesTo(heading string) {
	b.t.Helper()
	waitFor(b, func() bool { return b.text("h1") == heading && b.still() })
}

// still reports whether the page that is shown is whole and leads nowhere by itself.
func (b *tab) still() bool {
	b.t.Helper()
	return evaluate[bool](b, `document.readyState === "complete" && !document.querySelector("meta[http-equiv=refresh]")`)
}

func (b *tab) title() string {
	b.t.Helper()
	return run(b, chromedp.Title())
}

func (b *tab) history() []*page.NavigationEntry {
	b.t.Helper()
	return run(b, chromedp.NavigationEntries()).Entries
}

// wantHeading fails the test at a page of another heading, or at one that
// browsers do not load again, nor go back to, without a question.
func (b *tab) wantHeading(want string) {
	b.t.Helper()
	if got := b.text("h1"); got != want {
		b.t.Fatalf("the page's heading is %q, not %q:\n%s", got, want, b.text("body"))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.method != http.MethodGet {
		b.t.Errorf("the page %q is the answer to a %s", want, b.method)
	}
}

// wantText fails the test if the page lacks one of the texts.
func (b *tab) wantText(want ...string) {
	b.t.Helper()
	text := strings.Join(strings.Fields(b.text("main")), " ")
	for _, w := range want {
		if !strings.Contains(text, w) {
			b.t.Errorf("the page does not say %q:\n%s", w, text)
		}
	}
}

// asked reports whether the tab has asked for an address with that in it.
func (b *tab) asked(part string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.requests, func(request string) bool { return strings.Contains(request, part) })
}

// checkTraffic fails the test if the tab asked anything of anybody but hosts, if
// the console has a complaint, or if a page came without what keeps it from
// loading, running and being kept.
func (b *tab) checkTraffic(hosts ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, request := range b.requests {
		if u, err := url.Parse(request); err != nil || u.Scheme != "http" || !slices.Contains(hosts, u.Host) {
			b.t.Errorf("the page asked for %s", request)
		}
	}
	refused := map[string]bool{}
	for _, document := range b.documents {
		refused[document.URL] = refused[document.URL] || document.Status >= 400
		header := func(name string) string {
			value, _ := document.Headers[name].(string)
			return value
		}
		if !strings.HasPrefix(header("Content-Security-Policy"), "default-src 'none'; ") || header("Cache-Control") != "no-store" ||
			header("X-Content-Type-Options") != "nosniff" {
			b.t.Errorf("%s came with the headers %v", document.URL, document.Headers)
		}
	}
	if len(b.documents) == 0 {
		b.t.Error("no page was loaded")
	}
	for _, entry := range b.console {
		// Chromium complains about every page that says what is wrong by its status.
		if entry.Source != log.EntrySourceNetwork || !refused[entry.URL] {
			b.t.Errorf("the console says: %s (%s)", entry.Text, entry.URL)
		}
	}
}
