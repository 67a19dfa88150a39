package public_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/session"
)

// Mail programs, chats and people change addresses. Whatever they do, an invitation is
// found by its secret, and nothing else is.
func TestAddressesAsTheyArrive(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG")
	secret := address[strings.LastIndex(address, "/")+1:]
	root := strings.TrimSuffix(a.front, "/ups")
	c := a.customer()
	for _, path := range []string{
		secret, strings.ToUpper(secret), secret + ".", secret + ").", secret + ">", secret + "%3E", secret + "%22%20target=x", secret + "/", secret + "%2F",
		secret + "?utm_source=mail&fbclid=x", secret + "%3Futm_source=mail", secret + "&fbclid=x", secret + ";jsessionid=1", secret + "%23top", secret + "#top",
		secret + "…%20and%20more", secret + "\u200b", "%20" + secret, "%3C" + secret + "%3E", secret[:20] + "%0D%0A" + secret[20:], secret[:20] + "=%0A" + secret[20:],
		secret[:10] + "%C2%AD" + secret[10:], "/" + secret, "%" + fmt.Sprintf("%02x", secret[0]) + secret[1:],
	} {
		c.do(http.MethodGet, a.front+"/i/"+path, nil).has(t, 200, "Continue to UPS")
	}
	c.do(http.MethodGet, root+"/UPS/I/"+strings.ToUpper(secret), nil).has(t, 200, "Continue to UPS")
	other := "a"
	if strings.HasSuffix(secret, other) {
		other = "b"
	}
	for _, path := range []string{
		secret[:31], secret[1:], secret + "a", secret + "2.", secret[:31] + other + "." + secret, "x" + secret, secret[:31] + "1", secret[:16] + "/" + secret[16:],
		strings.Repeat("a", 32), strings.Repeat("a", 5000), "%00" + secret[1:], secret[:31] + "%E2%84%AA", "..%2F" + secret[1:],
	} {
		page := c.do(http.MethodGet, a.front+"/i/"+path, nil)
		page.has(t, 404, "There is no page here")
		if c.do(http.MethodPost, a.front+"/i/"+path, nil).text != page.text {
			t.Errorf("a POST to %s says something else than a GET", path)
		}
	}
}

// Whatever a browser sends for cookies, a press works, and only what this vault has
// sealed is believed.
func TestCookiesOfOthers(t *testing.T) {
	a, other := newAgency(t), newAgency(t)
	_, address := a.invite("Nord AG")
	_, others := other.invite("Nord AG")
	stranger := other.customer()
	state, _ := url.Parse(stranger.press(others))
	theirs, _ := url.Parse(other.front)
	foreign := stranger.jar.Cookies(theirs)[0].Value
	for name, cookies := range map[string][]string{
		"another vault's":        {"upsauth-invitation-0=" + foreign, "upsauth-invitation-1=" + foreign},
		"damaged":                {"upsauth-invitation-0=" + foreign[:50], "upsauth-invitation-1=A" + foreign[1:], "upsauth-invitation-2=", "upsauth-invitation-3=\"%%%"},
		"too large":              {"upsauth-invitation-0=" + strings.Repeat("A", 20000)},
		"of other sites beside":  {"session=" + strings.Repeat("x", 4000), "upsauth-session=1", "__Host-upsauth-invitation-0=" + foreign, "upsauth-invitation-4=x"},
		"the same name, several": {"upsauth-invitation-0=" + foreign, "upsauth-invitation-0=" + foreign},
	} {
		send := func(method, path string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, "/ups/"+path, nil)
			r.Header.Set("Cookie", strings.Join(cookies, "; "))
			answer := httptest.NewRecorder()
			a.handler.ServeHTTP(answer, r)
			return answer
		}
		if answer := send(http.MethodGet, "callback?code=x&state="+url.QueryEscape(state.Query().Get("state"))); answer.Code != 403 {
			t.Errorf("%s: the callback answers %d: %s", name, answer.Code, answer.Body)
		}
		answer := send(http.MethodPost, strings.TrimPrefix(address, a.front+"/"))
		set := answer.Result().Cookies()
		if answer.Code != 200 || len(set) != 1 || !strings.HasPrefix(set[0].Name, "upsauth-invitation-") {
			t.Errorf("%s: a press answers %d with the cookies %v", name, answer.Code, set)
		}
	}
}

