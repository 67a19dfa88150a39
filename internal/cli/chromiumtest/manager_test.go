package chromiumtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/checkup"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/serve/door"
	"github.com/upsauth/upsauth/internal/serve/manager"
	"github.com/upsauth/upsauth/internal/serve/signins"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// office is the company manager behind its door.
type office struct {
	*session.Session
	t     *testing.T
	door  *door.Door
	host  string // localhost:PORT, as browsers know it
	views map[string]signins.View
	id    grant.ID // of the sign-ins

	mu      sync.Mutex
	origins []string // of the forms that came
}

// Begin, Get and what follows make it a room of sign-ins that are just as they are shown.
func (o *office) Begin(_ context.Context, r manager.Request) (manager.SignIn, error) {
	o.id = r.ID
	return still{o, "waiting"}, nil
}

func (o *office) Get(handle string) (manager.SignIn, bool) {
	_, ok := o.views[handle]
	return still{o, handle}, ok
}

type still struct {
	o      *office
	handle string
}

func (s still) Handle() string     { return s.handle }
func (s still) ID() grant.ID       { return s.o.id }
func (s still) View() signins.View { return s.o.views[s.handle] }
func (s still) Paste(context.Context, string) error {
	return errors.New("the address is not that of this sign-in")
}
func (s still) Answer(context.Context, bool) error { return nil }
func (s still) End(context.Context) error          { return nil }

var longNames = strings.Repeat("Donaudampfschifffahrtsgesellschaft", 6)[:200]

// newOffice has companies in every state, whose names are short, long and hostile.
func newOffice(t *testing.T) *office { return newOfficeOf(t, false) }

// newOfficeOf has two companies alone if it is simple.
func newOfficeOf(t *testing.T, simple bool) *office {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config", "state"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write("config/config.toml", "[environments.lab]\nbase_url = \"http://127.0.0.1:1\"\n[serve]\npublic_url = \"http://localhost:1/ups\"\nfrom = \"Agency GmbH\"\n")
	settings := map[string]string{
		"HOME": dir, "UPSAUTH_CONFIG_DIR": filepath.Join(dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": write("identity.txt", identity.String()+"\n"),
	}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	o := &office{t: t, views: map[string]signins.View{}, id: grant.ID{Company: "Acme & Söhne", Application: config.IntelligentRating, Environment: "lab"}}
	if o.Session, err = session.Open(session.Options{Getenv: func(name string) string { return settings[name] }, Now: time.Now, Transport: transport}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Session.Close)
	if o.door, err = door.New(door.Options{Now: time.Now, NewAddress: "To get a new address, run: upsauth serve link"}); err != nil {
		t.Fatal(err)
	}
	pages, err := manager.New(manager.Options{
		Session: func(context.Context) (*session.Session, error) { return o.Session, nil }, SignIns: o, Machine: "box", Now: time.Now,
		Doctor: func(context.Context, *session.Session) ([]checkup.Finding, error) {
			return []checkup.Finding{
				{Level: checkup.OK, Check: "configuration", Found: filepath.Join(dir, "config", "config.toml")},
				{Level: checkup.Failure, Check: "grants", Found: longNames + " must be authorized again", Do: []explain.Remedy{{Text: "[Run: {}]", Acts: []explain.Act{{Do: explain.AuthorizeCompany, ID: o.id}}}}},
			}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config.ConnContext = door.ConnContext
	server.Config.Handler = o.door.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			o.mu.Lock()
			o.origins = append(o.origins, r.Header.Get("Origin"))
			o.mu.Unlock()
		}
		pages.ServeHTTP(w, r)
	}))
	server.Start()
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.host = "localhost:" + u.Port()

	for _, name := range []string{config.IntelligentRating, config.BatchSuite} {
		r := config.Registration{Name: name, Environment: "lab", ClientID: "client-of-" + name, RedirectURI: "http://localhost:8400/callback", PublicRedirectURI: "http://localhost:1/ups/callback"}
		if name == config.BatchSuite { // its customers can't be invited yet
			r.PublicRedirectURI = ""
		}
		_, err := o.RegisterApplication(t.Context(), r, "s3cret")
		if err != nil {
			t.Fatal(err)
		}
	}
	soon := func(g *grant.Grant) {
		g.RefreshTokenExpires = g.Issued.Add(48 * time.Hour)
		g.RefreshUntil = g.RefreshTokenExpires
	}
	o.grant("Acme & Söhne", config.IntelligentRating, "jane@acme.example", nil)
	o.grant("Batch Ltd", config.BatchSuite, "bob", nil)
	if simple {
		return o.withSignIns()
	}
	o.grant("Void AG", config.IntelligentRating, "vera", func(g *grant.Grant) { g.Void = true })
	o.grant("Soon GmbH", config.BatchSuite, "sue", soon)
	o.grant(longNames, config.IntelligentRating, strings.Repeat("grenzueberschreitend", 10), nil)
	for _, name := range []string{"שלום <b>Ltd</b>", "Nord AG"} {
		contact, note := "Jane, +49 431 1234567", strings.Repeat("signs-in-on-Mondays", 20)
		if err := o.AddCompanies(t.Context(), []company.New{{Name: name, Contact: &contact, Note: &note}}, func(string, session.Outcome) {}); err != nil {
			t.Fatal(err)
		}
	}
	return o.withInvitations().withSignIns()
}

