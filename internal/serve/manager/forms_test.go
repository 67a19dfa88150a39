package manager

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
)

// A form with a field that appears twice, or that nobody knows, could be meant in two ways:
// the company of one part must not lose its authorization for that of another.
func TestFormsAreTakenToTheLetter(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	before := w.grant("Acme", "intelligent-rating", func(*grant.Grant) {})
	w.add("Nord", "", "")
	begun := w.ask(http.MethodPost, "/authorize", of("Nord", "intelligent-rating"))
	here := strings.TrimSuffix(begun.location, "/ups")
	forms := map[string]url.Values{
		"/add":          {"company": {"Fresh"}, "contact": {""}, "note": {""}},
		"/contact":      {"company": {"Acme"}, "contact": {"Zoe"}, "note": {""}},
		"/rename":       {"company": {"Acme"}, "name": {"Other"}},
		"/refresh":      of("Acme", "intelligent-rating"),
		"/remove":       of("Acme", "intelligent-rating"),
		"/authorize":    of("Acme", "intelligent-rating"),
		"/access-key":   {"app": {"intelligent-rating"}, "env": {"lab"}, "client-id": {"cid"}, "redirect-uri": {"http://localhost:8401/callback"}, "client-secret": {""}},
		"/check":        {},
		here + "/paste": {"address": {"http://localhost:8400/callback?code=x"}},
		here + "/user":  {"keep": {"no"}},
		here + "/end":   {},
	}
	refused := func(what, path string, form url.Values, sentence string) {
		t.Helper()
		p := w.ask(http.MethodPost, path, form)
		if p.status != http.StatusBadRequest {
			t.Errorf("%s, %s: %d %s", what, path, p.status, p.location)
			return
		}
		p.has("This request was refused", sentence, "Nothing was changed.")
	}
	for path, form := range forms {
		for _, name := range slices.Sorted(maps.Keys(form)) {
			twice := maps.Clone(form)
			twice[name] = append(slices.Clone(form[name]), "Nord")
			refused("a field twice", path, twice, "The field "+name+" appears twice.")
			refused("a field in the address too", path+"?"+name+"=Nord", form, "The field "+name+" appears twice.")
			same := maps.Clone(form)
			same[name] = append(slices.Clone(form[name]), form[name]...)
			refused("a field twice with one value", path, same, "The field "+name+" appears twice.")
		}
		unknown := maps.Clone(form)
		unknown.Set("force", "yes")
		refused("an unknown field", path, unknown, `The field "force" is unknown here.`)
		refused("an unknown field in the address", path+"?force=yes", form, `The field "force" is unknown here.`)
		long := maps.Clone(form)
		long.Set(strings.Repeat("<b>", 100), "")
		refused("a long field", path, long, `…" is unknown here.`)
	}
	record, err := w.Vault.Record(t.Context(), before.ID)
	if err != nil || record.TokenVaultKey != before.TokenVaultKey || record.Generation != before.Generation {
		t.Errorf("the grant is %+v, %v", record, err)
	}
	list := w.page("/")
	list.has("Acme", "Nord")
	list.lacks("Fresh", "Other")
	w.page("/company?company=Acme").lacks("Zoe")
	w.page("/access-keys").has("http://localhost:8400/callback")
	w.page(here).has("Waiting for the sign-in of Nord")

	for _, path := range []string{"/?q=a&q=b", "/?app=x&app=x", "/company?company=Acme&company=Nord", "/history?company=Acme&page=1&page=2", "/remove?company=Acme&company=Nord", "/next?company=A&company=B", "/access-key?app=a&app=b", "/authorize?company=Acme&company=Nord"} {
		if p := w.get(path); p.status != http.StatusBadRequest || !strings.Contains(p.text(), "appears twice") {
			t.Errorf("%s: %d %s", path, p.status, p.text())
		}
	}
	w.page("/?utm_source=mail").has("Acme") // a foreign parameter of an address does no harm
}

// An answer to a question that nobody asked was dropped without a word.
func TestAnswerBeforeTheQuestion(t *testing.T) {
	w := newWorld(t)
	w.register("intelligent-rating")
	w.add("Acme", "", "")
	here := strings.TrimSuffix(w.ask(http.MethodPost, "/authorize", of("Acme", "intelligent-rating")).location, "/ups")
	p := w.ask(http.MethodPost, here+"/user", url.Values{"keep": {"no"}})
	if p.status != http.StatusConflict {
		t.Errorf("an answer before the question got %d", p.status)
	}
	p.has("Nobody has signed in yet", "Nothing was changed.")
	if to := p.link("Show the sign-in"); to != here {
		t.Errorf("the page leads to %s", to)
	}
	w.page(here).has("Waiting for the sign-in of Acme")
}
