// Package agefile is the home for secrets in files that age encrypts: one file
// for an item, which any age program opens with the same identity.
package agefile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// Home is a directory of age files.
type Home struct {
	dir      string
	identity string // path of the identity file, empty for the one that a passphrase unlocks

	// Passphrase asks for what unlocks the identity; a fresh one is about to be
	// chosen. It returns ErrNoPassphrase where nobody can be asked. It is called
	// once, or as often as Retry says, as what it unlocks costs time and memory.
	Passphrase func(ctx context.Context, fresh bool) (string, error)
	// Retry reports whether Passphrase is to be called again, as what it returned
	// does not open the file at a path. Nil: it never is.
	Retry func(path string) bool
	// Places is the rule for who else may read or change its files.
	Places *safefile.Places
	// WorkFactor is the cost of guessing a passphrase, as a power of two; zero
	// is 17.
	WorkFactor int
	// Shared says that the identity opens a vault that several hosts share. It changes only
	// what is said where there is none.
	Shared bool

	seed maphash.Seed

	readOnly bool // nothing is encrypted to the identity

	fit    sync.Once
	fitErr error

	// probe is the last probe as it was encrypted and decrypted again.
	probe atomic.Pointer[sealedProbe]
	rooms sync.Map // by account, a *safefile.Room each that the next Put takes

	opening    sync.Mutex
	opened     bool // or keyErr says why not
	identities []age.Identity
	recipients []age.Recipient
	keys       Keys
	keyErr     error
	failed     atomic.Bool
}

// New returns the home in dir, whose files are encrypted to the identity in
// the file at identity: an age identity or an SSH ed25519 private key. Where
// none is named it is one that a passphrase unlocks, in the directory itself,
// which the first use makes. Nothing is touched before it is used.
func New(dir, identity string) *Home {
	return &Home{dir: dir, identity: identity, Places: &safefile.Places{}, seed: maphash.MakeSeed()}
}

// Name is "file".
func (h *Home) Name() string { return "file" }

func (h *Home) path(account string) string { return filepath.Join(h.dir, fileOf(account)) }

// fileOf is where an item is in the home's directory. What belongs to grants lies by its
// kind, so that one directory has it for all of them: journal/KEY.age for KEY/journal.
func fileOf(account string) string {
	if key, kind, ok := ofGrant(account); ok {
		return filepath.Join(kind, key+".age")
	}
	return filepath.FromSlash(account) + ".age"
}

// earlierFileOf is where earlier versions put what belongs to a grant, empty for all
// else.
func earlierFileOf(account string) string {
	if _, _, ok := ofGrant(account); ok {
		return filepath.FromSlash(account) + ".age"
	}
	return ""
}

// ofGrant takes the account of something apart that belongs to a grant.
func ofGrant(account string) (key, kind string, ok bool) {
	key, kind, ok = strings.Cut(account, "/")
	return key, kind, ok && grant.CheckTokenVaultKey(key) == nil
}

// accountOf is the account of a file in the home's directory.
func accountOf(file string) (account string, ok bool) {
	account, ok = strings.CutSuffix(filepath.ToSlash(file), ".age")
	if kind, key, found := strings.Cut(account, "/"); found && grant.CheckTokenVaultKey(key) == nil {
		account = key + "/" + kind
	}
	return account, ok
}

// isProbe reports whether an account is a probe's, of which nothing need last.
func isProbe(account string) bool {
	_, kind, ok := ofGrant(account) // an application may be called so too
	return ok && kind == "probe"
}

// read returns an item's file, from within the home's directory and nowhere else.
func (h *Home) read(account string) ([]byte, error) {
	if err := h.checkPlace(account); err != nil {
		return nil, err
	}
	data, err := safefile.ReadIn(h.dir, fileOf(account))
	if earlier := earlierFileOf(account); earlier != "" && errors.Is(err, os.ErrNotExist) {
		return safefile.ReadIn(h.dir, earlier)
	}
	return data, err
}

// within refuses an account whose file would be elsewhere than in the home's
// directory, or in a place that others can change.
func (h *Home) within(account string) error {
	if err := h.checkPlace(account); err != nil {
		return err
	}
	return safefile.CheckIn(h.dir, fileOf(account))
}

