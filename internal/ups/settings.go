package ups

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/upsauth/upsauth/internal/address"
)

// SettingError says that an environment variable about the way to UPS can't be
// used. Its text does not quote the variable, which may have a password in it.
type SettingError struct {
	Variable string
	Problem  string
	// Remedy is what to do about it.
	Remedy string
}

func (e *SettingError) Error() string { return e.Variable + " " + e.Problem }

// proxyVariables are the pairs that net/http reads, the first of a pair that is
// set counts. It does not read ALL_PROXY: whoever sets that wants no direct
// connection, so that a wrong one is told all the same.
var proxyVariables = [...][2]string{{"HTTPS_PROXY", "https_proxy"}, {"HTTP_PROXY", "http_proxy"}, {"ALL_PROXY", "all_proxy"}}

// CheckSettings looks whether the variables about proxies and certificates can be
// used. Where net/http and crypto/x509 can't read one, they go on without it: past
// the proxy, or with authorities that nobody meant. Errors are *SettingError.
func CheckSettings(getenv func(string) string) error {
	if err := checkProxies(getenv); err != nil {
		return err
	}
	return checkAuthorities(getenv)
}

// IgnoredProxy returns the name of a variable that names a proxy for all
// protocols, which net/http does not read, where no other names one for https.
func IgnoredProxy(getenv func(string) string) string {
	if name, _ := firstSet(getenv, proxyVariables[0]); name != "" {
		return ""
	}
	name, _ := firstSet(getenv, proxyVariables[2])
	return name
}

func firstSet(getenv func(string) string, pair [2]string) (name, value string) {
	for _, name := range pair {
		if value := getenv(name); value != "" {
			return name, value
		}
	}
	return "", ""
}

func checkProxies(getenv func(string) string) error {
	for _, pair := range proxyVariables {
		if name, value := firstSet(getenv, pair); name != "" {
			if problem := proxyProblem(value); problem != "" {
				return &SettingError{name, "can't be used as the address of a proxy: " + problem,
					"Write it as http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with % as %25, @ as %40, : as %3A and / as %2F in USER and PASSWORD."}
			}
		}
	}
	if name, value := firstSet(getenv, [2]string{"NO_PROXY", "no_proxy"}); name != "" {
		for entry := range strings.SplitSeq(value, ",") {
			if problem := noProxyProblem(strings.TrimSpace(entry)); problem != "" {
				return &SettingError{name, "can't be used: " + problem,
					"Write host names, addresses and networks with commas between them, as in localhost,.example.com,10.0.0.0/8."}
			}
		}
	}
	return nil
}

// proxyProblem says what is wrong with the address of a proxy, as net/http reads
// it: a URL, or what is one with http:// before it.
func proxyProblem(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.Scheme == "" || u.Host == "" {
		short, err := url.Parse("http://" + value)
		if err != nil {
			return "it is not an address"
		}
		if short.Path != "" && short.Path != "/" {
			return "it is not an address"
		}
		u = short
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return "it begins with neither http, https nor socks5"
	}
	return address.Problem(u, false)
}

func noProxyProblem(entry string) string {
	switch {
	case entry == "" || entry == "*":
		return ""
	case strings.ContainsAny(entry, " \t;"):
		return fmt.Sprintf("%q has something other than a comma between two names", Presentable(entry))
	case strings.Contains(entry, "/"):
		if _, _, err := net.ParseCIDR(entry); err != nil {
			return fmt.Sprintf("%q is not a network such as 10.0.0.0/8", Presentable(entry))
		}
		return ""
	}
	host, port, err := net.SplitHostPort(entry)
	if err != nil {
		// A name alone, or an IPv6 address without brackets.
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Sprintf("%q is not a host with a port from 1 to 65535", Presentable(entry))
	}
	return ""
}

// proxyFromEnvironment is net/http's, but for a variable that can't be read, which
// net/http passes over to connect directly.
func proxyFromEnvironment(request *http.Request) (*url.URL, error) {
	if !address.IsLoopback(request.URL.Hostname()) {
		if err := checkProxies(os.Getenv); err != nil {
			return nil, err
		}
	}
	return http.ProxyFromEnvironment(request)
}

// ThroughProxy reports whether what is sent to a base URL goes through a proxy,
// as the environment of this process has it.
func ThroughProxy(baseURL string) bool {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" {
		return false // the embedded sandbox
	}
	proxy, err := proxyFromEnvironment(&http.Request{URL: u})
	return proxy != nil || err != nil
}

// OnLoopback reports whether a base URL is this machine itself, as the embedded
// sandbox is.
func OnLoopback(baseURL string) bool {
	u, err := url.Parse(baseURL)
	return err == nil && (u.Host == "" || address.IsLoopback(u.Hostname()))
}

// readsAuthorities reports whether crypto/x509 takes authorities from the files
// that SSL_CERT_FILE and SSL_CERT_DIR name; elsewhere the system has them.
func readsAuthorities(goos string) bool {
	switch goos {
	case "windows", "darwin", "ios", "plan9", "android":
		return goos == "android"
	}
	return true
}

func checkAuthorities(getenv func(string) string) error {
	if !readsAuthorities(runtime.GOOS) {
		return nil
	}
	const file, dirs = "SSL_CERT_FILE", "SSL_CERT_DIR"
	if path := getenv(file); path != "" {
		found, err := hasCertificate(path)
		if err != nil {
			return unreadableAuthorities(file, path, "file", err)
		}
		if !found {
			return unreadableAuthorities(file, path, "file", errNoCertificate)
		}
	}
	list := getenv(dirs)
	if list == "" {
		return nil
	}
	found := false
	for _, dir := range strings.Split(list, ":") {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return unreadableAuthorities(dirs, dir, "directory", err)
		}
		for _, entry := range entries {
			if found {
				break
			}
			found, _ = hasCertificate(filepath.Join(dir, entry.Name()))
		}
	}
	if !found {
		return unreadableAuthorities(dirs, list, "directory", errNoCertificate)
	}
	return nil
}

var errNoCertificate = errors.New("there is no certificate in it")

func unreadableAuthorities(variable, path, what string, err error) *SettingError {
	var inPath *fs.PathError
	problem := err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem = "it does not exist"
	case errors.Is(err, fs.ErrPermission):
		problem = "this user can't read it"
	case errors.As(err, &inPath):
		problem = inPath.Err.Error()
	}
	return &SettingError{variable, fmt.Sprintf("names the %s %s: %s", what, Presentable(path), problem),
		"Name a " + what + " with the certificates of the authorities to trust, in PEM form, or unset " + variable + " to trust those of the system."}
}

// maxAuthorities is how much of a file is looked through, in bytes; the system's own
// list has 220 KB.
const maxAuthorities = 16 << 20

// hasCertificate looks for a certificate in PEM form. Only files are read: a pipe
// would be empty for crypto/x509 afterwards.
func hasCertificate(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, errors.New("it is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	// The first certificate is enough, and most often at the beginning.
	var text []byte
	for size := int64(16 << 10); ; size *= 4 {
		more, err := io.ReadAll(io.LimitReader(f, size))
		if err != nil {
			return false, err
		}
		text = append(text, more...)
		if anyCertificate(text) {
			return true, nil
		}
		if int64(len(more)) < size || len(text) >= maxAuthorities {
			return false, nil
		}
	}
}

// anyCertificate reports whether one of the whole blocks of a text in PEM form is a
// certificate.
func anyCertificate(text []byte) bool {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return false
		}
		if block.Type == "CERTIFICATE" {
			if _, err := x509.ParseCertificate(block.Bytes); err == nil {
				return true
			}
		}
	}
}
