package ups

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/upsauth/upsauth/internal/legible"
)

// Endpoint is where a request went.
type Endpoint string

const (
	AuthorizeEndpoint Endpoint = "authorize"
	TokenEndpoint     Endpoint = "token"
	RefreshEndpoint   Endpoint = "refresh"
	APIEndpoint       Endpoint = "api"
)

// Kind is what a failure means for the caller.
type Kind string

const (
	// RefreshTokenRefused: the refresh token is spent, expired or void.
	RefreshTokenRefused Kind = "refresh-token-refused"
	// CodeRefused: the authorization code is spent, expired or wrong.
	CodeRefused Kind = "code-refused"
	// ClientRefused: client ID or secret are wrong, or belong elsewhere.
	ClientRefused Kind = "client-refused"
	// HeaderMissing: UPS wants an Authorization header and looked no further.
	HeaderMissing Kind = "header-missing"
	// RedirectURIRefused: the redirect URI is not a registered one.
	RedirectURIRefused Kind = "redirect-uri-refused"
	// Blocked: UPS has blocked the merchant.
	Blocked Kind = "blocked"
	// RateLimited: too many requests; nothing was looked at.
	RateLimited Kind = "rate-limited"
	// Down: UPS failed, or showed its error page; what it did first is unknown.
	Down Kind = "down"
	// Unreachable: no connection was made, so nothing was sent.
	Unreachable Kind = "unreachable"
	// Lost: the request was sent and no whole answer came.
	Lost Kind = "lost"
	// Unusable: UPS granted the request and the answer has no token in it.
	Unusable Kind = "unusable"
	// AccessTokenRefused: an API call's access token is expired or wrong.
	AccessTokenRefused Kind = "access-token-refused"
	// ProductMissing: an API call's access token is new and refused all the same.
	ProductMissing Kind = "product-missing"
	// AccountMissing: an API call is for an account that the user who signed in
	// does not have.
	AccountMissing Kind = "account-missing"
	// UserLocked: UPS has locked the user who signed in.
	UserLocked Kind = "user-locked"
	// RequestRefused: an API call is not as that API wants it.
	RequestRefused Kind = "request-refused"
	// Unknown: a refusal that says nothing known.
	Unknown Kind = "unknown"
)

// Error is a failure at one of UPS's endpoints. It holds no secret: what UPS
// echoes of the request's secrets is blanked out.
type Error struct {
	Endpoint Endpoint
	Kind     Kind
	Status   int    // HTTP status, 0 where there was no answer
	Code     string // UPS's error code, empty where it gave none
	Message  string // UPS's message, or what the body was instead
	// RetryAfter is how long UPS wants to be left alone, zero where it does
	// not say.
	RetryAfter time.Duration
	// Distrust is why there is no connection, where that was the server's
	// certificate.
	Distrust Distrust
	// ClientID and RedirectURI are what was sent, where UPS may mean them.
	ClientID, RedirectURI string
	// User is who signed in, and Account what the call named, where they are known.
	User, Account string
	Err           error // the network's error, for Unreachable and Lost
}

func (e *Error) Unwrap() error { return e.Err }

// Error says what happened, with everything UPS's support would ask for.
func (e *Error) Error() string {
	var s strings.Builder
	switch e.Kind {
	case Unreachable:
		fmt.Fprintf(&s, "UPS can't be reached for %s: %s", e.Endpoint.doing(), e.Message)
		return s.String()
	case Lost:
		fmt.Fprintf(&s, "UPS's answer to %s was lost: %s", e.Endpoint.doing(), e.Message)
		return s.String()
	case Unusable:
		fmt.Fprintf(&s, "UPS granted %s, but its answer has no usable token", e.Endpoint.doing())
	default:
		fmt.Fprintf(&s, "UPS refused %s: %s", e.Endpoint.doing(), e.saying())
	}
	s.WriteString(" (")
	if e.Code != "" {
		fmt.Fprintf(&s, "code %s, ", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&s, "%q, ", e.Message)
	}
	fmt.Fprintf(&s, "HTTP %d at %s)", e.Status, e.Endpoint)
	return s.String()
}

func (e Endpoint) doing() string {
	switch e {
	case AuthorizeEndpoint:
		return "the sign-in"
	case TokenEndpoint:
		return "the exchange of the authorization code"
	case RefreshEndpoint:
		return "the refresh"
	}
	return "the API call"
}

