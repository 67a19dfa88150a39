package chromiumtest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/serve/public"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// front is where customers come who were invited.
type front struct {
	*session.Session
	t       *testing.T
	lab     *lab
	host    string
	address string
}

const sender = "Agency GmbH"

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{t: t}
	var pages http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pages.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	f.host = strings.Replace(strings.TrimPrefix(server.URL, "http://"), "127.0.0.1", "localhost", 1)
	f.address = "http://" + f.host + "/ups"
	f.lab = newLab(t, sandbox.Options{
		Clients: []sandbox.Client{{ID: "cid", Secret: "s3cret", RedirectURI: f.address + "/callback", DisplayName: "UPS® Intelligent Rating"}},
		Users: []sandbox.User{
			{Name: "jane@nord.example", Password: "right"}, {Name: "joe", Password: "right"}, {Name: "vera", Password: "right"},
			{Name: "campus", Password: "right", CampusShip: true}, {Name: "no", Password: "right", Declines: true},
		},
	})
	dir := t.TempDir()
	for _, name := range []string{"config", "state"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("[environments.lab]\nbase_url = %q\n[serve]\npublic_url = %q\nfrom = %q\ncontact = \"+49 30 123, auth@agency.example\"\nreturn_urls = [%q]\n", "http://"+f.lab.host, f.address, sender, f.address+"/x")
	for name, text := range map[string]string{"config/config.toml": settings, "identity.txt": identity.String() + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{
		"HOME": dir, "UPSAUTH_CONFIG_DIR": filepath.Join(dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(dir, "identity.txt"),
	}
	transport := ups.NewTransport()
	t.Cleanup(transport.CloseIdleConnections)
	if f.Session, err = session.Open(session.Options{Getenv: func(name string) string { return env[name] }, Now: time.Now, Transport: transport}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Session.Close)
	if pages, err = public.New(public.Options{Session: func(context.Context) (*session.Session, error) { return f.Session, nil }}); err != nil {
		t.Fatal(err)
	}
	r := config.Registration{Name: config.IntelligentRating, Environment: "lab", DisplayName: "UPS® Intelligent Rating", ClientID: "cid", RedirectURI: "http://localhost:0/cb", PublicRedirectURI: f.address + "/callback", Home: "file"}
	err = f.EditApplications(t.Context(), func(apps *config.Applications, save func() error) error {
		return f.AddSecret(t.Context(), apps, save, r, "s3cret")
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *front) invite(company string, change ...func(*session.InviteRequest)) (session.Invited, string) {
	f.t.Helper()
	r := session.InviteRequest{Target: session.Target{Company: company, Application: config.IntelligentRating, Environment: "lab"}, Lasts: 7 * 24 * time.Hour, Another: true}
	for _, c := range change {
		c(&r)
	}
	i, address, err := f.Invite(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return i, address
}

func (f *front) want(i session.Invited, want invitation.State) {
	f.t.Helper()
	i, err := f.InvitationOf(f.t.Context(), i.Key)
	if err != nil || i.State(time.Now()) != want {
		f.t.Errorf("the invitation for %s is %s, not %s (%v)", i.Company, i.State(time.Now()), want, err)
	}
}

// atUPS presses the button of a page and waits for UPS's.
func (b *tab) atUPS(words string) {
	b.t.Helper()
	b.press(words)
	b.comesTo("Log In")
}

// signsIn goes through UPS's pages and comes back.
func (b *tab) signsIn(user string) {
	b.t.Helper()
	b.enter(user)
	b.logIn("right")
}

// TestCustomersPages guards that what customers see can be read on a telephone, in the
// dark and by a screen reader, with the keyboard, without scripts and without anything
// from elsewhere; axe-core finds nothing. With -artifacts it also takes pictures.
func TestCustomersPages(t *testing.T) {
	t.Parallel()
	axe := axeCore(t)
	pictures := ""
	if pageArtifacts() {
		pictures = t.ArtifactDir()
	}
	expectJane := func(r *session.InviteRequest) {
		r.ExpectUser, r.Note = "jane@nord.example", strings.Repeat("Please-by-Friday", 20)
	}
	alike := []string{"declined", "used", "ups-down-before", "ups-down-after", "forgotten"}
	signIn := func(b *tab, address, user string) {
		b.open(address)
		b.atUPS("Continue to UPS")
		b.signsIn(user)
	}
	for _, l := range []struct {
		name, title string
		show        func(b *tab, f *front)
	}{
		{"before", "Authorize UPS® Intelligent Rating for Nord & Söhne", func(b *tab, f *front) {
			_, address := f.invite("Nord & Söhne", expectJane)
			b.open(address)
			b.wantText("Agency GmbH asks you to authorize UPS® Intelligent Rating at UPS for Nord & Söhne (UPS environment: lab).", "Please sign in as j…e@nord.example.", "Questions? Ask Agency GmbH: +49 30 123, auth@agency.example")
		}},
		{"before-long", "Authorize UPS® Intelligent Rating for " + longNames, func(b *tab, f *front) {
			_, address := f.invite(longNames)
			b.open(address)
		}},
		{"done", "Thank you. UPS® Intelligent Rating is authorized", func(b *tab, f *front) {
			_, address := f.invite("Nord AG", func(r *session.InviteRequest) { r.ReturnURL = f.address + "/x" })
			signIn(b, address, "jane@nord.example")
			b.wantHeading("Thank you. UPS® Intelligent Rating is authorized")
			b.wantText("j…e@nord.example signed in at ups.com on ", "The authorization works until ", "You can close this page.", "Back to localhost")
			if at := run(b, chromedp.Location()); !strings.HasPrefix(at, f.address+"/done/") || strings.ContainsAny(at, "?#") {
				b.t.Errorf("the result stands at %s", at)
			}
			b.wantNoCode()
			b.reload()
			b.wantHeading("Thank you. UPS® Intelligent Rating is authorized")
		}},
		{"held", "Thank you. Your part is done", func(b *tab, f *front) {
			for _, name := range []string{"Acme", "Nord AG"} {
				_, address := f.invite(name)
				signIn(b, address, "joe")
			}
			b.wantHeading("Thank you. Your part is done")
			b.wantText("Agency GmbH checks that this is the right user")
		}},
		{"wrong-user", "Another ups.com user is needed", func(b *tab, f *front) {
			_, address := f.invite("Nord AG", expectJane)
			signIn(b, address, "joe")
			b.wantHeading("Another ups.com user is needed")
			b.wantText("j…e signed in. The authorization needs j…e@nord.example.")
		}},
		{"declined", "You did not agree at ups.com", func(b *tab, f *front) {
			_, address := f.invite("Nord AG")
			signIn(b, address, "no")
			b.wantHeading("You did not agree at ups.com")
		}},
		{"ended", "This invitation has ended", func(b *tab, f *front) {
			i, address := f.invite("Nord AG")
			if err := f.Withdraw(b.t.Context(), i); err != nil {
				b.t.Fatal(err)
			}
			b.open(address)
			b.wantText("It was withdrawn by whoever sent it.")
		}},
		{"used", "This invitation was used", func(b *tab, f *front) {
			_, address := f.invite("Nord AG")
			signIn(b, address, "joe")
			b.open(address)
		}},
		{"ups-down-before", "UPS does not answer at the moment", func(b *tab, f *front) {
			if err := f.lab.AddFault(sandbox.Fault{Endpoint: "authorize", ErrorPage: true}); err != nil {
				b.t.Fatal(err)
			}
			_, address := f.invite("Nord AG")
			b.open(address)
			b.press("Continue to UPS")
		}},
		{"ups-down-after", "UPS does not answer at the moment", func(b *tab, f *front) {
			if err := f.lab.AddFault(sandbox.Fault{Endpoint: "token", Status: 503}); err != nil {
				b.t.Fatal(err)
			}
			_, address := f.invite("Nord AG")
			signIn(b, address, "joe")
			b.wantText("Try again.")
		}},
		{"other-browser", "You came back in another browser", func(b *tab, f *front) {
			_, address := f.invite("Nord AG")
			i, err := f.Invitation(b.t.Context(), address[strings.LastIndex(address, "/")+1:])
			if err != nil {
				b.t.Fatal(err)
			}
			pressed, err := f.Press(b.t.Context(), i)
			if err != nil {
				b.t.Fatal(err)
			}
			b.open(pressed.Address) // which somebody forwarded
			b.signsIn("joe")
			b.wantHeading("You came back in another browser")
			f.want(i, invitation.StateOpen)
		}},
		{"unknown", "There is no page here", func(b *tab, f *front) { b.open(f.address + "/i/" + invitation.NewSecret()) }},
		{"forgotten", "This page can't be shown any more", func(b *tab, f *front) { b.open(f.address + "/done/x") }},
	} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t)
			b := newTab(t)
			l.show(b, f)
			site := sender
			if l.name == "unknown" {
				site = "Invitation"
			}
			if got := b.title(); got != l.title+" · "+site {
				t.Errorf("the window is called %q", got)
			}
			if outline := b.outline(); strings.Contains(outline, "OUTSIDE") || !strings.Contains(outline, "main\n\theading ") {
				t.Errorf("a screen reader finds\n%s", outline)
			}
			for _, no := range []string{"OAuth", "token", "Token", "upsauth", "error", "http"} {
				if text := b.text("main"); strings.Contains(text, no) {
					t.Errorf("a customer reads %q:\n%s", no, text)
				}
			}
			if slices.Contains(alike, l.name) && pictures == "" {
				// It is made as others are, of other words: one look is enough.
				b.look(widths[0], schemes[1])
				for _, problem := range b.problems(widths[0]) {
					t.Error(problem)
				}
			} else {
				b.inspect(pictures, "customer-"+l.name)
			}
			b.withScripts(axe + "; 1")
			for _, violation := range b.axe() {
				t.Errorf("axe: %s", violation)
			}
			b.checkTraffic(f.host, f.lab.host)
		})
	}
}

// TestCustomerByKeyboard is the whole way on a telephone's width with the keyboard alone:
// two presses here and the two pages of UPS, with a wrong profile on the way, and back.
func TestCustomerByKeyboard(t *testing.T) {
	t.Parallel()
	f, b := newFront(t), newTab(t)
	i, address := f.invite("Nord AG")
	b.look(320, "dark")
	b.open(address)
	key := func(keys ...string) {
		t.Helper()
		for _, k := range keys {
			run(b, chromedp.KeyEvent(k))
		}
	}
	logIn := func(name, password, then string) {
		t.Helper()
		b.comesTo("Log In")
		key("\t", name, "\t", " ", "\t", "\r")
		b.comesTo("Password")
		key("\t", password, "\r")
		b.comesTo(then)
	}
	key("\t", "\r")
	// A profile that UPS refuses never comes back.
	logIn("campus", "right", "This profile can't be used")
	f.want(i, invitation.StateOpen)
	key("\t", "\r")
	logIn("no", "right", "You did not agree at ups.com")
	f.want(i, invitation.StateOpen)
	key("\t", "\r")
	logIn("jane@nord.example", "right", "Thank you. UPS® Intelligent Rating is authorized")
	f.want(i, invitation.StateCompleted)
	b.wantNoCode()
	b.wantHeading("Thank you. UPS® Intelligent Rating is authorized")
	// Back leads into UPS's pages, and to the invitation in the end: no page asks whether
	// a form is to be sent once more.
	addresses := []string{}
	for _, entry := range b.history() {
		addresses = append(addresses, entry.URL)
	}
	if !slices.Contains(addresses, address) {
		t.Errorf("the history is %q", addresses)
	}
	for range len(addresses) {
		if run(b, chromedp.Location()) == address {
			break
		}
		b.back()
	}
	b.wantHeading("This invitation was used")
	b.checkTraffic(f.host, f.lab.host)
}

// TestTwoTabs guards that two sign-ins at once, in one browser, both come to their end.
func TestTwoTabs(t *testing.T) {
	t.Parallel()
	f, b := newFront(t), newTab(t)
	first, one := f.invite("Acme")
	second, two := f.invite("Nord AG")
	b.open(one)
	b.atUPS("Continue to UPS")
	other := b.another()
	other.open(two)
	other.atUPS("Continue to UPS")
	b.signsIn("joe")
	b.wantHeading("Thank you. UPS® Intelligent Rating is authorized")
	other.signsIn("vera")
	other.wantHeading("Thank you. UPS® Intelligent Rating is authorized")
	for i, user := range map[*session.Invited]string{&first: "joe", &second: "vera"} {
		f.want(*i, invitation.StateCompleted)
		if r, err := f.Vault.Record(t.Context(), i.GrantID()); err != nil || r.User != user {
			t.Errorf("%s is authorized by %s (%v)", i.Company, r.User, err)
		}
	}
}

// TestScannersWithABrowser lets a browser with scripts do what those do that guard
// mailboxes: open, press every button, follow every link and every page that leads on, up
// to UPS and back. Nothing is used up by that.
func TestScannersWithABrowser(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	// Each begins with another control of a page, so that all of them are pressed.
	for offset, user := range []string{"joe", "vera"} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			b := newTab(t)
			call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
			i, address := f.invite("Company of " + user)
			seen := map[string]bool{}
			b.open(address)
			for step := range 6 {
				b.pressOne(step + offset)
				seen[b.text("h1")] = true
			}
			if !seen["Log In"] || !seen["You did not agree at ups.com"] {
				t.Errorf("the scanner saw %v", seen)
			}
			f.want(i, invitation.StateOpen)
			if _, err := f.Vault.Record(t.Context(), i.GrantID()); err == nil {
				t.Errorf("%s has a grant", i.Company)
			}
			c := newTab(t)
			c.open(address)
			c.atUPS("Continue to UPS")
			c.signsIn(user)
			c.wantHeading("Thank you. UPS® Intelligent Rating is authorized")
			f.want(i, invitation.StateCompleted)
		})
	}
}

// pressOne fills in what the page has to be filled in, presses one of its links and
// buttons, and waits for the page that it comes to.
func (b *tab) pressOne(n int) {
	b.t.Helper()
	before := b.loaded()
	// The answer may be lost as the page goes, after the press.
	found, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](fmt.Sprintf(`(() => {
		for (const box of document.querySelectorAll("input:not([type=hidden])")) if (box.type === "checkbox") box.checked = true; else box.value = "scan";
		const all = [...document.querySelectorAll("a[href], button")];
		if (all.length === 0) return false;
		setTimeout(() => all[%d %% all.length].click(), 0);
		return true;
	})()`, n)))
	if err != nil && !leaving(err) {
		b.t.Fatal(err)
	}
	if found || err != nil {
		waitFor(b, func() bool { return b.loaded() > before && b.still() })
	}
}

// loaded is how many pages the tab has got.
func (b *tab) loaded() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.documents)
}
