package powerloss

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
)

const (
	company = "Acme Corp"
	renamed = "Zeta Ltd"
	person  = "jane"
)

// fate is what becomes of one request to UPS's token endpoints.
type fate string

const (
	granted  fate = ""         // the server decides
	failing  fate = "503"      // it fails, and the token is not spent
	unusable fate = "unusable" // 200 with something else than tokens, which are not spent
)

// scenario is what commands do before the power fails.
type scenario struct {
	name      string
	signedIn  bool // there is a grant when it begins
	elsewhere bool // which is then exported, and its state is on another machine
	fates     []fate
	steps     []step
	rename    bool // the last step renames the company
	revoke    bool // the last step revokes the grant
	restores  bool // the last step imports it
}

// step is one command.
type step struct {
	args   []string // HOME/ in them is the user's home
	code   int
	inject string // strace's way to make a call fail
}

var (
	authorize = step{args: []string{"authorize", "--company", company, "--env", "lab", "--yes"}}
	refresh   = step{args: []string{"refresh", "--company", company}}
	export    = step{args: []string{"vault", "export", "-o", "HOME/backup.age", "-R", "HOME/recipients.txt"}}
)

func (s step) exits(code int) step { s.code = code; return s }

var scenarios = []scenario{
	{name: "first sign-in", steps: []step{authorize}},
	{name: "refresh", signedIn: true, steps: []step{refresh}},
	{name: "two refreshes", signedIn: true, steps: []step{refresh, refresh}},
	{name: "sign-in and refresh", steps: []step{authorize, refresh}},
	{name: "refresh, 503, again", signedIn: true, fates: []fate{failing, granted}, steps: []step{refresh.exits(6), refresh}},
	{name: "refresh, unusable answer, again", signedIn: true, fates: []fate{unusable, granted}, steps: []step{refresh.exits(6), refresh}},
	{name: "refresh, unusable answer, 503", signedIn: true, fates: []fate{unusable, failing}, steps: []step{refresh.exits(6), refresh.exits(6)}},
	{name: "sign-in again", signedIn: true, steps: []step{authorize}},
	{name: "sign-in again behind a 503", signedIn: true, fates: []fate{failing, granted}, steps: []step{refresh.exits(6), authorize}},
	{name: "refresh and export", signedIn: true, steps: []step{refresh, export}},
	{name: "import", signedIn: true, elsewhere: true, restores: true, steps: []step{{args: []string{"vault", "import", "HOME/backup.age", "-i", "HOME/" + identityFile, "--yes"}}}},
	{name: "revoke", signedIn: true, revoke: true, steps: []step{{args: []string{"revoke", "--company", company, "--yes"}}}},
	{name: "refresh and revoke", signedIn: true, revoke: true, steps: []step{refresh, {args: []string{"revoke", "--company", company, "--yes"}}}},
	{name: "rename", signedIn: true, rename: true, steps: []step{{args: []string{"company", "rename", company, renamed}}}},
	{name: "refresh and rename", signedIn: true, rename: true, steps: []step{refresh, {args: []string{"company", "rename", company, renamed}}}},
}

// exchange is one request to UPS's token endpoints.
type exchange struct {
	endpoint        string // "token" or "refresh"
	family          string // the sign-in, where UPS granted it
	asked, answered int    // how many operations came before, and that moment among them
	sealed          int    // with the first sync of what was written behind the answer; 0 for none
	end             int    // with the end of its command
}

func (e exchange) granted() bool { return e.family != "" }

// recording is what a scenario did.
type recording struct {
	scenario
	base      *disk // on disk for certain when it begins
	list      []operation
	exchanges []exchange
	ups       []files // what UPS remembered before the first exchange, and behind each
	family    string  // the sign-in that there is when it begins
	address   string  // of UPS
	now       time.Time
}

