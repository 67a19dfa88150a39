package ups

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// call sends the request of an endpoint and returns its error.
func call(ctx context.Context, c *Client, endpoint Endpoint) error {
	var err error
	switch endpoint {
	case AuthorizeEndpoint:
		err = c.Preflight(ctx)
	case TokenEndpoint:
		_, _, err = c.Exchange(ctx, testCode, testVerifier, forget)
	case RefreshEndpoint:
		_, err = c.Refresh(ctx, testRefresh, forget)
	}
	return err
}

// What every answer of UPS's means, by endpoint: code 10400 alone says nothing.
func TestRefusalsMeanWhatUPSDocuments(t *testing.T) {
	const (
		authorize = AuthorizeEndpoint
		token     = TokenEndpoint
		refresh   = RefreshEndpoint
		page      = "<!DOCTYPE html><html><head><TITLE>Bad\n Gateway</TITLE></head></html>"
	)
	fault := func(message, code string) string {
		return `{"fault":{"faultstring":"` + message + `","detail":{"errorcode":"` + code + `"}}}`
	}
	rfc := func(code, description string) string {
		return `{"error":"` + code + `","error_description":"` + description + `"}`
	}
	for _, test := range []struct {
		endpoint Endpoint
		status   int
		body     string
		want     Kind
		code     string
		message  string
	}{
		{authorize, 400, upsError("10400", "Invalid Redirect URL"), RedirectURIRefused, "10400", "Invalid Redirect URL"},
		{authorize, 401, upsError("10401", "ClientId is Invalid"), ClientRefused, "10401", "ClientId is Invalid"},
		{authorize, 403, upsError("10403", "Blocked Merchant"), Blocked, "10403", "Blocked Merchant"},
		{authorize, 429, upsError("10429", "Too Many Requests"), RateLimited, "10429", "Too Many Requests"},
		{authorize, 500, upsError("10500", "Internal Server Error"), Down, "10500", "Internal Server Error"},

		{token, 400, upsError("10400", "Invalid Authorization Code"), CodeRefused, "10400", "Invalid Authorization Code"},
		{token, 400, upsError("10400", "Invalid Code Verifier: code_verifier does not match"), CodeRefused, "10400", "Invalid Code Verifier: code_verifier does not match"},
		{token, 400, upsError("10400", "Invalid Redirect URL"), RedirectURIRefused, "10400", "Invalid Redirect URL"},
		{token, 400, upsError("10400", "Invalid/Missing Authorization Header"), HeaderMissing, "10400", "Invalid/Missing Authorization Header"},
		{token, 400, upsError("10400", "Something new"), Unknown, "10400", "Something new"},
		{token, 401, upsError("10401", "ClientId is Invalid"), ClientRefused, "10401", "ClientId is Invalid"},
		{token, 403, upsError("10403", "Blocked Merchant"), Blocked, "10403", "Blocked Merchant"},
		{token, 429, upsError("10429", "Too Many Requests"), RateLimited, "10429", "Too Many Requests"},
		{token, 500, upsError("10500", "Internal Server Error"), Down, "10500", "Internal Server Error"},
		{token, 400, rfc("invalid_grant", "expired"), CodeRefused, "invalid_grant", "expired"},
		{token, 401, rfc("invalid_client", "no such client"), ClientRefused, "invalid_client", "no such client"},
		{token, 400, rfc("unauthorized_client", ""), ClientRefused, "unauthorized_client", ""},
		{token, 400, rfc("invalid_grant", "redirect_uri differs"), RedirectURIRefused, "invalid_grant", "redirect_uri differs"},
		{token, 400, rfc("unsupported_grant_type", ""), Unknown, "unsupported_grant_type", ""},

		{refresh, 400, upsError("10400", "Invalid Refresh Token"), RefreshTokenRefused, "10400", "Invalid Refresh Token"},
		{refresh, 401, upsError("10401", "Refresh token expired"), RefreshTokenRefused, "10401", "Refresh token expired"},
		{refresh, 401, upsError("10499", "refresh_token has been revoked"), RefreshTokenRefused, "10499", "refresh_token has been revoked"},
		{refresh, 400, upsError("10400", "The used refresh token cannot be used again"), RefreshTokenRefused, "10400", "The used refresh token cannot be used again"},
		{refresh, 400, rfc("invalid_grant", ""), RefreshTokenRefused, "invalid_grant", ""},
		{refresh, 400, upsError("10400", "invalid_grant: token family ended"), RefreshTokenRefused, "10400", "invalid_grant: token family ended"},
		{refresh, 400, rfc("invalid_grant", "issued to another client_id"), RefreshTokenRefused, "invalid_grant", "issued to another client_id"},
		{refresh, 400, upsError("10400", "Invalid/Missing Authorization Header"), HeaderMissing, "10400", "Invalid/Missing Authorization Header"},
		{refresh, 401, upsError("10401", "ClientId is Invalid"), ClientRefused, "10401", "ClientId is Invalid"},
		{refresh, 400, upsError("10401", "ClientId is Invalid for this refresh token"), ClientRefused, "10401", "ClientId is Invalid for this refresh token"},
		{refresh, 403, upsError("10403", "Blocked Merchant"), Blocked, "10403", "Blocked Merchant"},
		{refresh, 429, upsError("10429", "Too Many Requests"), RateLimited, "10429", "Too Many Requests"},
		{refresh, 400, upsError("10429", "Too Many Requests"), RateLimited, "10429", "Too Many Requests"},
		{refresh, 500, upsError("10500", "Internal Server Error"), Down, "10500", "Internal Server Error"},
		{refresh, 400, upsError("10500", "Internal Server Error"), Down, "10500", "Internal Server Error"},
		{refresh, 503, upsError("10400", "Invalid Refresh Token"), Down, "10400", "Invalid Refresh Token"},
		// The words "refresh token" alone are no judgement of the token.
		{refresh, 400, upsError("10400", "Missing refresh token"), Unknown, "10400", "Missing refresh token"},
		{refresh, 401, upsError("10400", "The refresh token could not be read"), Unknown, "10400", "The refresh token could not be read"},
		{refresh, 400, rfc("unsupported_grant_type", "grant_type refresh_token is invalid here"), Unknown, "unsupported_grant_type", "grant_type refresh_token is invalid here"},
		{refresh, 400, rfc("unauthorized_client", "this client may no longer use refresh_token"), ClientRefused, "unauthorized_client", "this client may no longer use refresh_token"},
		{refresh, 400, rfc("invalid_request", "refresh_token parameter is required"), Unknown, "invalid_request", "refresh_token parameter is required"},
		{refresh, 401, upsError("10400", "Unauthorized"), ClientRefused, "10400", "Unauthorized"},
		{refresh, 400, upsError("10400", "Something new"), Unknown, "10400", "Something new"},
		{refresh, 404, upsError("10404", "Not Found"), Unknown, "10404", "Not Found"},

		// The gateway before UPS.
		{refresh, 401, fault("Invalid ApiKey", "oauth.v2.InvalidApiKey"), ClientRefused, "oauth.v2.InvalidApiKey", "Invalid ApiKey"},
		{refresh, 429, fault("Rate limit quota violation", "policies.ratelimit.QuotaViolation"), RateLimited, "policies.ratelimit.QuotaViolation", "Rate limit quota violation"},
		{refresh, 504, fault("Gateway Timeout", "messaging.adaptors.http.flow.GatewayTimeout"), Down, "messaging.adaptors.http.flow.GatewayTimeout", "Gateway Timeout"},
		{refresh, 400, fault("Invalid Refresh Token", "keymanagement.service.invalid_refresh_token"), RefreshTokenRefused, "keymanagement.service.invalid_refresh_token", "Invalid Refresh Token"},

		// Odd forms of the same.
		{refresh, 400, `{"response":{"errors":[{"code":10400,"message":"Invalid Refresh Token"}]}}`, RefreshTokenRefused, "10400", "Invalid Refresh Token"},
		{refresh, 400, "\ufeff" + upsError("10400", "Invalid Refresh Token"), RefreshTokenRefused, "10400", "Invalid Refresh Token"},
		{refresh, 400, `{"response":{"errors":[{"code":null,"message":"one"},{"code":"10400","message":"two"}]}}`, Unknown, "10400", "one; two"},
		{refresh, 400, `{"response":{"errors":[{"code":["10400"],"message":"Invalid Refresh Token"}]}}`, RefreshTokenRefused, "", "Invalid Refresh Token"},
		{refresh, 400, `{"response":{"errors":[]},"error":"invalid_grant"}`, RefreshTokenRefused, "invalid_grant", ""},

		// Who writes a page or nothing does not judge clients and tokens.
		{refresh, 502, page, Down, "", "the answer is a web page: Bad Gateway"},
		{refresh, 403, page, Unknown, "", "the answer is a web page: Bad Gateway"},
		{token, 403, "", Unknown, "", "the answer's body is empty"},
		{token, 401, page, Unknown, "", "the answer is a web page: Bad Gateway"},
		{refresh, 429, page, RateLimited, "", "the answer is a web page: Bad Gateway"},
		{refresh, 302, page, Down, "", "the answer is a web page: Bad Gateway"},
		{refresh, 400, "", Unknown, "", "the answer's body is empty"},
		{refresh, 400, " \r\n", Unknown, "", "the answer's body is empty"},
		{refresh, 400, "Bad Request", Unknown, "", "the answer is not in UPS's form"},
		{refresh, 400, "{}", Unknown, "", "the answer is not in UPS's form"},
		{refresh, 400, "null", Unknown, "", "the answer is not in UPS's form"},
		{refresh, 400, `["Invalid Refresh Token"]`, Unknown, "", "the answer is not in UPS's form"},
		{refresh, 400, upsError("10400", "Invalid Refresh Token")[:50], Unknown, "", "the answer ends in the middle"},
		{refresh, 400, "<p>no title</p>", Unknown, "", "the answer is a web page"},
		{refresh, 500, "", Down, "", "the answer's body is empty"},
	} {
		t.Run(fmt.Sprintf("%s %d %.60s", test.endpoint, test.status, test.body), func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			})
			e := typed(t, call(t.Context(), newClient(t, s.URL), test.endpoint))
			if e.Kind != test.want || e.Endpoint != test.endpoint || e.Status != test.status {
				t.Errorf("it is %s at %s with %d, want %s", e.Kind, e.Endpoint, e.Status, test.want)
			}
			if e.Code != test.code || e.Message != test.message {
				t.Errorf("it says %q %q, want %q %q", e.Code, e.Message, test.code, test.message)
			}
			if want := test.want == Down; e.FateUnknown() != want {
				t.Errorf("the fate of what was sent is unknown: %t, want %t", !want, want)
			}
			if text := e.Error(); !strings.Contains(text, test.code) || !strings.Contains(text, fmt.Sprintf("HTTP %d at %s", test.status, test.endpoint)) {
				t.Errorf("the text lacks what UPS's support would ask for: %s", text)
			}
			if strings.Contains(e.Error(), "JSON") || strings.Contains(e.Error(), "unexpected") {
				t.Errorf("the text is a parser's: %s", e)
			}
		})
	}
}