// withInvitations has an invitation in each state.
func (o *office) withInvitations() *office {
	o.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	visit := invitation.Visit{User: strings.Repeat("grenzueberschreitend", 3) + "@acme.example", At: now}
	for company, change := range map[string]func(*invitation.Invitation){
		"Nord AG": func(i *invitation.Invitation) { i.Wrong = &visit },
		"Void AG": func(i *invitation.Invitation) {
			i.SignIn = &invitation.SignIn{Visit: visit, TokenVaultKey: strings.ToUpper(uuid.NewString()), Home: "file", Held: true, Doubts: []string{visit.User + " has already signed in for Acme & Söhne."}}
		},
		longNames:         func(*invitation.Invitation) {},
		"שלום <b>Ltd</b>": func(i *invitation.Invitation) { i.End = &invitation.End{Why: invitation.Withdrawn, At: now} },
	} {
		i, _, err := o.Invite(o.t.Context(), session.InviteRequest{
			Target: session.Target{Company: company, Application: config.IntelligentRating, Environment: "lab"}, ExpectUser: "jane", Note: strings.Repeat("Please-by-Friday", 12), By: "manager", Lasts: 7 * 24 * time.Hour,
		})
		if err == nil {
			_, err = o.Invitations.Change(o.t.Context(), i.Key, func(i *invitation.Invitation) error { change(i); return nil })
		}
		if err != nil {
			o.t.Fatal(err)
		}
	}
	return o
}

// withSignIns has a sign-in in each state.
func (o *office) withSignIns() *office {
	t := o.t
	t.Helper()
	waiting := signins.View{
		State: signins.Waiting, Address: "http://127.0.0.1:1/start", AtUPS: "http://127.0.0.1:1/start", RedirectURI: "http://localhost:8400/callback", ListensAt: "127.0.0.1:8400", Port: 8400, Machine: "box",
		Until: time.Now().Add(10 * time.Minute), Last: errors.New("the person at ups.com did not consent"), Warnings: []string{"A program of the user bob took part in this sign-in and was refused."},
	}
	record, err := o.Vault.Record(t.Context(), o.id)
	if err != nil {
		t.Fatal(err)
	}
	o.views["waiting"] = waiting
	o.views["asking"] = signins.View{State: signins.Asking, User: strings.Repeat("grenzueberschreitend", 10), Doubts: []string{"Acme was authorized by jane before, and by joe now."}}
	o.views["exchanging"] = signins.View{State: signins.Exchanging}
	o.views["done"] = signins.View{State: signins.Done, Record: record, SecretUntried: true}
	o.views["failed"] = signins.View{State: "failed", Err: &session.NotFoundError{Kind: session.NotRegistered, Application: config.IntelligentRating, Environment: "lab"}}
	return o
}

