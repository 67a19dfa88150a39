package programs

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/session"
)

// invite asks for an invitation.
func (w *world) invite(secret, kind, body string) reply {
	w.Helper()
	r := httptest.NewRequest("POST", "http://x/v1/invitations", strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	return w.do(r, false)
}

// made is what a new invitation is answered with.
type made struct {
	Version                                             int
	ID, Company, Application, Environment, URL, Expires string
}

func (w *world) invited(secret, body string) (made, session.Invited) {
	w.Helper()
	a := w.invite(secret, "application/json", body)
	var m made
	d := json.NewDecoder(a.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil || a.Code != 201 {
		w.Fatalf("%s: %d, %v, %+v", body, a.Code, err, a.Error)
	}
	path, ok := strings.CutPrefix(m.URL, publicURL+"/i/")
	i, err := w.s.Invitation(w.Context(), path)
	if !ok || err != nil || i.ID != m.ID || m.Version != 1 || m.Company != i.Company || m.Application != i.Application || m.Environment != i.Environment ||
		m.Expires != i.Expires.UTC().Format(time.RFC3339) {
		w.Fatalf("%s: %+v, %+v, %v", body, m, i, err)
	}
	return m, i
}

// customer signs in with an address, on another machine.
func (w *world) customer(at, user string) error {
	w.Helper()
	i, err := w.s.Invitation(w.Context(), strings.TrimPrefix(at, publicURL+"/i/"))
	if err != nil {
		w.Fatal(err)
	}
	pressed, err := w.s.Press(w.Context(), i)
	if err != nil {
		w.Fatal(err)
	}
	back, err := (sandbox.Person{User: user, Password: "right"}).Callback(w.Context(), pressed.Address)
	if err != nil {
		w.Fatal(err)
	}
	u, err := url.Parse(back)
	if err != nil {
		w.Fatal(err)
	}
	remembered, err := w.s.OpenPress(w.Context(), pressed.Sealed)
	if err != nil {
		w.Fatal(err)
	}
	_, err = w.s.Return(w.Context(), remembered, grant.Callback{Code: u.Query().Get("code"), Error: u.Query().Get("error")})
	return err
}

// A program whose key has the right invites: companies that it covers, and with a key for
// all companies also those that nobody knows.
func TestInvite(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	w.authorize("Apex", "rating", "lab")
	invite := []keys.Right{keys.Invite}
	all := w.key("all", keys.Scope{Rights: invite})
	lab := w.key("lab", keys.Scope{Rights: invite, Environment: "lab"})
	one := w.key("one", keys.Scope{Companies: []string{w.identify("Acme")}, Rights: invite})
	batch := w.key("batch", keys.Scope{Application: "batch", Rights: invite})
	tokens := w.key("tokens", keys.Scope{Rights: []keys.Right{keys.Token, keys.Refresh}})

	_, i := w.invited(all, `{"company":" ACME ","app":"rating"}`)
	if i.Company != "Acme" || i.By != "key all" || i.ExpectUser != "" || i.AnyUser || i.Expires.Sub(i.Made.Truncate(time.Second)) != 7*24*time.Hour {
		t.Errorf("it is for %+v", i)
	}
	m, i := w.invited(one, `{"company":"Acme","env":"lab","expires":"36h","expect_user":"jane","note":"Please","return_url":"https://shop.example/done?order=1"}`)
	if i.By != "key one" || i.ExpectUser != "jane" || i.Note != "Please" || i.ReturnURL != "https://shop.example/done?order=1" || i.Expires.Sub(i.Made.Truncate(time.Second)) != 36*time.Hour {
		t.Errorf("it is for %+v", i)
	}
	if _, i = w.invited(all, `{"company":"Acne","app":"rating","env":"lab","expect_user":"ANY"}`); i.Company != "Acne" || !i.AnyUser {
		t.Errorf("a new company is %+v", i)
	}
	_, events, err := w.s.Remembered(t.Context(), "Acne")
	if err != nil || len(events) != 1 || events[0].What != grant.EventInvited || events[0].By != "key all" {
		t.Errorf("its history is %+v, %v", events, err)
	}

	for _, test := range []struct {
		secret, body string
		status, code int
		class, says  string
	}{
		{"", `{"company":"Acme"}`, 401, 1, "unauthorized", "A key with the right invite is needed."},
		{tokens, `{"company":"Acme"}`, 403, 1, "forbidden", "This key does not have the right invite."},
		{one, `{"company":"Apex"}`, 403, 1, "forbidden", "This key does not cover the company, application or environment of the request."},
		{one, `{"company":"Nobody"}`, 403, 1, "forbidden", "This key does not cover the company, application or environment of the request."},
		{lab, `{"company":"Acme","env":"lab2"}`, 403, 1, "forbidden", "This key does not cover the company, application or environment of the request."},
		{batch, `{"company":"Acme","env":"lab"}`, 500, 1, "failed", "batch (lab) has no public redirect URI."},
		{all, `{"company":"New"}`, 400, 2, "usage", "several applications are registered"},
		{all, `{"company":"New","app":"nosuch"}`, 404, 3, "not-found", "nosuch"},
	} {
		a := w.invite(test.secret, "application/json", test.body)
		if a.Code != test.status || a.Error.ExitCode != test.code || a.Error.Class != test.class || !strings.Contains(strings.ToLower(a.Error.Message), strings.ToLower(test.says)) || a.Error.Advice == "" {
			t.Errorf("%s: %d %s", test.body, a.Code, a.Body)
		}
	}
	// What a key with the right sees: the state of what it covers, with the invitation.
	until := func(secret string) map[string]string {
		t.Helper()
		var list struct {
			Grants []struct {
				Company, User string
				InvitedUntil  string `json:"invited_until"`
			}
		}
		a := w.ask(secret, "GET", "/v1/status")
		if err := json.Unmarshal(a.Body.Bytes(), &list); err != nil || a.Code != 200 {
			t.Fatalf("%d %s", a.Code, a.Body)
		}
		found := map[string]string{}
		for _, g := range list.Grants {
			found[g.Company] = g.InvitedUntil
		}
		return found
	}
	if got := until(one); len(got) != 1 || got["Acme"] != m.Expires {
		t.Errorf("it sees %v", got)
	}
	if got := until(all); len(got) != 3 || got["Acme"] != m.Expires || got["Apex"] != "" || got["Acne"] == "" {
		t.Errorf("it sees %v", got)
	}
	if got := until(batch); got["Acne"] != "" {
		t.Errorf("a key sees invitations for another application: %v", got)
	}

	// What the customer signs in for is there at once, also in the place of a token that is
	// in memory.
	before := w.token("Acme", "app=rating")
	if before.AccessToken == "" || w.token("Acme", "app=rating").AccessToken != before.AccessToken {
		t.Fatalf("%d %s", before.Code, before.Body)
	}
	if err := w.customer(m.URL, "jane"); err != nil {
		t.Fatal(err)
	}
	after := w.token("Acme", "app=rating")
	if after.Code != 200 || after.AccessToken == before.AccessToken {
		t.Errorf("the token is that of before: %d", after.Code)
	}
	if a := w.ask(one, "GET", "/v1/status"); !strings.Contains(a.Body.String(), `"user": "jane"`) || strings.Contains(a.Body.String(), "invited_until") {
		t.Errorf("the state is that of before: %s", a.Body)
	}
}

// A body that can be misunderstood is refused, and what is wrong with it is named.
func TestInvitationsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	secret := w.key("all", keys.Scope{Application: "rating", Environment: "lab", Rights: []keys.Right{keys.Invite}})
	const usual = "application/json"
	for _, test := range []struct {
		kind, body string
		status     int
		message    string
	}{
		{"", `{"company":"A"}`, 415, "The header Content-Type is missing."},
		{"application/x-www-form-urlencoded", "company=A", 415, `The Content-Type "application/x-www-form-urlencoded" is not that of JSON.`},
		{"text/json", `{"company":"A"}`, 415, `The Content-Type "text/json" is not that of JSON.`},
		{"application/json; charset=latin1", `{"company":"A"}`, 415, `The Content-Type "application/json; charset=latin1" is not that of JSON.`},
		{usual, "", 400, "The request has no body."},
		{usual, " \n", 400, "The request has no body."},
		{usual, "company=A", 400, "The body is not JSON: there is a fault at byte 1."},
		{usual, `{"company":"A"`, 400, "The body is not JSON: there is a fault at byte 15."},
		{usual, `{"company":"A",}`, 400, "The body is not JSON: there is a fault at byte 15."},
		{usual, `{company:"A"}`, 400, "The body is not JSON: there is a fault at byte 2."},
		{usual, `{"company":'A'}`, 400, "The body is not JSON: there is a fault at byte 12."},
		{usual, `{"company":"A","expires":}`, 400, "The body is not JSON: there is a fault at byte 26."},
		{usual, "{\"company\":\"A\xff\"}", 400, "The body is not UTF-8 text."},
		{usual, `["A"]`, 400, "The body is not a JSON object."},
		{usual, `"A"`, 400, "The body is not a JSON object."},
		{usual, `null`, 400, "The body is not a JSON object."},
		{usual, `{"company":"A"} {}`, 400, "Something stands behind the JSON object."},
		{usual, `{"company":"A"}x`, 400, "Something stands behind the JSON object."},
		{usual, `{}`, 400, "The field company is missing."},
		{usual, `{"company":"A","company":"B"}`, 400, "The field company appears twice."},
		{usual, `{"company":"A","comp\u0061ny":"B"}`, 400, "The field company appears twice."},
		{usual, `{"company":"A","Company":"B"}`, 400, `The field "Company" is unknown here.`},
		{usual, `{"company":"A","by":"me"}`, 400, `The field "by" is unknown here.`},
		{usual, `{"company":7}`, 400, "The field company is a number, not a text."},
		{usual, `{"company":null}`, 400, "The field company is null, not a text."},
		{usual, `{"company":"A","expires":168}`, 400, "The field expires is a number, not a text."},
		{usual, `{"company":"A","expect_user":["jane"]}`, 400, "The field expect_user is an array, not a text."},
		{usual, `{"company":"A","expect_user":true}`, 400, "The field expect_user is true, not a text."},
		{usual, `{"company":"A","note":{}}`, 400, "The field note is an object, not a text."},
		{usual, `{"company":""}`, 400, "The field company is empty."},
		{usual, `{"company":"A","note":" "}`, 400, "The field note is empty."},
		{usual, `{"company":"A\u0000"}`, 400, "The field company: "},
		{usual, `{"company":"A","env":"La b"}`, 400, "The field env: "},
		{usual, `{"company":"A","expires":"soon"}`, 400, `The field expires: "soon" is not a length of time such as 7d, 36h or 15m.`},
		{usual, `{"company":"A","expires":"-7d"}`, 400, "The field expires: "},
		{usual, `{"company":"A","expires":"1m"}`, 400, "The field expires: an invitation lasts 10 minutes at least and 90 days at most."},
		{usual, `{"company":"A","return_url":"https://evil.example/"}`, 400, "The field return_url: https://evil.example/ is not below any of return_urls"},
		{usual, `{"company":"A","note":"` + strings.Repeat("x", 1001) + `"}`, 400, "The note has 1001 characters; at most 1000 are allowed."},
		{usual, `{"company":"A","note":"` + strings.Repeat("x", mostBody) + `"}`, 413, "The request's body is too long."},
	} {
		a := w.invite(secret, test.kind, test.body)
		if len(test.body) > 100 {
			test.body = test.body[:100]
		}
		if a.Code != test.status || a.Error.ExitCode != 2 || a.Error.Class != "usage" || !strings.HasPrefix(a.Error.Message, test.message) || a.Error.Advice == "" {
			t.Errorf("%s %s: %d %s", test.kind, test.body, a.Code, a.Body)
		}
	}
	r := httptest.NewRequest("POST", "http://x/v1/invitations?company=A", strings.NewReader(`{"company":"A"}`))
	r.Header.Set("Content-Type", usual)
	r.Header.Set("Authorization", "Bearer "+secret)
	if a := w.do(r, true); a.Code != 400 || a.Error.Message != `The parameter "company" is unknown here.` {
		t.Errorf("a parameter: %d %s", a.Code, a.Body)
	}
	if list, _, err := w.s.ListInvitations(t.Context(), session.Target{}); err != nil || len(list) != 0 {
		t.Errorf("somebody is invited: %+v, %v", list, err)
	}
	if a := w.invite(secret, "application/json; charset=UTF-8", `{"company":"\u00c4"}`); a.Code != http.StatusCreated || a.Company != "Ä" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

// Whatever is taken out of a body is what others read in it, and nothing else.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{`{"company":"A"}`, `{"company":"\u00c4","note":"x"}`, `{"company":"A","company":"B"}`, `{"company":7}`, `[]`, `{"company":"A"} 1`, "{\"company\":\"\xff\"}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "http://x/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		got, err := readBody(r, []string{"company", "note"})
		var want map[string]string
		if err == nil && (json.Unmarshal([]byte(body), &want) != nil || !maps.Equal(got, want)) {
			t.Errorf("%q is %v, not %v", body, got, want)
		}
		if told := failure(err); err != nil && told.status/100 != 4 {
			t.Errorf("%q: %d %s", body, told.status, told.body)
		}
	})
}