func TestRefusalsOfAPICalls(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		want   Kind
	}{
		{401, upsError("250002", "Invalid Authentication Information"), AccessTokenRefused},
		{400, upsError("250002", "Invalid Authentication Information"), AccessTokenRefused},
		{401, "", AccessTokenRefused},
		{401, upsError("250003", "Invalid Access License number"), AccessTokenRefused},
		{400, upsError("9110037", "Invalid Refresh Token"), RequestRefused},
		{400, upsError("120100", "Missing or invalid shipper number"), AccountMissing},
		{401, upsError("120100", "Missing or invalid shipper number"), AccountMissing},
		{400, upsError("", "Missing or invalid shipper number"), AccountMissing},
		{400, upsError("9110054", "Missing or Invalid account number for Payment Details"), AccountMissing},
		{400, upsError("111580", "User Id and Shipper Number combination is not qualified to receive negotiated rates"), AccountMissing},
		{400, upsError("120999", "The ShipperNumber is not authorized"), AccountMissing},
		{400, upsError("120999", "Invalid third party account number"), RequestRefused},
		{400, upsError("120999", "The receiver's account number is invalid"), RequestRefused},
		{401, upsError("250006", "The maximum number of user access attempts was exceeded"), UserLocked},
		{401, upsError("250007", "The UserId is currently locked out; please try again in 24 hours."), UserLocked},
		{400, upsError("10001", "The request is not well formed"), RequestRefused},
		{404, upsError("151044", "No locations found"), RequestRefused},
		{404, "", Unknown},
		{403, upsError("10403", "Blocked Merchant"), Blocked},
		{429, "", RateLimited},
		{503, "<html>", Down},
	} {
		if e := errorIn(APIEndpoint, test.status, http.Header{}, []byte(test.body)); e.Kind != test.want {
			t.Errorf("%d %s is %s, want %s", test.status, test.body, e.Kind, test.want)
		}
	}
}

