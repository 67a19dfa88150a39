package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInvitationsBehindAProxy runs docs/examples/nginx/invitations.conf with a real nginx,
// TLS and a real service, which is killed while a customer is at ups.com. What the
// customer began must be finished by the next process; nothing but the customers' pages
// may be reached; and neither log may have the address of an invitation or UPS's code.
func TestInvitationsBehindAProxy(t *testing.T) {
	behindNginx(t, "invitations.conf", map[string]string{
		"listen 443 ssl;": "listen 127.0.0.1:8443 ssl;", "/etc/ssl/upsauth/": "", "/var/log/nginx/": "logs/",
	}, behindAProxy)
}

// Each proxy of the examples brings browsers to the port of customers, and to no other
// face of the service.
func TestInvitationExamples(t *testing.T) {
	// What keeps addresses out of its logs.
	for name, quiet := range map[string]string{"nginx/invitations.conf": ".log crit;", "caddy/Caddyfile": "request>uri delete", "cloudflared/config.yml": "loglevel: fatal"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, has := range []string{`public_url    = "https://auth.agency.example"`, `public_listen = "127.0.0.1:8489"`, "127.0.0.1:8489", quiet} {
			if !strings.Contains(string(text), has) {
				t.Errorf("%s does not have %s", name, has)
			}
		}
		for _, not := range []string{"8488", ".sock", "programs_listen"} {
			if strings.Contains(string(text), not) {
				t.Errorf("%s has %s", name, not)
			}
		}
	}
}

var behindAProxy = `needs nginx
needs curl
certificate cert.pem key.pem
mkdir config
mkdir logs
cp config.toml config/config.toml
exec sh sandbox.sh &sandbox&
stdin secret.txt
exits 0 upsauth app add mine --env lab --client-id cid --client-secret-stdin --redirect-uri http://localhost:0/cb --public-redirect-uri https://auth.agency.example:8443/callback
exits 0 upsauth invite --company 'Nord AG' -o json
cp stdout invited.json
exec sh address.sh invited.json
! exec sh service.sh &service&
appears 1 'invited customers at http://127.0.0.1:8489, for a proxy' log.txt
appears 1 'next round at' log.txt
exec sh nginx.sh -t
stderr 'syntax is ok'
exec sh nginx.sh &nginx&
# It tries again until nginx listens.
exec sh curl.sh jar $WORK/url.txt

# The page, and nothing of the company manager's or the programs'.
exec sh browser.sh $WORK/url.txt
stdout '^200 '
grep 'Agency GmbH' page.html
exec sh paths.sh
stdout '^(404 ){26}$'

# The press sets a cookie that no other host can set.
exec sh browser.sh $WORK/url.txt -X POST
stdout '^200 '
grep '(?i)^set-cookie: __Host-upsauth-invitation-[0-3]=[A-Za-z0-9_-]+; Path=/; Max-Age=1(800|799); HttpOnly; Secure; SameSite=Lax\r?$' headers.txt
grep '(?i)^strict-transport-security: max-age=31536000\r?$' headers.txt
grep '(?i)^referrer-policy: same-origin\r?$' headers.txt
exec sh at-ups.sh jane

# The service dies while the customer is at ups.com, and what its error page is about is in
# no log.
exec sh -c 'kill -9 $(cat pid)'
wait service
exec sh browser.sh $WORK/callback.txt
stdout '^502 '
exec sh browser.sh $WORK/url.txt
stdout '^502 '

# Another process finishes what the customer began.
exec sh service.sh &another&
appears 2 'next round at' log.txt
exec sh browser.sh $WORK/callback.txt
stdout '^200 https://auth.agency.example:8443/done/[0-9a-f]+$'
grep 'Thank you. Ship &amp; Co is authorized|Thank you. mine is authorized' page.html
# So does loading it again; and another browser gets nothing.
exec sh browser.sh $WORK/callback.txt
stdout '^200 https://auth.agency.example:8443/done/[0-9a-f]+$'
exec sh stranger.sh $WORK/callback.txt
stdout '^403 '
exits 0 upsauth status -o json
stdout '"state": ?"authorized"'
stdout '"user": ?"jane"'
exec sh browser.sh $WORK/url.txt
stdout '^410 '

# What is no customer's is refused: at the proxy, and at the service.
exec sh browser.sh $WORK/url.txt --data-binary @big.txt
stdout '^413 '
exec sh -c 'curl -sS -o page.html -w "%{http_code}" --data-binary @big.txt http://127.0.0.1:8489/again'
stdout '^413$'
exec sh -c 'kill $(cat pid)'
wait another
exec sh -c 'kill $(cat nginx.pid) $(cat sandbox.pid)'
wait nginx
wait sandbox
absent address.txt logs log.txt
absent code.txt logs log.txt
absent state.txt logs log.txt
grep '\[.*\] POST 200 ' logs/auth.agency.example.log
-- secret.txt --
topsecret99
-- config.toml --
[environments.lab]
base_url = "http://127.0.0.1:8484"
[serve]
public_url = "https://auth.agency.example:8443"
public_listen = "127.0.0.1:8489"
from = "Agency GmbH"
contact = "+49 30 123"
-- sandbox.sh --
echo $$ >sandbox.pid
exec upsauth sandbox --listen 127.0.0.1:8484 --state memory --client cid:topsecret99:https://auth.agency.example:8443/callback >sandbox.txt 2>requests.txt
-- service.sh --
echo $$ >pid
exec upsauth serve --listen 127.0.0.1:8488 2>>log.txt
-- log.txt --
-- address.sh --
sed -n 's/.*"url": *"\([^"]*\)".*/\1/p' "$1" >url.txt
sed 's|.*/i/||' url.txt >address.txt
-- curl.sh --
jar=$1; url=$(cat "$2"); shift 2
exec curl -sS --retry 30 --retry-delay 1 --retry-connrefused -k -L -b $jar -c $jar -D headers.txt -o page.html -w '%{http_code} %{url_effective}' --resolve auth.agency.example:8443:127.0.0.1 "$@" "$url"
-- browser.sh --
url=$1; shift
exec sh curl.sh jar "$url" --retry 0 "$@"
-- stranger.sh --
exec sh curl.sh strangers-jar "$1"
-- at-ups.sh --
address=$(sed -n 's/.*content="0; url=\([^"]*\)".*/\1/p' page.html | sed 's/&amp;/\&/g')
signin=$(curl -sS -o ups.html -w '%{redirect_url}' "$address")
curl -sS -o ups.html -w '%{redirect_url}' "$signin" -d "username=$1" -d agree=yes -d password=pw >callback.txt
sed -n 's/.*[?&]code=\([^&]*\).*/\1/p' callback.txt >code.txt
sed -n 's/.*[?&]state=\([^&]*\).*/\1/p' callback.txt >state.txt
-- paths.sh --
ask() {
	at=$1; shift
	set -- "$@" -sS -k --path-as-is -w '%{http_code} '
	for path in / /login /access-keys /company?company=Nord%20AG /v1/token /v1/status /metrics /healthz /readyz /control /i/ /done /callback..; do
		set -- "$@" -o other.html "$at$path"
	done
	curl "$@"
}
ask https://auth.agency.example:8443 --resolve auth.agency.example:8443:127.0.0.1
ask https://127.0.0.1:8443 -H 'Host: localhost:8488'
-- big.txt --
` + bigBody + "\n"

// bigBody is more than anybody sends.
var bigBody = strings.Repeat("sign-in=0123456789abcdef&", 400)
