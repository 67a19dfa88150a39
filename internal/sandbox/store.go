package sandbox

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
)

// formatVersion is that of state.json.
const formatVersion = 1

// state is everything that the server remembers. Codes, refresh tokens and
// access token IDs are keys in the form that hash gives them: what was issued
// can't be read back from here.
type state struct {
	Version int                     `json:"version"`
	Seal    []byte                  `json:"seal"` // keys the tickets of the sign-in pages
	Codes   map[string]code         `json:"codes"`
	Access  map[string]accessToken  `json:"access_tokens"`
	Refresh map[string]refreshToken `json:"refresh_tokens"`
	Grants  map[string]grant        `json:"grants"` // by family
	People  map[string]person       `json:"people"` // by userKey; only those nobody listed

	pruned time.Time
}

// code is an authorization code. It stays after its use as long as the grant
// that it made, so that a second use is noticed (RFC 6749 section 4.1.2).
type code struct {
	authorization
	User    string    `json:"user"`
	Expires time.Time `json:"expires"`
	Family  string    `json:"family,omitempty"` // set once used
}

type accessToken struct {
	Family  string    `json:"family"`
	Expires time.Time `json:"expires"`
}

type refreshToken struct {
	Family  string    `json:"family"`
	Expires time.Time `json:"expires"`
	Spent   time.Time `json:"spent,omitzero"`
}

// grant is one authorization and all that descends from it, called its family.
// Deleting it voids every token that names it.
type grant struct {
	ClientID       string    `json:"client_id"`
	User           string    `json:"user"` // as typed
	Scope          string    `json:"scope"`
	Count          int       `json:"refresh_count"`
	Authorized     time.Time `json:"authorized"`
	Issued         time.Time `json:"issued"`
	AccessExpires  time.Time `json:"access_expires"`
	RefreshExpires time.Time `json:"refresh_expires"`
}

type person struct {
	Name     string    `json:"name"`
	Company  string    `json:"company"`
	Accounts []string  `json:"accounts"`
	Since    time.Time `json:"since"`
}

func newState() *state {
	st := &state{Version: formatVersion, Seal: randomBytes(32)}
	st.fill()
	return st
}

// fill makes the maps that a state.json left out.
func (st *state) fill() {
	if st.Codes == nil {
		st.Codes = map[string]code{}
	}
	if st.Access == nil {
		st.Access = map[string]accessToken{}
	}
	if st.Refresh == nil {
		st.Refresh = map[string]refreshToken{}
	}
	if st.Grants == nil {
		st.Grants = map[string]grant{}
	}
	if st.People == nil {
		st.People = map[string]person{}
	}
}

// maxSpent is how many spent refresh tokens of one grant are remembered.
const maxSpent = 200

// prune forgets what can have no effect any more. It looks at most once a
// minute, so that a busy server does not walk its whole state per request.
func (st *state) prune(now time.Time) {
	if since := now.Sub(st.pruned); 0 <= since && since < time.Minute {
		return
	}
	st.pruned = now
	alive := map[string]bool{}
	for k, t := range st.Access {
		if _, ok := st.Grants[t.Family]; !ok || !now.Before(t.Expires) {
			delete(st.Access, k)
			continue
		}
		alive[t.Family] = true
	}
	spent := map[string][]string{}
	for k, t := range st.Refresh {
		if _, ok := st.Grants[t.Family]; !ok || !now.Before(t.Expires) {
			delete(st.Refresh, k)
			continue
		}
		if !t.Spent.IsZero() {
			spent[t.Family] = append(spent[t.Family], k)
			continue
		}
		alive[t.Family] = true
	}
	for _, keys := range spent {
		if len(keys) <= maxSpent {
			continue
		}
		slices.SortFunc(keys, func(a, b string) int {
			return cmp.Or(st.Refresh[a].Spent.Compare(st.Refresh[b].Spent), strings.Compare(a, b))
		})
		for _, k := range keys[:len(keys)-maxSpent] {
			delete(st.Refresh, k)
		}
	}
	for family := range st.Grants {
		if !alive[family] {
			delete(st.Grants, family)
		}
	}
	for k, c := range st.Codes {
		_, granted := st.Grants[c.Family]
		if !granted && !now.Before(c.Expires) {
			delete(st.Codes, k)
		}
	}
	st.forgetPeople()
}

// maxPeople is how many are remembered who have authorized nothing any more.
// What is known of a person follows from the name, so who comes back is the
// same.
const maxPeople = 1000

func (st *state) forgetPeople() {
	if len(st.People) <= maxPeople {
		return
	}
	here := map[string]bool{}
	for _, g := range st.Grants {
		here[userKey(g.User)] = true
	}
	for _, c := range st.Codes {
		here[userKey(c.User)] = true
	}
	var idle []string
	for k := range st.People {
		if !here[k] {
			idle = append(idle, k)
		}
	}
	slices.SortFunc(idle, func(a, b string) int {
		return cmp.Or(st.People[a].Since.Compare(st.People[b].Since), strings.Compare(a, b))
	})
	for _, k := range idle[:max(0, len(idle)-maxPeople)] {
		delete(st.People, k)
	}
}

// store keeps one state.
type store interface {
	// do runs fn with the state to itself, shut off from every other process
	// that shares it, and keeps what fn changed if fn says that it changed
	// anything. Only when do returns nil has it been kept.
	do(fn func(*state) (changed bool)) error
	// key returns the key that signs access tokens, made when first asked for.
	key() (*rsa.PrivateKey, error)
}

