package ups

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/google/uuid"
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
		return fmt.Errorf("%q is no header's name", name)
	}
	if strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("the value of the header %s has a line break in it", name)
	}
	for _, own := range ownHeaders {
		if strings.EqualFold(textproto.TrimString(name), own) {
			return fmt.Errorf("the header %s is upsauth's to set", own)
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

// resolve puts path and query on the environment's base URL.
func (c *Client) resolve(path string) (*url.URL, error) {
	base, err := url.Parse(c.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("the environment's base URL can't be read: %w", err)
	}
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.Contains(path, `\`) {
		return nil, fmt.Errorf("%q is no path of an API: it begins with exactly one slash, as in /api/rating/v2409/Rate", path)
	}
	reference, err := url.ParseRequestURI(path)
	if err != nil || reference.Host != "" || reference.Scheme != "" || reference.User != nil {
		return nil, fmt.Errorf("%q is no path of an API, as in /api/rating/v2409/Rate", path)
	}
	target := *base
	target.Path = base.Path + reference.Path
	target.RawPath = ""
	if reference.RawPath != "" {
		target.RawPath = base.EscapedPath() + reference.RawPath
	}
	target.RawQuery = reference.RawQuery
	again, err := url.Parse(target.String())
	if err != nil || again.Host != base.Host || again.Scheme != base.Scheme {
		return nil, fmt.Errorf("%q leads away from %s", path, base.Host)
	}
	return &target, nil
}

// APIError makes the typed error of an API call's answer, nil where the answer
// says that the call went well.
func APIError(status int, header http.Header, body []byte, accessToken string) *Error {
	if status >= 200 && status <= 299 {
		return nil
	}
	return errorIn(APIEndpoint, status, header, body, accessToken)
}
