package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/upsauth/upsauth/internal/keyringtest"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// TestMain makes this test binary the programs that the scripts run: upsauth
// itself, as a process of its own, and the person at the browser.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"upsauth": func() { os.Exit(upsauth()) },
		"person":  func() { os.Exit(person()) },
		"paster":  func() { os.Exit(paster()) },
	})
}

// upsauth is Main, on a clock that TEST_CLOCK sets ahead, as in 2h, or the content
// of the file TEST_CLOCK_FILE, also while it runs, with the server at TEST_UPS in
// the place of UPS's own, and with the keychain in the directory TEST_KEYCHAIN.
func upsauth() int {
	var ahead time.Duration
	if text := os.Getenv("TEST_CLOCK"); text != "" {
		var err error
		if ahead, err = time.ParseDuration(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	env := SystemEnv()
	env.Now = func() time.Time { return time.Now().Add(ahead) }
	if path := os.Getenv("TEST_CLOCK_FILE"); path != "" {
		env.Now = func() time.Time {
			text, _ := os.ReadFile(path)
			ahead, err := time.ParseDuration(string(text))
			if err != nil {
				panic(err)
			}
			return time.Now().Add(ahead)
		}
		env.After = func(d time.Duration) <-chan time.Time { return time.After(min(d, 10*time.Millisecond)) }
	}
	if ring := ringFromEnvironment(); ring != nil {
		env.Keychain = ring
	}
	env.WorkFactor = 8 // nobody guesses the scripts' passphrases
	if base := os.Getenv("TEST_UPS"); base != "" {
		env.Transport = insteadOfUPS{base}
	}
	return runProcess(env)
}

// insteadOfUPS sends what is meant for UPS's production host to a sandbox.
type insteadOfUPS struct{ base string }

func (t insteadOfUPS) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if r.URL.Host == "onlinetools.ups.com" {
		r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(t.base, "http://")
		r.Host = ""
	}
	return http.DefaultTransport.RoundTrip(r)
}

// seen puts every page in a file as soon as it is there, for who waits for one.
type seen struct {
	next http.RoundTripper
	file string
}

func (t seen) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	response, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	page, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(page))
	return response, os.WriteFile(t.file, page, 0o600)
}

// tunnelled brings what is meant for one address to another, as a tunnel does
// whose far end is a public host name.
type tunnelled struct{ from, to string }

func (t tunnelled) RoundTrip(r *http.Request) (*http.Response, error) {
	if rest, ok := strings.CutPrefix(r.URL.String(), t.from); ok {
		host := r.URL.Host
		r = r.Clone(r.Context())
		var err error
		if r.URL, err = url.Parse(t.to + rest); err != nil {
			return nil, err
		}
		r.Host = host
	}
	return http.DefaultTransport.RoundTrip(r)
}

// person is what $BROWSER names in the scripts: it does at the address what
// PERSON_DOES says as the user PERSON, and keeps what the last page shows in
// the file PAGE, below what one showed that gave way to it by itself, or prints the address on which they would end.
func person() int {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	name := os.Getenv("PERSON")
	if name == "" {
		name = "jane@acme.example"
	}
	who := sandbox.Person{User: name, Password: "any"}
	if base := os.Getenv("TEST_UPS"); base != "" {
		who.HTTP = insteadOfUPS{base}
	}
	if from, to, ok := strings.Cut(os.Getenv("PERSON_TUNNEL"), "="); ok {
		who.HTTP = tunnelled{from, to}
	}
	if file := os.Getenv("SEEN"); file != "" {
		who.HTTP = seen{who.HTTP, file}
	}
	var page sandbox.Page
	var err error
	switch os.Getenv("PERSON_DOES") {
	case "", "sign in":
		page, err = who.SignIn(ctx, os.Args[1])
	case "decline":
		page, err = who.Decline(ctx, os.Args[1])
	case "callback":
		// Somebody at another machine, whose browser can't come back.
		address, err := who.Callback(ctx, os.Args[1])
		fmt.Println(address)
		if err != nil {
			fmt.Fprintln(os.Stderr, "person:", err)
			return 1
		}
		return 0
	case "nothing":
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "person:", err)
		return 1
	}
	if file := os.Getenv("PAGE"); file != "" {
		if err := os.WriteFile(file, []byte(page.Before+"\n"+page.Text+"\n"), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "person:", err)
			return 1
		}
	}
	return 0
}

