package ups

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"html"
	"io"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/legible"
)

// A refresh token that was spent is paid for with the one in the answer, however
// a gateway on the way has wrapped that: compressed without saying so, in an
// envelope, as a form, in another encoding. What is found here is whole; half a
// token is never one.

const (
	maxUnwrapped = 16 << 20 // bytes that a compressed answer may have
	maxLayers    = 4        // one within the other
	maxObjects   = 64       // beginnings of objects that are tried in a text
)

// search looks for a refresh token in all that an answer may be, and returns the
// fields that stand beside it under UPS's names; nil where there is none. Cut says
// that the answer's end is missing.
func search(body []byte, cut bool) map[string]string {
	var found map[string]string
	unwrap(body, cut, func(text []byte, cut bool) bool {
		found = searchText(text, cut)
		return found != nil
	})
	return found
}

// speaksOfToken reports whether an answer may have a refresh token although none
// was found: it names one that can't be read, or is no text at all.
func speaksOfToken(body []byte) bool {
	speaks := false
	unwrap(body, false, func(text []byte, _ bool) bool {
		m := tokenNamed().FindSubmatch(text)
		speaks = m != nil && !bytes.HasPrefix(m[1], []byte("null")) || !isText(text)
		return speaks
	})
	return speaks
}

// tokenNamed is a refresh token's name with something behind it.
var tokenNamed = legible.Pattern(`(?i)refresh[_-]?token\\?["']?(?:\s*[:=>]\s*|\s*\n\s*)\\?["']?([^"'\\,}&<\s]+)`)

// unwrap calls look for the answer and for what is wrapped in it, until it is
// content.
func unwrap(body []byte, cut bool, look func(text []byte, cut bool) bool) {
	type layer struct {
		text []byte
		cut  bool
	}
	layers := []layer{{body, cut}}
	for range maxLayers {
		var inner []layer
		for _, l := range layers {
			if look(l.text, l.cut) {
				return
			}
			if text, cut, ok := decompress(l.text); ok {
				inner = append(inner, layer{text, cut || l.cut})
			}
			if text, ok := fromWide(l.text); ok {
				inner = append(inner, layer{text, l.cut})
			}
			if text, ok := fromBase64(l.text); ok {
				inner = append(inner, layer{text, l.cut})
			}
			if bytes.Contains(l.text, []byte("&quot;")) || bytes.Contains(l.text, []byte("&#")) {
				inner = append(inner, layer{[]byte(html.UnescapeString(string(l.text))), l.cut})
			}
		}
		layers = inner
	}
}

// decompress takes gzip, zlib and raw deflate apart, as far as it goes.
func decompress(text []byte) (plain []byte, cut, ok bool) {
	if len(text) < 8 {
		return nil, false, false
	}
	var r io.Reader
	var err error
	switch {
	case text[0] == 0x1f && text[1] == 0x8b:
		r, err = gzip.NewReader(bytes.NewReader(text))
	case bytes.HasPrefix(text, []byte("BZh")):
		r = bzip2.NewReader(bytes.NewReader(text))
	case text[0]&0x0f == 8 && binary.BigEndian.Uint16(text)%31 == 0:
		r, err = zlib.NewReader(bytes.NewReader(text))
	case !isText(text):
		r = flate.NewReader(bytes.NewReader(text))
	default:
		return nil, false, false
	}
	if err != nil {
		return nil, false, false
	}
	plain, err = io.ReadAll(io.LimitReader(r, maxUnwrapped))
	return plain, err != nil, len(plain) > 0
}

// isText reports whether an answer is text in an encoding that is read as it is.
func isText(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	return bytes.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' && r != '\f' }) < 0
}