// Who has to link which account is what a person needs to know.
func TestAccountThatIsNotLinked(t *testing.T) {
	const rate = `{"RateRequest":{"Shipment":{"Shipper":{"ShipperNumber":" A1B2C3 "},"PaymentDetails":{"ShipmentCharge":[{"BillShipper":{"AccountNumber":"X9X9X9"}}]}}}}`
	for _, test := range []struct{ path, body, want string }{
		{"/api/rating/v2409/Rate", rate, "A1B2C3"},
		{"/api/rating/v2409/Rate", strings.Replace(rate, " A1B2C3 ", "", 1), "X9X9X9"},
		{"/api/rating/v2409/Rate", "\ufeff" + rate, "A1B2C3"},
		{"/x?accountNumber=ABC123", "", "ABC123"},
		{"/x?ShipperNumber=ABC123", rate, "ABC123"},
		{"/x", `{"shippernumber":"\u001b[31mred"}`, ""},
		{"/x", `{"ShipperNumber":123456}`, ""},
		{"/x", `{"ShipperNumber":`, ""},
		{"/x", "", ""},
	} {
		if got := (Call{Path: test.path, Body: []byte(test.body)}).Account(); got != test.want {
			t.Errorf("%s %s: %q, want %q", test.path, test.body, got, test.want)
		}
	}
	e := errorIn(APIEndpoint, 400, http.Header{}, []byte(upsError("120100", "Missing or invalid shipper number")))
	if text := e.Error(); !strings.Contains(text, "the account of the request is not linked to the ups.com user who signed in") {
		t.Error(text)
	}
	e.User, e.Account = "jane@acme.example", "A1B2C3"
	if text := e.Error(); !strings.Contains(text, "the account A1B2C3 is not linked to the ups.com user jane@acme.example") || !strings.Contains(text, "120100") {
		t.Error(text)
	}
}

