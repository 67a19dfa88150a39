package manager

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/company/companytest"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

func of(company, application string) url.Values {
	return url.Values{"company": {company}, "app": {application}, "env": {"lab"}}
}

// Whoever holds the manual of UPS Intelligent Rating finds each of its clicks: Authorize
// Customer, Authorize beside the company, the way to ups.com, the confirmation with every
// real value, HOME.
func TestManualOfIntelligentRating(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.add("Acme & Söhne", "Jane, +49 431 1234567", "")
	list := w.page(w.page("/").link("Authorize Customer"))
	list.has("Authorize Customer", "Acme & Söhne", "not authorized")
	before := w.page(list.link("Authorize"))
	before.has("Authorize Acme & Söhne", "UPS® Intelligent Rating in lab", "Sign out at ups.com if this browser is still signed in", "CampusShip profile does not work",
		"If the user who signs in changes the ups.com password, the company must authorize again.", "Jane, +49 431 1234567", "http://localhost:8400/callback", "port 8400 of this machine, where upsauth serve runs",
		"check the box of the agreement and click Continue", "click Log In")
	p := w.ask(http.MethodPost, "/authorize", of("Acme & Söhne", "intelligent-rating"))
	if p.status != http.StatusSeeOther || !strings.HasPrefix(p.location, "/sign-in/") || !strings.HasSuffix(p.location, "/ups") {
		t.Fatalf("the button led to %d %s", p.status, p.location)
	}
	away := w.page(p.location)
	if !strings.Contains(away.html, `<meta http-equiv="refresh" content="0; url=http://127.0.0.1:`) {
		t.Errorf("the page does not lead to UPS by itself:\n%s", away.html)
	}
	address := away.link("Continue to UPS")
	waits := w.page(away.link("Show the result"))
	waits.has("Waiting for the sign-in of Acme & Söhne", "The answer arrives at 127.0.0.1:8400 on this machine, where upsauth serve runs")
	here := strings.TrimSuffix(p.location, "/ups")

	// What is pasted wrongly changes nothing, and is not shown again.
	wrong := w.ask(http.MethodPost, here+"/paste", url.Values{"address": {"http://localhost:8400/callback?code=c0de&state=x"}})
	if wrong.status != http.StatusUnprocessableEntity || strings.Contains(wrong.html, "c0de") || !strings.Contains(wrong.html, `aria-invalid="true" aria-describedby="address-wrong"`) {
		t.Errorf("a wrong paste got %d:\n%s", wrong.status, wrong.html)
	}
	wrong.has("The address is not that of this sign-in. The sign-in still waits.")
	saved := w.change(here+"/paste", url.Values{"address": {w.signInAs("jane", address)}})
	record, err := w.Vault.Record(t.Context(), grant.ID{Company: "Acme & Söhne", Application: "intelligent-rating", Environment: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	panel := []string{"UPS API ACCESS AUTHORIZED An OAuth token exists for this company!", "Token Vault Key" + " " + record.TokenVaultKey, "Issued", "Expires", "Refresh Token Issued", "Refresh Token Expires"}
	saved.has(append(panel, "Acme & Söhne is authorized", "jane signed in for", "changes the ups.com password")...)
	if home := saved.link("HOME"); home != "/" {
		t.Errorf("HOME leads to %s", home)
	}
	w.page("/").has("authorized", "jane", "in 59 days")
	w.page(saved.link("Acme & Söhne")).has(append(panel, "State: authorized", "authorized by jane (manager)")...)
	if again := w.get(p.location); again.status != http.StatusSeeOther || again.location != here {
		t.Errorf("the way to UPS leads to %d %s when all is done", again.status, again.location)
	}
}

// The same for UPS Batch Suite: My Company, Authenticate, CONFIGURED, UPDATE API ACCESS,
// Refresh expires, REMOVE AUTH.
func TestManualOfBatchSuite(t *testing.T) {
	w := newWorld(t)
	keys := w.page(w.page("/").link("Access Key Configuration"))
	keys.has("UPS® Batch Suite, production NOT CONFIGURED The application is not registered.")
	form := w.page(keys.link("Register an application of your own"))
	form.has("Client ID", "Redirect URI", "Client secret", "saved in the vault and never shown")
	for _, part := range []string{`type="password"`, `autocomplete="new-password"`, `<option value="lab">lab</option>`} {
		if !strings.Contains(form.html, part) {
			t.Errorf("the form has no %s", part)
		}
	}
	typed := url.Values{"new": {"1"}, "app": {"batch-suite"}, "env": {"lab"}, "client-id": {"cid"}, "redirect-uri": {"http://localhost:8400/callback"}, "client-secret": {"s3cret"}}
	w.change("/access-key", typed).has("The application is registered.", "UPS® Batch Suite, lab CONFIGURED")
	w.add("Batch Ltd", "", "")
	list := w.page(w.page("/").link("My Company"))
	list.has("My Company", "Batch Ltd")
	w.page(list.link("Authenticate")).has("Authenticate Batch Ltd")
	p := w.ask(http.MethodPost, "/authorize", of("Batch Ltd", "batch-suite"))
	address := w.page(p.location).link("Continue to UPS")
	saved := w.change(strings.TrimSuffix(p.location, "/ups")+"/paste", url.Values{"address": {w.signInAs("bob", address)}})
	record, err := w.Vault.Record(t.Context(), grant.ID{Company: "Batch Ltd", Application: "batch-suite", Environment: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	panel := []string{"Access Key Configuration CONFIGURED UPDATE API ACCESS", "OAuth Configuration Refresh expires: " + record.RefreshTokenExpires.UTC().Format("2006-01-02 15:04:05") + " REMOVE AUTH"}
	saved.has(panel...)
	own := w.page(saved.link("Batch Ltd"))
	own.has(panel...)
	w.page(own.link("UPDATE API ACCESS")).has("UPDATE API ACCESS", "batch-suite, lab", "Leave the field empty to keep the present secret.")
	question := w.page(own.link("REMOVE AUTH"))
	question.has("Remove the authorization of Batch Ltd?", "UPS has no way to revoke a token: a token stays valid until it expires.",
		"the person who signed in must change the ups.com password", "bob signed in", "Keep the authorization")
	if _, err := w.Vault.Record(t.Context(), record.ID); err != nil {
		t.Errorf("a question removed it: %v", err)
	}
	gone := w.change("/remove", of("Batch Ltd", "batch-suite"))
	gone.has("The authorization and its tokens are removed from this machine.", "No OAuth token exists for this company.", "revoked (manager)")
	if _, err := w.Vault.Record(t.Context(), record.ID); err == nil {
		t.Error("it is not removed")
	}
	w.page("/?show=none").has("Batch Ltd")
}

// The wrong person: a question with two buttons, and nothing is stored before the yes.
func TestWhoSignedIn(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	before := w.grant("Acme", "intelligent-rating", func(g *grant.Grant) { g.User = "jane" })
	w.page(address("/authorize", before.ID)).has("Last time it was jane")
	begin := func() (here, at string) {
		t.Helper()
		w.page(address("/authorize", before.ID)).has("Last time it was", "is authorized until")
		p := w.ask(http.MethodPost, "/authorize", of("Acme", "intelligent-rating"))
		return strings.TrimSuffix(p.location, "/ups"), w.page(p.location).link("Continue to UPS")
	}
	key := func() string {
		t.Helper()
		record, err := w.Vault.Record(t.Context(), before.ID)
		if err != nil {
			t.Fatal(err)
		}
		return record.TokenVaultKey
	}
	here, at := begin()
	asked := w.change(here+"/paste", url.Values{"address": {w.signInAs("joe", at)}})
	asked.has("Is this the right user for Acme?", "joe signed in at ups.com.", "Acme was authorized by jane before, and by joe now.", "Yes, keep this authorization", "No, drop it")
	if p := w.ask(http.MethodPost, here+"/user", url.Values{}); p.status != http.StatusBadRequest {
		t.Errorf("no answer got %d", p.status)
	}
	if key() != before.TokenVaultKey {
		t.Error("something was stored before the yes")
	}
	w.change(here+"/user", url.Values{"keep": {"no"}}).has("Acme was not authorized", "The authorization by joe was not kept")
	if key() != before.TokenVaultKey {
		t.Error("something was stored after the no")
	}
	w.change(here+"/user", url.Values{"keep": {"yes"}}).has("Acme was not authorized") // a second thought is too late
	here, at = begin()
	w.change(here+"/paste", url.Values{"address": {w.signInAs("joe", at)}})
	w.change(here+"/user", url.Values{"keep": {"yes"}}).has("Acme is authorized")
	if key() == before.TokenVaultKey {
		t.Error("nothing was stored after the yes")
	}
	// A new press for the company ends the one before.
	old, _ := begin()
	newer, _ := begin()
	w.page(old).has("Acme was not authorized")
	w.page(newer).has("Waiting for the sign-in of Acme")
	w.change(newer+"/end", nil).has("State: authorized")
	if p := w.get("/sign-in/unknown"); p.status != http.StatusNotFound {
		t.Errorf("an unknown sign-in got %d", p.status)
	}
}

// Where the browser is elsewhere, the page names the port to forward, and the next page
// keeps a field for the address. It does not lead away by itself.
func TestBrowserElsewhere(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.add("Acme", "", "")
	form := of("Acme", "intelligent-rating")
	form.Set("paste", "yes")
	p := w.ask(http.MethodPost, "/authorize", form)
	if p.status != http.StatusSeeOther || strings.HasSuffix(p.location, "/ups") {
		t.Fatalf("%d to %s", p.status, p.location)
	}
	waits := w.page(p.location)
	waits.has("Paste the address at once: its code is valid for about 30 seconds.", "UPS sends the browser to http://localhost:8400/callback")
	if strings.Contains(waits.html, "http-equiv") {
		t.Error("the page leaves by itself")
	}
	w.change(p.location+"/paste", url.Values{"address": {w.signInAs("jane", waits.link("Continue to UPS in a new window"))}}).has("Acme is authorized")
	w.page(address("/authorize", grant.ID{Company: "Acme", Application: "intelligent-rating", Environment: "lab"})).has("The answer arrives at port 8400 of this machine, where upsauth serve runs.", "ssh -L 8400:localhost:8400 MACHINE. Write the name or address of the machine where upsauth serve runs in the place of MACHINE.")
}

// A redirect URI with port 0 is said in words: no browser ever goes to port 0.
func TestAnyFreePort(t *testing.T) {
	w := newWorld(t)
	if _, err := w.RegisterApplication(t.Context(), config.Registration{Name: "intelligent-rating", Environment: "lab", ClientID: "cid", RedirectURI: "http://localhost:0/callback"}, "s3cret"); err != nil {
		t.Fatal(err)
	}
	p := w.page("/authorize?company=Acme")
	p.has("UPS sends the browser to a free port of this machine, where upsauth serve runs. upsauth chooses the port when the sign-in begins.")
	p.lacks(":0/")
	p = w.page("/access-keys")
	p.has("http://localhost/callback, at a free port that upsauth chooses when a sign-in begins")
	p.lacks(":0/")
	form := of("Acme", "intelligent-rating")
	form.Set("paste", "yes")
	p = w.page(w.ask(http.MethodPost, "/authorize", form).location)
	p.has("UPS sends the browser to a port of its own machine.")
	p.lacks(":0/")
}

// A name that begins a sentence is written as it is: another case is another name to read.
func TestNamesKeepTheirCase(t *testing.T) {
	w := newWorld(t)
	w.register("batch-suite")
	w.add("nord", "", "")
	w.change("/check", nil).has("applications ok: batch-suite (lab) has its client secret", "grants ok: 1 company: 1 not authorized")
	p := w.get("/remove?company=nord&app=batch-suite&env=lab")
	if p.status != http.StatusNotFound {
		t.Errorf("got %d", p.status)
	}
	p.has("nord has no authorization yet.")
	p.lacks("Nord")
}

// The list tells the states apart, finds, filters and leads through the companies that
// need somebody.
func TestList(t *testing.T) {
	w := newWorld(t)
	w.page("/").has("There are no companies yet.")
	w.register("intelligent-rating")
	w.register("batch-suite")
	by := func(user string, change func(*grant.Grant)) func(*grant.Grant) {
		return func(g *grant.Grant) {
			if g.User = user; change != nil {
				change(g)
			}
		}
	}
	w.grant("Acme Corp", "intelligent-rating", by("jane", nil))
	w.grant("Acme Corp", "batch-suite", by("jane", nil))
	w.grant("Beta AG", "intelligent-rating", by("bob", expired))
	w.grant("Gamma <b>&amp;", "batch-suite", by("gus", func(g *grant.Grant) { g.Void = true }))
	w.add("Zeta", "Zoe", "asleep on Mondays")
	for query, want := range map[string][]string{
		"":                           {"Acme Corp", "Beta AG", "Gamma <b>&amp;", "Zeta"},
		"?show=person":               {"Beta AG", "Gamma <b>&amp;"},
		"?show=authorized":           {"Acme Corp"},
		"?show=none":                 {"Zeta"},
		"?q=aCmE":                    {"Acme Corp"},
		"?q=mondays":                 {"Zeta"},
		"?q=%3Cb%3E":                 {"Gamma <b>&amp;"},
		"?app=batch-suite":           {"Acme Corp", "Beta AG", "Gamma <b>&amp;", "Zeta"},
		"?app=batch-suite&show=none": {"Beta AG", "Zeta"},
		"?app=intelligent-rating&show=authorized&env=lab": {"Acme Corp"},
		"?env=nowhere&show=authorized":                    nil,
		"?q=nobody":                                       nil,
		"?page=99&show=none":                              {"Zeta"},
		"?show=strange&page=-1&app=%00&env=%00":           {"Acme Corp", "Beta AG", "Gamma <b>&amp;", "Zeta"},
	} {
		p := w.page("/" + query)
		var got []string
		for _, one := range []string{"Acme Corp", "Beta AG", "Gamma <b>&amp;", "Zeta"} {
			if strings.Contains(p.text(), one) {
				got = append(got, one)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q shows %q, not %q:\n%s", query, got, want, p.text())
		}
		if want == nil {
			p.has("No company matches these filters.")
		}
	}
	// From one to the next, and from the last to the first.
	var path []string
	at := "/next"
	for range 4 {
		p := w.get(at)
		if p.status != http.StatusSeeOther {
			t.Fatalf("%s got %d", at, p.status)
		}
		path = append(path, p.location)
		at = w.page(p.location).link("Next company that needs you")
	}
	if len(path) < 4 || path[0] != "/company?company=Beta+AG" || !slices.Contains(path, "/company?company=Zeta") || !slices.Contains(path[1:], path[0]) {
		t.Errorf("it leads to %q", path)
	}
}

// Ten thousand companies come in pages with an order that stays, and each page is small.
func TestTenThousandCompanies(t *testing.T) {
	w := newWorld(t)
	memory := companytest.New()
	w.Companies = company.Open(memory)
	w.register("intelligent-rating")
	const total = 10_000
	for i := range total {
		if _, err := w.Companies.Add(t.Context(), fmt.Sprintf("Company %05d of the Agency", i), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	first := w.page("/")
	first.has("Company 00000", "Company 00019", "Page 1 of 500", "10000 companies")
	first.lacks("Company 00020", "Previous page")
	second := w.page(first.link("Next page"))
	second.has("Company 00020", "Company 00039", "Page 2 of 500")
	last := w.page(second.link("Last page"))
	last.has("Company 09999", "Page 500 of 500")
	last.lacks("Next page")
	w.page(last.link("Previous page")).has("Company 09979")
	w.page("/?q=05000").has("Company 05000")
	if p := w.get("/next?company=Company+05000+of+the+Agency"); p.location != "/company?company=Company+05001+of+the+Agency" {
		t.Errorf("next is %s", p.location)
	}
}

// What is typed wrongly comes back with what was typed, and the fault at its field. The
// secret does not come back.
func TestForms(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	fails := func(path string, form url.Values, field, why string) shown {
		t.Helper()
		p := w.ask(http.MethodPost, path, form)
		if p.status != http.StatusUnprocessableEntity || !strings.Contains(p.html, `aria-describedby="`+field+`-wrong"`) || !strings.Contains(p.html, "<title>Error: ") {
			t.Errorf("%s with %v got %d:\n%s", path, form, p.status, p.html)
		}
		p.has(why)
		return p
	}
	long := strings.Repeat("x", 1001)
	p := fails("/add", url.Values{"company": {" "}, "contact": {"Jane"}}, "company", "name")
	if !strings.Contains(p.html, `value="Jane"`) {
		t.Error("what was typed did not come back")
	}
	fails("/add", url.Values{"company": {"Acme"}, "note": {long}}, "note", "at most 1000")
	w.change("/add", url.Values{"company": {"Acme Corp"}, "contact": {"Jane"}, "note": {"n"}}).has("The company is on the list.", "added (manager)")
	p = fails("/add", url.Values{"company": {"Acme Korp"}}, "company", "Is this another company?")
	p.has("Yes, this is another company.")
	w.change("/add", url.Values{"company": {"Acme Korp"}, "sure": {"yes"}}).has("The company is on the list.")
	w.change("/add", url.Values{"company": {"ACME corp"}}).has("The company was on the list already.")
	if contact := w.Contact(t.Context(), "Acme Corp"); contact != "Jane" {
		t.Errorf("the contact is %q", contact)
	}
	fails("/contact", url.Values{"company": {"Acme Corp"}, "contact": {long}, "note": {"kept"}}, "contact", "at most 1000")
	w.change("/contact", url.Values{"company": {"Acme Corp"}, "contact": {""}, "note": {"signs in on Mondays"}}).has("Contact and note are saved.")
	if contact := w.Contact(t.Context(), "Acme Corp"); contact != "" {
		t.Errorf("the contact is %q", contact)
	}

	fails("/rename", url.Values{"company": {"Acme Korp"}, "name": {""}}, "name", "name")
	fails("/rename", url.Values{"company": {"Acme Korp"}, "name": {"acme corp"}}, "name", "Acme Corp already exists.").has("Merge the two companies into one, called Acme Corp.")
	fails("/rename", url.Values{"company": {"Acme Korp"}, "name": {"Acme Corb"}}, "name", "Is this another company?")
	w.change("/rename", url.Values{"company": {"Acme Korp"}, "name": {"Apex"}}).has("Apex", "The company has its new name.", "renamed (manager)")
	w.grant("Apex", "intelligent-rating", nil)
	w.change("/rename", url.Values{"company": {"Apex"}, "name": {"ACME CORP"}, "sure": {"yes"}}).has("Acme Corp", "The two companies are one now.", "UPS API ACCESS AUTHORIZED")
	w.grant("Other", "intelligent-rating", nil)
	fails("/rename", url.Values{"company": {"Other"}, "name": {"Acme Corp"}, "sure": {"yes"}}, "name", "both have an authorization")

	key := func(change ...string) url.Values {
		form := url.Values{"app": {"intelligent-rating"}, "env": {"lab"}, "client-id": {"cid"}, "redirect-uri": {"http://localhost:8400/callback"}, "client-secret": {""}}
		for i := 0; i < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return form
	}
	fails("/access-key", key("client-id", "a b"), "client-id", "has a space")
	fails("/access-key", key("client-id", ""), "client-id", "The client ID is missing.")
	fails("/access-key", key("redirect-uri", "callback"), "redirect-uri", "redirect URI")
	fails("/access-key", key("client-id", "new"), "client-secret", "Enter the client secret that belongs to the client ID.")
	fails("/access-key", key("client-secret", "a\x00b"), "client-secret", "can't be used")
	p = fails("/access-key", key("client-id", "new", "client-secret", "s3cret2"), "client-id", "2 companies must authorize again.")
	p.has("Change the client ID. 2 companies must authorize again.")
	if !strings.Contains(p.html, `value="new"`) {
		t.Error("the client ID did not come back")
	}
	if r, err := w.FindApplication(t.Context(), "intelligent-rating", "lab"); err != nil || r.ClientID != "cid" {
		t.Errorf("before the yes it is %q, %v", r.ClientID, err)
	}
	w.change("/access-key", key()).has("Nothing was changed.")
	w.change("/access-key", key("client-secret", "rotated")).has("API access is updated.")
	w.change("/access-key", key("redirect-uri", "http://localhost:8401/callback")).has("API access is updated.", "http://localhost:8401/callback")
	r, err := w.FindApplication(t.Context(), "intelligent-rating", "lab")
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := w.StoredSecret(t.Context(), r); err != nil || secret != "rotated" {
		t.Errorf("the secret is %q, %v", secret, err)
	}
	w.change("/access-key", key("client-id", "new", "client-secret", "another", "sure", "yes")).has("API access is updated.", "new")
	if r, err = w.FindApplication(t.Context(), "intelligent-rating", "lab"); err != nil || r.ClientID != "new" || r.RedirectURI != "http://localhost:8400/callback" {
		t.Errorf("after the yes it is %+v, %v", r, err)
	}
	if secret, err := w.StoredSecret(t.Context(), r); err != nil || secret != "another" {
		t.Errorf("the secret is %q, %v", secret, err)
	}
	fails("/access-key", key("new", "1", "client-secret", "x"), "app", "registered in this environment already")
	p = fails("/authorize", of("Acme Corq", "intelligent-rating"), "sure", "Is this another company?")
	p.has("Tick the box if this is another company.")
}

// Errors are pages that say what to do, with the pages where that is done.
func TestErrors(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.grant("Acme", "intelligent-rating", nil)
	is := func(p shown, status int, want ...string) shown {
		t.Helper()
		if p.status != status {
			t.Errorf("got %d:\n%s", p.status, p.text())
		}
		p.has(want...)
		p.lacks("upsauth authorize", "--", "Run:")
		return p
	}
	is(w.get("/company?company=Acne"), 404, "No company \"Acne\" is known here.", "Did you mean \"Acme\"?")
	is(w.get("/nothing"), 404, "There is no such page")
	is(w.get("/company"), 400, "The address names no company.")
	is(w.get("/remove?company=Acme&app=batch-suite"), 404, "has no authorization").link("Acme (intelligent-rating, lab)")
	// UPS knows no such refresh token: the grant is void now, and its page leads to UPS.
	p := is(w.ask(http.MethodPost, "/refresh", of("Acme", "intelligent-rating")), 409, "Did the person who signed in change the ups.com password?")
	w.page(p.link("Authorize Acme")).has("Authorize Acme")
	w.page("/company?company=Acme").has("State: void.", "Press Authorize: somebody must sign in at ups.com again.", "(manager)")
	w.page("/?show=person").has("Acme")
	w.grant("Beta", "mine", nil)
	p = is(w.ask(http.MethodPost, "/refresh", of("Beta", "mine")), 404, "The application \"mine\" is not registered for lab.")
	if !strings.Contains(w.page(p.link("Register an application")).html, `value="mine"`) {
		t.Error("the form does not know what it is for")
	}
	if p := w.ask(http.MethodGet, "/refresh?company=Acme", nil); p.status == http.StatusOK || p.status == http.StatusSeeOther {
		t.Errorf("a GET got %d", p.status)
	}
}

// Whoever has registered no application yet is led to the sandbox, which needs none.
func TestTheSandboxIsOffered(t *testing.T) {
	w := newWorld(t)
	w.add("Acme", "", "")
	p := w.get(w.page("/").link("Authorize"))
	if p.status != http.StatusNotFound {
		t.Errorf("got %d:\n%s", p.status, p.text())
	}
	p.has("No application yet", "Register an application")
	w.page(p.link("Try it at the sandbox, without an account at UPS")).has("Authorize Acme", "UPS® Intelligent Rating in sandbox")
}

// Refresh now makes one refresh, and the page says so.
func TestRefreshNow(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.add("Acme", "", "")
	p := w.ask(http.MethodPost, "/authorize", of("Acme", "intelligent-rating"))
	w.change(strings.TrimSuffix(p.location, "/ups")+"/paste", url.Values{"address": {w.signInAs("jane", w.page(p.location).link("Continue to UPS"))}})
	w.change("/refresh", of("Acme", "intelligent-rating")).has("The tokens are refreshed.", "refreshed (manager)")
	record, err := w.Pick(t.Context(), session.Target{Company: "Acme"})
	if err != nil || record.Generation != 2 {
		t.Errorf("the generation is %d, %v", record.Generation, err)
	}
}

// Is everything well? asks nobody and finds what doctor finds, when the button is pressed.
func TestIsEverythingWell(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.grant("Acme", "intelligent-rating", expired)
	w.page("/check").lacks("The last look")
	found := w.change("/check", nil)
	found.has("The last look was at", "Something needs attention.", "grants", "vault")
	w.page("/check").has("The last look was at")
}

// Every page is well formed for whoever has no mouse and no eyes: one h1, a title, labels.
// Chromium and axe look at the rest.
func TestPagesAreWhole(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.grant("Acme", "intelligent-rating", nil)
	for _, path := range []string{"/", "/add", "/company?company=Acme", "/rename?company=Acme", "/remove?company=Acme", "/authorize?company=Acme", "/access-keys", "/access-key?app=intelligent-rating&env=lab", "/access-key?new=1", "/check"} {
		p := w.page(path)
		if strings.Count(p.html, "<h1>") != 1 || strings.Count(p.html, "<main>") != 1 || !strings.Contains(p.html, `<html lang="en">`) || strings.Contains(p.html, "<script") || strings.Contains(p.html, "style=") {
			t.Errorf("%s is\n%s", path, p.html)
		}
		for _, id := range ids.FindAllStringSubmatch(p.html, -1) {
			if !strings.Contains(p.html, `for="`+id[1]+`"`) {
				t.Errorf("%s: the field %s has no label", path, id[1])
			}
		}
	}
}

// No page is larger than 15 KB, with names of 200 characters, users as long as they come
// and long histories; the whole history is there, in pages. The list has fewer companies a
// page where their names are long, and none is left out.
func TestPagesStaySmall(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.register("batch-suite")
	for _, letter := range []string{"x", "漢", "é"} {
		name := strings.Repeat(letter, 200)
		w.grant(name, "intelligent-rating", func(g *grant.Grant) { g.User = strings.Repeat(letter, 60) })
		w.grant(name, "batch-suite", nil)
		for n := range 47 {
			w.Note(t.Context(), grant.EventFailed, grant.ID{Company: name, Application: "batch-suite", Environment: "lab"},
				fmt.Sprint("UPS refused the refresh: UPS is not working right now (code 10500, \"Internal Server Error\", HTTP 500 at refresh) ", n))
		}
		own := w.page(address("/company", grant.ID{Company: name}))
		own.has("refresh) 46")
		own.lacks("refresh) 40 ")
		past := w.page(own.link("The whole history"))
		past.has("refresh) 46", "Page 1 of ")
		for strings.Contains(past.html, "Older events") {
			past = w.page(past.link("Older events"))
		}
		past.has("imported", "Newer events")
		for _, path := range []string{"/authorize", "/rename", "/remove"} {
			w.page(address(path, grant.ID{Company: name, Application: "batch-suite"}))
		}
	}
	w.Companies = company.Open(companytest.New())
	const total = 30
	for i := range total {
		w.add(fmt.Sprintf("%02d %s", i, strings.Repeat("株式会社", 12)), "", "")
		w.grant(fmt.Sprintf("Agency %02d", i), "intelligent-rating", nil)
	}
	seen := map[string]bool{}
	for p := w.page("/"); ; {
		for _, m := range links.FindAllStringSubmatch(p.html, -1) {
			if strings.HasPrefix(m[1], "/company?") {
				seen[m[1]] = true
			}
		}
		if !strings.Contains(p.text(), "Next page") {
			break
		}
		p = w.page(p.link("Next page"))
	}
	if len(seen) != 2*total+3 {
		t.Errorf("the pages show %d companies", len(seen))
	}
	w.page("/?q=Agency").has("Agency 15", "Page 1 of 2")
}

// What first users stumbled over: a button that leads nowhere, cells that say nothing, times
// in three formats, a removal that looks like its harmless neighbors.
func TestPagesSayWhatTheyMean(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	record := w.grant("Acme", "intelligent-rating", func(g *grant.Grant) { g.LastError = &grant.LastError{Code: "10500", Message: "down", Time: g.Issued} })
	list := w.page("/")
	if strings.Contains(list.html, "Next company that needs you") {
		t.Error("nobody is needed, and a button leads to nobody")
	}
	if want := record.RefreshTokenExpires.UTC().Format("2006-01-02\u00a015:04") + "\u00a0UTC, in\u00a059\u00a0days"; !strings.Contains(list.html, want) {
		t.Errorf("the list does not say %q", want)
	}
	w.add("Nord", "", "")
	list = w.page("/")
	list.has("Next company that needs you", "unauthorized")
	list.lacks("–", "not authorized Authorize")
	w.page("/?show=none").has("Nord")
	if keys := w.page("/access-keys"); !strings.Contains(keys.html, "Register another application") {
		t.Error("an application is registered, and there is no other one")
	}
	own := w.page("/company?company=Acme")
	own.has("Last error 10500: down (" + record.Issued.UTC().Format("2006-01-02 15:04") + " UTC)")
	own.lacks("–")
	if !strings.Contains(own.html, `<button class="risk">REMOVE AUTH</button>`) {
		t.Error("REMOVE AUTH looks like any other button")
	}
	var panel []string
	for _, row := range render.GrantRows(record) {
		panel = append(panel, row.Name+" "+row.Value)
	}
	own.has(strings.Join(panel, " "))
	w.page(address("/authorize", record.ID)).has("Acme is authorized until " + record.RefreshTokenExpires.UTC().Format("2006-01-02 15:04") + " UTC.")
	waits := w.page(strings.TrimSuffix(w.ask(http.MethodPost, "/authorize", of("Acme", "intelligent-rating")).location, "/ups"))
	looked := w.change("/check", nil)
	ups := regexp.MustCompile(`[0-9]+/[0-9]+/[0-9]{4}`)
	for _, p := range []shown{list, waits, looked} {
		if found := ups.FindString(p.html); found != "" {
			t.Errorf("%s has the time %s", p.text(), found)
		}
	}
	waits.has(" UTC. Continue to UPS")
	looked.has("The last look was at ", " UTC.")
}
