package sandbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"

	"github.com/upsauth/upsauth/internal/address"
)

// authorization is what a client asked the person's consent for. It travels
// through the sign-in pages in their URL, under a ticket, so that asking
// leaves nothing behind here and no page of theirs grows old.
type authorization struct {
	ClientID    string  `json:"client_id"`
	RedirectURI string  `json:"redirect_uri"`
	Scope       string  `json:"scope,omitempty"`
	State       *string `json:"-"` // nil: none was sent
	Challenge   string  `json:"code_challenge,omitempty"`
}

func (s *Server) authorize(r *http.Request, _ []byte, _ Fault) *answer {
	if !isGet(r) {
		return notAllowed("GET, HEAD")
	}
	q, err := parseParams(r.URL.RawQuery)
	if err != nil {
		return invalid("Invalid Request: " + err.Error())
	}
	a := readAuthorization(q)
	client, refusal := s.client(a.ClientID, a.RedirectURI)
	if refusal != nil {
		return refusal
	}
	if q.Get("response_type") != "code" {
		return invalid("Invalid Response Type")
	}
	// UPS's OAuthAuthCode.yaml knows no code_challenge_method and SHA-256
	// only, where RFC 7636 section 4.3 would read its absence as "plain".
	if q.Has("code_challenge") && !isChallenge(a.Challenge) {
		return invalid("Invalid Code Challenge")
	}
	if q.Has("code_challenge_method") && (q.Get("code_challenge_method") != "S256" || a.Challenge == "") {
		return invalid("Invalid Code Challenge Method")
	}
	seal, err := s.seal()
	if err != nil {
		return s.broken(err)
	}
	answer := redirect(baseURL(r) + "/lasso/signin?" + a.query(seal))
	answer.header.Set("appname", client.ID)
	answer.header.Set("displayname", client.displayName())
	return answer
}

// validateClient is what UPS's older sample asks before anything else. From the
// answer the application makes the sign-in page's address itself. That address is
// not the page's own: UPS has moved the page before, and nobody should know it.
// Source: UPS-API/java-api-examples, oauth_AuthCode, ClientServiceImpl.
func (s *Server) validateClient(r *http.Request, _ []byte, _ Fault) *answer {
	if !isGet(r) {
		return notAllowed("GET, HEAD")
	}
	q, err := parseParams(r.URL.RawQuery)
	if err != nil {
		return invalid("Invalid Request: " + err.Error())
	}
	if _, refusal := s.client(q.Get("client_id"), q.Get("redirect_uri")); refusal != nil {
		return refusal
	}
	return jsonAnswer(http.StatusOK, map[string]string{
		"result":           "success",
		"type":             "ups_com_api",
		"LassoRedirectURL": baseURL(r) + "/lasso/validated",
	})
}

// client finds the application that may be called back at redirectURI.
func (s *Server) client(id, redirectURI string) (Client, *answer) {
	c := Client{ID: id, RedirectURI: redirectURI, DisplayName: s.opts.DisplayNames[id]}
	known, registered := id != "" && isName(id), isLoopbackURL(redirectURI)
	if len(s.opts.Clients) > 0 {
		known, registered = false, false
		for _, listed := range s.opts.Clients {
			if listed.ID != id {
				continue
			}
			known = true
			if listed.RedirectURI == redirectURI {
				registered = true
				c = listed
			}
		}
	}
	if !known {
		return Client{}, unauthorized()
	}
	if !registered {
		return Client{}, invalid(msgRedirect)
	}
	return c, nil
}

func isLoopbackURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil &&
		!strings.Contains(s, "#") && address.IsLoopback(u.Hostname())
}

// isChallenge tells whether s can be BASE64URL(SHA256(verifier)), RFC 7636
// section 4.2.
func isChallenge(s string) bool {
	return len(s) == 43 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

func readAuthorization(q url.Values) authorization {
	a := authorization{
		ClientID:    q.Get("client_id"),
		RedirectURI: q.Get("redirect_uri"),
		Scope:       q.Get("scope"),
		Challenge:   q.Get("code_challenge"),
	}
	if q.Has("state") {
		state := q.Get("state")
		a.State = &state
	}
	return a
}

// query is that of the sign-in page: UPS's parameters in UPS's order, and
// behind them those of the sandbox.
func (a authorization) query(seal []byte) string {
	q := url.Values{
		"client_id":     {a.ClientID},
		"redirect_uri":  {a.RedirectURI},
		"response_type": {"code"},
		"scope":         {a.Scope},
		"type":          {"ups_com_api"},
	}
	if a.State != nil {
		q.Set("state", *a.State)
	}
	if a.Challenge != "" {
		q.Set("code_challenge", a.Challenge)
	}
	q.Set("ticket", ticket(seal, q))
	var pairs []string
	for _, name := range []string{"client_id", "redirect_uri", "response_type", "scope", "state", "type", "code_challenge", "ticket"} {
		if q.Has(name) {
			pairs = append(pairs, name+"="+url.QueryEscape(q.Get(name)))
		}
	}
	return strings.Join(pairs, "&")
}

// typedParams are the parameters of a sign-in page's URL that come from the
// person: no ticket guards them.
var typedParams = [...]string{"username", "agree", "problem"}

// parseQuery reads what query wrote, and what the person has typed since. It is
// not ok if a value of the former has been changed.
func parseQuery(seal []byte, raw string) (a authorization, typed url.Values, ok bool) {
	q, err := parseParams(raw)
	if err != nil {
		return authorization{}, nil, false
	}
	typed = url.Values{}
	for _, name := range typedParams {
		if q.Has(name) {
			typed[name] = q[name]
			q.Del(name)
		}
	}
	got := q.Get("ticket")
	q.Del("ticket")
	if !hmac.Equal([]byte(got), []byte(ticket(seal, q))) {
		return authorization{}, nil, false
	}
	return readAuthorization(q), typed, true
}

func ticket(seal []byte, q url.Values) string {
	mac := hmac.New(sha256.New, seal)
	mac.Write([]byte(q.Encode()))
	return encode64(mac.Sum(nil))
}

func (s *Server) seal() (seal []byte, err error) {
	err = s.store.do(func(st *state) bool {
		seal = st.Seal
		return false
	})
	return seal, err
}

// granted is where the browser goes with a code. UPS does not escape the code's
// "==", and says a scope also to those who asked for none.
func (a authorization) granted(code string) string {
	scope := a.Scope
	if scope == "" {
		scope = "read"
	}
	return a.callback("code=" + code + "&scope=" + url.QueryEscape(scope))
}

// denied is where the browser goes without consent.
func (a authorization) denied() string { return a.callback("error=access_denied") }

// callback is the client's redirect URI with the answer added to whatever
// query it has (RFC 6749 section 4.1.2). The state goes back as it came.
func (a authorization) callback(answer string) string {
	var b strings.Builder
	b.WriteString(a.RedirectURI)
	switch {
	case !strings.Contains(a.RedirectURI, "?"):
		b.WriteByte('?')
	case !strings.HasSuffix(a.RedirectURI, "?") && !strings.HasSuffix(a.RedirectURI, "&"):
		b.WriteByte('&')
	}
	b.WriteString(answer)
	if a.State != nil {
		b.WriteString("&state=" + url.QueryEscape(*a.State))
	}
	return b.String()
}
