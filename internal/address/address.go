// Package address looks at the host and the port of an address that a user gives:
// url.Parse takes http://*.example.com and https://host:99999, and a request to
// either only fails, or never comes back.
package address

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// Problem says what is wrong with the host and the port of a URL, empty where a
// connection can be tried. Port 0 is one where anyPort says so.
func Problem(u *url.URL, anyPort bool) string {
	host := u.Hostname()
	if host == "" {
		return "it names no host"
	}
	if strings.HasPrefix(u.Host, "[") {
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is6() {
			return "its host is not an IPv6 address"
		}
	} else if problem := nameProblem(host); problem != "" {
		return problem
	}
	if strings.HasSuffix(u.Host, ":") {
		return "it has a colon without a port"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && !anyPort {
			return "its port is not one from 1 to 65535"
		}
	}
	return ""
}

// IsLoopback reports whether a host, without port, is this machine itself. No name but
// localhost is looked up.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// nameProblem says what is wrong with a host name (RFC 1123, 2.1; letters of other
// alphabets and underscores pass) or an IPv4 address.
func nameProblem(host string) string {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(host) > 253 {
		return "its host name is longer than 253 characters"
	}
	for _, label := range labels {
		if label == "" {
			return "its host name has two dots in a row, or begins with one"
		}
		if len(label) > 63 {
			return "its host name has more than 63 characters between two dots"
		}
		if strings.Contains(label, "*") {
			return "its host name has a wildcard in it: one host must be named"
		}
		if strings.ContainsFunc(label, foreign) || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return "its host name has a character that no host name has"
		}
	}
	// What ends in a number is an IPv4 address or nothing (WHATWG URL, 3.5).
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" {
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is4() {
			return "its host is not an IPv4 address"
		}
	}
	return ""
}

// foreign reports whether a character is in no host name.
func foreign(r rune) bool {
	if r < unicode.MaxASCII {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
	}
	return !unicode.In(r, unicode.L, unicode.M, unicode.N) && r != '\u200c' && r != '\u200d'
}
