package powerloss

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	gokeyring "github.com/zalando/go-keyring"

	"github.com/upsauth/upsauth/internal/cli"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// moment is what a loss of power may and may not have done. It follows from the
// requests and the syncs before it, and from nothing that is on the disk.
type moment struct {
	// Companies are the names under which the grant may be found, one at a time.
	Companies []string `json:"companies"`
	// Known is the sign-in at UPS whose tokens were durable, empty for none.
	Known string `json:"known,omitempty"`
	// Maybe is a later sign-in that UPS has granted, and whose answer nothing durable
	// has to have.
	Maybe string `json:"maybe,omitempty"`
	// Spent says that UPS has granted a refresh whose answer nothing durable has to
	// have: the window that can't be avoided.
	Spent bool `json:"spent,omitempty"`
	// Waiting says that a refresh was asked for, and nobody here can know what became of it.
	Waiting bool `json:"waiting,omitempty"`
	// Intending says that a command ran that was going to ask, and may have noted so.
	Intending bool `json:"intending,omitempty"`
	// Revoke is how far a revoke has come.
	Revoke revoke `json:"revoke,omitempty"`
	// Base is the address of UPS, which is reached without a network.
	Base string `json:"base"`
	// Now is the time at which the power is back.
	Now time.Time `json:"now"`
}

type revoke int

const (
	notRevoked  revoke = iota
	perhapsGone        // the command was under way: the grant is whole or gone
	surelyGone         // the command had ended
)

const (
	// retryWait is how long the judged program waits before it sends a token again.
	retryWait = 10 * time.Minute
	// identityFile and the directories, below a user's home.
	identityFile = "identity.txt"
	configDir    = "config"
	stateDir     = "state"
	// other is a name that no company has had before.
	other = "Other Ltd"
)

// configuration is what a user's config.toml says.
func configuration(base string, wait time.Duration) string {
	return fmt.Sprintf("[refresh]\nretry_unknown_after = %q\n[environments.lab]\nbase_url = %q\n", wait.String(), base)
}

// settings are the environment variables of a command, for a user's home.
func settings(home string) map[string]string {
	return map[string]string{
		"HOME": home, "UPSAUTH_CONFIG_DIR": filepath.Join(home, configDir), "UPSAUTH_STATE_DIR": filepath.Join(home, stateDir),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(home, identityFile),
		"UPSAUTH_CLIENT_ID": "cid", "UPSAUTH_CLIENT_SECRET": "secret", "UPSAUTH_REDIRECT_URI": "http://localhost:0/cb",
	}
}

// files are the files of a directory without directories in it.
type files map[string][]byte