// memoryStore keeps the state as long as the process lives.
type memoryStore struct {
	now func() time.Time

	mu    sync.Mutex
	state *state

	keyMu sync.Mutex
	rsa   *rsa.PrivateKey
}

func (m *memoryStore) do(fn func(*state) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == nil {
		m.state = newState()
	}
	if fn(m.state) {
		m.state.prune(m.now())
	}
	return nil
}

func (m *memoryStore) key() (*rsa.PrivateKey, error) {
	m.keyMu.Lock()
	defer m.keyMu.Unlock()
	if m.rsa == nil {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		m.rsa = key
	}
	return m.rsa, nil
}

// dirStore keeps the state in a directory that several processes may share:
// state.json and key.pem, each replaced whole, and the lock file that guards
// both.
type dirStore struct {
	dir string
	now func() time.Time
	log func(string)

	mu    sync.Mutex
	state *state
	raw   []byte // state.json as last read or written; what state was decoded from
	rsa   *rsa.PrivateKey
}

func (d *dirStore) locked(fn func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lock := safefile.NewLock(filepath.Join(d.dir, "lock"))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("the sandbox's state can't be locked: %w", err)
	}
	defer lock.Close()
	return fn()
}

func (d *dirStore) do(fn func(*state) bool) error {
	return d.locked(func() error {
		fresh, err := d.load()
		if err != nil {
			return err
		}
		if changed := fn(d.state); !changed && !fresh {
			return nil
		}
		d.state.prune(d.now())
		if err := d.save(); err != nil {
			d.state, d.raw = nil, nil
			return err
		}
		return nil
	})
}

// load brings d.state up to date. Comparing the whole file is what is certain:
// with a file replaced many times within one tick of the file system's clock,
// inode, time and size may all come round again.
func (d *dirStore) load() (fresh bool, err error) {
	path := filepath.Join(d.dir, "state.json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.state, d.raw = newState(), nil
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("the sandbox's state can't be read: %w", err)
	}
	if d.state != nil && bytes.Equal(raw, d.raw) {
		return false, nil
	}
	st := new(state)
	err = json.Unmarshal(raw, st)
	if st.Version > formatVersion {
		return false, fmt.Errorf("%s is in format %d, made by a newer release; this one knows format %d", path, st.Version, formatVersion)
	}
	if err != nil || st.Version != formatVersion || len(st.Seal) == 0 {
		d.state, d.raw = newState(), nil
		return true, d.setAside(path)
	}
	st.fill()
	d.state, d.raw = st, raw
	return false, nil
}

func (d *dirStore) save() error {
	raw, err := json.Marshal(d.state)
	if err != nil {
		return fmt.Errorf("the sandbox's state can't be encoded: %w", err)
	}
	if err := d.replace("state.json", raw); err != nil {
		return err
	}
	d.raw = raw
	return nil
}

func (d *dirStore) key() (key *rsa.PrivateKey, err error) {
	err = d.locked(func() error {
		if key = d.rsa; key != nil {
			return nil
		}
		path := filepath.Join(d.dir, "key.pem")
		raw, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the sandbox's key can't be read: %w", err)
		}
		if err == nil {
			if key = parseKey(raw); key != nil {
				d.rsa = key
				return nil
			}
			if err := d.setAside(path); err != nil {
				return err
			}
		}
		if key, err = newKey(); err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return fmt.Errorf("the sandbox's key can't be encoded: %w", err)
		}
		if err := d.replace("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
			return err
		}
		d.rsa = key
		return nil
	})
	return key, err
}

// setAside keeps a file that can't be understood under another name. What it
// held is a toy's: the sandbox starts afresh rather than refuse to start.
func (d *dirStore) setAside(path string) error {
	if err := os.Rename(path, path+".damaged"); err != nil {
		return fmt.Errorf("a damaged file of the sandbox can't be set aside: %w", err)
	}
	d.log(fmt.Sprintf("sandbox: %s was damaged; it is now %[1]s.damaged, and the sandbox starts afresh", path))
	return nil
}

// replace gives the file its new content at once or not at all. The caller
// holds the lock, so one name serves for the temporary file, which no reader
// has open: that is what lets the rename succeed on Windows too. Nothing is
// fsynced: should the machine fail, the sandbox starts afresh.
func (d *dirStore) replace(name string, content []byte) error {
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path+".tmp", content, 0o600); err != nil {
		return fmt.Errorf("the sandbox's state can't be written: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("the sandbox's state can't be written: %w", err)
	}
	return nil
}

func newKey() (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("the sandbox's key can't be made: %w", err)
	}
	return key, nil
}

// parseKey returns nil for whatever is not an RSA key in PKCS #8 and PEM.
func parseKey(raw []byte) *rsa.PrivateKey {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil
	}
	k, _ := key.(*rsa.PrivateKey)
	return k
}

// hash is how the state names a code, a refresh token or an access token's ID.
func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, see its documentation
	return b
}

// opaqueToken returns a random text of n characters, a multiple of 4, as UPS makes
// its codes and refresh tokens: base64 of letters and digits, which ends in "==",
// and in which therefore neither + nor / can occur.
func opaqueToken(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789ab" // 64: a random byte chooses evenly
	text := randomBytes(n/4*3 - 2)
	for i, b := range text {
		text[i] = alphabet[b%64]
	}
	return base64.StdEncoding.EncodeToString(text)
}

// randomToken returns n random bytes in base64url, which is n*4/3 characters.
func randomToken(n int) string { return encode64(randomBytes(n)) }
