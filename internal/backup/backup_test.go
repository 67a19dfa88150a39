package backup

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/realpart"
	"github.com/upsauth/upsauth/internal/ups"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	keyA = "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA"
	keyB = "0B7C52F1-94A7-4D0B-8C57-2C1F6E8A90D3"
	keyC = "9A3E1C70-5D6B-4E0F-A2B4-7F1D0C9E8B65"

	lowFactor = 10 // the test suite would take minutes otherwise
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sameJSON(t testing.TB, got, want any) {
	t.Helper()
	g, err := json.MarshalIndent(got, "", " ")
	check(t, err)
	w, err := json.MarshalIndent(want, "", " ")
	check(t, err)
	if !bytes.Equal(g, w) {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

// acme is a grant as a vault has it, with traces of all that may be in one.
func acme() grant.Grant {
	return grant.Grant{
		Record: grant.Record{
			Version: 1,
			Facts: grant.Facts{
				ID:                  grant.ID{Company: "Acme <Corp> & Söhne", Application: "intelligent-rating", Environment: "production"},
				TokenVaultKey:       keyA,
				Generation:          7,
				User:                "jane@acme.example",
				ClientID:            "client-1",
				BaseURL:             "https://onlinetools.ups.com",
				Issued:              noon,
				Expires:             noon.Add(4 * time.Hour),
				RefreshTokenIssued:  noon,
				RefreshTokenExpires: noon.Add(60 * 24 * time.Hour),
				Requested:           noon.Add(-time.Second),
				AccessUntil:         noon.Add(4*time.Hour - time.Second),
				RefreshUntil:        noon.Add(60*24*time.Hour - time.Second),
				RefreshCount:        6,
				Home:                "keychain",
				JournalRecipient:    "age1here",
			},
			Local:       grant.Local{Was: "Acme", Void: true, Removing: true, Superseded: []grant.Place{{TokenVaultKey: keyC, Home: "keychain"}}, LastError: &grant.LastError{Code: "10400", Message: "Invalid \"Refresh\" Token <é>", Time: noon}},
			Interrupted: true,
		},
		Secrets: grant.Secrets{AccessToken: "access-s3cret-a", TokenType: "Bearer", RefreshToken: "refresh-s3cret-a", Scope: "read write"},
	}
}

// document has a grant of each kind, and applications with and without much.
func document() Document {
	onlyRefresh := acme()
	onlyRefresh.Record = grant.Record{
		Version: 1,
		Facts: grant.Facts{
			ID:            grant.ID{Company: "Apex", Application: "mine", Environment: "lab"},
			TokenVaultKey: keyB,
			Generation:    1,
			ClientID:      "client-2",
			BaseURL:       "http://127.0.0.1:8080/ups",
		},
	}
	onlyRefresh.Secrets = grant.Secrets{RefreshToken: "refresh-s3cret-b"}
	onlyAccess := acme()
	onlyAccess.Record = grant.Record{
		Version: 1,
		Facts: grant.Facts{
			ID:             grant.ID{Company: "株式会社", Application: "batch-suite", Environment: config.Sandbox},
			TokenVaultKey:  keyC,
			Generation:     2,
			ClientID:       "client-3",
			BaseURL:        config.Sandbox,
			NoRefreshToken: true,
		},
	}
	onlyAccess.Secrets = grant.Secrets{AccessToken: "access-s3cret-c"}
	return Document{
		Made:   noon,
		Grants: []grant.Grant{acme(), onlyRefresh, onlyAccess},
		Applications: []Application{
			{config.Registration{Name: "intelligent-rating", Environment: "production", DisplayName: "UPS® Intelligent Rating", ClientID: "client-1",
				RedirectURI: "http://localhost:8400/callback", Scope: "read write", PKCE: "on", PKCENeedsBasic: true, Home: "keychain"}, "client s3cret <1>"},
			{config.Registration{Name: "mine", Environment: "lab", ClientID: "client-2", RedirectURI: "https://localhost"}, ""},
		},
	}
}

// opened is document as it arrives on another machine.
func opened() Document {
	d := document()
	d.Version = Version
	g := &d.Grants[0]
	g.Was, g.Home, g.JournalRecipient, g.Removing, g.Interrupted, g.Superseded = "", "", "", false, false, nil
	d.Applications[0].Home = ""
	return d
}

func newX25519(t testing.TB) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	check(t, err)
	return identity
}

// sshPair returns an SSH key the way its two files have it.
func sshPair(t testing.TB, private any) (identity age.Identity, public string, text []byte) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(private, "")
	check(t, err)
	text = pem.EncodeToMemory(block)
	identity, err = agessh.ParseIdentity(text)
	check(t, err)
	return identity, publicKey(t, private), text
}

