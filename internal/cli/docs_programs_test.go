package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestDocumentedPrograms runs the lines of docs/use-the-token.md in each language against
// a real service. What they get must be what upsauth token prints. Lines that nobody ran
// are the first that a reader tries and that fail.
func TestDocumentedPrograms(t *testing.T) {
	switch {
	case testing.Short():
		t.Skip("with -short no real program is driven")
	case runtime.GOOS == "windows" || runtime.GOOS == "darwin":
		t.Skip("no socket, or temporary paths that are too long for one")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "use-the-token.md"))
	if err != nil {
		t.Fatal(err)
	}
	part := section(t, string(text), "From a program")
	goEnv, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	caches := strings.Fields(string(goEnv))
	dir := t.TempDir()
	for _, of := range []struct{ language, needs, run, before, after string }{
		{"python", "python3", "python3 -B program", "", "print(token)\n"},
		{"php", "php", "php program", "<?php\n", "echo $token, \"\\n\";\n"},
		{"js", "node", "node program.mjs", "", "console.log(token);\n"},
		{"go", "go", "go run program.go", goBefore, goAfter},
	} {
		blocks := codeBlocks(part, of.language)
		if len(blocks) != 1 || strings.Count(blocks[0], "\n") != 5 {
			t.Errorf("docs/use-the-token.md should have five lines of %s, and has %q", of.language, blocks)
			continue
		}
		script := "needs curl\nneeds " + of.needs + `
lab
env UPSAUTH_CLIENT_ID=cid
env UPSAUTH_CLIENT_SECRET=topsecret99
env UPSAUTH_REDIRECT_URI=http://localhost:0/cb
env UPSAUTH_SOCKET=$WORK/serve.sock
env GOCACHE=` + caches[0] + "\nenv GOMODCACHE=" + caches[1] + `
env GOFLAGS=-mod=mod
exits 0 upsauth authorize --company 'Acme Corp' --env lab
exec sh service.sh &service&
appears 1 'next round at' log.txt
exits 0 upsauth token --company 'Acme Corp'
cp stdout token.txt
exec ` + of.run + `
cmp stdout token.txt
exec sh -c 'kill $(cat pid)'
wait service
-- service.sh --
echo $$ >pid
exec upsauth serve --listen localhost:0 2>log.txt
-- log.txt --
-- ` + strings.Fields(of.run)[len(strings.Fields(of.run))-1] + " --\n" + of.before + blocks[0] + of.after
		if err := os.WriteFile(filepath.Join(dir, of.language+".txtar"), []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, scriptParams(dir))
}

const (
	goBefore = `package main

import ("context"; "encoding/json"; "log"; "net"; "net/http"; "net/url"; "os")

func main() {
var token struct{ AccessToken string ` + "`json:\"access_token\"`" + ` }
`
	goAfter = `if err != nil { log.Fatal(err) }
os.Stdout.WriteString(token.AccessToken + "\n")
}
`
)

// codeBlocks returns the fenced blocks of a document in a language.
func codeBlocks(document, language string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(document, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}
