package legible

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
)

// What nobody sees, or what turns the text around it, is left out; what a script or
// an emoji needs to be written stays.
func TestHidden(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"plain", "Acme Corp", "Acme Corp"},
		{"zero width space", "Acme\u200b", "Acme"},
		{"word joiner", "Ac\u2060me", "Acme"},
		{"soft hyphen", "Ac\u00adme", "Acme"},
		{"byte order mark inside", "Ac\ufeffme", "Acme"},
		{"right-to-left override", "Acme\u202egpj", "Acmegpj"},
		{"isolates", "\u2066Acme\u2069\u2067x\u2068", "Acmex"},
		{"direction marks", "Acme\u200e\u200f\u061c", "Acme"},
		{"variation selector", "Acme\ufe0f", "Acme"},
		{"ideographic variation", "\u845b\U000e0100", "\u845b"},
		{"tags", "Acme\U000e0041\U000e007f", "Acme"},
		{"grapheme joiner", "A\u034fcme", "Acme"},
		{"Hangul fillers", "Acme\u115f\u1160\u3164\uffa0", "Acme"},
		{"Khmer vowels that show nothing", "Acme\u17b4\u17b5", "Acme"},
		{"Mongolian selector and vowel separator", "Acme\u180b\u180e", "Acme"},
		{"annotation", "A\ufff9c\ufffam\ufffbe", "Acme"},
		{"deprecated format", "A\u206acme\u206f", "Acme"},
		{"musical format", "A\U0001d173cme", "Acme"},
		{"invisible times", "Acme\u2062", "Acme"},
		{"unassigned ignorable", "Acme\U000e0fff", "Acme"},
		{"joiners between Latin letters", "Ac\u200dm\u200ce", "Acme"},
		{"joiners at the ends", "\u200cAcme\u200d", "Acme"},
		{"Persian", "می\u200cخواهم", "می\u200cخواهم"},
		{"Persian with marks", "مِ\u200cخ", "مِ\u200cخ"},
		{"non-joiner where nothing joins", "د\u200cم", "دم"},
		{"two non-joiners", "می\u200c\u200cخ", "می\u200cخ"},
		{"non-joiner before a hamza alone", "م\u200cء", "مء"},
		{"Devanagari half form", "क\u094d\u200dष", "क\u094d\u200dष"},
		{"Devanagari without ligature", "क\u094d\u200cष", "क\u094d\u200cष"},
		{"Bengali ra and ya", "র\u200d\u09cdয", "র\u200d\u09cdয"},
		{"Devanagari joiner without a virama", "क\u200dष", "कष"},
		{"family", "👩\u200d👩\u200d👧 & Co", "👩\u200d👩\u200d👧 & Co"},
		{"skin tone and profession", "👩🏽\u200d⚕", "👩🏽\u200d⚕"},
		{"flag of several", "🏳\ufe0f\u200d🌈", "🏳\ufe0f\u200d🌈"},
		{"a heart as emoji", "❤\ufe0f Care", "❤\ufe0f Care"},
		{"keycap", "1\ufe0f\u20e3 First", "1\ufe0f\u20e3 First"},
		{"digit with a selector", "1\ufe0f First", "1 First"},
		{"two selectors", "❤\ufe0f\ufe0f", "❤\ufe0f"},
		{"Wales", "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f", "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"},
		{"more tags than a flag has", "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f\U000e0041", "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"},
		{"tags that are no flag", "🏴\U000e0041\U000e0042\U000e007f", "🏴"},
		{"Arabic number sign is seen", "\u0600١", "\u0600١"},
		{"no UTF-8", "Acme\xff\u200b", "Acme\ufffd"},
	} {
		if got := Strip(test.in); got != test.want {
			t.Errorf("%s: %+q became %+q, want %+q", test.name, test.in, got, test.want)
		}
		if again := Strip(Strip(test.in)); again != Strip(test.in) {
			t.Errorf("%s: a second time it became %+q", test.name, again)
		}
		if found := len(Hidden(test.in)); (found == 0) != (test.in == test.want) {
			t.Errorf("%s: %d hidden characters", test.name, found)
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"Acme":                          "Acme",
		"a\x1b[2J\x07b\nc\td\u009be":    "a[2Jb c de",
		"a\r\nb":                        "a b",
		"a\u2028b\u2029c\u0085d\ve":     "a b c d e",
		"日本　東京":                         "日本　東京",
		"x\u202egpj.exe":                "xgpj.exe",
		"Acme\u200b":                    "Acme",
		"two  spaces":                   "two  spaces",
		"\x1b]8;;http://evil\x1b\\text": "]8;;http://evil\\text",
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%+q) = %+q, want %+q", in, got, want)
		}
	}
}