func (o *office) grant(company, application, user string, change func(*grant.Grant)) {
	o.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	end := now.Add(60 * 24 * time.Hour)
	g := grant.Grant{
		Record: grant.Record{Facts: grant.Facts{
			ID: grant.ID{Company: company, Application: application, Environment: "lab"}, TokenVaultKey: strings.ToUpper(uuid.NewString()), Generation: 1,
			ClientID: "client-of-" + application, BaseURL: "http://127.0.0.1:1", Home: "file", User: user, Requested: now, Issued: now, Expires: now.Add(time.Hour),
			AccessUntil: now.Add(time.Hour), RefreshTokenIssued: now, RefreshTokenExpires: end, RefreshUntil: end,
		}},
		Secrets: grant.Secrets{AccessToken: "access", RefreshToken: "refresh"},
	}
	if change != nil {
		change(&g)
	}
	if _, err := o.Keeper.Import(o.t.Context(), g); err != nil {
		o.t.Fatal(err)
	}
}

// enter opens the manager with an address that works once.
func (o *office) enter(b *tab) {
	o.t.Helper()
	path, _ := o.door.Link()
	b.open("http://" + o.host + path)
	b.wantHeading("Company manager")
	if at := run(b, chromedp.Location()); at != "http://"+o.host+"/" {
		o.t.Errorf("the address bar shows %s", at)
	}
}

func (o *office) page(b *tab, path string) { b.open("http://" + o.host + path) }

func at(path string, values ...string) string {
	q := url.Values{}
	for i := 0; i < len(values); i += 2 {
		q.Set(values[i], values[i+1])
	}
	return path + "?" + q.Encode()
}