func publicKey(t testing.TB, private any) string {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(private)
	check(t, err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

func newEd25519(t testing.TB) (age.Identity, string, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	return sshPair(t, private)
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	check(t, err)
	return private
}

// by has identities and nobody to ask for a passphrase.
func by(identities ...age.Identity) Keys {
	return Keys{Identities: func() ([]age.Identity, error) { return identities, nil }}
}

// word has a passphrase and no identities.
func word(passphrase string) Keys {
	return Keys{Passphrase: func() (string, error) { return passphrase, nil }}
}

func seal(t testing.TB, d Document, armored bool, recipients ...age.Recipient) []byte {
	t.Helper()
	var sealed bytes.Buffer
	check(t, d.Seal(&sealed, recipients, armored))
	return sealed.Bytes()
}

// sealText encrypts what need not be a document.
func sealText(t testing.TB, text string, recipients ...age.Recipient) []byte {
	t.Helper()
	var sealed bytes.Buffer
	check(t, encrypt(&sealed, []byte(text), recipients, false))
	return sealed.Bytes()
}

func parseRecipient(t testing.TB, text string) age.Recipient {
	t.Helper()
	recipient, err := ParseRecipient(text)
	check(t, err)
	return recipient
}

func passphrase(t testing.TB, passphrase string) age.Recipient {
	t.Helper()
	recipient, err := Passphrase(passphrase, lowFactor)
	check(t, err)
	return recipient
}

func TestRoundTrip(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	check(t, err)
	x25519 := newX25519(t)
	ed25519Identity, ed25519Public, _ := newEd25519(t)
	rsaIdentity, rsaPublic, _ := sshPair(t, newRSA(t, 2048))
	for _, test := range []struct {
		name       string
		recipients []age.Recipient
		keys       []Keys
	}{
		{"X25519", []age.Recipient{parseRecipient(t, x25519.Recipient().String())}, []Keys{by(x25519), by(newX25519(t), hybrid, x25519)}},
		{"post-quantum", []age.Recipient{parseRecipient(t, hybrid.Recipient().String())}, []Keys{by(hybrid)}},
		{"SSH ed25519", []age.Recipient{parseRecipient(t, ed25519Public+" jane@acme.example")}, []Keys{by(ed25519Identity)}},
		{"SSH RSA", []age.Recipient{parseRecipient(t, rsaPublic)}, []Keys{by(rsaIdentity)}},
		{"several", []age.Recipient{x25519.Recipient(), parseRecipient(t, ed25519Public), newX25519(t).Recipient()}, []Keys{by(x25519), by(ed25519Identity)}},
		{"passphrase", []age.Recipient{passphrase(t, "correct horse é")}, []Keys{word("correct horse é")}},
	} {
		for _, armored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, armored %t", test.name, armored), func(t *testing.T) {
				d := document()
				sealed := seal(t, d, armored, test.recipients...)
				sameJSON(t, d, document()) // the caller's
				if got := bytes.HasPrefix(sealed, []byte(armor.Header+"\n")); got != armored {
					t.Errorf("armored: %t", got)
				}
				for _, plain := range []string{"s3cret", "Acme", "Apex", "client", "intelligent", keyA, "ups.com", "version"} {
					if bytes.Contains(sealed, []byte(plain)) {
						t.Errorf("%s stands in the file", plain)
					}
				}
				for _, keys := range test.keys {
					for _, r := range []io.Reader{bytes.NewReader(sealed), iotest.OneByteReader(bytes.NewReader(sealed)), iotest.DataErrReader(bytes.NewReader(sealed))} {
						got, err := Open(r, keys)
						check(t, err)
						sameJSON(t, got, opened())
					}
				}
			})
		}
	}
}