// front is the way to UPS: it decides the fate of requests to the token endpoints, and
// notes what UPS remembers behind each.
type front struct {
	tb     testing.TB
	server *sandbox.Server
	dir    string // where the server remembers

	mu        gosync.Mutex
	recording bool
	fates     []fate
	exchanges []exchange
	ups       []files
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	endpoint, ok := strings.CutPrefix(r.URL.Path, "/security/v1/oauth/")
	if !ok || endpoint != "token" && endpoint != "refresh" {
		f.server.ServeHTTP(w, r)
		return
	}
	what := granted
	if f.recording && len(f.fates) > 0 {
		what, f.fates = f.fates[0], f.fates[1:]
	}
	e := exchange{endpoint: endpoint}
	switch what {
	case failing:
		_, _ = io.Copy(io.Discard, r.Body)
		http.Error(w, `{"response":{"errors":[{"code":"10500","message":"Internal Server Error"}]}}`, http.StatusServiceUnavailable)
	case unusable:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html><p>"+strings.Repeat("Please try again. ", 100)+"</html>")
	case granted:
		before := len(f.server.Refreshes())
		f.server.ServeHTTP(w, r)
		for _, event := range f.server.Refreshes()[before:] {
			if event.Outcome == sandbox.Committed {
				e.family = event.Family
			}
		}
	}
	if f.recording {
		f.exchanges = append(f.exchanges, e)
		f.ups = append(f.ups, f.remembered())
	}
}

// remember lets a server go on that remembers what is in a directory.
func (f *front) remember(dir string) {
	f.tb.Helper()
	server, err := sandbox.New(sandbox.Options{Dir: dir, Strict: true})
	if err != nil {
		f.tb.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server, f.dir = server, dir
}

// record begins to note what happens.
func (f *front) record(fates []fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recording, f.fates, f.exchanges, f.ups = true, slices.Clone(fates), nil, []files{f.remembered()}
}

// recorded is what has happened since.
func (f *front) recorded() ([]exchange, []files) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.exchanges, f.ups
}

// remembered is what the server has on its disk.
func (f *front) remembered() files {
	all := files{}
	for _, name := range []string{"state.json", "key.pem"} {
		data, err := os.ReadFile(filepath.Join(f.dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			f.tb.Error(err)
		}
		if err == nil {
			all[name] = data
		}
	}
	return all
}

// scratch is a directory for this run of the tests.
var scratch string

// upsauthProgram builds the command once, without the race detector: its speed is no
// part of the tests.
var upsauthProgram = gosync.OnceValues(func() (string, error) {
	program := filepath.Join(scratch, "upsauth")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/upsauth").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s%w", out, err)
	}
	return program, nil
})

// TestMain is also the person at the browser: $BROWSER names this test binary.
func TestMain(m *testing.M) {
	if os.Getenv("POWERLOSS_PERSON") != "" {
		os.Exit(signIn())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "powerloss")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch = dir
	return m.Run()
}

func signIn() int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := (sandbox.Person{User: person, Password: "any"}).SignIn(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// lab is UPS at an address, and a user who has nothing yet.
type lab struct {
	t       *testing.T
	program string // upsauth's
	strace  string
	front   *front
	address string
	home    string
	user    user
}

func newLab(t *testing.T, program string) *lab {
	t.Helper()
	l := &lab{t: t, program: program, strace: realpart.Program(t, "strace", "strace"), front: &front{tb: t}}
	l.front.remember(t.TempDir())
	listener := httptest.NewServer(l.front)
	t.Cleanup(listener.Close)
	l.address = listener.URL
	l.at(t.TempDir())
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(l.home, configDir), 0o700); err != nil {
		t.Fatal(err)
	}
	files{
		identityFile:               []byte(identity.String() + "\n"),
		"recipients.txt":           []byte(identity.Recipient().String() + "\n"),
		configDir + "/config.toml": []byte(configuration(l.address, 0)),
	}.write(t, l.home)
	return l
}