// Whatever is asked, the answer is a page of ours, and never a fault.
func FuzzRequests(f *testing.F) {
	a := newAgency(f)
	_, address := a.invite("Nord AG")
	path := strings.TrimPrefix(address, strings.TrimSuffix(a.front, "/ups"))
	f.Add("GET", path, "", "")
	f.Add("POST", path+"%2e", "upsauth-invitation-0=AQ", "")
	f.Add("GET", "/ups/callback?code=x&state=y&&=", "upsauth-invitation-1=; upsauth-invitation-1=x", "")
	f.Add("POST", "/ups/again", "a=b", "sign-in=x&sign-in=%zz")
	f.Add("HEAD", "/UPS/I/%00", "\x00", "")
	f.Add("PATCH", "/ups/done/../i/", ";;=;", "\xff")
	f.Fuzz(func(t *testing.T, method, target, cookie, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || !strings.HasPrefix(target, "/") {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, u, target
		r.Header.Set("Cookie", cookie)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer := httptest.NewRecorder()
		a.handler.ServeHTTP(answer, r)
		if answer.Code >= 500 || answer.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%d %v: %s", answer.Code, answer.Header(), answer.Body)
		}
	})
}

// A press, and whatever a scanner does, writes nothing on this machine.
func TestPressesWriteNothing(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG")
	first := a.customer()
	first.do(http.MethodGet, address, nil)
	first.press(address)
	files := func() string {
		var all strings.Builder
		err := filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				fmt.Fprintln(&all, path, info.Size(), info.ModTime())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all.String()
	}
	before := files()
	for range 5 {
		c := a.customer()
		c.do(http.MethodGet, address, nil)
		at, _ := url.Parse(c.press(address))
		state := url.QueryEscape(at.Query().Get("state"))
		// The scanner presses Cancel at UPS, too.
		c.do(http.MethodGet, a.front+"/callback?error=access_denied&state="+state, nil).has(t, 200, "You did not agree")
		c.do(http.MethodGet, a.front+"/callback?code=x&state=other", nil).has(t, 403)
		c.do(http.MethodGet, a.front+"/callback?state="+state, nil)
		a.customer().do(http.MethodGet, a.front+"/callback?code=x&state="+state, nil).has(t, 403)
	}
	if after := files(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// The key that seals cookies is there before the first customer comes: what asks the
// public face makes nothing in the vault.
func TestStrangersMakeNoKey(t *testing.T) {
	a := newAgency(t)
	a.invite("Nord AG")
	r := httptest.NewRequest(http.MethodGet, "/ups/callback?code=x&state=y", nil)
	r.Header.Set("Cookie", "upsauth-invitation-0=x")
	a.handler.ServeHTTP(httptest.NewRecorder(), r)
	if _, err := a.Vault.Secret(t.Context(), "file", "serve/invitations"); err == nil {
		t.Error("a stranger's cookie made the key")
	}
}

// What happens between the press and the way back is said in the customer's words, and
// nothing is put in place.
func TestWhatHappensMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*agency, session.Invited) error
		status  int
		want    string
		state   invitation.State
	}{
		"withdrawn": {func(a *agency, i session.Invited) error { return a.Withdraw(a.t.Context(), i) }, 410, "It was withdrawn", invitation.StateEnded},
		"expired":   {func(a *agency, _ session.Invited) error { a.pass(15 * time.Minute); return nil }, 410, "This invitation has ended", invitation.StateEnded},
		"the company was removed": {func(a *agency, i session.Invited) error { return a.Companies.Remove(a.t.Context(), i.Company) }, 410, "has changed since",
			invitation.StateEnded},
		"another client ID":           {func(a *agency, _ session.Invited) error { return a.register("mine", "other", a.front+"/callback") }, 410, "has changed since", invitation.StateEnded},
		"the application was removed": {func(a *agency, _ session.Invited) error { return a.unregister("mine") }, 410, "has changed since", invitation.StateEnded},
		"another redirect URI": {func(a *agency, _ session.Invited) error { return a.register("mine", "cid", a.front+"/elsewhere") }, 200, "Thank you",
			invitation.StateCompleted},
		"renamed": {func(a *agency, i session.Invited) error {
			plan, err := a.PlanRename(a.t.Context(), i.Company, "Süd AG")
			if err == nil {
				err = a.Rename(a.t.Context(), plan.Old, plan.Grants, plan.New)
			}
			return err
		}, 200, "Thank you", invitation.StateCompleted},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgency(t)
			i, address := a.invite("Nord AG", func(r *session.InviteRequest) { r.Lasts = 10 * time.Minute })
			c := a.customer()
			at := c.press(address)
			back, err := sandbox.Person{User: "jane", Password: "pw"}.Callback(t.Context(), at)
			if err == nil {
				err = test.happens(a, i)
			}
			if err != nil {
				t.Fatal(err)
			}
			page := c.do(http.MethodGet, back, nil)
			page.has(t, test.status, test.want)
			if test.status != 200 && strings.Contains(page.text, "Nord") {
				t.Errorf("the page names the company:\n%s", page.text)
			}
			a.want(i, test.state)
			if test.state == invitation.StateEnded && a.user("Nord AG") != "" {
				t.Error("it is in place")
			}
		})
	}
}