func (e *Error) saying() string {
	switch {
	case e.Kind == ClientRefused && e.ClientID != "":
		return fmt.Sprintf("the client ID %s or its client secret is not accepted", e.ClientID)
	case e.Kind == RedirectURIRefused && e.RedirectURI != "":
		return fmt.Sprintf("the redirect URI %s is not registered for this application", e.RedirectURI)
	case e.Kind == AccountMissing:
		what, who := "the account of the request", "the ups.com user who signed in"
		if e.Account != "" {
			what = "the account " + e.Account
		}
		if e.User != "" {
			who = fmt.Sprintf("the ups.com user %s, who signed in", e.User)
		}
		return fmt.Sprintf("%s is not linked to %s", what, who)
	}
	return e.Kind.saying()
}

func (k Kind) saying() string {
	switch k {
	case RefreshTokenRefused:
		return "the refresh token is no longer valid"
	case CodeRefused:
		return "the authorization code is not valid, or no longer valid"
	case ClientRefused:
		return "the client ID or the client secret is not accepted"
	case HeaderMissing:
		return "the Authorization header is missing"
	case RedirectURIRefused:
		return "the redirect URI is not registered for this application"
	case Blocked:
		return "this merchant is blocked"
	case RateLimited:
		return "too many requests"
	case Down:
		return "UPS is not working right now"
	case AccessTokenRefused:
		return "the access token is not accepted"
	case ProductMissing:
		return "the access token is new, so the product of this API is probably missing from the application"
	case UserLocked:
		return "the ups.com user who signed in is locked"
	case RequestRefused:
		return "the request does not have the form that this API expects"
	}
	return "upsauth does not know the reason"
}

// FateUnknown reports whether nobody here knows what became of the refresh
// token or the code that was sent along: it may be spent or not. After every
// other failure it is as it was, or refused.
func (e *Error) FateUnknown() bool {
	return e.Kind == Down || e.Kind == Lost || e.Kind == Unusable
}

// errorIn makes the typed error of an answer that grants nothing. It knows
// UPS's own body, RFC 6749's, and the one of the gateway before UPS.
func errorIn(endpoint Endpoint, status int, header http.Header, body []byte, secrets ...string) *Error {
	e := &Error{Endpoint: endpoint, Status: status}
	e.Code, e.Message = codeAndMessage(body)
	if e.Code == "" && e.Message == "" {
		e.Code = header.Get("errorcode")
		e.Message = header.Get("errordescription")
	}
	said := e.Code != "" || e.Message != ""
	if !said {
		e.Message = describeBody(header, body)
		if location, err := url.Parse(header.Get("Location")); err == nil && status/100 == 3 && isErrorPage(location) {
			e.Message = "UPS shows its error page"
		}
	}
	e.Message = Presentable(e.Message, secrets...)
	e.Code = Presentable(e.Code, secrets...)
	e.Kind = classify(endpoint, status, e.Code, e.Message, said)
	if e.Kind == RateLimited || status == http.StatusServiceUnavailable {
		e.RetryAfter = retryAfter(header.Get("Retry-After"), header.Get("Date"))
	}
	return e
}

// classify says what a refusal means. UPS's code 10400 alone is ambiguous, so
// endpoint and message decide; only words about the refresh token itself may
// be taken as the end of a grant.
func classify(endpoint Endpoint, status int, code, message string, said bool) Kind {
	m := strings.ToLower(message)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(m, w) {
				return true
			}
		}
		return false
	}
	aboutClient := code == "invalid_client" || code == "unauthorized_client" || has("clientid", "client_id", "client id")
	switch {
	case status >= 500 || code == "10500":
		return Down
	case status == http.StatusTooManyRequests || code == "10429":
		return RateLimited
	case status >= 300 && status <= 399:
		return Down
	case status == http.StatusForbidden && said:
		return Blocked
	case endpoint == APIEndpoint:
		return classifyCall(status, code, said, has)
	case !said:
		// A proxy's page, an empty body: whoever wrote that is not the one
		// who judges clients and tokens.
		return Unknown
	case endpoint == RefreshEndpoint && (code == "invalid_grant" || has("invalid_grant")):
		return RefreshTokenRefused
	case has("authorization header"):
		return HeaderMissing
	case has("redirect"):
		return RedirectURIRefused
	case endpoint == RefreshEndpoint && has("refresh token", "refresh_token", "refreshtoken") && !aboutClient:
		// refresh_token is also what the grant type is called, and a parameter.
		if has("invalid", "not valid", "no longer", "expired", "revoked", "already", "been used", "used again", "not found") && !has("grant type", "grant_type") {
			return RefreshTokenRefused
		}
		return Unknown
	case endpoint == TokenEndpoint && (code == "invalid_grant" || has("authorization code", "auth code", "auth_code", "authorization_code", "code_verifier", "verifier", "invalid code")):
		return CodeRefused
	case status == http.StatusUnauthorized, code == "10401", aboutClient:
		return ClientRefused
	}
	return Unknown
}

