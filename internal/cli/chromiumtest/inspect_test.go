package chromiumtest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

//go:embed inspect.js
var inspectScript string

// problems is what inspect.js finds at that width.
func (b *tab) problems(width int) []string {
	b.t.Helper()
	return evaluate[[]string](b, fmt.Sprintf("(%s)(%d)", inspectScript, width))
}

// look makes the tab as wide as a telephone or a screen, in light or dark.
func (b *tab) look(width int, scheme string) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(width), Height: 800, DeviceScaleFactor: 1, Mobile: width < 600,
	})
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// inspect looks at a page that was just loaded as people see it, and keeps
// pictures of it where dir is not empty.
func (b *tab) inspect(dir, name string) {
	b.t.Helper()
	seen := map[string]bool{}
	say := func(where string, problems []string) {
		b.t.Helper()
		for _, problem := range problems {
			if !seen[problem] {
				b.t.Errorf("%s: %s", where, problem)
			}
			seen[problem] = true
		}
	}
	say("with the keyboard", b.tabThrough())
	for _, width := range widths {
		for _, scheme := range schemes {
			b.look(width, scheme)
			where := fmt.Sprintf("%s-%d", scheme, width)
			say(where, b.problems(width))
			if dir != "" {
				b.keep(filepath.Join(dir, name+"-"+where+".png"))
			}
		}
	}
}

var (
	widths  = []int{320, 1280}
	schemes = []string{"light", "dark"}
)

