package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// edited is an export after change had its JSON.
func edited(t *testing.T, change func(d map[string]any)) []byte {
	t.Helper()
	text, err := json.Marshal(opened())
	check(t, err)
	var d map[string]any
	check(t, json.Unmarshal(text, &d))
	change(d)
	text, err = json.Marshal(d)
	check(t, err)
	return text
}

func item(d map[string]any, list string, i int) map[string]any {
	return d[list].([]any)[i].(map[string]any)
}

// Outside input: from here on the values are file names and accounts, and are
// sent to servers.
func TestGrantsThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		field string
		value any
		says  string
	}{
		{"company", "", "the company's name is empty"},
		{"company", " Acme", "or is not in Unicode's form NFC"},
		{"company", "Cafe\u0301", "or is not in Unicode's form NFC"},
		{"company", "Acme\x1b[31m", "U+001B"},
		{"company", "Acme\u2028", "or is not in Unicode's form NFC"},
		{"company", "A\u2028cme", "U+2028"},
		{"company", strings.Repeat("x", 201), "201 characters"},
		{"company", 7, "its field company is of another kind"},
		{"application", "", "the name of an application"},
		{"application", "../x", "can't be the name of an application"},
		{"application", "A", "can't be the name of an application"},
		{"environment", "", "the name of an environment"},
		{"environment", "a b", "can't be the name of an environment"},
		{"token_vault_key", "", "not a GUID"},
		{"token_vault_key", strings.ToLower(keyA), "not a GUID in upper case"},
		{"token_vault_key", "{" + keyA + "}", "not a GUID"},
		{"token_vault_key", "URN:UUID:" + keyA, "not a GUID"},
		{"token_vault_key", strings.ReplaceAll(keyA, "-", ""), "not a GUID"},
		{"token_vault_key", "../" + keyA[3:], "not a GUID"},
		{"token_vault_key", keyA + "\n", "not a GUID"},
		{"generation", 0, "its generation is 0"},
		{"generation", -1, "its generation is -1"},
		{"generation", int64(1) << 53, "its generation is 9007199254740992"},
		{"generation", 1.5, "its field generation is of another kind"},
		{"generation", "7", "its field generation is of another kind"},
		{"refresh_count", -1, "its refresh count is -1"},
		{"base_url", "", "is not a URL"},
		{"base_url", "http://onlinetools.ups.com", "plain http"},
		{"base_url", "https://jane:s3cret@ups.example", "more than scheme, host and path"},
		{"base_url", "https://onlinetools.ups.com/", "not written as upsauth writes it"},
		{"base_url", "HTTPS://onlinetools.ups.com", "not written as upsauth writes it"},
		{"base_url", "file:///etc/passwd", "is not a URL"},
		{"base_url", "sandbox", "is not a URL"},
		{"client_id", "", "its client ID is empty"},
		{"client_id", "a b", "its client ID is empty, or has a space"},
		{"client_id", "a\r\nHost: evil.example", "its client ID is empty, or has a space"},
		{"access_token", "s3cret\n", "has a character in it that can't be there"},
		{"access_token", "s3cret s3cret", "has a character in it that can't be there"},
		{"refresh_token", "s3cret\x00", "has a character in it that can't be there"},
		{"refresh_token", "s3cret\u00a0", "has a character in it that can't be there"},
		{"refresh_token", "s3cret\ufffd", "has a character in it that can't be there"},
		{"access_token", 12345678, "its field access_token is of another kind"},
		{"token_type", "Bearer\n", "has a character in it that can't be there"},
		{"scope", "read\x1b", "has a character in it that can't be there"},
		{"issued", "0000-01-01T00:00:00+14:00", "in the year -1"},
		{"refresh_until", "9999-12-31T23:59:59-12:00", "in the year 10000"},
		{"expires", "s3cret", "not written as upsauth writes it"},
		{"expires", 1e9, "not written as upsauth writes it"},
		{"version", 0, "it has no format version"},
		{"version", "1", "its field version is of another kind"},
	} {
		t.Run(test.field+" "+test.says, func(t *testing.T) {
			_, err := parse(edited(t, func(d map[string]any) { item(d, "grants", 0)[test.field] = test.value }))
			wantInvalid(t, err, "grant", 1, test.says)
		})
	}
}

func wantInvalid(t *testing.T, err error, kind string, number int, says string) {
	t.Helper()
	var invalid *InvalidError
	if !errors.As(err, &invalid) || invalid.Kind != kind || invalid.Number != number || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %v, want %q of %s no. %d", err, says, kind, number)
	}
	fitForTerminal(t, err)
}