// A callback belongs to the redirect URI that UPS was asked with, and to no other
// application's.
func TestCallbackAtAnotherAddress(t *testing.T) {
	a := newAgency(t)
	if err := a.register("second", "cid2", a.front+"/second"); err != nil {
		t.Fatal(err)
	}
	i, address := a.invite("Nord AG")
	c := a.customer()
	at := c.press(address)
	back, err := sandbox.Person{User: "jane", Password: "pw"}.Callback(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	c.do(http.MethodGet, strings.Replace(back, "/callback?", "/second?", 1), nil).has(t, 200, "UPS sent you to the wrong page", "Begin again")
	a.want(i, invitation.StateOpen)
	if !strings.Contains(strings.Join(a.log, "\n"), "/callback") {
		t.Errorf("the log does not say where it should have arrived: %q", a.log)
	}
	c.do(http.MethodGet, back, nil).has(t, 200, "Thank you")
}

// Where UPS sends those to the same place who sign in without an invitation, they are sent
// back to where they began.
func TestCallbackOfATerminal(t *testing.T) {
	a := newAgency(t)
	at := a.front + "/callback?code=x&state=y"
	if page := a.customer().do(http.MethodGet, at, nil); strings.Contains(page.text, "without an invitation") {
		t.Error("customers read of others")
	}
	err := a.UpdateApplications(t.Context(), func(apps *config.Applications) { apps.Applications[0].RedirectURI = a.front + "/callback" })
	if err != nil {
		t.Fatal(err)
	}
	a.customer().do(http.MethodGet, at, nil).has(t, 403, "another browser", "without an invitation, go back to where you began")
}

// The same callback again, at once or later, tells what came of the first.
func TestTheSameCallbackAgain(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord AG")
	c := a.customer()
	back, err := sandbox.Person{User: "jane", Password: "pw"}.Callback(t.Context(), c.press(address))
	if err != nil {
		t.Fatal(err)
	}
	// UPS takes its time.
	if err := a.ups.AddFault(sandbox.Fault{Endpoint: "token", LatencyAfter: 300 * time.Millisecond, Times: 1}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { c.do(http.MethodGet, back, nil).has(t, 200, "Thank you") })
	}
	all.Wait()
	c.do(http.MethodGet, back, nil).has(t, 200, "Thank you")
	a.restart()
	c.do(http.MethodGet, back, nil).has(t, 200, "Thank you")
	a.customer().do(http.MethodGet, back, nil).has(t, 403, "another browser")
	a.want(i, invitation.StateCompleted)
}

// Nor does it hide the wrong user, whose code UPS takes once.
func TestTheWrongUsersCallbackAgain(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord AG", func(r *session.InviteRequest) { r.ExpectUser = "jane" })
	c := a.customer()
	back, err := sandbox.Person{User: "joe", Password: "pw"}.Callback(t.Context(), c.press(address))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.do(http.MethodGet, back, nil).has(t, 200, "Another ups.com user is needed", "j…e signed in")
	}
	a.restart()
	c.do(http.MethodGet, back, nil).has(t, 200, "Another ups.com user is needed")
	a.want(i, invitation.StateWrongUser)
	c.signIn(c.press(address), "jane").has(t, 200, "Thank you")
}

// Somebody else at the company's turn does not cost the customer's code.
func TestCompanyBeingAuthorizedMeanwhile(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord AG")
	c := a.customer()
	back, err := sandbox.Person{User: "jane", Password: "pw"}.Callback(t.Context(), c.press(address))
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := a.Vault.LockLogin(t.Context(), "Nord AG")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, unlock)
	c.do(http.MethodGet, back, nil).has(t, 200, "Thank you")
	a.want(i, invitation.StateCompleted)
}