// checkPlace is within without a look at links, for whoever follows none out of
// the directory.
func (h *Home) checkPlace(account string) error {
	for name := range strings.SplitSeq(account, "/") {
		if name == "" || strings.HasPrefix(name, ".") || !filepath.IsLocal(name) || strings.ContainsAny(name, `/\:`) {
			return fmt.Errorf("%q can't be the name of a secret", account)
		}
	}
	return h.Places.Check(filepath.Dir(h.path(account)))
}

// sealedProbe is a probe of so many bytes, encrypted.
type sealedProbe struct {
	size   int
	sealed []byte
}

// Get decrypts an item.
func (h *Home) Get(ctx context.Context, account string) ([]byte, error) {
	secret, _, err := h.GetRevision(ctx, account)
	return secret, err
}

// GetRevision is Get, with what Revision is of the file that was decrypted.
func (h *Home) GetRevision(ctx context.Context, account string) (secret []byte, revision uint64, err error) {
	data, err := h.sealed(ctx, account)
	if err != nil {
		return nil, 0, err
	}
	secret, err = h.decrypt(account, data)
	return secret, maphash.Bytes(h.seed, data), err
}

// Revision tells an item's file from all others that it may have been while this process
// runs: what is encrypted twice differs.
func (h *Home) Revision(ctx context.Context, account string) (uint64, error) {
	data, err := h.sealed(ctx, account)
	return maphash.Bytes(h.seed, data), err
}

// sealed is an item's file.
func (h *Home) sealed(ctx context.Context, account string) ([]byte, error) {
	opened, err := h.open(ctx, false)
	if err != nil {
		return nil, err
	}
	if !opened {
		return nil, vault.ErrNoItem // there is no vault yet
	}
	data, err := h.read(account)
	if errors.Is(err, os.ErrNotExist) {
		return nil, vault.ErrNoItem
	}
	if err != nil {
		return nil, h.problem(fmt.Sprintf("The file vault can't be read: %v.", err), "Check who owns the directory and its files.", err)
	}
	return data, nil
}

func (h *Home) decrypt(account string, data []byte) ([]byte, error) {
	// age.Decrypt takes twice the memory, most of the time of a file of this size.
	plain, size, err := age.DecryptReaderAt(bytes.NewReader(data), int64(len(data)), h.identities...)
	if err == nil {
		secret := make([]byte, size)
		if _, err = io.ReadFull(io.NewSectionReader(plain, 0, size), secret); err == nil {
			return secret, nil
		}
	}
	var wrong *age.NoIdentityMatchError
	if errors.As(err, &wrong) {
		advice, do := h.otherIdentity()
		return nil, &vault.HomeError{Home: "file", What: fmt.Sprintf("The identity in %s does not open %s, which was encrypted to another identity.", h.Opener(), h.path(account)),
			Advice: advice, Do: []vault.Act{do}, OfItem: true, Err: err}
	}
	advice, do := againOf(account)
	return nil, &vault.HomeError{Home: "file", What: fmt.Sprintf("The file %s is damaged.", h.path(account)),
		Advice: advice, Do: do, Damaged: true, Err: err}
}

// againOf says how what a damaged file had is made anew.
func againOf(account string) (advice string, do []vault.Act) {
	switch {
	case strings.HasPrefix(account, "app/"):
		return "Restore it from a backup, or enter it again[: {}].", []vault.Act{vault.SetSecret}
	case account == vault.InvitationKeyAccount, vault.HeldKey(account) != "":
		return vault.Again(account)
	}
	return "Restore it from a backup, or authorize the company again[: {}].", []vault.Act{vault.Authorize}
}

// otherIdentity says how the vault is opened with another identity.
func (h *Home) otherIdentity() (advice string, do vault.Act) {
	if _, err := os.Lstat(h.identityFile()); err == nil && h.identity != "" {
		return "[{}]", vault.OpenByPassphrase
	}
	return "Name the right identity file[ in {}].", vault.OtherIdentity
}

