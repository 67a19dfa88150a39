// Package backup is the one file that upsauth vault export writes and upsauth
// vault import reads: JSON in a single age file, which any age program opens
// with the same identity or passphrase.
package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// Version is the format version of a document. Fields are only ever added
// without a new one.
const Version = 1

// grantVersion is the format of a grant in an export, whatever that of an item is.
const grantVersion = 1

// maxSealed is how many bytes of an encrypted file are read, and maxPlain how
// many are written: armor makes a third more of them. A grant takes about 3 KB.
const (
	maxSealed = 128 << 20
	maxPlain  = maxSealed / 2
)

// Document is what an export has in it.
type Document struct {
	Version int `json:"version"`
	// Made is when the export was made, UTC, by the clock of its machine.
	Made         time.Time     `json:"made"`
	Grants       []grant.Grant `json:"grants"`
	Applications []Application `json:"applications"`
	// Interrupted are the refreshes of these grants whose fate is not known.
	Interrupted []Interrupted `json:"interrupted,omitempty"`
}

// Interrupted is a refresh that was cut off after the refresh token was sent: the
// next one is a retry, and has to wait like one.
type Interrupted struct {
	TokenVaultKey string `json:"token_vault_key"`
	// Generation is the one that the refresh would have made, and Attempt how often
	// the token was sent, from 1.
	Generation int64 `json:"generation"`
	Attempt    int   `json:"attempt"`
	// Time is when it was sent last, UTC.
	Time time.Time `json:"time"`
	// Outcome is what became of it, as a sentence.
	Outcome string `json:"outcome,omitempty"`
	// Proxied says that it went through a proxy, which may deliver it late.
	Proxied bool `json:"proxied,omitempty"`
}

// Application is a registration with its client secret, which may be empty.
type Application struct {
	config.Registration
	ClientSecret string `json:"client_secret"`
}

// What Open answers where it can't give the document.
var (
	// ErrNotAge: the file is not encrypted by age, or is something else.
	ErrNotAge = errors.New("the file is not encrypted by age, so it is not an export of upsauth")
	// ErrNotExport: the file opens, and something else is in it.
	ErrNotExport = errors.New("the file was decrypted, but it is not an export of upsauth")
	// ErrDamaged: the file is not whole, or not as it was written.
	ErrDamaged = errors.New("the file is damaged or cut off: take another copy of the export, or make it again")
	// ErrNeedPassphrase: a passphrase opens the file, and Keys has none to ask for.
	ErrNeedPassphrase = errors.New("the file is encrypted with a passphrase, and none was given")
	// ErrNeedIdentity: an identity opens the file, and Keys has none.
	ErrNeedIdentity = errors.New("the file is encrypted to recipients, and no identity was given to open it: name the identity file of one of them")
	// ErrOtherIdentity: the file is encrypted to other identities than those given.
	ErrOtherIdentity = errors.New("the file is encrypted to other recipients, and none of the given identities opens it: name the identity file of one of its recipients")
	// ErrWrongPassphrase: the passphrase does not open the file.
	ErrWrongPassphrase = errors.New("the passphrase does not open the file: give the passphrase that the export was made with")
	// ErrTooBig: the file is bigger than any export that upsauth writes, or the
	// document too big for one.
	ErrTooBig = fmt.Errorf("the export is too big (over %d MB): make several, with some of the companies in each", maxPlain>>20)
)

// NewerError says that an export, or a grant in it, was written by a newer
// upsauth in a format that this one can't know.
type NewerError struct {
	Version int // the format of the export or of the grant
	Known   int // the newest that this upsauth knows
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the export was made by a newer upsauth (format %d, this one knows %d): import it with the newer upsauth", e.Version, e.Known)
}

// InvalidError says which grant or application of a document can't be, and why.
// No secret is in it.
type InvalidError struct {
	Kind   string // "grant" or "application"
	Number int    // its place in the document, from 1
	Name   string // the company or the application, fit for a terminal; empty where it has none
	Err    error
}

func (e *InvalidError) Error() string {
	name := ""
	if e.Name != "" {
		name = fmt.Sprintf(" (%q)", e.Name)
	}
	return fmt.Sprintf("%s no. %d of the export%s can't be used: %v", e.Kind, e.Number, name, e.Err)
}

