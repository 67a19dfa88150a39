package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	gokeyring "github.com/zalando/go-keyring"
	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// ring is a keychain in memory.
type ring struct {
	mu    sync.Mutex
	items map[string]string
	set   func() // where set, comes before every write
}

func (r *ring) Get(_, account string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if secret, ok := r.items[account]; ok {
		return secret, nil
	}
	return "", gokeyring.ErrNotFound
}

func (r *ring) Set(_, account, secret string) error {
	if r.set != nil {
		r.set()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items[account] = secret
	return nil
}

func (r *ring) Delete(_, account string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.items, account)
	return nil
}

// months is where a service runs through months in no time: whoever waits, waits
// for a clock that goes on by itself.
type months struct {
	t        *testing.T
	env      *Env
	settings map[string]string
	lab      *sandbox.Server
	out, err lockedBuffer
	ring     *ring

	mu       sync.Mutex
	ahead    time.Duration
	notified []string
	// onStatus is told of the end of each round, by its number from 1.
	onStatus func(n int)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newMonths(t *testing.T, companies ...string) *months {
	t.Helper()
	dir := t.TempDir()
	m := &months{t: t, ring: &ring{items: map[string]string{}}}
	var err error
	if m.lab, err = sandbox.New(sandbox.Options{Now: m.now}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(m.lab)
	t.Cleanup(server.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	m.settings = map[string]string{
		"UPSAUTH_CONFIG_DIR": filepath.Dir(write("config/config.toml", fmt.Sprintf("[environments.lab]\nbase_url = %q\n", server.URL))),
		"UPSAUTH_STATE_DIR":  filepath.Join(dir, "state"), "UPSAUTH_VAULT": "file",
		"UPSAUTH_IDENTITY":  write("identity.txt", identity.String()+"\n"),
		"UPSAUTH_CLIENT_ID": "cid", "UPSAUTH_CLIENT_SECRET": "s-e-c-r-e-t", "UPSAUTH_REDIRECT_URI": "http://localhost:0/cb",
	}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	m.env = &Env{
		In: strings.NewReader(""), Out: &m.out, Err: &m.err, WorkFactor: 8,
		Getenv: func(name string) string { return m.settings[name] }, Environ: func() []string { return nil },
		Now: m.now, Zone: time.UTC, Transport: transport, Keychain: m.ring,
		After: func(d time.Duration) <-chan time.Time {
			m.sleep(d)
			c := make(chan time.Time, 1)
			c <- m.now()
			return c
		},
		Hangups: func() <-chan os.Signal { return nil },
		Systemd: func() (func(string), time.Duration) { return m.notify, 0 },
	}
	for _, company := range companies {
		m.authorize(company)
	}
	return m
}

func (m *months) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.ahead)
}

func (m *months) sleep(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead += d
}

func (m *months) notify(state string) {
	m.mu.Lock()
	m.notified = append(m.notified, state)
	n := 0
	for _, state := range m.notified {
		if strings.HasPrefix(state, "STATUS=") {
			n++
		}
	}
	m.mu.Unlock()
	if strings.HasPrefix(state, "STATUS=") && m.onStatus != nil {
		m.onStatus(n)
	}
}

func (m *months) authorize(company string) {
	m.t.Helper()
	var person sync.WaitGroup
	m.env.OpenBrowser = func(_ context.Context, address string, _ func(string, error)) error {
		person.Go(func() {
			if _, err := (sandbox.Person{User: company, Password: "any"}).SignIn(m.t.Context(), address); err != nil {
				m.t.Error(err)
			}
		})
		return nil
	}
	code := Run(m.t.Context(), m.env, []string{"authorize", "--env", "lab", "--company", company})
	person.Wait()
	if code != exitDone {
		m.t.Fatalf("exit code %d: %s", code, m.err.String())
	}
	http.DefaultClient.CloseIdleConnections()
}

// serve runs the service to the end of so many rounds, and returns its exit code
// and its log.
func (m *months) serve(rounds int, args ...string) (code int, log string) {
	m.t.Helper()
	ctx, stop := context.WithCancel(m.t.Context())
	defer stop()
	before := m.onStatus
	m.onStatus = func(n int) {
		if before != nil {
			before(n)
		}
		if n >= rounds {
			stop()
		}
	}
	from := len(m.err.String())
	code = Run(ctx, m.env, append([]string{"refresh", "--every"}, args...))
	m.onStatus = before
	return code, m.err.String()[from:]
}

// times are when the lines with a text in them are from.
func times(t *testing.T, log, text string) (found []time.Time) {
	t.Helper()
	for line := range strings.Lines(log) {
		stamp, rest, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339, stamp)
		if err != nil {
			t.Errorf("a line without time: %q", line)
		}
		if strings.Contains(rest, text) {
			found = append(found, at)
		}
	}
	return found
}

