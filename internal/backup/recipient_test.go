package backup

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"filippo.io/age/agessh"
)

func TestParseRecipient(t *testing.T) {
	x25519 := newX25519(t)
	hybrid, err := age.GenerateHybridIdentity()
	check(t, err)
	_, ed25519Public, _ := newEd25519(t)
	rsaPublic := publicKey(t, newRSA(t, 2048))
	for text, want := range map[string]age.Recipient{
		x25519.Recipient().String():                 &age.X25519Recipient{},
		" " + x25519.Recipient().String() + " \r\n": &age.X25519Recipient{},
		hybrid.Recipient().String():                 &age.HybridRecipient{},
		ed25519Public:                               &agessh.Ed25519Recipient{},
		ed25519Public + " jane@acme.example":        &agessh.Ed25519Recipient{},
		rsaPublic:                                   &agessh.RSARecipient{},
	} {
		got, err := ParseRecipient(text)
		if err != nil || fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
			t.Errorf("%s is %T, %v", text, got, err)
		}
	}
}

func TestRecipientsThatAreRefused(t *testing.T) {
	x25519 := newX25519(t).Recipient().String()
	hybrid, err := age.GenerateHybridIdentity()
	check(t, err)
	_, ed25519Public, _ := newEd25519(t)
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	ecdsaPublic, weak := publicKey(t, ecdsaKey), publicKey(t, newRSA(t, 1024))
	for _, test := range []struct {
		text, says string
	}{
		{"", `"" is not a recipient`},
		{"~/.ssh/id_ed25519.pub", `"~/.ssh/id_ed25519.pub" is not a recipient`},
		{"AGE1QQ", `"AGE1QQ" is not a recipient`},
		{"evil\x1b[31m", `"evil[31m" is not a recipient`},
		{strings.Repeat("x", 1000), `"` + strings.Repeat("x", 60) + `…" is not a recipient`},
		{"age1", `the recipient "age1" can't be used`},
		{x25519[:len(x25519)-1], "checksum"},
		{strings.Replace(x25519, "age1", "age1yubikey1", 1), "can't be used"},
		{hybrid.Recipient().String()[:200], "can't be used"},
		{x25519 + "\n" + x25519, "more than one line"},
		{ed25519Public + "\n" + ed25519Public, "more than one line"},
		{"ssh-ed25519", `"ssh-ed25519" is no SSH public key as it stands in a .pub file`},
		{ed25519Public[:40], "was it cut off?"},
		{ecdsaPublic, "an SSH key of the kind ecdsa-sha2-nistp256"},
		{weak, "too small"},
	} {
		got, err := ParseRecipient(test.text)
		if err == nil || got != nil || !strings.Contains(err.Error(), test.says) || errors.Is(err, ErrPrivateKey) {
			t.Errorf("%q is %v, %v; want an error with %q", test.text, got, err, test.says)
			continue
		}
		fitForTerminal(t, err)
		if len(err.Error()) > 350 {
			t.Errorf("the error has %d characters: %v", len(err.Error()), err)
		}
	}
}

// People mix up the two halves of a key. The wrong one must not be written to a
// terminal or a log on top of it.
func TestPrivateKeysAreNotRepeated(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	check(t, err)
	identity := newX25519(t).String()
	_, _, private := newEd25519(t)
	for _, text := range []string{
		identity, strings.ToLower(identity), "x" + identity, identity[:30], hybrid.String(), string(private), "AGE-PLUGIN-YUBIKEY-1QQQ",
		"-----BEGIN RSA PRIVATE KEY-----", "# created: 2026-11-21\n" + identity,
	} {
		for _, err := range []error{second(ParseRecipient(text)), second(ParseRecipients(strings.NewReader(text)))} {
			if !errors.Is(err, ErrPrivateKey) {
				t.Errorf("got %v", err)
				continue
			}
			for part := range strings.FieldsSeq(text) {
				if len(part) > 12 && strings.Contains(err.Error(), part) {
					t.Errorf("the error repeats it: %v", err)
				}
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestParseRecipients(t *testing.T) {
	a, b := newX25519(t).Recipient().String(), newX25519(t).Recipient().String()
	_, public, _ := newEd25519(t)
	for text, want := range map[string]int{
		a:            1,
		a + "\n" + b: 2,
		"\ufeff" + a: 1,
		"# ours\r\n\r\n  " + a + "\r\n# theirs\r\n" + public + " jane\r\n\r\n": 2,
	} {
		got, err := ParseRecipients(strings.NewReader(text))
		if err != nil || len(got) != want {
			t.Errorf("%q has %d, %v", text, len(got), err)
		}
	}
	broken := errors.New("input/output error")
	for text, says := range map[string]string{
		"":                           "no recipient in it",
		"# " + a + "\n\n":            "no recipient in it",
		a + "\n\n" + b + "x\n":       "line 3: ",
		a + "\n" + a + " " + b:       "line 2: ",
		"\n" + newX25519(t).String(): "line 2: that is a private key",
		a + "\n" + strings.Repeat("x", bufio.MaxScanTokenSize): "line 2 is too long",
	} {
		got, err := ParseRecipients(strings.NewReader(text))
		if err == nil || got != nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60q: %v, %v; want %q", text, got, err, says)
		}
	}
	if _, err := ParseRecipients(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a file that can't be read: %v", err)
	}
}

func TestPassphrase(t *testing.T) {
	for factor, ok := range map[int]bool{-1: false, 0: false, 1: true, DefaultWorkFactor: true, MaxWorkFactor: true, MaxWorkFactor + 1: false, 31: false} {
		_, err := Passphrase("s3cret", factor)
		if (err == nil) != ok || err != nil && !errors.As(err, new(*WorkFactorError)) {
			t.Errorf("work factor %d: %v", factor, err)
		}
	}
	if _, err := Passphrase("", lowFactor); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty passphrase: %v", err)
	}
}
