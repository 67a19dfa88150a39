//go:build !windows

package soak

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keyringtest"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// storm kills one command over and over, and looks after each kill and after
// what the documents name for it what is left behind.
type storm struct {
	name string
	args []string
	// stdin is what the command reads.
	stdin string
	// prepare makes ready what the command works on, before each kill.
	prepare func(*place)
	// companies are the names that may be listed afterwards, in each line those of
	// one outcome.
	companies [][]string
	// applications are those that may be registered afterwards.
	applications []string
	// files are what else may lie in the home directory.
	files []string
	slow  bool // a passphrase is reckoned with in each command
	// forever says that the command never ends by itself.
	forever bool
}

// the signals that end a process, of which each storm sends some in place of
// SIGKILL: whoever handles one has its own way to leave something behind.
var endings = []syscall.Signal{
	syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP,
	syscall.SIGABRT, syscall.SIGALRM, syscall.SIGXCPU, syscall.SIGPIPE,
}

const other = "Zeta Ltd"

func (p *place) home() string { return filepath.Dir(p.state) }

func storms() []storm {
	authorized := func(p *place) { p.ensure(company) }
	one := [][]string{{company}}
	return []storm{
		{name: "authorize, the first", args: []string{"authorize", "--company", company, "--env", "lab", "--yes"},
			prepare: func(p *place) { p.forget(company) }, companies: [][]string{{}, {company}}},
		{name: "authorize again", args: []string{"authorize", "--company", company, "--env", "lab", "--yes"}, prepare: authorized, companies: one},
		{name: "refresh", args: []string{"refresh", "--company", company}, prepare: authorized, companies: one},
		{name: "revoke", args: []string{"revoke", "--company", company, "--yes"}, prepare: authorized, companies: one},
		{name: "company remove", args: []string{"company", "remove", company, "--revoke", "--yes"},
			prepare: func(p *place) { p.must("company", "add", company); p.ensure(company) }, companies: [][]string{{}, {company}}},
		{name: "company rename", args: []string{"company", "rename", company, other},
			prepare:   func(p *place) { p.forget(other); p.must("company", "add", company); p.ensure(company) },
			companies: [][]string{{company}, {other}}},
		{name: "vault export", args: []string{"vault", "export", "-R", "recipient.txt", "-o", "backup.age", "--force"}, prepare: authorized, companies: one,
			files: []string{"backup.age"}},
		{name: "vault import", args: []string{"vault", "import", "export.age", "--yes"},
			prepare:   func(p *place) { p.exported(); p.forget(company); p.unregister("mine") },
			companies: [][]string{{}, {company}}, applications: []string{"mine"}, files: []string{"export.age"}},
		{name: "app add", args: []string{"app", "add", "mine", "--env", "lab", "--client-id", "cid", "--redirect-uri", "http://localhost:0/", "--client-secret-stdin"},
			stdin: "a secret\n", prepare: func(p *place) { p.unregister("mine") }, applications: []string{"mine"}},
		{name: "app add, replacing", args: []string{"app", "add", "mine", "--env", "lab", "--client-id", "cid2", "--redirect-uri", "http://localhost:0/", "--client-secret-stdin"},
			stdin: "another secret\n", prepare: func(p *place) { p.register("mine") }, applications: []string{"mine"}},
		{name: "app set-secret", args: []string{"app", "set-secret", "mine", "--env", "lab", "--client-secret-stdin"},
			stdin: "a new secret\n", prepare: func(p *place) { p.register("mine") }, applications: []string{"mine"}},
		{name: "app remove", args: []string{"app", "remove", "mine", "--env", "lab", "--yes"},
			prepare: func(p *place) { p.register("mine") }, applications: []string{"mine"}},
		{name: "vault check --repair", args: []string{"vault", "check", "--repair", "--yes"}, prepare: func(p *place) { p.ensure(company); p.damage() }, companies: one},
		{name: "doctor", args: []string{"doctor"}, prepare: authorized, companies: one},
		{name: "refresh --every", args: []string{"refresh", "--every", "1m", "--force", "--prometheus-file", "upsauth.prom"}, prepare: authorized, companies: one,
			files: []string{"upsauth.prom"}, forever: true},
		{name: "vault passphrase", args: []string{"vault", "passphrase", "--new-passphrase-stdin"}, stdin: "the passphrase\n", prepare: authorized, companies: one, slow: true},
	}
}

// ensure authorizes a company that has no grant.
func (p *place) ensure(company string) {
	p.t.Helper()
	if _, err := p.vault.Record(p.t.Context(), id(company)); err != nil {
		p.authorize(company)
	}
}