func (f files) write(tb testing.TB, dir string) {
	tb.Helper()
	for name, data := range f {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// judge lets the next commands run on one disk, and collects what they do wrong.
type judge struct {
	tb     testing.TB
	moment moment
	home   string
	now    time.Time
	late   bool // the access token has ended
	server *sandbox.Server
	told   []string // what the commands said, for who has to understand it
	wrong  []string
}

// fast is a directory for files that are read back at once: in memory where the system
// has such a place.
func fast(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "powerloss")
	if err != nil {
		dir, err = os.MkdirTemp("", "powerloss")
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// judged judges what the next commands make of a disk, beside a server that remembers
// what it did before the power failed. It returns what is wrong, and what was said.
func judged(tb testing.TB, dir string, d *disk, ups files, m moment) (wrong, told []string) {
	home, err := os.MkdirTemp(dir, "")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(home)
	d.inAnotherRun(tb).materialize(tb, home)
	if err := os.WriteFile(filepath.Join(home, configDir, "config.toml"), []byte(configuration(m.Base, retryWait)), 0o600); err != nil {
		tb.Fatal(err)
	}
	remembered, err := os.MkdirTemp(dir, "")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(remembered)
	ups.write(tb, remembered)
	j := &judge{tb: tb, moment: m, home: home, now: m.Now}
	j.server, err = sandbox.New(sandbox.Options{Dir: remembered, Strict: true, Now: func() time.Time { return j.now }})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if p := recover(); p != nil {
			j.complain("a command panics: %v\n%s", p, debug.Stack())
			wrong, told = j.wrong, j.told
		}
	}()
	j.judge(d.sum())
	return j.wrong, j.told
}

func (j *judge) complain(format string, args ...any) {
	j.wrong = append(j.wrong, fmt.Sprintf(format, args...))
}

// RoundTrip carries a request to the server.
func (j *judge) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.String(), j.moment.Base+"/") {
		return http.DefaultTransport.RoundTrip(r) // the person's browser, back at upsauth
	}
	served := r.Clone(r.Context())
	served.RequestURI, served.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:1"
	if served.Host == "" {
		served.Host = r.URL.Host
	}
	if served.Body == nil {
		served.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	j.server.ServeHTTP(w, served)
	response := w.Result()
	response.Request = r
	return response, nil
}

// noKeychain has nothing and takes nothing.
type noKeychain struct{}

func (noKeychain) Get(string, string) (string, error) { return "", gokeyring.ErrNotFound }
func (noKeychain) Set(string, string, string) error   { return errors.New("there is no keychain here") }
func (noKeychain) Delete(string, string) error        { return gokeyring.ErrNotFound }

// run runs a command and returns its exit code and standard output.
func (j *judge) run(args ...string) (code int, out string) {
	var stdout, stderr bytes.Buffer
	env := &cli.Env{
		In: strings.NewReader(""), Out: &stdout, Err: &stderr,
		Environ: func() []string { return nil },
		Now:     func() time.Time { return j.now }, Zone: time.UTC,
		Transport: j, Keychain: noKeychain{}, WorkFactor: 8,
		OpenBrowser: func(_ context.Context, address string, _ func(string, error)) error {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				_, _ = sandbox.Person{User: person, Password: "any", HTTP: j}.SignIn(ctx, address)
			}()
			return nil
		},
	}
	variables := settings(j.home)
	env.Getenv = func(name string) string { return variables[name] }
	code = cli.Run(context.Background(), env, args)
	shown := stdout.String()
	if args[0] == "token" && code == 0 {
		shown = "a token\n"
	}
	j.told = append(j.told, fmt.Sprintf("%s $ upsauth %s: exit code %d\n%s%s", j.now.UTC().Format("15:04:05"), strings.Join(args, " "), code, shown, stderr.String()))
	return code, stdout.String()
}

// must runs a command that may only end with one of some exit codes.
func (j *judge) must(codes []int, args ...string) (code int, out string) {
	code, out = j.run(args...)
	j.check(codes, code, args...)
	return code, out
}

func (j *judge) check(codes []int, code int, args ...string) {
	if !slices.Contains(codes, code) {
		j.complain("upsauth %s: exit code %d, not one of %v", strings.Join(args, " "), code, codes)
	}
}

// on runs a command about the company. A rename that was begun may be finished by any
// command, which then knows the company by its new name.
func (j *judge) on(company *string, codes []int, args ...string) (code int, out string) {
	if len(j.moment.Companies) > 1 {
		if code, out = j.run(append(args, "--company", *company)...); code != 3 {
			j.check(codes, code, args...)
			return code, out
		}
		before := *company
		if *company = j.company(); *company == before {
			j.complain("%v: no %s is known, and status shows it", args, before)
		}
	}
	return j.must(codes, append(args, "--company", *company)...)
}

// uses are what became of the codes and refresh tokens that were sent since f began.
func (j *judge) uses(f func()) []sandbox.Event {
	before := len(j.server.Refreshes())
	f()
	return j.server.Refreshes()[before:]
}