// paster authorizes with the arguments that it is given, as somebody whose browser
// is on another machine: it pastes what is no answer first, and then the address
// that the person ends on, which it keeps in pasted.txt, and upsauth's words in
// err.txt.
func paster() int {
	upsauth := exec.Command("upsauth", append([]string{"authorize", "--no-browser"}, os.Args[1:]...)...)
	upsauth.Stdout = os.Stdout
	paste, err := upsauth.StdinPipe()
	if err != nil {
		panic(err)
	}
	says, err := upsauth.StderrPipe()
	if err != nil {
		panic(err)
	}
	if err := upsauth.Start(); err != nil {
		panic(err)
	}
	var heard strings.Builder
	address := ""
	for lines := bufio.NewScanner(io.TeeReader(says, &heard)); lines.Scan(); {
		if text := strings.TrimSpace(lines.Text()); strings.HasPrefix(text, "http") && strings.Contains(text, "oauth/authorize") {
			address = text
		}
		if address == "" || !strings.Contains(lines.Text(), "Or paste") {
			continue
		}
		fmt.Fprint(paste, "a-bare-code\n\nhttps://elsewhere.example/cb?code=x&state=y\n?code=x&state=from-an-earlier-login\n")
		who := exec.Command("person", address)
		who.Env, who.Stderr = append(os.Environ(), "PERSON_DOES=callback"), os.Stderr
		pasted, err := who.Output()
		if err != nil {
			panic(err)
		}
		if err := os.WriteFile("pasted.txt", pasted, 0o600); err != nil {
			panic(err)
		}
		_, _ = paste.Write(pasted)
	}
	_ = upsauth.Wait()
	if err := os.WriteFile("err.txt", []byte(heard.String()), 0o600); err != nil {
		panic(err)
	}
	return upsauth.ProcessState.ExitCode()
}

// TestScripts runs the scripts in testdata/script. Beside testscript's own
// commands they have:
//
//	exits CODE PROGRAM ARGS…   runs a program that must end with that exit code
//	interrupt TEXT CODE PROGRAM ARGS…  sends SIGINT, or $SIGNALS, once TEXT is on standard error; then as exits
//	immutable [-] PATTERN…     lets nobody change the files, or with - lets them again; skips the script where the disk can't
//	keyring                    starts a real gnome-keyring and uses it from here on
//	keyring items              lists the accounts of upsauth's items on stdout
//	keyring lock|unlock|pause|resume|stop|restart  does that with it
//	keyring add LABEL          adds another collection to it; login is there already
//	keyring move|copy FROM TO  puts upsauth's items into another collection
//	keyring lock|unlock|items LABEL  does that with one collection
//	lab [ID:SECRET:REDIRECT]…  starts a sandbox of its own, $LAB, with the environment lab in config.toml
//	fault JSON                 lets the lab fail
//	password USER              changes a user's password at the lab
//	refreshes                  lists what became of the lab's codes and refresh tokens on stdout
//	needs PROGRAM              skips the script where it is missing; on Linux in CI that is a failure
//	await URL [REGEXP]         waits until a server answers there, with that in its answer
//	clock SPAN                 sets the clock of all upsauths ahead, as in 2h, also of those that run
//	systemd                    listens where $NOTIFY_SOCKET says and keeps what it hears in notified.txt
//	appears COUNT TEXT FILE    waits until so many lines of the file have the regular expression in them
//	nobody CODE PROGRAM ARGS…  as exits, as the user nobody; needs root
//	certificate CERT KEY       makes a certificate of 127.0.0.1 and its key, new each time
//	postgres                   starts a database: $UPSAUTH_DATABASE_URL is the role upsauth's, $OWNER_URL its owner's
//	postgres stop|start        ends it, and starts it again
//	postgres sql TEXT          runs statements there as the superuser, and writes the rows on stdout
//	absent FILE DIR…           no file below the directories has the content of FILE in it
func TestScripts(t *testing.T) {
	params := scriptParams(filepath.Join("testdata", "script"))
	var without []string
	if testing.Short() {
		// What starts a keychain or needs a program, and what says that it takes long.
		without = append(without, `(needs|keyring|systemd|nobody|postgres|\[session-bus\]|# Takes long)`)
	}
	if _, err := exec.LookPath("sh"); err != nil {
		without = append(without, `(exec|exits [0-9]+) sh\b`)
	}
	if len(without) > 0 {
		params.Dir, params.Files = "", scriptsWithout(t, params.Dir, "(?m)^("+strings.Join(without, "|")+")")
	}
	testscript.Run(t, params)
}

