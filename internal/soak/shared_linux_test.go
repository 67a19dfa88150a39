package soak

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// The limits of the protocol in the program that TestSharedVault runs. They are in the same
// order as those of the real one, and a tenth as long: a run meets each of them many times.
const (
	shortSend    = 2 * time.Second
	shortCall    = 2 * time.Second
	shortCallEnd = 5 * time.Second
)

// shortened is what differs in that program from the real one: constants, and a clock that can
// be wrong, each somewhere in a package. The compiler is given the changed files in place of
// the real ones, so that nothing in the real program can be shortened.
var shortened = []struct{ in, from, to string }{
	{"internal/vault/ledger", "SendWithin = 5 * time.Second", "SendWithin = 2 * time.Second"},
	{"internal/vault/ledger", "CallEnds = 60 * time.Second", "CallEnds = 5 * time.Second"},
	{"internal/ups", "const CallTimeout = 30 * time.Second", "const CallTimeout = 2 * time.Second"},
	{"internal/vault/shared", "RecentFor = 5 * time.Minute", "RecentFor = 3 * time.Second"},
	{"internal/vault/shared", "usualPatience = 10 * time.Second", "usualPatience = 2 * time.Second"},
	{"internal/vault/shared", "awayFor = 15 * time.Second", "awayFor = 1 * time.Second"},
	{"internal/vault/postgres", "usualPatience = 10 * time.Second", "usualPatience = 3 * time.Second"},
	{"internal/vault/postgres", "usualLongest = time.Minute", "usualLongest = 6 * time.Second"},
	{"internal/vault/postgres", "usualCommitPatience = 10 * time.Second", "usualCommitPatience = 3 * time.Second"},
	{"internal/vault/postgres", "connectTimeout = 5 * time.Second", "connectTimeout = 2 * time.Second"},
	{"internal/vault/postgres", "awayFor = 15 * time.Second", "awayFor = 1 * time.Second"},
	{"internal/cli", "Now: time.Now,", "Now: wrongClock,"},
}

const wrongClock = `
func wrongClock() time.Time {
	ahead, _ := time.ParseDuration(os.Getenv("SOAK_CLOCK"))
	return time.Now().Add(ahead)
}
`

var aligned = regexp.MustCompile(`(\w) +=[ ]`)

// shortProgram builds the program with short limits.
func shortProgram(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	texts := map[string]string{}
	for _, s := range shortened {
		files, err := filepath.Glob(filepath.Join(root, s.in, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			if texts[path] == "" {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				// Constants that stand together are aligned.
				texts[path] = aligned.ReplaceAllString(string(text), "$1 = ")
			}
			if n := strings.Count(texts[path], s.from); n > 0 {
				found += n
				texts[path] = strings.Replace(texts[path], s.from, s.to, 1)
				if s.to == "Now: wrongClock," {
					texts[path] += wrongClock
				}
			}
		}
		if found != 1 {
			t.Fatalf("%s has %q %d times: it can be shortened if it is there once", s.in, s.from, found)
		}
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, text := range texts {
		changed := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay.Replace)))
		write(t, changed, text)
		overlay.Replace[path] = changed
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), string(text))
	program := filepath.Join(dir, "upsauth")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "../../cmd/upsauth")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	return program
}

// sharedWorld is a database, a strict UPS, and hosts that share a vault.
type sharedWorld struct {
	t        *testing.T
	program  string
	identity string
	sandbox  *sandbox.Server
	base     string // UPS's address, the same on each host
	database string // the database's URL, the same on each host
	dbAddr   string // of that URL
	hosts    []*sharedHost

	// changing is held by whoever does something to the database, or needs it whole.
	changing sync.Mutex
	primary  *postgrestest.Server
	target   atomic.Pointer[string] // the primary's real address

	began  time.Time
	faults atomic.Int64
	calm   atomic.Bool // each kind of fault has come

	upsMu  sync.Mutex
	spends []*spend
	// first is who spent a refresh token first, by the token's digest.
	first map[string]*spend
	// kinds counts the faults.
	kinds map[string]int
	// tookBack are the moments at which commits were taken back.
	tookBack []time.Time
	runs     []*deed
	losses   []loss
	// families of each company, the last one last.
	families map[string][]family
	took     []time.Duration // of refreshes

	signingIn map[string]*sync.Mutex
}

