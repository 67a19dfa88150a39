package loopback

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/upsauth/upsauth/internal/address"
	"github.com/upsauth/upsauth/internal/legible"
)

// Callback is what the browser brought back: a code, or the error that the
// authorization server sent (RFC 6749 sections 4.1.2 and 4.1.2.1). Error and
// ErrorDescription hold printable characters only.
type Callback struct{ Code, Error, ErrorDescription string }

// String leaves out the code, so that no message shows it by accident.
func (c Callback) String() string {
	if c.Error != "" {
		return "error " + c.Error
	}
	return "a code"
}

// GoString is String, for %#v.
func (c Callback) GoString() string { return c.String() }

// What is wrong with an answer. The words are fixed: nothing that was received
// may stand in an error, a page or a log line.
var (
	errRepeated = errors.New("it has more than one code, state, error or error_description")
	errNoState  = errors.New("it has no state, so nothing shows that it belongs to this login, or only a part of the address was copied")
	errState    = errors.New("its state is not this login's; it may be from an earlier one")
	errOwnQuery = errors.New("it lacks parameters that the redirect URI has")
	errBoth     = errors.New("it has both a code and an error")
	errNeither  = errors.New("it has neither a code nor an error")
	errIssuer   = errors.New("it is not from the issuer that the environment names, but perhaps from another environment's sign-in")
	errBrowser  = errors.New("it came from another browser than the one that opened this sign-in's address")
)

// login is what tells this login's answer from anything else.
type login struct {
	redirect redirect
	state    string
	issuer   string // empty: whatever iss says
}

func newLogin(c Config) (login, error) {
	r, err := parseRedirect(c.RedirectURI)
	if err != nil {
		return login{}, err
	}
	if c.State == "" {
		return login{}, errors.New("a login needs a state: without one any answer would fit")
	}
	return login{r, c.State, c.Issuer}, nil
}

// read takes the query of an answer. It accepts nothing that does not carry
// exactly this login's state, once.
func (l login) read(rawQuery string) (Callback, error) {
	q := parseAnswer(rawQuery)
	// RFC 6749 section 3.1: no parameter more than once.
	for _, name := range answerParams {
		if len(q[name]) > 1 {
			return Callback{}, errRepeated
		}
	}
	if q.Get("state") == "" {
		return Callback{}, errNoState
	}
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(l.state)) != 1 {
		return Callback{}, errState
	}
	// RFC 6749 section 3.1.2: the redirect URI's own query is retained.
	for name, values := range l.redirect.query {
		if !slices.Equal(q[name], values) {
			return Callback{}, errOwnQuery
		}
	}
	// RFC 9207 section 2.4: a simple comparison, and who is known to send an
	// issuer always does.
	if l.issuer != "" && !slices.Equal(q["iss"], []string{l.issuer}) {
		return Callback{}, errIssuer
	}
	// An empty parameter counts as omitted (RFC 6749 section 3.1). Whatever else
	// came is left unread.
	cb := Callback{
		Code:             q.Get("code"),
		Error:            printable(q.Get("error")),
		ErrorDescription: printable(q.Get("error_description")),
	}
	switch {
	case cb.Code != "" && cb.Error != "":
		return Callback{}, errBoth
	case cb.Error != "":
		return cb, nil
	case cb.Code != "":
		return Callback{Code: cb.Code}, nil
	default:
		return Callback{}, errNeither
	}
}

// parseAnswer takes a query apart by & and the first = only, where [url.ParseQuery]
// gives up: UPS does not escape what it puts there, and nothing that came beside
// the code may cost the code, which is good for one login and 30 seconds. What is
// not escaped as it should be stays as it is. A + in a code is a +: no code has
// blanks.
func parseAnswer(raw string) url.Values {
	q := url.Values{}
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		name = unescaped(name, url.QueryUnescape)
		decode := url.QueryUnescape
		if name == "code" {
			decode = url.PathUnescape
		}
		q.Add(name, unescaped(value, decode))
	}
	return q
}

func unescaped(s string, decode func(string) (string, error)) string {
	if decoded, err := decode(s); err == nil {
		return decoded
	}
	return s
}

var answerParams = [...]string{"code", "state", "error", "error_description"}

// printable makes texts from outside fit for a terminal and a page.
func printable(s string) string { return legible.Line(s) }

// ParseCallback reads an address that a person pasted: the whole address the
// browser ended on, or only its query. It checks scheme, host, path and state
// as the server does. A bare code is refused: nothing would show that it
// belongs to this login. Of the Config it needs redirect URI, which must not have
// port 0, state and issuer.
func ParseCallback(c Config, pasted string) (Callback, error) {
	l, err := newLogin(c)
	if err != nil {
		return Callback{}, err
	}
	query, err := l.pastedQuery(pasted)
	if err != nil {
		return Callback{}, err
	}
	cb, err := l.read(query)
	if err != nil {
		return Callback{}, fmt.Errorf("the pasted address was not accepted: %w", err)
	}
	return cb, nil
}

func (l login) pastedQuery(pasted string) (string, error) {
	pasted = unquote(strings.TrimSpace(pasted))
	switch {
	case pasted == "":
		return "", errors.New("nothing was pasted: paste the whole address the browser ended on")
	case len(pasted) > maxURL:
		return "", errors.New("what was pasted is too long for an address: paste only the address the browser ended on")
	case strings.ContainsFunc(pasted, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "", errors.New("what was pasted has blanks or line breaks in it, so it was not copied in one piece: copy the whole address again")
	}

	// What stands before the first ? or = tells an address from a query.
	head, separator := pasted, ""
	if i := strings.IndexAny(pasted, "?="); i >= 0 {
		head, separator = pasted[:i], pasted[i:i+1]
	}
	switch {
	case strings.Contains(head, "://"):
		u, err := url.Parse(pasted)
		if err != nil {
			return "", errors.New("the pasted address can't be read: copy the whole address again")
		}
		if !l.redirect.matches(u) {
			return "", fmt.Errorf("the pasted address is not at %s: paste the address the browser ended on after signing in", l.redirect.raw)
		}
		return u.RawQuery, nil
	case separator == "?" && head != "":
		return "", fmt.Errorf("the pasted address has no beginning: paste all of it, from %s:// on", l.redirect.scheme)
	case separator == "?", hasParam(pasted, answerParams[:]...):
		query, _, _ := strings.Cut(strings.TrimPrefix(pasted, "?"), "#")
		return query, nil
	default:
		return "", errors.New("that is no address: paste the whole one that the browser ended on; a bare code is not accepted, as nothing shows that it belongs to this login")
	}
}

// unquote takes off the quotes or brackets that copying put around an address.
func unquote(s string) string {
	for _, pair := range [...]string{`""`, `''`, `<>`} {
		if len(s) >= 2 && s[0] == pair[0] && s[len(s)-1] == pair[1] {
			return s[1 : len(s)-1]
		}
	}
	return s
}

func hasParam(query string, names ...string) bool {
	for part := range strings.SplitSeq(query, "&") {
		if name, _, ok := strings.Cut(part, "="); ok && slices.Contains(names, name) {
			return true
		}
	}
	return false
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
		return bad("has a user name in it: no browser would come back to it so")
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
		return bad("is plain http and does not lead to this machine: whoever is on the way could take the code; use https, or localhost, 127.0.0.1 or [::1]")
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
