package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// The requests that UPS's published samples make, in their order and with their
// peculiarities: two slashes from a base URL that ends in one, forms in any order,
// an empty x-merchant-id, no state, an address that is not URL-encoded, and the
// exchange of a code that is taken from the callback without a look at the rest.
// Sources: UPS-API/java-api-examples, oauth_AuthCode; UPS-API/java-ui-examples,
// OAuth_AuthCode_DesktopApp.
func TestUPSsSamples(t *testing.T) {
	// Each returns the address that a browser is sent to.
	begin := map[string]func(t *testing.T, h *harness, redirect string) string{
		"oauth_AuthCode, AuthCodeDemo": func(t *testing.T, h *harness, redirect string) string {
			r := h.do("GET", h.url+"//security/v1/oauth/authorize?client_id="+testClient+"&redirect_uri="+url.QueryEscape(redirect)+
				"&response_type=code&state=test&scope=read", "", "Content-Type", formType)
			if r.status != http.StatusFound || r.header.Get("appname") == "" || r.header.Get("displayname") == "" {
				t.Fatalf("%d %v", r.status, r.header)
			}
			return r.header.Get("Location")
		},
		// Until 2023: the client was validated first, and the application made
		// the sign-in page's address from the answer.
		"oauth_AuthCode, ClientServiceImpl": func(t *testing.T, h *harness, redirect string) string {
			r := h.do("GET", h.url+"/security/v1/oauth/validate-client?client_id="+testClient+"&redirect_uri="+redirect, "", "Content-Type", formType)
			var valid struct{ LassoRedirectURL, Type string }
			if err := json.Unmarshal([]byte(r.body), &valid); err != nil || r.status != http.StatusOK || valid.LassoRedirectURL == "" || valid.Type == "" {
				t.Fatalf("%d %s", r.status, r.body)
			}
			return valid.LassoRedirectURL + "?client_id=" + testClient + "&redirect_uri=" + redirect +
				"&response_type=code&scope=read&&type=" + valid.Type
		},
		"OAuth_AuthCode_DesktopApp": func(_ *testing.T, h *harness, redirect string) string {
			return h.url + "/security/v1/oauth/authorize?client_id=" + testClient + "&redirect_uri=" + redirect + "&response_type=code"
		},
	}
	for name, address := range begin {
		t.Run(name, func(t *testing.T) {
			h := start(t, Options{})
			codes := make(chan string, 1)
			app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				codes <- r.URL.Query().Get("code")
				w.Write([]byte("Return to the application"))
			}))
			t.Cleanup(app.Close)
			redirect := strings.Replace(app.URL, "127.0.0.1", "localhost", 1) // a host and a port, without a path

			signIn := address(t, h, redirect)
			if _, err := (Person{User: "jane", Password: "pw", HTTP: app.Client().Transport}).SignIn(t.Context(), signIn); err != nil {
				t.Fatal(err)
			}
			code := <-codes
			authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte(testClient+":"+testSecret))
			r := h.do("POST", h.url+"//security/v1/oauth/token",
				"code="+url.QueryEscape(code)+"&redirect_uri="+url.QueryEscape(redirect)+"&grant_type=authorization_code",
				"Content-Type", formType, "X-Merchant-Id", "", "Authorization", authorization)
			first := h.tokens(r)
			renew := func(token string) reply {
				return h.do("POST", h.url+"//security/v1/oauth/refresh", "refresh_token="+url.QueryEscape(token)+"&grant_type=refresh_token",
					"Content-Type", formType, "Authorization", authorization)
			}
			second := h.tokens(renew(first.RefreshToken))
			if !h.works(second.AccessToken) {
				t.Error("the access token opens nothing")
			}

			// The sample looks for these bytes in an error's body.
			body := renew(first.RefreshToken).body
			_, rest, found := strings.Cut(body, `":[{"code":"`)
			errorCode, rest, found2 := strings.Cut(rest, `","message":"`)
			message, _, found3 := strings.Cut(rest, `"}]}`)
			if !found || !found2 || !found3 || errorCode != "10400" || message != "Invalid Refresh Token" {
				t.Errorf("the sample can't read %s", body)
			}
		})
	}
}

func TestValidateClient(t *testing.T) {
	h := start(t, Options{Clients: []Client{{ID: testClient, Secret: testSecret, RedirectURI: "https://tools.example/cb"}}})
	ask := func(id, redirect string) reply {
		return h.do("GET", "/security/v1/oauth/validate-client?"+url.Values{"client_id": {id}, "redirect_uri": {redirect}}.Encode(), "")
	}
	ask("other", "https://tools.example/cb").wantError(t, 401, "10401", "ClientId is Invalid")
	ask(testClient, "https://elsewhere.example/cb").wantError(t, 400, "10400", "Invalid Redirect URL")
	if r := ask(testClient, "https://tools.example/cb"); r.status != http.StatusOK {
		t.Errorf("%d %s", r.status, r.body)
	}
	h.do("POST", "/security/v1/oauth/validate-client", "").wantError(t, 405, "10405", "Method Not Allowed")

	// The sign-in page that an application makes up for itself is no way in: UPS
	// has moved that page before.
	q := url.Values{"client_id": {testClient}, "redirect_uri": {"https://tools.example/cb"}, "response_type": {"code"}, "scope": {"read"}, "type": {"ups_com_api"}}
	if r := h.do("GET", "/lasso/signin?"+q.Encode(), ""); r.status != http.StatusBadRequest {
		t.Errorf("a made-up sign-in page: %d", r.status)
	}
	// And what was validated is looked at again.
	q.Set("redirect_uri", "https://elsewhere.example/cb")
	h.do("GET", "/lasso/validated?"+q.Encode(), "").wantError(t, 400, "10400", "Invalid Redirect URL")
}
