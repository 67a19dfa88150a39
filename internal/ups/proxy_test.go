package ups

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/realpart"
)

// A proxy that makes no connection is told of in a sentence with its name and what
// to do, without the password in its address: nothing was sent, whatever it says.
func TestProxiesThatRefuseAreNamed(t *testing.T) {
	answering := func(answer string) func(net.Conn) {
		return func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, answer)
			}
		}
	}
	gone := net.JoinHostPort("127.0.0.1", strconv.Itoa(realpart.Port(t)))
	for name, test := range map[string]struct {
		scheme string
		user   *url.Userinfo
		answer func(net.Conn) // nil: nobody listens
		says   string
	}{
		"wants a password":     {"http", nil, answering("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"corp\"\r\nContent-Length: 0\r\n\r\n"), "the proxy PROXY wants a user and a password (HTTP 407 Proxy Authentication Required)"},
		"wants another one":    {"http", url.UserPassword("jane", "pa55word"), answering("HTTP/1.1 407 Nope\r\nContent-Length: 0\r\n\r\n"), "the proxy PROXY does not accept the user and the password in its address"},
		"wants what is not":    {"http", nil, answering("HTTP/1.1 407 Nope\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n"), "the proxy PROXY wants a sign-in by NTLM or Negotiate, and upsauth only knows Basic"},
		"offers both":          {"http", nil, answering("HTTP/1.1 407 Nope\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: basic realm=x\r\nContent-Length: 0\r\n\r\n"), "wants a user and a password"},
		"forbids":              {"http", nil, answering("HTTP/1.1 403 \x1b[31mForbidden\r\nContent-Length: 0\r\n\r\n"), "the proxy PROXY does not connect to onlinetools.ups.invalid:443 (HTTP 403 Forbidden)"},
		"an odd number":        {"http", nil, answering("HTTP/1.1 499 Odd\r\nContent-Length: 0\r\n\r\n"), "(HTTP 499)"},
		"does not get through": {"http", nil, answering("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), "the proxy PROXY does not reach onlinetools.ups.invalid:443 (HTTP 502 Bad Gateway)"},
		"is no proxy":          {"http", nil, answering("SSH-2.0-OpenSSH_9.2\r\n"), "the proxy PROXY can't be used: its answer is not that of an HTTP proxy"},
		"hangs up":             {"http", url.UserPassword("jane", "pa55word"), func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) }, "the proxy PROXY can't be used: it closed the connection"},
		"is not there":         {"http", nil, nil, "the proxy PROXY can't be used: it refused the connection"},
		"is not there, socks":  {"socks5", nil, nil, "the proxy PROXY can't be used: it refused the connection"},
		"speaks no TLS":        {"https", nil, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "the server at the proxy PROXY does not speak TLS"},
		"socks, not allowed": {"socks5", nil, func(conn net.Conn) {
			buf := make([]byte, 512)
			_, _ = conn.Read(buf)
			_, _ = conn.Write([]byte{5, 0})
			_, _ = conn.Read(buf)
			_, _ = conn.Write([]byte{5, 2, 0, 1, 0, 0, 0, 0, 0, 0})
		}, "the proxy PROXY can't be used: connection not allowed by ruleset"},
	} {
		t.Run(name, func(t *testing.T) {
			address := gone
			if test.answer != nil {
				proxy, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { proxy.Close() })
				address = proxy.Addr().String()
				go func() {
					for {
						conn, err := proxy.Accept()
						if err != nil {
							return
						}
						test.answer(conn)
						conn.Close()
					}
				}()
			}
			for _, endpoint := range endpoints {
				c := newClient(t, "https://onlinetools.ups.invalid", withTransport(func(transport *http.Transport) {
					transport.Proxy = http.ProxyURL(&url.URL{Scheme: test.scheme, User: test.user, Host: address})
				}))
				err := call(t.Context(), c, endpoint)
				checkNetworkError(t, c, err, Unreachable, endpoint, strings.ReplaceAll(test.says, "PROXY", address))
				if text := typed(t, err).Error(); strings.Contains(text, "pa55word") || strings.Contains(text, "proxyconnect") || strings.Contains(text, "\x1b") {
					t.Errorf("it says %q", text)
				}
			}
		})
	}
}
