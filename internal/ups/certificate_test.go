package ups

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// certified makes a certificate that is its own authority.
func certified(t *testing.T, names []string, from, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Lab CA"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// A person who is told only that a certificate is wrong looks in the wrong place:
// the clock, the network's sign-in page and a company's proxy are the causes.
func TestCertificatesThatAreNotTrusted(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	for _, test := range []struct {
		name     string
		names    []string
		from     time.Time
		until    time.Time
		trusted  bool
		distrust Distrust
		says     []string
	}{
		{"unknown authority", []string{"127.0.0.1"}, now.Add(-day), now.Add(day), false, UnknownAuthority, []string{"no authority", "127.0.0.1", "Lab CA"}},
		{"expired", []string{"127.0.0.1"}, now.Add(-2 * day), now.Add(-day), true, Expired, []string{"expired on " + now.Add(-day).UTC().Format("2006-01-02"), "clock says"}},
		{"not yet valid", []string{"127.0.0.1"}, now.Add(day), now.Add(2 * day), true, NotYetValid, []string{"valid from " + now.Add(day).UTC().Format("2006-01-02"), "clock says"}},
		{"wrong name", []string{"login.hotel.example"}, now.Add(-day), now.Add(day), true, WrongName, []string{"of login.hotel.example, not of 127.0.0.1"}},
		{"wrong name without a name", nil, now.Add(-day), now.Add(day), true, WrongName, []string{"of another host"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			certificate := certified(t, test.names, test.from, test.until)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			server.StartTLS()
			defer server.Close()
			trusted := x509.NewCertPool()
			if test.trusted {
				trusted.AddCert(certificate.Leaf)
			}
			for _, endpoint := range endpoints {
				c := newClient(t, server.URL, withTransport(func(transport *http.Transport) {
					transport.TLSClientConfig = &tls.Config{RootCAs: trusted}
				}))
				e := typed(t, call(t.Context(), c, endpoint))
				if e.Kind != Unreachable || e.Distrust != test.distrust || e.FateUnknown() {
					t.Errorf("%s: %s, %q", endpoint, e.Kind, e.Distrust)
				}
				for _, says := range test.says {
					if !strings.Contains(e.Error(), says) {
						t.Errorf("%q does not say %q", e, says)
					}
				}
			}
		})
	}
}
