package signin

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Callback is where and how an answer is awaited on this machine.
type Callback struct {
	RedirectURI string
	// Listen, where set, is another loopback address for the callback server.
	Listen string
	// TLS serves an https redirect URI on loopback.
	TLS *tls.Config
}

// CallbackFor is where and how the answer of a redirect URI is awaited, as config.toml
// says: its address to listen on counts for one that a tunnel brings, its certificate
// for https on this machine.
func CallbackFor(places *safefile.Places, redirectURI string, configured config.Callback) (Callback, error) {
	c := Callback{RedirectURI: redirectURI}
	if !c.IsLoopback() {
		c.Listen = configured.Listen
		if c.Listen == "" {
			return c, nil
		}
		return c, loopback.CheckListen(c.Listen)
	}
	if !c.IsHTTPS() || configured.TLSCert == "" && configured.TLSKey == "" {
		return c, nil
	}
	var err error
	c.TLS, err = LoadCertificate(places, configured.TLSCert, configured.TLSKey)
	return c, err
}

// IsHTTPS reports whether the redirect URI is one of https.
func (c Callback) IsHTTPS() bool {
	return strings.HasPrefix(strings.ToLower(c.RedirectURI), "https:")
}

// IsLoopback reports whether the redirect URI names this machine.
func (c Callback) IsLoopback() bool { return loopback.IsLoopback(c.RedirectURI) }

// LeadsHere reports whether the answer can be caught: otherwise it has to be pasted.
func (c Callback) LeadsHere() bool {
	return c.Listen != "" || loopback.CanListen(c.RedirectURI, c.TLS != nil)
}

// Port is where the answer is awaited, 0 for any port or for nowhere.
func (c Callback) Port() int {
	address := c.Listen
	if u, err := url.Parse(c.RedirectURI); err == nil && address == "" {
		address = u.Host
	}
	_, text, _ := net.SplitHostPort(address)
	port, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return port
}

// Doubt is why a browser is going to refuse the certificate, as a sentence, empty
// where it need not.
func (c Callback) Doubt(now time.Time) string {
	if c.TLS == nil {
		return ""
	}
	leaf := c.TLS.Certificates[0].Leaf
	u, err := url.Parse(c.RedirectURI)
	if leaf == nil || err != nil {
		return ""
	}
	switch {
	case leaf.VerifyHostname(u.Hostname()) != nil:
		return fmt.Sprintf("the certificate is not for %s, so the browser will refuse it.", u.Hostname())
	case now.After(leaf.NotAfter) || now.Before(leaf.NotBefore):
		return fmt.Sprintf("the certificate is valid from %s to %s only, so the browser will refuse it.", leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return ""
}

// CertificateError says that a certificate can't be used with its key.
type CertificateError struct {
	Certificate, Key string
	Err              error
}

func (e *CertificateError) Error() string {
	return fmt.Sprintf("the certificate %q with the key %q can't be used: %v", e.Certificate, e.Key, e.Err)
}

func (e *CertificateError) Unwrap() error { return e.Err }

// ReadCertificate reads what an https redirect URI on loopback is served with, from two
// PEM files that a person names and nobody else may change. They may be pipes.
func ReadCertificate(ctx context.Context, places *safefile.Places, certificate, key string) (*tls.Config, error) {
	loaded, err := pairOf(places, certificate, key, func(path string) ([]byte, error) { return safefile.ReadSmall(ctx, path) })
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return loaded, err
}

// LoadCertificate is ReadCertificate for what the configuration names, or what is read
// again and again: only regular files are read.
func LoadCertificate(places *safefile.Places, certificate, key string) (*tls.Config, error) {
	return pairOf(places, certificate, key, safefile.ReadFile)
}

func pairOf(places *safefile.Places, certificate, key string, read func(path string) ([]byte, error)) (*tls.Config, error) {
	var pair tls.Certificate
	public, err := read(certificate)
	if err == nil {
		var private []byte
		if private, err = read(key); err == nil {
			pair, err = tls.X509KeyPair(public, private)
		}
	}
	if err != nil {
		return nil, &CertificateError{certificate, key, err}
	}
	if err := places.Check(certificate); err != nil {
		return nil, &config.Error{Path: certificate, Err: err}
	}
	if err := places.CheckSecret(key); err != nil {
		return nil, &config.Error{Path: key, Err: err}
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}