// scriptsWithout lists the scripts in a directory that have no line as the expression
// says.
func scriptsWithout(t *testing.T, dir, expression string) []string {
	scripts, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(expression)
	return slices.DeleteFunc(scripts, func(script string) bool {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		return line.Match(text)
	})
}

func scriptParams(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Condition: func(name string) (bool, error) {
			switch name {
			case "session-bus":
				// One that is found without any variable.
				_, err := os.Stat(filepath.Join("/run/user", strconv.Itoa(os.Getuid()), "bus"))
				return err == nil, nil
			case "root":
				return os.Geteuid() == 0, nil
			case "ipv6":
			default:
				return false, fmt.Errorf("there is no condition %q", name)
			}
			l, err := net.Listen("tcp6", "[::1]:0")
			if err != nil {
				return false, nil //nolint:nilerr // that is the answer
			}
			return true, l.Close()
		},
		Setup: func(e *testscript.Env) error {
			e.Values[worldKey{}] = &world{tb: e.T().(testing.TB)}
			// Nothing of the user's own may be read or written, and no
			// keychain be found unless a script starts one.
			e.Vars = append(e.Vars,
				"HOME="+e.WorkDir,
				"USERPROFILE="+e.WorkDir,
				"UPSAUTH_CONFIG_DIR="+filepath.Join(e.WorkDir, "config"),
				"UPSAUTH_STATE_DIR="+filepath.Join(e.WorkDir, "state"),
				"UPSAUTH_VAULT=file",
				"UPSAUTH_IDENTITY="+filepath.Join(e.WorkDir, "identity.txt"),
				"DBUS_SESSION_BUS_ADDRESS=unix:path="+filepath.Join(e.WorkDir, "no-bus"),
				"BROWSER=person",
				"PAGE="+filepath.Join(e.WorkDir, "page.txt"),
				"TZ=UTC",
				// The race detector lets every process rest for a second at its
				// end; the scripts start hundreds.
				"GORACE=atexit_sleep_ms=0",
			)
			check, err := filepath.Abs(filepath.Join("..", "..", "docs", "examples", "nagios", "check_upsauth"))
			if err != nil {
				return err
			}
			e.Setenv("CHECK", check)
			identity, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "identity.txt"), []byte(identity.String()+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"interrupt": interrupt,
			"immutable": immutable,
			"keyring":   keyring,
			"lab":       lab,
			"fault":     fault,
			"password":  password,
			"refreshes": refreshes,
			"needs":     needs,
			"await":     await,
			"clock":     clock,
			"systemd":   systemd,
			"appears":   appears,
			"absent":    absent,
			"postgres":  realDatabase,

			"certificate": certificate,
			"nobody":      nobody,
		},
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%s can't be run: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit code %d instead of %d", got, want)
	}
}

// nobody runs a program as another user, who may come by the directories that this
// process's temporary files are in.
func nobody(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: nobody CODE PROGRAM ARGS…")
	}
	tb := worldOf(ts).tb
	if os.Getuid() != 0 {
		realpart.Missing(tb, errors.New("only root becomes another user"))
	}
	setpriv := realpart.Program(tb, "setpriv", "util-linux")
	program, err := exec.LookPath(args[1])
	ts.Check(err)
	for _, path := range []string{program, ts.MkAbs(".")} {
		for dir := filepath.Dir(path); dir != filepath.Dir(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err == nil && info.Mode()&0o011 != 0o011 {
				ts.Check(os.Chmod(dir, info.Mode()|0o055))
			}
		}
	}
	exits(ts, false, append([]string{args[0], setpriv, "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", program}, args[2:]...))
}

// interruptScript starts a program in the background of a shell, which makes it
// ignore SIGINT unless it asks for it, as upsauth does.
const interruptScript = `text=$1; shift
signals=${SIGNALS-INT HUP INT}
: >interrupted.txt
"$@" 2>interrupted.txt & pid=$!
until grep -q "$text" interrupted.txt; do kill -0 $pid || break; sleep 0.01; done
for s in $signals; do kill -$s $pid 2>/dev/null; done
wait $pid; code=$?
cat interrupted.txt >&2
exit $code`

func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: interrupt TEXT CODE PROGRAM ARGS…")
	}
	shell := []string{args[1], "sh", "-c", interruptScript, "sh", args[0]}
	exits(ts, false, append(shell, args[2:]...))
}