func (e *InvalidError) Unwrap() error { return e.Err }

// Check returns the *InvalidError that Seal would.
func (d Document) Check() error {
	_, err := d.clean()
	return err
}

// Seal encrypts the document to recipients and writes it to w, as text where
// armored is set. Version is set, what is a matter of this machine alone is left
// out, and the caller's document stays as it is. What Open would not take is not
// written: errors are *InvalidError, ErrTooBig, ErrNoRecipient, ErrMixed, and
// those of w, after which w has a part of the file.
func (d Document) Seal(w io.Writer, recipients []age.Recipient, armored bool) error {
	if err := checkRecipients(recipients); err != nil {
		return err
	}
	plain, err := d.text(maxPlain)
	if err != nil {
		return err
	}
	if err := encrypt(w, plain, recipients, armored); err != nil {
		return fmt.Errorf("the export can't be written: %w", err)
	}
	return nil
}

// text is the JSON of the document, which is checked and has at most limit
// bytes.
func (d Document) text(limit int) ([]byte, error) {
	d, err := d.clean()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(d); err != nil {
		return nil, fmt.Errorf("the export can't be made: %w", err)
	}
	if text.Len() > limit {
		return nil, ErrTooBig
	}
	return text.Bytes(), nil
}

func encrypt(w io.Writer, plain []byte, recipients []age.Recipient, armored bool) error {
	var text io.WriteCloser
	if armored {
		text = armor.NewWriter(w)
		w = text
	}
	sealed, err := age.Encrypt(w, recipients...)
	if err != nil {
		return err
	}
	if _, err := sealed.Write(plain); err != nil {
		return err
	}
	if err := sealed.Close(); err != nil {
		return err
	}
	if text == nil {
		return nil
	}
	return text.Close()
}

// Keys is what may open an export. The one function is called that the file has a
// use for, so that nobody is asked in vain, once or as Retry says. What they fail
// with comes back from Open as it is.
type Keys struct {
	// Passphrase is asked for where the file was encrypted with one.
	Passphrase func() (string, error)
	// Retry reports whether Passphrase is to be called again, as what it returned does
	// not open the file. Nil: it never is.
	Retry func() bool
	// Identities are asked for where the file was encrypted to recipients.
	Identities func() ([]age.Identity, error)
}

// Open decrypts an export, armored or not, and checks all that is in it: names
// and keys are fit for files and accounts, no two grants or applications are the
// same, and nothing is left of the state that the grants had on another machine
// (Was, Vault, JournalRecipient, Removing, Superseded). All times are UTC.
// Unknown fields are skipped. The document counts only where the error is
// nil: one of those above, *NewerError, *InvalidError, *WorkFactorError, or what
// r or keys failed with.
func Open(r io.Reader, keys Keys) (Document, error) {
	return open(r, keys, maxSealed)
}

func open(r io.Reader, keys Keys, limit int64) (Document, error) {
	src := &source{r: r, left: limit}
	plain, err := decrypt(src, keys)
	if src.err != nil {
		// age would call a file damaged that can't be read.
		return Document{}, src.err
	}
	if err != nil {
		return Document{}, err
	}
	return parse(plain)
}

// source reads a limited number of bytes and remembers what it failed with.
type source struct {
	r    io.Reader
	left int64
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	// One byte more shows that there is more.
	if int64(len(p)) > s.left+1 {
		p = p[:s.left+1]
	}
	n, err := s.r.Read(p)
	if s.left -= int64(n); s.left < 0 {
		s.err = ErrTooBig
		return 0, s.err
	}
	if err != nil && err != io.EOF {
		s.err = fmt.Errorf("the export can't be read: %w", err)
		return n, s.err
	}
	return n, err
}

func decrypt(r io.Reader, keys Keys) ([]byte, error) {
	// The armor may have up to 1024 bytes of blank lines before it.
	buffered := bufio.NewReaderSize(r, 2048)
	start, _ := buffered.Peek(2048)
	var file io.Reader = buffered
	switch {
	case bytes.HasPrefix(bytes.TrimSpace(start), []byte(armor.Header)):
		file = armor.NewReader(buffered)
	case !bytes.HasPrefix(start, []byte("age-encryption.org/v1\n")):
		return nil, ErrNotAge
	}
	o := &opener{keys: keys}
	stream, err := age.Decrypt(file, o)
	if o.err != nil {
		return nil, o.err
	}
	if err != nil {
		return nil, damaged(err)
	}
	plain, err := io.ReadAll(io.LimitReader(stream, maxPlain+1))
	if err != nil {
		return nil, damaged(err)
	}
	if len(plain) > maxPlain {
		return nil, ErrTooBig
	}
	return plain, nil
}