// A company must authorize again only on UPS's own word about its refresh
// token: no status, no page and no half sentence may stand for it.
func TestNothingButWordsAboutTheRefreshTokenVoidsAGrant(t *testing.T) {
	bodies := []string{
		"", " ", "{", "{}", "null", "0", `"Invalid Refresh Token"`, "Invalid Refresh Token", "\x00\xff",
		"<html><title>Invalid Refresh Token</title></html>",
		"<h1>invalid_grant</h1>",
		`{"message":"Invalid Refresh Token"}`,
		`{"response":{"errors":[{"code":"10400","message":"Invalid Refresh Token"}]}`,
		`{"error":"invalid_gran`,
		upsError("10400", ""), upsError("10400", "Bad Request"), upsError("10401", "ClientId is Invalid"), upsError("", "Token"),
		`{"error":"invalid_token"}`, `{"error":"access_denied"}`, `{"error":400}`, `{"error":{"code":"invalid_grant"}}`,
	}
	for _, status := range []int{302, 400, 401, 403, 404, 405, 407, 408, 410, 415, 418, 429, 451, 500, 502, 503, 599} {
		for _, body := range bodies {
			for _, contentType := range []string{"application/json", "text/html; charset=utf-8", ""} {
				header := http.Header{"Content-Type": {contentType}}
				if e := errorIn(RefreshEndpoint, status, header, []byte(body)); e.Kind == RefreshTokenRefused {
					t.Errorf("%d, %s, %q voids the grant", status, contentType, body)
				}
			}
		}
	}
	for _, endpoint := range []Endpoint{AuthorizeEndpoint, TokenEndpoint, APIEndpoint} {
		if e := errorIn(endpoint, 400, http.Header{}, []byte(upsError("10400", "Invalid Refresh Token"))); e.Kind == RefreshTokenRefused {
			t.Errorf("an answer of %s voids a grant", endpoint)
		}
	}
}