func TestEmptyDocument(t *testing.T) {
	identity := newX25519(t)
	sealed := seal(t, Document{}, false, identity.Recipient())
	got, err := Open(bytes.NewReader(sealed), by(identity))
	check(t, err)
	if got.Version != Version || len(got.Grants) != 0 || len(got.Applications) != 0 {
		t.Errorf("got %+v", got)
	}
	if plain := decrypted(t, sealed, identity); !strings.Contains(plain, `"grants": []`) || !strings.Contains(plain, `"applications": []`) {
		t.Errorf("it is %s", plain)
	}
}

// decrypted is the JSON in an export, without this package's help.
func decrypted(t testing.TB, sealed []byte, identity age.Identity) string {
	t.Helper()
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	check(t, err)
	plain, err := io.ReadAll(r)
	check(t, err)
	return string(plain)
}

// What another program finds in an export must not change by accident.
func TestFormat(t *testing.T) {
	identity := newX25519(t)
	d := document()
	d.Grants, d.Applications = d.Grants[:1], d.Applications[:1]
	got := decrypted(t, seal(t, d, false, identity.Recipient()), identity)
	const want = `{
 "version": 1,
 "made": "2026-11-21T12:00:00Z",
 "grants": [
  {
   "version": 1,
   "company": "Acme <Corp> & Söhne",
   "application": "intelligent-rating",
   "environment": "production",
   "token_vault_key": "FD4C8DB3-3C21-4F7E-B122-8BF55EA80CDA",
   "generation": 7,
   "user": "jane@acme.example",
   "client_id": "client-1",
   "base_url": "https://onlinetools.ups.com",
   "issued": "2026-11-21T12:00:00Z",
   "expires": "2026-11-21T16:00:00Z",
   "refresh_token_issued": "2026-11-21T12:00:00Z",
   "refresh_token_expires": "2027-01-20T12:00:00Z",
   "requested": "2026-11-21T11:59:59Z",
   "access_until": "2026-11-21T15:59:59Z",
   "refresh_until": "2027-01-20T11:59:59Z",
   "refresh_count": 6,
   "vault": "",
   "void": true,
   "last_error": {
    "code": "10400",
    "message": "Invalid \"Refresh\" Token <é>",
    "time": "2026-11-21T12:00:00Z"
   },
   "access_token": "access-s3cret-a",
   "token_type": "Bearer",
   "refresh_token": "refresh-s3cret-a",
   "scope": "read write"
  }
 ],
 "applications": [
  {
   "name": "intelligent-rating",
   "environment": "production",
   "display_name": "UPS® Intelligent Rating",
   "client_id": "client-1",
   "redirect_uri": "http://localhost:8400/callback",
   "scope": "read write",
   "pkce": "on",
   "pkce_needs_basic": true,
   "vault": "",
   "client_secret": "client s3cret <1>"
  }
 ]
}
`
	if got != want {
		t.Errorf("it is\n%s", got)
	}
}

