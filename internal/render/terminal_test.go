package render

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"
)

func TestTerminal(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"{}", "{}\n"},
		{"{}\n", "{}\n"},
		{"a\tb\nc", "a\tb\nc\n"},
		{"a\r\nb\r", "a\nb\n"},
		{"\x1b[31mred\x1b[0m", "[31mred[0m\n"},
		{"\x1b]52;c;cm0gLXJm\a", "]52;c;cm0gLXJm\n"},
		{"a\x00b\bc\x7fd\u0085e\u009bf", "abcdef\n"},
		{"a\x9b31mb", "a\ufffd31mb\n"},
		{"\u202eevil\u202c \u2066x\u2069 \u200f\u200e\u061c", "evil x \n"},
		{"z\u200bw\u200c\u200dj\ufeff\u00ad\u2060\u3164\u115f\u034f\ufe0f\U000e0041\u180e", "zwj\n"},
		{"a\u2028b\u2029c", "abc\n"},
		{"Łódź 日本 é ®", "Łódź 日本 é ®\n"},
		{"half \xe6\x97", "half \ufffd\ufffd\n"},
	} {
		var got bytes.Buffer
		w := NewTerminal(&got)
		// Byte by byte, as a network may bring it.
		if _, err := io.Copy(struct{ io.Writer }{w}, iotest.OneByteReader(bytes.NewReader([]byte(test.text)))); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil || got.String() != test.want {
			t.Errorf("%q is shown as %q, %v; want %q", test.text, got.String(), err, test.want)
		}
	}
}

func FuzzTerminal(f *testing.F) {
	for _, seed := range []string{"", "\x1b[2J", "a\u202eb", "\xff\xfe", "x\n"} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, at int) {
		at = max(0, min(at, len(text)))
		var got bytes.Buffer
		w := NewTerminal(&got)
		_, _ = w.Write(text[:at])
		_, _ = w.Write(text[at:])
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(got.Bytes()) || len(got.Bytes()) > 0 && !bytes.HasSuffix(got.Bytes(), []byte("\n")) {
			t.Errorf("%q is shown as %q", text, got.Bytes())
		}
		for _, r := range got.String() {
			if unicode.Is(unicode.Cc, r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q is shown as %q", text, got.Bytes())
			}
		}
	})
}
