package browser

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// $BROWSER is read as Python's webbrowser and xdg-open read it: alternatives parted
// by colons, each with words as a shell has them.
func TestBrowserPrograms(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there a backslash parts directories, and a semicolon programs")
	}
	for _, tt := range []struct {
		list string
		want [][]string // nil for an entry that can't be read
	}{
		{`firefox`, [][]string{{"firefox"}}},
		{`firefox --new-window %s`, [][]string{{"firefox", "--new-window", "%s"}}},
		{`"/a b/x" %s`, [][]string{{"/a b/x", "%s"}}},
		{`'/a b/x' "%s"`, [][]string{{"/a b/x", "%s"}}},
		{`/a\ b/x %s &`, [][]string{{"/a b/x", "%s"}}},
		{`"/a \"b\"/x" ''`, [][]string{{`/a "b"/x`, ""}}},
		{`"a\b" '\'`, [][]string{{`a\b`, `\`}}},
		{`one:two %s`, [][]string{{"one"}, {"two", "%s"}}},
		{`"/a:b/x" %s:two`, [][]string{{"/a:b/x", "%s"}, {"two"}}},
		{`x --flag="a b"`, [][]string{{"x", "--flag=a b"}}},
		{`"/a b/x`, [][]string{nil}},
		{`x \`, [][]string{nil}},
		{`:  :x`, [][]string{nil, nil, {"x"}}},
		{`"" x`, [][]string{nil}},
	} {
		var got [][]string
		for _, program := range Programs(tt.list) {
			words, err := Words(program)
			if (err != nil) != (words == nil) {
				t.Errorf("%s: %q, %v", program, words, err)
			}
			got = append(got, words)
		}
		if !slices.EqualFunc(got, tt.want, slices.Equal) {
			t.Errorf("%s: %q, want %q", tt.list, got, tt.want)
		}
	}
}

// Where a program must not be started with the address, it gets a page that nobody
// else can read and that leads there.
func TestPrivatePage(t *testing.T) {
	const address = `http://localhost:8400/start/X?a=1&b="2"`
	page, drop, err := PrivatePage(address)
	if err != nil {
		t.Fatal(err)
	}
	path, ok := strings.CutPrefix(page, "file://")
	if !ok || strings.Contains(page, "start") {
		t.Fatalf("the page is at %s", page)
	}
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/")
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `http-equiv="refresh" content="0; url=http://localhost:8400/start/X?a=1&amp;b=&#34;2&#34;"`) {
		t.Errorf("the page is\n%s", text)
	}
	drop()
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
