package grant

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/upsauth/upsauth/internal/legible"
)

// MaxCompany is how long a company's name may be, in characters.
const MaxCompany = 200

// ID names a grant: one company, one application, one environment.
type ID struct {
	Company     string `json:"company"`
	Application string `json:"application"`
	Environment string `json:"environment"`
}

// String is for people: what nobody sees in a name is left out.
func (id ID) String() string {
	return fmt.Sprintf("%s (%s, %s)", legible.Line(id.Company), legible.Line(id.Application), legible.Line(id.Environment))
}

// Slot is the name of the grant's place in a vault: the same for every way to
// write the company that Fold makes equal, and a good file name everywhere,
// whatever the company is called. It begins with the company's slot.
func (id ID) Slot() string {
	var slot [32 + 1 + 16]byte
	hexDigest(slot[:32], foldForSlot(id.Company))
	slot[32] = '-'
	hexDigest(slot[33:], id.Application+"\x00"+id.Environment)
	return string(slot[:])
}

// CompanySlot is the part of a slot that all grants of one company share. It goes by
// the name as it is kept. Names of earlier versions may have characters in them that
// Fold leaves out, and have slots of their own by them: whoever looks for a company
// takes the name that Spellings and Fold find.
func CompanySlot(company string) string {
	var slot [32]byte
	hexDigest(slot[:], foldForSlot(company))
	return string(slot[:])
}

// hexDigest fills text with hexadecimal digits of a digest of s.
func hexDigest(text []byte, s string) {
	sum := sha256.Sum256([]byte(s))
	hex.Encode(text, sum[:len(text)/2])
}

// foldForSlot is what Fold was when the first slots were made. Every file on disk
// is named by it, so it stays as it is.
func foldForSlot(company string) string {
	name := strings.TrimSpace(company)
	if isPlainASCII(name) {
		return strings.ToLower(name)
	}
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(name)))
}

// Folded is a company's name as it is compared, and never as it is shown.
type Folded string

// Fold makes names of the same company equal: surrounding space, Unicode
// composition (NFC), case and what nobody sees (legible.Hidden) do not count.
func Fold(company string) Folded { return Folded(legible.Fold(company)) }

// isPlainASCII spares the common names the Unicode tables, whose first use
// costs more than everything else a status does.
func isPlainASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// Spellings are the names under which a company that somebody names may be kept: as
// it was typed, then as it is kept today. One of an earlier version may have other
// characters in its name that nobody sees; only Fold finds it.
func Spellings(company string) []string {
	if clean := legible.Name(company); CompanySlot(clean) != CompanySlot(company) {
		return []string{company, clean}
	}
	return []string{company}
}

// CleanCompany returns the name as it is kept, trimmed, in NFC and without what
// nobody sees, or an error that says what is wrong with it.
func CleanCompany(name string) (string, error) {
	if err := checkText(name); err != nil {
		return "", err
	}
	clean := legible.Name(name)
	if clean == "" && strings.TrimSpace(name) != "" {
		return "", fmt.Errorf("the company's name has only invisible characters")
	}
	return clean, CheckCompany(clean)
}

// CheckCompany says what is wrong with a name on disk. What earlier versions kept is
// right: characters that nobody sees may be in it. The common names are spared what
// is done to all others.
func CheckCompany(name string) error {
	if isPrintableASCII(name) && len(name) <= MaxCompany && name != "" && name[0] != ' ' && name[len(name)-1] != ' ' {
		return nil
	}
	if err := checkText(name); err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("the company's name is empty")
	}
	if n := utf8.RuneCountInString(name); n > MaxCompany {
		return fmt.Errorf("the company's name has %d characters; at most %d are allowed", n, MaxCompany)
	}
	if norm.NFC.String(strings.TrimSpace(name)) != name {
		return fmt.Errorf("the company's name has spaces around it, or is not in Unicode's form NFC")
	}
	return nil
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

func checkText(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("the company's name is not valid UTF-8 text")
	}
	for _, r := range strings.TrimSpace(name) {
		if unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) {
			return fmt.Errorf("the company's name has a control character or a line break (%U)", r)
		}
	}
	return nil
}

// CleanName checks the name of an application or of an environment: these are
// written in files, flags and account names, so they are short and plain.
func CleanName(kind, name string) (string, error) {
	if name == "" || len(name) > 64 {
		return "", fmt.Errorf("the name of an %s has 1 to 64 characters", kind)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", r)) {
			return "", fmt.Errorf("%q can't be the name of an %s: use lower-case letters, digits, '-', '_' and '.', beginning with a letter or digit", name, kind)
		}
	}
	if isDevice(name) || strings.HasSuffix(name, ".") {
		return "", fmt.Errorf("%q can't be the name of an %s: Windows does not allow files of this name", name, kind)
	}
	return name, nil
}

// isDevice reports whether Windows finds a device under this name in every
// directory, whatever comes behind a dot.
func isDevice(name string) bool {
	device, _, _ := strings.Cut(name, ".")
	switch device {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(device) == 4 && (device[:3] == "com" || device[:3] == "lpt") && device[3] >= '0' && device[3] <= '9'
}
