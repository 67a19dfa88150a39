//go:build linux

package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"
)

// newServer answers as UPS does, after a latency, and consents at once. It is not
// the sandbox, whose signatures cost more than all that is to be measured on the
// same machine.
func newServer(latency time.Duration) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /security/v1/oauth/authorize", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(latency)
		back := url.Values{"code": {"one-time-code"}, "state": {r.FormValue("state")}}
		http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	})
	tokens := func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(latency)
		w.Header().Set("Content-Type", "application/json")
		now := fmt.Sprint(time.Now().UnixMilli())
		_ = json.NewEncoder(w).Encode(map[string]string{
			"access_token": accessToken(), "refresh_token": strings.Repeat("refresh-", 20), "token_type": "Bearer",
			"issued_at": now, "expires_in": "3599", "refresh_token_issued_at": now, "refresh_token_expires_in": "5183999",
			"client_id": "bench", "status": "approved", "refresh_token_status": "approved", "refresh_count": "0", "scope": "",
		})
	}
	mux.HandleFunc("POST /security/v1/oauth/token", tokens)
	mux.HandleFunc("POST /security/v1/oauth/refresh", tokens)
	return httptest.NewServer(mux)
}

// accessToken has the length and the shape of UPS's.
func accessToken() string {
	encode := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"sub":"jane@acme.example","clientid":"bench","at":%q}`, strings.Repeat("x", 400))
	return encode([]byte(`{"alg":"RS384","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode(make([]byte, 384))
}