// fill types into fields of a form that need not stand empty.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	evaluate[string](b, `document.querySelector("`+selector+`").value = ""`)
	run(b, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// press submits the form of a button in the main landmark.
func (b *tab) press(words string) {
	b.t.Helper()
	evaluate[bool](b, `(() => { const found = [...document.querySelectorAll("main button, main a.b")].find(e => e.innerText.trim() === `+quote(words)+`); if (found) found.id = "pressed"; return !!found })()`)
	b.follow("#pressed")
}

func quote(text string) string {
	q, _ := json.Marshal(text)
	return string(q)
}

// TestManagerPages guards that every page of the company manager can be read on a
// telephone, in the dark and by a screen reader, with the keyboard, without scripts and
// without the network; axe-core finds nothing. With -artifacts it also takes pictures.
func TestManagerPages(t *testing.T) {
	axe := axeCore(t)
	pictures := ""
	if pageArtifacts() {
		pictures = t.ArtifactDir()
	}
	type look struct {
		name, title string
		show        func(t *testing.T, b *tab, o *office)
	}
	page := func(path string) func(*testing.T, *tab, *office) {
		return func(_ *testing.T, b *tab, o *office) { o.page(b, path) }
	}
	of := func(company string) []string { return []string{"company", company} }
	for _, l := range []look{
		{"login", "Sign in to the company manager", func(t *testing.T, b *tab, o *office) { b.open("http://" + o.host + "/login?out") }},
		{"login-used", "This address was used before", func(t *testing.T, b *tab, o *office) {
			path, _ := o.door.Link()
			if resp, err := http.Get("http://" + strings.Replace(o.host, "localhost", "127.0.0.1", 1) + path); err == nil {
				_ = resp.Body.Close()
			}
			b.open("http://" + o.host + path)
		}},
		{"list", "Company manager", page("/")},
		{"list-nothing", "Company manager", page("/?q=nobody")},
		{"list-my-company", "My Company", page("/?app=batch-suite")},
		{"add", "Add a company", page("/add")},
		{"add-wrong", "Error: Add a company", func(t *testing.T, b *tab, o *office) {
			o.page(b, "/add")
			b.fill("#company", "Nord AC")
			b.press("Add the company")
		}},
		{"company", "Acme & Söhne", page(at("/company", of("Acme & Söhne")...))},
		{"company-batch", "Batch Ltd", page(at("/company", of("Batch Ltd")...))},
		{"company-void", "Void AG", page(at("/company", of("Void AG")...))},
		{"company-none", "Nord AG", page(at("/company", of("Nord AG")...))},
		{"company-long", longNames, page(at("/company", of(longNames)...))},
		{"history", "History of Acme & Söhne", page(at("/history", of("Acme & Söhne")...))},
		{"rename", "Rename Nord AG", page(at("/rename", of("Nord AG")...))},
		{"rename-merge", "Error: Rename Nord AG", func(t *testing.T, b *tab, o *office) {
			o.page(b, at("/rename", of("Nord AG")...))
			b.fill("#name", "Void AG")
			b.press("Rename")
		}},
		{"remove", "Remove the authorization of Batch Ltd?", page(at("/remove", of("Batch Ltd")...))},
		{"choose", "Authorize Nord AG", page(at("/authorize", of("Nord AG")...))},
		{"authorize", "Authorize Acme & Söhne", page(at("/authorize", "company", "Acme & Söhne", "app", "intelligent-rating"))},
		{"authorize-near", "Authenticate Batch Ldt", page(at("/authorize", "company", "Batch Ldt", "app", "batch-suite"))},
		{"signin-waiting", "Waiting for the sign-in of Acme & Söhne", page("/sign-in/waiting")},
		{"signin-wrong-paste", "Error: Waiting for the sign-in of Acme & Söhne", func(t *testing.T, b *tab, o *office) {
			o.page(b, "/sign-in/waiting")
			b.fill("#address", "http://localhost:8400/callback?code=x")
			b.press("Use this address")
		}},
		{"signin-exchanging", "UPS answered for Acme & Söhne", page("/sign-in/exchanging")},
		{"signin-asking", "Is this the right user for Acme & Söhne?", page("/sign-in/asking")},
		{"signin-done", "Acme & Söhne is authorized", page("/sign-in/done")},
		{"signin-failed", "Acme & Söhne was not authorized", page("/sign-in/failed")},
		{"list-held", "Company manager", page("/?show=held")},
		{"invite", "Invite Acme & Söhne", page(at("/invite", "company", "Acme & Söhne", "app", "intelligent-rating"))},
		{"invite-near", "Error: Invite a company", func(t *testing.T, b *tab, o *office) {
			o.page(b, at("/invite", "app", "intelligent-rating"))
			b.fill("#company", "Nord AC")
			b.press("Make the address")
		}},
		{"invite-cannot", "Invite Batch Ltd", page(at("/invite", of("Batch Ltd")...))},
		{"invited", "Send this address to " + longNames, func(t *testing.T, b *tab, o *office) {
			o.page(b, at("/invite", of(longNames)...))
			b.fill("#note", "Please by Friday")
			b.press("Make the address")
			if address := evaluate[string](b, `document.querySelector("#address").value`); !strings.HasPrefix(address, "http://localhost:1/ups/i/") {
				t.Errorf("the address is %q", address)
			}
		}},
		{"access-keys", "Access Key Configuration", page("/access-keys")},
		{"access-key", "UPDATE API ACCESS", page(at("/access-key", "app", "batch-suite", "env", "lab"))},
		{"access-key-new", "Register an application", page("/access-key?new=1")},
		{"access-key-question", "Error: UPDATE API ACCESS", func(t *testing.T, b *tab, o *office) {
			o.page(b, at("/access-key", "app", "batch-suite", "env", "lab"))
			b.fill("#client-id", "another")
			b.fill("#client-secret", "s3cret")
			b.press("Save")
		}},
		{"check", "Is everything well?", func(t *testing.T, b *tab, o *office) {
			o.page(b, "/check")
			b.press("Look now")
		}},
		{"not-here", "Not found", page("/company?company=nobody")},
	} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			b, o := newTab(t), newOffice(t)
			if !strings.HasPrefix(l.name, "login") {
				o.enter(b)
			}
			l.show(t, b, o)
			if got := b.title(); got != l.title+" · upsauth" {
				t.Errorf("the window is called %q", got)
			}
			if outline := b.outline(); strings.Contains(outline, "OUTSIDE") || !strings.Contains(outline, "main\n\theading ") {
				t.Errorf("a screen reader finds\n%s", outline)
			}
			b.inspect(pictures, "manager-"+l.name)
			b.withScripts(axe + "; 1")
			// Each width and each scheme once: inspect has looked at all four together.
			for i, width := range widths {
				b.look(width, schemes[i])
				for _, violation := range b.axe() {
					t.Errorf("axe, %s-%d: %s", schemes[i], width, violation)
				}
			}
			b.checkTraffic(o.host)
		})
	}
}

