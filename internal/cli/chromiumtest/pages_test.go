package chromiumtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// view is a page that a person can come to.
type view struct {
	name string
	// show brings the tab there and returns the hosts that it had to do with.
	show    func(t *testing.T, b *tab) (hosts []string)
	title   string
	outline string
}

// TestPages guards that every page can be read on a telephone, in the dark and
// by a screen reader, without scripts and without the network. With -artifacts
// it also takes pictures; make screenshots does that.
func TestPages(t *testing.T) {
	pictures := ""
	if pageArtifacts() {
		pictures = t.ArtifactDir()
	}
	for _, v := range views() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			b := newTab(t)
			hosts := v.show(t, b)
			if got := b.title(); got != v.title {
				t.Errorf("the window is called %q, not %q", got, v.title)
			}
			if got := b.outline(); got != v.outline {
				t.Errorf("a screen reader finds\n%s\ninstead of\n%s", got, v.outline)
			}
			b.inspect(pictures, v.name)
			b.checkTraffic(hosts...)
		})
	}
}

// pageArtifacts reports whether pictures are wanted.
func pageArtifacts() bool { return flag.Lookup("test.artifacts").Value.String() == "true" }

func views() []view {
	const longName = "Donaudampfschifffahrtsgesellschaft"
	longCompany := strings.Repeat(longName, 6)[:200]
	longUser := strings.Repeat("grenzueberschreitend", 10)
	listed := sandbox.Options{Users: []sandbox.User{
		{Name: "jane", Password: "right"}, {Name: "camp", Password: "right", CampusShip: true},
	}}
	const (
		authorized    = "Success: Authorized"
		notAuthorized = "Failed: Not authorized"
		whatToDo      = `heading "What to do now" 2`
		firstPage     = "Log In · UPS sandbox"
		secondPage    = "Password · UPS sandbox"
		somebodyElse  = `link "Log in as somebody else"`
	)
	panel := []string{
		`term "Signed in"`, `term "Token Vault Key"`, `term "Issued"`, `term "Expires"`, `term "Refresh Token Issued"`, `term "Refresh Token Expires"`,
	}
	return []view{
		// What a login ends with.
		{name: "success", title: authorized, outline: result("Acme & Söhne is authorized", panel...),
			show: throughLogin("Acme & Söhne", "jane@acme.example", sandbox.Fault{})},
		{name: "success-long-names", title: authorized, outline: result(longCompany+" is authorized", panel...),
			show: throughLogin(longCompany, longUser, sandbox.Fault{})},
		{name: "failure-declined", title: notAuthorized, outline: result("Acme & Söhne was not authorized", whatToDo, `link "Sign in again"`),
			show: throughLogin("Acme & Söhne", "", sandbox.Fault{})},
		{name: "failure-ups-down", title: notAuthorized, outline: result("Acme & Söhne was not authorized", whatToDo),
			show: throughLogin("Acme & Söhne", "jane", sandbox.Fault{Endpoint: "token", Status: 500})},
		{name: "failure-client-refused", title: notAuthorized, outline: result("Acme & Söhne was not authorized", whatToDo),
			show: throughLogin("Acme & Söhne", "jane", sandbox.Fault{Endpoint: "token", Status: 401, Code: "10401", Message: "ClientId is Invalid"})},

		// What the callback server says to whatever is not the login's answer.
		{name: "refused-not-found", title: "Refused: There is nothing here", outline: result("There is nothing here"),
			show: atCallbackServer(func(t *testing.T, b *tab, s *callbackServer) {
				b.open(strings.Replace(s.RedirectURI(), "/callback", "/elsewhere", 1))
			})},
		{name: "refused-wrong-state", title: "Refused: This answer was not accepted", outline: result("This answer was not accepted"),
			show: atCallbackServer(func(t *testing.T, b *tab, s *callbackServer) {
				b.open(s.RedirectURI() + "?code=c&state=of-yesterday")
			})},
		{name: "refused-second-answer", title: "Refused: This sign-in already has its answer", outline: result("This sign-in already has its answer"),
			show: atCallbackServer(func(t *testing.T, b *tab, s *callbackServer) {
				arrive(t, s, "?code=first&state="+callbackState)
				b.open(s.RedirectURI() + "?code=second&state=" + callbackState)
			})},
		{name: "refused-ended", title: "Refused: This sign-in has ended", outline: result("This sign-in has ended"),
			show: atCallbackServer(func(t *testing.T, b *tab, s *callbackServer) {
				go func() {
					if _, err := s.Wait(b.ctx); err == nil {
						_ = s.Close()
					}
				}()
				b.open(s.RedirectURI() + "?code=c&state=" + callbackState)
			})},

		// The sandbox's two pages, and what is wrong on them.
		{name: "signin", title: firstPage, outline: signInOutline("another-application", "", "", false),
			show: atSandbox(sandbox.Options{}, nil)},
		{name: "signin-long-application", title: firstPage, outline: signInOutline(longCompany, "", "", false),
			show: atSandbox(sandbox.Options{DisplayNames: map[string]string{"another-application": longCompany}}, nil)},
		{name: "signin-nothing-entered", title: "Error: " + firstPage,
			outline: signInOutline("another-application", "Enter your email or username.", "To continue, agree by ticking the box.", false),
			show:    atSandbox(listed, func(b *tab) { b.follow("button[value=continue]") })},
		{name: "signin-not-agreed", title: "Error: " + firstPage,
			outline: signInOutline("another-application", "", "To continue, agree by ticking the box.", false),
			show: atSandbox(listed, func(b *tab) {
				run(b, chromedp.SendKeys(chromedp.CSS("#username"), "jane"))
				b.follow("button[value=continue]")
			})},
		{name: "signin-unknown-user", title: "Error: " + firstPage,
			outline: signInOutline("another-application", "The sandbox does not know this user name.", "", true),
			show:    atSandbox(listed, func(b *tab) { b.enter("joe") })},
		{name: "signin-impossible-user", title: "Error: " + firstPage,
			outline: signInOutline("another-application", "That can't be a username: it is too long, or has characters that can't be shown.", "", true),
			show:    atSandbox(sandbox.Options{}, func(b *tab) { b.paste("ja\u200bne") })},
		{name: "password", title: secondPage, outline: passwordOutline(""), show: atSandbox(listed, func(b *tab) { b.enter("jane") })},
		{name: "password-long-user", title: secondPage, outline: passwordOutline(""), show: atSandbox(sandbox.Options{}, func(b *tab) { b.paste(longUser) })},
		{name: "password-empty", title: "Error: " + secondPage, outline: passwordOutline("Enter your password."),
			show: atSandbox(listed, func(b *tab) {
				b.enter("jane")
				b.follow("button[value=login]")
			})},
		{name: "password-wrong", title: "Error: " + secondPage, outline: passwordOutline("The password is wrong."),
			show: atSandbox(listed, func(b *tab) {
				b.enter("jane")
				b.logIn("wrong")
			})},
		{name: "forgot", title: "Forgot Username/Password · UPS sandbox",
			outline: "banner\n" + result("Forgot Username/Password", `link "Back to the sign-in"`),
			show:    atSandbox(listed, func(b *tab) { b.follow(forgotLink) })},
		{name: "profile-refused", title: "This profile can't be used · UPS sandbox",
			outline: "banner\n" + result("This profile can't be used", somebodyElse),
			show: atSandbox(listed, func(b *tab) {
				b.enter("camp")
				b.logIn("right")
			})},
		{name: "address-changed", title: "This address does not work · UPS sandbox",
			outline: "banner\n" + result("This address does not work"),
			show: atSandbox(listed, func(b *tab) {
				b.open(strings.Replace(run(b, chromedp.Location()), "client_id=", "client_id=x", 1))
			})},
		{name: "ups-error-page", title: "Something went wrong · UPS sandbox",
			outline: "banner\n" + result("Something went wrong"),
			show: func(t *testing.T, b *tab) []string {
				lab := newLab(t, sandbox.Options{})
				b.open("http://" + lab.host + "/error.page")
				return []string{lab.host}
			}},
		{name: "start", title: "Sandbox · UPS sandbox", show: atStart, outline: "banner\n" + result("A UPS authorization server to test against",
			`heading "Endpoints" 2`,
			`term "GET /security/v1/oauth/authorize"`, `term "POST /security/v1/oauth/token"`, `term "POST /security/v1/oauth/refresh"`,
			`term "GET /security/v1/oauth/keys"`, `term "/api/rating/…, GET /api/track/v1/details/…, /api/…"`,
			`term "POST, GET, DELETE /sandbox/faults"`, `term "POST /sandbox/users/NAME/password"`, `term "GET /sandbox/log"`,
			`heading "Clients" 2`, `region "Clients"`, "\ttable", `heading "Live grants" 2`, `region "Live grants"`, "\ttable",
			`heading "With curl" 2`, `region "With curl"`)},
	}
}

