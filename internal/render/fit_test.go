package render

import (
	"io"
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	for name, test := range map[string]struct {
		width      int
		text, want string
	}{
		"no terminal":          {0, strings.Repeat("word ", 50), strings.Repeat("word ", 50)},
		"it fits":              {10, "one two\nthree\n", "one two\nthree\n"},
		"broken at spaces":     {10, "one two three four\n", "one two\nthree four\n"},
		"without a line break": {10, "one two three", "one two\nthree"},
		"a prompt":             {10, "one two three? ", "one two\nthree? "},
		"moved in":             {12, "  one two three\n", "  one two\n  three\n"},
		"a step":               {16, "1. Listening for the answer.\n", "1. Listening for\n   the answer.\n"},
		"the tenth step":       {17, "10. Listening for the answer.\n", "10. Listening for\n    the answer.\n"},
		"two columns":          {24, "  --flag  what it is good for\n", "  --flag  what it is\n          good for\n"},
		"two, and no room":     {20, "  --a-long-flag  what it is good for\n", "  --a-long-flag\n      what it is\n      good for\n"},
		"a word too long":      {5, "abcdefgh ij\n", "abcde\nfgh\nij\n"},
		"an address":           {10, "go to https://example.com/a/b/c now\n", "go to\nhttps://example.com/a/b/c\nnow\n"},
		"a command":            {30, "  Run: upsauth authorize --company 'Acme Corp' --app x\n", "  Run: upsauth authorize \\\n  --company 'Acme Corp' \\\n  --app x\n"},
		"far moved in":         {20, "                out of the way\n", "          out of the\n          way\n"},
		"a sentence":           {20, "upsauth has this, and that\n", "upsauth has this,\nand that\n"},
		"a command in another": {20, "  T=$(upsauth token --company A)\n", "  T=$(upsauth \\\n  token --company A)\n"},
		"wide letters":         {7, "東京 サン プル\n", "東京\nサン\nプル\n"},
		"letters with marks":   {4, "e\u0301e\u0301e\u0301e\u0301e\u0301\n", "e\u0301e\u0301e\u0301e\u0301\ne\u0301\n"},
	} {
		if got := Fit(test.text, test.width); got != test.want {
			t.Errorf("%s:\n%q\nwant\n%q", name, got, test.want)
		}
	}
}

// Nothing but spaces and the marks of broken commands comes or goes.
func FuzzFit(f *testing.F) {
	f.Add("1. Listening for the answer on http://localhost:8400/callback\n  Run: upsauth authorize --company 'A B'\n", 20)
	f.Add("  --flag string   what\n\n 東京 é\n", 9)
	squeezed := func(s string) string {
		return strings.NewReplacer(" ", "", "\n", "", "\\", "").Replace(strings.Join(strings.Fields(s), ""))
	}
	f.Fuzz(func(t *testing.T, text string, width int) {
		got := Fit(text, width%300)
		if squeezed(got) != squeezed(text) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func TestRowsAndTablesFitTheTerminal(t *testing.T) {
	const uri, id = "https://portal.example.com/callback", "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA"
	rows := []Row{{"Company", strings.Repeat("é長", 50)}, {"Token Vault Key", id}, {"Last error", strings.Repeat("word ", 40) + "end"}, {"Next", "upsauth authorize --company 'Acme Corp' --app intelligent-rating --env production"}}
	lines := [][]string{{"intelligent-rating", "production", id, uri, "yes"}, {"x", "cie", strings.Repeat("i", 300), "http://localhost:8400", "-"}}
	header := []string{"APPLICATION", "ENVIRONMENT", "CLIENT ID", "REDIRECT URI", "DEFAULT"}
	findings := []Finding{{Level: Failure, Check: "callback port", Found: strings.Repeat("word ", 30) + "end", Remedy: "Run: upsauth app add NAME --client-id ID --redirect-uri URI\n" + strings.Repeat("word ", 30) + "end"}}
	for name, write := range map[string]func(io.Writer, int) error{
		"rows":     func(w io.Writer, width int) error { return Rows(w, rows, width) },
		"panel":    func(w io.Writer, width int) error { return Panel(w, acme(), width) },
		"batch":    func(w io.Writer, width int) error { return BatchSuitePanel(w, acme(), rows[3].Value, width) },
		"table":    func(w io.Writer, width int) error { return Table(w, header, lines, width) },
		"findings": func(w io.Writer, width int) error { return FindingLines(w, findings, width) },
	} {
		whole := output(t, func(w io.Writer) error { return write(w, 0) })
		if n := widestLine(whole); n < 61 && name != "panel" && name != "batch" {
			t.Errorf("%s: where nothing is broken it is %d wide:\n%s", name, n, whole)
		}
		same(t, output(t, func(w io.Writer) error { return write(w, 1000) }), whole)
		for width := 40; width < 200; width++ {
			got := output(t, func(w io.Writer) error { return write(w, width) })
			if n := widestLine(got); n > width {
				t.Errorf("%s at %d columns is %d wide:\n%s", name, width, n, got)
			}
			for _, line := range strings.Split(got, "\n") {
				if line != strings.TrimRight(line, " ") {
					t.Errorf("%s at %d columns has spaces at an end: %q", name, width, line)
				}
			}
		}
	}
	got := output(t, func(w io.Writer) error { return Table(w, header, lines[:1], 60) })
	same(t, got, `APPLICATION         ENVIRONMENT
    CLIENT ID
    REDIRECT URI                         DEFAULT
intelligent-rating  production
    FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA
    https://portal.example.com/callback  yes
`)
	got = output(t, func(w io.Writer) error { return Rows(w, rows[3:], 50) })
	same(t, got, `Next  upsauth authorize --company 'Acme Corp' \
      --app intelligent-rating --env production
`)
}
