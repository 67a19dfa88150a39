// Package ups speaks the protocol of UPS's OAuth authorization-code API, and
// nothing else: where its endpoints are, what is asked there, and what the
// answers and errors mean.
//
// The facts are those of UPS's OpenAPI description OAuthAuthCode.yaml and of
// UPS's own sample clients, see docs/architecture.md.
package ups

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/upsauth/upsauth/internal/address"
)

// The paths of UPS's OAuth endpoints below an environment's base URL
// (OAuthAuthCode.yaml). Refreshing has a path of its own.
const (
	authorizePath = "/security/v1/oauth/authorize"
	tokenPath     = "/security/v1/oauth/token"
	refreshPath   = "/security/v1/oauth/refresh"
)

// Environment is one place where UPS's APIs live.
type Environment struct {
	Name string
	// BaseURL is scheme and host, and where a proxy asks for it a path, without
	// a slash at the end.
	BaseURL string
	// Origin is what a grant remembers of where it was made. It is the base
	// URL, except for the embedded sandbox, which is at another port each time.
	Origin string
	// Issuer, where set, is what the answer of a sign-in must carry as iss (RFC
	// 9207). UPS sends none.
	Issuer string
}

// Production and CIE are UPS's own environments: the live one, and the
// Customer Integration Environment for testing.
const (
	Production = "production"
	CIE        = "cie"
)

// BuiltinEnvironments returns UPS's own environments.
func BuiltinEnvironments() []Environment {
	return []Environment{
		{Name: Production, BaseURL: "https://onlinetools.ups.com", Origin: "https://onlinetools.ups.com"},
		{Name: CIE, BaseURL: "https://wwwcie.ups.com", Origin: "https://wwwcie.ups.com"},
	}
}

// NewEnvironment checks a base URL: https, or http on loopback only, and no more
// than scheme, host, port and path.
func NewEnvironment(name, baseURL string) (Environment, error) {
	bad := func(what string) (Environment, error) {
		return Environment{}, fmt.Errorf("the base_url of environment %q %s", name, what)
	}
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return bad("is not a URL such as https://onlinetools.ups.com")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(baseURL, "#") {
		return bad("has more than scheme, host and path")
	}
	if printable(baseURL) != baseURL || strings.Contains(baseURL, " ") {
		return bad("has a space or an invisible character in it")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && address.IsLoopback(u.Hostname()):
	case u.Scheme == "http":
		return bad("is plain http, which is allowed on this machine only (127.0.0.1, ::1, localhost): use https")
	default:
		return bad(fmt.Sprintf("begins with %q, it must be https", u.Scheme))
	}
	if problem := address.Problem(u, false); problem != "" {
		return bad("can't be used: " + problem)
	}
	base := strings.TrimRight(u.String(), "/")
	return Environment{Name: name, BaseURL: base, Origin: base}, nil
}

// PKCE says how an application proves that the code is its own (RFC 7636).
type PKCE string

const (
	// PKCEAuto is PKCE as UPS documents it, without Authorization header; where
	// UPS wants the header all the same, once more with header and verifier.
	PKCEAuto PKCE = "auto"
	// PKCEOn is PKCE as UPS documents it and nothing else.
	PKCEOn PKCE = "on"
	// PKCEOff is client ID and secret alone.
	PKCEOff PKCE = "off"
)

// ParsePKCE reads a --pkce flag; empty is auto.
func ParsePKCE(s string) (PKCE, error) {
	switch p := PKCE(s); p {
	case "":
		return PKCEAuto, nil
	case PKCEAuto, PKCEOn, PKCEOff:
		return p, nil
	}
	return "", fmt.Errorf("%q is not a setting for PKCE: use auto, on or off", s)
}

// Application is a client registered with UPS.
type Application struct {
	Name string
	// DisplayName is what UPS's consent page calls it.
	DisplayName string
	ClientID    string
	// ClientSecret is needed by every refresh, and by an exchange without PKCE.
	ClientSecret string
	// RedirectURI is sent to UPS byte for byte, as UPS compares it to the letter.
	RedirectURI string
	Scope       string
	PKCE        PKCE
	// PKCENeedsBasic is what an earlier exchange taught: UPS wants the
	// Authorization header beside the verifier.
	PKCENeedsBasic bool
}

// String is for people, and never has the client secret.
func (a Application) String() string { return fmt.Sprintf("%s (%s)", a.Name, a.ClientID) }

// GoString is String, for %#v.
func (a Application) GoString() string { return a.String() }