// Armored exports go through mail and clipboards.
func TestArmorThatWasPasted(t *testing.T) {
	identity := newX25519(t)
	sealed := string(seal(t, document(), true, identity.Recipient()))
	crlf := strings.ReplaceAll(sealed, "\n", "\r\n")
	for name, text := range map[string]string{
		"blank lines before":       "\n \n\t\n" + sealed,
		"blank lines behind":       sealed + "\n\n  \n",
		"CRLF":                     crlf,
		"blank CRLF lines around":  "\r\n\r\n" + crlf + "\r\n",
		"no line break at the end": strings.TrimRight(sealed, "\n"),
		"many blank lines before":  strings.Repeat("\n", 1000) + sealed,
	} {
		got, err := Open(strings.NewReader(text), by(identity))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sameJSON(t, got, opened())
	}
	for name, text := range map[string]string{
		"text behind":       sealed + "Best regards\n",
		"a line is missing": strings.Replace(sealed, sealed[40:105], "", 1),
		"quoted":            armor.Header + "\n> " + sealed[len(armor.Header)+1:],
		"nothing in it":     armor.Header + "\n" + armor.Footer + "\n",
	} {
		if _, err := Open(strings.NewReader(text), by(identity)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesThatDoNotOpen(t *testing.T) {
	mine, other := newX25519(t), newX25519(t)
	hybrid, err := age.GenerateHybridIdentity()
	check(t, err)
	sealed := seal(t, document(), false, mine.Recipient())
	locked := seal(t, document(), true, passphrase(t, "right"))
	expensive := bytes.Replace(seal(t, document(), false, passphrase(t, "right")), []byte(" 10\n"), []byte(" 21\n"), 1)
	asked := errors.New("the question was not answered")
	none := func() ([]age.Identity, error) { return nil, asked }
	for _, test := range []struct {
		name string
		file []byte
		keys Keys
		want error
	}{
		{"nothing", nil, by(mine), ErrNotAge},
		{"blank", []byte("\n\n"), by(mine), ErrNotAge},
		{"JSON", []byte(`{"version":1,"grants":[]}`), by(mine), ErrNotAge},
		{"an identity file", []byte(mine.String() + "\n"), by(mine), ErrNotAge},
		{"another version of age", []byte("age-encryption.org/v2\n-> X25519 x\n"), by(mine), ErrNotAge},
		{"PEM of another kind", []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"), by(mine), ErrNotAge},
		{"text before the armor", append([]byte("Hello\n"), locked...), word("right"), ErrNotAge},
		{"only the first line", []byte("age-encryption.org/v1\n"), by(mine), ErrDamaged},
		{"a header of rubbish", []byte("age-encryption.org/v1\nrubbish\x1b[31m\n"), by(mine), ErrDamaged},
		{"another identity", sealed, by(other), ErrOtherIdentity},
		{"an identity of another kind", sealed, by(hybrid), ErrOtherIdentity},
		{"no identity", sealed, Keys{}, ErrNeedIdentity},
		{"an empty list of identities", sealed, by(), ErrNeedIdentity},
		{"a passphrase for an identity's file", sealed, word("right"), ErrNeedIdentity},
		{"identities that so none can stay valid", sealed, Keys{Identities: none}, asked},
		{"wrong passphrase", locked, word("wrong"), ErrWrongPassphrase},
		{"empty passphrase", locked, word(""), ErrWrongPassphrase},
		{"an identity for a passphrase's file", locked, by(mine), ErrNeedPassphrase},
		{"passphrase that so none can stay valid", locked, Keys{Passphrase: func() (string, error) { return "", asked }}, asked},
		{"something behind", append(bytes.Clone(sealed), '\n'), by(mine), ErrDamaged},
		{"empty, encrypted", sealText(t, "", mine.Recipient()), by(mine), ErrNotExport},
		{"text, encrypted", sealText(t, "hello", mine.Recipient()), by(mine), ErrNotExport},
		{"an identity, encrypted", sealText(t, other.String(), mine.Recipient()), by(mine), ErrNotExport},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Open(bytes.NewReader(test.file), test.keys)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			fitForTerminal(t, err)
			sameJSON(t, got, Document{})
		})
	}
	var factor *WorkFactorError
	if _, err := Open(bytes.NewReader(expensive), Keys{Passphrase: unasked[string](t)}); !errors.As(err, &factor) || factor.WorkFactor != 21 {
		t.Errorf("an expensive passphrase: %v", err)
	} else if want := "the passphrase's work factor is 21, upsauth takes 1 to 20"; err.Error() != want {
		t.Errorf("it says %q", err)
	}
}

// unasked is a key that nobody should ask for.
func unasked[T any](t *testing.T) func() (T, error) {
	return func() (key T, err error) {
		t.Error("it was asked for in vain")
		return key, nil
	}
}

func TestOnlyTheKeyThatFitsIsAskedFor(t *testing.T) {
	identity := newX25519(t)
	keys := by(identity)
	keys.Passphrase = unasked[string](t)
	_, err := Open(bytes.NewReader(seal(t, document(), false, identity.Recipient())), keys)
	check(t, err)
	keys = word("right")
	keys.Identities = unasked[[]age.Identity](t)
	_, err = Open(bytes.NewReader(seal(t, document(), true, passphrase(t, "right"))), keys)
	check(t, err)
	_, _ = Open(strings.NewReader("no age file"), Keys{Passphrase: unasked[string](t), Identities: unasked[[]age.Identity](t)})
}

func fitForTerminal(t testing.TB, err error) {
	t.Helper()
	text := err.Error()
	for _, r := range text {
		if r < ' ' || r == 0x7f {
			t.Errorf("the error has a control character in it: %q", text)
			break
		}
	}
	if strings.Contains(text, "s3cret") || strings.Contains(text, "AGE-SECRET") {
		t.Errorf("the error has a secret in it: %s", text)
	}
}

// However little is missing or changed, it shows: half an export would look like
// a whole one of fewer companies.
func TestDamage(t *testing.T) {
	identity := newX25519(t)
	small := document()
	small.Grants, small.Applications = small.Grants[1:2], nil
	for _, armored := range []bool{false, true} {
		sealed := seal(t, small, armored, identity.Recipient())
		end := len(sealed)
		if armored {
			end-- // the last line break is not missed
		}
		for n := range end {
			if _, err := Open(bytes.NewReader(sealed[:n]), by(identity)); err == nil {
				t.Errorf("armored %t: the first %d bytes of %d open", armored, n, len(sealed))
			} else if n > 100 && !errors.Is(err, ErrDamaged) {
				t.Errorf("armored %t: the first %d bytes: %v", armored, n, err)
			} else {
				fitForTerminal(t, err)
			}
			if n%11 != 0 {
				continue
			}
			changed := bytes.Clone(sealed)
			changed[n] ^= 0x01
			if _, err := Open(bytes.NewReader(changed), by(identity)); err == nil {
				t.Errorf("armored %t: it opens with byte %d changed", armored, n)
			}
		}
	}
	sealed := seal(t, small, false, passphrase(t, "right"))
	for n := 0; n < len(sealed); n += 7 {
		if _, err := Open(bytes.NewReader(sealed[:n]), word("right")); err == nil {
			t.Errorf("with a passphrase the first %d bytes of %d open", n, len(sealed))
		}
	}
}

func TestSize(t *testing.T) {
	identity := newX25519(t)
	sealed := seal(t, document(), false, identity.Recipient())
	if _, err := open(bytes.NewReader(sealed), by(identity), int64(len(sealed))); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := open(bytes.NewReader(sealed), by(identity), int64(len(sealed)-1)); !errors.Is(err, ErrTooBig) {
		t.Errorf("a byte above the limit: %v", err)
	}
	text, err := document().text(maxPlain)
	check(t, err)
	if _, err := document().text(len(text)); err != nil {
		t.Errorf("written at the limit: %v", err)
	}
	if _, err := document().text(len(text) - 1); !errors.Is(err, ErrTooBig) {
		t.Errorf("written a byte above the limit: %v", err)
	}
}

type fullDisk struct{ left int }

var errFull = errors.New("no space left on device")

func (w *fullDisk) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, errFull
	}
	w.left -= len(p)
	return len(p), nil
}