// damaged keeps the cause as text only, fit for a terminal: age quotes the file.
func damaged(err error) error {
	return fmt.Errorf("%w (%s)", ErrDamaged, ups.Presentable(err.Error()))
}

// opener is the age.Identity that finds out what a file wants before anybody is
// asked for it.
type opener struct {
	keys Keys
	err  error // age would put others around it
}

func (o *opener) Unwrap(stanzas []*age.Stanza) (fileKey []byte, err error) {
	if i := slices.IndexFunc(stanzas, func(s *age.Stanza) bool { return s.Type == "scrypt" }); i >= 0 {
		fileKey, err = o.byPassphrase(stanzas, stanzas[i])
	} else {
		fileKey, err = o.byIdentity(stanzas)
	}
	o.err = err
	return fileKey, err
}

func (o *opener) byPassphrase(stanzas []*age.Stanza, s *age.Stanza) ([]byte, error) {
	if len(s.Args) == 2 {
		if factor, err := strconv.Atoi(s.Args[1]); err == nil && factor > MaxWorkFactor {
			return nil, &WorkFactorError{WorkFactor: factor}
		}
	}
	if o.keys.Passphrase == nil {
		return nil, ErrNeedPassphrase
	}
	for {
		fileKey, err := o.tryPassphrase(stanzas)
		if !errors.Is(err, ErrWrongPassphrase) || o.keys.Retry == nil || !o.keys.Retry() {
			return fileKey, err
		}
	}
}

func (o *opener) tryPassphrase(stanzas []*age.Stanza) ([]byte, error) {
	passphrase, err := o.keys.Passphrase()
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil { // it is empty
		return nil, ErrWrongPassphrase
	}
	identity.SetMaxWorkFactor(MaxWorkFactor)
	fileKey, err := identity.Unwrap(stanzas)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, ErrWrongPassphrase
	}
	if err != nil {
		return nil, damaged(err)
	}
	return fileKey, nil
}

func (o *opener) byIdentity(stanzas []*age.Stanza) ([]byte, error) {
	var identities []age.Identity
	if o.keys.Identities != nil {
		var err error
		if identities, err = o.keys.Identities(); err != nil {
			return nil, err
		}
	}
	if len(identities) == 0 {
		return nil, ErrNeedIdentity
	}
	for _, identity := range identities {
		fileKey, err := identity.Unwrap(stanzas)
		if err == nil {
			return fileKey, nil
		}
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return nil, damaged(err)
		}
	}
	return nil, ErrOtherIdentity
}

// parse reads and checks the JSON of a document.
func parse(data []byte) (Document, error) {
	if version := versionOf(data); version > Version {
		return Document{}, &NewerError{Version: version, Known: Version}
	}
	// Looking through it takes no memory; what follows takes that of one entry.
	if !json.Valid(data) {
		return Document{}, ErrNotExport
	}
	r := &reading{source: entrySource{r: bytes.NewReader(data)}}
	r.json = json.NewDecoder(&r.source)
	err := r.document()
	switch {
	case r.err != nil:
		return Document{}, r.err
	case err != nil || r.made.Version < 1 || !r.grants:
		// An item of a file vault is an age file with a version in it, too.
		return Document{}, ErrNotExport
	}
	return r.made.clean()
}

const (
	// maxEntries is how many grants, or applications, an export may have, and
	// maxEntry how many bytes each.
	maxEntries = 100_000
	maxEntry   = 256 << 10
)

// reading is a document that is being read, one entry after another: the first that
// is wrong ends it. Read all at once, a file of empty ones takes many times its size.
type reading struct {
	source entrySource
	json   *json.Decoder
	made   Document
	grants bool  // there is a list of grants
	err    error // why it can't be used; other errors say that it is no export
}

// entrySource gives the decoder no more than one entry may have.
type entrySource struct {
	r           io.Reader
	given, most int64 // bytes in all, most until the entry's end
}

