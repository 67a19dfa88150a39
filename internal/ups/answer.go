package ups

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxAnswer is how many bytes of an answer are read. UPS's are about 2 KB and
// tokens may grow to 8 KB each; an answer that is longer than anybody expects
// still holds the only refresh token.
const MaxAnswer = 4 << 20

// Answer is what came back from the token or the refresh endpoint, untouched,
// so that it can be put away before anybody tries to understand it.
type Answer struct {
	Endpoint Endpoint `json:"endpoint"`
	// Requested is the moment before the request was sent, UTC, by this
	// machine's clock.
	Requested time.Time `json:"requested"`
	Status    int       `json:"status"`
	// Date and RetryAfter are the headers of those names, as sent.
	Date       string `json:"date,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
	Body       []byte `json:"body"`
	// Cut says that the connection ended before the body did, or that the body
	// was longer than MaxAnswer.
	Cut bool `json:"cut,omitempty"`
}

// OK reports whether the status says that the request was granted.
func (a Answer) OK() bool { return a.Status >= 200 && a.Status <= 299 }

// Tokens is UPS's success answer. Strings are as UPS sends them; times are
// UTC; what UPS left out or sent unreadable is zero.
type Tokens struct {
	AccessToken           string
	RefreshToken          string
	TokenType             string
	Scope                 string
	ClientID              string
	Status                string        // "approved"
	RefreshTokenStatus    string        // "approved"
	RefreshCount          int64         // how often UPS counts the grant as refreshed
	IssuedAt              time.Time     // UPS: Unix time in milliseconds
	ExpiresIn             time.Duration // UPS: seconds
	RefreshTokenIssuedAt  time.Time     // UPS: Unix time in milliseconds
	RefreshTokenExpiresIn time.Duration // UPS: seconds
	// Earlier is the refresh token that stood before RefreshToken under the same
	// name, where that is another; empty where there is one only.
	Earlier string
	// Damaged says that the answer was not one whole JSON object, or that a token
	// in it could not be used; what was whole in it is here all the same.
	Damaged bool
	// Wrapped says that the refresh token did not stand in UPS's place for it, and
	// was found elsewhere in the answer.
	Wrapped bool
	// Unclean says that a token had characters in it that no token has, and is not
	// here.
	Unclean bool
	// Unread says that there is no refresh token here, and that the answer may
	// have one that upsauth can't read.
	Unread bool
}

// maxLifetime bounds what is believed of a lifetime or of a moment's distance,
// so that no arithmetic on it overflows.
const maxLifetime = 100 * 365 * 24 * time.Hour

// Tokens reads the answer as far as it goes: UPS sends every value as a string,
// numbers are taken too, unknown fields are passed over, and a body that ends too
// soon, has something behind it or is not JSON all through gives what was
// complete in it. A value that is itself cut off does not count. Where UPS's
// place for the refresh token has none, the whole answer is searched for it.
func (a Answer) Tokens() Tokens {
	fields, whole := readFlatObject(withoutMark(a.Body))
	wrapped := false
	if clean(fields[refreshTokenField]) == "" {
		if found := search(a.Body, a.Cut); found != nil {
			wrapped = true
			maps.Copy(fields, found)
		}
	}
	t := Tokens{
		AccessToken:           clean(fields[accessTokenField]),
		RefreshToken:          clean(fields[refreshTokenField]),
		Earlier:               clean(fields[earlierField]),
		TokenType:             fields["token_type"],
		Scope:                 fields["scope"],
		ClientID:              fields["client_id"],
		Status:                fields["status"],
		RefreshTokenStatus:    fields["refresh_token_status"],
		IssuedAt:              milliseconds(fields["issued_at"]),
		ExpiresIn:             seconds(fields["expires_in"]),
		RefreshTokenIssuedAt:  milliseconds(fields["refresh_token_issued_at"]),
		RefreshTokenExpiresIn: seconds(fields["refresh_token_expires_in"]),
		Wrapped:               wrapped,
		Unclean:               unclean(fields, accessTokenField) || unclean(fields, refreshTokenField),
	}
	t.Damaged = !whole || t.Unclean
	t.Unread = t.RefreshToken == "" && !a.Cut && speaksOfToken(a.Body)
	if n, ok := wholeNumber(fields["refresh_count"]); ok {
		t.RefreshCount = n
	}
	return t
}

const (
	accessTokenField  = "access_token"
	refreshTokenField = "refresh_token"
	// earlierField is no name that JSON can have between quotes unescaped.
	earlierField = "\x00earlier"
)

// clean is a token without the space around it, empty where it has characters in
// it that no token has (RFC 6749, appendix A.12 and A.17): it is not what UPS
// meant then, and would be harmful in a header or on a terminal.
func clean(token string) string {
	token = strings.TrimSpace(token)
	for _, r := range token {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ""
		}
	}
	return token
}

func unclean(fields map[string]string, name string) bool {
	return fields[name] != "" && clean(fields[name]) == ""
}

// withoutMark drops a byte order mark, which JSON does not know.
func withoutMark(text []byte) []byte { return bytes.TrimPrefix(text, []byte("\ufeff")) }

// readFlatObject collects the strings and numbers of the outermost JSON
// object, as strings. Whole is false where the text is not exactly one object.
func readFlatObject(text []byte) (fields map[string]string, whole bool) {
	fields = map[string]string{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return fields, false
	}
	for dec.More() {
		name, value, err := readMember(dec)
		if errors.As(err, new(*json.SyntaxError)) {
			rescueTokens(fields, text[dec.InputOffset():])
		}
		if err != nil {
			return fields, false
		}
		switch v := value.(type) {
		case string:
			// An empty one behind a token does not take it away.
			if v == "" && fields[name] != "" {
				break
			}
			if name == refreshTokenField && v != fields[name] {
				fields[earlierField] = fields[name]
			}
			fields[name] = v
		case json.Number:
			if dec.InputOffset() == int64(len(text)) {
				// The text ends in the number: digits may be missing.
				return fields, false
			}
			fields[name] = v.String()
		}
	}
	if _, err := dec.Token(); err != nil {
		return fields, false
	}
	_, err := dec.Token()
	return fields, err == io.EOF
}

func readMember(dec *json.Decoder) (name string, value any, err error) {
	key, err := dec.Token()
	if err != nil {
		return "", nil, err
	}
	name, _ = key.(string)
	err = dec.Decode(&value)
	return name, value, err
}

// rescueTokens finds the tokens behind the place where an object stops being
// JSON: one value that is written wrongly must not cost the only refresh token.
func rescueTokens(fields map[string]string, rest []byte) {
	member := regexp.MustCompile(`"(access_token|refresh_token)"\s*:\s*("(?:[^"\\]|\\.)*")`)
	for _, m := range member.FindAllSubmatch(rest, -1) {
		var token string
		if json.Unmarshal(m[2], &token) == nil {
			fields[string(m[1])] = token
		}
	}
}

// wholeNumber reads "3599", "3599.0" and "3.599e3" alike, dropping fractions.
func wholeNumber(s string) (int64, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(s, 64)
	// Beyond 2^53 a float has no whole numbers to speak of, and NaN compares
	// as false.
	if err != nil || !(f > -(1<<53) && f < 1<<53) {
		return 0, false
	}
	return int64(f), true
}

func seconds(s string) time.Duration {
	n, ok := wholeNumber(s)
	if !ok || n <= 0 {
		return 0
	}
	return time.Duration(min(n, int64(maxLifetime/time.Second))) * time.Second
}

// milliseconds reads Unix time in milliseconds, and what is Unix time in seconds
// all the same: 1e11 is 1973 in milliseconds and the year 5138 in seconds.
func milliseconds(s string) time.Time {
	const secondsBelow = 1e11
	n, ok := wholeNumber(s)
	if ok && n > 0 && n < secondsBelow {
		n *= 1000
	}
	if !ok || n <= 0 || n > time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}
