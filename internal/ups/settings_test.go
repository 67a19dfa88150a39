package ups

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func from(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// What net/http can't read it passes over, and connects directly.
func TestProxyVariablesThatCantBeRead(t *testing.T) {
	for _, test := range []struct{ value, says string }{
		{"", ""},
		{"http://proxy.example:3128", ""},
		{"http://proxy.example:3128/", ""},
		{"https://user:p%61ss@proxy.example", ""},
		{"socks5://127.0.0.1:1080", ""},
		{"socks5h://proxy.example", ""},
		{"proxy.example:3128", ""},
		{"10.0.0.1:3128", ""},
		{"proxy", ""},
		{"[::1]:3128", ""},
		{"http://user:pa%ss@127.0.0.1:3128", "not an address"},
		{"user:pa%ss@127.0.0.1:3128", "not an address"},
		{"http://user:pa/ss@127.0.0.1:3128", "port"},
		{"http://user:pa#ss@proxy.example:3128", "port"},
		{"http://proxy.example:31280000", "65535"},
		{"http://proxy.example:0", "65535"},
		{"http://*.example:3128", "wildcard"},
		{"http://proxy example:3128", "not an address"},
		{"http://", ""},
		{"http//proxy.example:3128", "not an address"},
		{"ftp://proxy.example:21", "neither"},
		{"socks4://proxy.example:1080", "neither"},
		{"file:///etc/proxy.pac", "not an address"},
		{"http://proxy.example:3128\n", "not an address"},
	} {
		for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
			err := CheckSettings(from(map[string]string{name: test.value}))
			if test.value == "http://" {
				if err == nil {
					t.Errorf("%s=%q is taken", name, test.value)
				}
				continue
			}
			if test.says == "" {
				if err != nil {
					t.Errorf("%s=%q: %v", name, test.value, err)
				}
				continue
			}
			var setting *SettingError
			if !errors.As(err, &setting) || setting.Variable != name || setting.Remedy == "" {
				t.Errorf("%s=%q: %v", name, test.value, err)
				continue
			}
			if text := err.Error(); strings.Contains(text, "ss@") || strings.Contains(text, "user") {
				t.Errorf("the password is told: %s", text)
			}
		}
	}
}

// The first of a pair counts, as net/http has it.
func TestProxyVariablesInBothCases(t *testing.T) {
	const good, bad = "http://proxy.example:3128", "http://a%zz"
	if err := CheckSettings(from(map[string]string{"HTTPS_PROXY": good, "https_proxy": bad})); err != nil {
		t.Error(err)
	}
	if err := CheckSettings(from(map[string]string{"HTTPS_PROXY": bad, "https_proxy": good})); err == nil {
		t.Error("HTTPS_PROXY is not looked at")
	}
	if name := IgnoredProxy(from(map[string]string{"all_proxy": good})); name != "all_proxy" {
		t.Errorf("%q is ignored", name)
	}
	if name := IgnoredProxy(from(map[string]string{"all_proxy": good, "https_proxy": good})); name != "" {
		t.Errorf("%q is ignored", name)
	}
}

func TestNoProxyThatCantBeRead(t *testing.T) {
	for value, ok := range map[string]bool{
		"": true, "*": true, "localhost": true, "localhost,.example.com, 10.0.0.0/8 ,*.lab.test": true, "example.com:8080": true,
		"::1": true, "[::1]:80": true, "2001:db8::/32": true, ",": true,
		"localhost;example.com": false, "localhost example.com": false, "10.0.0.0/99": false, "http://example.com": false,
		"example.com:port": false, "example.com:0": false, ":80": false, "example.com:99999": false,
	} {
		for _, name := range []string{"NO_PROXY", "no_proxy"} {
			if err := CheckSettings(from(map[string]string{name: value})); (err == nil) != ok {
				t.Errorf("%s=%q: %v", name, value, err)
			}
		}
	}
}

func TestAuthoritiesThatCantBeRead(t *testing.T) {
	if !readsAuthorities(runtime.GOOS) {
		t.Skip("the system has the authorities")
	}
	dir := t.TempDir()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	good := file("good/ca.pem", "# a comment\n"+certificate)
	file("mixed/README", "no certificate")
	file("mixed/ca.pem", certificate)
	empty := file("empty/ca.pem", "")
	text := file("text.pem", "hello\n")
	key := file("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	broken := file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	if err := os.Mkdir(filepath.Join(dir, "nothing"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, value, says string }{
		{"SSL_CERT_FILE", good, ""},
		{"SSL_CERT_FILE", filepath.Join(dir, "missing.pem"), "does not exist"},
		{"SSL_CERT_FILE", empty, "no certificate"},
		{"SSL_CERT_FILE", text, "no certificate"},
		{"SSL_CERT_FILE", key, "no certificate"},
		{"SSL_CERT_FILE", broken, "no certificate"},
		{"SSL_CERT_FILE", dir, "not a file"},
		{"SSL_CERT_FILE", os.DevNull, "not a file"},
		{"SSL_CERT_FILE", "relative/none.pem", "does not exist"},
		{"SSL_CERT_DIR", filepath.Join(dir, "good"), ""},
		{"SSL_CERT_DIR", filepath.Join(dir, "mixed") + ":" + filepath.Join(dir, "nothing"), ""},
		{"SSL_CERT_DIR", filepath.Join(dir, "nothing"), "no certificate"},
		{"SSL_CERT_DIR", filepath.Join(dir, "missing"), "does not exist"},
		{"SSL_CERT_DIR", filepath.Join(dir, "good") + ":" + filepath.Join(dir, "missing"), "does not exist"},
		{"SSL_CERT_DIR", good, "directory"},
	} {
		err := CheckSettings(from(map[string]string{test.name: test.value}))
		if (err == nil) != (test.says == "") || err != nil && (!strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), test.name)) {
			t.Errorf("%s=%s: %v, want %q", test.name, test.value, err, test.says)
		}
	}
}

func TestOnLoopback(t *testing.T) {
	for url, want := range map[string]bool{
		"sandbox": true, "http://127.0.0.1:80": true, "https://localhost:1": true, "http://[::1]": true,
		"https://onlinetools.ups.com": false, "https://10.0.0.1": false, "https://localhost.example": false,
	} {
		if got := OnLoopback(url); got != want {
			t.Errorf("%s: %t", url, got)
		}
	}
}
