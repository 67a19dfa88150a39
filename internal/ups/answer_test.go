package ups

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf16"
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

func TestTokens(t *testing.T) {
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
		{"the last of several counts", `{"access_token":"x","refresh_token":"y","access_token":"a","refresh_token":"r"}`, Tokens{AccessToken: "a", RefreshToken: "r", Earlier: "y"}},
		{"huge lifetimes", `{"access_token":"a","refresh_token":"r","expires_in":"9007199254740993"}`,
			Tokens{AccessToken: "a", RefreshToken: "r", ExpiresIn: maxLifetime}},
		{"refreshed often", `{"access_token":"a","refresh_token":"r","refresh_count":"17"}`, Tokens{AccessToken: "a", RefreshToken: "r", RefreshCount: 17}},
		{"only a refresh token", `{"refresh_token":"r"}`, Tokens{RefreshToken: "r"}},
		{"an empty one behind a token", `{"access_token":"a","refresh_token":"r","access_token":"","refresh_token":""}`, pair},
		{"space around the tokens", `{"access_token":" a\n","refresh_token":"\t r\r\n"}`, pair},
		{"control characters in the access token", `{"access_token":"a\r\nX-Evil: 1\u001b[31m","refresh_token":"r"}`, Tokens{RefreshToken: "r", Damaged: true, Unclean: true}},
		{"control characters in the refresh token", `{"access_token":"a","refresh_token":"r\u0000s"}`, Tokens{AccessToken: "a", Damaged: true, Unclean: true, Unread: true}},
		{"direction marks in the refresh token", `{"access_token":"a","refresh_token":"r\u202es"}`, Tokens{AccessToken: "a", Damaged: true, Unclean: true, Unread: true}},

		// One value that is written wrongly must not cost the tokens behind it.
		{"value missing", `{"expires_in":,"access_token":"a","refresh_token":"r"}`, damagedPair},
		{"value without quotes", `{"status":approved,"access_token" : "a", "refresh_token":"r"}`, damagedPair},
		{"comma too many", `{"scope":"",,"access_token":"a","refresh_token":"r"}`, damagedPair},
		{"comma missing", `{"access_token":"a" "refresh_token":"r"}`, damagedPair},
		{"line break in a value", "{\"scope\":\"one\ntwo\",\"access_token\":\"a\",\"refresh_token\":\"r\"}", damagedPair},
		{"escape that is none", `{"scope":"\x","access_token":"a","refresh_token":"r"}`, damagedPair},
		{"wrong bracket", `{"access_token":"a","refresh_token":"r"]`, damagedPair},
		{"token of two lines", "{\"expires_in\":,\"access_token\":\"a\",\"refresh_token\":\"r\n\"}", Tokens{AccessToken: "a", Damaged: true, Unread: true}},
		{"token quoted in another value", `{"expires_in":,"scope":"\"refresh_token\":\"x\""}`, Tokens{Damaged: true, Unread: true}},

		{"empty", "", Tokens{Damaged: true}},
		{"null", "null", Tokens{Damaged: true}},
		{"list", `["access_token","a"]`, Tokens{Damaged: true}},
		{"string", `"access_token"`, Tokens{Damaged: true}},
		{"empty object", `{}`, Tokens{}},
		{"a refresh token that is null", `{"access_token":"a","refresh_token":null}`, Tokens{AccessToken: "a"}},
		{"a lifetime alone speaks of no token", `{"access_token":"a","refresh_token_expires_in":"5183999"}`, Tokens{AccessToken: "a", RefreshTokenExpiresIn: 5183999 * time.Second}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := (Answer{Body: []byte(test.body)}).Tokens(); got != test.want {
				t.Errorf("%s has\n%+v, want\n%+v", test.body, got, test.want)
			}
		})
	}
}

