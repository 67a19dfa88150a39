package backup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"

	"github.com/upsauth/upsauth/internal/ups"
)

// scrypt's cost as a power of two: DefaultWorkFactor is age's own, takes 256 MB
// and about a second; MaxWorkFactor is the highest that is written and opened,
// and takes 1 GB.
const (
	DefaultWorkFactor = 18
	MaxWorkFactor     = 20
)

// What there is to say about recipients that can't be encrypted to.
var (
	// ErrNoRecipient: there are none.
	ErrNoRecipient = errors.New("the export has no recipient: give a recipient or a passphrase")
	// ErrMixed: they can't be in one file.
	ErrMixed = errors.New("a post-quantum recipient (age1pq1…) can't be mixed with other recipients, which would make the file only as safe as these, and a passphrase can't be mixed with anything: make an export for each kind")
	// ErrPrivateKey: it is a private key. What the key is does not stand in the
	// error.
	ErrPrivateKey = errors.New("that is a private key, and a file is encrypted to a public key: give what age-keygen -y prints (age1…), or the text of the .pub file of an SSH key")
)

// WorkFactorError says that a passphrase's work factor is out of bounds. Opening
// such a file could take all memory.
type WorkFactorError struct{ WorkFactor int }

func (e *WorkFactorError) Error() string {
	return fmt.Sprintf("the passphrase's work factor is %d, upsauth takes 1 to %d", e.WorkFactor, MaxWorkFactor)
}

// Passphrase returns the recipient for an export that a passphrase opens, with
// scrypt's cost as a power of two. Errors are *WorkFactorError, and one for an
// empty passphrase.
func Passphrase(passphrase string, workFactor int) (age.Recipient, error) {
	if workFactor < 1 || workFactor > MaxWorkFactor {
		return nil, &WorkFactorError{WorkFactor: workFactor}
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, errors.New("the passphrase is empty")
	}
	recipient.SetWorkFactor(workFactor)
	return recipient, nil
}

// ParseRecipient reads a recipient: age's own kinds (age1… and the post-quantum
// age1pq1…) and SSH public keys (ssh-ed25519, ssh-rsa of at least 2048 bits).
// The error says what is wrong with it; it is ErrPrivateKey for a private key.
func ParseRecipient(text string) (age.Recipient, error) {
	text = strings.TrimSpace(text)
	upper := strings.ToUpper(text)
	if strings.Contains(upper, "AGE-SECRET-KEY-") || strings.Contains(upper, "AGE-PLUGIN-") || strings.Contains(upper, "PRIVATE KEY-----") {
		return nil, ErrPrivateKey
	}
	if strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%q and what follows it is more than one line: give the recipients one by one", shown(text))
	}
	switch {
	case strings.HasPrefix(text, "age1pq1"):
		recipient, err := age.ParseHybridRecipient(text)
		if err != nil {
			return nil, malformed(text, err)
		}
		return recipient, nil
	case strings.HasPrefix(text, "age1"):
		recipient, err := age.ParseX25519Recipient(text)
		if err != nil {
			return nil, malformed(text, err)
		}
		return recipient, nil
	}
	for _, kind := range []string{"ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"} {
		if strings.HasPrefix(text, kind) {
			return parseSSH(text)
		}
	}
	return nil, fmt.Errorf("%q is not a recipient: a recipient begins with age1…, ssh-ed25519 or ssh-rsa", shown(text))
}

func parseSSH(text string) (age.Recipient, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%q is no SSH public key as it stands in a .pub file, was it cut off? (%s)", shown(text), ups.Presentable(err.Error()))
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519:
		recipient, err := agessh.NewEd25519Recipient(key)
		if err != nil {
			return nil, malformed(text, err)
		}
		return recipient, nil
	case ssh.KeyAlgoRSA:
		recipient, err := agessh.NewRSARecipient(key)
		if err != nil {
			return nil, malformed(text, err)
		}
		return recipient, nil
	}
	return nil, fmt.Errorf("age can't encrypt to an SSH key of the kind %s: take one of the kind ssh-ed25519 or ssh-rsa, or an age recipient (age1…)", key.Type())
}

// malformed keeps of age's error what is not the recipient itself, which may be
// thousands of characters long.
func malformed(text string, err error) error {
	reason := strings.TrimPrefix(err.Error(), fmt.Sprintf("malformed recipient %q: ", text))
	return fmt.Errorf("the recipient %q can't be used: was it cut off, or mistyped? (%s)", shown(text), ups.Presentable(reason))
}

// shown is the beginning of what somebody gave, fit for a terminal.
func shown(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	text = ups.Presentable(text)
	const most = 60
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// ParseRecipients reads a file with one recipient per line; blank lines and
// lines that begin with # are skipped. An error names the line.
func ParseRecipients(r io.Reader) ([]age.Recipient, error) {
	var recipients []age.Recipient
	lines := bufio.NewScanner(r)
	n := 1
	for ; lines.Scan(); n++ {
		// Editors on Windows put a byte order mark first.
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		recipient, err := ParseRecipient(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		recipients = append(recipients, recipient)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d is too long to be a recipient", n)
	}
	if lines.Err() != nil {
		return nil, fmt.Errorf("the recipients can't be read: %w", lines.Err())
	}
	if len(recipients) == 0 {
		return nil, errors.New("there is no recipient in it")
	}
	return recipients, nil
}

// checkRecipients says what age would say about recipients that don't go
// together, in a sentence for the person who gave them.
func checkRecipients(recipients []age.Recipient) error {
	if len(recipients) == 0 {
		return ErrNoRecipient
	}
	var hybrid, scrypt int
	for _, r := range recipients {
		switch r.(type) {
		case *age.HybridRecipient:
			hybrid++
		case *age.ScryptRecipient:
			scrypt++
		}
	}
	if hybrid > 0 && hybrid < len(recipients) || scrypt > 0 && len(recipients) > 1 {
		return ErrMixed
	}
	return nil
}
