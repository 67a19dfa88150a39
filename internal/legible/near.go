package legible

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Names finds, among many names, one that people may take for another. The zero
// value is empty.
type Names struct {
	names []known
	// like has the places in names by what two names that are near have in
	// common: the skeleton, or the folded name without one of its letters.
	like map[uint64][]int
	seed maphash.Seed
}

type known struct {
	name, skeleton string
	folded         []rune
}

func newKnown(name string) known {
	return known{name: name, skeleton: skeleton(name), folded: []rune(Fold(name))}
}

// shortest is the number of letters below which one other letter makes another name.
const shortest = 4

// Add makes a name known.
func (n *Names) Add(name string) {
	if n.like == nil {
		n.like, n.seed = map[uint64][]int{}, maphash.MakeSeed()
	}
	k := newKnown(name)
	n.names = append(n.names, k)
	for _, key := range n.keys(k) {
		n.like[key] = append(n.like[key], len(n.names)-1)
	}
}

// Near returns a name that people may take for this one, and reports whether there
// is one: look-alike letters, other spaces or signs, or one letter more, less,
// another, or two in each other's place. The same name is not near, nor is one that
// differs only in digits.
func (n *Names) Near(name string) (string, bool) {
	if len(n.names) == 0 {
		return "", false
	}
	k, found := newKnown(name), -1
	for _, key := range n.keys(k) {
		for _, i := range n.like[key] {
			if (found < 0 || i < found) && isNear(k, n.names[i]) {
				found = i
			}
		}
	}
	if found < 0 {
		return "", false
	}
	return n.names[found].name, true
}

func (n *Names) keys(k known) []uint64 {
	keys := []uint64{maphash.String(n.seed, "skeleton "+k.skeleton), maphash.String(n.seed, string(k.folded))}
	for i := range k.folded {
		keys = append(keys, maphash.String(n.seed, string(k.folded[:i])+string(k.folded[i+1:])))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func isNear(a, b known) bool {
	switch {
	case slices.Equal(a.folded, b.folded), withoutDigits(a.folded) == withoutDigits(b.folded):
		return false
	case a.skeleton != "" && a.skeleton == b.skeleton:
		return true
	}
	return max(len(a.folded), len(b.folded)) >= shortest && min(len(a.folded), len(b.folded)) >= shortest-1 && oneApart(a.folded, b.folded)
}

func withoutDigits(folded []rune) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, string(folded))
}

// oneApart reports whether one letter put in, taken out or exchanged, or two
// neighbors in each other's place, make one text of the other.
func oneApart(a, b []rune) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	switch len(b) - len(a) {
	case 1:
		return slices.Equal(a[i:], b[i+1:])
	case 0:
		return i == len(a) || slices.Equal(a[i+1:], b[i+1:]) ||
			i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && slices.Equal(a[i+2:], b[i+2:])
	}
	return false
}

// Fold makes names equal that are the same but for case, Unicode's composition,
// surrounding space and what Hidden finds.
func Fold(name string) string {
	if isPlain(name) {
		return strings.ToLower(strings.TrimSpace(name))
	}
	folded := norm.NFC.String(cases.Fold().String(Name(name)))
	return strings.Map(func(r rune) rune {
		if isHidden(r) && r != joiner && r != nonJoiner {
			return -1 // an emoji's look
		}
		return r
	}, folded)
}

// skeleton is what is left of a name when all that looks alike is made the same:
// letters of other scripts, accents, spaces and signs, l and 1, rn and m. It follows
// the idea of UTS 39, 4, with a small table of its own: the letters of Latin,
// Cyrillic and Greek.
func skeleton(name string) string {
	alike := lookAlikes()
	text := norm.NFKD.String(Name(name))
	text = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x300 && r <= 0x36f, r == ' ', unicode.IsSpace(r), unicode.IsPunct(r):
			return -1
		}
		if like, ok := alike[r]; ok {
			return like
		}
		return r
	}, text)
	text = strings.Map(func(r rune) rune {
		switch r {
		case 'i', 'l', '1', '|':
			return 'l'
		case '0':
			return 'o'
		}
		if like, ok := alike[r]; ok {
			return like
		}
		return r
	}, cases.Fold().String(text))
	return strings.NewReplacer("rn", "m", "vv", "w").Replace(text)
}

// lookAlikes are letters of Cyrillic, Greek, Cherokee and Armenian and of Latin beside
// its alphabet that look like plain Latin letters in most fonts (Unicode,
// confusables.txt), each row with what they look like below it.
var lookAlikes = sync.OnceValue(func() map[rune]rune {
	like := map[rune]rune{}
	for _, row := range [][2]string{
		{"АВЕЅІЈКМНОРСТУ",
			"ABESIJKMHOPCTY"},
		{"ХҮҺԀԌԚԜӀЗЬᏚᎪᏴᏟᎬᎻᏦᎷᏢᎢ",
			"XYHDGQWl3bSABCEHKMPT"},
		{"аеѕіјорсухһԁԛԝ",
			"aesijopcyxhdqw"},
		{"ӏґгүѵктмнвпьз",
			"lrryvktmhbnb3"},
		{"ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹͿ",
			"ABEZHIKMNOPTYXCJ"},
		{"αγικνορσςτυχωηεβϲϳ",
			"ayikvopoctuxwnebcj"},
		{"ıȷɑɡɩʟɴʀꜱᴀʙᴄᴅᴇʜᴊᴋ",
			"ijagilnrsabcdehjk"},
		{"ᴍᴏᴘᴛᴜᴠᴡʏᴢłŁøØđĐðÐħĦŧ",
			"moptuvwyzlLoOdDdDhHt"},
		{"ǀⅼ∣￨՟օՕոսհցզ",
			"llllloOnuhgq"},
	} {
		latin := []rune(row[1])
		for i, r := range []rune(row[0]) {
			like[r] = latin[i]
		}
	}
	return like
})