func (p *place) forget(companies ...string) {
	p.t.Helper()
	for _, company := range companies {
		if code, out := p.run("company", "remove", company, "--revoke", "--yes"); code != 0 && code != 3 {
			p.t.Fatalf("%s can't be removed: exit code %d\n%s", company, code, out)
		}
	}
}

func (p *place) register(name string) {
	p.t.Helper()
	if code, out := p.feed("the first secret\n", "app", "add", name, "--env", "lab", "--client-id", "cid", "--redirect-uri", "http://localhost:0/", "--client-secret-stdin"); code != 0 {
		p.t.Fatalf("exit code %d\n%s", code, out)
	}
}

func (p *place) unregister(name string) {
	p.t.Helper()
	if code, out := p.run("app", "remove", name, "--env", "lab", "--yes"); code != 0 && code != 3 {
		p.t.Fatalf("exit code %d\n%s", code, out)
	}
}

// exported makes export.age, once: a company and an application.
func (p *place) exported() {
	p.t.Helper()
	if _, err := os.Stat(filepath.Join(p.home(), "export.age")); err == nil {
		return
	}
	p.ensure(company)
	p.register("mine")
	p.must("vault", "export", "-R", "recipient.txt", "-o", "export.age")
}

// damage takes from the company its record and the key of its journals, so that
// there is something to repair.
func (p *place) damage() {
	p.t.Helper()
	record, err := p.vault.Record(p.t.Context(), id(company))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, path := range []string{
		filepath.Join(p.state, "records", id(company).Slot()+".json"),
		filepath.Join(p.state, "vault", "journal", record.TokenVaultKey+".age"),
	} {
		if err := os.Remove(path); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *place) feed(stdin string, args ...string) (int, string) {
	p.t.Helper()
	command := p.command(args...)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.CombinedOutput()
	if command.ProcessState == nil {
		p.t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), string(out)
}

// leavingsPlace is a place for storms: commands run in its home directory, and a
// recipient lies there.
func leavingsPlace(t *testing.T) *place {
	t.Helper()
	p := newPlace(t, sandbox.Options{Strict: true})
	text, err := os.ReadFile(filepath.Join(p.home(), "identity.txt"))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.home(), "recipient.txt"), identity.Recipient().String()+"\n")
	p.dir = p.home()
	return p
}

// byPassphrase has the file vault opened by a passphrase.
func (p *place) byPassphrase() {
	p.env = slices.DeleteFunc(p.env, func(entry string) bool { return strings.HasPrefix(entry, "UPSAUTH_IDENTITY=") })
	p.env = append(p.env, "UPSAUTH_PASSPHRASE=the passphrase")
	home := agefile.New(filepath.Join(p.state, "vault"), "")
	p.vault = vault.New(files.New(p.state, vault.Homes{home}))
}

// cut starts a command and ends it by a signal after a delay. It reports whether
// it was still running then.
func (p *place) cut(s storm, after time.Duration, signal syscall.Signal) bool {
	p.t.Helper()
	command := p.command(s.args...)
	command.Stdin = strings.NewReader(s.stdin)
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(after); time.Now().Before(end); {
		if time.Until(end) > 2*time.Millisecond {
			time.Sleep(time.Millisecond)
		}
	}
	_ = command.Process.Signal(signal)
	// A process that a signal does not end, or not yet, is killed in its turn.
	giveUp := time.AfterFunc(10*time.Second, func() { _ = command.Process.Kill() })
	_ = command.Wait()
	giveUp.Stop()
	return command.ProcessState.ExitCode() != 0
}

// sabotaged runs a command that strace kills at the n-th call of a thread that
// changes a file. It reports whether it came to that.
func (p *place) sabotaged(s storm, n int) bool {
	p.t.Helper()
	const calls = "openat,renameat,unlinkat,mkdirat,fsync,pwrite64,fallocate,ftruncate,flock,fchmod"
	command := p.command()
	command.Args = append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + calls,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", calls, n), command.Path}, s.args...)
	path, err := exec.LookPath("strace")
	if err != nil {
		p.t.Fatal(err)
	}
	command.Path = path
	command.Stdin = strings.NewReader(s.stdin)
	var giveUp *time.Timer
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	limit := 30 * time.Second
	if s.forever {
		limit = 2 * time.Second
	}
	giveUp = time.AfterFunc(limit, func() { _ = command.Process.Signal(syscall.SIGTERM) })
	_ = command.Wait()
	giveUp.Stop()
	return command.ProcessState.ExitCode() != 0
}

