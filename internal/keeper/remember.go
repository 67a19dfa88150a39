package keeper

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// Remembered is what a process must know about a sign-in when the answer comes. It
// can be sealed and given to the browser. Then nothing is kept on this machine
// meanwhile, and any process with the same key and vault can finish the sign-in.
type Remembered struct {
	grant.ID
	Home                          string
	ClientID, Origin, RedirectURI string
	ExpectUser                    string
	Asks                          bool
	// Replaces is the Token Vault Key that the company had, empty for none: once it
	// has another, the sign-in has been overtaken, by its own answer too.
	Replaces    string
	Begun, Ends time.Time
	Ref         string // as in Request

	secrets signInSecrets
}

// signInSecrets are a function, so that nothing that prints, logs or encodes what is
// around them shows them: fmt follows a pointer for verbs that don't fit.
type signInSecrets func() (state, verifier string)

func newSecrets(state, verifier string) signInSecrets {
	return func() (string, string) { return state, verifier }
}

// State is what the answer has to carry.
func (r Remembered) State() string {
	if r.secrets == nil {
		return ""
	}
	state, _ := r.secrets()
	return state
}

func (r Remembered) verifier() string {
	_, verifier := r.secrets()
	return verifier
}

// Address is where at UPS a person signs in with its state.
func (r Remembered) Address(client *ups.Client) string {
	its := *client
	its.RedirectURI = r.RedirectURI
	return its.AuthorizeURL(r.State(), r.verifier())
}

// KeySize is the number of bytes of a key that seals a Remembered.
const KeySize = 32

// maxSealed is how long a sealed text may be. A browser keeps cookies of 4,096 bytes
// and a server takes so many of them.
const maxSealed = 1536

// sealedVersion is the form of a sealed text, and the first byte in it.
const sealedVersion = 1

// errNotRemembered is all that is said of a text that is not what was sealed: nobody
// is told how near it came.
var errNotRemembered = errors.New("the saved sign-in can't be read: it is damaged, or it belongs to another purpose or installation")

// TooLongError says that what has to be remembered does not fit into a cookie.
type TooLongError struct{ ID grant.ID }

func (e *TooLongError) Error() string {
	return fmt.Sprintf("the sign-in for %s does not fit into a browser's cookie: its names and addresses are too long", e.ID)
}

// Seal makes a text that only a holder of the key can read or make. Purpose says
// what the text is kept for; Open refuses a text of another purpose. The text has
// letters, digits, - and _ only.
func (r Remembered) Seal(key []byte, purpose string) (string, error) {
	if r.secrets == nil {
		return "", errNotRemembered
	}
	aead, err := sealing(key)
	if err != nil {
		return "", err
	}
	var b cryptobyte.Builder
	state, verifier := r.secrets()
	for _, text := range append(r.texts(), &state, &verifier) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(*text)) })
	}
	asks := uint8(0)
	if r.Asks {
		asks = 1
	}
	b.AddUint8(asks)
	b.AddUint64(uint64(r.Begun.UnixMilli()))
	b.AddUint64(uint64(r.Ends.UnixMilli()))
	plain, err := b.Bytes()
	if err != nil {
		return "", &TooLongError{r.ID}
	}
	sealed := aead.Seal([]byte{sealedVersion}, nil, plain, sealedFor(purpose)) //nolint:gosec // it makes a nonce by itself
	text := base64.RawURLEncoding.EncodeToString(sealed)
	if len(text) > maxSealed {
		return "", &TooLongError{r.ID}
	}
	return text, nil
}

// Open reads what Seal made with the same key and for the same purpose. A *StaleError
// says that it is no longer good.
func Open(key []byte, purpose, text string, now time.Time) (Remembered, error) {
	aead, err := sealing(key)
	if err != nil {
		return Remembered{}, err
	}
	if len(text) > maxSealed || strings.ContainsAny(text, "\r\n") { // which base64 passes over
		return Remembered{}, errNotRemembered
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(sealed) == 0 || sealed[0] != sealedVersion {
		return Remembered{}, errNotRemembered
	}
	plain, err := aead.Open(nil, nil, sealed[1:], sealedFor(purpose))
	if err != nil {
		return Remembered{}, errNotRemembered
	}
	return readRemembered(plain, now)
}

func readRemembered(plain []byte, now time.Time) (Remembered, error) {
	var r Remembered
	var state, verifier string
	s := cryptobyte.String(plain)
	for _, to := range append(r.texts(), &state, &verifier) {
		var field cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&field) {
			return Remembered{}, errNotRemembered
		}
		*to = string(field)
	}
	var asks uint8
	var begun, ends uint64
	if !s.ReadUint8(&asks) || !s.ReadUint64(&begun) || !s.ReadUint64(&ends) || !s.Empty() {
		return Remembered{}, errNotRemembered
	}
	r.Asks, r.secrets = asks == 1, newSecrets(state, verifier)
	r.Begun, r.Ends = time.UnixMilli(int64(begun)).UTC(), time.UnixMilli(int64(ends)).UTC()
	if !now.Before(r.Ends) {
		return Remembered{}, &StaleError{ID: r.ID, Why: StaleExpired}
	}
	return r, nil
}

// texts are the texts of it that are no secrets, in the order in which they are sealed.
func (r *Remembered) texts() []*string {
	return []*string{
		&r.Company, &r.Application, &r.Environment, &r.Home, &r.ClientID, &r.Origin, &r.RedirectURI,
		&r.ExpectUser, &r.Replaces, &r.Ref,
	}
}

// sealing is AES-256 in Galois/Counter mode. Its nonces are random, which 2^32 texts
// with one key allow.
func sealing(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("the key that seals sign-ins has %d bytes, and needs %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealedFor binds a text to what it is kept for and to its form.
func sealedFor(purpose string) []byte {
	return append([]byte("upsauth sign-in\x00"), append([]byte{sealedVersion, 0}, purpose...)...)
}
