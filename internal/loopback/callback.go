package loopback

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

// What is wrong with an answer. The words are fixed: nothing that was received
// may stand in an error, a page or a log line.
var (
	errRepeated = errors.New("it has more than one code, state, error or error_description")
	errNoState  = errors.New("it has no state: only a part of the address was copied, or the address does not belong to this sign-in")
	errState    = errors.New("its state is not that of this sign-in; the address may be from an earlier sign-in")
	errOwnQuery = errors.New("it lacks parameters that the redirect URI has")
	errBoth     = errors.New("it has both a code and an error")
	errNeither  = errors.New("it has neither a code nor an error")
	errIssuer   = errors.New("it does not come from the issuer that the environment names; perhaps it belongs to another environment's sign-in")
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
		return login{}, errors.New("a sign-in needs a state: without one, it would accept any answer")
	}
	return login{r, c.State, c.Issuer}, nil
}

// read takes the query of an answer. It accepts nothing that does not carry
// exactly this login's state, once.
func (l login) read(rawQuery string) (grant.Callback, error) {
	q := parseAnswer(rawQuery)
	// RFC 6749 section 3.1: no parameter more than once.
	for _, name := range answerParams {
		if len(q[name]) > 1 {
			return grant.Callback{}, errRepeated
		}
	}
	if q.Get("state") == "" {
		return grant.Callback{}, errNoState
	}
	if subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(l.state)) != 1 {
		return grant.Callback{}, errState
	}
	// RFC 6749 section 3.1.2: the redirect URI's own query is retained.
	for name, values := range l.redirect.query {
		if !slices.Equal(q[name], values) {
			return grant.Callback{}, errOwnQuery
		}
	}
	// RFC 9207 section 2.4: a simple comparison, and who is known to send an
	// issuer always does.
	if l.issuer != "" && !slices.Equal(q["iss"], []string{l.issuer}) {
		return grant.Callback{}, errIssuer
	}
	// An empty parameter counts as omitted (RFC 6749 section 3.1). Whatever else
	// came is left unread.
	cb := grant.Callback{
		Code:             q.Get("code"),
		Error:            printable(q.Get("error")),
		ErrorDescription: printable(q.Get("error_description")),
	}
	switch {
	case cb.Code != "" && cb.Error != "":
		return grant.Callback{}, errBoth
	case cb.Error != "":
		return cb, nil
	case cb.Code != "":
		return grant.Callback{Code: cb.Code}, nil
	default:
		return grant.Callback{}, errNeither
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
func ParseCallback(c Config, pasted string) (grant.Callback, error) {
	l, err := newLogin(c)
	if err != nil {
		return grant.Callback{}, err
	}
	query, err := l.pastedQuery(pasted)
	if err != nil {
		return grant.Callback{}, err
	}
	cb, err := l.read(query)
	if err != nil {
		return grant.Callback{}, fmt.Errorf("the pasted address was not accepted: %w", err)
	}
	return cb, nil
}

func (l login) pastedQuery(pasted string) (string, error) {
	pasted = unquote(strings.TrimSpace(pasted))
	switch {
	case pasted == "":
		return "", errors.New("nothing was pasted: paste the whole address of the browser's last page")
	case len(pasted) > maxURL:
		return "", errors.New("the pasted text is too long for an address: paste only the address of the browser's last page")
	case strings.ContainsFunc(pasted, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "", errors.New("the pasted text has blanks or line breaks, so it was not copied in one piece: copy the whole address again")
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
			return "", fmt.Errorf("the pasted address is not at %s: sign in, then paste the address of the browser's last page", l.redirect.raw)
		}
		return u.RawQuery, nil
	case separator == "?" && head != "":
		return "", fmt.Errorf("the pasted address lacks its beginning: paste the whole address, from %s:// on", l.redirect.scheme)
	case separator == "?", hasParam(pasted, answerParams[:]...):
		query, _, _ := strings.Cut(strings.TrimPrefix(pasted, "?"), "#")
		return query, nil
	default:
		return "", errors.New("the pasted text is not an address: paste the whole address of the browser's last page; a code alone is not accepted, because nothing shows that the code belongs to this sign-in")
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

// StateOf is the state in the query of an answer, empty for none or several.
func StateOf(rawQuery string) string {
	if states := parseAnswer(rawQuery)["state"]; len(states) == 1 {
		return states[0]
	}
	return ""
}

// ReadCallback takes the query of an answer that arrived at the redirect URI, through
// whatever server. Of the Config it needs redirect URI, state and issuer.
func ReadCallback(c Config, rawQuery string) (grant.Callback, error) {
	l, err := newLogin(c)
	if err != nil {
		return grant.Callback{}, err
	}
	cb, err := l.read(rawQuery)
	if err != nil {
		return grant.Callback{}, fmt.Errorf("the answer was not accepted: %w", err)
	}
	return cb, nil
}