func TestWhichGrantIsRefused(t *testing.T) {
	_, err := parse(edited(t, func(d map[string]any) { item(d, "grants", 2)["generation"] = 0 }))
	if want := `grant no. 3 of the export ("株式会社") can't be used: its generation is 0, it must be at least 1 and below 2^53`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	// A company that is called like a secret is not called at all.
	_, err = parse(edited(t, func(d map[string]any) {
		g := item(d, "grants", 0)
		g["company"], g["generation"] = g["refresh_token"], 0
	}))
	wantInvalid(t, err, "grant", 1, `("[secret]")`)
	_, err = parse([]byte(`{"version":1,"grants":[null]}`))
	wantInvalid(t, err, "grant", 1, "grant no. 1 of the export can't be used: ")
	for _, wrong := range []any{nil, 1, "x", []any{}, map[string]any{}} {
		_, err := parse(edited(t, func(d map[string]any) { d["grants"] = []any{wrong} }))
		wantInvalid(t, err, "grant", 1, "")
	}
}

func TestTokensThatMayBeMissing(t *testing.T) {
	for _, test := range []struct {
		access, refresh string
		no, void        bool
		says            string
	}{
		{"a", "r", false, false, ""},
		{"", "r", false, false, ""}, // UPS sent the refresh token alone
		{"", "r", false, true, ""},
		{"a", "", true, false, ""},
		{"a", "", false, true, ""},
		{"a", "", false, false, "no refresh token"},
		{"", "", false, false, "no token"},
		{"", "", true, false, "no token"},
		{"", "", false, true, "no token"},
	} {
		g := acme()
		g.AccessToken, g.RefreshToken, g.NoRefreshToken, g.Void = test.access, test.refresh, test.no, test.void
		_, err := Document{Grants: []grant.Grant{g}}.clean()
		if test.says == "" {
			check(t, err)
			continue
		}
		wantInvalid(t, err, "grant", 1, test.says)
	}
}

func TestBaseURLs(t *testing.T) {
	for _, test := range []struct {
		environment, url string
		ok               bool
	}{
		{"production", "https://onlinetools.ups.com", true},
		{"cie", "https://wwwcie.ups.com", true},
		{"lab", "https://proxy.example:8443/ups", true},
		{"lab", "http://[::1]:8080", true},
		{"sandbox", "sandbox", true},
		{"lab", "sandbox", false},
		{"sandbox", "http://127.0.0.1:8080", false}, // no grant of the sandbox says so
		{"sandbox", "https://onlinetools.ups.com", false},
		{"sandbox", "", false},
	} {
		g := acme()
		g.Environment, g.BaseURL = test.environment, test.url
		if _, err := (Document{Grants: []grant.Grant{g}}).clean(); (err == nil) != test.ok {
			t.Errorf("%s at %s: %v", test.environment, test.url, err)
		}
	}
}

func TestApplicationsThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		field string
		value any
		says  string
	}{
		{"name", "", "the name of an application"},
		{"name", "../x", "can't be the name of an application"},
		{"environment", "", "the name of an environment"},
		{"environment", "Production", "can't be the name of an environment"},
		{"client_id", "", "its client ID is empty"},
		{"client_id", "a\nb", "its client ID is empty, or has a space"},
		{"redirect_uri", "", "its redirect URI can't be used"},
		{"redirect_uri", "javascript:alert(1)", "its redirect URI can't be used"},
		{"redirect_uri", "ftp://localhost/", "its redirect URI can't be used"},
		{"redirect_uri", "http:///callback", "its redirect URI can't be used"},
		{"redirect_uri", "http://localhost/#x", "its redirect URI can't be used"},
		{"redirect_uri", "http://localhost/\u2028", "its redirect URI can't be used"},
		{"pkce", "maybe", `"maybe" is not a setting for PKCE`},
		{"scope", "read\n", "a control character"},
		{"client_secret", "s3cret\r\n", "a control character"},
		{"client_secret", "s3cret\ufffd", "not valid UTF-8"},
		{"client_secret", []any{"s3cret"}, "its field client_secret is of another kind"},
		{"pkce_needs_basic", "yes", "its field pkce_needs_basic is of another kind"},
	} {
		t.Run(test.field+" "+test.says, func(t *testing.T) {
			_, err := parse(edited(t, func(d map[string]any) { item(d, "applications", 1)[test.field] = test.value }))
			wantInvalid(t, err, "application", 2, test.says)
		})
	}
}