func TestValueAndSecret(t *testing.T) {
	for _, test := range []struct {
		in, value, secret string
		err               error
	}{
		{"sec", "sec", "sec", nil},
		{"sec\r\n", "sec", "sec", nil},
		{" sec \n\n", "sec", " sec ", nil},
		{"\ufeffsec\r\n", "sec", "sec", nil},
		{"\u00a0sec\u3000", "sec", "\u00a0sec\u3000", nil},
		{"two words", "two words", "two words", nil},
		{"", "", "", nil},
		{"se\x00c", "", "", ErrControl},
		{"se\nc", "", "", ErrControl},
		{"se\x1bc", "", "", ErrControl},
		{"se\u0085c", "", "", ErrControl},
		{"se\u2028c", "", "", ErrControl},
		{"\xff\xfes\x00e\x00c\x00\r\x00\n\x00", "", "", ErrUTF16},
		{"\xfe\xff\x00s\x00e\x00c", "", "", ErrUTF16},
		{"s\x00e\x00c\x00\r\x00\n\x00", "", "", ErrUTF16},
		{"\x00s\x00e\x00c", "", "", ErrUTF16},
	} {
		if got, err := Value(test.in); err != test.err || err == nil && got != test.value {
			t.Errorf("Value(%q) = %q, %v", test.in, got, err)
		}
		if got, err := Secret(test.in); err != test.err || err == nil && got != test.secret {
			t.Errorf("Secret(%q) = %q, %v", test.in, got, err)
		}
	}
}

func TestBytesOfAPassphrase(t *testing.T) {
	for _, text := range []string{"s\xe9c", "se\tc"} {
		if got, err := Secret(text + "\r\n"); err != nil || got != text {
			t.Errorf("Secret(%q) = %q, %v", text, got, err)
		}
		if got, err := Value(text); err == nil {
			t.Errorf("Value(%q) = %q", text, got)
		}
	}
}

func TestNear(t *testing.T) {
	for _, pair := range [][2]string{
		{"Nord A", "Nord AG"},
		{"Acme Corp", "Acme  Corp"},
		{"Acme Corp", "Acme\u00a0Corp"},
		{"Acme Corp", "AcmeCorp"},
		{"Acme Corp", "Acme-Corp"},
		{"Acme, Inc.", "Acme Inc"},
		{"Acme", "Аcme"}, // a Cyrillic letter
		{"ACME", "АСМЕ"}, // all Cyrillic
		{"Zeta", "Ζeta"}, // a Greek letter
		{"Acme Corp", "Amce Corp"},
		{"Acme Corp", "Acme Crop"},
		{"Acme Corp", "Acne Corp"},
		{"Müller GmbH", "Muller GmbH"},
		{"Łódź", "Lodz"},
		{"Acmel", "Acme1"},
		{"Acme O", "Acme 0"},
		{"Corn Ltd", "Com Ltd"},
		{"Ａcme", "Acme"}, // full width
		{"Bill & Co", "BiIl & Co"},
		{"AG", "АG"}, // however short, a look-alike is one
	} {
		for _, p := range [][2]string{pair, {pair[1], pair[0]}} {
			var names Names
			names.Add("Something else")
			names.Add(p[0])
			if got, ok := names.Near(p[1]); !ok || got != p[0] {
				t.Errorf("%q beside %q: %q, %t", p[1], p[0], got, ok)
			}
		}
	}
	for _, pair := range [][2]string{
		{"Acme", "acme"},
		{"Acme", "Acme\u200b"},
		{"Store 1", "Store 2"},
		{"Store 1", "Store 11"},
		{"Store 12", "Store 21"},
		{"Store", "Store2"},
		{"2020 Fund", "2021 Fund"},
		{"Acme", "Apex"},
		{"A", "B"},
		{"ACM", "ACN"},
		{"Acme Corp", "Beta Corp"},
		{"+++", "---"},
		{"東京", "大阪"},
	} {
		var names Names
		names.Add(pair[0])
		if got, ok := names.Near(pair[1]); ok {
			t.Errorf("%q is near %q", pair[1], got)
		}
	}
	if got, ok := new(Names).Near("Acme"); ok {
		t.Errorf("without names there is %q", got)
	}
}

// An import of ten thousand names is compared with ten thousand others.
func BenchmarkNearMany(b *testing.B) {
	for b.Loop() {
		var names Names
		for i := range 10000 {
			names.Add(fmt.Sprintf("Company of the %s no. %d", strings.Repeat("x", i%30), i))
		}
		for i := range 10000 {
			names.Near(fmt.Sprintf("Customer %d", i))
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"Acme", "Acme\u200b", "می\u200cخواهم", "a\u0301\u034f\u0323", "\u200d\u094d\u200d", "\ufeff \u200b x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := Name(s)
		if again := Name(name); again != name {
			t.Errorf("%+q became %+q and then %+q", s, name, again)
		}
		if left := Hidden(name); len(left) > 0 {
			t.Errorf("%+q became %+q with %U in it", s, name, left)
		}
		if Fold(name) != Fold(s) {
			t.Errorf("%+q and %+q are two names", s, name)
		}
		line := Line(s)
		if again := Line(line); again != line {
			t.Errorf("the line %+q became %+q", line, again)
		}
		for _, r := range line {
			if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
				t.Errorf("%U is shown of %+q", r, s)
			}
		}
		var names Names
		names.Add(s)
		if got, ok := names.Near(s); ok {
			t.Errorf("%+q is near itself, %+q", s, got)
		}
	})
}