// fits refuses an identity that opens nothing of what is there: a vault of two
// identities is one that no single setting opens.
func (h *Home) fits() error {
	h.fit.Do(func() {
		strange := false
		err := h.each(func(account string) (more bool) {
			data, err := h.read(account)
			if err == nil {
				_, err = age.Decrypt(bytes.NewReader(data), h.identities...)
			}
			// Other errors are told by whoever needs the file.
			strange = errors.As(err, new(*age.NoIdentityMatchError))
			return strange
		})
		h.failed.Store(err != nil || strange)
		if err != nil || !strange {
			h.fitErr = err
			return
		}
		advice, do := h.otherIdentity()
		h.fitErr = h.problem(fmt.Sprintf("The identity in %s opens none of the file vault's secrets, so upsauth adds nothing to the vault.", h.Opener()), advice, nil, do)
	})
	return h.fitErr
}

// Put encrypts an item, replaces the file as a whole and reads it back. What is in the
// file is on disk then, but for a probe; its name is once Sync was called.
func (h *Home) Put(ctx context.Context, account string, _ int64, secret []byte) error {
	if err := h.writable(ctx); err != nil {
		return err
	}
	if isProbe(account) {
		sealed, err := h.sealProbe(account, secret)
		if err != nil {
			return err
		}
		return h.write(account, sealed, safefile.WritePassing)
	}
	sealed, err := h.encrypt(secret)
	if err != nil {
		return err
	}
	if err := h.write(account, sealed, h.writer(account)); err != nil {
		return err
	}
	return h.opens(account, sealed, secret)
}

// Room shows that an item as long as a probe can be put, and keeps the room that this
// took on the disk for the next Put of the account. Done gives it back where there was
// none.
func (h *Home) Room(ctx context.Context, account string, probe []byte) (done func(), err error) {
	if err := h.writable(ctx); err != nil {
		return nil, err
	}
	sealed, err := h.sealProbe(account, probe)
	if err != nil {
		return nil, err
	}
	err = h.within(account)
	if err != nil {
		return nil, h.unwritable(err)
	}
	room, err := safefile.Reserve(h.path(account), sealed)
	if err != nil {
		return nil, h.unwritable(err)
	}
	if other, ok := h.rooms.Swap(account, room); ok {
		other.(*safefile.Room).Drop()
	}
	return func() {
		if h.rooms.CompareAndDelete(account, room) {
			room.Drop()
		}
	}, nil
}

// writer is how an item's file is written: into the room that was made for it, if there
// is one.
func (h *Home) writer(account string) func(path string, data []byte) error {
	return func(path string, data []byte) error {
		room, ok := h.rooms.LoadAndDelete(account)
		if !ok {
			return safefile.WriteCovered(path, data)
		}
		err := room.(*safefile.Room).Fill(data)
		if errors.Is(err, os.ErrNotExist) { // somebody has swept it away
			return safefile.WriteCovered(path, data)
		}
		return err
	}
}

// writable is nil where something can be put.
func (h *Home) writable(ctx context.Context) error {
	if err := h.Make(ctx); err != nil {
		return err
	}
	return h.fits()
}

// sealProbe encrypts a probe. That the identity opens what is encrypted to it needs no
// second proof: what a further probe is about is the disk.
func (h *Home) sealProbe(account string, probe []byte) ([]byte, error) {
	if p := h.probe.Load(); p != nil && p.size >= len(probe) {
		return p.sealed, nil
	}
	sealed, err := h.encrypt(probe)
	if err != nil {
		return nil, err
	}
	if err := h.opens(account, sealed, probe); err != nil {
		return nil, err
	}
	h.probe.Store(&sealedProbe{size: len(probe), sealed: sealed})
	return sealed, nil
}

// opens is nil where what was encrypted can be opened again.
func (h *Home) opens(account string, sealed, secret []byte) error {
	back, err := h.decrypt(account, sealed)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(back, secret) != 1 {
		return h.problem(fmt.Sprintf("The file %s does not decrypt to what was written.", h.path(account)), "Check the identity file.", nil)
	}
	return nil
}

// encrypt returns an item's file as it is to be.
func (h *Home) encrypt(secret []byte) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, h.recipients...)
	if err != nil {
		return nil, h.problem(fmt.Sprintf("The file vault can't encrypt to the identity in %s: %v.", h.Opener(), err), "Check the identity file.", err)
	}
	_, err = w.Write(secret)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, h.problem(fmt.Sprintf("The file vault can't encrypt: %v.", err), "Try again.", err)
	}
	return sealed.Bytes(), nil
}