// settle does what the documents say after a command that was cut off.
func (p *place) settle(s storm) string {
	p.t.Helper()
	if s.forever {
		// Another service, which is told to end.
		p.cut(s, 2*time.Second, syscall.SIGTERM)
	}
	// A refresh whose fate is unknown is settled by the next.
	for _, name := range []string{company, other} {
		if p.unknown(name) {
			if code, _ := p.run("refresh", "--company", name); code == 4 {
				p.authorize(name)
			}
		}
	}
	_, out := p.run("doctor")
	_, repaired := p.run("vault", "check", "--repair", "--yes")
	return out + repaired
}

// leavings compares everything in the state, configuration and home directory,
// and in a keyring where there is one, with what should be there.
func (p *place) leavings(s storm, keyring *keyringtest.Keyring) (left []string) {
	p.t.Helper()
	wrong := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	want := map[string]bool{
		"identity.txt": true, "recipient.txt": true, "config/config.toml": true, "config/applications.toml": true,
		"config/applications.lock": true, "state/companies/.lock": true, "state/vault/.identity.lock": true,
		"state/vault/identity.age": true, "state/journals/.boot": true, "state/journals/.reserve": true,
	}
	for _, file := range s.files {
		want[file] = true
	}
	accounts := map[string]map[string]bool{"file": {}, "keychain": {}}
	records, problems, err := p.vault.List(p.t.Context(), "")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, problem := range problems {
		wrong("a problem: %v", problem)
	}
	slots := map[string]bool{}
	for _, r := range records {
		slots[r.Slot()] = true
		want["state/records/"+r.Slot()+".json"] = true
		want["state/journals/slots/"+r.TokenVaultKey] = true
		accounts[r.Home][r.TokenVaultKey] = true
		accounts[r.Home][r.TokenVaultKey+"/journal"] = true
		if len(r.Superseded) > 0 || r.Was != "" || r.Interrupted {
			wrong("the record of %s is unfinished", r.ID)
		}
	}
	_, out := p.run("app", "list", "-o", "json")
	var list struct {
		Applications []struct {
			Name, Environment, Vault string
		}
	}
	if start := strings.Index(out, "{"); start >= 0 {
		_ = json.NewDecoder(strings.NewReader(out[start:])).Decode(&list)
	}
	for _, a := range list.Applications {
		if !slices.Contains(s.applications, a.Name) {
			wrong("the application %s", a.Name)
		}
		accounts[a.Vault]["app/"+a.Environment+"/"+a.Name] = true
	}
	for account := range accounts["file"] {
		want[fileOf(account)] = true
	}
	names := p.listed()
	if s.companies != nil && !slices.ContainsFunc(s.companies, func(some []string) bool { return slices.Equal(some, names) }) {
		wrong("the companies %q", names)
	}
	for _, name := range names {
		want["state/companies/"+grant.CompanySlot(name)+".json"] = true
		want["state/companies/"+grant.CompanySlot(name)+".log"] = true
	}
	err = filepath.WalkDir(p.home(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(p.home(), path)
		switch {
		case entry.IsDir() && strings.HasPrefix(name, "state/vault/") && empty(path):
			wrong("the empty directory %s", name)
		case entry.IsDir() || want[name]:
			delete(want, name)
		case strings.HasPrefix(name, "state/locks/") && strings.HasSuffix(name, ".lock"):
		default:
			wrong("%s", name)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	for account := range accounts["file"] {
		if want[fileOf(account)] {
			wrong("%s is missing", account)
		}
	}
	if keyring == nil {
		return left
	}
	items, err := keyring.Items("upsauth")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, item := range items {
		if !accounts["keychain"][item] {
			wrong("the keychain's %s", item)
		}
		delete(accounts["keychain"], item)
	}
	for account := range accounts["keychain"] {
		wrong("%s is missing in the keychain", account)
	}
	return left
}

// canTrace reports whether strace is there and may trace.
func canTrace(tb testing.TB) bool {
	if runtime.GOOS != "linux" {
		return false
	}
	if _, err := exec.LookPath("strace"); err != nil && os.Getenv("CI") != "" {
		realpart.Program(tb, "strace", "strace")
	}
	return exec.Command("strace", "-f", "-o", "/dev/null", upsauth, "version").Run() == nil
}

// fileOf is the file of an account in the home of files.
func fileOf(account string) string {
	if key, kind, ok := strings.Cut(account, "/"); ok && key != "app" {
		account = kind + "/" + key
	}
	return "state/vault/" + account + ".age"
}

func empty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

// listed are the companies that company list shows, and status as not
// authorized.
func (p *place) listed() []string {
	p.t.Helper()
	_, out := p.run("company", "list", "-o", "json")
	var list struct{ Companies []struct{ Company string } }
	if start := strings.Index(out, "{"); start >= 0 {
		if err := json.NewDecoder(strings.NewReader(out[start:])).Decode(&list); err != nil {
			p.t.Fatalf("%v\n%s", err, out)
		}
	}
	names := []string{}
	for _, c := range list.Companies {
		names = append(names, c.Company)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// kind is what a leaving is, without what differs from one to the next.
func kind(left string) string {
	var text bytes.Buffer
	for word := range strings.FieldsFuncSeq(left, func(r rune) bool { return r == '/' || r == '.' || r == '-' }) {
		if _, err := strconv.ParseUint(word, 16, 64); err == nil || len(word) > 15 {
			word = "…"
		}
		text.WriteString(word + " ")
	}
	return strings.TrimSpace(text.String())
}

// TestNothingIsLeftBehind cuts off every command that writes, at random instants,
// by SIGKILL and by what else ends a process, and where strace is there also
// right before each call that changes a file. After that the next command,
// doctor and vault check --repair have to leave nothing that should not be
// there: no temporary file, no probe, no secret without its company or
// application, no journal, no company in halves.
func TestNothingIsLeftBehind(t *testing.T) {
	for _, s := range storms() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			p := leavingsPlace(t)
			if s.slow {
				p.byPassphrase()
			}
			p.weather(s, nil)
		})
	}
}

// TestNothingIsLeftInAKeychain does the same with moves from a keychain and to it.
func TestNothingIsLeftInAKeychain(t *testing.T) {
	k := keyringtest.Start(t)
	for _, to := range []string{"keychain", "file"} {
		t.Run("to "+to, func(t *testing.T) {
			p := leavingsPlace(t)
			p.env = append(p.env, k.Env()...)
			from := map[string]string{"keychain": "file", "file": "keychain"}[to]
			p.weather(storm{name: "vault move to " + to, args: []string{"vault", "move", "--to", to},
				prepare: func(p *place) {
					p.ensure(company)
					p.register("mine")
					p.must("vault", "move", "--to", from)
				}, companies: [][]string{{company}}, applications: []string{"mine"}}, k)
			p.forget(company)
			p.unregister("mine")
		})
	}
}

func (p *place) weather(s storm, keyring *keyringtest.Keyring) {
	p.t.Helper()
	spread := 300 * time.Millisecond
	for n := 0; n < 3 && !s.forever; n++ {
		s.prepare(p)
		start := time.Now()
		if code, out := p.feed(s.stdin, s.args...); code != 0 {
			p.t.Fatalf("exit code %d\n%s", code, out)
		}
		spread = min(spread, time.Since(start)*11/10)
		if n == 0 {
			spread = time.Since(start) * 11 / 10
		}
	}
	kills := 3 // with the other tests
	if *rounds > 25 {
		kills = *rounds
	}
	if s.slow {
		kills = max(2, kills/10)
	}
	straced := canTrace(p.t)
	var cut, ended, withLeft int
	kinds := map[string]int{}
	for n := 1; cut < kills && ended < 4*kills; n++ {
		s.prepare(p)
		var running bool
		var how string
		switch {
		case straced && n%2 == 0:
			at := 1 + rand.N(60)
			how = fmt.Sprintf("before call %d", at)
			running = p.sabotaged(s, at)
		case n%5 == 0:
			signal := endings[rand.N(len(endings))]
			how = signal.String()
			running = p.cut(s, rand.N(spread), signal)
		default:
			how = "killed"
			running = p.cut(s, rand.N(spread), syscall.SIGKILL)
		}
		if !running {
			ended++
		} else {
			cut++
		}
		told := p.settle(s)
		left := p.leavings(s, keyring)
		if len(left) == 0 {
			continue
		}
		withLeft++
		for _, l := range left {
			kinds[kind(l)]++
		}
		p.t.Errorf("after no. %d (%s): %q\n%s", n, how, left, told)
		p.sweep(left)
	}
	p.t.Logf("\n%-24s %d cut off, %d ended, %d times something was left: %v", s.name, cut, ended, withLeft, kinds)
}

// sweep removes what was found, so that it counts once.
func (p *place) sweep(left []string) {
	for _, name := range left {
		_ = os.Remove(filepath.Join(p.home(), strings.TrimPrefix(name, "the empty directory ")))
	}
}
