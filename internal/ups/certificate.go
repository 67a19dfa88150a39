package ups

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Distrust is why a connection was not trusted, empty where that was not so.
type Distrust string

const (
	// UnknownAuthority: nobody whom this machine trusts has signed the certificate.
	UnknownAuthority Distrust = "unknown-authority"
	// Expired and NotYetValid: by this machine's clock.
	Expired     Distrust = "expired"
	NotYetValid Distrust = "not-yet-valid"
	// WrongName: the certificate is another host's.
	WrongName Distrust = "wrong-name"
	// NoTLS: what answers does not speak TLS.
	NoTLS Distrust = "no-tls"
)

// distrusted tells in a sentence why a connection to a host was not trusted.
func distrusted(err error, host string, now time.Time) (Distrust, string) {
	var (
		verification *tls.CertificateVerificationError
		unknown      x509.UnknownAuthorityError
		invalid      x509.CertificateInvalidError
		name         x509.HostnameError
		record       tls.RecordHeaderError
	)
	leaf := func() *x509.Certificate {
		if errors.As(err, &verification) && len(verification.UnverifiedCertificates) > 0 {
			return verification.UnverifiedCertificates[0]
		}
		return nil
	}
	switch {
	case errors.As(err, &name):
		names := "another host"
		if name.Certificate != nil && len(name.Certificate.DNSNames) > 0 {
			names = joinNames(name.Certificate.DNSNames)
		}
		return WrongName, fmt.Sprintf("the server shows a certificate of %s, not of %s", names, host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		c := invalid.Cert
		if c == nil {
			if c = leaf(); c == nil {
				return Expired, fmt.Sprintf("this machine's clock says %[2]s, and the certificate of %[1]s is not valid at that time", host, day(now))
			}
		}
		if c.NotBefore.After(now) {
			return NotYetValid, fmt.Sprintf("the certificate of %s is valid from %s on, and this machine's clock says %s", host, day(c.NotBefore), day(now))
		}
		return Expired, fmt.Sprintf("the certificate of %s expired on %s, and this machine's clock says %s", host, day(c.NotAfter), day(now))
	case errors.As(err, &unknown):
		issuer := ""
		if c := leaf(); c != nil {
			if text := c.Issuer.CommonName; text != "" {
				issuer = fmt.Sprintf(" (issuer: %s)", text)
			} else if len(c.Issuer.Organization) > 0 {
				issuer = fmt.Sprintf(" (issuer: %s)", c.Issuer.Organization[0])
			}
		}
		return UnknownAuthority, fmt.Sprintf("no authority that this machine trusts has signed the certificate of %s%s", host, issuer)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return NoTLS, fmt.Sprintf("the server at %s does not speak TLS", host)
	}
	return "", ""
}

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func joinNames(names []string) string {
	const most = 3
	if len(names) > most {
		names = append(append([]string(nil), names[:most]...), "…")
	}
	return strings.Join(names, ", ")
}
