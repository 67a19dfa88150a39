package sandbox

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
)

// TestAccessTokenVerifiesWithPublishedKey takes nothing from this package's
// own signing code.
func TestAccessTokenVerifiesWithPublishedKey(t *testing.T) {
	h := start(t, Options{})
	token := h.grant("jane").AccessToken
	var set struct {
		Keys []struct{ Kty, Alg, Kid, N, E string }
	}
	if err := json.Unmarshal([]byte(h.do("GET", "/security/v1/oauth/keys", "").body), &set); err != nil || len(set.Keys) != 1 {
		t.Fatal(set, err)
	}
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	parts := strings.Split(token, ".")
	var header struct{ Alg, Typ, Kid string }
	if err := json.Unmarshal(decode(parts[0]), &header); err != nil {
		t.Fatal(err)
	}
	k := set.Keys[0]
	if header.Alg != "RS384" || header.Typ != "JWT" || header.Kid != k.Kid || k.Alg != "RS384" || k.Kty != "RSA" || k.Kid == "" {
		t.Errorf("header %+v, key %+v", header, k)
	}
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(decode(k.N)), E: int(new(big.Int).SetBytes(decode(k.E)).Int64())}
	digest := sha512.Sum384([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA384, digest[:], decode(parts[2])); err != nil {
		t.Error(err)
	}
}

func TestAPI(t *testing.T) {
	h := start(t, Options{Users: []User{{Name: "jane", Password: "pw", Company: "Acme Corp", Accounts: []string{"A1B2C3", "X9Y8Z7"}}}})
	bearer := "Bearer " + h.grant("Jane").AccessToken

	r := h.do("POST", "/api/rating/v2409/Shop?x=1", "12345", "Authorization", bearer, "transId", "t-1", "transactionSrc", "test")
	var got struct {
		RateResponse struct {
			Response struct{ ResponseStatus struct{ Code string } }
		}
		Sandbox echo
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != 200 {
		t.Fatal(r, err)
	}
	e := got.Sandbox
	if got.RateResponse.Response.ResponseStatus.Code != "1" || e.Method != "POST" || e.Path != "/api/rating/v2409/Shop" || e.Query != "x=1" ||
		e.Bytes != 5 || e.TransID != "t-1" || e.TransactionSrc != "test" || e.User != "Jane" || e.Company != "Acme Corp" ||
		strings.Join(e.Accounts, " ") != "A1B2C3 X9Y8Z7" || e.ClientID != testClient || r.header.Get("transId") != "t-1" {
		t.Errorf("%s", r.body)
	}
	if r := h.do("GET", "/api/track/v1/details/1Z999", "", "Authorization", bearer); r.status != 200 || !strings.Contains(r.body, `"trackingNumber":"1Z999"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	h.do("POST", "/api/track/v1/details/1Z999", "", "Authorization", bearer).wantError(t, 405, "10405", "Method Not Allowed")
	if r := h.do("DELETE", "/api/shipments/v1/void", "", "Authorization", bearer); r.status != 200 || !strings.Contains(r.body, `"method":"DELETE"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	h.do("POST", "/api/x", strings.Repeat("x", 1<<20+1), "Authorization", bearer).wantError(t, 413, "10413", "Request Entity Too Large")

	forged := strings.Split(bearer, ".")
	forged[1] = encode64([]byte(`{"sub":"joe","jti":"x"}`))
	for _, authorization := range []string{"", "Bearer", "Bearer x", "Bearer a.b.c", basic("jane", "pw"), bearer[:len(bearer)-4], strings.Join(forged, ".")} {
		r := h.do("GET", "/api/rating/v1/Rate", "", "Authorization", authorization)
		r.wantError(t, 401, "250002", "Invalid Authentication Information.")
	}
}

func TestUnlistedPeopleGetACompany(t *testing.T) {
	h := start(t, Options{})
	var got struct{ Sandbox echo }
	for _, name := range []string{"jane", "JANE"} {
		r := h.do("GET", "/api/x", "", "Authorization", "Bearer "+h.grant(name).AccessToken)
		if err := json.Unmarshal([]byte(r.body), &got); err != nil {
			t.Fatal(err)
		}
		if got.Sandbox.User != name || got.Sandbox.Company != "jane Inc." || len(got.Sandbox.Accounts) != 1 || len(got.Sandbox.Accounts[0]) != 6 {
			t.Errorf("%+v", got)
		}
	}
}

// Who has linked no shipping account signs in as everybody does, and finds out later.
func TestUnlinkedAndNamelessPeople(t *testing.T) {
	h := start(t, Options{Users: []User{{Name: "ann", Password: "pw", Unlinked: true}, {Name: "bob", Password: "pw", Nameless: true}}})
	bearer := "Bearer " + h.grant("ann").AccessToken
	for _, path := range []string{"/api/rating/v2409/Shop", "/api/shipments/v1/ship", "/api/x"} {
		h.do("POST", path, "{}", "Authorization", bearer).wantError(t, 400, "120100", "Missing or invalid shipper number")
	}
	if r := h.do("GET", "/api/track/v1/details/1Z999", "", "Authorization", bearer); r.status != 200 {
		t.Errorf("tracking: %d %s", r.status, r.body)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(h.grant("bob").AccessToken, ".")[1])
	if err != nil || strings.Contains(string(payload), `"sub"`) || !strings.Contains(string(payload), `"clientid"`) {
		t.Errorf("%s, %v", payload, err)
	}
	if _, err := ParseUsers([]byte(`[{"name":"ann","password":"x","unlinked":true,"accounts":["A1B2C3"]}]`)); err == nil {
		t.Error("somebody is unlinked and has an account")
	}
}