func TestNothingIsThereTwice(t *testing.T) {
	for name, test := range map[string]struct {
		change func(d map[string]any)
		kind   string
		says   string
	}{
		"slot": {func(d map[string]any) {
			g := item(d, "grants", 1)
			g["company"], g["application"], g["environment"] = "ACME <CORP> & SÖHNE", "intelligent-rating", "production"
			g["base_url"] = "https://onlinetools.ups.com"
		}, "grant", "grant no. 1 is of the same company"},
		"Token Vault Key": {func(d map[string]any) { item(d, "grants", 1)["token_vault_key"] = keyA }, "grant", "grant no. 1 has the same Token Vault Key"},
		"application": {func(d map[string]any) {
			a := item(d, "applications", 1)
			a["name"], a["environment"] = "intelligent-rating", "production"
		}, "application", "application no. 1 has the same name and environment"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(edited(t, test.change))
			wantInvalid(t, err, test.kind, 2, test.says)
		})
	}
}

func TestFormatsThatAreRefused(t *testing.T) {
	for text, want := range map[string]error{
		``:                                      ErrNotExport,
		`{`:                                     ErrNotExport,
		`null`:                                  ErrNotExport,
		`[]`:                                    ErrNotExport,
		`{}`:                                    ErrNotExport,
		`{"grants":[]}`:                         ErrNotExport,
		`{"version":0,"grants":[]}`:             ErrNotExport,
		`{"version":"1","grants":[]}`:           ErrNotExport,
		`{"version":1,"grants":null}`:           ErrNotExport,
		`{"version":1,"grants":{}}`:             ErrNotExport,
		`{"version":1,"grants":[]} x`:           ErrNotExport,
		`{"version":1,"grants":[],"made":"no"}`: ErrNotExport,
		// The item of a file vault.
		`{"version":1,"company":"Acme","access_token":"s3cret"}`: ErrNotExport,
		`{"version":1,"client_secret":"s3cret"}`:                 ErrNotExport,
		`{"version":1,"grants":[]}`:                              nil,
	} {
		_, err := parse([]byte(text))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		`{"version":2}`, `{"version":2,"grants":"elsewhere"}`, `{"made":[],"grants":{},"version":2}`,
		`{"version":1,"grants":[{"version":2}]}`, `{"version":1,"grants":[{"company":{},"version":2}]}`,
	} {
		_, err := parse([]byte(text))
		var newer *NewerError
		if !errors.As(err, &newer) || newer.Version != 2 || newer.Known != 1 {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestUnknownFieldsArePassedOver(t *testing.T) {
	got, err := parse(edited(t, func(d map[string]any) {
		d["new"] = 1
		item(d, "grants", 0)["new"] = []any{}
		item(d, "applications", 0)["new"] = map[string]any{"version": 7}
	}))
	check(t, err)
	sameJSON(t, got, opened())
}

// What the other machine's record says about that machine would have items of
// this one deleted, or a company renamed.
func TestStateOfTheOtherMachineIsLeftBehind(t *testing.T) {
	text, err := json.Marshal(document()) // as it is there, with all of it
	check(t, err)
	if !bytes.Contains(text, []byte(`"removing"`)) || !bytes.Contains(text, []byte(`"superseded"`)) {
		t.Fatal("the test's document has no state in it")
	}
	text = bytes.Replace(text, []byte(`{"made"`), []byte(`{"version":1,"made"`), 1)
	text = bytes.Replace(text, []byte(`"version":0`), []byte(`"version":1`), 1)
	got, err := parse(text)
	check(t, err)
	sameJSON(t, got, opened())
	if g := got.Grants[0]; g.Interrupted || !g.Void || g.LastError == nil || g.RefreshCount != 6 {
		t.Errorf("the grant is %+v", g)
	}
}

func TestTextAndTimesAreMadeFit(t *testing.T) {
	kiribati := time.FixedZone("UTC+14", 14*60*60)
	d := document()
	d.Made = noon.In(kiribati)
	g := &d.Grants[0]
	g.User = "jane\x1b[31m\u202e"
	g.LastError.Code, g.LastError.Message, g.LastError.Time = "10400\n", "not\r\nfound", noon.In(kiribati)
	g.Issued, g.RefreshUntil = g.Issued.In(kiribati), g.RefreshUntil.In(kiribati)
	d.Applications[0].DisplayName = "Intelligent\tRating"
	want := opened()
	want.Grants[0].User = "jane[31m"
	want.Grants[0].LastError.Message = "not found"
	want.Applications[0].DisplayName = "Intelligent Rating"
	got, err := d.clean()
	check(t, err)
	sameJSON(t, got, want)
	if g.LastError.Message != "not\r\nfound" {
		t.Error("the caller's grant was changed")
	}
	d.Made = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
	if got, err := d.clean(); err != nil || !got.Made.IsZero() {
		t.Errorf("made %v, %v", got.Made, err)
	}
}
