package ups

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
	"unicode"
)

// jwt is an unsigned token with these claims.
func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS384","typ":"JWT","kid":"x"}`)) + "." + encode([]byte(claims)) + ".c2lnbmF0dXJl"
}

func TestReadClaims(t *testing.T) {
	published := `{"sub":"jane@acme.example","clientid":"` + testClientID + `","iss":"https://apis.ups.com","uuid":"9F3B6A4C-1A0B-1C2D-9A55-0123456789AB",` +
		`"sid":"64eb2b53","aud":"Batch Suite","at":"Wv7tq2","nbf":1706710138,"DisplayName":"UPS® Batch Suite","exp":1706724538,` +
		`"iat":1706710138,"jti":"d4b31d7f"}`
	jane := Claims{Subject: "jane@acme.example", ClientID: testClientID, DisplayName: "UPS® Batch Suite", Lifetime: 4 * time.Hour}
	header, payload, _ := strings.Cut(jwt(published), ".")
	payload, signature, _ := strings.Cut(payload, ".")
	padded := base64.URLEncoding.EncodeToString([]byte(`{"sub":"jane"}`))
	for _, test := range []struct {
		name, token string
		want        Claims
	}{
		{"as UPS publishes them", jwt(published), jane},
		{"no signature", header + "." + payload + ".", jane},
		{"padding", "e30=." + padded + ".c2ln", Claims{Subject: "jane"}},
		{"characters of base64url", jwt(`{"sub":"ÿþ~jane?>"}`), Claims{Subject: "ÿþ~jane?>"}},
		{"control characters", jwt(`{"sub":"jane\u0000\u001b[31m\n@acme"}`), Claims{Subject: "jane[31m @acme"}},
		{"other types", jwt(`{"sub":7,"clientid":null,"DisplayName":["x"],"exp":"1706724538","iat":"1706710138"}`), Claims{}},
		{"fractions", jwt(`{"exp":1706724538.9,"iat":1706710138.2}`), Claims{Lifetime: 4 * time.Hour}},
		{"exp alone", jwt(`{"exp":1706724538}`), Claims{}},
		{"iat alone", jwt(`{"iat":1706710138}`), Claims{}},
		{"exp before iat", jwt(`{"exp":1706710138,"iat":1706724538}`), Claims{}},
		{"exp at iat", jwt(`{"exp":1706710138,"iat":1706710138}`), Claims{}},
		{"iat before 1970", jwt(`{"exp":1706724538,"iat":-1}`), Claims{}},
		{"exp without end", jwt(`{"exp":1e300,"iat":1706710138}`), Claims{Lifetime: maxLifetime}},
		{"no number of this world", jwt(`{"sub":"jane","exp":1e999}`), Claims{}},

		{"empty", "", Claims{}},
		{"opaque", "Wv7tq2mXc3ZtRe6WbNv1KsLy8HdJg0FuAoI", Claims{}},
		{"two parts", header + "." + payload, Claims{}},
		{"four parts", header + "." + payload + "." + signature + ".x", Claims{}},
		{"no base64", header + ".%%%." + signature, Claims{}},
		{"no JSON", "e30." + base64.RawURLEncoding.EncodeToString([]byte("sub=jane")) + ".x", Claims{}},
		{"no object", jwt(`["sub","jane"]`), Claims{}},
		{"null", jwt(`null`), Claims{}},
		{"dots", "..", Claims{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ReadClaims(test.token); got != test.want {
				t.Errorf("%s claims\n%+v, want\n%+v", test.token, got, test.want)
			}
		})
	}
}

func FuzzReadClaims(f *testing.F) {
	f.Add("e30", `{"sub":"jane","iat":1,"exp":2}`)
	f.Add("", `{"sub":"a\u0000b","exp":1e300,"iat":1}`)
	f.Add(".", "")
	f.Fuzz(func(t *testing.T, around, claims string) {
		for _, token := range []string{around, around + "." + claims + "." + around, around + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."} {
			got := ReadClaims(token)
			for _, text := range []string{got.Subject, got.ClientID, got.DisplayName} {
				if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
					t.Errorf("%q is not fit to be shown", text)
				}
			}
			if got.Lifetime < 0 || got.Lifetime > maxLifetime {
				t.Errorf("the lifetime is %s", got.Lifetime)
			}
		}
	})
}
