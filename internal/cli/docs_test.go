package cli

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
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
		rest := string(text)
		if filepath.Base(path) == "README.md" {
			rest = strings.Replace(rest, section(t, rest, "Five minutes with the sandbox"), "", 1) // TestReadmeWalk has it
		}
		blocks := shellBlocks(rest)
		if len(blocks) == 0 {
			continue
		}
		commands += strings.Count(strings.Join(blocks, ""), "upsauth ")
		script := "lab YOUR_CLIENT_ID:the-client-secret:http://localhost:8400/callback\n" +
			"env TEST_UPS=$LAB\nenv UPSAUTH_CLIENT_SECRET=the-client-secret\n" +
			"rm identity.txt\nenv UPSAUTH_VAULT=\nenv UPSAUTH_IDENTITY=\nkeyring\n" +
			"exec sh -c 'grep -v -e ^.refresh -e ^retry_ config/config.toml >c; mv c config/config.toml'\n" + // for no other place than loopback
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

// TestReadmeWalk pastes what the README says works without a keychain into the
// shell of somebody new: a fresh home directory, no D-Bus, and the program where
// make build puts it. A walk that needed upsauth in PATH and a keychain stopped at
// its first line.
func TestReadmeWalk(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the README's lines are for a POSIX shell")
	}
	realpart.Program(t, "curl", "curl")
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	walk := func(t *testing.T, title string, settings ...string) string {
		t.Helper()
		dir, home := filepath.Join(t.TempDir(), "a clone"), t.TempDir()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		program, err := exec.LookPath("upsauth")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(dir, "upsauth")); err != nil {
			t.Fatal(err)
		}
		shell := exec.CommandContext(t.Context(), "sh", "-eu")
		shell.Dir = dir
		shell.Env = append([]string{"HOME=" + home, "PATH=/usr/local/bin:/usr/bin:/bin", "TZ=UTC"}, settings...)
		shell.Stdin = strings.NewReader(strings.Join(shellBlocks(section(t, string(text), title)), ""))
		var out, said strings.Builder
		shell.Stdout, shell.Stderr = &out, &said
		if err := shell.Run(); err != nil {
			t.Fatalf("%v\n%s%s", err, out.String(), said.String())
		}
		return out.String()
	}
	t.Run("Five minutes", func(t *testing.T) {
		out := walk(t, "Five minutes with the sandbox")
		for _, want := range []string{"An OAuth token exists for this company!", "jane", "Acme Corp"} {
			if !strings.Contains(out, want) {
				t.Errorf("there is no %q in\n%s", want, out)
			}
		}
	})
	t.Run("Without a keychain", func(t *testing.T) {
		program, err := exec.LookPath("upsauth")
		if err != nil {
			t.Fatal(err)
		}
		person, err := exec.LookPath("person")
		if err != nil {
			t.Fatal(err)
		}
		out := walk(t, "Without a keychain", "PATH="+filepath.Dir(program)+":/usr/bin:/bin", "BROWSER="+person)
		if !strings.Contains(out, "Batch Ltd") {
			t.Errorf("the status is\n%s", out)
		}
	})
}

// TestSecurityNamesItsTests guards SECURITY.md against a measure that nobody measures any
// more: each test and script that it names is there.
func TestSecurityNamesItsTests(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	err = filepath.WalkDir(filepath.Join(root, "internal"), func(path string, _ fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasSuffix(path, ".txtar"):
			there[filepath.Base(path)] = true
		case strings.HasSuffix(path, "_test.go"):
			source, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func ((Test|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
				there[string(m[1])] = true
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+|\\w+\\.txtar)`").FindAllStringSubmatch(string(text), -1)
	if len(names) < 10 {
		t.Errorf("SECURITY.md names only %d tests", len(names))
	}
	for _, m := range names {
		if !there[m[1]] {
			t.Errorf("SECURITY.md names %s, which is not there", m[1])
		}
	}
}

// section returns the part of a document below a heading of the second level.
func section(t *testing.T, document, title string) string {
	t.Helper()
	_, rest, found := strings.Cut(document, "\n## "+title+"\n")
	if !found {
		t.Fatalf("the document has no section %q", title)
	}
	part, _, _ := strings.Cut(rest, "\n## ")
	return part
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