// write replaces an item's file and reads it back.
func (h *Home) write(account string, sealed []byte, write func(path string, data []byte) error) error {
	path := h.path(account)
	err := h.within(account)
	if err == nil {
		err = write(path, sealed)
	}
	if err != nil {
		return h.unwritable(err)
	}
	data, err := h.read(account)
	if err != nil || !bytes.Equal(data, sealed) {
		return h.problem(fmt.Sprintf("The file %s does not read back as it was written.", path), "Check the disk.", err)
	}
	return nil
}

func (h *Home) unwritable(err error) error {
	return h.problem(fmt.Sprintf("The file vault can't be written: %v.", err), "Check the free space on the disk, who may write the directory, and whether a file in it is immutable.", err)
}

// Sync returns when what was put or removed under an account survives a loss of power.
func (h *Home) Sync(_ context.Context, account string) error {
	dir := filepath.Dir(h.path(account))
	if err := safefile.SyncDir(dir); err != nil {
		return h.problem(fmt.Sprintf("The file vault can't be written: %v.", err), "Check the disk.", err)
	}
	return nil
}

// CanDelete only looks whether there is such a file: files are removed without
// opening them, so that a grant can be revoked whose identity is lost.
func (h *Home) CanDelete(_ context.Context, account string) error {
	_, err := os.Lstat(h.path(account))
	if earlier := earlierFileOf(account); earlier != "" && errors.Is(err, os.ErrNotExist) {
		_, err = os.Lstat(filepath.Join(h.dir, earlier))
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return vault.ErrNoItem
	case err != nil:
		return h.problem(fmt.Sprintf("The file vault can't be read: %v.", err), "Check who owns the directory and its files.", err)
	}
	return nil
}

// Delete removes an item. It can come back with a loss of power until Sync was called.
func (h *Home) Delete(_ context.Context, account string) error {
	path := h.path(account)
	err := h.within(account)
	remove := safefile.RemoveCovered
	if isProbe(account) {
		remove = safefile.Unlink // it is written in place
	}
	if err == nil {
		err = remove(path)
	}
	paths := []string{path}
	if earlier := earlierFileOf(account); earlier != "" && err == nil {
		paths = append(paths, filepath.Join(h.dir, earlier))
		if _, statErr := os.Lstat(filepath.Dir(paths[1])); statErr == nil {
			err = safefile.RemoveCovered(paths[1])
		}
	}
	if err != nil {
		return h.problem(fmt.Sprintf("The file vault can't be changed: %v.", err), "Check who owns the directory.", err)
	}
	// A directory in the home's own goes with the last item in it.
	for _, path := range paths {
		for dir := filepath.Dir(path); dir != h.dir && os.Remove(dir) == nil; dir = filepath.Dir(dir) {
		}
	}
	return nil
}

// Accounts lists the items.
func (h *Home) Accounts(context.Context) ([]string, error) {
	var accounts []string
	err := h.each(func(account string) bool {
		accounts = append(accounts, account)
		return true
	})
	return accounts, err
}

// each calls found with one item after another until it returns false.
func (h *Home) each(found func(account string) (more bool)) error {
	err := safefile.WalkIn(h.dir, func(path string) bool {
		account, ok := accountOf(path)
		if !ok || path == identityName || strings.HasPrefix(account[strings.LastIndexByte(account, '/')+1:], ".") {
			return true
		}
		return found(account)
	})
	if err != nil {
		return h.problem(fmt.Sprintf("The file vault can't be listed: %v.", err), "Check who owns the directory.", err)
	}
	return nil
}

// empty reports whether there are no items.
func (h *Home) empty() (bool, error) {
	none := true
	err := h.each(func(string) bool {
		none = false
		return false
	})
	return none, err
}

func (h *Home) problem(what, advice string, err error, do ...vault.Act) error {
	return &vault.HomeError{Home: "file", What: what, Advice: advice, Do: do, Err: err}
}

