package sandbox

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Messages of UPS's that clients tell cases apart by.
const (
	msgClient       = "ClientId is Invalid"
	msgRedirect     = "Invalid Redirect URL"
	msgNoBasic      = "Invalid/Missing Authorization Header"
	msgRefreshToken = "Invalid Refresh Token"
)

// token exchanges an authorization code: RFC 6749 section 4.1.3, RFC 7636
// section 4.5.
func (s *Server) token(r *http.Request, body []byte, f Fault) *answer {
	form, refusal := readForm(r, body, "authorization_code")
	if refusal != nil {
		return refusal
	}
	ids, refusal := s.exchangeClient(r, form)
	if refusal != nil {
		return refusal
	}
	if form.Get("code") == "" {
		return invalid("Invalid Authorization Code: it is missing")
	}
	if form.Get("redirect_uri") == "" {
		return invalid(msgRedirect)
	}
	verifier := form.Get("code_verifier")
	if form.Has("code_verifier") && !isVerifier(verifier) {
		return invalid("Invalid Code Verifier: it must have 43 to 128 letters, digits or -._~")
	}
	key, err := s.store.key()
	if err != nil {
		return s.broken(err)
	}

	var g issued
	event := Event{Endpoint: "token", Outcome: Refused}
	now := s.opts.Now()
	err = s.store.do(func(st *state) (changed bool) {
		id := hash(form.Get("code"))
		c, ok := st.Codes[id]
		if !ok || !slices.Contains(ids, c.ClientID) {
			refusal = invalid("Invalid Authorization Code")
			return false
		}
		event.Family, event.User = c.Family, c.User
		// First who asks: only the code's own client can spend it, or void
		// what came of it.
		basic, pkce := r.Header.Get("Authorization") != "", c.Challenge != ""
		switch {
		case pkce && verifier == "":
			refusal = invalid("Invalid Code Verifier: it is missing")
			return false
		case !basic && (!pkce || f.PKCEBasic):
			refusal = invalid(msgNoBasic)
			return false
		case basic && pkce && !f.PKCEBasic:
			refusal = invalid("Invalid Request: an exchange with PKCE has no HTTP Basic")
			return false
		}
		verified := pkce && verifies(verifier, c.Challenge) || !pkce && verifier == ""
		if c.Family != "" {
			event.Outcome = Reused
			refusal = invalid("Invalid Authorization Code: it has been used")
			if verified {
				_, changed = st.Grants[c.Family]
				delete(st.Grants, c.Family)
			}
			return changed
		}
		switch {
		case !now.Before(c.Expires):
			refusal = invalid("Invalid Authorization Code: it has expired")
			return false
		case c.RedirectURI != form.Get("redirect_uri"):
			refusal = invalid(msgRedirect)
			return false
		case !verified:
			// A verifier without a challenge is what a client sends whose
			// challenge an attacker took away (RFC 9700 section 2.1.1).
			refusal = invalid("Invalid Code Verifier")
			delete(st.Codes, id)
			return true
		}
		c.Family = uuid.NewString()
		st.Codes[id] = c
		st.Grants[c.Family] = grant{ClientID: c.ClientID, User: c.User, Scope: c.Scope, Authorized: now}
		event.Family, event.Outcome = c.Family, Committed
		g = s.issue(st, c.Family, now, f)
		return true
	})
	return s.finish(key, g, event, refusal, err)
}

// exchangeClient tells as which clients the request may be taken: those of
// its Authorization header, or without one the client_id that comes with a
// PKCE verifier.
func (s *Server) exchangeClient(r *http.Request, form url.Values) ([]string, *answer) {
	if r.Header.Get("Authorization") != "" {
		return s.basicClient(r, form)
	}
	if !form.Has("code_verifier") {
		return nil, invalid(msgNoBasic)
	}
	id := form.Get("client_id")
	if id == "" || len(s.opts.Clients) > 0 && !slices.ContainsFunc(s.opts.Clients, func(c Client) bool { return c.ID == id }) {
		return nil, unauthorized()
	}
	return []string{id}, nil
}

// basicClient returns the client that HTTP Basic names with the right secret,
// and that the form does not contradict.
// RFC 6749 section 2.3.1 has ID and secret form-urlencoded first, and not
// every client does so: where nobody is listed, both readings are returned.
func (s *Server) basicClient(r *http.Request, form url.Values) ([]string, *answer) {
	id, secret, ok := r.BasicAuth()
	if !ok {
		return nil, invalid(msgNoBasic)
	}
	readings := [][2]string{{id, secret}}
	decodedID, err1 := url.QueryUnescape(id)
	decodedSecret, err2 := url.QueryUnescape(secret)
	if err := errors.Join(err1, err2); err == nil && (decodedID != id || decodedSecret != secret) {
		readings = append(readings, [2]string{decodedID, decodedSecret})
	}
	var ids []string
	for _, reading := range readings {
		if s.isClient(reading[0], reading[1]) && (!form.Has("client_id") || form.Get("client_id") == reading[0]) {
			ids = append(ids, reading[0])
		}
	}
	if len(ids) == 0 {
		return nil, unauthorized()
	}
	return ids, nil
}

