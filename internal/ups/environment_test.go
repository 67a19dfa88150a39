package ups

import (
	"fmt"
	"strings"
	"testing"
)

func TestNewEnvironment(t *testing.T) {
	for _, test := range []struct {
		url, want string
	}{
		{"https://onlinetools.ups.com", "https://onlinetools.ups.com"},
		{"https://onlinetools.ups.com/", "https://onlinetools.ups.com"},
		{"https://onlinetools.ups.com///", "https://onlinetools.ups.com"},
		{"HTTPS://proxy.example:8443/ups/", "https://proxy.example:8443/ups"},
		{"https://10.0.0.1", "https://10.0.0.1"},
		{"https://[2001:db8::1]:443", "https://[2001:db8::1]:443"},
		{"http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"http://127.9.9.9", "http://127.9.9.9"},
		{"http://[::1]:8080/", "http://[::1]:8080"},
		{"http://[::ffff:127.0.0.1]", "http://[::ffff:127.0.0.1]"},
		{"http://localhost:8080", "http://localhost:8080"},
		{"http://LOCALHOST", "http://LOCALHOST"},
	} {
		got, err := NewEnvironment("lab", test.url)
		if want := (Environment{Name: "lab", BaseURL: test.want, Origin: test.want}); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", test.url, got, err, want)
		}
	}
}

// Client secrets and tokens go there: what is not certainly safe is refused.
func TestNewEnvironmentRefuses(t *testing.T) {
	for _, test := range []struct {
		url, says string
	}{
		{"", "is not a URL"},
		{"onlinetools.ups.com", "is not a URL"},
		{"//onlinetools.ups.com", `must be https`},
		{"https:onlinetools.ups.com", "is not a URL"},
		{"https://", "is not a URL"},
		{"https://:443", "is not a URL"},
		{"https://a b", "is not a URL"},
		{"https://host:port", "is not a URL"},
		{"https://host\n.example", "is not a URL"},
		{"ftp://onlinetools.ups.com", `begins with "ftp"`},
		{"unix:///run/ups.sock", "is not a URL"},
		{"https://jane:pa55word@onlinetools.ups.com", "more than scheme, host and path"},
		{"https://jane@onlinetools.ups.com", "more than scheme, host and path"},
		{"https://onlinetools.ups.com?x=1", "more than scheme, host and path"},
		{"https://onlinetools.ups.com?", "more than scheme, host and path"},
		{"https://onlinetools.ups.com/#top", "more than scheme, host and path"},
		{"https://*.ups.com", "wildcard"},
		{"https://onlinetools.ups.com:99999", "1 to 65535"},
		{"https://onlinetools.ups.com:0", "1 to 65535"},
		{"https://onlinetools.ups.com:", "colon without a port"},
		{"https://onlinetools..ups.com", "two dots"},
		{"https://-ups.com", "a character that no host name has"},
		{"https://ups!.com", "a character that no host name has"},
		{"https://ups\u200b.com", "invisible"},
		{"https://1.2.3", "not an IPv4 address"},
		{"https://1.2.3.256", "not an IPv4 address"},
		{"https://onlinetools.ups.com/a b", "a space"},
		{"http://onlinetools.ups.com", "plain http"},
		{"http://127.0.0.1.evil.example", "plain http"},
		{"http://localhost.evil.example", "plain http"},
		{"http://evil.localhost", "plain http"},
		{"http://localhost@evil.example", "more than scheme, host and path"},
		{"http://0.0.0.0:8080", "plain http"},
		{"http://[::]", "plain http"},
		{"http://128.0.0.1", "plain http"},
		{"http://127.1", "plain http"},
		{"http://0x7f000001", "plain http"},
		{"http://10.0.0.1", "plain http"},
	} {
		_, err := NewEnvironment("lab", test.url)
		if err == nil {
			t.Errorf("%q is taken", test.url)
			continue
		}
		if text := err.Error(); !strings.Contains(text, test.says) || !strings.Contains(text, `"lab"`) || strings.Contains(text, "pa55word") {
			t.Errorf("the error about %q is %q, want %q in it", test.url, text, test.says)
		}
	}
}

// The two hosts that UPS documents, and no slash too many before the paths.
func TestBuiltinEnvironmentsAreUPSs(t *testing.T) {
	want := map[string]string{Production: "https://onlinetools.ups.com", CIE: "https://wwwcie.ups.com"}
	got := BuiltinEnvironments()
	if len(got) != len(want) {
		t.Errorf("there are %d environments, want %d", len(got), len(want))
	}
	for _, e := range got {
		if checked, err := NewEnvironment(e.Name, want[e.Name]); err != nil || e != checked {
			t.Errorf("%+v is built in, want %+v, %v", e, checked, err)
		}
	}
}

func TestParsePKCE(t *testing.T) {
	for text, want := range map[string]PKCE{"": PKCEAuto, "auto": PKCEAuto, "on": PKCEOn, "off": PKCEOff} {
		if got, err := ParsePKCE(text); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"AUTO", "yes", "true", " on"} {
		if got, err := ParsePKCE(text); err == nil {
			t.Errorf("%q is taken as %q", text, got)
		}
	}
}

// An application may be printed by mistake, its secret must not be.
func TestAnApplicationIsPrintedWithoutItsSecret(t *testing.T) {
	a := Application{Name: "mine", ClientID: "id", ClientSecret: "s3cr3t"}
	for _, text := range []string{fmt.Sprint(a), fmt.Sprintf("%v %+v %#v %s %q", a, &a, a, a, a), fmt.Sprintf("%+v", struct{ A Application }{a})} {
		if strings.Contains(text, "s3cr3t") || !strings.Contains(text, "mine (id)") {
			t.Errorf("it is printed as %q", text)
		}
	}
}