// A refresh token works once, and what was paid with it is the one in the answer:
// however strangely that is wrapped, it is found.
func TestTokensInStrangelyWrappedAnswers(t *testing.T) {
	inner := `{"access_token":"a","expires_in":"14399","issued_at":"1706710138962","refresh_token":"r=="}`
	want := Tokens{AccessToken: "a", RefreshToken: "r==", ExpiresIn: 14399 * time.Second, IssuedAt: sampleIssued}
	packed := func(pack func(io.Writer) io.WriteCloser, text string) string {
		var b bytes.Buffer
		w := pack(&b)
		_, _ = io.WriteString(w, text)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	gzipped := packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, inner)
	zlibbed := packed(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }, inner)
	deflated := packed(func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 9); return f }, inner)
	wide := func(order binary.AppendByteOrder, mark bool, text string) string {
		var b []byte
		if mark {
			text = "\ufeff" + text
		}
		for _, unit := range utf16.Encode([]rune(text)) {
			b = order.AppendUint16(b, unit)
		}
		return string(b)
	}
	wider := func(order binary.AppendByteOrder, text string) string {
		var b []byte
		for _, r := range text {
			b = order.AppendUint32(b, uint32(r))
		}
		return string(b)
	}
	bz, err := base64.StdEncoding.DecodeString("QlpoOTFBWSZTWYp8yZ0AABMbgBAEABAAAKtJnAogADFDTTAAJUaZGgZC6FmrdvSOIPpulU5iBCRyWUk83xdyRThQkIp8yZ0=")
	if err != nil {
		t.Fatal(err)
	}
	bzipped := string(bz)
	quote := func(text string) string { q, _ := json.Marshal(text); return string(q) }
	form := "token_type=Bearer&access_token=a&expires_in=14399&issued_at=1706710138962&refresh_token=r%3D%3D"
	xml := `<?xml version="1.0"?><o:response xmlns:o="x"><access_token>a</access_token><expires_in>14399</expires_in><issued_at>1706710138962</issued_at><o:refresh_token kind="x"><![CDATA[r==]]></o:refresh_token></o:response>`
	bare := Tokens{AccessToken: "a", RefreshToken: "r=="} // where the lifetimes are not found
	for _, test := range []struct {
		name, body string
		cut        bool
		want       Tokens
	}{
		{name: "gzip", body: gzipped, want: want},
		{name: "gzip without its end", body: gzipped[:len(gzipped)-8], want: want},
		{name: "zlib", body: zlibbed, want: want},
		{name: "deflate", body: deflated, want: want},
		{name: "gzip twice", body: packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, gzipped), want: want},
		{name: "gzip of an envelope", body: packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, `{"d":`+inner+`}`), want: want},
		{name: "an envelope", body: `{"response":` + inner + `}`, want: want},
		{name: "envelopes", body: `{"a":{"b":[null,{"c":` + inner + `}]}}`, want: want},
		{name: "a list", body: `[` + inner + `]`, want: want},
		{name: "JSON in a text", body: quote(inner), want: want},
		{name: "JSON in a text in an envelope", body: `{"statusCode":200,"body":` + quote(inner) + `}`, want: want},
		{name: "the lifetimes outside", body: `{"access_token":"a","expires_in":"14399","issued_at":1706710138962,"data":{"refresh_token":"r=="}}`, want: want},
		{name: "other spelling", body: `{"data":{"accessToken":"a","expiresIn":14399,"issuedAt":1706710138962,"refreshToken":"r=="}}`, want: want},
		{name: "UTF-16, little-endian", body: wide(binary.LittleEndian, true, inner), want: want},
		{name: "UTF-16, big-endian", body: wide(binary.BigEndian, true, inner), want: want},
		{name: "UTF-16 without mark", body: wide(binary.LittleEndian, false, inner), want: want},
		{name: "UTF-16, big-endian without mark", body: wide(binary.BigEndian, false, inner), want: want},
		{name: "UTF-32", body: wider(binary.LittleEndian, inner), want: want},
		{name: "UTF-32, big-endian", body: wider(binary.BigEndian, inner), want: want},
		{name: "base64", body: base64.StdEncoding.EncodeToString([]byte(inner)) + "\n", want: want},
		{name: "a form", body: form, want: want},
		{name: "a form, not escaped", body: strings.ReplaceAll(form, "%3D", "="), want: want},
		{name: "a form in a text", body: `{"body":` + quote(form) + `}`, want: want},
		{name: "a form that goes on", body: form + "&x=", cut: true, want: want},
		{name: "a form cut in the refresh token", body: form[:len(form)-3], cut: true, want: Tokens{}},
		{name: "a fragment", body: "https://localhost/#" + form, want: want},
		{name: "XML", body: xml, want: want},
		{name: "XML cut in the refresh token", body: xml[:strings.Index(xml, "]]>")], cut: true, want: Tokens{}},
		{name: "a callback", body: "/**/ cb(" + inner + ");", want: want},
		{name: "behind a prefix against scripts", body: ")]}',\n" + inner, want: want},
		{name: "an event", body: "event: token\ndata: " + inner + "\n\n", want: want},
		{name: "a page", body: "<script>var t = " + inner + "</script>", want: want},
		{name: "a page that shows it", body: "<pre>" + html.EscapeString(inner) + "</pre>", want: want},
		{name: "as another language prints it", body: `{'access_token': 'a', 'refresh_token': 'r=='}`, want: bare},
		{name: "a chunk's length before it", body: "5f\r\n" + inner + "\r\n0\r\n\r\n", want: want},
		{name: "an envelope that ends too soon", body: `{"response":` + inner, want: want},
		{name: "an envelope cut in the refresh token", body: `{"response":` + inner[:len(inner)-4], cut: true, want: Tokens{}},
		{name: "longer than anybody expects", body: `{"x":"` + strings.Repeat("x", 1<<20) + `","response":` + inner + `}`, want: want},
		{name: "a multipart form", body: "--b\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\na\r\n--b\r\nContent-Disposition: form-data; name=\"refresh_token\"\r\nContent-Type: text/plain\r\n\r\nr==\r\n--b--\r\n", want: bare},
		{name: "lines", body: "access_token: a\nexpires_in: 14399\nissued_at: 1706710138962\nrefresh_token: r==\n", want: want},
		{name: "lines with =", body: "[tokens]\naccess_token = a\nrefresh_token = r==\n", want: bare},
		{name: "lines cut in the refresh token", body: "access_token: a\nrefresh_token: r=", cut: true, want: Tokens{}},
		{name: "bzip2", body: bzipped, want: Tokens{AccessToken: "a", RefreshToken: "r"}},
		{name: "in a list", body: `{"access_token":"a","refresh_token":["r=="]}`, want: bare},
		{name: "in an object", body: `{"access_token":"a","refresh_token":{"value":"r=="}}`, want: bare},
		{name: "two in a list", body: `{"access_token":"a","refresh_token":["r","s"]}`, want: Tokens{Unread: true}},
		{name: "null in an envelope", body: `{"response":{"access_token":"a","refresh_token":null}}`, want: Tokens{}},
		{name: "control characters in an envelope", body: `{"response":{"refresh_token":"r\u0007"}}`, want: Tokens{Unread: true}},
		{name: "nothing that can be read", body: "\x01\x02\xff\xfe\xfd\xfc\x80\x81\x82", want: Tokens{Unread: true}},
		{name: "a captive portal", body: "<html><title>Welcome</title>Please <a href='?next=refresh'>log in</a></html>", want: Tokens{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Answer{Body: []byte(test.body), Cut: test.cut}.Tokens()
			if got.Wrapped != (test.want.RefreshToken != "") {
				t.Errorf("wrapped: %t", got.Wrapped)
			}
			got.Wrapped, got.Damaged, got.TokenType = false, false, ""
			if test.want.RefreshToken == "" {
				got.AccessToken = ""
			}
			if got != test.want {
				t.Errorf("%+v, want\n%+v", got, test.want)
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
		{"1", time.Second, time.Unix(1, 0)},
		{"3599", 3599 * time.Second, time.Unix(3599, 0)},
		{"3599.0", 3599 * time.Second, time.Unix(3599, 0)},
		{"3.599e3", 3599 * time.Second, time.Unix(3599, 0)},
		// Seconds where UPS means milliseconds.
		{"1706710138", 1706710138 * time.Second, time.Unix(1706710138, 0)},
		{"1706710138.962", 1706710138 * time.Second, time.Unix(1706710138, 0)},
		{"1.706710138e9", 1706710138 * time.Second, time.Unix(1706710138, 0)},
		{"4102444800", maxLifetime, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"4102444801", maxLifetime, time.Time{}},
		{"99999999999", maxLifetime, time.Time{}},
		{"100000000000", maxLifetime, time.UnixMilli(100000000000)},
		{"1706710138962", maxLifetime, time.UnixMilli(1706710138962)},
		{"1706710138962.7", maxLifetime, time.UnixMilli(1706710138962)},
		{"-1706710138", 0, time.Time{}},
		{"-9223372036854775808", 0, time.Time{}},
		{"4102444800000", maxLifetime, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"4102444800001", maxLifetime, time.Time{}},
		{"9223372036854775807", maxLifetime, time.Time{}},
		{"9223372036854775808", 0, time.Time{}},
		{"1e999", 0, time.Time{}},
		{"3599 s", 0, time.Time{}},
		{"3,599", 0, time.Time{}},
	} {
		tokens := (Answer{Body: fmt.Appendf(nil, `{"expires_in":%q,"issued_at":%q,"refresh_token_issued_at":%q}`, test.text, test.text, test.text)}).Tokens()
		if tokens.ExpiresIn != test.length || !tokens.IssuedAt.Equal(test.moment) || !tokens.RefreshTokenIssuedAt.Equal(test.moment) {
			t.Errorf("%q is %s, %v and %v, want %s and %v", test.text, tokens.ExpiresIn, tokens.IssuedAt, tokens.RefreshTokenIssuedAt, test.length, test.moment)
		}
	}
}

// A moment in seconds is the one in milliseconds, for every moment of UPS's API.
func FuzzMoments(f *testing.F) {
	for _, seed := range []int64{0, 1, 100, 101, 1706710138, 4102444800, 99999999999, -1, math.MaxInt64, math.MinInt64} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, at int64) {
		read := func(n string) time.Time {
			tokens := (Answer{Body: fmt.Appendf(nil, `{"issued_at":%q,"refresh_token_issued_at":%s}`, n, n)}).Tokens()
			if !tokens.IssuedAt.Equal(tokens.RefreshTokenIssuedAt) {
				t.Errorf("%s is %v as text and %v as a number", n, tokens.IssuedAt, tokens.RefreshTokenIssuedAt)
			}
			return tokens.IssuedAt
		}
		got := read(strconv.FormatInt(at, 10))
		if !got.IsZero() && (got.Year() < 1970 || got.Year() > 2100) {
			t.Errorf("%d is %v", at, got)
		}
		if at < 1e8 || at > 4102444800 { // 1973 to 2100
			return
		}
		if want := time.Unix(at, 0); !got.Equal(want) || !read(strconv.FormatInt(at*1000, 10)).Equal(want) {
			t.Errorf("%d s is %v, and in ms %v", at, got, read(strconv.FormatInt(at*1000, 10)))
		}
	})
}

