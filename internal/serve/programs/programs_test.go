package programs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// A request that can be misunderstood is refused, and what is wrong with it is named.
func TestRequestsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	for _, test := range []struct {
		method, target string
		status, code   int
		message        string
	}{
		{"GET", "/v1/token", 400, 2, "company"},
		{"GET", "/v1/token?", 400, 2, "company"},
		{"GET", "/v1/token?company=", 400, 2, "company"},
		{"GET", "/v1/token?company", 400, 2, "company"},
		{"GET", "/v1/token?company=%20", 400, 2, "company"},
		{"GET", "/v1/token?company=Acme&env=lab;app=rating", 400, 2, "env"},
		{"GET", "/v1/token?company=Acme;env=lab", 400, 2, "company"},
		{"GET", "/v1/token?company=Acme&company=Apex", 400, 2, "company"},
		{"GET", "/v1/token?company=Acme&%63ompany=Apex", 400, 2, "company"},
		{"GET", "/v1/token?company=Acme&", 400, 2, "empty"},
		{"GET", "/v1/token?&company=Acme", 400, 2, "empty"},
		{"GET", "/v1/token?company=Acme&=x", 400, 2, "unknown"},
		{"GET", "/v1/token?company=%zz", 400, 2, "company"},
		{"GET", "/v1/token?company=%", 400, 2, "company"},
		{"GET", "/v1/token?%zz=Acme", 400, 2, "%zz"},
		{"GET", "/v1/token?company=%ff", 400, 2, "company"},
		{"GET", "/v1/token?company=A%00", 400, 2, "company"},
		{"GET", "/v1/token?company=A%0aB", 400, 2, "company"},
		{"GET", "/v1/token?company=" + strings.Repeat("x", 201), 400, 2, "company"},
		{"GET", "/v1/token?company=Acme&Env=lab", 400, 2, "Env"},
		{"GET", "/v1/token?company=Acme&environment=lab", 400, 2, "environment"},
		{"GET", "/v1/token?company=Acme&env=La b", 400, 2, "env"},
		{"GET", "/v1/token?company=Acme&env=a%2fb", 400, 2, "env"},
		{"GET", "/v1/token?company=Acme&app=..", 400, 2, "app"},
		{"GET", "/v1/token?company=Acme&min_valid=soon", 400, 2, "min_valid"},
		{"GET", "/v1/token?company=Acme&min_valid=-5m", 400, 2, "min_valid"},
		{"GET", "/v1/token?company=Acme&min_valid=2h", 400, 2, "UPS's access tokens last 1h, so none can stay valid for another 2h."},
		{"GET", "/v1/token?company=Acme&state=void", 400, 2, "state"},
		{"GET", "/v1/status?state=well", 400, 2, "state"},
		{"GET", "/v1/status?state=void,", 400, 2, "state"},
		{"GET", "/v1/status?sort=size", 400, 2, "sort"},
		{"GET", "/v1/status?expiring=-1d", 400, 2, "expiring"},
		{"GET", "/v1/status?output=csv", 400, 2, "output"},
		{"GET", "/metrics?company=Acme", 400, 2, "company"},
		{"GET", "/healthz?x=1", 400, 2, "x"},
		{"POST", "/v1/refresh", 400, 2, "company"},
		{"POST", "/v1/refresh?company=Acme&force=1", 400, 2, "force"},
		{"POST", "/v1/token?company=Acme", 405, 2, "POST"},
		{"GET", "/v1/refresh?company=Acme", 405, 2, "GET"},
		{"HEAD", "/v1/refresh?company=Acme", 405, 0, ""},
		{"DELETE", "/v1/status", 405, 2, "DELETE"},
		{"OPTIONS", "/v1/token", 405, 2, "OPTIONS"},
		{"GET", "/", 404, 2, "path"},
		{"GET", "/v1", 404, 2, "path"},
		{"GET", "/v1/token/", 404, 2, "path"},
		{"GET", "//v1/token", 404, 2, "path"},
		{"GET", "/v1/../v1/token", 404, 2, "path"},
		{"GET", "/v1%2ftoken?company=Acme", 404, 2, "path"},
		{"GET", "/V1/token", 404, 2, "path"},
		{"GET", "/v1/invitations", 405, 2, "GET"},
		{"POST", "/v1/invitations/", 404, 2, "path"},
		{"GET", "/login/x", 404, 2, "path"},
		{"GET", "/v1/token?company=Apex", 404, 3, "Apex"},
		{"GET", "/v1/token?company=Acme&app=batch", 404, 3, "batch"},
		{"GET", "/v1/status?company=Apex", 404, 3, "Apex"},
		{"GET", "/v1/status?company=X*", 404, 3, "X*"},
		{"GET", "/v1/status?env=nowhere", 404, 3, "nowhere"},
		{"POST", "/v1/refresh?company=Apex", 404, 3, "Apex"},
	} {
		a := w.ask("", test.method, strings.ReplaceAll(test.target, " ", "%20"))
		if a.Code != test.status || a.Error.ExitCode != test.code || !strings.Contains(a.Error.Message, test.message) {
			t.Errorf("%s %s: %d %s", test.method, test.target, a.Code, a.Body)
		}
		if test.method != "HEAD" && a.Error.Advice == "" {
			t.Errorf("%s %s: no advice: %s", test.method, test.target, a.Body)
		}
		if a.Code == 405 && a.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", test.method, test.target)
		}
		if w.refreshes.Load() != 0 {
			t.Fatalf("%s %s: a refresh", test.method, test.target)
		}
	}
}

