package cli

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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
			databaseOf(t, filepath.Base(path)) +
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

// databaseOf gives the documents that speak of a shared vault a database: the one about it
// over TLS, at the address where it is and without tables.
func databaseOf(t *testing.T, document string) string {
	t.Helper()
	switch document {
	case "vault.md":
		realpart.Program(t, "psql", "postgresql-client")
		return "postgres\nexec sh -c 'upsauth vault schema | psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 \"$OWNER_URL\"'\n"
	case "shared-vault.md":
	default:
		return ""
	}
	realpart.Program(t, "psql", "postgresql-client")
	return `postgres tls
env UPSAUTH_DATABASE_URL=
env PGSSLROOTCERT=$DATABASE_CA
env PGPORT=$DATABASE_PORT
exec sh -c 'printf "%s:*:*:owner:owner-password\n%s:*:*:upsauth:upsauth-password\n" "$DATABASE_HOST" "$DATABASE_HOST" >.pgpass; chmod 600 .pgpass'
exec sh -c 'sed -i -e "s/db\.example:5432/$DATABASE_HOST:$DATABASE_PORT/; s/db\.example/$DATABASE_HOST/; s/dbname=upsauth/dbname=shop/" -e "s,/upsauth?,/shop?," document.sh'
`
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
				instead[port] = ":" + strconv.Itoa(realpart.Port(t))
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

// TestDocumentedWebhook posts events with the program that the documents have for it, from
// a service, to a receiver that checks each signature as its own library would, and that
// is down at first.
func TestDocumentedWebhook(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the program is for a POSIX shell")
	}
	for _, program := range []string{"curl", "python3", "openssl"} {
		realpart.Program(t, program, program)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "keep-alive.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	var mu sync.Mutex
	var bodies, ids []string
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		shared, err := os.ReadFile(secret)
		if err != nil {
			t.Error(err)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(string(shared)), "whsec_"))
		if err != nil || len(key) != 24 {
			t.Errorf("the secret has %d bytes, %v", len(key), err)
		}
		id, at := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
		if got, want := r.Header.Get("webhook-signature"), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != want {
			t.Errorf("the signature is %q, want %q", got, want)
		}
		if seconds, err := strconv.ParseInt(at, 10, 64); err != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute {
			t.Errorf("the time is %q", at)
		}
		if r.Header.Get("content-type") != "application/json" || r.Method != http.MethodPost {
			t.Errorf("%s of %q", r.Method, r.Header.Get("content-type"))
		}
		bodies, ids = append(bodies, string(body)), append(ids, id)
		if len(ids) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	const address = "https://hooks.example.com/upsauth"
	install := strings.Join(shellBlocks(section(t, string(text), "Events")), "")
	if strings.Count(install, address) != 1 {
		t.Fatalf("the documents' program has no address %s:\n%s", address, install)
	}
	script := `lab
clock 0s
env UPSAUTH_CLIENT_ID=cid
env UPSAUTH_CLIENT_SECRET=topsecret99
env UPSAUTH_REDIRECT_URI=http://localhost:0/cb
env PERSON=jane
exec sh -eu install.sh
exec cp webhook-secret ` + secret + `
exec sh -c 'printf "[events]\ncommand = [\"%s/webhook\"]\n" "$PWD" >>config/config.toml'
exec touch log.txt
exec sh service.sh &service&
appears 1 'next round at' log.txt
exits 0 upsauth authorize --company 'Müller & Söhne' --env lab
exec sh -c 'kill -HUP $(cat pid)'
appears 1 'did not take the event authorized of Müller & Söhne .*: exit status 22; the command said: .*503' log.txt
clock 1m
appears 1 'told the event authorized of Müller & Söhne .*' log.txt
exec sh -c 'kill -TERM $(cat pid)'
wait service
absent webhook-secret log.txt state
-- service.sh --
echo $$ >pid
exec upsauth refresh --every 10m 2>>log.txt
-- install.sh --
` + strings.Replace(install, address, receiver.URL+"/upsauth", 1)
	if err := os.WriteFile(filepath.Join(dir, "webhook.txtar"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, scriptParams(dir))
	t.Cleanup(func() { // the script is a test of its own, which runs later
		receiver.Close()
		mu.Lock()
		defer mu.Unlock()
		if len(ids) != 2 || ids[0] != ids[1] || bodies[0] != bodies[1] || !strings.Contains(bodies[0], `"id":"`+ids[0]+`","event":"authorized"`) {
			t.Errorf("got %q with the IDs %q", bodies, ids)
		}
	})
}
