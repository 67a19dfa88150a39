package manager

import (
	"cmp"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/session"
)

// registerPublic registers an application in the lab whose customers can be invited.
func (w *world) registerPublic(name string) {
	w.t.Helper()
	r := config.Registration{Name: name, Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:8400/callback", PublicRedirectURI: publicURL + "/callback"}
	if _, err := w.RegisterApplication(w.t.Context(), r, "s3cret"); err != nil {
		w.t.Fatal(err)
	}
}

var (
	posts  = regexp.MustCompile(`(?s)<form[^>]* method="post"[^>]*>(.*?)</form>`)
	areas  = regexp.MustCompile(`(?s)<textarea[^>]*>(.*?)</textarea>`)
	linked = regexp.MustCompile(regexp.QuoteMeta(publicURL) + `/i/[a-z2-7]{32}`)
)

// post presses a button of a form that changes something, with what is typed, and returns
// what came back.
func (w *world) post(p shown, words string, typed url.Values) shown {
	w.t.Helper()
	for _, m := range buttons.FindAllStringSubmatch(p.html, -1) {
		button := attributes(m[1])
		if strings.TrimSpace(tags.ReplaceAllString(m[2], "")) != words {
			continue
		}
		for _, f := range posts.FindAllStringSubmatch(p.html, -1) {
			tag, _, _ := strings.Cut(f[0], ">")
			form := attributes(tag)
			if own := button["form"]; own != "" && own != form["id"] || own == "" && !strings.Contains(f[1], m[0]) {
				continue
			}
			q := url.Values{}
			for _, h := range hidden.FindAllStringSubmatch(f[1], -1) {
				q.Set(h[1], html.UnescapeString(h[2]))
			}
			if button["name"] != "" {
				q.Set(button["name"], button["value"])
			}
			maps.Copy(q, typed)
			return w.ask(http.MethodPost, cmp.Or(button["formaction"], form["action"]), q)
		}
	}
	w.t.Fatalf("no form has the button %q:\n%s", words, p.html)
	return shown{}
}

// made is the address on the page of a new invitation.
func (p shown) made() string {
	p.t.Helper()
	found := slices.Compact(linked.FindAllString(p.html, -1))
	if len(found) != 1 || len(areas.FindAllString(p.html, -1)) != 2 {
		p.t.Fatalf("the page has the addresses %q:\n%s", found, p.text())
	}
	return found[0]
}

// invitation is the one of an address.
func (w *world) invitation(at string) session.Invited {
	w.t.Helper()
	i, err := w.Invitation(w.t.Context(), strings.TrimPrefix(at, publicURL+"/i/"))
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

// customer signs in with an address, on another machine.
func (w *world) customer(at, user string) error {
	w.t.Helper()
	pressed, err := w.Press(w.t.Context(), w.invitation(at))
	if err != nil {
		w.t.Fatal(err)
	}
	back, err := (sandbox.Person{User: user, Password: "right"}).Callback(w.t.Context(), pressed.Address)
	if err != nil {
		w.t.Fatal(err)
	}
	u, err := url.Parse(back)
	if err != nil {
		w.t.Fatal(err)
	}
	remembered, err := w.OpenPress(w.t.Context(), pressed.Sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.Return(w.t.Context(), remembered, grant.Callback{Code: u.Query().Get("code"), Error: u.Query().Get("error")})
	return err
}

// The address of an invitation is shown on one page, once: it is in no address of a page,
// a reload makes no second invitation, and the page says that it can't show it again.
func TestInvite(t *testing.T) {
	w := newWorld(t)
	w.registerPublic("batch-suite")
	w.grant("Nord AG", "batch-suite", func(g *grant.Grant) { g.User = "jane@nord.example" })
	w.add("Nord AG", "Jane, +49 431 1234567", "")
	list := w.page("/")
	form := w.page(list.link("Invite"))
	form.has("Invite Nord AG", "You get an address to send to Nord AG. Whoever opens it signs in at ups.com on a machine of their own, and authorizes UPS® Batch Suite in lab.",
		"Nord AG is authorized until", "That authorization works until the new one is saved.", "Contact: Jane, +49 431 1234567",
		"Only this ups.com user may sign in. Last time it was jane@nord.example.", "Anybody may sign in. The expected user does not count then.", "The address works for", "Note for the customer")
	if !strings.Contains(form.html, `name="user" value="jane@nord.example"`) || !strings.Contains(form.html, `<option value="7d" selected>7 days</option>`) {
		t.Errorf("the form is not filled in:\n%s", form.html)
	}
	if own := w.page("/company?company=Nord+AG"); own.link("Invite") != "/invite?app=batch-suite&company=Nord+AG&env=lab" {
		t.Errorf("the company's page leads to %s", own.link("Invite"))
	}
	typed := url.Values{"user": {" jane@nord.example "}, "expires": {"14d"}, "note": {"Please by Friday."}}
	first := w.post(form, "Make the address", typed)
	if first.status != http.StatusSeeOther || !strings.HasPrefix(first.location, "/invited/") || strings.Contains(first.html, "/i/") {
		t.Fatalf("the form got %d to %s:\n%s", first.status, first.location, first.html)
	}
	// The same form once more, as a second press sends it.
	if again := w.post(form, "Make the address", typed); again.location != first.location {
		t.Errorf("the same form leads to %s and to %s", first.location, again.location)
	}
	if head := w.ask(http.MethodHead, first.location, nil); head.status != http.StatusOK {
		t.Errorf("HEAD got %d", head.status)
	}
	page := w.page(first.location)
	page.has("Send this address to Nord AG", "This page shows the address once. Copy it now: nobody can show it again.", "Application UPS® Batch Suite, lab",
		"Who may sign in jane@nord.example alone", "Contact Jane, +49 431 1234567", "Only a completed sign-in uses the address up.",
		"Please authorize UPS® Batch Suite to use the UPS data of Nord AG. Open this address in a browser:", "you type the password at ups.com and nowhere else. Agency GmbH")
	page.has("Nothing answers at public_url http://localhost:8489: ", "See that the service runs with a public listener, and that the proxy brings public_url there.")
	page.lacks("The earlier address")
	at := page.made()
	i := w.invitation(at)
	if i.ExpectUser != "jane@nord.example" || i.AnyUser || i.Note != "Please by Friday." || i.By != "manager" || i.Expires.Sub(i.Made.Truncate(time.Second)) != 14*24*time.Hour || len(at) > 76 {
		t.Errorf("%s is for %+v", at, i)
	}
	page.has("Works until " + i.Expires.Format("2006-01-02 15:04") + " UTC")
	if all, _, err := w.ListInvitations(t.Context(), session.Target{}); err != nil || len(all) != 1 {
		t.Errorf("there are %d invitations, %v", len(all), err)
	}
	reloaded := w.get(first.location)
	if reloaded.status != http.StatusGone || strings.Contains(reloaded.html, "/i/") {
		t.Errorf("a reload got %d:\n%s", reloaded.status, reloaded.html)
	}
	reloaded.has("The address for Nord AG was shown", "Nobody can show an address again. If you have not copied it, send a new one: the one before stops working then.")
	if unknown := w.get("/invited/0123"); unknown.status != http.StatusGone {
		t.Errorf("another page got %d", unknown.status)
	} else {
		unknown.has("This page has ended", "open the company and send a new address.")
	}
	own := w.page(page.link("Nord AG"))
	own.has("invited (manager)", "Invitations UPS® Batch Suite, lab The address works until "+i.Expires.Format("2006-01-02 15:04")+" UTC. Only jane@nord.example may sign in. Made on",
		"(manager). ID "+i.ID+". Note: Please by Friday. Withdraw Send a new address")
	if strings.Contains(own.html, "/i/") {
		t.Error("the company's page has the address")
	}
	w.page("/").has("authorized, invited")

	// From the page of the address that was shown: a new one, and the old one ends.
	fresh := w.page(w.post(reloaded, "Send a new address", nil).location)
	fresh.has("The earlier address does not work any more.")
	if next := w.invitation(fresh.made()); next.ExpectUser != i.ExpectUser || next.Note != i.Note || next.Expires.Sub(next.Made.Truncate(time.Second)) != 14*24*time.Hour {
		t.Errorf("the new one is for %+v", next)
	}
	if old := w.invitation(at); old.End == nil || old.End.Why != invitation.Replaced {
		t.Errorf("the old one is %+v", old)
	}
	// Anybody.
	form = w.page("/invite?company=Nord+AG")
	form.has("An earlier address works until", "It stops working when you make a new one.")
	anybody := w.page(w.post(form, "Make the address", url.Values{"user": {"jane"}, "anybody": {"yes"}, "expires": {"1d"}}).location)
	anybody.has("Who may sign in Anybody")
	if i := w.invitation(anybody.made()); !i.AnyUser || i.ExpectUser != "" {
		t.Errorf("it is for %+v", i)
	}
	// What can't be meant.
	form = w.page("/invite?company=Nord+AG")
	for _, wrong := range []struct {
		typed url.Values
		says  string
	}{
		{url.Values{"expires": {"7 weeks"}, "user": {"joe"}}, "Choose one of these."},
		{url.Values{"expires": {"400d"}}, "An invitation lasts 10 minutes at least and 90 days at most."},
		{url.Values{"note": {strings.Repeat("x", 1001)}}, "The note has 1001 characters; at most 1000 are allowed."},
		{url.Values{"user": {"a\u0007b"}}, "The expected user has a control character (U+0007) in it."},
	} {
		p := w.post(form, "Make the address", wrong.typed)
		if p.status != http.StatusUnprocessableEntity || !strings.Contains(p.html, "<title>Error: Invite Nord AG") {
			t.Errorf("%v got %d", wrong.typed, p.status)
		}
		p.has(wrong.says)
	}
	if p := w.ask(http.MethodPost, "/invite", url.Values{"company": {"Nord AG"}, "url": {"x"}}); p.status != http.StatusBadRequest {
		t.Errorf("an unknown field got %d", p.status)
	}
}

// A company that nobody knows is added; one whose name is near a known one is asked about.
func TestInviteNewCompany(t *testing.T) {
	w := newWorld(t)
	w.registerPublic("intelligent-rating")
	w.add("Nord AG", "", "")
	form := w.page(w.page("/").link("Invite a new company"))
	form.has("Invite a company", "You get an address to send to the company.", "Company", "Leave the field empty where nobody has signed in before.")
	empty := w.post(form, "Make the address", url.Values{"company": {" "}})
	empty.has("The company's name is empty.")
	asked := w.post(form, "Make the address", url.Values{"company": {"Nord AC"}, "note": {"Hello"}})
	if asked.status != http.StatusUnprocessableEntity {
		t.Errorf("a near name got %d", asked.status)
	}
	asked.has(`The company "Nord AC" is new; "Nord AG" is known already. Is this another company?`, "Tick the box if this is another company. Nothing was changed.")
	if !strings.Contains(asked.html, `value="Hello"`) || !strings.Contains(asked.html, `value="Nord AC"`) {
		t.Errorf("what was typed is lost:\n%s", asked.html)
	}
	if all, _, _ := w.ListInvitations(t.Context(), session.Target{}); len(all) != 0 {
		t.Errorf("a question invited: %+v", all)
	}
	page := w.page(w.post(asked, "Make the address", url.Values{"company": {"Nord AC"}, "sure": {"yes"}}).location)
	page.has("Send this address to Nord AC", "The user of the earlier authorization, or anybody where there is none")
	if i := w.invitation(page.made()); i.Company != "Nord AC" || i.ExpectUser != "" || i.AnyUser {
		t.Errorf("it is for %+v", i)
	}
	w.page("/?show=invited").has("Nord AC", "unauthorized, invited")
	w.page("/?show=invited").lacks("Nord AG")
	// By its address.
	near := w.page("/invite?company=Nord+AGG")
	near.has(`The company "Nord AGG" is new; "Nord AG" is known already. Is this another company?`)
	if p := w.post(near, "Make the address", nil); p.status != http.StatusUnprocessableEntity {
		t.Errorf("it got %d", p.status)
	}
	w.registerPublic("batch-suite")
	several := w.page("/invite")
	several.has("Several applications are registered. Choose the one that the customer is invited for.")
	w.page(several.link("Invite for UPS® Batch Suite, lab")).has("authorizes UPS® Batch Suite in lab")
	w.page(w.page("/company?company=Nord+AG").link("Invite for UPS® Batch Suite, lab")).has("Invite Nord AG", "authorizes UPS® Batch Suite in lab")
}

// What is missing for invitations is said, and no button fails.
func TestWhatInvitationsLack(t *testing.T) {
	w := newWorld(t)
	if p := w.get("/invite?company=Nord+AG"); p.status != http.StatusNotFound {
		t.Errorf("without an application it got %d", p.status)
	}
	w.register("batch-suite")
	w.grant("Nord AG", "batch-suite", func(g *grant.Grant) { g.Void = true })
	lacks := func(want ...string) shown {
		t.Helper()
		own := w.page("/company?company=Nord+AG")
		for _, p := range []shown{own, w.page("/")} {
			if strings.Contains(p.html, ">Send a new address<") {
				t.Errorf("a button would fail:\n%s", p.text())
			}
		}
		own.has("Press Authenticate: somebody must sign in at ups.com again.")
		p := w.page(own.link("Invite"))
		p.has(append(want, "Invite Nord AG", "Cancel")...)
		if strings.Contains(p.html, "Make the address") {
			t.Error("the page has a button that fails")
		}
		return p
	}
	p := lacks("UPS® Batch Suite in lab has no public redirect URI. UPS would not know where to send customers' browsers.",
		"Add this Callback URL to the application in UPS's developer portal: http://localhost:8489/callback", "Then enter the same address as public redirect URI.")
	form := w.page(p.link("UPDATE API ACCESS"))
	form.has("Public redirect URI For customers whom you invite: another Callback URL in UPS's developer portal, below public_url under [serve] in config.toml, such as http://localhost:8489/callback. Leave the field empty if you invite nobody.")
	save := func(change url.Values) shown {
		t.Helper()
		typed := url.Values{"app": {"batch-suite"}, "env": {"lab"}, "client-id": {"cid"}, "redirect-uri": {"http://localhost:8400/callback"}, "client-secret": {""}}
		for name, values := range change {
			typed[name] = values
		}
		return w.ask(http.MethodPost, "/access-key", typed)
	}
	if p := save(url.Values{"public-redirect-uri": {"https://other.example/callback"}}); p.location != "/access-keys?done=updated" {
		t.Errorf("it got %d:\n%s", p.status, p.text())
	}
	lacks("The public redirect URI of UPS® Batch Suite in lab is https://other.example/callback. That address is not below public_url under [serve] in config.toml.",
		"Add a Callback URL to the application in UPS's developer portal that is below public_url, such as http://localhost:8489/callback")
	if p := save(url.Values{"public-redirect-uri": {"http://auth.agency.example/callback"}}); p.status != http.StatusUnprocessableEntity {
		t.Errorf("plain http got %d", p.status)
	}
	save(url.Values{"public-redirect-uri": {publicURL + "/callback"}})
	w.page("/access-keys").has("Public redirect URI http://localhost:8489/callback")
	w.page("/company?company=Nord+AG").has("Press Send a new address: somebody must sign in at ups.com again.")

	// What the form does not change stays, whoever sends it: another secret, another client ID.
	public := func() string {
		t.Helper()
		r, err := w.FindApplication(t.Context(), "batch-suite", "lab")
		if err != nil {
			t.Fatal(err)
		}
		return r.PublicRedirectURI
	}
	save(url.Values{"client-secret": {"0ther"}})
	save(url.Values{"client-id": {"another"}, "client-secret": {"0ther"}, "sure": {"yes"}})
	if public() != publicURL+"/callback" {
		t.Errorf("other keys made the public redirect URI %q", public())
	}
	if p := save(url.Values{"client-id": {"another"}, "public-redirect-uri": {publicURL + "/callback"}}); p.location != "/access-keys?done=same" {
		t.Errorf("nothing changed, and it got %s", p.location)
	}
	if save(url.Values{"client-id": {"another"}, "public-redirect-uri": {""}}); public() != "" {
		t.Errorf("an empty field leaves %q", public())
	}

	w.Config.Serve.PublicURL = ""
	w.page("/invite?company=Nord+AG").has("Customers can't be invited yet: public_url under [serve] in config.toml is not set.",
		"Set public_url to the address at which customers' browsers reach this service, such as https://auth.agency.example.", "Then start upsauth serve again.")
	if p := w.ask(http.MethodPost, "/invite", of("Nord AG", "batch-suite")); p.status != http.StatusConflict {
		t.Errorf("a form that is late got %d", p.status)
	}
}

// At void, expiring and expired one press makes a new address, and the old one ends.
func TestSendANewAddress(t *testing.T) {
	w := newWorld(t)
	w.registerPublic("intelligent-rating")
	soon := func(g *grant.Grant) {
		g.RefreshTokenExpires = g.Issued.Add(48 * time.Hour)
		g.RefreshUntil = g.RefreshTokenExpires
	}
	for name, change := range map[string]func(*grant.Grant){"Void AG": func(g *grant.Grant) { g.Void = true }, "Soon AG": soon, "Late AG": expired, "Fine AG": nil} {
		w.grant(name, "intelligent-rating", func(g *grant.Grant) {
			g.User = name + "@ups"
			if change != nil {
				change(g)
			}
		})
	}
	if list := w.page("/"); strings.Count(list.html, ">Send a new address<") != 3 {
		t.Errorf("the list has %d buttons:\n%s", strings.Count(list.html, ">Send a new address<"), list.text())
	}
	if fine := w.page("/company?company=Fine+AG"); strings.Contains(fine.html, ">Send a new address<") {
		t.Error("an authorization that is good has the button")
	}
	for _, name := range []string{"Void AG", "Soon AG", "Late AG"} {
		own := w.page(companyAt("/company", name))
		if !strings.Contains(own.html, `<button class="go" form="again"`) {
			t.Errorf("it is not the main action of %s", name)
		}
		press := w.post(own, "Send a new address", nil)
		if twice := w.post(own, "Send a new address", nil); twice.location != press.location {
			t.Errorf("two presses lead to %s and %s", press.location, twice.location)
		}
		first := w.page(press.location).made()
		list := w.page("/?q=" + url.QueryEscape(name))
		list.has(", invited")
		second := w.page(w.post(list, "Send a new address", nil).location)
		second.has("The earlier address does not work any more.")
		if old, fresh := w.invitation(first), w.invitation(second.made()); old.End == nil || !fresh.Open(w.Now()) || fresh.By != "manager" {
			t.Errorf("the old one is %+v, the new one %+v", old.End, fresh)
		}
		if err := w.customer(second.made(), name+"@ups"); err != nil {
			t.Fatal(err)
		}
		w.page("/?q="+url.QueryEscape(name)).lacks("Send a new address", "invited")
		w.page(companyAt("/company", name)).has("State: authorized", "Completed on", "by "+name+"@ups.")
	}
	if p := w.ask(http.MethodPost, "/invite/again", url.Values{"of": {"company=Nobody&app=intelligent-rating&env=lab"}}); p.status != http.StatusNotFound {
		t.Errorf("an unknown company got %d", p.status)
	}
	if p := w.ask(http.MethodPost, "/invite/again", url.Values{"of": {"app=%zz"}}); p.status != http.StatusBadRequest {
		t.Errorf("what names no company got %d", p.status)
	}
}

func companyAt(path, company string) string { return path + "?company=" + url.QueryEscape(company) }

// The company's page has its invitations: a wrong user, a user who waits, and how they
// ended. Who waits for the sender stands out on the list.
func TestInvitationsOfACompany(t *testing.T) {
	w := newWorld(t)
	w.registerPublic("intelligent-rating")
	w.grant("Acme", "intelligent-rating", func(g *grant.Grant) { g.User = "jane" })
	w.add("Nord AG", "", "")
	invite := func(company string, typed url.Values) string {
		t.Helper()
		return w.page(w.post(w.page(companyAt("/invite", company)), "Make the address", typed).location).made()
	}
	own := func(company string) shown {
		t.Helper()
		return w.page(companyAt("/company", company))
	}
	// Another user than the expected one.
	at := invite("Nord AG", url.Values{"user": {"nora"}})
	if err := w.customer(at, "joe"); err == nil {
		t.Fatal("joe is not nora")
	}
	own("Nord AG").has("Wrong user: joe signed in on", "Nothing was saved.", "The address works until", "Only nora may sign in.")
	w.page("/").has("unauthorized, invited, wrong user")
	gone := w.post(own("Nord AG"), "Withdraw", nil)
	if gone.location != "/company?company=Nord+AG&done=withdrawn" {
		t.Fatalf("it got %d to %s", gone.status, gone.location)
	}
	w.page(gone.location).has("The invitation is withdrawn. Its address does not work any more.", "Withdrawn on", "invitation withdrawn (manager)")
	w.page("/").lacks("invited")

	// A user who stands for another company.
	at = invite("Nord AG", nil)
	before := own("Nord AG") // as another window has it
	if err := w.customer(at, "jane"); err != nil {
		t.Fatal(err)
	}
	list := w.page("/")
	list.has("1 user who signed in waits for your answer", "unauthorized, user to confirm")
	w.page("/?show=held").has("Nord AG")
	w.page("/?show=held").lacks("Acme")
	w.page("/?show=person").has("Nord AG")
	if p := w.get("/next"); p.location != "/company?company=Nord+AG" {
		t.Errorf("next leads to %s", p.location)
	}
	waits := own("Nord AG")
	waits.has("A user who signed in waits for your answer", "jane signed in on", "Is this the right user? The authorization is not in place before you confirm it.", "Acme", "Confirm Refuse")
	w.page(companyAt("/invite", "Nord AG")).has("A user has signed in and waits for your answer. A new address would drop that sign-in.", "Confirm or refuse the user on the company's page first.")
	if p := w.ask(http.MethodPost, "/invite", of("Nord AG", "intelligent-rating")); p.status != http.StatusConflict {
		t.Errorf("a form for one who waits got %d", p.status)
	}
	refused := w.page(w.post(waits, "Refuse", nil).location)
	refused.has("The user is refused. The company's earlier authorization, if there is one, stays as it was.", "Refused on", "jane was not the right user.", "user refused (manager): jane")
	late := w.post(waits, "Confirm", nil)
	if late.status != http.StatusConflict {
		t.Errorf("a late answer got %d", late.status)
	}
	late.has("Nobody waits for your answer", "No user waits to be confirmed. Nothing was changed.")
	late = w.post(before, "Withdraw", nil)
	if late.status != http.StatusConflict {
		t.Errorf("a late press got %d", late.status)
	}
	late.has("The invitation has ended", "Refused on", "Nothing was changed.")
	if _, err := w.Vault.Record(t.Context(), grant.ID{Company: "Nord AG", Application: "intelligent-rating", Environment: "lab"}); err == nil {
		t.Error("a refused user is in place")
	}

	at = invite("Nord AG", nil)
	if err := w.customer(at, "jane"); err != nil {
		t.Fatal(err)
	}
	if p := w.ask(http.MethodPost, "/invite/again", url.Values{"of": {"company=Nord+AG&app=intelligent-rating&env=lab"}}); p.status != http.StatusConflict {
		t.Errorf("a new address for one who waits got %d", p.status)
	}
	confirmed := w.page(w.post(own("Nord AG"), "Confirm", nil).location)
	confirmed.has("The user is confirmed, and the authorization is in place.", "State: authorized", "Completed on", "by jane.", "authorized by jane (invitation ", "user confirmed (manager): jane")
	w.page("/").lacks("waits for your answer")

	// Completed at once, and a company that is called otherwise by now.
	at = invite("Acme", nil)
	if p := w.change("/rename", url.Values{"company": {"Acme"}, "name": {"Acme Corp"}}); p.status != http.StatusOK {
		t.Fatal(p.text())
	}
	if err := w.customer(at, "jane"); err != nil {
		t.Fatal(err)
	}
	own("Acme Corp").has("Completed on", "by jane.")
	for _, bad := range []string{"", "x", strings.Repeat("a", 52)} {
		if p := w.ask(http.MethodPost, "/invitation/withdraw", url.Values{"invitation": {bad}}); p.status != http.StatusNotFound {
			t.Errorf("%q got %d", bad, p.status)
		}
	}
}