// A body would have no effect, so it is refused.
func TestBodiesAreRefused(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	client := w.serve(false)
	for _, test := range []struct {
		method, target, body string
		length               int64
		want                 int
	}{
		{"GET", "/v1/token?company=Acme", "", 0, 200},
		{"GET", "/v1/token?company=Acme", "env=cie", 7, 400},
		{"GET", "/v1/token?company=Acme", "env=cie", -1, 400},
		{"GET", "/v1/token?company=Acme", "", -1, 200},
		{"POST", "/v1/refresh?company=Acme", "{}", 2, 400},
		{"POST", "/v1/refresh?company=Acme", "{}", -1, 400},
		{"POST", "/v1/refresh?company=Acme", "", 0, 200},
	} {
		r, err := http.NewRequest(test.method, "http://x"+test.target, struct{ io.Reader }{strings.NewReader(test.body)})
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = test.length
		if test.length == 0 {
			r.Body = http.NoBody
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != test.want {
			t.Errorf("%s %s with %q (%d): %d, want %d", test.method, test.target, test.body, test.length, response.StatusCode, test.want)
		}
	}
}

// Without a right key there is no answer, whatever is asked for.
func TestKeysAreNeeded(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	secret := w.key("all", keys.Scope{Rights: []keys.Right{keys.Token}})
	for _, test := range []struct {
		header []string
		keyed  bool
		want   int
	}{
		{nil, false, 200},
		{nil, true, 401},
		{[]string{"Bearer " + secret}, false, 200},
		{[]string{"Bearer " + secret}, true, 200},
		{[]string{"bearer " + secret}, true, 200},
		{[]string{"Bearer " + secret + "x"}, false, 401},
		{[]string{"Bearer " + secret + "x"}, true, 401},
		{[]string{"Basic " + secret}, false, 401},
		{[]string{secret}, true, 401},
		{[]string{""}, false, 401},
		{[]string{"Bearer"}, true, 401},
		{[]string{"Bearer ", "Bearer " + secret}, true, 401},
		{[]string{"Bearer " + secret, "Bearer " + secret}, true, 401},
	} {
		for _, path := range []string{"/v1/token?company=Acme", "/v1/status", "/metrics", "/healthz", "/readyz"} {
			r := httptest.NewRequest("GET", "http://x"+path, nil)
			if test.header != nil {
				r.Header["Authorization"] = test.header
			}
			a := w.do(r, test.keyed)
			if a.Code != test.want {
				t.Errorf("%s with %q, keyed %t: %d %s", path, test.header, test.keyed, a.Code, a.Body)
			}
			if a.Code == 401 && (a.Header().Get("WWW-Authenticate") != "Bearer" || a.Error.Class != "unauthorized") {
				t.Errorf("%q %s", a.Header(), a.Body)
			}
		}
		r := httptest.NewRequest("GET", "http://x/nothing", nil)
		if a := w.do(r, true); a.Code != 401 {
			t.Errorf("a path that there is not: %d", a.Code)
		}
	}
	if a := w.ask(secret, "POST", "/v1/refresh?company=Acme"); a.Code != 403 || a.Error.Class != "forbidden" || w.refreshes.Load() != 0 {
		t.Errorf("without the right: %d %s", a.Code, a.Body)
	}
	if err := w.keys.Remove(t.Context(), "all"); err != nil {
		t.Fatal(err)
	}
	if a := w.ask(secret, "GET", "/v1/token?company=Acme"); a.Code != 401 {
		t.Errorf("a key that was removed: %d", a.Code)
	}
	// Nobody knows who asks then, so nothing of this machine is told.
	whole, err := os.ReadFile(filepath.Join(w.dir, "state", "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	w.write("state/keys.json", "{")
	for _, given := range []string{secret, "anything"} {
		if a := w.ask(given, "GET", "/v1/token?company=Acme"); a.Code != 500 || a.Error.Class != "failed" || strings.Contains(a.Body.String(), secret) ||
			strings.Contains(a.Body.String(), w.dir) || strings.Contains(a.Body.String(), "keys.json") {
			t.Errorf("damaged keys: %d %s", a.Code, a.Body)
		}
	}
	if a := w.token("Acme"); a.Code != 200 {
		t.Errorf("the socket needs no keys: %d", a.Code)
	}
	w.write("state/keys.json", string(whole)) // it is written at the end: when which key was used
}

// A key can't tell a company that there is from one that there is not, by any request.
func TestKeyLearnsNothingOfOthers(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	w.authorize("Acme", "batch", "lab2")
	w.authorize("Apex", "rating", "lab")
	w.authorize("A*", "rating", "lab")
	contact := "Bob"
	if err := w.s.AddCompanies(t.Context(), []company.New{{Name: "Added only", Contact: &contact}}, func(string, session.Outcome) {}); err != nil {
		t.Fatal(err)
	}
	w.identify("Added only") // somebody else's key covers it
	w.identify("Apex")
	one := w.key("one", keys.Scope{Companies: []string{w.identify("Acme")}, Rights: []keys.Right{keys.Token, keys.Refresh}})
	app := w.key("app", keys.Scope{Companies: []string{w.identify("Acme")}, Application: "rating", Environment: "lab", Rights: []keys.Right{keys.Token, keys.Refresh}})
	for _, secret := range []string{one, app} {
		for _, target := range []string{"/v1/token?company=%s", "/v1/token?company=%s&app=rating", "/v1/token?company=%s&env=lab&min_valid=3h", "/v1/status?company=%s", "/v1/refresh?company=%s"} {
			method := "GET"
			if strings.HasPrefix(target, "/v1/refresh") {
				method = "POST"
			}
			want := w.ask(secret, method, fmt.Sprintf(target, "Nobody"))
			if want.Code != 403 {
				t.Errorf("%s: %d %s", target, want.Code, want.Body)
			}
			names := []string{"Apex", "APEX", "Added+only", "Acm", "Acme2"}
			if !strings.HasPrefix(target, "/v1/status") { // there it may be a pattern
				names = append(names, "A*", "Z*", "A%3F", "*")
			}
			for _, name := range names {
				if got := w.ask(secret, method, fmt.Sprintf(target, name)); got.Code != want.Code || got.Body.String() != want.Body.String() {
					t.Errorf("%s of %s: %d %s, of nobody: %d %s", target, name, got.Code, got.Body, want.Code, want.Body)
				}
			}
		}
	}
	if a := w.ask(app, "GET", "/v1/token?company=acme"); a.Code != 200 || a.Application != "rating" {
		t.Errorf("the key's own application: %d %s", a.Code, a.Body)
	}
	for _, query := range []string{"app=batch", "env=lab2", "app=batch&env=lab2", "app=nothing"} {
		if a := w.ask(app, "GET", "/v1/token?company=Acme&"+query); a.Code != 403 {
			t.Errorf("%s: %d %s", query, a.Code, a.Body)
		}
	}
	if a := w.ask(one, "GET", "/v1/token?company=Acme"); a.Code != 400 {
		t.Errorf("two grants: %d %s", a.Code, a.Body)
	}
	if err := w.s.Keeper.Revoke(t.Context(), grant.ID{Company: "Acme", Application: "rating", Environment: "lab"}); err != nil {
		t.Fatal(err)
	}
	if a := w.ask(app, "GET", "/v1/token?company=Acme"); a.Code != 404 || strings.Contains(a.Body.String(), "batch") {
		t.Errorf("it learns of another application: %d %s", a.Code, a.Body)
	}
	for path, secret := range map[string]string{"/v1/status": one, "/v1/status?company=A*": one, "/metrics": one} {
		a := w.ask(secret, "GET", path)
		if text := a.Body.String(); a.Code != 200 || !strings.Contains(text, "Acme") || strings.Contains(text, "Apex") || strings.Contains(text, "Added") || strings.Contains(text, `"A*"`) || strings.Contains(text, "last_round") {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
	if a := w.ask(app, "GET", "/v1/status"); a.Code != 200 || strings.Contains(a.Body.String(), "batch") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	// What is damaged of others is theirs.
	w.write("state/records/"+grant.ID{Company: "Apex", Application: "batch", Environment: "lab"}.Slot()+".json", "{")
	if a := w.ask(one, "GET", "/v1/status"); a.Code != 200 || strings.Contains(a.Body.String(), "problems") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := w.ask("", "GET", "/v1/status"); a.Code != 200 || !strings.Contains(a.Body.String(), "problems") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

// A key follows its companies, and covers none that only has the name.
func TestKeyCoversCompaniesAndNotNames(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.authorize("Acme", "rating", "lab")
	w.authorize("Apex", "batch", "lab")
	secret := w.key("a", keys.Scope{Companies: []string{w.identify("Acme")}})
	want := func(company string, status int) {
		t.Helper()
		for range 2 {
			if a := w.ask(secret, "GET", "/v1/token?app=rating&company="+url.QueryEscape(company)); a.Code != status {
				t.Errorf("%s: %d %s, want %d", company, a.Code, a.Body, status)
			}
		}
	}
	rename := func(from, to string) {
		t.Helper()
		other := w.open()
		list, err := other.Known(ctx, from)
		if err == nil {
			err = other.Rename(ctx, from, session.Authorized(list.Records), to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want("Acme", 200)
	want("Apex", 403)
	rename("Acme", "Globex")
	want("Acme", 403)
	want("Globex", 200)
	w.authorize("Acme", "rating", "lab") // somebody else's by now
	want("Acme", 403)
	rename("Globex", "Apex") // the two become one
	want("Globex", 403)
	want("apex", 200)
	// Authorized again, it is still the same company.
	if err := w.open().Keeper.Revoke(ctx, grant.ID{Company: "Apex", Application: "rating", Environment: "lab"}); err != nil {
		t.Fatal(err)
	}
	want("Apex", 404)
	w.authorize("Apex", "rating", "lab")
	want("Apex", 200)
	// Removed and made anew, it is another one.
	other := w.open()
	list, err := other.Known(ctx, "Apex")
	if err == nil {
		err = other.Forget(ctx, "Apex", session.Authorized(list.Records), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	want("Apex", 403)
	w.authorize("Apex", "rating", "lab")
	want("Apex", 403)
	if a := w.ask(secret, "GET", "/v1/status"); a.Code != 200 || strings.Contains(a.Body.String(), "company") {
		t.Errorf("a key whose company is removed sees: %s", a.Body)
	}
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	w.authorize("Apex", "batch", "lab2")
	if err := w.s.AddCompanies(t.Context(), []company.New{{Name: "Globex"}}, func(string, session.Outcome) {}); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"":                         "Acme Apex Globex",
		"?company=acme":            "Acme",
		"?company=A*":              "Acme Apex",
		"?app=batch":               "Apex",
		"?env=lab":                 "Acme",
		"?state=authorized":        "Acme Apex",
		"?state=unauthorized,void": "Globex",
		"?expiring=90d":            "Acme Apex",
		"?expiring=1d":             "",
		"?sort=state":              "Globex Acme Apex",
	} {
		a := w.ask("", "GET", "/v1/status"+query)
		var status render.Status
		if err := json.Unmarshal(a.Body.Bytes(), &status); err != nil || a.Code != 200 {
			t.Fatalf("%s: %d %s", query, a.Code, a.Body)
		}
		var names []string
		for _, g := range status.Grants {
			names = append(names, g.Company)
		}
		if got := strings.Join(names, " "); got != want || status.Version != 1 {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	before := w.token("Acme")
	a := w.ask("", "POST", "/v1/refresh?company=acme")
	var status render.Status
	if err := json.Unmarshal(a.Body.Bytes(), &status); err != nil || a.Code != 200 || len(status.Grants) != 1 || status.Grants[0].State != grant.Authorized {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	if after := w.token("Acme"); after.AccessToken == before.AccessToken || w.refreshes.Load() != 1 {
		t.Errorf("%d refreshes", w.refreshes.Load())
	}
}

// The company's history says by which key, or that a program at the socket asked.
func TestHistorySaysWhoAsked(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	secret := w.key("webshop", keys.Scope{Rights: []keys.Right{keys.Token, keys.Refresh}})
	last := func() grant.Event {
		_, events, err := w.open().Remembered(t.Context(), "Acme")
		if err != nil || len(events) == 0 {
			t.Fatalf("%v, %v", events, err)
		}
		return events[len(events)-1]
	}
	w.ask("", "POST", "/v1/refresh?company=Acme")
	if e := last(); e.What != grant.EventRefreshed || e.By != "program" {
		t.Errorf("at the socket: %+v", e)
	}
	w.ask(secret, "POST", "/v1/refresh?company=Acme")
	if e := last(); e.What != grant.EventRefreshed || e.By != "key webshop" || e.Count > 1 {
		t.Errorf("with a key: %+v", e)
	}
	w.Advance(2 * time.Hour)
	w.ask(secret, "GET", "/v1/token?company=Acme")
	if e := last(); e.By != "key webshop" || e.Count != 2 {
		t.Errorf("with the key again: %+v", e)
	}
}

// A client that goes away ends no refresh, and Close waits for it.
func TestClientThatGoesAway(t *testing.T) {
	for _, target := range []string{"/v1/token?company=Acme", "/v1/refresh?company=Acme"} {
		w := newWorld(t)
		id := w.authorize("Acme", "rating", "lab")
		w.Advance(2 * time.Hour)
		arrived, proceed := make(chan struct{}), make(chan struct{})
		before := func(r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/refresh") {
				close(arrived)
				<-proceed
			}
		}
		w.before.Store(&before)
		ctx, cancel := context.WithCancel(t.Context())
		method := "GET"
		if strings.HasPrefix(target, "/v1/refresh") {
			method = "POST"
		}
		done := make(chan reply)
		go func() {
			done <- w.do(httptest.NewRequest(method, "http://x"+target, nil).WithContext(ctx), false)
		}()
		<-arrived
		cancel()
		<-done
		closed := make(chan struct{})
		go func() {
			w.programs.Close()
			close(closed)
		}()
		select {
		case <-closed:
			t.Error("Close did not wait for the refresh")
		default:
		}
		close(proceed)
		<-closed
		record, err := w.s.Vault.Record(t.Context(), id)
		if err != nil || record.Generation != 2 || w.refreshes.Load() != 1 {
			t.Errorf("%s: generation %d after %d refreshes, %v", target, record.Generation, w.refreshes.Load(), err)
		}
		if a := w.token("Acme", "min_valid=59m59s"); a.Code != 503 || a.Error.ExitCode != 6 {
			t.Errorf("after Close: %d %s", a.Code, a.Body)
		}
	}
}

// Each class has its status, and each answer says what happened and what to do.
func TestErrorsAsAnswers(t *testing.T) {
	id := grant.ID{Company: "Acme", Application: "rating", Environment: "lab"}
	for _, test := range []struct {
		err          error
		status, code int
		class        string
		retry        string
		advice       string
	}{
		{&session.SeveralError{Grants: []grant.ID{id}}, 400, 2, "usage", "", "Choose"},
		{&session.NotFoundError{Kind: session.NoCompany, Company: "Acme", Near: "Acne"}, 404, 3, "not-found", "", "Acne"},
		{&keeper.GoneError{ID: id, Why: "UPS refused", Void: true}, 409, 4, "authorize", "", "password"},
		{session.WithContact(&keeper.GoneError{ID: id, Why: "UPS refused"}, "Jane, +1 555"), 409, 4, "authorize", "", "Contact: Jane, +1 555."},
		{&vault.HomeError{Home: "keychain", What: "The keychain is locked."}, 503, 5, "vault", "", ""},
		{&ups.Error{Kind: ups.RateLimited, RetryAfter: 1500 * time.Millisecond}, 503, 6, "ups", "2", ""},
		{&keeper.PendingError{ID: id, Again: 42 * time.Second}, 503, 6, "ups", "42", ""},
		{&ups.Error{Kind: ups.Unreachable, Message: "no route"}, 503, 6, "ups", "10", ""},
		{&ups.Error{Kind: ups.ClientRefused}, 502, 7, "refused", "", ""},
		{errors.New("something"), 500, 1, "failed", "", ""},
		{errSlow, 503, 6, "ups", "10", "again"},
	} {
		a := failure(test.err)
		var told problem
		if err := json.Unmarshal(a.body, &told); err != nil {
			t.Fatal(err)
		}
		e := told.Error
		if a.status != test.status || e.ExitCode != test.code || e.Class != test.class || a.header["Retry-After"] != test.retry || e.Message == "" || !strings.Contains(e.Advice, test.advice) {
			t.Errorf("%T: %d %s %v", test.err, a.status, a.body, a.header)
		}
		if strings.Contains(string(a.body), " --") {
			t.Errorf("%T names a command: %s", test.err, a.body)
		}
	}
}

func TestHealth(t *testing.T) {
	var notReady error
	var last *service.Last
	w := newWorld(t, func(o *Options) {
		o.Ready = func(context.Context) error { return notReady }
		o.Last = func() *service.Last { return last }
	})
	w.authorize("Acme", "rating", "lab")
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := w.ask("", "GET", path); a.Code != 200 || a.Body.String() != "ok\n" {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
	notReady = errors.New("no round has begun for an hour")
	if a := w.ask("", "GET", "/readyz"); a.Code != 503 || !strings.Contains(a.Error.Message, "No round") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := w.ask("", "GET", "/healthz"); a.Code != 200 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	first := w.ask("", "GET", "/metrics")
	last = &service.Last{End: time.Now(), Refreshed: 7}
	second := w.ask("", "GET", "/metrics")
	if first.Code != 200 || strings.Contains(first.Body.String(), "last_round") || !strings.Contains(second.Body.String(), "upsauth_last_round_refreshed 7\n") || !strings.Contains(second.Body.String(), `company="Acme"`) {
		t.Errorf("%s\n%s", first.Body, second.Body)
	}
	promtool := realpart.Program(t, "promtool", "prometheus")
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(second.Body.String())
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// A vault that this service can't open gives programs nothing, so it is not ready, although
// no round has tried it and no program has asked.
func TestNotReadyWhileTheVaultDoesNotOpen(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	identity := w.settings["UPSAUTH_IDENTITY"]
	w.settings["UPSAUTH_IDENTITY"] = filepath.Join(w.dir, "gone.txt")
	w.s = w.open()
	if a := w.ask("", "GET", "/readyz"); a.Code != 503 || a.Error.Class != "vault" {
		t.Errorf("without the identity: %d %s", a.Code, a.Body)
	}
	if a := w.ask("", "GET", "/healthz"); a.Code != 200 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	w.settings["UPSAUTH_IDENTITY"] = identity
	w.s = w.open()
	if a := w.ask("", "GET", "/readyz"); a.Code != 200 {
		t.Errorf("with it: %d %s", a.Code, a.Body)
	}
	// A vault that nothing is in yet needs nothing to open it, and is not made either.
	w.settings["UPSAUTH_STATE_DIR"] = filepath.Join(w.dir, "empty")
	delete(w.settings, "UPSAUTH_IDENTITY")
	w.s = w.open()
	if a := w.ask("", "GET", "/readyz"); a.Code != 200 {
		t.Errorf("an empty one: %d %s", a.Code, a.Body)
	}
	if _, err := os.Lstat(filepath.Join(w.dir, "empty", "vault")); err == nil {
		t.Error("a question has made a vault")
	}
}

// A write to the keychain that got no answer may still land: its grant is not answered
// any more, not even from memory, and the service is not ready.
func TestVaultThatLeavesAWriteInTheAir(t *testing.T) {
	w := newWorld(t)
	w.authorize("Other", "rating", "lab")
	w.home = "keychain"
	w.authorize("Acme", "rating", "lab")
	for _, company := range []string{"Acme", "Other"} {
		if a := w.token(company); a.Code != 200 {
			t.Fatalf("%s: %d %s", company, a.Code, a.Body)
		}
	}
	until := make(chan struct{})
	w.ring.hang(until)
	defer close(until)
	if a := w.ask("", "POST", "/v1/refresh?company=Acme"); a.Code != 503 || a.Error.ExitCode != 5 || w.refreshes.Load() != 0 {
		t.Errorf("%d %s after %d refreshes", a.Code, a.Body, w.refreshes.Load())
	}
	for range 2 {
		if a := w.token("Acme"); a.Code != 503 || a.Error.ExitCode != 5 || a.Error.Class != "vault" {
			t.Errorf("%d %s", a.Code, a.Body)
		}
		if a := w.token("Other"); a.Code != 200 {
			t.Errorf("another company: %d %s", a.Code, a.Body)
		}
		if a := w.ask("", "GET", "/readyz"); a.Code != 503 || a.Error.Class != "vault" {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
}

// FuzzQuery: what is accepted is understood by everybody in the same way.
func FuzzQuery(f *testing.F) {
	for _, raw := range []string{"", "company=Acme", "company=Acme%20Corp&env=cie", "env=cie;a=1", "a=1&a=2", "company=%zz", "&", "=", "company=a&%63ompany=b", "company=+", "company=%3B"} {
		f.Add(raw)
	}
	known := []string{"company", "app", "env", "min_valid"}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw, known)
		if err != nil {
			var refused *requestError
			if !errors.As(err, &refused) || refused.status != 400 || refused.what == "" || q != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		others, err := url.ParseQuery(raw)
		if err != nil || len(others) != len(q) {
			t.Fatalf("%q: %q, others read %q, %v", raw, q, others, err)
		}
		for name, value := range q {
			if !slices.Contains(known, name) || len(others[name]) != 1 || others[name][0] != value || strings.TrimSpace(value) == "" {
				t.Errorf("%q: %s is %q, others read %q", raw, name, value, others[name])
			}
		}
		if _, err := q.target(); err != nil && !errors.As(err, new(*requestError)) {
			t.Error(err)
		}
	})
}

// Nothing that is answered or logged has a refresh token in it.
func TestNoRefreshTokenLeaves(t *testing.T) {
	w := newWorld(t)
	id := w.authorize("Acme", "rating", "lab")
	g, err := w.s.Vault.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/token?company=Acme", "/v1/status", "/metrics"} {
		if a := w.ask("", "GET", path); strings.Contains(a.Body.String(), g.RefreshToken) {
			t.Errorf("%s has it", path)
		}
	}
	if entries, err := os.ReadDir(w.dir + "/state/programs"); err == nil {
		t.Errorf("files beside the socket: %v", entries)
	}
}