// Not the file is at fault then.
func TestReadersAndWritersThatFail(t *testing.T) {
	identity := newX25519(t)
	for _, armored := range []bool{false, true} {
		sealed := seal(t, document(), armored, identity.Recipient())
		broken := errors.New("input/output error")
		for n := 0; n < len(sealed); n += 61 {
			_, err := Open(io.MultiReader(bytes.NewReader(sealed[:n]), iotest.ErrReader(broken)), by(identity))
			if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotAge) {
				t.Fatalf("after %d bytes: %v", n, err)
			}
			if err := document().Seal(&fullDisk{n}, []age.Recipient{identity.Recipient()}, armored); !errors.Is(err, errFull) {
				t.Fatalf("with room for %d bytes: %v", n, err)
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	check(t, err)
	x25519 := newX25519(t).Recipient()
	for name, test := range map[string]struct {
		recipients []age.Recipient
		want       error
	}{
		"nobody":                        {nil, ErrNoRecipient},
		"post-quantum and X25519":       {[]age.Recipient{hybrid.Recipient(), x25519}, ErrMixed},
		"passphrase and X25519":         {[]age.Recipient{x25519, passphrase(t, "a")}, ErrMixed},
		"passphrase and post-quantum":   {[]age.Recipient{hybrid.Recipient(), passphrase(t, "a")}, ErrMixed},
		"two passphrases":               {[]age.Recipient{passphrase(t, "a"), passphrase(t, "b")}, ErrMixed},
		"several post-quantum ones are": {[]age.Recipient{hybrid.Recipient(), hybrid.Recipient()}, nil},
	} {
		var out bytes.Buffer
		if err := document().Seal(&out, test.recipients, true); !errors.Is(err, test.want) || (err == nil) != (out.Len() > 0) {
			t.Errorf("%s: %v, %d bytes were written", name, err, out.Len())
		}
	}
	d := document()
	d.Grants[1].Company = "Acme\x1b[31m"
	var out bytes.Buffer
	var invalid *InvalidError
	if err := d.Seal(&out, []age.Recipient{x25519}, false); !errors.As(err, &invalid) || out.Len() != 0 {
		t.Errorf("an export that can't be imported: %v, %d bytes were written", err, out.Len())
	}
}

// An export is no format of upsauth's own: whoever has the identity opens it
// without upsauth, and upsauth opens what others encrypted again.
func TestAgeProgramOpensTheExport(t *testing.T) {
	program := realpart.Program(t, "age", "age")
	x25519 := newX25519(t)
	sshIdentity, public, private := newEd25519(t)
	for name, test := range map[string]struct {
		recipient string
		identity  age.Identity
		file      []byte
	}{
		"X25519":      {x25519.Recipient().String(), x25519, []byte(x25519.String() + "\n")},
		"SSH ed25519": {public, sshIdentity, private},
	} {
		path := filepath.Join(t.TempDir(), "identity")
		check(t, os.WriteFile(path, test.file, 0o600))
		for _, armored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, armored %t", name, armored), func(t *testing.T) {
				cmd := exec.Command(program, "-d", "-i", path)
				cmd.Stdin = bytes.NewReader(seal(t, document(), armored, parseRecipient(t, test.recipient)))
				plain, err := cmd.Output()
				check(t, err)
				var got Document
				check(t, json.Unmarshal(plain, &got))
				sameJSON(t, got, opened())

				args := []string{"-e", "-r", test.recipient}
				if armored {
					args = append(args, "-a")
				}
				cmd = exec.Command(program, args...)
				cmd.Stdin = bytes.NewReader(plain)
				sealed, err := cmd.Output()
				check(t, err)
				got, err = Open(bytes.NewReader(sealed), by(test.identity))
				check(t, err)
				sameJSON(t, got, opened())
			})
		}
	}
}