// classifyCall says what the refusal of an API call means, by UPS's published lists
// of errors: the codes of the Rating and Shipping APIs about accounts, and the 250000s
// that all APIs have about who asks.
func classifyCall(status int, code string, said bool, has func(...string) bool) Kind {
	ofAnother := has("third party", "thirdparty", "third-party", "receiver", "consignee", "freight collect")
	switch {
	case code == "120100", code == "111580":
		return AccountMissing
	case !ofAnother && has("shipper number", "shippernumber", "account number", "accountnumber") &&
		has("invalid", "missing", "not valid", "not found", "not authorized", "unauthorized", "not associated", "not linked", "not qualified", "not eligible"):
		return AccountMissing
	case code == "250006", code == "250007", has("locked out", "access attempts was exceeded"):
		return UserLocked
	case status == http.StatusUnauthorized, code == "250002", code == "250003":
		return AccessTokenRefused
	case said && status >= 400 && status <= 499:
		return RequestRefused
	}
	return Unknown
}

// codeAndMessage finds the error in a body: UPS's {"response":{"errors":[…]}},
// RFC 6749's {"error":…}, the gateway's {"fault":{…}}. Codes may be numbers.
func codeAndMessage(body []byte) (code, message string) {
	var b struct {
		Response struct {
			Errors []struct {
				Code    any `json:"code"`
				Message any `json:"message"`
			} `json:"errors"`
		} `json:"response"`
		Error            any `json:"error"`
		ErrorDescription any `json:"error_description"`
		Fault            struct {
			FaultString any `json:"faultstring"`
			Detail      struct {
				ErrorCode any `json:"errorcode"`
			} `json:"detail"`
		} `json:"fault"`
	}
	// A field of an unexpected type leaves the others filled in.
	if err := json.Unmarshal(withoutMark(body), &b); err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
		return "", ""
	}
	text := func(v any) string {
		switch v := v.(type) {
		case string:
			return strings.TrimSpace(v)
		case float64:
			return strconv.FormatFloat(v, 'f', -1, 64)
		}
		return ""
	}
	if len(b.Response.Errors) > 0 {
		var messages []string
		for _, e := range b.Response.Errors {
			if code == "" {
				code = text(e.Code)
			}
			if m := text(e.Message); m != "" {
				messages = append(messages, m)
			}
		}
		return code, strings.Join(messages, "; ")
	}
	if code = text(b.Error); code != "" {
		return code, text(b.ErrorDescription)
	}
	return text(b.Fault.Detail.ErrorCode), text(b.Fault.FaultString)
}

// isErrorPage recognizes where UPS's servers redirect to when they are down.
func isErrorPage(location *url.URL) bool { return strings.HasSuffix(location.Path, "/error.page") }

// describeBody says in words what a body is that is none of the known errors.
func describeBody(header http.Header, body []byte) string {
	trimmed := strings.TrimSpace(string(body))
	switch {
	case trimmed == "":
		return "the answer's body is empty"
	case strings.HasPrefix(trimmed, "<") || strings.Contains(header.Get("Content-Type"), "html"):
		if title := htmlTitle(trimmed); title != "" {
			return "the answer is a web page: " + title
		}
		return "the answer is a web page"
	case strings.HasPrefix(trimmed, "{") && !json.Valid([]byte(trimmed)):
		return "the answer ends in the middle"
	}
	return "the answer is not in UPS's form"
}

func htmlTitle(page string) string {
	m := regexp.MustCompile(`(?is)<title[^>]*>([^<]{1,120})</title>`).FindStringSubmatch(page)
	if m == nil {
		return ""
	}
	return strings.Join(strings.Fields(m[1]), " ")
}

// Presentable makes text from outside fit for a terminal, a log and a record:
// one line, no control characters, not too long, and none of the given
// secrets in it.
func Presentable(s string, secrets ...string) string {
	s = printable(s)
	for _, secret := range secrets {
		if len(secret) < 4 {
			continue
		}
		// As it is, and as a form has it; what makes text printable may put
		// together a secret that was split.
		for _, form := range []string{secret, url.QueryEscape(secret)} {
			if form = printable(form); form != "" {
				s = strings.ReplaceAll(s, form, "[secret]")
			}
		}
	}
	const most = 300
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// printable is text on one line without control characters and without what nobody
// sees, joiners included: they might part a secret.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, legible.Line(s))
	return strings.Join(strings.Fields(s), " ")
}

// retryAfter reads a Retry-After header (RFC 9110, 10.2.3): seconds, or an
// HTTP date, which is reckoned from the answer's own Date where it has one.
func retryAfter(value, date string) time.Duration {
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), 86400)) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(date)
	if err != nil {
		now = time.Now()
	}
	return min(max(0, at.Sub(now)), 24*time.Hour)
}
