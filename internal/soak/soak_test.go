// Package soak proves on real processes that no refresh token is lost: it kills
// upsauth at random instants, in the middle of everything, and looks whether
// the next command still gets a token. make soak N=2000 runs it long; with the
// other tests it runs short.
package soak

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

var (
	rounds = flag.Int("soak.n", 12, "how many processes to kill in each operation")
	seed   = flag.Uint64("soak.seed", 0, "of the faults of TestSharedVault, zero for one that is drawn")
	cuts   = flag.Bool("soak.cuts", false, "cut networks for 10 to 120 s, which takes five minutes")
)

var (
	upsauth string // the built command
	person  string // the browser: this test binary
)

func TestMain(m *testing.M) {
	if base := os.Getenv("SOAK_REFRESH"); base != "" {
		os.Exit(refreshOnce(base))
	}
	if os.Getenv("SOAK_PERSON") != "" {
		os.Exit(signIn())
	}
	os.Exit(run(m))
}

// signIn is what $BROWSER names: the person at the sandbox's pages.
func signIn() int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := sandbox.Person{User: os.Getenv("SOAK_PERSON"), Password: "any"}.SignIn(ctx, os.Args[1])
	if err != nil {
		// The command that waited was killed, most likely.
		return 1
	}
	return 0
}

// refreshOnce sends the refresh token that is its argument, as upsauth does.
func refreshOnce(base string) int {
	client := &ups.Client{Environment: ups.Environment{BaseURL: base}}
	if _, err := client.Refresh(context.Background(), os.Args[1], nil); err != nil {
		return 1
	}
	return 0
}

