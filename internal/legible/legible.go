// Package legible keeps what is shown and what is meant the same: it takes out of
// text what nobody sees, makes text fit for a terminal or a page, cleans values that
// people type, and finds names that people take for each other.
package legible

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Line is text from outside, or from disk, as a person gets to see it: on one line,
// without control characters and without what Hidden finds. It is the one function
// for terminals, logs and pages.
func Line(s string) string {
	if isPlain(s) {
		return s
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1 // most of them stand before a line feed
		case unicode.IsControl(r) && unicode.IsSpace(r), unicode.In(r, unicode.Zl, unicode.Zp):
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
	return Strip(s)
}

// Strip takes out what Hidden finds.
func Strip(s string) string {
	stripped, _ := split(s)
	return stripped
}

// Hidden returns the characters that show nothing by themselves, or turn the text
// around them: Unicode's default-ignorable and format characters. Joiners are not
// among them where a script or an emoji needs them.
func Hidden(s string) []rune {
	_, hidden := split(s)
	return hidden
}

func split(s string) (shown string, hidden []rune) {
	if !strings.ContainsFunc(s, isHidden) {
		return s, nil
	}
	runes := []rune(s)
	kept := make([]rune, 0, len(runes))
	for i, r := range runes {
		if isHidden(r) && !isNeeded(r, kept, runes[i+1:]) {
			hidden = append(hidden, r)
			continue
		}
		kept = append(kept, r)
	}
	return string(kept), hidden
}

func isPlain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isHidden follows the derivation of Default_Ignorable_Code_Point (Unicode,
// DerivedCoreProperties.txt) and adds the format characters that it leaves out.
func isHidden(r rune) bool {
	if r < 0xad {
		return false
	}
	if unicode.Is(unicode.Cf, r) {
		return !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
	}
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

const (
	nonJoiner = '\u200c'
	joiner    = '\u200d'
)

// isNeeded reports whether a character that shows nothing by itself changes what is
// seen. The rules for letters are those of RFC 5892, appendices A.1 and A.2, and the
// joiner before a virama that Bengali and Kannada have; those for emoji follow
// Unicode's emoji sequences (UTS 51, 1.4).
func isNeeded(r rune, before, after []rune) bool {
	if len(before) == 0 {
		return false
	}
	last := before[len(before)-1]
	switch {
	case isPresentation(r):
		return isEmoji(last) || isKeycap(last) && len(after) > 0 && after[0] == keycap
	case r >= firstTag && r <= lastTag:
		return inFlag(before, r, after)
	case r != nonJoiner && r != joiner:
		return false
	}
	if isPresentation(last) && len(before) > 1 {
		last = before[len(before)-2]
	}
	next, ok := nextShown(after)
	if !ok || isHidden(last) {
		return false
	}
	switch {
	case isVirama(last):
		return true
	case r == joiner && isVirama(next):
		return unicode.IsLetter(last)
	case r == joiner:
		return isEmoji(last) && isEmoji(next)
	}
	for i := len(before) - 1; i >= 0 && unicode.Is(unicode.Mn, last); i-- {
		last = before[i]
	}
	for _, n := range after {
		if !unicode.Is(unicode.Mn, n) && !isHidden(n) {
			next = n
			break
		}
	}
	return joinsOn(last) && isCursive(next) && !joinsNothing(next)
}

const (
	keycap    = '\u20e3'
	blackFlag = '\U0001f3f4'
	firstTag  = '\U000e0020'
	lastTag   = '\U000e007f'
)

// isPresentation is true for the selectors that make a sign an emoji, or text again.
func isPresentation(r rune) bool { return r == '\ufe0e' || r == '\ufe0f' }

func isKeycap(r rune) bool { return r >= '0' && r <= '9' || r == '#' || r == '*' }

// inFlag reports whether a tag is part of one of the flags that are written with
// tags: England's, Scotland's and Wales's.
func inFlag(before []rune, r rune, after []rune) bool {
	start := len(before) - 1
	for start > 0 && before[start] >= firstTag && before[start] <= lastTag {
		start--
	}
	if before[start] != blackFlag {
		return false
	}
	tags := slices.Concat(before[start+1:], []rune{r}, after)
	if len(tags) < len("gbeng")+1 || len(before)-start > len("gbeng")+1 || tags[len("gbeng")] != lastTag {
		return false
	}
	region := make([]byte, len("gbeng"))
	for i := range region {
		region[i] = byte(tags[i] - 0xe0000)
	}
	return slices.Contains([]string{"gbeng", "gbsct", "gbwls"}, string(region))
}

func nextShown(runes []rune) (rune, bool) {
	i := slices.IndexFunc(runes, func(r rune) bool { return !isHidden(r) })
	if i < 0 {
		return 0, false
	}
	return runes[i], true
}

// isVirama goes by the combining class that only viramas have.
func isVirama(r rune) bool { return norm.NFC.PropertiesString(string(r)).CCC() == 9 }

// isEmoji is true for the parts of emoji sequences: pictures and skin tones.
func isEmoji(r rune) bool {
	return r >= 0x2100 && unicode.In(r, unicode.So, unicode.Sm) || r >= 0x1f3fb && r <= 0x1f3ff || strings.ContainsRune("©®‼⁉〰", r)
}

// isCursive is true for the letters of the scripts that are written joined.
func isCursive(r rune) bool {
	return unicode.IsLetter(r) && unicode.In(r, unicode.Arabic, unicode.Syriac, unicode.Mongolian, unicode.Nko, unicode.Mandaic,
		unicode.Phags_Pa, unicode.Manichaean, unicode.Psalter_Pahlavi, unicode.Adlam, unicode.Hanifi_Rohingya, unicode.Sogdian, unicode.Old_Uyghur)
}

// joinsOn reports whether a letter joins the one behind it, so that a non-joiner
// there is seen.
func joinsOn(r rune) bool { return isCursive(r) && !joinsNothing(r) && !unicode.Is(joinsBefore, r) }

// joinsNothing is true for cursive letters that stand alone (ArabicShaping.txt, U).
func joinsNothing(r rune) bool { return r == 0x621 || r == 0x674 || r == 0x8ad || r == 0x856 }

// joinsBefore are the letters that join only the one before them, such as alef
// (ArabicShaping.txt, R).
var joinsBefore = &unicode.RangeTable{R16: []unicode.Range16{
	{0x0622, 0x0625, 1}, {0x0627, 0x0629, 2}, {0x062f, 0x0632, 1}, {0x0648, 0x0648, 1}, {0x0671, 0x0673, 1}, {0x0675, 0x0677, 1},
	{0x0688, 0x0699, 1}, {0x06c0, 0x06c0, 1}, {0x06c3, 0x06cb, 1}, {0x06cd, 0x06cf, 2}, {0x06d2, 0x06d3, 1}, {0x06d5, 0x06d5, 1},
	{0x06ee, 0x06ef, 1}, {0x0710, 0x0710, 1}, {0x0715, 0x0719, 1}, {0x071e, 0x071e, 1}, {0x0728, 0x072c, 2}, {0x072f, 0x072f, 1},
	{0x074d, 0x074d, 1}, {0x0759, 0x075b, 1}, {0x076b, 0x076c, 1}, {0x0771, 0x0771, 1}, {0x0773, 0x0774, 1}, {0x0778, 0x0779, 1},
	{0x08aa, 0x08ac, 1}, {0x08ae, 0x08ae, 1}, {0x08b1, 0x08b2, 1}, {0x08b9, 0x08b9, 1},
}}

// Name is a name as it is kept: trimmed, in Unicode's form NFC and without what
// Hidden finds. A second time it changes nothing.
func Name(s string) string {
	for {
		t := strings.TrimSpace(norm.NFC.String(Strip(s)))
		if t == s {
			return t
		}
		s = t // without a hidden character others may be composed or reordered
	}
}

// Value is a value that a person or a program hands over on any way, a flag, the
// environment, standard input, a file: white space and line ends around it go, and
// a byte order mark. Errors are ErrUTF16, ErrNotText and ErrControl.
func Value(s string) (string, error) {
	s, err := text(s)
	if err != nil {
		return "", err
	}
	s = strings.TrimSpace(s)
	return s, checkControl(s)
}

// Secret is Value for a passphrase, of which every byte counts: only line ends behind
// it go, and a byte order mark. A tab may be in it, and bytes that are no UTF-8: there
// are vaults that such a passphrase opens.
func Secret(s string) (string, error) {
	s, err := text(s)
	if err != nil && !errors.Is(err, ErrNotText) {
		return "", err
	}
	s = strings.TrimRight(strings.TrimPrefix(s, "\ufeff"), "\r\n")
	return s, checkControl(strings.ReplaceAll(s, "\t", ""))
}

// What Value and Secret refuse.
const (
	ErrUTF16   = refusal("it is UTF-16 text, as PowerShell's > writes it: save it as UTF-8")
	ErrNotText = refusal("it is not UTF-8 text")
	ErrControl = refusal("it has a control character or a line break in it")
)

type refusal string

func (r refusal) Error() string { return string(r) }

func text(s string) (string, error) {
	s = strings.TrimPrefix(s, "\ufeff")
	switch {
	case strings.HasPrefix(s, "\xff\xfe"), strings.HasPrefix(s, "\xfe\xff"), looksUTF16(s):
		return "", ErrUTF16
	case !utf8.ValidString(s):
		return s, ErrNotText
	}
	return s, nil
}

// looksUTF16 finds UTF-16 without a byte order mark: every second byte of plain
// text is zero.
func looksUTF16(s string) bool {
	return len(s) >= 4 && len(s)%2 == 0 && strings.Count(s, "\x00") == len(s)/2 && (s[0] == 0 && s[2] == 0 || s[1] == 0 && s[3] == 0)
}

func checkControl(s string) error {
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) }) {
		return ErrControl
	}
	return nil
}

// CodePoints names a few characters, such as U+200B.
func CodePoints(runes []rune) string {
	const most = 3
	var names []string
	joined := func() string { return strings.Join(names, ", ") }
	for _, r := range runes {
		name := fmt.Sprintf("%U", r)
		switch {
		case strings.Contains(joined(), name):
		case len(names) == most:
			return joined() + ", …"
		default:
			names = append(names, name)
		}
	}
	return joined()
}

// SentenceOf is Sentence for a text that may begin with a name, which stays as it is.
func SentenceOf(text string, names ...string) string {
	for _, name := range names {
		if name != "" && strings.HasPrefix(text, name) {
			return Sentence("N" + text)[1:]
		}
	}
	return Sentence(text)
}

// Sentence begins a text with a capital letter and ends it with a full stop.
func Sentence(text string) string {
	if text == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(text)
	text = string(unicode.ToUpper(first)) + text[size:]
	if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "?") {
		text += "."
	}
	return text
}