// An answer may end at any byte. What is complete in it then is worth a person's
// way to the browser, and what is not complete must never be used.
func TestTokensOfAnAnswerCutAnywhere(t *testing.T) {
	escaped := strings.Replace(sample, newRefresh[:4], `\u0070\"\/\\`, 1)
	numbers := strings.NewReplacer(`"5183999"`, "5183999", `"1706710138962"`, "1706710138962", `"14399"`, "14399", `"0"`, "17").Replace(sample)
	for name, body := range map[string]string{"strings": sample, "escapes": escaped, "numbers": numbers} {
		t.Run(name, func(t *testing.T) {
			full := reflect.ValueOf((Answer{Body: []byte(body)}).Tokens())
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
				tokens := (Answer{Body: []byte(body[:end])}).Tokens()
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
					if name := v.Type().Field(i).Name; name != "Damaged" && name != "Unread" && !v.Field(i).IsZero() && !v.Field(i).Equal(full.Field(i)) {
						t.Errorf("half a value counts: %s is %v, want %v: %s", name, v.Field(i), full.Field(i), body[:end])
					}
				}
			}
		})
	}
}

func FuzzTokens(f *testing.F) {
	for _, seed := range []string{
		sample, sample[:300], sample + "x", "\ufeff" + sample, "", "{", "null", `{"refresh_token":"`, `{"refresh_token":"a\`, `{"refresh_token":"\u00`,
		`{"access_token":12,"refresh_token":1e5}`, `{"refresh_token":12`, `{"expires_in":-1e400,"issued_at":1e19}`,
		`{"expires_in":,"access_token":"a","refresh_token":"r"}`, `{"x":{"refresh_token":"r","`, "{\"scope\":\"\n\",\"refresh_token\":\"r\"}",
		`{"refresh_token":"a","refresh_token":null}`, `{"a":[{"refresh_token":"r"}]}`, "access_token=a&refresh_token=r", "<refresh_token>r</refresh_token>",
		"{\x00\"\x00r\x00e\x00", "\x1f\x8b\b\x00\x00\x00\x00\x00", `{"body":"{\"refresh_token\":\"r\"}"}`, "{'refresh_token':'r'}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		tokens := Answer{Body: body}.Tokens()
		for _, token := range []string{tokens.AccessToken, tokens.RefreshToken} {
			if strings.TrimSpace(token) != token || strings.ContainsFunc(token, unicode.IsControl) {
				t.Errorf("%q is no token", token)
			}
			if token != "" && !tokens.Wrapped && !hasValue(body, token) {
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
		want, _ := whole["refresh_token"].(string)
		if access, _ := whole["access_token"].(string); tokens.Damaged && clean(want) == want && clean(access) == access && !tokens.Wrapped {
			t.Error("a whole object counts as damaged")
		}
		if clean(want) != "" && tokens.RefreshToken != clean(want) {
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
			if strings.TrimSpace(v) == want {
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