// A day of rounds keeps every token good, at UPS's pace, and leaves nothing
// behind in the process.
func TestServiceGoesOnForADay(t *testing.T) {
	if testing.Short() {
		t.Skip("a day of rounds takes several seconds")
	}
	const every = 10 * time.Minute
	m := newMonths(t, "Acme Corp", "Zeta")
	m.settings["UPSAUTH_IDENTITY"] = ""
	asked := 0
	m.env.InTerminal, m.env.ErrTerminal = true, true
	m.env.ReadPassword = func(context.Context) (string, error) { asked++; return "correct horse", nil }
	m.settings["UPSAUTH_STATE_DIR"] = filepath.Join(t.TempDir(), "state")
	m.authorize("Acme Corp")
	m.authorize("Zeta")
	asked = 0

	file := filepath.Join(t.TempDir(), "upsauth.prom")
	before := goleak.IgnoreCurrent()
	descriptors := 0
	m.onStatus = func(n int) {
		if n == 10 {
			descriptors = openFiles(t)
		}
	}
	code, log := m.serve(150, "10m", "--prometheus-file", file)
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if now := openFiles(t); now > descriptors+3 {
		t.Errorf("%d files are open, after ten rounds there were %d", now, descriptors)
	}
	m.env.Transport.(*http.Transport).CloseIdleConnections()
	goleak.VerifyNone(t, before)
	if asked != 1 {
		t.Errorf("the passphrase was asked for %d times", asked)
	}

	log = log[strings.Index(log, "\n")+1:] // the prompt
	log = log[strings.Index(log, "20"):]
	ends := times(t, log, "next round at")
	if len(ends) < 148 {
		t.Fatalf("there were %d rounds:\n%s", len(ends), log)
	}
	spread := map[time.Duration]bool{}
	for i := 1; i < len(ends); i++ {
		between := ends[i].Sub(ends[i-1])
		spread[between] = true
		// A round itself takes as long as this machine is slow.
		if between < every-time.Minute || between > every+every/10+time.Minute {
			t.Errorf("%s between two rounds", between)
		}
	}
	if len(spread) < 10 {
		t.Errorf("the rounds are always %d lengths apart", len(spread))
	}
	// An hour's token that is refreshed when it has 15 minutes left.
	for _, company := range []string{"Acme Corp", "Zeta"} {
		refreshed := times(t, log, "refreshed: "+company)
		for i := 1; i < len(refreshed); i++ {
			if between := refreshed[i].Sub(refreshed[i-1]); between < 44*time.Minute || between > time.Hour {
				t.Errorf("%s: %s between two refreshes", company, between)
			}
		}
		if len(refreshed) < 24 {
			t.Errorf("%s was refreshed %d times", company, len(refreshed))
		}
	}
	metrics, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(metrics), "upsauth_last_round_exit_code 0\n") || !strings.Contains(string(metrics), `upsauth_grants{state="authorized"} 2`) {
		t.Errorf("the metrics are %v\n%s", err, metrics)
	}
}

type brokenWay struct{ broken bool }

func (b *brokenWay) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.broken {
		return nil, errors.New("dial tcp: no network")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// After sleep the network is often not there yet: with a round a day, the next
// one must not be a day later. What lasts is told once a day, and for all.
func TestServiceTriesSoonWhatUPSCouldNotDo(t *testing.T) {
	m := newMonths(t, "A", "B")
	m.lab.ClearFaults()
	for range 2 * 9 {
		if err := m.lab.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 503}); err != nil {
			t.Fatal(err)
		}
	}
	m.sleep(2 * time.Hour)
	m.onStatus = func(n int) {
		if n == 10 {
			m.lab.ClearFaults()
		}
	}
	_, log := m.serve(14, "2h", "--jobs", "1")
	ends := times(t, log, "next round at")
	want := []time.Duration{1, 2, 4, 8, 16, 32, 64, 120, 120}
	for i, minutes := range want {
		between, planned := ends[i+1].Sub(ends[i]), minutes*time.Minute
		if between < planned-30*time.Second || between > planned+planned/10+30*time.Second {
			t.Errorf("round %d is %s after the one before it, want %s", i+2, between, planned)
		}
	}
	for _, company := range []string{"A", "B"} {
		if n := len(times(t, log, "failed, code 6: "+company)); n != 1 {
			t.Errorf("%s: its failure was told %d times", company, n)
		}
		if len(times(t, log, "refreshed: "+company)) == 0 {
			t.Errorf("%s was not refreshed in the end", company)
		}
	}
	if t.Failed() {
		t.Log(log)
	}
}

