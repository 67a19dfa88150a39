package ups

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

var sampleIssued = time.Date(2024, 1, 31, 14, 8, 58, 962e6, time.UTC)

// sampleTokens is what stands in the sample.
func sampleTokens() Tokens {
	return Tokens{
		AccessToken: newAccess, RefreshToken: newRefresh, TokenType: "Bearer", ClientID: testClientID,
		Status: "approved", RefreshTokenStatus: "approved",
		IssuedAt: sampleIssued, ExpiresIn: 14399 * time.Second,
		RefreshTokenIssuedAt: sampleIssued, RefreshTokenExpiresIn: 5183999 * time.Second,
	}
}

func TestDecodeTokens(t *testing.T) {
	sampled := sampleTokens()
	damaged := sampled
	damaged.Damaged = true
	pair := Tokens{AccessToken: "a", RefreshToken: "r"}
	damagedPair := Tokens{AccessToken: "a", RefreshToken: "r", Damaged: true}
	for _, test := range []struct {
		name, body string
		want       Tokens
	}{
		{"UPS's sample", sample, sampled},
		{"indented", strings.NewReplacer(`,"`, ",\r\n  \"", `":`, "\" : ", "{", " \n{ ", "}", "\t}\n\n").Replace(sample), sampled},
		{"byte order mark", "\ufeff" + sample, sampled},
		{"numbers", strings.NewReplacer(`"5183999"`, "5183999", `"1706710138962"`, "1706710138962", `"14399"`, "14399", `"0"`, "0").Replace(sample), sampled},
		{"floats", strings.NewReplacer(`"5183999"`, "5183999.0", `"1706710138962"`, "1.706710138962e12", `"14399"`, `"14399.9"`).Replace(sample), sampled},
		{"trailing garbage", sample + "x", damaged},
		{"two objects", sample + `{"refresh_token":"other"}`, damaged},

		{"fields missing", `{"access_token":"a","refresh_token":"r"}`, pair},
		{"fields empty", `{"access_token":"a","refresh_token":"r","expires_in":"","issued_at":"","scope":"","refresh_count":""}`, pair},
		{"fields null", `{"access_token":"a","refresh_token":"r","expires_in":null,"issued_at":null,"refresh_count":null}`, pair},
		{"fields of other types", `{"access_token":"a","refresh_token":"r","expires_in":[3599],"issued_at":{"ms":1},"scope":true}`, pair},
		{"no numbers", `{"access_token":"a","refresh_token":"r","expires_in":"soon","issued_at":"today","refresh_count":"few"}`, pair},
		{"negative", `{"access_token":"a","refresh_token":"r","expires_in":"-1","issued_at":-1706710138962,"refresh_token_expires_in":-3599.5}`, pair},
		{"no finite numbers", `{"access_token":"a","refresh_token":"r","expires_in":"NaN","issued_at":"Inf","refresh_token_expires_in":"-Infinity"}`, pair},
		{"beyond all calendars", `{"access_token":"a","refresh_token":"r","issued_at":"99999999999999","refresh_token_issued_at":1e300}`, pair},
		{"unknown fields", `{"organization":{"name":"x"},"list":[1,{"refresh_token":"other"}],"access_token":"a","refresh_token":"r"}`, pair},
		{"escapes", `{"access_token":"\u0061","refresh_token":"\u0072","scope":"a\/b\"c\\"}`, Tokens{AccessToken: "a", RefreshToken: "r", Scope: `a/b"c\`}},
		{"keys count to the letter", `{"Access_Token":"x","access_token":"a","refresh_token":"r","REFRESH_TOKEN":"x"}`, pair},
		{"the last of several counts", `{"access_token":"x","refresh_token":"y","access_token":"a","refresh_token":"r"}`, pair},
		{"huge lifetimes", `{"access_token":"a","refresh_token":"r","expires_in":"9007199254740993"}`,
			Tokens{AccessToken: "a", RefreshToken: "r", ExpiresIn: maxLifetime}},
		{"refreshed often", `{"access_token":"a","refresh_token":"r","refresh_count":"17"}`, Tokens{AccessToken: "a", RefreshToken: "r", RefreshCount: 17}},
		{"only a refresh token", `{"refresh_token":"r"}`, Tokens{RefreshToken: "r"}},
		{"nested tokens are not UPS's", `{"response":{"access_token":"a","refresh_token":"r"}}`, Tokens{}},

		// One value that is written wrongly must not cost the tokens behind it.
		{"value missing", `{"expires_in":,"access_token":"a","refresh_token":"r"}`, damagedPair},
		{"value without quotes", `{"status":approved,"access_token" : "a", "refresh_token":"r"}`, damagedPair},
		{"comma too many", `{"scope":"",,"access_token":"a","refresh_token":"r"}`, damagedPair},
		{"comma missing", `{"access_token":"a" "refresh_token":"r"}`, damagedPair},
		{"line break in a value", "{\"scope\":\"one\ntwo\",\"access_token\":\"a\",\"refresh_token\":\"r\"}", damagedPair},
		{"escape that is none", `{"scope":"\x","access_token":"a","refresh_token":"r"}`, damagedPair},
		{"wrong bracket", `{"access_token":"a","refresh_token":"r"]`, damagedPair},
		{"token of two lines", "{\"expires_in\":,\"access_token\":\"a\",\"refresh_token\":\"r\n\"}", Tokens{AccessToken: "a", Damaged: true}},
		{"token quoted in another value", `{"expires_in":,"scope":"\"refresh_token\":\"x\""}`, Tokens{Damaged: true}},

		{"empty", "", Tokens{Damaged: true}},
		{"null", "null", Tokens{Damaged: true}},
		{"list", `["access_token","a"]`, Tokens{Damaged: true}},
		{"string", `"access_token"`, Tokens{Damaged: true}},
		{"empty object", `{}`, Tokens{}},
		{"form", "access_token=a&refresh_token=r", Tokens{Damaged: true}},
		{"page that has a token in it", `<script>{"refresh_token":"r"}</script>`, Tokens{Damaged: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := DecodeTokens([]byte(test.body)); got != test.want {
				t.Errorf("%s has\n%+v, want\n%+v", test.body, got, test.want)
			}
		})
	}
}

func TestLifetimesAndMoments(t *testing.T) {
	for _, test := range []struct {
		text   string
		length time.Duration
		moment time.Time
	}{
		{"", 0, time.Time{}},
		{"0", 0, time.Time{}},
		{"-1", 0, time.Time{}},
		{"0.9", 0, time.Time{}},
		{"1", time.Second, time.UnixMilli(1)},
		{"3599", 3599 * time.Second, time.UnixMilli(3599)},
		{"3599.0", 3599 * time.Second, time.UnixMilli(3599)},
		{"3.599e3", 3599 * time.Second, time.UnixMilli(3599)},
		{"4102444800000", maxLifetime, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"4102444800001", maxLifetime, time.Time{}},
		{"9223372036854775807", maxLifetime, time.Time{}},
		{"9223372036854775808", 0, time.Time{}},
		{"1e999", 0, time.Time{}},
		{"3599 s", 0, time.Time{}},
		{"3,599", 0, time.Time{}},
	} {
		tokens := DecodeTokens(fmt.Appendf(nil, `{"expires_in":%q,"issued_at":%q}`, test.text, test.text))
		if tokens.ExpiresIn != test.length || !tokens.IssuedAt.Equal(test.moment) {
			t.Errorf("%q is %s and %v, want %s and %v", test.text, tokens.ExpiresIn, tokens.IssuedAt, test.length, test.moment)
		}
	}
}

// An answer may end at any byte. What is complete in it then is worth a person's
// way to the browser, and what is not complete must never be used.
func TestDecodeTokensOfAnAnswerCutAnywhere(t *testing.T) {
	escaped := strings.Replace(sample, newRefresh[:4], `\u0070\"\/\\`, 1)
	numbers := strings.NewReplacer(`"5183999"`, "5183999", `"1706710138962"`, "1706710138962", `"14399"`, "14399", `"0"`, "17").Replace(sample)
	for name, body := range map[string]string{"strings": sample, "escapes": escaped, "numbers": numbers} {
		t.Run(name, func(t *testing.T) {
			full := reflect.ValueOf(DecodeTokens([]byte(body)))
			complete := func(field string) int {
				at := strings.Index(body, `"`+field+`":"`) + len(field) + 4
				for ; body[at] != '"'; at++ {
					if body[at] == '\\' {
						at++
					}
				}
				return at + 1
			}
			for end := range len(body) {
				tokens := DecodeTokens([]byte(body[:end]))
				if !tokens.Damaged {
					t.Fatalf("nothing is said of the damage: %s", body[:end])
				}
				if got, want := tokens.RefreshToken != "", end >= complete("refresh_token"); got != want {
					t.Errorf("there is a refresh token: %t, want %t: %s", got, want, body[:end])
				}
				if got, want := tokens.AccessToken != "", end >= complete("access_token"); got != want {
					t.Errorf("there is an access token: %t, want %t: %s", got, want, body[:end])
				}
				v := reflect.ValueOf(tokens)
				for i := range v.NumField() {
					if name := v.Type().Field(i).Name; name != "Damaged" && !v.Field(i).IsZero() && !v.Field(i).Equal(full.Field(i)) {
						t.Errorf("half a value counts: %s is %v, want %v: %s", name, v.Field(i), full.Field(i), body[:end])
					}
				}
			}
		})
	}
}

func FuzzDecodeTokens(f *testing.F) {
	for _, seed := range []string{
		sample, sample[:300], sample + "x", "\ufeff" + sample, "", "{", "null", `{"refresh_token":"`, `{"refresh_token":"a\`, `{"refresh_token":"\u00`,
		`{"access_token":12,"refresh_token":1e5}`, `{"refresh_token":12`, `{"expires_in":-1e400,"issued_at":1e19}`,
		`{"expires_in":,"access_token":"a","refresh_token":"r"}`, `{"x":{"refresh_token":"r","`, "{\"scope\":\"\n\",\"refresh_token\":\"r\"}",
		`{"refresh_token":"a","refresh_token":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		tokens := DecodeTokens(body)
		for _, token := range []string{tokens.AccessToken, tokens.RefreshToken} {
			if token != "" && !hasValue(body, token) {
				t.Errorf("%q is no whole value of %q", token, body)
			}
		}
		for _, d := range []time.Duration{tokens.ExpiresIn, tokens.RefreshTokenExpiresIn} {
			if d < 0 || d > maxLifetime {
				t.Errorf("a lifetime is %s", d)
			}
		}
		for _, at := range []time.Time{tokens.IssuedAt, tokens.RefreshTokenIssuedAt} {
			if !at.IsZero() && (at.Year() < 1970 || at.Year() > 2100) {
				t.Errorf("a moment is %s", at)
			}
		}
		var whole map[string]any
		text := bytes.TrimPrefix(body, []byte("\ufeff"))
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&whole); err != nil || whole == nil || !json.Valid(text) {
			if !tokens.Damaged {
				t.Errorf("nothing is said of the damage (%v)", err)
			}
			return
		}
		if tokens.Damaged {
			t.Error("a whole object counts as damaged")
		}
		if want, ok := whole["refresh_token"].(string); ok && tokens.RefreshToken != want {
			t.Errorf("the refresh token is %q, want %q", tokens.RefreshToken, want)
		}
	})
}

// hasValue reports whether a JSON string or number stands whole in the text
// that says just this.
func hasValue(text []byte, want string) bool {
	for i := range text {
		dec := json.NewDecoder(bytes.NewReader(text[i:]))
		dec.UseNumber()
		switch value, _ := dec.Token(); v := value.(type) {
		case string:
			if v == want {
				return true
			}
		case json.Number:
			if v.String() == want && i+len(want) < len(text) {
				return true
			}
		}
	}
	return false
}