// Open reads the identity file, once, which may ask for the passphrase. Every
// other method does the same where it has to: calling Open beforehand keeps the
// question and its cost out of locks. Where there is no vault yet nothing is made
// and nobody asked. Errors are *vault.HomeError.
func (h *Home) Open(ctx context.Context) error {
	_, err := h.open(ctx, false)
	return err
}

// Make is Open before something is to be written: it makes the identity that a
// passphrase unlocks, where there is none.
func (h *Home) Make(ctx context.Context) error {
	_, err := h.open(ctx, true)
	return err
}

// open reports whether there is anything to be opened.
func (h *Home) open(ctx context.Context, create bool) (bool, error) {
	h.opening.Lock()
	defer h.opening.Unlock()
	if h.opened {
		return true, h.keyErr
	}
	if !create {
		if made, err := h.Made(); err != nil || !made {
			return false, err
		}
	}
	err := h.readIdentity(ctx)
	if err != nil && ctx.Err() != nil {
		return true, err // whoever asks next has more patience
	}
	h.opened, h.keyErr = true, err
	h.failed.Store(err != nil)
	return true, h.keyErr
}

// Failed reports that the home could not be opened, or that its identity fits nothing.
// It goes on to say so: for what was mended meanwhile it takes another Home.
func (h *Home) Failed() bool { return h.failed.Load() }

// Made reports whether there is a vault: an identity to open it, or something in
// it. A passphrase is not tried before there is one, or a slip of the finger
// would become the vault's passphrase.
func (h *Home) Made() (bool, error) {
	if h.identity != "" {
		return true, nil
	}
	if _, err := os.Lstat(h.identityFile()); !errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	none, err := h.empty()
	return !none, err
}

func (h *Home) readIdentity(ctx context.Context) error {
	if err := h.checkPrivate(); err != nil {
		return err
	}
	path := h.Opener()
	text, err := safefile.ReadSmall(ctx, path)
	switch {
	case errors.Is(err, os.ErrNotExist) && h.identity == "":
		text, err = h.create(ctx, func(ctx context.Context) (string, error) { return h.ask(ctx, true) })
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		err = h.unreadable(err)
	case isLocked(text):
		text, err = h.unlock(ctx, path, text)
	}
	if err != nil {
		return err
	}
	h.identities, h.recipients, err = ParseIdentity(text)
	if err == nil {
		h.keys, err = keysOf(text, h.identities, h.recipients)
	}
	if err != nil && path == h.identityFile() && !h.readOnly {
		return h.problem(fmt.Sprintf("The identity in %s is damaged: %v.", path, err), "Restore the file from a backup.", err)
	}
	if err != nil && h.readOnly {
		if identity, rsaErr := agessh.ParseIdentity(text); rsaErr == nil {
			h.identities, err = []age.Identity{identity}, nil
		}
	}
	if err != nil {
		return h.problem(fmt.Sprintf("The identity file %s can't be used: %v.", path, err),
			"It must be an age identity (AGE-SECRET-KEY-1…) or an SSH ed25519 private key.", err)
	}
	return nil
}

// Opener is the file that has the identity, which need not be there yet.
func (h *Home) Opener() string {
	if h.identity != "" {
		return h.identity
	}
	return h.identityFile()
}

// Identities are what opens the vault's files, none where it has none yet.
func (h *Home) Identities(ctx context.Context) ([]age.Identity, error) {
	if _, err := os.Stat(h.Opener()); h.identity == "" && errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	err := h.Open(ctx)
	return h.identities, err
}

// Keys are what an identity is good for beside the home's own files.
type Keys struct {
	Identities []age.Identity
	// Recipient is the public part of the first identity, Public the same as text.
	Recipient age.Recipient
	Public    string
	// Secret is that identity itself: what other keys can be derived from.
	Secret []byte
}

// Keys opens the home's identity, which is made where there is none yet and no file is
// named. Errors are *vault.HomeError.
func (h *Home) Keys(ctx context.Context) (Keys, error) {
	if err := h.Make(ctx); err != nil {
		return Keys{}, err
	}
	return h.keys, nil
}