func (s *Server) isClient(id, secret string) bool {
	if id == "" || secret == "" {
		return false
	}
	if len(s.opts.Clients) == 0 {
		return true
	}
	found := false
	for _, c := range s.opts.Clients {
		if c.ID == id && c.Secret != "" && equal(c.Secret, secret) {
			found = true
		}
	}
	return found
}

// equal compares secrets in a time that depends on neither.
func equal(a, b string) bool {
	ha, hb := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(ha[:], hb[:]) == 1
}

// isVerifier follows the grammar of RFC 7636 section 4.1.
func isVerifier(s string) bool {
	return 43 <= len(s) && len(s) <= 128 &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") == ""
}

func verifies(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(encode64(sum[:])), []byte(challenge)) == 1
}

// refresh exchanges a refresh token. UPS has it at a path of its own.
func (s *Server) refresh(r *http.Request, body []byte, f Fault) *answer {
	form, refusal := readForm(r, body, "refresh_token")
	if refusal != nil {
		return refusal
	}
	ids, refusal := s.basicClient(r, form)
	if refusal != nil {
		return refusal
	}
	if form.Get("refresh_token") == "" {
		return invalid(msgRefreshToken)
	}
	key, err := s.store.key()
	if err != nil {
		return s.broken(err)
	}

	var g issued
	event := Event{Endpoint: "refresh", Outcome: Refused}
	now := s.opts.Now()
	err = s.store.do(func(st *state) (changed bool) {
		id := hash(form.Get("refresh_token"))
		t, ok := st.Refresh[id]
		if !ok {
			refusal = invalid(msgRefreshToken)
			return false
		}
		family, ok := st.Grants[t.Family]
		event.Family, event.User = t.Family, family.User
		if !ok || !now.Before(t.Expires) {
			refusal = invalid(msgRefreshToken)
			return false
		}
		if !slices.Contains(ids, family.ClientID) {
			refusal = invalid(msgRefreshToken)
			return false
		}
		event.Outcome = Committed
		if !t.Spent.IsZero() {
			// A clock that went back gives no grace.
			if since := now.Sub(t.Spent); since < 0 || since >= max(s.opts.Grace, f.Grace) {
				event.Outcome = Reused
				refusal = invalid(msgRefreshToken)
				strict := s.opts.Strict || f.Strict
				if strict {
					delete(st.Grants, t.Family)
				}
				return strict
			}
			event.Outcome = Graced
		} else {
			t.Spent = now
			st.Refresh[id] = t
		}
		family.Count++
		st.Grants[t.Family] = family
		g = s.issue(st, t.Family, now, f)
		return true
	})
	return s.finish(key, g, event, refusal, err)
}

// readForm reads the body of a token request: UPS's OAuthAuthCode.yaml knows
// application/x-www-form-urlencoded only.
func readForm(r *http.Request, body []byte, grantType string) (url.Values, *answer) {
	if r.Method != http.MethodPost {
		return nil, notAllowed(http.MethodPost)
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return nil, invalid("Invalid Content Type: application/x-www-form-urlencoded is expected")
	}
	form, err := parseParams(string(body))
	if err != nil {
		return nil, invalid("Invalid Request: " + err.Error())
	}
	if form.Get("grant_type") != grantType {
		return nil, invalid("Invalid Grant Type: " + grantType + " is expected")
	}
	return form, nil
}

// issued is a token pair that the state already counts as given out.
type issued struct {
	claims
	refreshToken      string
	scope             string
	count             int
	at                time.Time
	lifetime, refresh time.Duration
}