// result is the outline of a page that has nothing around its main landmark.
func result(heading string, more ...string) string {
	lines := append([]string{"main", fmt.Sprintf("\theading %q 1", heading)}, more...)
	for i := range more {
		lines[i+2] = "\t" + more[i]
	}
	return strings.Join(lines, "\n") + "\n"
}

// signInOutline is that of the sandbox's first page.
func signInOutline(application, nameError, agreeError string, agreed bool) string {
	agreement := fmt.Sprintf("checkbox %q", "By continuing, I accept the UPS Technology Agreement and authorize "+application+
		" to access what belongs to the ups.com username above: UPS shipping account numbers, contact information, rates and the status of tracked packages.")
	if agreed {
		agreement += " checked"
	}
	lines := append(faulty(`textbox "Email or Username"`, " required", nameError), faulty(agreement, "", agreeError)...)
	return "banner\n" + result("Log In", append(lines, `button "Continue"`, `button "Cancel"`, `link "Forgot Username/Password"`)...)
}

// passwordOutline is that of the second.
func passwordOutline(problem string) string {
	lines := append(faulty(`textbox "Password"`, " required", problem), `button "Log In"`, `button "Cancel"`,
		`link "Forgot Username/Password"`, `link "Log in as somebody else"`)
	return "banner\n" + result("Password", lines...)
}