// keysOf are the keys of an identity file with its identities and recipients.
func keysOf(text []byte, identities []age.Identity, recipients []age.Recipient) (Keys, error) {
	k := Keys{Identities: identities, Recipient: recipients[0]}
	switch first := identities[0].(type) {
	case *age.X25519Identity:
		k.Public, k.Secret = first.Recipient().String(), []byte(first.String())
	case *age.HybridIdentity:
		k.Public, k.Secret = first.Recipient().String(), []byte(first.String())
	default:
		raw, err := ssh.ParseRawPrivateKey(text)
		if err != nil {
			return Keys{}, errors.New("it is not an SSH private key that can be used")
		}
		key, ok := raw.(*ed25519.PrivateKey)
		if !ok {
			return Keys{}, errors.New("it is not an SSH key of the kind ed25519")
		}
		public, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			return Keys{}, err
		}
		k.Public, k.Secret = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))), key.Seed()
	}
	return k, nil
}

// ReadIdentity returns the identities in a file, which must be its owner's alone
// and may be an SSH RSA key too; passphrase is asked where one protects it, and
// again where retry says so. Errors are *vault.HomeError.
func ReadIdentity(ctx context.Context, places *safefile.Places, path string, passphrase func(context.Context, bool) (string, error), retry func(path string) bool) ([]age.Identity, error) {
	h := New("", path)
	h.Places, h.Passphrase, h.Retry, h.readOnly = places, passphrase, retry, true
	return h.Identities(ctx)
}

// checkPrivate refuses a vault or an identity that others can use.
func (h *Home) checkPrivate() error {
	for _, path := range []string{h.Opener(), h.dir} {
		if path == "" {
			continue
		}
		if err := h.Places.CheckSecret(path); err != nil {
			return h.problem(err.Error(), "upsauth does not use the file vault until that is repaired.", err)
		}
	}
	return nil
}

// Ready returns what keeps the home from being used, as far as can be told without
// opening it, which may take a passphrase: who else can read it, whether it and what
// opens it are there, and whether it can be written.
func (h *Home) Ready() error {
	if err := h.checkPrivate(); err != nil {
		return err
	}
	for _, path := range []string{h.dir, h.Opener()} {
		if _, err := os.Stat(path); err != nil {
			return h.problem(fmt.Sprintf("The file vault can't be opened: %v.", safefile.Explain(path, err)), "Restore "+path+" from a backup.", err)
		}
	}
	if err := safefile.Writable(h.dir); err != nil {
		return h.problem(fmt.Sprintf("The file vault can't be written: %v.", safefile.Explain(h.dir, err)), "Check who owns the directory, and whether it is mounted read-only.", err)
	}
	return nil
}

func (h *Home) unreadable(err error) error {
	whose := " of the file vault"
	if h.Shared || h.dir == "" { // it is a team's
		whose = ""
	}
	return h.problem(fmt.Sprintf("The identity file%s can't be read: %v.", whose, err),
		"[{}]", err, vault.ReadableIdentity)
}

// ParseIdentity reads an age identity file (lines of AGE-SECRET-KEY-1…) or an
// SSH ed25519 private key, with the recipients that belong to it.
func ParseIdentity(text []byte) ([]age.Identity, []age.Recipient, error) {
	if isSSH(text) {
		identity, err := agessh.ParseIdentity(text)
		if err != nil {
			return nil, nil, errors.New("it is not an SSH private key that can be used")
		}
		ed25519, ok := identity.(*agessh.Ed25519Identity)
		if !ok {
			return nil, nil, errors.New("it is not an SSH key of the kind ed25519")
		}
		return []age.Identity{ed25519}, []age.Recipient{ed25519.Recipient()}, nil
	}
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		// age's own error quotes the line that it does not like.
		return nil, nil, errors.New("it has no age identity, or a line that is not an age identity")
	}
	var recipients []age.Recipient
	for _, identity := range identities {
		switch i := identity.(type) {
		case *age.X25519Identity:
			recipients = append(recipients, i.Recipient())
		case *age.HybridIdentity:
			recipients = append(recipients, i.Recipient())
		default:
			return nil, nil, fmt.Errorf("it has an identity of a kind that upsauth does not know (%T)", identity)
		}
	}
	// age does not mix post-quantum and other recipients in one file.
	return identities, recipients[:1], nil
}