// axeCore is the script of axe-core, which npm brings: what package-lock.json names.
var axeOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "axe-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", "axe", name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return "", err
		}
	}
	install := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		return "", errors.New("npm can't bring axe-core: " + string(out))
	}
	script, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	return string(script), err
})

func axeCore(t *testing.T) string {
	t.Helper()
	realpart.Program(t, "npm", "npm")
	script, err := axeOnce()
	if err != nil {
		realpart.Missing(t, err)
	}
	return script
}

// withScripts does something on the page that is shown, as if scripts were switched on.
func (b *tab) withScripts(expression string) json.RawMessage {
	b.t.Helper()
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
	defer call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	wait, value := true, true
	result := call(b, runtime.Evaluate, runtime.EvaluateParams{Expression: expression, AwaitPromise: &wait, ReturnByValue: &value})
	if result.ExceptionDetails != nil {
		b.t.Fatalf("axe: %s", result.ExceptionDetails.Text)
	}
	return json.RawMessage(result.Result.Value)
}

// axe is what axe-core, whose script the page has, finds on the page that is shown, with
// all rules that are on by default.
func (b *tab) axe() (violations []string) {
	b.t.Helper()
	answer := b.withScripts(`
axe.run(document).then(r => JSON.stringify(r.violations.concat(r.incomplete.filter(i => i.id !== "color-contrast")).map(v =>
  v.id + ": " + v.help + ": " + v.nodes.map(n => n.target.join(" ") + " " + n.html.slice(0, 100)).slice(0, 3).join(", "))))`)
	var text string
	if err := json.Unmarshal(answer, &text); err != nil {
		b.t.Fatalf("axe: %v", err)
	}
	if err := json.Unmarshal([]byte(text), &violations); err != nil {
		b.t.Fatalf("axe: %v", err)
	}
	return violations
}

// TestTheWayToUPS proves what only a browser knows: the press of the button leads to UPS
// under form-action 'self', the form says its origin under the referrer policy, and the
// cookie comes along on the way back from another site.
func TestTheWayToUPS(t *testing.T) {
	t.Parallel()
	b, o := newTab(t), newOffice(t)
	lab := newLab(t, sandbox.Options{})
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/callback" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.Redirect(w, r, "http://"+o.host+"/sign-in/done", http.StatusSeeOther)
	}))
	defer back.Close()
	view := o.views["waiting"]
	view.Address = lab.signInURL(back.URL + "/callback")
	o.views["waiting"] = view
	o.enter(b)
	o.page(b, at("/authorize", "company", "Acme & Söhne", "app", "intelligent-rating"))
	b.press("Continue to UPS")
	b.comesTo("Log In")
	b.enter("jane")
	b.typePassword("right")
	b.follow("button[value=login]")
	b.wantHeading("Acme & Söhne is authorized")
	b.follow("main a.go")
	b.wantHeading("Company manager")
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.origins) != 1 || o.origins[0] != "http://"+o.host {
		t.Errorf("the forms came from %q", o.origins)
	}
	u, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	b.checkTraffic(o.host, lab.host, u.Host)
}

