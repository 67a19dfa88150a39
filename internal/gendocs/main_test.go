package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
)

var docs = filepath.Join("..", "..", "docs")

// TestUpToDate finds a command that was changed without its pages.
func TestUpToDate(t *testing.T) {
	fresh := t.TempDir()
	if err := generate(fresh); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"reference", "man"} {
		want, got := read(t, filepath.Join(fresh, dir)), read(t, filepath.Join(docs, dir))
		for name, text := range want {
			if there, ok := got[name]; !ok {
				t.Errorf("docs/%s/%s is missing: run make docs", dir, name)
			} else if there != text {
				t.Errorf("docs/%s/%s is not what the command says: run make docs", dir, name)
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				t.Errorf("docs/%s/%s is about no command: run make docs", dir, name)
			}
		}
	}
}

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		// git may have given the file the line ends of the system.
		all[file.Name()] = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
	return all
}

// generated returns fresh man pages.
func generated(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	if err := generate(dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "man", "*"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d man pages, %v", len(pages), err)
	}
	return pages
}

// TestManRenders calls man as a person does.
func TestManRenders(t *testing.T) {
	realpart.Program(t, "man", "man-db")
	dir := t.TempDir()
	if err := generate(dir); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("man", "./man/upsauth-authorize.1")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MANPAGER=cat", "PAGER=cat")
	var warnings bytes.Buffer
	cmd.Stderr = &warnings
	output, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Fatalf("%v: %s", err, warnings.String())
	}
	text := regexp.MustCompile(".\b").ReplaceAllString(string(output), "") // bold and underlined
	for _, want := range []string{
		"NAME\n", "upsauth-authorize - Authorize a company", "\nSYNOPSIS\n", "\nDESCRIPTION\n", "\nOPTIONS\n", "--companies-file ",
		"\nEXAMPLES\n", "  upsauth authorize --company \"Acme Corp\"\n", "\nEXIT STATUS\n", "\nENVIRONMENT\n", "upsauth-environment(7)", "\nSEE ALSO\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}
}

func TestGroffWarnsOfNothing(t *testing.T) {
	realpart.Program(t, "groff", "groff-base")
	warnings, err := exec.Command("groff", append([]string{"-man", "-ww", "-z", "-Tutf8"}, generated(t)...)...).CombinedOutput()
	if err != nil || len(warnings) > 0 {
		t.Errorf("%v: %s", err, warnings)
	}
}

func TestManLint(t *testing.T) {
	realpart.Program(t, "mandoc", "mandoc")
	for _, page := range generated(t) {
		found, _ := exec.Command("mandoc", "-Tlint", "-Wwarning", page).CombinedOutput()
		for line := range strings.Lines(string(found)) {
			if !strings.Contains(line, "missing date") {
				t.Error(line)
			}
		}
	}
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		`--x 'a' "b" \n`: `\-\-x \(aqa\(aq \(dqb\(dq \en`,
		".hidden":        `\&.hidden`,
		"a.b…":           `a.b\[u2026]`,
		"^~`":            `\(ha\(ti\(ga`,
	} {
		if got := roff(text); got != want {
			t.Errorf("%q became %q instead of %q", text, got, want)
		}
	}
}

func TestBlocks(t *testing.T) {
	got := blocks("One\nparagraph.\n\nA list:\n\n    a\n      b\n\n    c\nEnd.\n")
	want := []block{
		{false, []string{"One", "paragraph."}},
		{false, []string{"A list:"}},
		{true, []string{"a", "  b", "", "c"}},
		{false, []string{"End."}},
	}
	if !slices.EqualFunc(got, want, func(a, b block) bool { return a.verbatim == b.verbatim && slices.Equal(a.lines, b.lines) }) {
		t.Errorf("blocks are %v", got)
	}
}