// fromWide decodes UTF-16 and UTF-32, with a byte order mark or without. What is
// asked for is ASCII, so without one the zeros tell.
func fromWide(text []byte) ([]byte, bool) {
	if len(text) < 8 {
		return nil, false
	}
	zeros := [4]bool{text[4] == 0, text[5] == 0, text[6] == 0, text[7] == 0}
	var units []uint16
	switch zeros {
	case [4]bool{false, true, true, true}:
		for ; len(text) >= 4; text = text[4:] {
			units = utf16.AppendRune(units, rune(binary.LittleEndian.Uint32(text))) // what is no character becomes the sign for that
		}
	case [4]bool{true, true, true, false}:
		for ; len(text) >= 4; text = text[4:] {
			units = utf16.AppendRune(units, rune(binary.BigEndian.Uint32(text)))
		}
	case [4]bool{false, true, false, true}:
		for ; len(text) >= 2; text = text[2:] {
			units = append(units, binary.LittleEndian.Uint16(text))
		}
	case [4]bool{true, false, true, false}:
		for ; len(text) >= 2; text = text[2:] {
			units = append(units, binary.BigEndian.Uint16(text))
		}
	default:
		return nil, false
	}
	return withoutMark([]byte(string(utf16.Decode(units)))), true
}

// fromBase64 decodes an answer that is base64 all through.
func fromBase64(text []byte) ([]byte, bool) {
	packed := strings.Trim(strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, string(text)), `"=`)
	if len(packed) < 32 {
		return nil, false
	}
	plain, err := base64.RawStdEncoding.DecodeString(packed)
	return plain, err == nil
}

// searchText looks for a refresh token in a text: in the JSON that is in it, at
// any depth, else as a form, as XML or as anything that names it and quotes it.
func searchText(text []byte, cut bool) map[string]string {
	rest := text
	for range maxObjects {
		at := bytes.IndexAny(rest, `{["`)
		if at < 0 {
			break
		}
		rest = rest[at:]
		var value any
		dec := json.NewDecoder(bytes.NewReader(rest))
		dec.UseNumber()
		if dec.Decode(&value) == nil {
			if fields := searchValue(value, maxLayers); fields != nil {
				return fields
			}
			rest = rest[dec.InputOffset():]
			continue
		}
		rest = rest[1:]
	}
	for _, search := range []func([]byte, bool) map[string]string{searchForm, searchQuoted, searchLines} {
		if fields := search(text, cut); fields != nil {
			return fields
		}
	}
	return nil
}

// searchValue looks through a JSON value, nearest to the top first. A text in it
// may be JSON again.
func searchValue(value any, layers int) map[string]string {
	var inner []any
	switch v := value.(type) {
	case map[string]any:
		fields := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			switch member := v[name].(type) {
			case string:
				setField(fields, name, member)
				inner = append(inner, member)
			case json.Number:
				setField(fields, name, member.String())
			default:
				if canonical(name) == refreshTokenField {
					setField(fields, name, onlyText(member))
				}
				inner = append(inner, member)
			}
		}
		if clean(fields[refreshTokenField]) != "" {
			return fields
		}
		// The lifetimes may stand outside of what has the tokens.
		for _, member := range inner {
			if found := searchValue(member, layers); found != nil {
				for name, text := range fields {
					if found[name] == "" && text != "" {
						found[name] = text
					}
				}
				return found
			}
		}
		return nil
	case []any:
		inner = v
	case string:
		var quoted any
		dec := json.NewDecoder(strings.NewReader(v))
		dec.UseNumber()
		switch begins := strings.TrimSpace(v); {
		case layers == 0 || begins == "":
		case (begins[0] == '{' || begins[0] == '[' || begins[0] == '"') && dec.Decode(&quoted) == nil:
			return searchValue(quoted, layers-1)
		default:
			return searchForm([]byte(v), false)
		}
		return nil
	}
	for _, member := range inner {
		if found := searchValue(member, layers); found != nil {
			return found
		}
	}
	return nil
}

// onlyText is the text in a list or an object that has no other in it, empty where
// there are several or none.
func onlyText(value any) string {
	text := ""
	switch v := value.(type) {
	case string:
		return v
	case []any:
		for _, member := range v {
			if found := onlyText(member); found != "" && text != "" {
				return ""
			} else if found != "" {
				text = found
			}
		}
	case map[string]any:
		for _, member := range v {
			if found := onlyText(member); found != "" && text != "" {
				return ""
			} else if found != "" {
				text = found
			}
		}
	}
	return text
}

