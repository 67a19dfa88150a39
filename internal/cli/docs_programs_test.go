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

// TestProxyExample runs docs/examples/nginx with a real nginx before a real service. A
// proxy that loses the Host or hides where a form comes from would lock everybody out.
func TestProxyExample(t *testing.T) {
	behindNginx(t, "upsauth.conf", map[string]string{
		"listen 443 ssl;": "listen 127.0.0.1:8443 ssl;", "/etc/ssl/upsauth/": "", "/etc/nginx/": "",
	}, `needs nginx
needs curl
needs openssl
certificate cert.pem key.pem
exec sh password.sh
mkdir config
cp config.toml config/config.toml
exec sh service.sh &service&
appears 1 'company manager at https://upsauth.agency.example' log.txt
appears 1 'next round at' log.txt
exec sh nginx.sh &nginx&
exec sh browser.sh wrong /login
stdout '401$'
exec sh browser.sh right /login
stdout '200$'
exits 0 upsauth serve link
stdout '^https://upsauth.agency.example/login/'
cp stdout link.txt
exec sh -c 'sh browser.sh right $(sed s,https://upsauth.agency.example,, link.txt)'
stdout '303$'
exec sh browser.sh right /
stdout '200$'
exec sh browser.sh right /add -H 'Origin: https://elsewhere.example' -d company=Evil
stdout '403$'
exec sh browser.sh right /add -H 'Origin: https://upsauth.agency.example' -d company=Nord
stdout '303$'
exits 0 upsauth company list
stdout Nord
! stdout Evil
exec sh -c 'kill $(cat nginx.pid) $(cat pid)'
wait nginx
wait service
-- config.toml --
[serve]
manager_url = "https://upsauth.agency.example"
-- password.sh --
printf 'jane:%s\n' "$(openssl passwd -apr1 right)" >upsauth.htpasswd
-- service.sh --
echo $$ >pid
exec upsauth serve --listen 127.0.0.1:8488 2>log.txt
-- browser.sh --
password=$1; path=$2; shift 2
curl -sS --retry 30 --retry-delay 1 --retry-connrefused -k -u "jane:$password" -b jar -c jar -o page.html -w '%{http_code}' --resolve upsauth.agency.example:8443:127.0.0.1 "$@" "https://upsauth.agency.example:8443$path"
-- log.txt --
`)
}

// behindNginx runs a script beside an example of docs/examples/nginx, with changes for this
// machine. nginx.sh runs a real nginx with it.
func behindNginx(t *testing.T, name string, changes map[string]string, script string) {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("with -short no real program is driven")
	case runtime.GOOS != "linux":
		t.Skip("nginx is Debian's here")
	}
	example, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", "nginx", name))
	if err != nil {
		t.Fatal(err)
	}
	server := string(example)
	for from, to := range changes {
		if !strings.Contains(server, from) {
			t.Fatalf("the example has no %q", from)
		}
		server = strings.ReplaceAll(server, from, to)
	}
	script += `-- nginx.sh --
if [ "$(id -u)" = 0 ]; then echo 'user root;' >user.conf; else : >user.conf; fi
exec nginx -p "$PWD" -c nginx.conf -e stderr "$@"
-- nginx.conf --
include user.conf;
daemon off;
pid nginx.pid;
events {}
http {
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
include ` + name + `;
}
-- ` + name + ` --
` + server
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, strings.TrimSuffix(name, ".conf")+".txtar"), []byte(onFreePorts(t, script)), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, scriptParams(dir))
}
