package ups

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
)

// ProxyError says why a proxy makes no connection to UPS. Nothing was sent to UPS
// then. It does not have the user and password of the proxy.
type ProxyError struct {
	Proxy  string // its host and port
	Host   string // where it was to connect to
	Status int    // of its answer, 0 where it gave none
	// Schemes are the ways to sign in that it offers, and SignedIn says that it was
	// given a user and a password.
	Schemes  []string
	SignedIn bool
	Err      error // where it gave no answer
}

func (e *ProxyError) Unwrap() error { return e.Err }

func (e *ProxyError) Error() string {
	status := strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Status, http.StatusText(e.Status)))
	switch {
	case e.Status == 0:
		return fmt.Sprintf("the proxy %s can't be used: %s", e.Proxy, e.why())
	case e.Status == http.StatusProxyAuthRequired && !e.Basic():
		return fmt.Sprintf("the proxy %s wants a sign-in by %s, and upsauth only knows Basic (%s)", e.Proxy, strings.Join(e.Schemes, " or "), status)
	case e.Status == http.StatusProxyAuthRequired && e.SignedIn:
		return fmt.Sprintf("the proxy %s does not accept the user and the password in its address (%s)", e.Proxy, status)
	case e.Status == http.StatusProxyAuthRequired:
		return fmt.Sprintf("the proxy %s wants a user and a password (%s)", e.Proxy, status)
	case e.Status >= 500:
		return fmt.Sprintf("the proxy %s does not reach %s (%s)", e.Proxy, e.Host, status)
	}
	return fmt.Sprintf("the proxy %s does not connect to %s (%s)", e.Proxy, e.Host, status)
}

// Basic reports whether a user and a password may do.
func (e *ProxyError) Basic() bool {
	for _, scheme := range e.Schemes {
		if strings.EqualFold(scheme, "Basic") {
			return true
		}
	}
	return len(e.Schemes) == 0
}

// why is the cause in words of its own, where there is no answer.
func (e *ProxyError) why() string {
	var lookup *net.DNSError
	var inner *net.OpError
	switch {
	case errors.As(e.Err, &lookup):
		return fmt.Sprintf("the name %s can't be looked up (%s)", lookup.Name, lookup.Err)
	case isNumber(e.Err, syscall.ECONNREFUSED, wsaeconnrefused):
		return "it refused the connection"
	case isClosed(e.Err):
		return "it closed the connection"
	case strings.Contains(e.Err.Error(), "malformed HTTP"):
		return "its answer is not that of an HTTP proxy"
	case errors.As(e.Err, &inner) && inner.Timeout():
		return "it did not answer in time"
	case errors.As(e.Err, &inner):
		return inner.Err.Error()
	}
	return strings.TrimPrefix(e.Err.Error(), "unknown error ") // so net/http begins what a SOCKS proxy says
}

// Winsock's numbers. On Windows the constants of package syscall with these names are
// inventions that no call returns; elsewhere no error has these numbers.
const (
	wsaeconnreset   syscall.Errno = 10054
	wsaeconnrefused syscall.Errno = 10061
)

// isClosed reports whether the other side ended a connection.
func isClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isNumber(err, syscall.ECONNRESET, wsaeconnreset)
}

func isNumber(err error, numbers ...syscall.Errno) bool {
	return slices.ContainsFunc(numbers, func(n syscall.Errno) bool { return errors.Is(err, n) })
}

// refusedByProxy is what a transport makes of a proxy's answer that is no
// connection. The standard library keeps only the words of its status line.
func refusedByProxy(proxy *url.URL, connect *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	e := &ProxyError{Proxy: proxy.Host, Host: connect.URL.Host, Status: answer.StatusCode, SignedIn: proxy.User != nil}
	if e.Host == "" {
		e.Host = connect.Host
	}
	for _, value := range answer.Header.Values("Proxy-Authenticate") {
		scheme, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		if scheme = Presentable(scheme); scheme != "" && len(e.Schemes) < 5 {
			e.Schemes = append(e.Schemes, scheme)
		}
	}
	return e
}

// proxyError is the error of a connection that a proxy was to make and did not, nil
// where no proxy is the cause. Sent says that the connection was there.
func (c *Client) proxyError(err error, sent bool) *ProxyError {
	if e := new(ProxyError); errors.As(err, &e) {
		return e
	}
	transport, ok := c.transport().(*http.Transport)
	base, urlErr := url.Parse(c.BaseURL)
	if sent || !ok || transport.Proxy == nil || urlErr != nil {
		return nil //nolint:nilerr // no proxy is the cause
	}
	proxy, proxyErr := transport.Proxy(&http.Request{URL: base})
	if proxyErr != nil || proxy == nil {
		return nil //nolint:nilerr // as above
	}
	var op *net.OpError
	broken := isClosed(err) || strings.Contains(err.Error(), "malformed HTTP")
	if !broken && !(errors.As(err, &op) && (op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks"))) {
		return nil
	}
	if op != nil {
		err = op.Err
	}
	return &ProxyError{Proxy: proxy.Host, Host: base.Host, SignedIn: proxy.User != nil, Err: err}
}
