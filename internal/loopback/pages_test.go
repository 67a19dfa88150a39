package loopback

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestResultPages(t *testing.T) {
	p, err := newPages("")
	if err != nil {
		t.Fatal(err)
	}
	page := Page{
		Title:   "Acme Corp",
		Heading: "AUTHORIZED",
		Text:    []string{"An OAuth token exists for this company!"},
		Rows:    []Row{{"Token Vault Key", "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA"}, {"Issued", "11/21/2026 4:05:03 PM +00:00"}},
		Warning: "Somebody else signed in than last time",
		Next:    "Nothing",
	}
	for _, ok := range []bool{true, false} {
		page.OK = ok
		body, err := p.result(page)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			`<html lang="en">`, `<meta name="viewport" content="width=device-width, initial-scale=1">`, "<main", "<h1", "<dl>", "prefers-color-scheme: dark",
			"AUTHORIZED", "An OAuth token exists for this company!", "<dt>Token Vault Key</dt>", "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA",
			"<strong>Warning:</strong> Somebody else", "What to do now",
		}
		if ok {
			want = append(want, "<title>Success: Acme Corp</title>", "</svg>Success</p>", "You can close this window.")
		} else {
			want = append(want, "<title>Failed: Acme Corp</title>", "</svg>Failed</p>", "The terminal shows the same error.")
		}
		for _, w := range want {
			if strings.Count(string(body), w) != 1 {
				t.Errorf("OK %v: %q stands %d times in\n%s", ok, w, strings.Count(string(body), w), body)
			}
		}
		checkPage(t, p, string(body))
	}
}

func TestPagesEscape(t *testing.T) {
	p, err := newPages("")
	if err != nil {
		t.Fatal(err)
	}
	const evil = `</title></style><script>alert(1)</script><img src=x onerror="a">&'`
	body, err := p.result(Page{OK: true, Title: evil, Heading: evil, Text: []string{evil}, Rows: []Row{{evil, evil}}, Next: evil, Warning: evil})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(body), "&lt;script&gt;"); n != 7 {
		t.Errorf("%d of 7 fields stand in the page, escaped", n)
	}
	checkPage(t, p, string(body))
}

// A name that is written from right to left must not turn the sentence around it,
// nor be taken for a part of another word.
func TestNamesAreSetApart(t *testing.T) {
	const hebrew = "שלום בע\"מ"
	for _, tt := range []struct {
		text  string
		names []string
		want  string
	}{
		{hebrew + " is authorized", []string{hebrew}, "<bdi>שלום בע&#34;מ</bdi> is authorized"},
		{"A is authorized: An A", []string{"A"}, "<bdi>A</bdi> is authorized: An <bdi>A</bdi>"},
		{"by Acme Corp, not by Acme.", []string{"Acme", "", "Acme Corp"}, "by <bdi>Acme Corp</bdi>, not by <bdi>Acme</bdi>."},
		{"<b>&", []string{"<b>"}, "<bdi>&lt;b&gt;</bdi>&amp;"},
		{"aaa aa", []string{"aa"}, "aaa <bdi>aa</bdi>"},
		{"no name", nil, "no name"},
		{"", []string{"x"}, ""},
	} {
		if got := string(apart(tt.text, tt.names)); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
	p, err := newPages("")
	if err != nil {
		t.Fatal(err)
	}
	body, err := p.result(Page{
		Names: []string{hebrew}, Heading: hebrew + " is authorized", Text: []string{"For " + hebrew + "."}, Rows: []Row{{"Signed in", hebrew}},
		Warning: "Not " + hebrew, Next: "Ask " + hebrew,
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(body), "<bdi>שלום"); n != 5 || strings.Contains(string(body), "dir=") {
		t.Errorf("%d of 5 names are set apart, or a whole line turns:\n%s", n, body)
	}
	checkPage(t, p, string(body))
}

func TestRefusalPages(t *testing.T) {
	p, err := newPages("")
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{400, 404, 405, 408, 409, 410, 414, 503} {
		body, err := p.render("refusal", "Refused", p.refusal(status, "it is wrong"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(body), "<title>Refused: ") || strings.Contains(string(body), "Success") || strings.Contains(string(body), "Failed") {
			t.Errorf("the page for %d says something else than that it was refused:\n%s", status, body)
		}
		checkPage(t, p, string(body))
	}
}

var (
	inPage  = regexp.MustCompile(`(?i)<script|<img|<link|<iframe|<form|<base|\ssrc=|\shref=|\sstyle=|\son[a-z]+="|@import|url\(`)
	inStyle = regexp.MustCompile(`(?s)<style>(.*?)</style>`)
)

// checkPage fails the test if the page could load or run anything, or if its
// own style is not the one its policy allows.
func checkPage(t *testing.T, p *pages, body string) {
	t.Helper()
	for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(body, -1) {
		if inPage.MatchString(tag) {
			t.Errorf("the page has %s", tag)
		}
	}
	styles := inStyle.FindAllStringSubmatch(body, -1)
	if len(styles) != 1 {
		t.Fatalf("%d styles in\n%s", len(styles), body)
	}
	sum := sha256.Sum256([]byte(styles[0][1]))
	if hash := base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(p.policy, "style-src 'sha256-"+hash+"'") {
		t.Error("the policy does not allow the page's own style")
	}
	if inPage.MatchString(styles[0][1]) {
		t.Error("the style loads something")
	}
}

// WCAG 2 success criterion 1.4.3: 4.5 to 1 for text, in light and in dark.
func TestContrast(t *testing.T) {
	sets := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(pageCSS, -1)
	if len(sets) != 2 {
		t.Fatalf("%d sets of colours", len(sets))
	}
	for i, set := range sets {
		colours := make(map[string]float64)
		for _, m := range regexp.MustCompile(`--([a-z]+): #([0-9a-f]{6});`).FindAllStringSubmatch(set[1], -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for _, pair := range [][2]string{{"text", "sheet"}, {"quiet", "sheet"}, {"success", "sheet"}, {"failure", "sheet"}, {"text", "note"}} {
			a, okA := colours[pair[0]]
			b, okB := colours[pair[1]]
			if !okA || !okB {
				t.Fatalf("set %d lacks one of %v", i, pair)
			}
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
				t.Errorf("set %d: %s on %s has %.2f to 1", i, pair[0], pair[1], ratio)
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
