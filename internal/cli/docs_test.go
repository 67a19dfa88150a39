package cli

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/upsauth/upsauth/internal/realpart"
)

// TestDocumentedCommands pastes every sh block of the documents into a shell,
// in order, with a sandbox in the place of UPS and a person at the browser.
func TestDocumentedCommands(t *testing.T) {
	realpart.Program(t, "age-keygen", "age")
	root := filepath.Join("..", "..")
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	commands := 0
	for _, path := range append(documents, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		blocks := shellBlocks(string(text))
		if len(blocks) == 0 {
			continue
		}
		commands += strings.Count(strings.Join(blocks, ""), "upsauth ")
		script := "lab YOUR_CLIENT_ID:the-client-secret:http://localhost:8400/callback\n" +
			"env TEST_UPS=$LAB\nenv UPSAUTH_CLIENT_SECRET=the-client-secret\n" +
			"rm identity.txt\nenv UPSAUTH_VAULT=\nenv UPSAUTH_IDENTITY=\nkeyring\n" +
			"exec sh -eux document.sh\n-- new-secret.txt --\nthe-client-secret\n-- document.sh --\n" +
			// What a document leaves running ends with it, however it ends.
			"trap 'test -z \"${!-}\" || kill $! 2>/dev/null || :' EXIT\n" + strings.Join(blocks, "")
		name := strings.TrimSuffix(filepath.Base(path), ".md") + ".txtar"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(onFreePorts(t, script)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if commands < 10 {
		t.Fatalf("only %d upsauth commands were found in the documents", commands)
	}
	testscript.Run(t, scriptParams(dir))
}

// onFreePorts puts others in the place of the ports that the documents name: the
// same may be in use on this machine.
func onFreePorts(t *testing.T, script string) string {
	t.Helper()
	return regexp.MustCompile(`:84\d\d\b`).ReplaceAllStringFunc(script, func() func(string) string {
		instead := map[string]string{}
		return func(port string) string {
			if instead[port] == "" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				_, free, _ := net.SplitHostPort(l.Addr().String())
				instead[port] = ":" + free
			}
			return instead[port]
		}
	}())
}

// shellBlocks returns the fenced blocks of a document that are marked sh.
func shellBlocks(document string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```$").FindAllStringSubmatch(document, -1) {
		blocks = append(blocks, m[2])
	}
	return blocks
}
