package ups

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/google/uuid"
	"github.com/upsauth/upsauth/internal/legible"
)

// Call is a call of one of UPS's APIs.
type Call struct {
	Method string
	// Path begins with exactly one slash and may have a query.
	Path   string
	Header http.Header
	Body   []byte
}

// ownHeaders are the headers that a caller can't set.
var ownHeaders = [...]string{"Authorization", "Host", "Connection", "Transfer-Encoding", "Content-Length"}

// CheckHeader refuses a header that is not the caller's to set, or no header.
func CheckHeader(name, value string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }) {
		return fmt.Errorf("%q is not the name of a header", name)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fmt.Errorf("the value of the header %s has a line break or another control character", name)
	}
	for _, own := range ownHeaders {
		if strings.EqualFold(textproto.TrimString(name), own) {
			return fmt.Errorf("upsauth sets the header %s itself", own)
		}
	}
	return nil
}

// Do sends a call with an access token to the environment's host and to no
// other: the path can't name one, and redirects are answers like any other. The
// caller closes the answer's body. Where the caller sets none, the call gets
// the two headers that UPS's APIs trace calls by: transId, new each time, and
// transactionSrc.
func (c *Client) Do(ctx context.Context, call Call, accessToken string) (*http.Response, error) {
	target, err := c.resolve(call.Path)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, call.Method, target.String(), bytes.NewReader(call.Body))
	if err != nil {
		return nil, fmt.Errorf("the call can't be made: %w", err)
	}
	for name, values := range call.Header {
		for _, value := range values {
			if err := CheckHeader(name, value); err != nil {
				return nil, err
			}
			request.Header.Add(name, value)
		}
	}
	if request.Header.Get("transId") == "" {
		request.Header["transId"] = []string{strings.ReplaceAll(uuid.NewString(), "-", "")}
	}
	if request.Header.Get("transactionSrc") == "" {
		request.Header["transactionSrc"] = []string{"upsauth"}
	}
	if request.Header.Get("User-Agent") == "" {
		c.setUserAgent(request)
	}
	request.Header.Set("Authorization", "Bearer "+accessToken)
	response, err := c.transport().RoundTrip(request)
	if err != nil {
		return nil, c.networkError(ctx, APIEndpoint, false, err, accessToken)
	}
	return response, nil
}

// CheckPath says what is wrong with the path and the query of a call.
func CheckPath(path string) error {
	_, err := parsePath(path)
	return err
}

// parsePath reads the path and the query of a call. What an address can't hold as
// it is and what can be meant in one way only is written as an address has it: a
// space as %20. What can be meant in two ways is refused.
func parsePath(text string) (*url.URL, error) {
	bad := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("%q is not a path of an API: %s", text, why)
	}
	path, query, asks := strings.Cut(text, "?")
	switch {
	case !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.Contains(path, `\`):
		return bad("it must begin with exactly one slash, as in /api/rating/v2409/Rate")
	case strings.ContainsFunc(text, unicode.IsControl):
		return bad("it has a line break or another control character in it")
	case strings.Contains(text, "#"):
		return bad("write # as %23")
	case badEscape().MatchString(text):
		return bad("write % as %25, unless it begins a code such as %20")
	}
	reference, err := url.ParseRequestURI(path)
	if err != nil || reference.Host != "" || reference.Scheme != "" || reference.User != nil {
		return bad("write one as in /api/rating/v2409/Rate")
	}
	reference.RawQuery, reference.ForceQuery = encodeQuery(query), asks && query == ""
	return reference, nil
}

var badEscape = legible.Pattern(`%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)`)

// encodeQuery writes as codes what no query has (RFC 3986, 3.4).
func encodeQuery(query string) string {
	var s strings.Builder
	for _, c := range []byte(query) {
		if c > ' ' && c < 0x7f && !strings.ContainsRune("\"<>[]\\^`{|}", rune(c)) {
			s.WriteByte(c)
		} else {
			fmt.Fprintf(&s, "%%%02X", c)
		}
	}
	return s.String()
}

// resolve puts path and query on the environment's base URL.
func (c *Client) resolve(path string) (*url.URL, error) {
	base, err := url.Parse(c.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("the environment's base URL can't be read: %w", err)
	}
	reference, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	target := *base
	target.Path = base.Path + reference.Path
	target.RawPath = ""
	if reference.RawPath != "" {
		target.RawPath = base.EscapedPath() + reference.RawPath
	}
	target.RawQuery, target.ForceQuery = reference.RawQuery, reference.ForceQuery
	again, err := url.Parse(target.String())
	if err != nil || again.Host != base.Host || again.Scheme != base.Scheme {
		return nil, fmt.Errorf("%q leads away from %s", path, base.Host)
	}
	return &target, nil
}

// Account returns the account number that a call names, empty where none can be
// seen: a shipper number first, in the query or in a body of JSON.
func (call Call) Account() string {
	var found []account
	if _, query, ok := strings.Cut(call.Path, "?"); ok {
		values, _ := url.ParseQuery(query)
		for name, value := range values {
			found = append(found, account{strings.ToLower(name), value[0]})
		}
	}
	var body any
	if json.Unmarshal(withoutMark(call.Body), &body) == nil {
		found = accountsIn(found, "", body)
	}
	for _, name := range [...]string{"shippernumber", "accountnumber"} {
		for _, a := range found {
			if a.name == name && accountNumber().MatchString(a.number) {
				return a.number
			}
		}
	}
	return ""
}

type account struct{ name, number string }

var accountNumber = legible.Pattern(`^[0-9A-Za-z]{4,16}$`)

func accountsIn(found []account, name string, value any) []account {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			found = accountsIn(found, strings.ToLower(key), v[key])
		}
	case []any:
		for _, each := range v {
			found = accountsIn(found, name, each)
		}
	case string:
		found = append(found, account{name, strings.TrimSpace(v)})
	}
	return found
}

// APIError makes the typed error of an API call's answer, nil where the answer
// says that the call went well.
func APIError(status int, header http.Header, body []byte, accessToken string) *Error {
	if status >= 200 && status <= 299 {
		return nil
	}
	return errorIn(APIEndpoint, status, header, body, accessToken)
}