// FuzzOpen has whatever may be in an export read: what is taken is fit for file
// names, accounts and requests, and stays the same when it is exported again.
func FuzzOpen(f *testing.F) {
	identity := newX25519(f)
	whole := decrypted(f, seal(f, document(), false, identity.Recipient()), identity)
	for _, seed := range []string{
		whole, "", "{}", "null", "[]", `{"version":1}`, `{"version":1,"grants":[]}`, `{"version":2}`, `{"version":1e9,"grants":[]}`,
		`{"version":1,"grants":[null]}`, `{"version":1,"grants":[{}],"applications":[{}]}`,
		strings.ReplaceAll(whole, `"2026-`, `"0000-`), strings.ReplaceAll(whole, "00Z", "00+14:00"), strings.ReplaceAll(whole, "Acme", `\ud800`),
		strings.ReplaceAll(whole, "Apex", "Acme <corp> & s\u00d6hne"), strings.ReplaceAll(whole, keyA, keyB), strings.ReplaceAll(whole, `"version": 1`, `"version": 1, "new": {}`),
		strings.ReplaceAll(whole, "127.0.0.1", "ups.example"), strings.ReplaceAll(whole, "s3cret", "s3cret\\n"), strings.ReplaceAll(whole, "jane", `\u202e`),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		d, err := parse(plain)
		if err != nil {
			for _, r := range err.Error() {
				if r < ' ' || r == 0x7f {
					t.Fatalf("the error has a control character in it: %q", err)
				}
			}
			return
		}
		slots, keys, accounts := map[string]bool{}, map[string]bool{}, map[string]bool{}
		for _, g := range d.Grants {
			if !isGUID(g.TokenVaultKey) || keys[g.TokenVaultKey] || slots[g.Slot()] {
				t.Errorf("the key is %q", g.TokenVaultKey)
			}
			slots[g.Slot()], keys[g.TokenVaultKey] = true, true
			if company, err := grant.CleanCompany(g.Company); err != nil || company != g.Company {
				t.Errorf("the company is %q, %v", g.Company, err)
			}
			mustBeNames(t, g.Application, g.Environment)
			if strings.ContainsAny(g.AccessToken+g.RefreshToken+g.ClientID, " \r\n\t\x00\x1b") || g.AccessToken+g.RefreshToken == "" {
				t.Errorf("the secrets are %q", g.Secrets)
			}
			if e, err := ups.NewEnvironment(g.Environment, g.BaseURL); (err != nil || e.BaseURL != g.BaseURL) && g.BaseURL != config.Sandbox {
				t.Errorf("the base URL is %q, %v", g.BaseURL, err)
			}
			if g.Generation < 1 || g.Home != "" || g.Was != "" || g.Removing || g.Superseded != nil || g.JournalRecipient != "" || g.Version != 1 {
				t.Errorf("the grant is %+v", g)
			}
		}
		for _, a := range d.Applications {
			mustBeNames(t, a.Name, a.Environment)
			if a.ClientID == "" || a.Home != "" || accounts[a.SecretAccount()] {
				t.Errorf("the application is %+v", a)
			}
			accounts[a.SecretAccount()] = true
		}
		again, err := Open(bytes.NewReader(seal(t, d, false, identity.Recipient())), by(identity))
		check(t, err)
		sameJSON(t, again, d)
	})
}