// world is what one script has started.
type world struct {
	tb      testing.TB
	keyring *keyringtest.Keyring
	lab     *sandbox.Server
	// database is a server of this script's own.
	database *postgrestest.Server
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func keyring(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch {
	case !neg && len(args) == 0:
		w.keyring = keyringtest.Start(w.tb)
		for _, entry := range w.keyring.Env() {
			if name, value, _ := strings.Cut(entry, "="); name != "HOME" {
				ts.Setenv(name, value)
			}
		}
		ts.Setenv("UPSAUTH_VAULT", "keychain")
	case !neg && len(args) == 1 && args[0] == "items" && w.keyring != nil:
		items, err := w.keyring.Items("upsauth")
		ts.Check(err)
		fmt.Fprintf(ts.Stdout(), "%d items\n", len(items))
		for _, item := range items {
			fmt.Fprintln(ts.Stdout(), item)
		}
	case !neg && len(args) == 2 && args[0] == "items" && w.keyring != nil:
		items, err := w.keyring.ItemsIn("upsauth", args[1])
		ts.Check(err)
		fmt.Fprintf(ts.Stdout(), "%d items\n", len(items))
	case !neg && len(args) == 2 && w.keyring != nil:
		do := map[string]func(string) error{
			"add": w.keyring.AddCollection, "lock": w.keyring.LockCollection, "unlock": w.keyring.UnlockCollection,
		}[args[0]]
		if do == nil {
			ts.Fatalf("keyring can't %s a collection", args[0])
		}
		ts.Check(do(args[1]))
	case !neg && len(args) == 3 && args[0] == "move" && w.keyring != nil:
		ts.Check(w.keyring.Move("upsauth", args[1], args[2]))
	case !neg && len(args) == 3 && args[0] == "copy" && w.keyring != nil:
		ts.Check(w.keyring.Copy("upsauth", args[1], args[2]))
	case !neg && len(args) == 1 && w.keyring != nil:
		do := map[string]func() error{
			"lock": w.keyring.Lock, "unlock": w.keyring.Unlock, "pause": w.keyring.Pause, "resume": w.keyring.Resume,
			"stop": w.keyring.Stop, "restart": w.keyring.Restart,
		}[args[0]]
		if do == nil {
			ts.Fatalf("keyring can't %s", args[0])
		}
		ts.Check(do())
	default:
		ts.Fatalf("usage: keyring, then keyring items or keyring lock")
	}
}

// database is the name of the scripts' database.
const database = "shop"

func realDatabase(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch {
	case !neg && (len(args) == 0 || len(args) == 1 && args[0] == "tls") && w.database == nil:
		w.database = postgrestest.Start(w.tb, postgrestest.Options{Hasty: true, TLS: len(args) == 1})
		for _, statement := range []string{
			"CREATE ROLE owner LOGIN PASSWORD 'owner-password'", "CREATE ROLE upsauth LOGIN PASSWORD 'upsauth-password'", "CREATE DATABASE " + database + " OWNER owner",
		} {
			_, err := w.database.SQL("postgres", statement)
			ts.Check(err)
		}
		ts.Setenv("OWNER_URL", w.database.URL("owner", "owner-password", database))
		ts.Setenv("UPSAUTH_DATABASE_URL", w.database.URL("upsauth", "upsauth-password", database))
		ts.Setenv("DATABASE_HOST", w.database.Host())
		ts.Setenv("DATABASE_PORT", strconv.Itoa(w.database.Port()))
		ts.Setenv("DATABASE_CA", w.database.CA())
	case !neg && len(args) == 1 && args[0] == "stop" && w.database != nil:
		ts.Check(w.database.Stop())
	case !neg && len(args) == 1 && args[0] == "start" && w.database != nil:
		ts.Check(w.database.Restart())
	case !neg && len(args) == 2 && args[0] == "sql" && w.database != nil:
		rows, err := w.database.SQL(database, args[1])
		ts.Check(err)
		for _, row := range rows {
			fmt.Fprintln(ts.Stdout(), strings.Join(row, " "))
		}
	default:
		ts.Fatalf("usage: postgres [tls], then postgres stop, postgres start or postgres sql TEXT")
	}
}

func lab(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if neg || w.lab != nil {
		ts.Fatalf("usage: lab [ID:SECRET:REDIRECT_URI]…, once")
	}
	var options sandbox.Options
	for _, text := range args {
		client, err := sandbox.ParseClient(text)
		ts.Check(err)
		options.Clients = append(options.Clients, client)
	}
	var err error
	w.lab, err = sandbox.New(options)
	ts.Check(err)
	server := httptest.NewServer(w.lab)
	ts.Defer(server.Close)
	ts.Setenv("LAB", server.URL)
	ts.Check(os.MkdirAll(ts.MkAbs("config"), 0o700))
	text := fmt.Sprintf("[refresh]\nretry_unknown_after = \"0s\"\n[environments.lab]\nbase_url = %q\n", server.URL)
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs("config"), "config.toml"), []byte(text), 0o600))
}