func TestRefusalInHeadersAlone(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("errorcode", "10400")
		w.Header().Set("errordescription", "Invalid Refresh Token")
		w.WriteHeader(http.StatusBadRequest)
	})
	e := typed(t, call(t.Context(), newClient(t, s.URL), RefreshEndpoint))
	if e.Kind != RefreshTokenRefused || e.Code != "10400" || e.Message != "Invalid Refresh Token" {
		t.Errorf("it is %s, %q %q", e.Kind, e.Code, e.Message)
	}
}

func TestPauseThatUPSAsksFor(t *testing.T) {
	const date = "Sat, 21 Nov 2026 16:05:03 GMT"
	for _, test := range []struct {
		name   string
		status int
		body   string
		after  string
		want   time.Duration
	}{
		{"seconds", 429, "", "120", 2 * time.Minute},
		{"HTTP date", 429, "", "Sat, 21 Nov 2026 16:06:33 GMT", 90 * time.Second},
		{"garbage", 429, "", "soon", 0},
		{"none", 429, "", "", 0},
		{"503", 503, "", "7", 7 * time.Second},
		{"429 by its code", 400, upsError("10429", "Too Many Requests"), "7", 7 * time.Second},
		{"not a matter of time", 400, upsError("10400", "Invalid Refresh Token"), "7", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", date)
				if test.after != "" {
					w.Header().Set("Retry-After", test.after)
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			})
			answer, err := newClient(t, s.URL).Refresh(t.Context(), testRefresh, forget)
			if e := typed(t, err); e.RetryAfter != test.want || answer.RetryAfter != test.after {
				t.Errorf("the pause is %s (%q), want %s", e.RetryAfter, answer.RetryAfter, test.want)
			}
		})
	}
}

func TestRetryAfterStaysWithinReason(t *testing.T) {
	const date = "Sat, 21 Nov 2026 16:05:03 GMT"
	const day = 24 * time.Hour
	for _, test := range []struct {
		value, date string
		want        time.Duration
	}{
		{"", date, 0},
		{"0", date, 0},
		{"1", date, time.Second},
		{" 30 ", date, 30 * time.Second},
		{"-1", date, 0},
		{"-9223372037", date, 0},
		{"-9223372036854775808", date, 0},
		{"86400", date, day},
		{"86401", date, day},
		{"9223372036854775807", date, day},
		{"99999999999999999999999", date, 0},
		{"1.5", date, 0},
		{"30s", date, 0},
		{"Sat, 21 Nov 2026 16:05:04 GMT", date, time.Second},
		{"Saturday, 21-Nov-26 16:05:04 GMT", date, time.Second},
		{"Sat Nov 21 16:05:04 2026", date, time.Second},
		{"Sat, 21 Nov 2026 16:05:02 GMT", date, 0},
		{"Sat, 21 Nov 2099 16:05:02 GMT", date, day},
		{"Sat, 21 Nov 2026", date, 0},
		{"Thu, 01 Jan 1970 00:00:00 GMT", "", 0},
		{"Thu, 31 Dec 9998 00:00:00 GMT", "garbage", day},
	} {
		if got := retryAfter(test.value, test.date); got != test.want {
			t.Errorf("Retry-After: %s at %q is %s, want %s", test.value, test.date, got, test.want)
		}
	}
}