func TestServiceTellsOnceThatThereIsNoNetwork(t *testing.T) {
	m := newMonths(t, "A", "B", "C")
	m.env.Transport = &brokenWay{broken: true}
	m.sleep(2 * time.Hour)
	code, log := m.serve(40, "1h")
	if n := len(times(t, log, "failed, code 6: UPS can't be reached")); n != 2 || code != exitDone {
		t.Errorf("it was told %d times in a day and a half, exit code %d:\n%s", n, code, log)
	}
	if !strings.Contains(log, "0 refreshed, 3 failed") {
		t.Errorf("nobody counts them:\n%s", log)
	}
}

// systemd ends a service that does not say in time that all is well.
func TestServiceTellsTheWatchdog(t *testing.T) {
	m := newMonths(t, "A")
	last, most := m.now(), time.Duration(0)
	pings := 0
	m.env.Systemd = func() (func(string), time.Duration) {
		return func(state string) {
			if state == "WATCHDOG=1" {
				pings++
				most = max(most, m.now().Sub(last))
				last = m.now()
				return
			}
			m.notify(state)
		}, 20 * time.Second
	}
	m.serve(10, "5m", "--jobs", "1")
	if pings < 9*30 || most > 15*time.Second {
		t.Errorf("%d pings, the longest pause was %s", pings, most)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !strings.HasPrefix(m.notified[0], "READY=1\nSTATUS=") || m.notified[len(m.notified)-1] != "STOPPING=1" {
		t.Errorf("systemd was told %q", m.notified)
	}
}

// A write that the keychain owes an answer keeps its lock until the process
// ends: a service that went on would keep others from that grant for months.
func TestServiceEndsWithAWriteUnanswered(t *testing.T) {
	m := newMonths(t)
	// Not t.TempDir: on Windows a lock that is kept can't be removed.
	dir, err := os.MkdirTemp("", "unanswered")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	m.settings["UPSAUTH_STATE_DIR"] = filepath.Join(dir, "state")
	m.settings["UPSAUTH_VAULT"] = "keychain"
	m.authorize("A")
	m.sleep(2 * time.Hour)
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		m.ring.set = func() { <-answer }
		code := Run(t.Context(), m.env, []string{"refresh", "--every", "10m"})
		if code != exitVault || !strings.Contains(m.err.String(), "upsauth: The keychain did not answer a write") {
			t.Errorf("exit code %d: %s", code, m.err.String())
		}
		close(answer)
	})
	m.ring.set = nil
}

// A process that has a grant's lock and hangs must not hang the service.
func TestServiceGivesUpALockThatIsNeverFree(t *testing.T) {
	m := newMonths(t, "A")
	s, err := openJob(m.env, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	records, err := s.records(t.Context(), "")
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	unlock, err := s.Vault.Lock(t.Context(), records[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	m.sleep(2 * time.Hour)
	synctest.Test(t, func(t *testing.T) {
		if _, log := m.serve(2, "10m"); !strings.Contains(log, "failed, code 1: A (intelligent-rating, lab): another process has held the lock") {
			t.Errorf("the log is %s", log)
		}
	})
}

// Company 1 and Company 2 are two.
func TestTroubleOfTellsGrantsApart(t *testing.T) {
	m := newMonths(t, "Company 1", "Company 2")
	if err := m.lab.ChangePassword("Company 1"); err != nil {
		t.Fatal(err)
	}
	if err := m.lab.ChangePassword("Company 2"); err != nil {
		t.Fatal(err)
	}
	m.sleep(2 * time.Hour)
	_, log := m.serve(3, "10m")
	failed := regexp.MustCompile(`failed, code 4: (Company \d)`).FindAllString(log, -1)
	slices.Sort(failed)
	if len(failed) != 2 || failed[0] == failed[1] {
		t.Errorf("it told %q:\n%s", failed, log)
	}
}