// While UPS is down before the press is finished, the customer is told so here, and not
// left at an error page of UPS's.
func TestUPSIsDownBefore(t *testing.T) {
	for name, fault := range map[string]sandbox.Fault{
		"an error page": {Endpoint: "authorize", ErrorPage: true}, "no answer": {Endpoint: "authorize", Status: 503}, "the line is cut": {Endpoint: "authorize", Drop: "before"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgency(t)
			_, address := a.invite("Nord AG")
			if err := a.ups.AddFault(fault); err != nil {
				t.Fatal(err)
			}
			c := a.customer()
			page := c.do(http.MethodPost, address, nil)
			page.has(t, 503, "UPS does not answer at the moment", "Try again", "49 30 123")
			if page.header.Get("Retry-After") == "" || len(page.header["Set-Cookie"]) > 0 {
				t.Errorf("%v", page.header)
			}
			a.ups.ClearFaults()
			a.pass(time.Minute)
			c.signIn(c.press(address), "jane").has(t, 200, "Thank you")
		})
	}
}

// What only the sender can mend is not the customer's fault, and the sender's log has it.
func TestTheApplicationIsRefused(t *testing.T) {
	a := newAgency(t)
	if err := a.register("mine", "cid", a.front+"/unknown"); err != nil {
		t.Fatal(err)
	}
	_, address := a.invite("Nord AG")
	a.customer().do(http.MethodPost, address, nil).has(t, 503, "UPS does not accept our application", "49 30 123")
	if !strings.Contains(strings.Join(a.log, "\n"), "/unknown is not registered") {
		t.Errorf("%q", a.log)
	}
	if err := a.register("mine", "cid", a.front+"/callback"); err != nil {
		t.Fatal(err)
	}
	if err := a.ups.AddFault(sandbox.Fault{Endpoint: "token", Status: 401, Code: "10401", Message: "ClientId is Invalid"}); err != nil {
		t.Fatal(err)
	}
	_, address = a.invite("Nord AG")
	c := a.customer()
	page := c.signIn(c.press(address), "jane")
	page.has(t, 200, "UPS does not accept our application", "49 30 123")
	if strings.Contains(page.text, "took too long") {
		t.Error("the customer is told to be quicker")
	}
}

// While UPS is down afterwards, the same code is tried again: it is good for 30 s, and to
// sign in takes a customer minutes.
func TestUPSIsDownForAMoment(t *testing.T) {
	for name, fault := range map[string]sandbox.Fault{
		"503": {Endpoint: "token", Status: 503, Times: 1}, "429": {Endpoint: "token", Status: 429, Times: 1}, "no answer": {Endpoint: "token", Drop: "before", Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgency(t)
			i, address := a.invite("Nord AG")
			c := a.customer()
			if err := a.ups.AddFault(fault); err != nil {
				t.Fatal(err)
			}
			page := c.signIn(c.press(address), "jane")
			page.has(t, 200, "UPS does not answer at the moment", "Try again")
			again := c.again(page)
			again.has(t, 200, "Thank you")
			a.want(i, invitation.StateCompleted)

			// Later a code is of no use: the customer signs in anew.
			a.pass(time.Hour)
			_, address = a.invite("Süd AG")
			fault.Times = 2
			if err := a.ups.AddFault(fault); err != nil {
				t.Fatal(err)
			}
			page = c.signIn(c.press(address), "joe")
			page.has(t, 200, "Try again")
			page = c.again(page)
			page.has(t, 200, "Try again")
			a.pass(40 * time.Second)
			c.signIn(goesTo(t, c.again(page)), "joe").has(t, 200, "Thank you")
		})
	}
}

// What UPS says on the way back, other than yes and no.
func TestUPSEndsTheSignIn(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG")
	for what, want := range map[string]string{
		"error=access_denied": "You did not agree at ups.com", "error=server_error": "UPS does not answer at the moment", "error=temporarily_unavailable": "UPS does not answer at the moment",
		"error=invalid_scope": "UPS does not accept our application", "error=unheard_of": "UPS did not accept the sign-in", "code=": "UPS did not accept the sign-in", "code=x&error=access_denied": "UPS did not accept the sign-in",
	} {
		c := a.customer()
		at, _ := url.Parse(c.press(address))
		state := at.Query().Get("state")
		c.do(http.MethodGet, a.front+"/callback?"+strings.Replace(what, "code=x", "code=c0de-secret", 1)+"&state="+url.QueryEscape(state), nil).has(t, 200, want, "again")
		if log := strings.Join(a.log, "\n"); strings.Contains(log, "c0de") || strings.Contains(log, state) || strings.Contains(log, address[strings.LastIndex(address, "/")+1:]) {
			t.Errorf("the log has a secret: %s", log)
		}
	}
}