// Servers quote what they refuse. None of it may end on a terminal, in a log or
// in a record.
func TestErrorsHoldNothingSecretOfTheRequest(t *testing.T) {
	say := func(status int, body string) http.HandlerFunc { return saying(status, "", body) }
	quoting := map[string]func(secret string) http.HandlerFunc{
		"message":        func(s string) http.HandlerFunc { return say(400, upsError("10400", s)) },
		"code":           func(s string) http.HandlerFunc { return say(400, upsError(s, "Bad Request")) },
		"split message":  func(s string) http.HandlerFunc { return say(400, upsError("1", s[:5]+`\u0000\u200b\u001b`+s[5:])) },
		"end of message": func(s string) http.HandlerFunc { return say(400, upsError("1", strings.Repeat("x", 290)+s)) },
		"description":    func(s string) http.HandlerFunc { return say(400, `{"error":"x","error_description":"`+s+`"}`) },
		"fault":          func(s string) http.HandlerFunc { return say(401, `{"fault":{"faultstring":"`+s+`"}}`) },
		"page title":     func(s string) http.HandlerFunc { return say(502, "<title>"+s+"</title>") },
		"headers": func(s string) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("errorcode", s)
				w.Header().Set("errordescription", s)
				w.WriteHeader(http.StatusBadRequest)
			}
		},
		"no HTTP": func(s string) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					fmt.Fprintf(conn, "400 %s\r\n\r\n", s)
					conn.Close()
				}
			}
		},
	}
	const odd = "rT/5y+Nw8bKq2Z=="
	exchange := func(ctx context.Context, c *Client) error {
		_, _, err := c.Exchange(ctx, testCode, testVerifier, forget)
		return err
	}
	refresh := func(token string) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error {
			_, err := c.Refresh(ctx, token, forget)
			return err
		}
	}
	for _, test := range []struct {
		name    string
		pkce    PKCE
		call    func(context.Context, *Client) error
		secrets []string
	}{
		{"exchange", PKCEOff, exchange, []string{testCode, testSecret, basicCredentials()}},
		{"exchange with PKCE", PKCEOn, exchange, []string{testCode, testVerifier}},
		{"refresh", PKCEOff, refresh(testRefresh), []string{testRefresh, testSecret, basicCredentials()}},
		{"refresh as its form has it", PKCEOff, refresh(odd), []string{odd, url.QueryEscape(odd)}},
	} {
		for where, answer := range quoting {
			t.Run(test.name+", "+where, func(t *testing.T) {
				for _, secret := range test.secrets {
					s := newServer(t, answer(secret))
					e := typed(t, test.call(t.Context(), newClient(t, s.URL, withPKCE(test.pkce))))
					for _, text := range []string{e.Message, e.Code, e.Error()} {
						if strings.Contains(text, secret[:5]) {
							t.Errorf("%s tells %q", text, secret)
						}
					}
				}
			})
		}
	}
}