func (s *entrySource) Read(p []byte) (int, error) {
	if s.most > 0 && s.given > s.most {
		return 0, ErrTooBig
	}
	n, err := s.r.Read(p[:min(len(p), 32<<10)])
	s.given += int64(n)
	return n, err
}

func (r *reading) document() error {
	if err := r.delimiter('{'); err != nil {
		return err
	}
	for r.json.More() {
		token, err := r.json.Token()
		if err != nil {
			return err
		}
		switch name, _ := token.(string); strings.ToLower(name) {
		case "version":
			err = r.json.Decode(&r.made.Version)
		case "made":
			err = r.json.Decode(&r.made.Made)
		case "grants":
			r.grants, err = r.entries("grant", r.grant)
		case "applications":
			_, err = r.entries("application", r.application)
		case "interrupted":
			_, err = r.entries("interrupted refresh", r.interrupted)
		default:
			err = r.skip()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) delimiter(want json.Delim) error {
	token, err := r.json.Token()
	if err == nil && token != want {
		err = ErrNotExport
	}
	return err
}

// skip passes over a value of a field that is not known.
func (r *reading) skip() error {
	for depth := 0; ; {
		token, err := r.json.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// entries reads a list, and reports whether there is one: null is none.
func (r *reading) entries(kind string, take func(i int, text []byte) error) (bool, error) {
	token, err := r.json.Token()
	if err != nil || token == nil {
		return false, err
	}
	if token != json.Delim('[') {
		return false, ErrNotExport
	}
	for i := 0; r.json.More(); i++ {
		if i == maxEntries {
			r.err = fmt.Errorf("the export has more than %d entries of one kind (%s), which is more than upsauth writes", maxEntries, kind)
			return false, r.err
		}
		r.source.most = r.json.InputOffset() + maxEntry
		var text json.RawMessage
		err := r.json.Decode(&text)
		if errors.Is(err, ErrTooBig) || err == nil && len(text) > maxEntry {
			r.err = &InvalidError{Kind: kind, Number: i + 1, Err: fmt.Errorf("it has more than %d KB", maxEntry>>10)}
			return false, r.err
		}
		if err != nil {
			return false, err
		}
		if err := take(i, text); err != nil {
			r.err = err
			return false, err
		}
	}
	r.source.most = 0
	return true, r.delimiter(']')
}

func (r *reading) grant(i int, text []byte) error {
	if version := versionOf(text); version > grantVersion {
		return &NewerError{Version: version, Known: grantVersion}
	}
	var g grant.Grant
	err := explain(json.Unmarshal(text, &g))
	if err == nil && g.Version < 1 {
		err = errors.New("it has no format version")
	}
	if err == nil {
		_, err = cleanGrant(g)
	}
	if err != nil {
		return invalidGrant(i, g, err)
	}
	r.made.Grants = append(r.made.Grants, g)
	return nil
}

func (r *reading) application(i int, text []byte) error {
	var a Application
	err := explain(json.Unmarshal(text, &a))
	if err == nil {
		_, err = cleanApplication(a)
	}
	if err != nil {
		return invalidApplication(i, a, err)
	}
	r.made.Applications = append(r.made.Applications, a)
	return nil
}

func (r *reading) interrupted(i int, text []byte) error {
	var u Interrupted
	err := explain(json.Unmarshal(text, &u))
	if err == nil {
		_, err = cleanInterrupted(u)
	}
	if err != nil {
		return &InvalidError{Kind: "interrupted refresh", Number: i + 1, Err: err}
	}
	r.made.Interrupted = append(r.made.Interrupted, u)
	return nil
}

// versionOf is the format version that JSON names, read on its own as nothing
// else in it need be as it is now; 0 where it names none.
func versionOf(data []byte) int {
	var format struct{ Version int }
	_ = json.Unmarshal(data, &format)
	return format.Version
}

// explain says what is wrong with JSON in other words than those of the JSON
// library, which name types of this program and quote values.
func explain(err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) && kind.Field != "" {
		field := kind.Field[strings.LastIndexByte(kind.Field, '.')+1:]
		return fmt.Errorf("its field %s is of another kind than it should be", field)
	}
	if err != nil {
		return errors.New("it is not written as upsauth writes it")
	}
	return nil
}