// faulty is a control with what is wrong with it.
func faulty(control, states, problem string) []string {
	if problem == "" {
		return []string{control + states}
	}
	return []string{"alert", control + " invalid" + states + " (" + problem + ")"}
}

// throughLogin shows what a login ends with; nobody cancels.
func throughLogin(company, user string, fault sandbox.Fault) func(*testing.T, *tab) []string {
	return func(t *testing.T, b *tab) []string {
		lab := newLab(t, sandbox.Options{})
		if fault.Endpoint != "" {
			if err := lab.AddFault(fault); err != nil {
				t.Fatal(err)
			}
		}
		l := labLogin(t, lab, company)
		if user == "" {
			b.open(l.address)
			b.follow("button[value=cancel]")
		} else {
			b.signIn(l.address, user)
		}
		return l.hosts()
	}
}

const callbackState = "of-today"

// atCallbackServer shows a page of a callback server that no command ends.
func atCallbackServer(show func(*testing.T, *tab, *callbackServer)) func(*testing.T, *tab) []string {
	return func(t *testing.T, b *tab) []string {
		s := newCallbackServer(t)
		u, err := url.Parse(s.RedirectURI())
		if err != nil {
			t.Fatal(err)
		}
		show(t, b, s)
		return []string{u.Host}
	}
}

// callbackServer is a login with a listener of its own.
type callbackServer struct {
	*loopback.Handler
	*loopback.Listener
}

func (s *callbackServer) Close() error {
	s.Handler.Close()
	return s.Listener.Close()
}

func newCallbackServer(t *testing.T) *callbackServer {
	t.Helper()
	listener, err := loopback.Listen(t.Context(), loopback.Place{RedirectURI: "http://localhost:0/callback"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	handler, err := loopback.New(loopback.Config{RedirectURI: listener.RedirectURI(), State: callbackState})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(handler.Close)
	listener.Serve(handler, handler.Fail)
	return &callbackServer{handler, listener}
}

// arrive lets another browser come back with an answer and wait.
func arrive(t *testing.T, s *callbackServer, query string) {
	t.Helper()
	ctx, giveUp := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.RedirectURI()+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		} else if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		giveUp()
		<-gone
	})
	if _, err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// atSandbox shows a page of the sandbox, from the first on.
func atSandbox(options sandbox.Options, walk func(*tab)) func(*testing.T, *tab) []string {
	return func(t *testing.T, b *tab) []string {
		lab := newLab(t, options)
		b.open(lab.signInURL("http://localhost:1/callback"))
		if walk != nil {
			walk(b)
		}
		return []string{lab.host}
	}
}

// atStart shows the sandbox's own front page, with a client and a grant.
func atStart(t *testing.T, b *tab) []string {
	l := labLogin(t, newLab(t, sandbox.Options{}), "Acme & Söhne")
	if _, err := (sandbox.Person{User: "jane", Password: "any"}).SignIn(t.Context(), l.address); err != nil {
		t.Fatal(err)
	}
	l.wantExit(0)
	lab := newLab(t, sandbox.Options{Clients: []sandbox.Client{
		{ID: "client-of-the-billing-department", Secret: "s", RedirectURI: "https://billing.acme.example/oauth/ups/callback", DisplayName: "Billing"},
	}})
	b.open("http://" + lab.host + "/")
	return []string{lab.host}
}