// keep writes a picture of the whole page.
func (b *tab) keep(file string) {
	b.t.Helper()
	whole := true
	shot := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &whole})
	if err := os.WriteFile(file, shot.Data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// tabThrough goes with the tabulator to each link and control of a page that was
// just loaded, forth in light and back in dark, and returns where it does not
// get, or does not show that it got there.
func (b *tab) tabThrough() (problems []string) {
	b.t.Helper()
	const stops = `[...document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea, summary, [tabindex]")].filter(stop => stop.checkVisibility())`
	focused := fmt.Sprintf(`({Stop: %s.findIndex(stop => stop.matches(":focus-visible")), Problems: (%s)(%d, true)})`, stops, inspectScript, widths[0])
	check := func(stop int) {
		at := evaluate[struct {
			Stop     int
			Problems []string
		}](b, focused)
		if at.Stop != stop {
			problems = append(problems, fmt.Sprintf("the focus shows at stop %d and not at %d", at.Stop, stop))
		}
		problems = append(problems, at.Problems...)
	}
	b.look(widths[0], schemes[0])
	count := evaluate[int](b, stops+".length") // at this width: others have other menus
	for stop := range count {
		run(b, chromedp.KeyEvent("\t"))
		check(stop)
	}
	b.look(widths[0], schemes[1])
	for stop := count - 1; stop >= 0; stop-- {
		check(stop)
		run(b, chromedp.KeyEvent("\t", chromedp.KeyModifiers(chromedp.ModifierShift)))
	}
	return problems
}

// outline is what a screen reader makes of the page: landmarks, headings and
// controls, with what it says about them. Text outside of every landmark is
// marked.
func (b *tab) outline() string {
	b.t.Helper()
	nodes := call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes
	byID := map[accessibility.NodeID]*accessibility.Node{}
	for _, node := range nodes {
		byID[node.NodeID] = node
	}
	var s strings.Builder
	var walk func(node *accessibility.Node, depth int)
	walk = func(node *accessibility.Node, depth int) {
		if node == nil {
			return
		}
		role := said(node.Role)
		switch {
		case node.Ignored:
		case role == "StaticText" && depth == 0:
			fmt.Fprintf(&s, "OUTSIDE %q\n", said(node.Name))
		case slices.Contains([]string{"banner", "main", "heading", "textbox", "checkbox", "button", "link", "alert", "region", "term", "table"}, role):
			fmt.Fprintf(&s, "%s%s%s\n", strings.Repeat("\t", depth), role, describe(node))
			depth++
		}
		if role == "heading" || role == "term" {
			return
		}
		for _, id := range node.ChildIDs {
			walk(byID[id], depth)
		}
	}
	if len(nodes) > 0 {
		walk(nodes[0], 0)
	}
	return s.String()
}

func describe(node *accessibility.Node) string {
	var s strings.Builder
	if name := said(node.Name); name != "" {
		fmt.Fprintf(&s, " %q", name)
	}
	for _, property := range node.Properties {
		value := said(property.Value)
		switch {
		case property.Name == accessibility.PropertyNameLevel:
			fmt.Fprintf(&s, " %s", value)
		case property.Name == accessibility.PropertyNameInvalid && value != "false", property.Name == accessibility.PropertyNameRequired && value == "true",
			property.Name == accessibility.PropertyNameChecked && value == "true":
			fmt.Fprintf(&s, " %s", property.Name)
		}
	}
	if description := said(node.Description); description != "" {
		fmt.Fprintf(&s, " (%s)", description)
	}
	return s.String()
}

func said(value *accessibility.Value) string {
	if value == nil || len(value.Value) == 0 {
		return ""
	}
	var v any
	if json.Unmarshal(value.Value, &v) != nil || v == nil {
		return ""
	}
	return strings.Join(strings.Fields(fmt.Sprint(v)), " ")
}

// TestInspectionFinds proves that what the other tests look for would be found.
func TestInspectionFinds(t *testing.T) {
	t.Parallel()
	const good = `<!DOCTYPE html><html lang="en"><head><meta name="viewport" content="width=device-width, initial-scale=1"><title>A page</title>
<style>:root { color-scheme: light dark } body { color: #767676; background: #fff; font: 16px/1.5 sans-serif } a { color: #0000ee }
@media (prefers-color-scheme: dark) { body { color: #aaa; background: #000 } a, .wrong { color: #99f } }
input { border: 1px solid #767676; padding: 8px } button { border: 1px solid #767676; padding: 8px; font-size: 1rem } :focus-visible { outline: 3px solid #777 }</style></head>
<body><main><h1>A page</h1><p>Text with a <a href="/">link</a>.</p>
<p role="alert" id="wrong">Enter a name.</p><label for="name">Name</label> <input id="name" aria-invalid="true" aria-describedby="wrong">
<button>Send</button></main></body></html>`
	var html atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, html.Load().(string))
	}))
	defer server.Close()
	b := newTab(t)
	show := func(page string) {
		html.Store(page)
		b.open(server.URL)
	}
	for _, scheme := range schemes {
		for _, width := range widths {
			b.look(width, scheme)
			show(good)
			if problems := append(b.problems(width), b.tabThrough()...); len(problems) > 0 {
				t.Errorf("%s, %d px: a good page has %q", scheme, width, problems)
			}
		}
	}

	type mistake struct{ old, bad, found string }
	// finds makes the mistake and looks for it.
	finds := func(m mistake, look func() []string) {
		t.Helper()
		page := strings.ReplaceAll(good, m.old, m.bad)
		if page == good {
			t.Fatalf("the good page has no %s", m.old)
		}
		show(page)
		if problems := look(); !slices.ContainsFunc(problems, func(problem string) bool { return strings.Contains(problem, m.found) }) {
			t.Errorf("with %s, %q is not found, but %q", m.bad, m.found, problems)
		}
		if title := b.title(); title == "run" {
			t.Error("a script ran")
		}
	}
	atSight := func() []string { return b.problems(widths[0]) }
	b.look(widths[0], "dark")
	finds(mistake{"color: #aaa", "color: #666", "contrast of 3.66 to 1"}, atSight)
	b.look(widths[0], "light")
	for _, m := range []mistake{
		{"color: #767676", "color: #777", "contrast of 4.48 to 1"},
		{"color: #767676", "color: rgb(0 0 0 / .5)", "contrast of 3.98 to 1"},
		{"<p>Text", `<p>Text <span style="background: linear-gradient(red, red)">x</span>`, "a picture is behind"},
		{"<p>Text", `<p style="opacity: .5">Text`, "translucent"},
		{"Text with", strings.Repeat("x", 60), "scrolls sideways"},
		{"<p>Text", `<div style="overflow: hidden; height: 10px">Text</div><p>`, "cut off"},
		{"<p>Text", `<div style="overflow: auto; width: 100px">` + strings.Repeat("x", 60) + "</div><p>", "for the mouse only"},
		{"<p>Text", `<div style="position: relative; left: -50px">Text</div><p>`, "its text reaches from"},
		{"<p>Text", `<p style="font-size: 11px">Text`, "tiny"},
		{"<button>Send", `<button style="width: 3em; overflow-wrap: anywhere">Continue`, "its word Continue is broken"},
		{"width=device-width", "width=1000", "laid out for 1000 px"},
		{` lang="en"`, "", "has no language"},
		{"<title>A page</title>", "", "has no title"},
		{"<h1>A page</h1>", "<p>A page</p>", "has 0 h1"},
		{"</h1>", "</h1><h1>Another</h1>", "has 2 h1"},
		{"</h1>", "</h1><h3>Deep</h3>", "a level is left out"},
		{"main>", "div>", "has 0 main"},
		{"</h1>", `</h1><p id="name">Name</p>`, "its id stands twice"},
		{"</h1>", `</h1><script>document.title = "run"</script>`, "does not belong here"},
		{`<a href`, `<a style="text-decoration: none" href`, "only its colour"},
		{`<label for="name">`, "<label>", "has no label"},
		{">Send<", "><", "has no label"},
		{"<button>", `<button style="padding: 0; border: 0; font-size: 14px; line-height: 1">`, "px small"},
		{"solid #767676; padding", "solid #ccc; padding", "its edge has a contrast"},
		{` aria-describedby="wrong"`, "", "nothing says what is wrong"},
		{` role="alert"`, "", "nothing says what is wrong"},
		{` aria-describedby="wrong"`, "", "it belongs to nothing"},
	} {
		finds(m, atSight)
	}
	for _, m := range []mistake{
		{"outline: 3px solid #777", "outline: none", "the focus hardly shows"},
		{"outline: 3px solid #777", "outline: 3px solid #ddd", "the focus hardly shows"},
		{"<button>", `<button tabindex="1">`, "the focus shows at stop 2 and not at 0"},
		{"<button>", `<button tabindex="-1">`, "and not at 2"},
	} {
		finds(m, b.tabThrough)
	}

	show(strings.Replace(good, "<main>", "<p>Outside</p><main>", 1))
	want := `OUTSIDE "Outside"
main
	heading "A page" 1
	link "link"
	alert
	textbox "Name" invalid (Enter a name.)
	button "Send"
`
	if got := b.outline(); got != want {
		t.Errorf("the outline is\n%s", got)
	}
}