// TestPicturesOfTheManuals walks through both manuals of UPS's applications. Each picture
// of docs/coming-from.md is of a page that is there, and the page has the words that the
// text before the picture prints in bold. With -artifacts it takes the pictures; make
// pictures does that.
func TestPicturesOfTheManuals(t *testing.T) {
	t.Parallel()
	dir := ""
	if pageArtifacts() {
		dir = t.ArtifactDir()
	}
	said := wordsBeforePictures(t, filepath.Join("..", "..", "..", "docs"), "coming-from.md")
	b, o := newTab(t), newOfficeOf(t, true)
	o.enter(b)
	b.look(900, "light")
	for _, step := range []struct{ name, path, heading string }{
		{"authorize-customer", "/?app=intelligent-rating", "Authorize Customer"},
		{"authorize", at("/authorize", "company", "Acme & Söhne", "app", "intelligent-rating"), "Authorize Acme & Söhne"},
		{"confirmation", "/sign-in/done", "Acme & Söhne is authorized"},
		{"my-company", "/?app=batch-suite", "My Company"},
		{"batch-suite", at("/company", "company", "Batch Ltd"), "Batch Ltd"},
		{"remove-auth", at("/remove", "company", "Batch Ltd", "app", "batch-suite"), "Remove the authorization of Batch Ltd?"},
		{"access-keys", "/access-keys", "Access Key Configuration"},
	} {
		o.page(b, step.path)
		b.wantHeading(step.heading)
		words := said[step.name]
		if len(words) == 0 {
			t.Errorf("docs/coming-from.md does not show %s, or says nothing about it", step.name)
		}
		delete(said, step.name)
		page := strings.Join(strings.Fields(b.text("body")), " ")
		for _, word := range words {
			if !strings.Contains(page, word) {
				t.Errorf("the page of the picture %s does not say %q:\n%s", step.name, word, page)
			}
		}
		if dir == "" {
			continue
		}
		file := filepath.Join(dir, step.name+".png")
		b.keep(file)
		if err := shrink(file); err != nil {
			t.Error(err)
		}
	}
	for name := range said {
		t.Errorf("docs/coming-from.md shows %s, which nobody takes", name)
	}
}

// wordsBeforePictures are the words in bold before each picture of a document, by the
// picture's name. The pictures must be there.
func wordsBeforePictures(t *testing.T, docs, document string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, document))
	if err != nil {
		t.Fatal(err)
	}
	bold := regexp.MustCompile(`\*\*([^*]+)\*\*`)
	words, from := map[string][]string{}, 0
	for _, m := range regexp.MustCompile(`!\[[^\]]+\]\((pictures/([a-z-]+)\.png)\)`).FindAllSubmatchIndex(text, -1) {
		if _, err := os.Stat(filepath.Join(docs, string(text[m[2]:m[3]]))); err != nil && !pageArtifacts() {
			t.Errorf("%v; make pictures takes it", err)
		}
		before := string(text[from:m[0]])
		before = before[strings.LastIndex(before, "\n#")+1:] // the section of the picture
		name := string(text[m[4]:m[5]])
		for _, b := range bold.FindAllStringSubmatch(before, -1) {
			words[name] = append(words[name], strings.Join(strings.Fields(b[1]), " "))
		}
		from = m[1]
	}
	return words
}

// shrink keeps the most frequent colors of a picture, which is all that text needs.
func shrink(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	full, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return err
	}
	count := map[color.RGBA]int{}
	size := full.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			count[color.RGBAModel.Convert(full.At(x, y)).(color.RGBA)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] })
	var palette color.Palette
	for _, c := range colors[:min(len(colors), 16)] {
		palette = append(palette, c)
	}
	small := image.NewPaletted(size, palette)
	draw.Draw(small, size, full, size.Min, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o600)
}