func isGUID(s string) bool {
	for i, r := range s {
		if hyphen := i == 8 || i == 13 || i == 18 || i == 23; hyphen != (r == '-') || !strings.ContainsRune("-0123456789ABCDEF", r) {
			return false
		}
	}
	return len(s) == 36
}

func mustBeNames(t *testing.T, application, environment string) {
	t.Helper()
	for _, name := range []string{application, environment} {
		if _, err := grant.CleanName("name", name); err != nil {
			t.Error(err)
		}
	}
}

// A file of 45 MB took 1.46 GB before its first entry was looked at.
func TestEntriesAreLookedAtOneByOne(t *testing.T) {
	empty := `{"version":1,"grants":[{}` + strings.Repeat(`,{}`, 15_000_000) + `]}`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := parse([]byte(empty))
	runtime.ReadMemStats(&after)
	if invalid := new(InvalidError); !errors.As(err, &invalid) || invalid.Number != 1 {
		t.Errorf("got %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 3*uint64(len(empty)) {
		t.Errorf("it took %d MB", took>>20)
	}
	for name, test := range map[string]struct{ text, says string }{
		"a big grant":        {`{"version":1,"grants":[{"company":"` + strings.Repeat("x", maxEntry) + `"}]}`, "has more than 256 KB"},
		"a big application":  {`{"version":1,"grants":[],"applications":[{"name":"` + strings.Repeat("x", 2*maxEntry) + `"}]}`, "has more than 256 KB"},
		"one that is no end": {`{"version":1,"grants":[` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `]}`, "not written as upsauth writes it"},
	} {
		if _, err := parse([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is not known may be as big as it likes.
	if _, err := parse([]byte(`{"version":1,"later":["` + strings.Repeat("x", 4*maxEntry) + `"],"grants":[]}`)); err != nil {
		t.Error(err)
	}
}

// A built-in environment has one address: tokens of it are sent to no other.
func TestForeignAddressOfABuiltinEnvironment(t *testing.T) {
	d := document()
	d.Grants[0].BaseURL = "https://ups.evil.example"
	if err := d.Check(); err == nil || !strings.Contains(err.Error(), "its environment production is at https://onlinetools.ups.com") {
		t.Errorf("got %v", err)
	}
}

// An earlier version kept characters in names that nobody sees.
func TestNamesOfAnEarlierVersion(t *testing.T) {
	d := document()
	d.Grants[1].Company = "Ap\u200bex"
	identity := newX25519(t)
	got, err := Open(bytes.NewReader(seal(t, d, false, identity.Recipient())), by(identity))
	check(t, err)
	if got.Grants[1].Company != "Apex" {
		t.Errorf("the company is %+q", got.Grants[1].Company)
	}
}

func TestInterruptedRefreshesSurvive(t *testing.T) {
	d := document()
	d.Interrupted = []Interrupted{
		{TokenVaultKey: keyA, Generation: 8, Attempt: 2, Time: noon, Outcome: "the connection was lost"},
		{TokenVaultKey: "0B7C52F1-94A7-4D0B-8C57-2C1F6E8A90D4", Generation: 8, Attempt: 1, Time: noon},
	}
	identity := newX25519(t)
	got, err := Open(bytes.NewReader(seal(t, d, false, identity.Recipient())), by(identity))
	check(t, err)
	sameJSON(t, got.Interrupted, d.Interrupted[:1])
	d.Interrupted[0].Attempt = 0
	if d.Check() == nil {
		t.Error("an attempt that can't be is taken")
	}
}