// issue gives the grant a new token pair. It signs nothing yet: that takes
// long, and the state is locked.
func (s *Server) issue(st *state, family string, now time.Time, f Fault) issued {
	grant := st.Grants[family]
	lifetime, refresh := s.opts.AccessLifetime, s.opts.RefreshLifetime
	if f.AccessLifetime > 0 {
		lifetime = f.AccessLifetime
	}
	if f.RefreshLifetime > 0 {
		refresh = f.RefreshLifetime
	}
	refreshLength, padding := 160, ""
	if f.Huge {
		refreshLength, padding = hugeToken, randomToken((hugeToken-1500)*9/16) // of which base64 in base64 makes 16/9
	}
	told := now.Add(f.ClockOffset)
	subject := grant.User
	if u, ok := s.listed(grant.User); ok && u.Nameless {
		subject = ""
	}
	display := s.displayName(grant.ClientID)
	i := issued{
		refreshToken: opaqueToken(refreshLength),
		scope:        grant.Scope,
		count:        grant.Count,
		at:           told,
		lifetime:     lifetime,
		refresh:      refresh,
		claims: claims{
			Subject:     subject,
			ClientID:    grant.ClientID,
			Issuer:      issuer,
			UUID:        uuid.NewString(),
			SessionID:   family,
			Audience:    display,
			At:          randomToken(160), // makes the whole about as long as UPS's, 1.2 KB
			NotBefore:   told.Unix(),
			DisplayName: display,
			Expires:     told.Unix() + announced(lifetime),
			IssuedAt:    told.Unix(),
			ID:          uuid.NewString(),
			Padding:     padding,
		},
	}
	st.Access[hash(i.ID)] = accessToken{Family: family, Expires: now.Add(lifetime)}
	st.Refresh[hash(i.refreshToken)] = refreshToken{Family: family, Expires: now.Add(refresh)}
	grant.Issued, grant.AccessExpires, grant.RefreshExpires = now, now.Add(lifetime), now.Add(refresh)
	st.Grants[family] = grant
	return i
}

// hugeToken is how many characters a token has in a fault's huge answer.
const hugeToken = 8 << 10

// announced is how many seconds an answer says that d has: one less, as UPS
// says 3599 for an hour.
func announced(d time.Duration) int64 {
	seconds := int64(d / time.Second)
	if seconds > 1 {
		seconds--
	}
	return seconds
}

func (s *Server) displayName(clientID string) string {
	for _, c := range s.opts.Clients {
		if c.ID == clientID {
			return c.displayName()
		}
	}
	if name := s.opts.DisplayNames[clientID]; name != "" {
		return name
	}
	return clientID
}

// tokenAnswer is generateTokenSuccessResponse and refreshTokenSuccessResponse
// of UPS's OAuthAuthCode.yaml: every value a string, *_issued_at in Unix
// milliseconds, *_expires_in in seconds.
type tokenAnswer struct {
	RefreshTokenExpiresIn string `json:"refresh_token_expires_in"`
	RefreshTokenStatus    string `json:"refresh_token_status"`
	TokenType             string `json:"token_type"`
	IssuedAt              string `json:"issued_at"`
	ClientID              string `json:"client_id"`
	AccessToken           string `json:"access_token"`
	RefreshToken          string `json:"refresh_token"`
	Scope                 string `json:"scope"`
	RefreshTokenIssuedAt  string `json:"refresh_token_issued_at"`
	ExpiresIn             string `json:"expires_in"`
	RefreshCount          string `json:"refresh_count"`
	Status                string `json:"status"`
}

// answerFields are the names of a successful answer's fields.
func answerFields() []string {
	var names []string
	for field := range reflect.TypeFor[tokenAnswer]().Fields() {
		names = append(names, field.Tag.Get("json"))
	}
	return names
}

// finish turns what became of a token request into its answer, and records
// it. The state has been kept by now, or err says why not.
func (s *Server) finish(key *rsa.PrivateKey, g issued, event Event, refusal *answer, err error) *answer {
	if err != nil {
		return s.broken(err)
	}
	event.Time = s.opts.Now()
	if refusal != nil {
		event.Message = refusal.header.Get("errordescription")
	}
	s.events.add(event)
	if refusal != nil {
		return refusal
	}
	access, err := signJWT(key, g.claims)
	if err != nil {
		return s.broken(err)
	}
	issuedAt := strconv.FormatInt(g.at.UnixMilli(), 10)
	a := jsonAnswer(http.StatusOK, tokenAnswer{
		RefreshTokenExpiresIn: strconv.FormatInt(announced(g.refresh), 10),
		RefreshTokenStatus:    "approved",
		TokenType:             "Bearer",
		IssuedAt:              issuedAt,
		ClientID:              g.ClientID,
		AccessToken:           access,
		RefreshToken:          g.refreshToken,
		Scope:                 g.scope,
		RefreshTokenIssuedAt:  issuedAt,
		ExpiresIn:             strconv.FormatInt(announced(g.lifetime), 10),
		RefreshCount:          strconv.Itoa(g.count),
		Status:                "approved",
	})
	a.header.Set("Pragma", "no-cache") // RFC 6749 section 5.1
	return a
}

// invalid is UPS's 10400, whose message alone tells one case from another.
func invalid(message string) *answer { return refuse(http.StatusBadRequest, "10400", message) }

// unauthorized has no WWW-Authenticate header, which RFC 9110 asks for: UPS is
// not known to send one.
func unauthorized() *answer { return refuse(http.StatusUnauthorized, "10401", msgClient) }