// A page of another site can't press for the person who looks at it: with an invitation of
// its own it could let others authorize what they have read nothing of.
func TestPressesFromElsewhere(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG")
	origin := strings.TrimSuffix(a.front, "/ups")
	for _, test := range []struct {
		header  map[string]string
		pressed bool
	}{
		{nil, true}, // no browser
		{map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": origin}, true},
		{map[string]string{"Origin": origin}, true}, // an old browser, before a proxy that changes the Host
		{map[string]string{"Sec-Fetch-Site": "none"}, true},
		{map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, false},
		{map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:1"}, false},
		{map[string]string{"Origin": "https://evil.example"}, false},
		{map[string]string{"Origin": "null"}, false},
	} {
		r := httptest.NewRequest(http.MethodPost, strings.TrimPrefix(address, origin), nil)
		r.Host = "127.0.0.1:8489"
		for name, value := range test.header {
			r.Header.Set(name, value)
		}
		answer := httptest.NewRecorder()
		a.handler.ServeHTTP(answer, r)
		if pressed := len(answer.Result().Cookies()) == 1; answer.Code != 200 || pressed != test.pressed || pressed == strings.Contains(answer.Body.String(), "Another page sent you here") {
			t.Errorf("%v: %d, pressed: %v", test.header, answer.Code, pressed)
		}
	}
}

// Customers read which user they need, also where the company's earlier authorization says
// so. No log has what only a browser should have.
func TestWhoIsExpected(t *testing.T) {
	a := newAgency(t)
	c := a.customer()
	_, address := a.invite("Nord AG")
	if page := c.do(http.MethodGet, address, nil); strings.Contains(page.text, "Please sign in as") {
		t.Error("somebody is expected")
	}
	c.signIn(c.press(address), "jane@nord.example").has(t, 200, "Thank you")
	_, address = a.invite("Nord AG")
	c.do(http.MethodGet, address, nil).has(t, 200, "Please sign in as <strong><bdi>j…e@nord.example</bdi></strong>.")
	_, address = a.invite("Nord AG", func(r *session.InviteRequest) { r.AnyUser = true })
	if page := c.do(http.MethodGet, address, nil); strings.Contains(page.text, "Please sign in as") {
		t.Error("somebody is expected although anybody may sign in")
	}
}

// UPS may name nobody: the sender decides.
func TestNobodyIsNamed(t *testing.T) {
	a := newAgency(t, sandbox.User{Name: "bob", Password: "pw", Nameless: true})
	for _, expect := range []string{"", "bob"} {
		i, address := a.invite("Nord AG "+expect, func(r *session.InviteRequest) { r.ExpectUser = expect })
		c := a.customer()
		c.signIn(c.press(address), "bob").has(t, 200, "Your part is done", "Agency GmbH checks")
		a.want(i, invitation.StateHeld)
	}
}

// After a restart the page still tells who signed in, as far as that is kept.
func TestResultsOutlastARestart(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Acme", func(r *session.InviteRequest) { r.ExpectUser = "jane" })
	c := a.customer()
	wrong := c.signIn(c.press(address), "joe")
	a.restart()
	c.do(http.MethodGet, wrong.address, nil).has(t, 200, "Another ups.com user is needed", "j…e")
	right := c.signIn(c.press(address), "jane")
	a.restart()
	c.do(http.MethodGet, right.address, nil).has(t, 200, "Thank you", "j…e")
	c.do(http.MethodGet, wrong.address, nil).has(t, 200, "Thank you")
	a.customer().do(http.MethodGet, right.address, nil).has(t, 410, "This page can&#39;t be shown any more")
}

// Whoever comes back late is told that, whether the browser keeps the cookie or not.
func TestComingBackLate(t *testing.T) {
	a := newAgency(t)
	i, address := a.invite("Nord AG")
	c := a.customer()
	at := c.press(address)
	a.pass(31 * time.Minute)
	c.signIn(at, "jane").has(t, 403, "30 minutes", "begin again")
	a.want(i, invitation.StateOpen)
	c.signIn(c.press(address), "jane").has(t, 200, "Thank you")
}

// The longest names that there can be fit into a cookie.
func TestLongNamesFitIntoTheCookie(t *testing.T) {
	a := newAgency(t)
	long := strings.Repeat("\U00020000", 200)
	i, address := a.invite(long, func(r *session.InviteRequest) {
		r.ExpectUser, r.Note = strings.Repeat("ü", 100)+"@"+strings.Repeat("x", 80)+".example", "Note"
	})
	c := a.customer()
	c.do(http.MethodGet, address, nil).has(t, 200, long)
	c.signIn(c.press(address), i.ExpectUser).has(t, 200, "Thank you")
}

// What browsers and crawlers ask for by themselves, and the headers of every answer.
func TestHeadersOfEveryAnswer(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG")
	c := a.customer()
	robots := c.do(http.MethodGet, a.front+"/robots.txt", nil)
	robots.has(t, 200, "User-agent: *\nDisallow: /\n")
	c.do(http.MethodGet, a.front+"/favicon.ico", nil).has(t, 204)
	for _, page := range []seen{
		robots, c.do(http.MethodGet, address, nil), c.do(http.MethodPost, address, nil), c.do(http.MethodGet, a.front+"/callback", nil), c.do(http.MethodGet, a.front+"/done/x", nil),
		c.do(http.MethodGet, a.front+"/x", nil), c.do(http.MethodOptions, address, nil), c.do(http.MethodHead, address, nil), c.do("BREW", a.front+"/done/x", nil),
	} {
		h := page.header
		if h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "same-origin" || h.Get("X-Robots-Tag") != "noindex, nofollow" || h.Get("X-Frame-Options") != "DENY" ||
			h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; style-src 'sha256-") {
			t.Errorf("%s: %v", page.address, h)
		}
		for _, no := range []string{"upsauth", "<script", "OAuth", "Token Vault"} {
			if strings.Contains(page.text, no) {
				t.Errorf("%s says %q:\n%s", page.address, no, page.text)
			}
		}
	}
	if head := c.do(http.MethodHead, address, nil); head.status != 200 || head.text != "" {
		t.Errorf("HEAD: %d %q", head.status, head.text)
	}
	if c.do(http.MethodOptions, address, nil).status != 405 {
		t.Error("OPTIONS is answered")
	}
	// Nothing depends on the Host: a proxy may pass on any.
	r := httptest.NewRequest(http.MethodGet, strings.Replace(address, "localhost", "evil.example", 1), nil)
	answer := httptest.NewRecorder()
	a.handler.ServeHTTP(answer, r)
	if strings.Contains(answer.Body.String(), "evil.example") {
		t.Error("the page has the Host in it")
	}
}

// A page that the vault's fault keeps away says so, and later works again.
func TestTheVaultIsAway(t *testing.T) {
	a := newAgency(t)
	_, address := a.invite("Nord AG")
	c := a.customer()
	at := c.press(address)
	identity := filepath.Join(a.dir, "identity.txt")
	if err := os.Rename(identity, identity+".away"); err != nil {
		t.Fatal(err)
	}
	a.restart()
	page := a.customer().do(http.MethodPost, address, nil)
	page.has(t, 503, "This does not work at the moment", "49 30 123")
	if strings.Contains(page.text, a.dir) {
		t.Error("the page has an internal message")
	}
	// It is no other browser that came back.
	c.signIn(at, "jane").has(t, 503, "This does not work at the moment")
	if err := os.Rename(identity+".away", identity); err != nil {
		t.Fatal(err)
	}
	a.restart()
	c.signIn(c.press(address), "jane").has(t, 200, "Thank you")
}

func (a *agency) register(name, clientID, redirectURI string) error {
	r := config.Registration{Name: name, Environment: "lab", DisplayName: "Ship & Co", ClientID: clientID, RedirectURI: "http://localhost:0/cb", PublicRedirectURI: redirectURI, Home: "file"}
	return a.EditApplications(a.t.Context(), func(apps *config.Applications, save func() error) error {
		return a.AddSecret(a.t.Context(), apps, save, r, "s3cret")
	})
}

func (a *agency) unregister(name string) error {
	return a.EditApplications(a.t.Context(), func(apps *config.Applications, save func() error) error {
		kept := apps.Applications[:0]
		for _, r := range apps.Applications {
			if r.Name != name {
				kept = append(kept, r)
			}
		}
		apps.Applications = kept
		return save()
	})
}
