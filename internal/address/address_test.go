package address

import (
	"net/url"
	"strings"
	"testing"
)

func TestProblem(t *testing.T) {
	for _, test := range []struct {
		url, says string
		anyPort   bool
	}{
		{url: "https://onlinetools.ups.com"},
		{url: "https://onlinetools.ups.com.:443/x"},
		{url: "https://bücher.example"},
		{url: "https://xn--bcher-kva.example:65535"},
		{url: "https://my_host-1"},
		{url: "https://10.0.0.1:1"},
		{url: "https://[2001:db8::1]:8443"},
		{url: "https://[fe80::1%25eth0]"},
		{url: "http://localhost:0", anyPort: true},
		{url: "http://localhost:0", says: "port"},
		{url: "https://host:99999", says: "port"},
		{url: "https://host:65536", says: "port"},
		{url: "https://host:", says: "colon"},
		{url: "https://*.example.com", says: "wildcard"},
		{url: "https://*", says: "wildcard"},
		{url: "https://a.*.example.com", says: "wildcard"},
		{url: "https://.example.com", says: "two dots"},
		{url: "https://a..b", says: "two dots"},
		{url: "https://.", says: "two dots"},
		{url: "https://-a.example", says: "character"},
		{url: "https://a-.example", says: "character"},
		{url: "https://a,b.example", says: "character"},
		{url: "https://a$b.example", says: "character"},
		{url: "https://a%20b.example", says: "character"},
		{url: "https://a\u202eb.example", says: "character"},
		{url: "https://256.1.1.1", says: "IPv4"},
		{url: "https://1.2.3", says: "IPv4"},
		{url: "https://127.1", says: "IPv4"},
		{url: "https://2130706433", says: "IPv4"},
		{url: "https://[127.0.0.1]", says: "IPv6"},
		{url: "https://[::g]", says: "IPv6"},
		{url: "https://" + strings.Repeat("a", 64) + ".example", says: "63"},
		{url: "https://" + strings.Repeat("a.", 127) + "example", says: "253"},
		{url: "https:///x", says: "no host"},
	} {
		u, err := url.Parse(test.url)
		if err != nil {
			if test.says == "" {
				t.Error(err)
			}
			continue // refused sooner
		}
		got := Problem(u, test.anyPort)
		if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
			t.Errorf("%s: %q, want %q in it", test.url, got, test.says)
		}
	}
}

func FuzzProblem(f *testing.F) {
	for _, seed := range []string{"https://a.example:1", "http://[::1]", "https://*", "https://0x7f.1", "https://a:b@c:99999/#x", "//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil || Problem(u, false) != "" {
			return
		}
		if u.Hostname() == "" || u.Port() == "0" || strings.ContainsAny(u.Hostname(), "*/ \t@") {
			t.Errorf("%q is taken", text)
		}
	})
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.255.255.254": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "localhost.": false, "127.0.0.1:80": false, "[::1]": false, "::": false, "0.0.0.0": false, "::2": false,
		"127.0.0.1.evil.example": false, "127.0.0.01": false, "1.0.0.127": false, "::ffff:10.0.0.1": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q is this machine: %t, want %t", host, got, want)
		}
	}
}