type family struct {
	id    string
	since time.Time
}

// loss is a grant whose end a command told.
type loss struct {
	run     *deed
	company string
}

func newSharedWorld(t *testing.T, program string, hosts int, settings map[string]string, options sandbox.Options) *sharedWorld {
	t.Helper()
	w := &sharedWorld{
		t: t, program: program, began: time.Now(), first: map[string]*spend{}, kinds: map[string]int{}, families: map[string][]family{},
		signingIn: map[string]*sync.Mutex{},
	}
	w.primary = postgrestest.Start(t, postgrestest.Options{Settings: settings})
	if err := w.primary.Restore("postgres", []byte(postgres.Schema(postgres.Role))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.primary.SQL("postgres", "ALTER ROLE "+postgres.Role+" PASSWORD 'pw'"); err != nil {
		t.Fatal(err)
	}
	w.aim(w.primary)
	var err error
	if w.sandbox, err = sandbox.New(options); err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.identity = filepath.Join(t.TempDir(), "identity.txt")
	write(t, w.identity, identity.String()+"\n")
	w.connect(hosts)
	return w
}

// aim leads connections to a server from now on.
func (w *sharedWorld) aim(s *postgrestest.Server) {
	address := fmt.Sprintf("%s:%d", s.Host(), s.Port())
	w.target.Store(&address)
	w.primary = s
	if w.dbAddr == "" {
		w.dbAddr = address
		w.database = s.URL(postgres.Role, "pw", "postgres")
	}
}

func companyName(i int) string { return fmt.Sprintf("Company %02d", i) }

// userOf is the ups.com user of a company.
func userOf(company string) string { return strings.ReplaceAll(strings.ToLower(company), " ", "") }

func companyOf(user string) string {
	return strings.ToUpper(user[:1]) + user[1:len(user)-2] + " " + user[len(user)-2:]
}

// fault counts a fault.
func (w *sharedWorld) fault(kind string) {
	w.upsMu.Lock()
	w.kinds[kind]++
	w.upsMu.Unlock()
	if n := w.faults.Add(1); n%200 == 0 {
		w.t.Logf("%s s: %d faults", w.since(time.Now()), n)
	}
}

func (w *sharedWorld) since(t time.Time) string { return fmt.Sprintf("%.3f", t.Sub(w.began).Seconds()) }

// authorized signs a company in, once at a time, until it has a grant.
func (w *sharedWorld) authorize(h *sharedHost, company string) *deed {
	w.upsMu.Lock()
	m := w.signingIn[company]
	if m == nil {
		m = &sync.Mutex{}
		w.signingIn[company] = m
	}
	w.upsMu.Unlock()
	if !m.TryLock() {
		return nil
	}
	defer m.Unlock()
	return h.run(company, nil, "authorize", "--company", company, "--env", "lab", "--yes", "--timeout", "20s")
}

// states are what status says of each company.
func (w *sharedWorld) states(h *sharedHost) map[string]string {
	r := h.run("", nil, "status", "-o", "json")
	var list []struct {
		Company string `json:"company"`
		State   string `json:"state"`
	}
	states := map[string]string{}
	if start := strings.IndexByte(r.out, '['); start >= 0 {
		_ = json.NewDecoder(strings.NewReader(r.out[start:])).Decode(&list)
	}
	for _, entry := range list {
		states[entry.Company] = entry.State
	}
	return states
}

// TestSharedVault lets hosts that share a vault refresh the grants of many companies, while
// processes, networks, disks, clocks and the database fail at random. UPS voids a grant whose
// refresh token is sent twice. Each such loss has to be one that can't be avoided, and in the
// end every grant works or is told to be void. A seed gives the same faults again, and not the
// same moments.
func TestSharedVault(t *testing.T) {
	t.Parallel()
	const companies, hosts = 20, 3
	seed := *seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak.seed=%d", seed)
	w := newSharedWorld(t, shortProgram(t), hosts, nil, sandbox.Options{Strict: true})
	// Every third access token ends at once, so that token refreshes too.
	if err := w.sandbox.AddFault(sandbox.Fault{Endpoint: "refresh", AccessLifetime: 2 * time.Second, Probability: 0.3}); err != nil {
		t.Fatal(err)
	}
	each(companies, 4, func(i int) {
		if r := w.authorize(w.hosts[i%hosts], companyName(i)); r.code != 0 {
			t.Errorf("%s can't be authorized: %d\n%s", companyName(i), r.code, r.out)
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%s s: all are authorized", w.since(time.Now()))
	wanted, long := int64(max(40, *rounds)), *rounds >= 200
	var all, decks sync.WaitGroup
	enough := func() bool { return w.faults.Load() >= wanted }
	// Each kind comes before one comes again, so that a short run has all of them.
	weather := []deck{{6, 2 * time.Second, w.breakDatabase}, {4, time.Second, w.breakHost}, {6, time.Second, w.cutNetwork}}
	for i, d := range weather {
		r := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		if !long {
			d.pause /= 3
		}
		decks.Add(1)
		all.Go(func() {
			for first := true; first || long && !enough(); first = false {
				for _, kind := range r.Perm(d.kinds) {
					if !first && enough() {
						break
					}
					d.do(r, kind)
					time.Sleep(time.Duration(r.Int64N(int64(d.pause))))
				}
				if first {
					decks.Done()
				}
			}
		})
	}
	go func() { decks.Wait(); w.calm.Store(true) }()
	workers := 8
	if long {
		workers = 20
	}
	for i := range workers {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for !enough() || !w.calm.Load() {
				w.work(r, companies)
			}
		})
	}
	all.Wait()
	chaos := time.Since(w.began)
	for _, h := range w.hosts {
		h.heal()
	}
	t.Logf("%s s: all is whole again", w.since(time.Now()))
	time.Sleep(shortCallEnd)
	w.settle(companies)
	t.Logf("%s s: all work again", w.since(time.Now()))
	w.judge()
	w.report(chaos)
}

// deck is kinds of faults that come in turn, with a pause after each.
type deck struct {
	kinds int
	pause time.Duration // at most
	do    func(r *rand.Rand, kind int)
}

// each runs do for each number below n, several at once.
func each(n, atOnce int, do func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		all.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

// work runs one command, which may be killed or stopped.
func (w *sharedWorld) work(r *rand.Rand, companies int) {
	company := companyName(r.IntN(companies))
	h := w.hosts[r.IntN(len(w.hosts))]
	var args []string
	switch dice := r.IntN(100); {
	case dice < 55:
		args = []string{"refresh", "--company", company}
	case dice < 75:
		args = []string{"token", "--company", company, "--min-valid", "1s"}
	case dice < 90:
		args = []string{"token", "--company", company, "--min-valid", "30m"}
	case dice < 96:
		company, args = "", []string{"refresh", "--all"}
	default:
		company, args = "", []string{"refresh", "--all", "--force", "--jobs", "4"}
	}
	done := h.run(company, w.fateOf(r), args...)
	if done.killed() || company == "" {
		return
	}
	switch done.code {
	case 3:
		w.authorize(h, company)
	case 4:
		w.lose(done, company)
		w.authorize(h, company)
	}
}

// fate is what is done to a process, and when.
type fate struct {
	signal syscall.Signal
	// step is "after a time", "request" once UPS has the request, "spent" once it has
	// carried the request out, and "answer" once the answer is on its way.
	step  string
	after time.Duration
	pause time.Duration // after which a stopped process goes on
}

// fateOf draws what happens to a process; nil is nothing.
func (w *sharedWorld) fateOf(r *rand.Rand) *fate {
	f := &fate{step: []string{"after a time", "after a time", "request", "spent", "answer", "answer"}[r.IntN(6)]}
	switch dice := r.IntN(100); {
	case dice < 35:
		f.signal = syscall.SIGKILL
	case dice < 38:
		f.signal = syscall.SIGSTOP
		f.pause = shortSend + time.Duration(r.Int64N(int64(shortCallEnd)))
	default:
		return nil
	}
	w.upsMu.Lock()
	typical := 300 * time.Millisecond
	if len(w.took) > 0 {
		typical = w.took[len(w.took)/2] * 12 / 10
	}
	w.upsMu.Unlock()
	switch f.step {
	case "after a time":
		f.after = time.Duration(r.Int64N(int64(typical)))
	case "answer":
		f.after = time.Duration(r.Int64N(int64(60 * time.Millisecond)))
	}
	return f
}

// settle lets each host work once all is whole again, and finds what stays stuck. What one
// host has not delivered another waits for, and so does everybody for a host that has not
// answered a roll call.
func (w *sharedWorld) settle(companies int) {
	const most = 6
	for tries := 1; tries <= most; tries++ {
		said := make([]*deed, len(w.hosts))
		each(len(w.hosts), len(w.hosts), func(i int) { said[i] = w.hosts[i].run("", nil, "refresh", "--all", "--force") })
		if !slices.ContainsFunc(said, func(r *deed) bool { return r.code != 0 }) {
			break
		}
		each(companies, 4, func(i int) {
			company := companyName(i)
			for _, r := range said {
				if tries > 1 && !strings.Contains(r.out, company+" (intelligent-rating, lab): refreshed") {
					w.settleOne(r.host, company, tries == most)
				}
			}
		})
		time.Sleep(shortCallEnd / 4)
	}
	for company, state := range w.states(w.hosts[0]) {
		if !grant.State(state).Usable() {
			w.t.Errorf("in the end %s is %s", company, state)
		}
	}
}

// settleOne lets a host refresh what it could not, and authorizes what is lost.
func (w *sharedWorld) settleOne(h *sharedHost, company string, last bool) {
	r := h.run(company, nil, "refresh", "--company", company)
	switch {
	case r.code == 0:
		return
	case r.code == 4:
		w.lose(r, company)
		if state := w.states(h)[company]; state != string(grant.Void) {
			w.t.Errorf("%s is lost, and status says %q\n%s\n%s", company, state, r.out, w.history(company))
		}
	case r.code == 3: // a sign-in was cut off before there was a grant
	case last:
		w.t.Errorf("%s is stuck on %s: exit code %d\n%s\n%s", company, h.name, r.code, r.out, w.history(company))
		return
	default:
		return
	}
	if r := w.authorize(h, company); r != nil && r.code != 0 && last {
		w.t.Errorf("%s can't be authorized again: %d\n%s", company, r.code, r.out)
	}
}

func (w *sharedWorld) lose(r *deed, company string) {
	w.upsMu.Lock()
	defer w.upsMu.Unlock()
	w.losses = append(w.losses, loss{r, company})
}

// TestSharedHerd lets many processes on five hosts want the token of a grant whose access
// token has expired: UPS refreshes it once.
func TestSharedHerd(t *testing.T) {
	t.Parallel()
	processes := 40
	if *rounds >= 200 {
		processes = 200
	}
	w := newSharedWorld(t, upsauth, 5, map[string]string{"max_connections": "500"}, sandbox.Options{Strict: true})
	if err := w.sandbox.AddFault(sandbox.Fault{Endpoint: "token", Times: 1, AccessLifetime: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if r := w.authorize(w.hosts[0], company); r.code != 0 {
		t.Fatalf("exit code %d\n%s", r.code, r.out)
	}
	signedIn := time.Now()
	for _, h := range w.hosts {
		if r := h.run(company, nil, "token", "--company", company, "--min-valid", "0s"); r.code != 0 {
			t.Fatalf("exit code %d\n%s", r.code, r.out)
		}
	}
	time.Sleep(time.Until(signedIn.Add(5 * time.Second)))
	before := w.granted()
	outs := make([]string, processes)
	var hungry sync.WaitGroup
	for i := range processes {
		hungry.Go(func() {
			r := w.hosts[i%len(w.hosts)].run(company, nil, "token", "--company", company, "--min-valid", "30m")
			if r.code != 0 {
				t.Errorf("exit code %d\n%s", r.code, r.out)
			}
			// Before it there may be a warning that the database takes its time.
			lines := strings.Split(strings.TrimSpace(r.out), "\n")
			outs[i] = lines[len(lines)-1]
		})
	}
	hungry.Wait()
	if n := w.granted() - before; n != 1 {
		t.Errorf("UPS refreshed %d times", n)
	}
	slices.Sort(outs)
	if outs = slices.Compact(outs); len(outs) != 1 {
		t.Errorf("the processes got different tokens\n%q", outs)
	}
}

// granted is how many refreshes UPS has granted.
func (w *sharedWorld) granted() (n int) {
	for _, e := range w.sandbox.Refreshes() {
		if e.Endpoint == "refresh" && e.Outcome == sandbox.Committed {
			n++
		}
	}
	return n
}

// deed is a command on a host.
type deed struct {
	host    *sharedHost
	company string // empty for all
	args    []string
	fate    *fate
	process *os.Process

	began, ended time.Time
	code         int
	out          string
	// struck is when the fate came, and resumed when a stopped process went on.
	struck, resumed time.Time
	faulty          bool // its host's disk was full
}

func (r *deed) killed() bool { return r.code == -1 }

func (r *deed) String() string {
	return fmt.Sprintf("%s on %s", strings.Join(r.args, " "), r.host.name)
}

// run runs a command to its end.
func (h *sharedHost) run(company string, f *fate, args ...string) *deed {
	h.life.RLock()
	defer h.life.RUnlock()
	return h.runs(company, f, args...)
}

func (h *sharedHost) runs(company string, f *fate, args ...string) *deed {
	r := &deed{host: h, company: company, args: args, fate: f}
	command := exec.Command(h.w.program, args...)
	command.Env = h.env(company)
	var out bytes.Buffer
	file, err := os.CreateTemp(h.home, "out")
	if err != nil {
		h.w.t.Error(err)
		r.code = -2
		return r
	}
	defer func() { file.Close(); _ = os.Remove(file.Name()) }()
	command.Stdout, command.Stderr = file, file
	h.mu.Lock()
	r.began, r.faulty = time.Now(), h.full
	h.mu.Unlock()
	h.in(func() { err = command.Start() })
	if err != nil {
		h.w.t.Error(err)
		r.code = -2
		return r
	}
	r.process = command.Process
	h.mu.Lock()
	h.running[command.Process.Pid] = r
	h.mu.Unlock()
	if f != nil && f.step == "after a time" {
		timer := time.AfterFunc(f.after, func() { h.strike(r) })
		defer timer.Stop()
	}
	// Nothing may take so long, whatever fails.
	watch := time.AfterFunc(90*time.Second, func() {
		h.w.t.Errorf("%s does not end", r)
		_ = command.Process.Signal(syscall.SIGQUIT)
	})
	err = command.Wait()
	watch.Stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.w.t.Error(err)
	}
	h.mu.Lock()
	delete(h.running, command.Process.Pid)
	r.ended, r.code, r.faulty = time.Now(), command.ProcessState.ExitCode(), r.faulty || h.full
	h.mu.Unlock()
	if text, err := os.ReadFile(file.Name()); err == nil {
		out.Write(text)
	}
	r.out = out.String()
	h.w.ended(r)
	return r
}

// strike does to a process what its fate is.
func (h *sharedHost) strike(r *deed) {
	h.mu.Lock()
	if h.running[r.process.Pid] != r || !r.struck.IsZero() {
		h.mu.Unlock()
		return
	}
	r.struck = time.Now()
	_ = r.process.Signal(r.fate.signal)
	h.mu.Unlock()
	kind := "killed"
	if r.fate.signal == syscall.SIGSTOP {
		kind = "stopped"
		time.AfterFunc(r.fate.pause, func() {
			h.mu.Lock()
			r.resumed = time.Now()
			h.mu.Unlock()
			_ = r.process.Signal(syscall.SIGCONT)
		})
	}
	h.w.fault(kind + ", " + r.fate.step)
}