func fault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fault JSON")
	}
	f, err := sandbox.ParseFault(args[0])
	ts.Check(err)
	ts.Check(worldOf(ts).lab.AddFault(f))
}

func password(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: password USER")
	}
	ts.Check(worldOf(ts).lab.ChangePassword(args[0]))
}

func refreshes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: refreshes")
	}
	events := worldOf(ts).lab.Refreshes()
	fmt.Fprintf(ts.Stdout(), "%d events\n", len(events))
	for _, event := range events {
		fmt.Fprintf(ts.Stdout(), "%s %s\n", event.Endpoint, event.Outcome)
	}
}

func needs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: needs PROGRAM")
	}
	realpart.Program(worldOf(ts).tb, args[0], "the package that has "+args[0])
}

func immutable(ts *testscript.TestScript, neg bool, args []string) {
	change := "+i"
	if len(args) > 0 && args[0] == "-" {
		change, args = "-i", args[1:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: immutable [-] PATTERN…")
	}
	var paths []string
	for _, arg := range args {
		found, err := filepath.Glob(ts.MkAbs(arg))
		ts.Check(err)
		if len(found) == 0 {
			ts.Fatalf("there is no %s", arg)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		if out, err := exec.Command("chattr", change, path).CombinedOutput(); err != nil {
			worldOf(ts).tb.Skipf("no file can be made immutable here: %s", out)
		}
		ts.Defer(func() { _ = exec.Command("chattr", "-i", path).Run() })
	}
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: await URL [REGEXP]")
	}
	wanted := regexp.MustCompile(strings.Join(args[1:], ""))
	var last string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(args[0])
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		last = string(body)
		if err == nil && wanted.Match(body) {
			return
		}
	}
	ts.Fatalf("waited in vain: %s", last)
}

func clock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: clock SPAN")
	}
	path := ts.MkAbs("clock.txt")
	ts.Setenv("TEST_CLOCK_FILE", path)
	ts.Check(os.WriteFile(path+".new", []byte(args[0]), 0o600))
	ts.Check(os.Rename(path+".new", path))
}

func systemd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: systemd")
	}
	// The path of a socket must be short.
	dir, err := os.MkdirTemp("", "")
	ts.Check(err)
	address := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	ts.Check(err)
	heard, err := os.Create(ts.MkAbs("notified.txt"))
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for message := make([]byte, 4096); ; {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			fmt.Fprintf(heard, "%s\n", message[:n])
		}
	}()
	ts.Defer(func() {
		socket.Close()
		<-done
		heard.Close()
		os.RemoveAll(dir)
	})
	ts.Setenv("NOTIFY_SOCKET", address)
}

func appears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: appears COUNT TEXT FILE")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	text, err := regexp.Compile("(?m)^.*(?:" + args[1] + ").*$")
	ts.Check(err)
	path := ts.MkAbs(args[2])
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		content, _ := os.ReadFile(path)
		if len(text.FindAll(content, -1)) == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q does not appear %d times in %s:\n%s", args[1], want, args[2], content)
		}
	}
}

func certificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: certificate CERT KEY")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "a test of upsauth"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: private}} {
		path := ts.MkAbs(args[i])
		ts.Check(os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600))
		ts.Check(os.Rename(path+".new", path))
	}
}

func absent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: absent FILE DIR…")
	}
	secret := strings.TrimSpace(ts.ReadFile(args[0]))
	if len(secret) < 8 {
		ts.Fatalf("%s has nothing worth looking for", args[0])
	}
	looked := 0
	for _, dir := range args[1:] {
		ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			looked++
			if bytes.Contains(data, []byte(secret)) {
				return fmt.Errorf("%s has the content of %s in it", path, args[0])
			}
			return nil
		}))
	}
	if looked == 0 {
		ts.Fatalf("there is no file to look into")
	}
}