func TestMessagesAreFitForATerminal(t *testing.T) {
	s := newServer(t, saying(400, "", upsError("10\\u001b[31m400", `one\r\ntwo\u0000\u0007 \u001b]8;;http://evil.example\u0007three\u009b31m\u202efour\u2028five   `+strings.Repeat("é", 400))))
	e := typed(t, call(t.Context(), newClient(t, s.URL), RefreshEndpoint))
	for _, text := range []string{e.Code, e.Message, e.Error()} {
		for _, r := range text {
			if !unicode.IsPrint(r) {
				t.Errorf("%U stands in %q", r, text)
			}
		}
	}
	if !strings.HasPrefix(e.Message, "one two") || strings.Contains(e.Message, "  ") {
		t.Errorf("the message is not one line: %q", e.Message)
	}
	if n := utf8.RuneCountInString(e.Message); n > 301 || !strings.HasSuffix(e.Message, "é…") {
		t.Errorf("the message has %d characters: %q", n, e.Message)
	}
}

func TestPresentable(t *testing.T) {
	for _, test := range []struct {
		in      string
		secrets []string
		want    string
	}{
		{"Invalid Refresh Token", nil, "Invalid Refresh Token"},
		{"UPS® schließt 日本 um 5", nil, "UPS® schließt 日本 um 5"},
		{"  a\t\tb\r\n\r\nc\u00a0d  ", nil, "a b c d"},
		{"\x1b[2Jgone\x07\x7f\u0085", nil, "[2Jgone"},
		{"caf\xe9\ufffd", nil, "caf"},
		{"safe\u202eexe.txt\u200b", nil, "safeexe.txt"},
		{strings.Repeat("x", 300), nil, strings.Repeat("x", 300)},
		{strings.Repeat("é", 301), nil, strings.Repeat("é", 300) + "…"},
		{"token abcd1234 was abcd1234.", []string{"abcd1234"}, "token [secret] was [secret]."},
		{"abcd and efgh", []string{"efgh", "abcd"}, "[secret] and [secret]"},
		{"ab\x00cd", []string{"abcd"}, "[secret]"},
		{"abcd", []string{"ab\x00cd"}, "[secret]"},
		{"ab \t cd", []string{"ab cd"}, "[secret]"},
		{"a%2Fb%2Bc", []string{"a/b+c"}, "[secret]"},
		{strings.Repeat("x", 298) + "abcd", []string{"abcd"}, strings.Repeat("x", 298) + "[s…"},
		// What is that short is no secret, and words would fall to pieces.
		{"a bad cab", []string{"", "a", "ab", "bad"}, "a bad cab"},
	} {
		if got := Presentable(test.in, test.secrets...); got != test.want {
			t.Errorf("%q without %q is %q, want %q", test.in, test.secrets, got, test.want)
		}
	}
}

func FuzzPresentable(f *testing.F) {
	f.Add("Invalid Refresh Token abcd1234", "abcd1234")
	f.Add("ab\x00cd \x1b[31mred\x1b[0m", "abcd")
	f.Add("ab  cd\xff\u202e", "ab cd")
	f.Add("a%2Fb", "a/b+")
	f.Add(strings.Repeat("abcd\x00", 100), "abcdabcd")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := Presentable(text, secret)
		for _, r := range got {
			if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
				t.Errorf("%U stands in %q", r, got)
			}
		}
		// A secret of which the mark itself is made can't be told from the mark.
		const mark = "secret"
		if ofTheMark := strings.ContainsAny(secret, "[]…") || strings.Contains(mark, secret); !ofTheMark && len(secret) >= 4 && strings.Contains(got, secret) {
			t.Errorf("%q is in %q", secret, got)
		}
		if n := utf8.RuneCountInString(got); n > 301 {
			t.Errorf("%d characters are left", n)
		}
	})
}

