package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/ups"
)

// A certificate that is not trusted has a cause that a person can look for: the
// clock, a captive portal, a company's proxy. Nothing is sent.
func TestCertificatesAreExplained(t *testing.T) {
	day := 24 * time.Hour
	for _, test := range []struct {
		name        string
		from, until time.Duration
		address     net.IP
		says        []string
	}{
		{"unknown authority", -day, day, net.IPv4(127, 0, 0, 1), []string{"no authority that this machine trusts", "captive portal", "SSL_CERT_FILE"}},
		{"expired", -2 * day, -day, net.IPv4(127, 0, 0, 1), []string{"expired on", "machine's clock"}},
		{"not yet valid", day, 2 * day, net.IPv4(127, 0, 0, 1), []string{"is valid from", "machine's clock"}},
		{"wrong name", -day, day, net.IPv4(10, 0, 0, 1), []string{"of another host, not of 127.0.0.1", "captive portal"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(test.from), NotAfter: time.Now().Add(test.until),
				IPAddresses: []net.IP{test.address},
			}
			der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
			server.StartTLS()
			defer server.Close()

			dir := t.TempDir()
			settings := map[string]string{
				"UPSAUTH_CONFIG_DIR": filepath.Join(dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(dir, "state"),
				"UPSAUTH_VAULT": "file", "UPSAUTH_PASSPHRASE": "long enough", "UPSAUTH_CLIENT_ID": "cid",
				"UPSAUTH_CLIENT_SECRET": "topsecret99", "UPSAUTH_REDIRECT_URI": "http://localhost:0/cb",
			}
			if err := os.Mkdir(filepath.Join(dir, "config"), 0o700); err != nil {
				t.Fatal(err)
			}
			config := fmt.Sprintf("[environments.lab]\nbase_url = %q\n", server.URL)
			if err := os.WriteFile(filepath.Join(dir, "config", "config.toml"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, said bytes.Buffer
			env := &Env{
				In: strings.NewReader(""), Out: &out, Err: &said, WorkFactor: 8,
				Getenv: func(name string) string { return settings[name] }, Environ: func() []string { return nil },
				Now: time.Now, Zone: time.UTC, Transport: ups.NewTransport(), Keychain: &ring{},
			}
			if code := Run(t.Context(), env, []string{"authorize", "--company", "A", "--env", "lab", "--no-browser"}); code != exitUPS {
				t.Errorf("exit code %d", code)
			}
			// Windows and macOS judge by themselves, and name what they find first.
			if decides := runtime.GOOS == "windows" || runtime.GOOS == "darwin"; decides && strings.Contains(said.String(), "no authority that this machine trusts") {
				return
			}
			for _, says := range test.says {
				if !strings.Contains(said.String(), says) {
					t.Errorf("%q does not say %q", said.String(), says)
				}
			}
		})
	}
}