// at lets the user live in a directory.
func (l *lab) at(dir string) {
	l.t.Helper()
	// strace has the paths behind descriptors without links in them.
	home, err := filepath.EvalSymlinks(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	l.home = home
	l.user = newUser(l.t, home)
}

// restore brings back what a loss of power has left behind.
func (l *lab) restore(s state) {
	l.t.Helper()
	l.at(l.t.TempDir())
	s.disk.inAnotherRun(l.t).materialize(l.t, l.home)
	dir := l.t.TempDir()
	s.ups.write(l.t, dir)
	l.front.remember(dir)
}

// record runs a scenario's commands under strace, by the program at a path.
func record(t *testing.T, program string, s scenario) *recording {
	t.Helper()
	_, rec := recordIn(t, program, s)
	return rec
}

// recordIn does so in a lab that can go on.
func recordIn(t *testing.T, program string, s scenario) (*lab, *recording) {
	t.Helper()
	l := newLab(t, program)
	family := ""
	if s.signedIn {
		l.run(authorize)
		family = l.front.server.Refreshes()[0].Family
	}
	if s.elsewhere {
		l.run(export)
		if err := os.RemoveAll(filepath.Join(l.home, stateDir)); err != nil {
			t.Fatal(err)
		}
	}
	return l, l.record(s, family)
}

// run runs a command that is not recorded, or by another one that is named first.
func (l *lab) run(s step, by ...string) {
	l.t.Helper()
	command := append(slices.Clone(by), l.program)
	for _, arg := range s.args {
		command = append(command, strings.ReplaceAll(arg, "HOME/", l.home+"/"))
	}
	l.user.must(l.t, exec.Command(command[0], command[1:]...), s.code)
}

// record runs a scenario's commands on what there is, with a sign-in or without.
func (l *lab) record(s scenario, family string) *recording {
	t := l.t
	t.Helper()
	rec := &recording{scenario: s, base: read(t, l.home), address: l.address, family: family}
	l.front.record(s.fates)
	r := newRecorder(l.home, rec.base)
	var ends []int
	for i, step := range s.steps {
		output := filepath.Join(t.TempDir(), fmt.Sprint("trace", i))
		args := straceArgs(output)
		if step.inject != "" {
			args = append(args, "-e", "inject="+step.inject)
		}
		l.run(step, append([]string{l.strace}, args...)...)
		text, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.trace(string(text)); err != nil {
			t.Fatal(err)
		}
		r.end()
		ends = append(ends, len(r.list))
	}
	if made := read(t, l.home); made.sum() != r.now.sum() {
		t.Fatalf("the trace leads to another disk than the commands left:\n%s\n%s", listed(r.now), listed(made))
	}
	rec.list, rec.now = r.list, time.Now().UTC()
	rec.exchanges, rec.ups = l.front.recorded()
	rec.place(t, ends)
	return rec
}

// listed are the names and sizes on a disk.
func listed(d *disk) string {
	var lines []string
	d.walk(func(path string, data []byte) { lines = append(lines, fmt.Sprintf("%s %d", path, len(data))) })
	return strings.Join(lines, "\n")
}

// place finds the exchanges among the operations.
func (rec *recording) place(t *testing.T, ends []int) {
	t.Helper()
	at := -1
	for i, o := range rec.list {
		switch o.kind {
		case asked:
			if at++; at == len(rec.exchanges) {
				t.Fatal("UPS was asked more often than it knows")
			}
			end, _ := slices.BinarySearch(ends, i+1)
			rec.exchanges[at].asked, rec.exchanges[at].end = i+1, ends[end]
		case answered:
			rec.exchanges[at].answered, rec.exchanges[at].sealed = i+1, sealed(rec.list, i+1)
		}
	}
	if at+1 != len(rec.exchanges) {
		t.Fatalf("UPS was asked %d times by the trace, and %d times by its own account", at+1, len(rec.exchanges))
	}
	for _, e := range rec.exchanges {
		if e.answered == 0 || e.granted() && e.sealed == 0 {
			t.Fatalf("an answer did not come, or was not sealed: %+v", e)
		}
	}
}

// sealed is how many operations have happened when an answer is durable that came
// behind some: the first file is synced that was written since. Where that file is
// new, it must have got its name, and that must be synced too. 0 is never.
func sealed(list []operation, answered int) int {
	written, made := map[node]bool{}, map[node]bool{}
	var answer *node     // the file that has it
	var named *operation // how that got its name, where it was made for it
	for i, o := range list[answered:] {
		done := answered + i + 1
		switch {
		case o.kind == create:
			made[o.node] = true
		case o.kind == write:
			written[o.node] = true
		case o.kind == syncAll && len(written) > 0:
			return done
		case o.kind == sync && answer == nil && written[o.node]:
			if !made[o.node] {
				return done
			}
			answer = &o.node
		case o.kind == rename && answer != nil && o.node == *answer:
			named = &o
		case o.kind == sync && named != nil && named.touches(o.node):
			return done
		}
	}
	return 0
}

// moments are what is possible when the power fails behind n operations: by how many
// requests have reached UPS, which the server's memories are numbered by.
func (rec *recording) moments(n int) map[int]moment {
	reached, begun := 0, 0
	for _, e := range rec.exchanges {
		if e.asked <= n {
			begun++
		}
		if e.answered <= n {
			reached++
		}
	}
	all := map[int]moment{}
	for ups := reached; ups <= begun; ups++ {
		m := moment{Companies: []string{company}, Known: rec.family, Base: rec.address, Now: rec.now}
		for k, e := range rec.exchanges {
			switch {
			case e.asked > n:
				begins := 0 // of its command
				if k > 0 && rec.exchanges[k-1].end < e.end {
					begins = rec.exchanges[k-1].end
				}
				m.Intending = m.Intending || e.endpoint == "refresh" && n > begins
			case k >= ups || !e.granted():
				m.Waiting = m.Waiting || e.endpoint == "refresh"
			case e.sealed <= n && e.endpoint == "token":
				m.Known, m.Maybe, m.Spent, m.Waiting = e.family, "", false, false
			case e.sealed <= n:
				m.Spent, m.Waiting = false, false
			case e.endpoint == "token":
				m.Maybe = e.family
			default:
				m.Spent, m.Waiting = true, true
			}
		}
		begins, done := 0, n == len(rec.list)
		for i, o := range rec.list[:len(rec.list)-1] {
			if o.kind == ended {
				begins = i + 1
			}
		}
		if rec.rename && n > begins {
			m.Companies = []string{company, renamed}
			if done {
				m.Companies = []string{renamed}
			}
		}
		if rec.restores && !done {
			m.Known, m.Maybe = "", rec.family
		}
		if rec.revoke && n > begins {
			m.Revoke = perhapsGone
			if done {
				m.Revoke = surelyGone
			}
		}
		all[ups] = m
	}
	return all
}

// user is somebody who runs commands.
type user struct{ env []string }

func newUser(t *testing.T, home string) user {
	t.Helper()
	browser, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := user{env: []string{"PATH=" + os.Getenv("PATH"), "BROWSER=" + browser, "POWERLOSS_PERSON=1"}}
	for name, value := range settings(home) {
		u.env = append(u.env, name+"="+value)
	}
	return u
}

// must runs a command that ends with an exit code.
func (u user) must(t *testing.T, command *exec.Cmd, code int) {
	t.Helper()
	command.Env = u.env
	// A file and no pipe: a pipe would also wait for the browser.
	file, err := os.CreateTemp(t.TempDir(), "output")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	command.Stdout, command.Stderr = file, file
	err = command.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) || command.ProcessState.ExitCode() != code {
		text, _ := os.ReadFile(file.Name())
		t.Fatalf("%v: %v, and exit code %d was expected\n%s", command.Args, err, code, text)
	}
}