// lives reports whether UPS takes an access token.
func (j *judge) lives(token string) bool {
	r, err := http.NewRequest(http.MethodGet, j.moment.Base+"/api/track/v1/details/1Z", nil)
	if err != nil {
		j.tb.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	response, err := j.RoundTrip(r)
	return err == nil && response.StatusCode == http.StatusOK
}

// shownGrant is what status says of one.
type shownGrant struct {
	Company string  `json:"company"`
	State   string  `json:"state"`
	Key     *string `json:"token_vault_key"`
}

// status are the grants that status shows, those without one left out.
func (j *judge) status() []shownGrant {
	_, out := j.must([]int{0}, "status", "-o", "json")
	var list struct {
		Grants   []shownGrant      `json:"grants"`
		Problems []json.RawMessage `json:"problems"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		j.complain("status -o json: %v", err)
	}
	if len(list.Problems) > 0 {
		j.complain("status has problems: %s", list.Problems)
	}
	return slices.DeleteFunc(list.Grants, func(g shownGrant) bool { return g.State == "unauthorized" })
}

// company is the name under which the grant is found now.
func (j *judge) company() string {
	for _, g := range j.status() {
		if slices.Contains(j.moment.Companies, g.Company) {
			return g.Company
		}
	}
	return j.moment.Companies[0]
}

// looks are commands that only look, or do what is due. Whichever comes first finds
// the disk as the loss of power left it.
var looks = [][]string{{"status"}, {"doctor"}, {"vault", "check"}, {"refresh"}, {"vault", "status"}, {"company", "list"}}

// judge has the next commands come in one of many orders, by what is on the disk, so
// that the same disk is always judged in the same way.
func (j *judge) judge(sum string) {
	digits, err := hex.DecodeString(sum)
	if err != nil {
		j.tb.Fatal(err)
	}
	choice := func(i, of int) int { return int(digits[i]) % of }
	if choice(0, 4) == 0 {
		// The power is back only when the access token has ended and every wait is over.
		j.late = true
		j.now = j.now.Add(2 * time.Hour)
	}
	if look := choice(1, 2*len(looks)); look < len(looks) {
		// Which of them must not fail, the rest of the judgement shows; 2 is a wrong
		// command line.
		codes := []int{0, 1, 4, 5, 6}
		if j.moment.Known == "" || j.moment.Revoke != notRevoked {
			codes = append(codes, 3)
		}
		j.must(codes, looks[look]...)
		j.judgeWait(looks[look])
	}
	if j.moment.Revoke != notRevoked && !j.isWhole() {
		j.judgeGone(j.moment.Companies[0])
		return
	}
	company := j.company()
	found := j.moment.Known != "" || j.judgeUnknown(company)
	if !found {
		j.judgeLost(company)
		return
	}
	// Under two names, the old one may go while a command has it in its arguments.
	oneName := len(j.moment.Companies) == 1
	switch turn := choice(2, 8); {
	case j.moment.Known == "":
	case turn == 0:
		j.on(&company, []int{0}, "revoke", "--yes")
		j.judgeGone(company)
		return
	case turn == 1 && oneName:
		codes := []int{0}
		if j.moment.Waiting || j.moment.Intending {
			codes = []int{0, 6} // it may have to wait for what became of a refresh
		}
		if code, _ := j.must(codes, "company", "rename", company, other); code == 0 {
			company, j.moment.Companies = other, []string{other}
		}
	case turn == 2 && oneName:
		j.judgeLost(company)
		return
	}
	if j.judgeKnown(&company) {
		j.judgeAfterwards(company)
	} else {
		j.judgeLost(company)
	}
}

// judgeLost judges that a company can be authorized anew, which needs no grant and
// sends no token.
func (j *judge) judgeLost(company string) {
	if len(j.wrong) > 0 {
		return // what follows would only repeat it
	}
	uses := j.uses(func() { j.authorize(company) })
	if len(uses) != 1 || uses[0].Endpoint != "token" || uses[0].Outcome != sandbox.Committed {
		j.complain("authorize sent %+v", uses)
	}
	j.judgeAfterwards(company)
}

// authorize signs in, as a person must who has lost a grant.
func (j *judge) authorize(company string) {
	j.must([]int{0}, "authorize", "--company", company, "--env", "lab", "--yes")
}

// judgeUnknown judges a company whose first sign-in need not be on disk, and reports
// whether it is.
func (j *judge) judgeUnknown(company string) bool {
	var uses []sandbox.Event
	code := 0
	uses = j.uses(func() { code, _ = j.must([]int{0, 3, 4, 6}, "token", "--company", company) })
	if len(uses) > 0 && !j.late {
		j.complain("token sent something: %+v", uses)
	}
	if code == 0 && j.moment.Maybe == "" {
		j.complain("there is a token, and UPS has given none")
	}
	return code == 0
}

// judgeKnown judges a company whose grant is on disk, and reports whether it is still
// alive at the end: only a refresh that UPS granted without an answer on disk may end
// it, and only once the wait is over.
func (j *judge) judgeKnown(company *string) bool {
	if len(j.wrong) > 0 {
		return true
	}
	good := []string{"authorized", "refreshable", "expiring", "interrupted"}
	if j.late && j.moment.Spent {
		good = append(good, "void") // where the first look was a refresh
	}
	if grants := j.status(); len(grants) != 1 || !slices.Contains(good, grants[0].State) {
		j.complain("status shows %+v", grants)
	}
	if j.late {
		return j.judgeLate(company)
	}
	if code, token := j.on(company, []int{0}, "token"); code == 0 && !j.lives(token) {
		j.complain("UPS does not take the access token")
	}
	j.judgeWait("token")
	allowed := []int{0}
	if j.moment.Waiting || j.moment.Intending {
		allowed = []int{0, 6}
	}
	code := 0
	uses := j.uses(func() { code, _ = j.on(company, allowed, "refresh") })
	switch {
	case code == 0:
		j.judgeWait("refresh")
		j.judgeUses(uses, 1)
		return true
	case code == 6 && len(uses) > 0:
		j.complain("refresh sent the token before the wait was over: %+v", uses)
	case code != 6:
		return false
	}
	j.now = j.now.Add(retryWait + time.Minute)
	if allowed = []int{0}; j.moment.Spent {
		allowed = []int{0, 4}
	}
	uses = j.uses(func() { code, _ = j.on(company, allowed, "refresh") })
	if code == 0 {
		j.judgeUses(uses, 1)
	}
	return code == 0
}

// judgeLate judges a grant whose access token has ended, and whose refresh waits for
// nothing any more.
func (j *judge) judgeLate(company *string) bool {
	allowed := []int{0}
	if j.moment.Spent {
		allowed = []int{0, 4}
	}
	code, token := j.on(company, allowed, "token")
	if code != 0 {
		return false
	}
	if !j.lives(token) {
		j.complain("UPS does not take the access token")
	}
	j.judgeUses(j.server.Refreshes(), 1)
	return true
}

// judgeWait judges that nobody has sent a token again whose fate nobody can know. Where
// the answer that came was found, it is another token that was sent.
func (j *judge) judgeWait(command any) {
	for _, u := range j.server.Refreshes() {
		if !j.late && j.moment.Waiting && !j.moment.Spent && u.Family == j.moment.Known {
			j.complain("%v sent the token again before the wait was over: %+v", command, u)
		}
	}
}

// judgeUses judges what a command sent that has refreshed: the newest token that there
// is, once.
func (j *judge) judgeUses(uses []sandbox.Event, want int) {
	committed := 0
	for _, u := range uses {
		switch {
		case u.Outcome != sandbox.Committed:
			j.complain("UPS refused a token: %+v", u)
		case j.moment.Known == "" && j.moment.Maybe == "":
			committed++ // of a sign-in that followed
		case u.Family != j.moment.Known && u.Family != j.moment.Maybe:
			j.complain("the token of another sign-in was sent than of %s: %+v", j.moment.Known, u)
		default:
			committed++
		}
	}
	if committed != want {
		j.complain("%d tokens were sent instead of %d: %+v", committed, want, uses)
	}
}

// judgeAfterwards judges that all is well again.
func (j *judge) judgeAfterwards(company string) {
	if len(j.wrong) > 0 {
		return // what follows would only repeat it
	}
	j.moment.Known, j.moment.Maybe = "", "" // there may have been another sign-in
	j.now = j.now.Add(time.Minute)
	uses := j.uses(func() { j.on(&company, []int{0}, "refresh") })
	j.judgeUses(uses, 1)
	if code, token := j.on(&company, []int{0}, "token"); code == 0 && !j.lives(token) {
		j.complain("UPS does not take the access token that was refreshed")
	}
	if grants := j.status(); len(grants) != 1 || grants[0].State != "authorized" {
		j.complain("status shows %+v after all was refreshed", grants)
	}
	j.must([]int{0}, "vault", "check")
	j.must([]int{0, 1}, "doctor")
}

// isWhole reports whether a revoke has not begun, as far as commands can see.
func (j *judge) isWhole() bool {
	if j.moment.Revoke == surelyGone {
		return false
	}
	code, _ := j.must([]int{0, 3}, "token", "--company", j.moment.Companies[0])
	return code == 0
}

// judgeGone judges a grant that is revoked: it is gone for every command, and stays so.
func (j *judge) judgeGone(company string) {
	before := len(j.server.Refreshes())
	for range 2 {
		j.must([]int{3, 4}, "token", "--company", company)
		if grants := j.status(); len(grants) > 0 {
			j.complain("status shows %+v of a grant that was revoked", grants)
		}
		j.must([]int{3, 4}, "refresh", "--company", company)
		j.must([]int{0}, "refresh") // all that there are, and finishes what was begun
		j.must([]int{0, 1}, "doctor")
	}
	j.must([]int{0, 3}, "revoke", "--company", company, "--yes")
	j.must([]int{0}, "vault", "check")
	if uses := j.server.Refreshes()[before:]; len(uses) > 0 {
		j.complain("a token was sent that was revoked: %+v", uses)
	}
	j.authorize(company)
	j.judgeAfterwards(company)
}
