package loopback

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/upsauth/upsauth/internal/address"
)

// CheckRedirectURI reports what is wrong with a redirect URI, nil where a browser
// can come back to it.
func CheckRedirectURI(redirectURI string) error {
	_, err := parseRedirect(redirectURI)
	return err
}

// SameRedirectURI says whether an answer at one of two redirect URIs could be meant
// for the other. At port 0, any free port, each sign-in has its own.
func SameRedirectURI(a, b string) bool {
	one, errOne := parseRedirect(a)
	other, errOther := parseRedirect(b)
	return errOne == nil && errOther == nil && one.port != 0 &&
		one.scheme == other.scheme && one.host == other.host && one.port == other.port && one.path == other.path
}

// IsLoopback says whether a redirect URI leads to the machine that the browser
// runs on.
func IsLoopback(redirectURI string) bool {
	r, err := parseRedirect(redirectURI)
	return err == nil && loopbackAddrs(r.host) != nil
}

// CanListen says whether a redirect URI can be served on this machine without a
// tunnel: its host is loopback and, for https, there is a certificate. It is
// false for a public page, whose address can only be pasted or tunnelled.
func CanListen(redirectURI string, haveTLS bool) bool {
	r, err := parseRedirect(redirectURI)
	return err == nil && loopbackAddrs(r.host) != nil && (r.scheme == "http" || haveTLS)
}

// redirect is a redirect URI taken apart.
type redirect struct {
	raw    string
	scheme string // http or https
	host   string // canonical, without port and brackets
	port   int    // the scheme's own when none is named
	path   string // escaped, never empty
	query  url.Values
}

func parseRedirect(raw string) (redirect, error) {
	bad := func(what string) (redirect, error) {
		return redirect{}, fmt.Errorf("the redirect URI %q %s", raw, what)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return bad("is not an absolute address such as http://localhost:5001/")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return bad("is neither http nor https")
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return bad("has a space or an invisible character in it")
	}
	if u.User != nil {
		return bad("has a user name in it, and no browser returns to such an address")
	}
	if strings.Contains(raw, "#") {
		return bad("has a fragment, which RFC 6749 section 3.1.2 forbids")
	}
	if problem := address.Problem(u, true); problem != "" {
		return bad("can't be used: " + problem)
	}
	r := redirect{raw: raw, scheme: u.Scheme, host: canonicalHost(u.Hostname()), port: defaultPort(u.Scheme), path: pathOf(u)}
	if p := u.Port(); p != "" {
		r.port, _ = strconv.Atoi(p)
	}
	if r.scheme == "http" && loopbackAddrs(r.host) == nil {
		return bad("is plain http and does not lead to this machine, so others on the network could read the code: use https, or localhost, 127.0.0.1 or [::1]")
	}
	if r.port == 0 && loopbackAddrs(r.host) == nil {
		return bad("has port 0, which means any free port and needs a loopback host")
	}
	if r.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return bad("has a query that can't be read")
	}
	for _, name := range answerParams {
		if r.query.Has(name) {
			return bad("has a parameter " + name + " of its own, which the answer needs")
		}
	}
	return r, nil
}

// withPort is the redirect URI with another port, the rest byte for byte.
func (r redirect) withPort(port int) string {
	start := strings.Index(r.raw, "//") + len("//")
	end := len(r.raw)
	if i := strings.IndexAny(r.raw[start:], "/?"); i >= 0 {
		end = start + i
	}
	colon := strings.LastIndexByte(r.raw[:end], ':')
	return r.raw[:colon+1] + strconv.Itoa(port) + r.raw[end:]
}

// hosts lists what a browser that comes back may send as Host.
func (r redirect) hosts() []string { return hostNames(r.scheme, r.host, r.port) }

func (r redirect) matches(u *url.URL) bool {
	return u.Scheme == r.scheme && u.User == nil &&
		slices.Contains(r.hosts(), strings.ToLower(u.Host)) &&
		pathOf(u) == r.path
}

func hostNames(scheme, host string, port int) []string {
	full := net.JoinHostPort(host, strconv.Itoa(port))
	if port != defaultPort(scheme) {
		return []string{full}
	}
	return []string{full, strings.TrimSuffix(full, ":"+strconv.Itoa(port))}
}

func defaultPort(scheme string) int {
	if scheme == "https" {
		return 443
	}
	return 80
}

// pathOf is the path as it is sent, where an empty one is sent as "/".
func pathOf(u *url.URL) string {
	if p := u.EscapedPath(); p != "" || u.Opaque != "" {
		return p
	}
	return "/"
}

// canonicalHost writes a host the way a browser sends it.
func canonicalHost(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String()
	}
	return strings.ToLower(host)
}
