//go:build unix

package chromiumtest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/cli"
)

// TestComingFrom guards the page for somebody who holds only one of the two manuals: each
// picture in docs/coming-from.md is of a page that is there, and the page has the words
// that the text before the picture prints in bold. With -artifacts it takes the pictures
// anew; make pictures does that.
func TestComingFrom(t *testing.T) {
	w := newWalk(t)
	b := w.tab

	// UPS Intelligent Rating.
	w.run("company", "add", "Acme Corp")
	b.open(w.link())
	b.wantHeading("Company manager")
	w.picture("rating-companies")
	b.press("Authorize")
	w.choose("Intelligent Rating")
	w.picture("rating-before")
	b.press("Continue to UPS")
	b.await("Log In")
	w.picture("ups-log-in")
	b.enter("jane@acme.example")
	w.picture("ups-password")
	b.logIn("any")
	b.await("Acme Corp is authorized")
	w.picture("rating-authorized")
	b.press("HOME")
	b.wantHeading("Company manager")
	b.press("Acme Corp")
	w.picture("rating-company")

	// UPS Batch Suite.
	w.run("company", "remove", "Acme Corp", "--revoke", "--yes")
	w.run("company", "add", "Acme Corp")
	b.open(w.link())
	b.open(w.manager + "/authorize?company=Acme+Corp&app=batch-suite&env=sandbox")
	b.press("Continue to UPS")
	b.await("Log In")
	b.enter("jane@acme.example")
	b.logIn("any")
	b.await("Acme Corp is authorized")
	w.picture("batch-configured")
	b.press("UPDATE API ACCESS")
	w.picture("batch-access-key")
	b.open(w.manager + "/")
	w.picture("batch-companies")
	b.press("Acme Corp")
	w.picture("batch-company")
	b.press("REMOVE AUTH")
	w.picture("batch-remove")

	w.done()
}

// walk is somebody who goes through the company manager of a real service.
type walk struct {
	t       *testing.T
	tab     *tab
	term    *terminal
	manager string              // its address
	said    map[string][]string // what the document says that each picture shows
	taken   []string
	dir     string // where pictures go, empty for nowhere
}

var (
	docPicture = regexp.MustCompile(`!\[[^\]]+\]\(pictures/([a-z-]+)\.png\)`)
	docBold    = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	managerAt  = regexp.MustCompile(`company manager at (http://localhost:[0-9]+)`)
)

func newWalk(t *testing.T) *walk {
	t.Helper()
	w := &walk{t: t, tab: newTab(t), term: newTerminal(t), said: map[string][]string{}}
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "coming-from.md"))
	if err != nil {
		t.Fatal(err)
	}
	from := 0
	for _, m := range docPicture.FindAllSubmatchIndex(text, -1) {
		name := string(text[m[2]:m[3]])
		for _, bold := range docBold.FindAllSubmatch(text[from:m[0]], -1) {
			w.said[name] = append(w.said[name], strings.Join(strings.Fields(string(bold[1])), " "))
		}
		if len(w.said[name]) == 0 {
			t.Errorf("docs/coming-from.md says nothing about the picture %s", name)
		}
		from = m[1]
	}
	if flag.Lookup("test.artifacts").Value.String() == "true" {
		w.dir = t.ArtifactDir()
	}
	// The path of a socket must be short.
	state, err := os.MkdirTemp("", "walk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	w.term.settings["UPSAUTH_STATE_DIR"] = filepath.Join(state, "s")
	w.serve()
	return w
}

// serve starts the service.
func (w *walk) serve() {
	w.t.Helper()
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cli.Run(ctx, w.term.env, []string{"serve", "--listen", "localhost:0"})
	}()
	w.t.Cleanup(func() {
		end()
		<-ended
	})
	for end := time.Now().Add(patience); !strings.Contains(w.term.errOut.String(), "next round at"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("the service does not begin:\n%s", &w.term.errOut)
		}
	}
	w.manager = managerAt.FindStringSubmatch(w.term.errOut.String())[1]
}

func (w *walk) run(args ...string) string {
	w.t.Helper()
	exit, out := w.term.run(args...)
	if exit != 0 {
		w.t.Fatalf("upsauth %s: exit code %d\n%s", strings.Join(args, " "), exit, &w.term.errOut)
	}
	return strings.TrimSpace(out)
}

func (w *walk) link() string {
	w.t.Helper()
	return w.run("serve", "link")
}

// choose chooses an application where the page asks for one.
func (w *walk) choose(application string) {
	w.t.Helper()
	if strings.HasPrefix(w.tab.text("main p"), "Several applications") {
		w.tab.press(application)
	}
}

// picture checks the words of the page, and takes a picture.
func (w *walk) picture(name string) {
	w.t.Helper()
	w.taken = append(w.taken, name)
	if _, ok := w.said[name]; !ok {
		w.t.Errorf("docs/coming-from.md does not show the picture %s", name)
	}
	w.tab.wantText(w.said[name]...)
	file := filepath.Join("..", "..", "..", "docs", "pictures", name+".png")
	if w.dir == "" {
		if _, err := os.Stat(file); err != nil {
			w.t.Errorf("%v; make pictures takes it", err)
		}
		return
	}
	w.tab.look(720, "light")
	file = filepath.Join(w.dir, name+".png")
	w.tab.keep(file)
	if err := shrink(file); err != nil {
		w.t.Error(err)
	}
}

func (w *walk) done() {
	w.t.Helper()
	for name := range w.said {
		if !slices.Contains(w.taken, name) {
			w.t.Errorf("docs/coming-from.md shows the picture %s, which is of no page", name)
		}
	}
}

// press follows the first link or button that has the text, or ends with it.
func (b *tab) press(text string) {
	b.t.Helper()
	found := run(b, chromedp.Evaluate[bool](fmt.Sprintf(`(() => {
		document.querySelector("#pressed")?.removeAttribute("id")
		const all = [...document.querySelectorAll("main a, main button")]
		const it = all.find(e => e.innerText.trim() === %[1]q) ?? all.find(e => e.innerText.includes(%[1]q))
		if (it) it.id = "pressed"
		return !!it
	})()`, text)))
	if !found {
		b.t.Fatalf("the page has nothing to press that says %q:\n%s", text, b.text("body"))
	}
	b.follow("#pressed")
}

// await waits for a page that comes by itself.
func (b *tab) await(heading string) {
	b.t.Helper()
	for end := time.Now().Add(patience / 3); b.text("h1") != heading; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("the page %q does not come:\n%s", heading, b.text("body"))
		}
	}
}

// shrink keeps the most frequent colors of a picture, which is all that text needs.
func shrink(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	full, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	count := map[color.RGBA]int{}
	size := full.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			count[color.RGBAModel.Convert(full.At(x, y)).(color.RGBA)]++
		}
	}
	var colors []color.RGBA
	for c := range count {
		colors = append(colors, c)
	}
	slices.SortFunc(colors, func(a, b color.RGBA) int { return count[b] - count[a] })
	var palette color.Palette
	for _, c := range colors[:min(len(colors), 32)] {
		palette = append(palette, c)
	}
	small := image.NewPaletted(size, palette)
	for y := range size.Dy() {
		for x := range size.Dx() {
			small.Set(x, y, full.At(x, y))
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o600)
}
