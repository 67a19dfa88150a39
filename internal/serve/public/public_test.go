package public_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"context"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/serve/public"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// agency is a service whose customers come to a server on loopback, below a path.
type agency struct {
	*session.Session
	t       testing.TB
	dir     string
	front   string // public_url
	ups     *sandbox.Server
	handler http.Handler
	mu      sync.Mutex
	ahead   time.Duration
	log     []string
	lines   *http.Transport // of all customers
}

func (a *agency) now() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Add(a.ahead)
}

func (a *agency) pass(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ahead += d
}

func newAgency(t testing.TB, users ...sandbox.User) *agency {
	t.Helper()
	a := &agency{t: t, dir: t.TempDir(), lines: &http.Transport{MaxIdleConnsPerHost: 10}}
	t.Cleanup(a.lines.CloseIdleConnections)
	face := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }))
	t.Cleanup(face.Close)
	a.front = strings.Replace(face.URL, "127.0.0.1", "localhost", 1) + "/ups"
	server, err := sandbox.New(sandbox.Options{Now: a.now, Users: users, Clients: []sandbox.Client{
		{ID: "cid", Secret: "s3cret", RedirectURI: a.front + "/callback"}, {ID: "cid", Secret: "s3cret", RedirectURI: "https://auth.example/upsauth/callback"},
		{ID: "cid", Secret: "s3cret", RedirectURI: a.front + "/elsewhere"}, {ID: "cid2", Secret: "s3cret", RedirectURI: a.front + "/second"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.ups = server
	authority := httptest.NewServer(server)
	t.Cleanup(authority.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	a.write("identity.txt", identity.String()+"\n")
	a.write("config/config.toml", fmt.Sprintf("[environments.lab]\nbase_url = %q\n[serve]\npublic_url = %q\nfrom = \"Agency GmbH\"\ncontact = \"+49 30 123\"\nreturn_urls = [\"https://shop.example/done\"]\n", authority.URL, a.front))
	a.restart()
	r := config.Registration{Name: "mine", Environment: "lab", DisplayName: "Ship & Co", ClientID: "cid", RedirectURI: "http://localhost:0/cb", PublicRedirectURI: a.front + "/callback", Home: "file"}
	err = a.EditApplications(t.Context(), func(apps *config.Applications, save func() error) error {
		return a.AddSecret(t.Context(), apps, save, r, "s3cret")
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// restart is another process on the same vault.
func (a *agency) restart() {
	a.t.Helper()
	settings := map[string]string{
		"HOME": a.dir, "USERPROFILE": a.dir, "UPSAUTH_CONFIG_DIR": filepath.Join(a.dir, "config"), "UPSAUTH_STATE_DIR": filepath.Join(a.dir, "state"),
		"UPSAUTH_VAULT": "file", "UPSAUTH_IDENTITY": filepath.Join(a.dir, "identity.txt"),
	}
	transport := ups.NewTransport()
	a.t.Cleanup(transport.CloseIdleConnections)
	s, err := session.Open(session.Options{Getenv: func(name string) string { return settings[name] }, Now: a.now, Transport: transport, Remember: true})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(s.Close)
	a.t.Cleanup(s.EndMemory)
	a.Session = s
	a.handler, err = public.New(public.Options{
		Session: func(context.Context) (*session.Session, error) { return s, nil }, Now: a.now,
		Log: func(_, text string) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.log = append(a.log, text)
		},
		Came: func(text string) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.log = append(a.log, text)
		},
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *agency) write(name, text string) {
	a.t.Helper()
	at := filepath.Join(a.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agency) invite(company string, change ...func(*session.InviteRequest)) (session.Invited, string) {
	a.t.Helper()
	r := session.InviteRequest{Target: session.Target{Company: company, Application: "mine", Environment: "lab"}, Lasts: 7 * 24 * time.Hour, Another: true}
	for _, f := range change {
		f(&r)
	}
	i, address, err := a.Invite(a.t.Context(), r)
	if err != nil {
		a.t.Fatal(err)
	}
	return i, address
}

func (a *agency) want(i session.Invited, state invitation.State) session.Invited {
	a.t.Helper()
	i, err := a.InvitationOf(a.t.Context(), i.Key)
	if err != nil {
		a.t.Fatal(err)
	}
	if got := i.State(a.now()); got != state {
		a.t.Errorf("the invitation for %s is %s, not %s", i.Company, got, state)
	}
	return i
}

// logs fails unless the latest line of the log is this, with the invitation behind it.
func (a *agency) logs(want string) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	last := ""
	if len(a.log) > 0 {
		last = a.log[len(a.log)-1]
	}
	if line, _, found := strings.Cut(last, " (invitation "); !found || line != want {
		a.t.Errorf("the log ends in %q, not %q", last, want)
	}
}

func (a *agency) user(company string) string {
	r, _ := a.Vault.Record(a.t.Context(), grant.ID{Company: company, Application: "mine", Environment: "lab"})
	return r.User
}

// customer is a browser with cookies of its own.
type customer struct {
	a    *agency
	http *http.Client
	jar  http.CookieJar
}

func (a *agency) customer() *customer {
	jar, err := cookiejar.New(nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return &customer{a, &http.Client{Transport: a.lines, Jar: jar}, jar}
}

type seen struct {
	status  int
	text    string
	address string
	header  http.Header
}

func (c *customer) do(method, address string, form url.Values) seen {
	c.a.t.Helper()
	request, err := http.NewRequestWithContext(c.a.t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		c.a.t.Fatal(err)
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := c.http.Do(request)
	if err != nil {
		c.a.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.a.t.Fatal(err)
	}
	if len(text) > 15<<10 {
		c.a.t.Errorf("%s has %d bytes", address, len(text))
	}
	return seen{response.StatusCode, string(text), response.Request.URL.String(), response.Header}
}

func (s seen) has(t testing.TB, status int, texts ...string) {
	t.Helper()
	if s.status != status {
		t.Errorf("%s answers %d, not %d", s.address, s.status, status)
	}
	for _, text := range texts {
		if !strings.Contains(s.text, text) {
			t.Errorf("%s does not say %q:\n%s", s.address, text, s.text)
		}
	}
}

var leads = regexp.MustCompile(`<meta http-equiv="refresh" content="0; url=([^"]+)">`)

// goesTo is where a page leads at once.
func goesTo(t testing.TB, page seen) string {
	t.Helper()
	found := leads.FindStringSubmatch(page.text)
	if page.status != http.StatusOK || found == nil {
		t.Fatalf("%d: %s", page.status, page.text)
	}
	return strings.ReplaceAll(found[1], "&amp;", "&")
}

// press presses *Continue to UPS* and returns UPS's address.
func (c *customer) press(address string) string {
	c.a.t.Helper()
	return goesTo(c.a.t, c.do(http.MethodPost, address, nil))
}

var button = regexp.MustCompile(`<form method="post" action="([^"]+)"><p><button class="go" name="sign-in" value="([0-9a-f]+)">`)

// again presses the button of a page that told of no success.
func (c *customer) again(page seen) seen {
	c.a.t.Helper()
	found := button.FindStringSubmatch(page.text)
	if found == nil {
		c.a.t.Fatalf("nothing begins again:\n%s", page.text)
	}
	return c.do(http.MethodPost, strings.TrimSuffix(c.a.front, "/ups")+found[1], url.Values{"sign-in": {found[2]}})
}

// signIn signs in at UPS and returns the page after.
func (c *customer) signIn(at, user string) seen {
	c.a.t.Helper()
	back, err := sandbox.Person{User: user, Password: "pw"}.Callback(c.a.t.Context(), at)
	if err != nil {
		c.a.t.Fatal(err)
	}
	return c.do(http.MethodGet, back, nil)
}

// The whole way of a customer, and that the result is told without the code in the
// address.
func TestCustomerSignsIn(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord & Söhne", func(r *session.InviteRequest) {
		r.Note, r.ReturnURL = "Please by Friday", "https://shop.example/done?order=7"
	})
	c := a.customer()
	c.do(http.MethodGet, address, nil).has(t, 200, "Agency GmbH", "Nord &amp; Söhne", "Ship &amp; Co", "Please by Friday", "49 30 123",
		"Continue to UPS", "CampusShip", "Accounts and Payment", "Add Existing Account", "password", i.Expires.UTC().Format("2 January 2006"))
	page := c.signIn(c.press(address), "jane.doe@nord.example")
	page.has(t, 200, "Thank you", "j…e@nord.example", "You can close this page", `href="https://shop.example/done?order=7"`)
	if strings.Contains(page.address, "code=") || !strings.HasPrefix(page.address, a.front+"/done/") {
		t.Errorf("the result is at %s", page.address)
	}
	for _, secret := range []string{"jane.doe", i.GrantID().Application + "/", a.want(i, invitation.StateCompleted).SignIn.TokenVaultKey} {
		if strings.Contains(page.text, secret) {
			t.Errorf("the page has %q", secret)
		}
	}
	if a.user("Nord & Söhne") != "jane.doe@nord.example" {
		t.Errorf("it is %q", a.user("Nord & Söhne"))
	}
	c.do(http.MethodGet, address, nil).has(t, 410, "This invitation was used")
	c.do(http.MethodPost, address, nil).has(t, 410, "This invitation was used")
}

// What keeps invitations may be a database that others can write to. No customer is led to a
// place that the settings do not allow.
func TestReturnIsWhereTheSettingsAllow(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG", func(r *session.InviteRequest) { r.ReturnURL = "https://shop.example/done" })
	at := filepath.Join(a.dir, "config", "config.toml")
	text, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	a.write("config/config.toml", strings.Replace(string(text), "shop.example", "other.example", 1))
	a.restart()
	c := a.customer()
	page := c.signIn(c.press(address), "jane")
	page.has(t, 200, "Thank you", "You can close this page")
	if strings.Contains(page.text, "shop.example") {
		t.Error("the customer is led elsewhere")
	}
}

// The customer reads the name that stands on UPS's own page, also where a registration of
// one of UPS's applications does not repeat that name.
func TestNameOfTheApplication(t *testing.T) {
	a := newAgency(t)
	r := config.Registration{Name: config.BatchSuite, Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:0/cb", PublicRedirectURI: a.front + "/callback", Home: "file"}
	err := a.EditApplications(t.Context(), func(apps *config.Applications, save func() error) error {
		return a.AddSecret(t.Context(), apps, save, r, "s3cret")
	})
	if err != nil {
		t.Fatal(err)
	}
	_, address := a.invite("Nord AG", func(r *session.InviteRequest) { r.Application = config.BatchSuite })
	c := a.customer()
	c.do(http.MethodGet, address, nil).has(t, 200, "Authorize UPS® Batch Suite for Nord AG")
	c.signIn(c.press(address), "jane").has(t, 200, "UPS® Batch Suite is authorized")
}

// What scanners of mails do uses nothing up.
func TestScannersUseNothingUp(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord AG")
	for range 20 {
		scanner := a.customer()
		scanner.do(http.MethodHead, address, nil)
		scanner.do(http.MethodGet, address+"?utm_source=mail#top", nil).has(t, 200)
		at := scanner.press(address)
		scanner.do(http.MethodGet, at, nil) // and follows to UPS, where it can't sign in
		scanner.press(address)
		scanner.do(http.MethodGet, a.front+"/callback", nil).has(t, 400)
	}
	a.want(i, invitation.StateOpen)
	c := a.customer()
	c.signIn(c.press(a.front+"/i/"+strings.ToUpper(address[strings.LastIndex(address, "/")+1:])), "jane").has(t, 200, "Thank you")
}

// Who comes back without the cookie of the press changes nothing.
func TestAnotherBrowsersCallback(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord AG")
	c, other := a.customer(), a.customer()
	at := c.press(address)
	other.signIn(at, "joe").has(t, 403, "You came back in another browser")
	other.press(address)
	other.signIn(at, "joe").has(t, 403, "You came back in another browser")
	a.want(i, invitation.StateOpen)
	if a.user("Nord AG") != "" {
		t.Error("it is in place")
	}
	c.signIn(c.press(address), "jane").has(t, 200, "Thank you")
}

// A restart, or another process, finishes what was begun; and two tabs both work.
func TestAnotherProcessFinishes(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord AG")
	c := a.customer()
	first := c.press(address)
	c.press(address)
	a.restart()
	c.signIn(first, "jane").has(t, 200, "Thank you")
	a.want(i, invitation.StateCompleted)
}

// The oldest of five presses gives way.
func TestFourPressesAtOnce(t *testing.T) {
	a := newAgency(t)
	c := a.customer()
	var at []string
	for n := range 5 {
		_, address := a.invite(fmt.Sprint("Company ", n))
		at = append(at, c.press(address))
		a.pass(time.Second)
	}
	c.signIn(at[0], "jane").has(t, 403, "another browser")
	for n := 1; n < 5; n++ {
		c.signIn(at[n], fmt.Sprint("user", n)).has(t, 200, "Thank you")
	}
}

func TestWhatComesToNothing(t *testing.T) {
	for name, test := range map[string]struct {
		way  func(*agency, *customer, string) seen
		want []string
	}{
		"declined": {func(a *agency, c *customer, at string) seen {
			state, _ := url.Parse(at)
			return c.do(http.MethodGet, a.front+"/callback?error=access_denied&state="+url.QueryEscape(state.Query().Get("state")), nil)
		}, []string{"You did not agree at ups.com", "Begin again"}},
		"a code that is none": {func(a *agency, c *customer, at string) seen {
			state, _ := url.Parse(at)
			return c.do(http.MethodGet, a.front+"/callback?code=x&state="+url.QueryEscape(state.Query().Get("state")), nil)
		}, []string{"UPS did not accept the sign-in", "Begin again"}},
		"UPS is down afterwards": {func(a *agency, c *customer, at string) seen {
			if err := a.ups.AddFault(sandbox.Fault{Endpoint: "token", Status: 503, Times: 1}); err != nil {
				a.t.Fatal(err)
			}
			return c.signIn(at, "jane")
		}, []string{"UPS does not answer at the moment", "Try again"}},
		"two answers at once": {func(a *agency, c *customer, at string) seen {
			state, _ := url.Parse(at)
			return c.do(http.MethodGet, a.front+"/callback?code=x&code=y&state="+url.QueryEscape(state.Query().Get("state")), nil)
		}, []string{"Begin again"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgency(t)
			i, address := a.invite("Nord AG")
			c := a.customer()
			page := test.way(a, c, c.press(address))
			page.has(t, 200, test.want...)
			a.want(i, invitation.StateOpen)
			a.pass(time.Minute) // a code is not good for so long
			c.signIn(goesTo(t, c.again(page)), "jane").has(t, 200, "Thank you")
			a.want(i, invitation.StateCompleted)
		})
	}
}

func TestWrongUserAndHeld(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Acme", func(r *session.InviteRequest) { r.ExpectUser = "jane" })
	c := a.customer()
	c.do(http.MethodGet, address, nil).has(t, 200, "j…e")
	c.signIn(c.press(address), "joe").has(t, 200, "Another ups.com user is needed", "j…e", "Sign out at ups.com")
	a.logs("joe signed in for Acme (mine, lab), and jane is expected; nothing was changed")
	c.signIn(c.press(address), "jane").has(t, 200, "Thank you")
	a.logs("Acme (mine, lab) is authorized by jane")

	i, address := a.invite("Nord AG")
	page := c.signIn(c.press(address), "jane")
	a.logs("jane signed in for Nord AG (mine, lab) and waits to be confirmed")
	page.has(t, 200, "Your part is done")
	if strings.Contains(page.text, "Acme") {
		t.Error("the page names another company")
	}
	c.do(http.MethodGet, address, nil).has(t, 200, "Your part is done")
	if _, err := a.Confirm(t.Context(), a.want(i, invitation.StateHeld)); err != nil {
		t.Fatal(err)
	}
	c.do(http.MethodGet, page.address, nil).has(t, 200, "Thank you")
	c.do(http.MethodGet, address, nil).has(t, 410, "was used")
}

// An address that has ended says why, and nothing of the company.
func TestEndedAddresses(t *testing.T) {
	a := newAgency(t)
	c := a.customer()
	for name, end := range map[string]struct {
		how  func(session.Invited) error
		want string
	}{
		"withdrawn": {func(i session.Invited) error { return a.Withdraw(t.Context(), i) }, "It was withdrawn"},
		"replaced":  {func(i session.Invited) error { a.invite(i.Company); return nil }, "A newer invitation took its place"},
		"expired":   {func(session.Invited) error { a.pass(8 * 24 * time.Hour); return nil }, "The link worked until"},
	} {
		i, address := a.invite("Nord AG")
		if err := end.how(i); err != nil {
			t.Fatal(err)
		}
		page := c.do(http.MethodGet, address, nil)
		page.has(t, 410, end.want, "49 30 123")
		if strings.Contains(page.text, "Nord") {
			t.Errorf("%s: the page names the company", name)
		}
	}
}

// Nothing else is here, whatever is asked.
func TestNothingElse(t *testing.T) {
	a := newAgency(t)
	c := a.customer()
	root := strings.TrimSuffix(a.front, "/ups")
	for _, path := range []string{"", "/", "/ups", "/ups/", "/ups/i", "/ups/i/", "/ups/i/x", "/ups/i/" + invitation.NewSecret(), "/ups/again", "/ups/done", "/v1/token", "/ups/v1/token", "/login/x", "/metrics", "/ups/../ups/", "/callback"} {
		page := c.do(http.MethodGet, root+path, nil)
		page.has(t, 404, "There is no page here")
	}
	c.do(http.MethodGet, a.front+"/done/x", nil).has(t, 410, "This page can&#39;t be shown any more")
	c.do(http.MethodDelete, a.front+"/i/"+invitation.NewSecret(), nil).has(t, 405)
	c.do(http.MethodPost, a.front+"/callback", nil).has(t, 405)
}

// Over TLS the cookie is bound to its host.
func TestCookies(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG")
	secret := address[strings.LastIndex(address, "/")+1:]
	for front, want := range map[string]string{
		a.front:                        "upsauth-invitation-",
		"https://auth.example/upsauth": "__Host-upsauth-invitation-",
	} {
		a.Config.Serve.PublicURL = front
		err := a.UpdateApplications(t.Context(), func(apps *config.Applications) { apps.Applications[0].PublicRedirectURI = front + "/callback" })
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(front)
		answer := httptest.NewRecorder()
		a.handler.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, u.Path+"/i/"+secret, nil))
		cookies := answer.Result().Cookies()
		if answer.Code != 200 || len(cookies) != 1 {
			t.Fatalf("%d: %v\n%s", answer.Code, cookies, answer.Body)
		}
		cookie := cookies[0]
		if slot, ok := strings.CutPrefix(cookie.Name, want); !ok || !strings.Contains("0123", slot) || cookie.Path != "/" || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Domain != "" || cookie.Secure != strings.HasPrefix(front, "https:") ||
			cookie.MaxAge < 1790 || cookie.MaxAge > 1800 || len(cookie.String()) > 2000 {
			t.Errorf("%s", cookie)
		}
		if answer.Header().Get("Referrer-Policy") != "same-origin" || answer.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%v", answer.Header())
		}
	}
}