// setField sets a field under UPS's name for it. Others write the same name in
// other ways, which count where UPS's own is not there.
func setField(fields map[string]string, name, value string) {
	ups := canonical(name)
	if name == ups || fields[ups] == "" {
		fields[ups] = value
	}
}

// canonical is UPS's spelling of a field's name: refreshToken, Refresh-Token and
// REFRESH_TOKEN are its refresh_token.
func canonical(name string) string {
	letters := strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
	for _, field := range []string{accessTokenField, refreshTokenField, "token_type", "expires_in", "issued_at", "client_id",
		"refresh_token_expires_in", "refresh_token_issued_at", "refresh_token_status"} {
		if letters == strings.ReplaceAll(field, "_", "") {
			return field
		}
	}
	return name
}

var (
	formPair  = legible.Pattern(`(?:^|[?&#;\s])(\w+)=([^&\s"'<>]*)`)
	linePair  = legible.Pattern(`(?m)^[ \t-]*(\w+)[ \t]*[:=][ \t]*(\S+)[ \t]*\r?$`)
	formPart  = legible.Pattern(`(?i)content-disposition:[^\r\n]*\bname="(\w+)"[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n([^\r\n]+)`)
	xmlMember = legible.Pattern(`<(?:\w+:)?(\w+)(?:\s[^<>]*)?>\s*(?:<!\[CDATA\[)?([^<>\]]*?)(?:\]\]>)?\s*</`)
	quoted    = legible.Pattern(`(?i)["']?\b(access[_-]?token|refresh[_-]?token)\b["']?\s*[:=]\s*(?:("(?:[^"\\]|\\.)*")|'([^'\\]*)')`)
)

// searchForm reads name=value pairs. A value counts as whole where something
// stands behind it, or the answer is not cut.
func searchForm(text []byte, cut bool) map[string]string {
	if !bytes.Contains(text, []byte(refreshTokenField+"=")) {
		return nil
	}
	fields := map[string]string{}
	for _, m := range formPair().FindAllSubmatchIndex(text, -1) {
		if m[5] == len(text) && cut {
			continue
		}
		value, err := url.QueryUnescape(string(text[m[4]:m[5]]))
		if err != nil {
			value = string(text[m[4]:m[5]])
		}
		setField(fields, string(text[m[2]:m[3]]), value)
	}
	return orNone(fields)
}

// searchQuoted finds what is named and quoted, or stands between tags, in a text
// that is nothing else that is known.
func searchQuoted(text []byte, _ bool) map[string]string {
	fields := map[string]string{}
	for _, m := range xmlMember().FindAllSubmatch(text, -1) {
		setField(fields, string(m[1]), html.UnescapeString(string(m[2])))
	}
	for _, m := range quoted().FindAllSubmatch(text, -1) {
		value := string(m[3])
		if len(m[2]) > 0 && json.Unmarshal(m[2], &value) != nil {
			continue
		}
		setField(fields, string(m[1]), value)
	}
	return orNone(fields)
}

// searchLines reads lines of name: value and name = value, and the parts of a
// multipart form (RFC 7578). What ends with the text may be cut.
func searchLines(text []byte, cut bool) map[string]string {
	fields := map[string]string{}
	for _, pattern := range []*regexp.Regexp{linePair(), formPart()} {
		for _, m := range pattern.FindAllSubmatchIndex(text, -1) {
			if m[5] == len(text) && cut {
				continue
			}
			setField(fields, string(text[m[2]:m[3]]), string(text[m[4]:m[5]]))
		}
	}
	return orNone(fields)
}

func orNone(fields map[string]string) map[string]string {
	if clean(fields[refreshTokenField]) == "" {
		return nil
	}
	return fields
}