func run(m *testing.M) int {
	flag.Parse()
	if *cuts {
		_ = flag.Set("test.parallel", "64") // they wait, most of the time
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	upsauth = filepath.Join(dir, "upsauth")
	build := exec.Command("go", "build", "-o", upsauth, "../../cmd/upsauth")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	if person, err = os.Executable(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// place is one vault with its configuration, and the strict sandbox that it
// talks to.
type place struct {
	t      testing.TB
	server *sandbox.Server
	env    []string
	vault  *vault.Vault
	state  string
	// launch makes a command, where not exec.Command does.
	launch func(name string, args ...string) *exec.Cmd
	dir    string // where commands run, the test's own where it is empty
}

const company = "Acme Corp"

func id(company string) grant.ID {
	return grant.ID{Company: company, Application: "intelligent-rating", Environment: "lab"}
}

func newPlace(t testing.TB, options sandbox.Options) *place {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("processes are killed as Unix does it")
	}
	dir := t.TempDir()
	server, err := sandbox.New(options)
	if err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identityFile := filepath.Join(dir, "identity.txt")
	write(t, identityFile, identity.String()+"\n")
	config, state := filepath.Join(dir, "config"), filepath.Join(dir, "state")
	if err := os.Mkdir(config, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(config, "config.toml"),
		fmt.Sprintf("[refresh]\nretry_unknown_after = \"0s\"\n[environments.lab]\nbase_url = %q\n", listener.URL))
	return &place{
		t: t, server: server, state: state,
		env: []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GORACE=atexit_sleep_ms=0",
			"UPSAUTH_CONFIG_DIR=" + config, "UPSAUTH_STATE_DIR=" + state,
			"UPSAUTH_VAULT=file", "UPSAUTH_IDENTITY=" + identityFile,
			"UPSAUTH_CLIENT_ID=cid", "UPSAUTH_CLIENT_SECRET=secret", "UPSAUTH_REDIRECT_URI=http://localhost:0/cb",
			"BROWSER=" + person, "SOAK_PERSON=jane",
		},
		vault: vault.New(files.New(state, vault.Homes{agefile.New(filepath.Join(state, "vault"), identityFile)})),
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *place) command(args ...string) *exec.Cmd {
	launch := p.launch
	if launch == nil {
		launch = exec.Command
	}
	command := launch(upsauth, args...)
	command.Env, command.Dir = p.env, p.dir
	return command
}

// run runs a command to its end and returns its exit code and output.
func (p *place) run(args ...string) (code int, out string) {
	p.t.Helper()
	command := p.command(args...)
	// A file and no pipe: a pipe would also wait for the browser, which has it
	// as its standard error.
	file, err := os.CreateTemp(p.t.TempDir(), "out")
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	command.Stdout, command.Stderr = file, file
	err = command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	text, err := os.ReadFile(file.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(text)
}

func (p *place) must(args ...string) string {
	p.t.Helper()
	code, out := p.run(args...)
	if code != 0 {
		p.t.Fatalf("upsauth %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func (p *place) authorize(company string) {
	p.t.Helper()
	p.must("authorize", "--company", company, "--env", "lab", "--yes")
}

// took is how long a command takes once.
func (p *place) took(args ...string) time.Duration {
	p.t.Helper()
	start := time.Now()
	p.must(args...)
	return time.Since(start)
}

// typical is how long a command takes here, the median of a few.
func (p *place) typical(args ...string) time.Duration {
	p.t.Helper()
	var took []time.Duration
	for range 7 {
		start := time.Now()
		p.must(args...)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// killed starts a command, kills it after a delay, and reports whether it was
// still running then.
func (p *place) killed(after time.Duration, args ...string) bool {
	p.t.Helper()
	command := p.command(args...)
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	// The killer waits busily: a timer would miss by as much as some of the
	// steps take.
	for end := time.Now().Add(after); time.Now().Before(end); {
		if time.Until(end) > 2*time.Millisecond {
			time.Sleep(time.Millisecond)
		}
	}
	_ = command.Process.Kill()
	_ = command.Wait()
	return !command.ProcessState.Exited()
}

// unknown reports whether a refresh lies there that was sent and not answered:
// whether a kill fell into the window that can't be avoided, or between the
// journal and the first byte.
func (p *place) unknown(company string) bool {
	p.t.Helper()
	record, err := p.vault.Record(p.t.Context(), id(company))
	if errors.Is(err, grant.ErrNoGrant) {
		return false
	}
	if err != nil {
		p.t.Fatal(err)
	}
	attempts, err := p.vault.Attempts(p.t.Context(), id(company))
	if err != nil {
		p.t.Fatal(err)
	}
	own := slices.DeleteFunc(attempts, func(j grant.Journal) bool { return j.TokenVaultKey != record.TokenVaultKey })
	open, _ := grant.Unsettled(own, record.Generation)
	return slices.ContainsFunc(open, func(j grant.Journal) bool { return !j.Answered })
}

// count counts the server's events.
func (p *place) count(endpoint string, outcome sandbox.Outcome) int {
	n := 0
	for _, e := range p.server.Refreshes() {
		if e.Endpoint == endpoint && e.Outcome == outcome {
			n++
		}
	}
	return n
}

// report is one row of the table.
type report struct {
	operation        string
	kills, lost      int
	inWindow, double int
	ended            int // commands that were through before the kill came
}

func (r report) String() string {
	return fmt.Sprintf("%-28s %6d %6d %10d %8d %8d", r.operation, r.kills, r.lost, r.inWindow, r.double, r.ended)
}

const header = "operation                     kills   lost  in window   double    ended"

// TestKilledRefresh kills refreshes. Afterwards the next command gets a valid
// token, except where the kill fell between the first byte sent and the answer
// sealed, and UPS granted the request.
func TestKilledRefresh(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	p.authorize(company)
	spread := p.typical("refresh", "--company", company) * 11 / 10
	r := report{operation: "refresh"}
	for r.kills < *rounds {
		reusedBefore := p.count("refresh", sandbox.Reused)
		if !p.killed(rand.N(spread), "refresh", "--company", company) {
			r.ended++
			continue
		}
		r.kills++
		unknown := p.unknown(company)
		code, out := p.run("refresh", "--company", company)
		reused := p.count("refresh", sandbox.Reused) - reusedBefore
		switch {
		case code == 0 && reused == 0:
			continue
		case unknown && code == 4:
			// The server granted it, the answer was lost: the window.
			r.inWindow++
		default:
			r.lost++
			r.double += reused
			t.Errorf("after kill %d: exit code %d, %d reused, unknown %v\n%s", r.kills, code, reused, unknown, out)
		}
		p.authorize(company)
	}
	t.Logf("\n%s\n%s", header, r)
}

// TestKilledAuthorize kills an authorization of a company that is authorized:
// afterwards the company has a grant that works, the old or the new.
func TestKilledAuthorize(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	p.authorize(company)
	again := []string{"authorize", "--company", company, "--env", "lab", "--yes"}
	spread := p.typical(again...) * 11 / 10
	r := report{operation: "authorize again"}
	for r.kills < *rounds {
		if !p.killed(rand.N(spread), again...) {
			r.ended++
			continue
		}
		r.kills++
		if code, out := p.run("refresh", "--company", company); code != 0 {
			r.lost++
			t.Errorf("after kill %d: exit code %d\n%s", r.kills, code, out)
			p.authorize(company)
		}
	}
	r.double = p.count("refresh", sandbox.Reused)
	if r.double > 0 {
		t.Errorf("%d refresh tokens were spent twice", r.double)
	}
	p.authorize(company)
	p.clean(company)
	t.Logf("\n%s\n%s", header, r)
}

// clean revokes a company and fails where anything of it is left.
func (p *place) clean(company string) {
	p.t.Helper()
	p.must("revoke", "--company", company, "--yes")
	for _, dir := range []string{"records", "journals", "vault"} {
		err := filepath.WalkDir(filepath.Join(p.state, dir), func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
				p.t.Errorf("%s is left after the revoke", path)
			}
			return nil
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// TestKilledRevoke kills revokes: the next revoke finishes, nothing comes back
// to life, and no secret is left.
func TestKilledRevoke(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	r := report{operation: "revoke"}
	p.authorize(company)
	start := time.Now()
	p.must("revoke", "--company", company, "--yes")
	spread := time.Since(start) * 11 / 10
	for r.kills < *rounds {
		p.authorize(company)
		if !p.killed(rand.N(spread), "revoke", "--company", company, "--yes") {
			r.ended++
			continue
		}
		r.kills++
		before, _ := p.run("status", "--company", company)
		code, out := p.run("revoke", "--company", company, "--yes")
		// Where the tombstone stood, the company is gone for good already.
		if before == 0 && code != 0 || before != 0 && code != 3 {
			r.lost++
			t.Errorf("after kill %d: status %d, then revoke %d\n%s", r.kills, before, code, out)
		}
		if code, _ := p.run("token", "--company", company); code != 3 {
			t.Errorf("after kill %d a token is to be had: exit code %d", r.kills, code)
		}
		p.authorize(company)
		p.clean(company)
	}
	t.Logf("\n%s\n%s", header, r)
}

// TestKilledRename kills renames: afterwards there is one grant, under the old
// name or the new one, and it works.
func TestKilledRename(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	names := []string{"Acme Corp", "Zeta Ltd"}
	p.authorize(names[0])
	r := report{operation: "rename"}
	start := time.Now()
	p.must("company", "rename", names[0], names[1])
	spread := time.Since(start) * 11 / 10
	for at := 1; r.kills < *rounds; {
		if !p.killed(rand.N(spread), "company", "rename", names[at], names[1-at]) {
			r.ended++
			at = 1 - at
			continue
		}
		r.kills++
		records, problems, err := p.vault.List(p.t.Context(), "")
		if err != nil || len(problems) > 0 || len(records) != 1 {
			t.Fatalf("after kill %d: %d records, %v, %v", r.kills, len(records), problems, err)
		}
		// The next command finishes a rename that had begun.
		p.must("refresh")
		if records, _, err = p.vault.List(p.t.Context(), ""); err != nil || len(records) != 1 {
			t.Fatalf("after kill %d and the next command: %d records, %v", r.kills, len(records), err)
		}
		if at = slices.Index(names, records[0].Company); at < 0 {
			t.Fatalf("after kill %d the company is called %q", r.kills, records[0].Company)
		}
		if code, out := p.run("refresh", "--company", names[at]); code != 0 {
			r.lost++
			t.Errorf("after kill %d: exit code %d\n%s", r.kills, code, out)
			p.authorize(names[at])
		}
	}
	if r.double = p.count("refresh", sandbox.Reused); r.double > 0 {
		t.Errorf("%d refresh tokens were spent twice", r.double)
	}
	t.Logf("\n%s\n%s", header, r)
}

// TestKilledInARace lets an authorization, a refresh and a revoke of one company
// run at once and kills them: afterwards there is a grant that works, or none.
func TestKilledInARace(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	r := report{operation: "race of three"}
	p.authorize(company)
	spread := p.typical("authorize", "--company", company, "--env", "lab", "--yes") * 11 / 10
	for r.kills < *rounds {
		p.authorize(company)
		var all sync.WaitGroup
		var mu sync.Mutex
		for _, args := range [][]string{
			{"authorize", "--company", company, "--env", "lab", "--yes"},
			{"refresh", "--company", company},
			{"revoke", "--company", company, "--yes"},
		} {
			after := rand.N(spread)
			all.Go(func() {
				killed := p.killed(after, args...)
				mu.Lock()
				defer mu.Unlock()
				if killed {
					r.kills++
				} else {
					r.ended++
				}
			})
		}
		all.Wait()
		unknown := p.unknown(company)
		switch code, out := p.run("refresh", "--company", company); {
		case code == 0 || code == 3:
		case code == 4 && unknown:
			r.inWindow++
		default:
			r.lost++
			t.Errorf("after %d kills: exit code %d, unknown %v\n%s", r.kills, code, unknown, out)
		}
	}
	p.authorize(company)
	p.clean(company)
	t.Logf("\n%s\n%s", header, r)
}

// TestDroppedAnswers kills refreshes while the server drops connections before,
// during and after its answer: what can't be helped is told as such, and
// everything else survives.
func TestDroppedAnswers(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	p.authorize(company)
	spread := p.typical("refresh", "--company", company) * 11 / 10
	for _, drop := range []string{"before", "during", "after"} {
		r := report{operation: "refresh, dropped " + drop}
		for r.kills < max(4, *rounds/4) {
			p.server.ClearFaults()
			if err := p.server.AddFault(sandbox.Fault{Endpoint: "refresh", Drop: drop, Times: 1}); err != nil {
				t.Fatal(err)
			}
			reusedBefore := p.count("refresh", sandbox.Reused)
			if !p.killed(rand.N(spread), "refresh", "--company", company) {
				r.ended++
			} else {
				r.kills++
			}
			p.server.ClearFaults()
			unknown := p.unknown(company)
			code, out := p.run("refresh", "--company", company)
			reused := p.count("refresh", sandbox.Reused) - reusedBefore
			switch {
			case code == 0 && reused == 0:
				continue
			case code == 4 && (drop != "before" || unknown):
				// The server granted it and never delivered the answer, or
				// the kill fell into the window.
				r.inWindow++
			default:
				r.lost++
				t.Errorf("dropped %s: exit code %d, %d reused, unknown %v\n%s", drop, code, reused, unknown, out)
			}
			p.authorize(company)
		}
		t.Logf("\n%s\n%s", header, r)
	}
}

// TestSimultaneousTokens lets 16 processes ask at once, over and over, when the
// token has ended: one refresh each time, and the same token for all.
func TestSimultaneousTokens(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true, AccessLifetime: time.Hour})
	p.authorize(company)
	const processes = 16
	for round := range min(50, max(3, *rounds/20)) {
		p.expire()
		before := p.count("refresh", sandbox.Committed)
		outs := make([]string, processes)
		var all sync.WaitGroup
		for i := range processes {
			all.Go(func() {
				var out bytes.Buffer
				command := p.command("token", "--company", company, "--min-valid", "30m")
				command.Stdout = &out
				if err := command.Run(); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				outs[i] = out.String()
			})
		}
		all.Wait()
		if n := p.count("refresh", sandbox.Committed) - before; n != 1 {
			t.Errorf("round %d: %d refreshes instead of one", round, n)
		}
		slices.Sort(outs)
		if len(slices.Compact(outs)) != 1 {
			t.Errorf("round %d: the processes got different tokens", round)
		}
	}
	if n := p.count("refresh", sandbox.Reused); n != 0 {
		t.Errorf("%d refresh tokens were spent twice", n)
	}
}

// TestManyCompaniesUnderARateLimit refreshes many companies at once at a server
// that answers 429 now and then: all are refreshed, each once, none is lost.
func TestManyCompaniesUnderARateLimit(t *testing.T) {
	p := newPlace(t, sandbox.Options{Strict: true})
	companies := min(200, max(24, *rounds))
	for i := range companies {
		p.authorize(fmt.Sprintf("Company %03d", i))
	}
	if err := p.server.AddFault(sandbox.Fault{Endpoint: "refresh", Status: 429, RetryAfter: "1", Probability: 0.05, Times: 8}); err != nil {
		t.Fatal(err)
	}
	out := p.must("refresh", "--all", "--force", "--jobs", "16")
	if !strings.Contains(out, fmt.Sprintf("%d refreshed, 0 failed, 0 not due.", companies)) {
		t.Errorf("not all were refreshed:\n%s", out)
	}
	if n := p.count("refresh", sandbox.Committed); n != companies {
		t.Errorf("%d refreshes of %d companies", n, companies)
	}
	p.server.ClearFaults()
	p.must("refresh", "--all", "--force", "--jobs", "16")
	if n := p.count("refresh", sandbox.Reused); n != 0 {
		t.Errorf("%d refresh tokens were spent twice", n)
	}
}

// expire gives the grant an access token that has ended when it returns.
func (p *place) expire() {
	p.t.Helper()
	if err := p.server.AddFault(sandbox.Fault{Endpoint: "refresh", Times: 1, AccessLifetime: time.Second}); err != nil {
		p.t.Fatal(err)
	}
	p.must("refresh", "--company", company)
	record, err := p.vault.Record(p.t.Context(), id(company))
	if err != nil {
		p.t.Fatal(err)
	}
	time.Sleep(time.Until(record.AccessUntil))
}
