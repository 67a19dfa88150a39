package soak

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/cutnet"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// TestLateDelivery cuts the network at the request of a refresh, for 10 to 120 s,
// and lets the process live, hang or be killed. Nothing of the first request may
// arrive once the network is back: not before the retry, which follows after 60 s,
// nor behind it, where a strict server takes it for theft. Only a process that lives
// and still waits for its answer, 30 s at most, may have its request arrive.
func TestLateDelivery(t *testing.T) {
	if !*cuts {
		t.Skip("make soak runs it; internal/ups has a short one")
	}
	for _, way := range []string{"direct", "TLS"} {
		for _, fate := range []string{"alive", "stopped", "killed"} {
			for _, cut := range []time.Duration{10, 30, 60, 90, 120} {
				cut *= time.Second
				t.Run(fmt.Sprintf("%s %s %s", way, fate, cut), func(t *testing.T) {
					t.Parallel()
					if way == "TLS" {
						cutRefresh(t, fate, cut)
					} else {
						cutRequest(t, fate, cut)
					}
				})
			}
		}
	}
}

// end does to a process what its fate is.
func end(process *os.Process, fate string) {
	switch fate {
	case "stopped":
		_ = process.Signal(syscall.SIGSTOP)
	case "killed":
		_ = process.Kill()
	}
}

// awaited reports whether a process still waits for its answer when the network is
// back.
func awaited(fate string, cut time.Duration) bool { return fate != "killed" && cut < ups.CallTimeout }

// latest is when the kernel's last repetition of a packet would have arrived: it
// doubles the wait, up to two minutes.
func latest(sent time.Time, cut time.Duration) time.Time {
	return sent.Add(cut + min(cut, 2*time.Minute) + 10*time.Second)
}

// cutRefresh cuts a refresh of upsauth, over TLS.
func cutRefresh(t *testing.T, fate string, cut time.Duration) {
	network := cutnet.New(t)
	network.Mend()
	p := newPlace(t, sandbox.Options{Strict: true})
	certificate, authority := certified(t)
	server := httptest.NewUnstartedServer(p.server)
	server.Listener.Close()
	server.Listener = network.Listen()
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	defer server.Close()
	dir := filepath.Dir(p.state)
	write(t, filepath.Join(dir, "ca.pem"), string(authority))
	write(t, filepath.Join(dir, "config", "config.toml"), fmt.Sprintf("[environments.lab]\nbase_url = %q\n", server.URL))
	p.env = append(p.env, "SSL_CERT_FILE="+filepath.Join(dir, "ca.pem"))
	p.launch = network.Command
	p.authorize(company)

	network.Cut()
	command := p.command("refresh", "--company", company)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	<-network.Sent()
	sent := time.Now()
	end(command.Process, fate)
	time.Sleep(cut)
	network.Mend()
	_ = command.Process.Signal(syscall.SIGCONT)
	_ = command.Wait()
	want := 1
	if awaited(fate, cut) && command.ProcessState.Success() {
		want = 2
	}
	for {
		code, out := p.run("refresh", "--company", company)
		if code == 0 {
			break
		}
		if code != 6 || time.Since(sent) > cut+3*time.Minute {
			t.Fatalf("the retry: exit code %d\n%s", code, out)
		}
		time.Sleep(2 * time.Second)
	}
	retried := time.Since(sent)
	time.Sleep(time.Until(latest(sent, cut)))
	committed, reused := p.count("refresh", sandbox.Committed), p.count("refresh", sandbox.Reused)
	t.Logf("retry after %.0f s; refreshes granted %d, of a spent token %d", retried.Seconds(), committed, reused)
	if committed != want || reused != 0 {
		t.Error("something arrived late")
	}
	if code, out := p.run("refresh", "--company", company); code != 0 {
		t.Errorf("the token is lost: exit code %d\n%s", code, out)
	}
}

// cutRequest cuts a single request without TLS, which upsauth makes on loopback
// alone.
func cutRequest(t *testing.T, fate string, cut time.Duration) {
	network := cutnet.New(t)
	var mu sync.Mutex
	var arrived []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		arrived = append(arrived, r.PostFormValue("refresh_token"))
	}))
	server.Listener.Close()
	server.Listener = network.Listen()
	server.Start()
	defer server.Close()
	send := func(token string) (process *os.Process, wait func()) {
		command := network.Command(person, token)
		command.Env = append(os.Environ(), "SOAK_REFRESH="+server.URL)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		return command.Process, func() { _ = command.Wait() }
	}
	process, wait := send("first")
	<-network.Sent()
	sent := time.Now()
	end(process, fate)
	time.Sleep(cut)
	network.Mend()
	_ = process.Signal(syscall.SIGCONT)
	wait()
	time.Sleep(time.Until(sent.Add(time.Minute)))
	_, wait = send("retry")
	wait()
	time.Sleep(time.Until(latest(sent, cut)))
	mu.Lock()
	defer mu.Unlock()
	t.Logf("arrived: %s", strings.Join(arrived, ", "))
	if awaited(fate, cut) && len(arrived) > 1 && arrived[0] == "first" {
		arrived = arrived[1:]
	}
	if !slices.Equal(arrived, []string{"retry"}) {
		t.Error("something arrived late")
	}
}

// certified makes a certificate for the network's server, and its PEM form.
func certified(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.ParseIP(cutnet.ServerHost)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