// The sentences that people send to UPS's support and to us.
func TestErrorText(t *testing.T) {
	for _, test := range []struct {
		err  *Error
		want string
	}{
		{&Error{Endpoint: RefreshEndpoint, Kind: RefreshTokenRefused, Status: 400, Code: "10400", Message: "Invalid Refresh Token"},
			`UPS refused the refresh: the refresh token is no longer valid (code 10400, "Invalid Refresh Token", HTTP 400 at refresh)`},
		{&Error{Endpoint: AuthorizeEndpoint, Kind: RedirectURIRefused, Status: 400, Code: "10400", Message: "Invalid Redirect URL"},
			`UPS refused the sign-in: the redirect URI is not registered for this application (code 10400, "Invalid Redirect URL", HTTP 400 at authorize)`},
		{&Error{Endpoint: TokenEndpoint, Kind: Down, Status: 502},
			`UPS refused the exchange of the authorization code: UPS is not working right now (HTTP 502 at token)`},
		{&Error{Endpoint: RefreshEndpoint, Kind: Unusable, Status: 200, Message: "the answer's body is empty"},
			`UPS granted the refresh, but its answer has no usable token ("the answer's body is empty", HTTP 200 at refresh)`},
		{&Error{Endpoint: RefreshEndpoint, Kind: Unreachable, Message: "connection refused"},
			`UPS can't be reached for the refresh: connection refused`},
		{&Error{Endpoint: RefreshEndpoint, Kind: Lost, Message: "no answer within 30s"},
			`UPS's answer to the refresh was lost: no answer within 30s`},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("the text is\n%s, want\n%s", got, test.want)
		}
	}
}

// Callers try the same token again exactly where its fate is unknown.
func TestFateIsUnknownOnlyWhereUPSMayHaveGranted(t *testing.T) {
	for kind, want := range map[Kind]bool{
		Down: true, Lost: true, Unusable: true,
		RefreshTokenRefused: false, CodeRefused: false, ClientRefused: false, HeaderMissing: false, RedirectURIRefused: false,
		Blocked: false, RateLimited: false, Unreachable: false, AccessTokenRefused: false, Unknown: false,
	} {
		if got := (&Error{Kind: kind}).FateUnknown(); got != want {
			t.Errorf("after %s the fate is unknown: %t, want %t", kind, got, want)
		}
	}
}

func TestGrantedAnswersWithoutTokens(t *testing.T) {
	for _, test := range []struct {
		name    string
		answer  Answer
		want    Kind
		message string
	}{
		{"empty", Answer{Status: 200}, Unusable, "the answer's body is empty"},
		{"page", Answer{Status: 200, Body: []byte("<title>Moment\x1b[31m please</title>")}, Unusable, "the answer is a web page: Moment[31m please"},
		{"cut", Answer{Status: 200, Body: []byte(sample[:100]), Cut: true}, Unusable, "the connection ended in the middle of the answer"},
		{"half, whole by its length", Answer{Status: 200, Body: []byte(sample[:100])}, Unusable, "the answer ends in the middle"},
		{"no usable token in it", Answer{Status: 200, Body: []byte(`{"status":"approved"}`)}, Unusable, "the answer is not in UPS's form"},
		{"title with the token", Answer{Status: 200, Body: []byte("<title>" + testRefresh + "</title>")}, Unusable, "the answer is a web page: [secret]"},
		{"refused in UPS's words", Answer{Status: 200, Body: []byte(upsError("10400", "Invalid Refresh Token"))}, RefreshTokenRefused, "Invalid Refresh Token"},
		{"client refused", Answer{Status: 200, Body: []byte(upsError("10401", "ClientId is Invalid"))}, ClientRefused, "ClientId is Invalid"},
		{"down", Answer{Status: 200, Body: []byte(upsError("10500", "Internal Server Error"))}, Down, "Internal Server Error"},
		{"words with the token", Answer{Status: 200, Body: []byte(upsError("10400", "Bad token "+testRefresh))}, Unknown, "Bad token [secret]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.answer.Endpoint = RefreshEndpoint
			e := NoTokens(test.answer, testRefresh)
			if e.Kind != test.want || e.Message != test.message || e.Status != 200 || e.Endpoint != RefreshEndpoint {
				t.Errorf("it is %s %q with %d at %s, want %s %q", e.Kind, e.Message, e.Status, e.Endpoint, test.want, test.message)
			}
		})
	}
}
