package agefile

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// workFactor is scrypt's cost as a power of two, for which every command pays
// that opens the vault: half of what age itself takes, and what OWASP's password
// storage cheat sheet asks for. It takes 128 MB.
const workFactor = 17

// ErrNoPassphrase says that nobody can be asked for a passphrase.
var ErrNoPassphrase = errors.New("there is no passphrase")

// identityFile is where the identity is that a passphrase unlocks. It is an
// identity file that age takes too.
func (h *Home) identityFile() string { return filepath.Join(h.dir, identityName) }

const identityName = "identity.age"

// NoIdentityNamed is how an error says that no setting names an identity file; a face
// that knows the setting puts its name there.
const NoIdentityNamed = "no identity file is named"

// ask gets the passphrase, which must not be empty. A fresh one is about to be
// chosen.
func (h *Home) ask(ctx context.Context, fresh bool) (string, error) {
	passphrase, err := "", ErrNoPassphrase
	if h.Passphrase != nil {
		passphrase, err = h.Passphrase(ctx, fresh)
	}
	switch {
	case errors.Is(err, ErrNoPassphrase):
		return "", err
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", h.problem(fmt.Sprintf("The passphrase of the file vault can't be read: %v.", err), "Correct the problem and try again.", err)
	case passphrase == "":
		return "", h.problem("The passphrase of the file vault is empty.", "[{}]", errEmptyPassphrase, vault.GivePassphrase)
	}
	return passphrase, nil
}

var errEmptyPassphrase = errors.New("the passphrase is empty")

// unlock returns the text of an identity file that a passphrase protects: of an
// age file, or of an SSH private key. A person gets another try.
func (h *Home) unlock(ctx context.Context, path string, text []byte) ([]byte, error) {
	for {
		plain, err := h.tryUnlock(ctx, path, text)
		slip := errors.Is(err, errWrongPassphrase) || errors.Is(err, errEmptyPassphrase)
		if !slip || ctx.Err() != nil || h.Retry == nil || !h.Retry(path) {
			return plain, err
		}
	}
}

func (h *Home) tryUnlock(ctx context.Context, path string, text []byte) ([]byte, error) {
	passphrase, err := h.ask(ctx, false)
	if errors.Is(err, ErrNoPassphrase) {
		return nil, h.problem(fmt.Sprintf("The identity in %s is locked by a passphrase, and there is no terminal to ask for the passphrase.", path),
			"[{}]", err, vault.GivePassphrase)
	}
	if err != nil {
		return nil, err
	}
	plain, err := decryptIdentity(text, passphrase)
	if errors.Is(err, errWrongPassphrase) {
		return nil, h.problem(fmt.Sprintf("The passphrase does not open %s.", path),
			"Give the passphrase of that identity[: {}].", err, vault.OtherPassphrase)
	}
	if err != nil {
		return nil, h.problem(fmt.Sprintf("The identity in %s is damaged: %v.", path, err), "Restore the file from a backup.", err)
	}
	return plain, nil
}

var errWrongPassphrase = errors.New("the passphrase is wrong")

func decryptIdentity(text []byte, passphrase string) ([]byte, error) {
	if isSSH(text) {
		key, err := ssh.ParseRawPrivateKeyWithPassphrase(text, []byte(passphrase))
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, errWrongPassphrase
		}
		if err != nil {
			return nil, err
		}
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(block), nil
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	var source io.Reader = bytes.NewReader(text)
	if isArmored(text) {
		source = armor.NewReader(source)
	}
	plain, err := age.Decrypt(source, identity)
	if errors.As(err, new(*age.NoIdentityMatchError)) {
		return nil, errWrongPassphrase
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// create makes the identity that a passphrase unlocks and returns its text, or
// that of the one which another first run has just made.
func (h *Home) create(ctx context.Context, choose func(context.Context) (string, error)) ([]byte, error) {
	if none, err := h.empty(); err != nil {
		return nil, err
	} else if !none {
		if text, err := safefile.ReadFile(h.identityFile()); err == nil {
			return h.unlock(ctx, h.identityFile(), text) // made meanwhile
		}
		return nil, h.problem(fmt.Sprintf("The file vault has secrets, and no identity opens them: %s, and there is no %s.", NoIdentityNamed, h.identityFile()),
			"Name the identity file that they were encrypted to[: {}]. If a passphrase opened the vault, restore that file from a backup. Without it the secrets are lost: revoke the companies and authorize them again.", nil, vault.NameIdentity)
	}
	passphrase, err := choose(ctx)
	if errors.Is(err, ErrNoPassphrase) {
		return nil, h.NothingToMake(err)
	}
	if err != nil {
		return nil, err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, h.problem(fmt.Sprintf("An identity can't be made: %v.", err), "Try again.", err)
	}
	text := []byte(identity.String() + "\n")
	sealed, err := h.seal(text, passphrase)
	if err != nil {
		return nil, err
	}
	kept, err := h.keepFirst(ctx, sealed)
	if err != nil || bytes.Equal(kept, sealed) {
		return text, err
	}
	return h.unlock(ctx, h.identityFile(), kept)
}

// NothingToMake is the error of a vault that can't be made, as there is neither an
// identity nor a passphrase.
func (h *Home) NothingToMake(err error) error {
	if h.Shared {
		return h.problem("This host has no identity for the vault that several hosts share.",
			"All hosts need the same identity file. Name it[: {}].", err, vault.NameIdentity)
	}
	return h.problem("The file vault has no identity to encrypt to, and no passphrase to make one with.",
		"[{}]", err, vault.MakeFileVault)
}

// keepFirst writes the identity's file unless there is one already, and returns
// what is in it then: all first runs agree on one identity.
func (h *Home) keepFirst(ctx context.Context, sealed []byte) ([]byte, error) {
	unlock, err := h.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	path := h.identityFile()
	text, err := safefile.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		_ = safefile.Sweep(path)
		if err = safefile.Write(path, sealed); err == nil {
			text, err = safefile.ReadFile(path)
		}
	}
	if err != nil {
		return nil, h.problem(fmt.Sprintf("The identity of the file vault can't be kept: %v.", err), "Check the free space on the disk, and who may write the directory.", err)
	}
	return text, nil
}

// lock keeps other processes from changing the identity.
func (h *Home) lock(ctx context.Context) (unlock func(), err error) {
	if err := safefile.MkdirAll(h.dir); err != nil {
		return nil, h.problem(fmt.Sprintf("The file vault can't be made: %v.", err), "Check who owns the directory.", err)
	}
	path := filepath.Join(h.dir, ".identity.lock")
	lock := safefile.NewLock(path)
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = safefile.Explain(path, err)
		return nil, h.problem(fmt.Sprintf("The file vault can't be locked: %v.", err), "Check who owns the directory.", err)
	}
	return func() { _ = lock.Close() }, nil
}

// seal encrypts the text of an identity file with a passphrase.
func (h *Home) seal(identity []byte, passphrase string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, h.problem(fmt.Sprintf("The identity can't be locked by the passphrase: %v.", err), "Try again.", err)
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return fail(err)
	}
	recipient.SetWorkFactor(h.workFactor())
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		return fail(err)
	}
	if _, err := w.Write(identity); err != nil {
		return fail(err)
	}
	if err := w.Close(); err != nil {
		return fail(err)
	}
	return sealed.Bytes(), nil
}

func (h *Home) workFactor() int {
	if h.WorkFactor == 0 {
		return workFactor
	}
	return h.WorkFactor
}

// ErrNotByPassphrase says that an identity file opens the vault, whose
// passphrase, if it has one, is its owner's own affair.
var ErrNotByPassphrase = errors.New("an identity file opens the file vault, no passphrase")

// ChangePassphrase locks the vault's identity by another passphrase; the files
// stay as they are. A vault that has no identity yet gets one. Errors are
// *vault.HomeError, ErrNotByPassphrase, or those of next.
func (h *Home) ChangePassphrase(ctx context.Context, next func(context.Context) (string, error)) error {
	if h.identity != "" {
		return ErrNotByPassphrase
	}
	if err := h.checkPrivate(); err != nil {
		return err
	}
	path := h.identityFile()
	old, err := safefile.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		_, err := h.create(ctx, next)
		return err
	}
	if err != nil {
		return h.unreadable(err)
	}
	text, err := h.unlock(ctx, path, old)
	if err != nil {
		return err
	}
	passphrase, err := next(ctx)
	if err != nil {
		return err
	}
	sealed, err := h.seal(text, passphrase)
	if err != nil {
		return err
	}
	unlock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if now, err := safefile.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		return h.problem("Somebody else has just changed the passphrase of the file vault, so upsauth did not change it.", "Try again with the new one.", err)
	}
	if err := safefile.Sweep(path); err != nil {
		return h.problem(fmt.Sprintf("The file vault can't be changed: %v.", err), "Check who owns the directory.", err)
	}
	if err := safefile.Write(path, sealed); err != nil {
		return h.problem(fmt.Sprintf("The identity of the file vault can't be kept: %v.", err), "Check the free space on the disk, and who may write the directory.", err)
	}
	return nil
}

// isLocked reports whether a passphrase protects the text of an identity file.
func isLocked(text []byte) bool {
	if isSSH(text) {
		_, err := agessh.ParseIdentity(text)
		return errors.As(err, new(*ssh.PassphraseMissingError))
	}
	return isArmored(text) || bytes.HasPrefix(text, []byte("age-encryption.org/v1\n-> scrypt "))
}

func isArmored(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(text), []byte(armor.Header))
}

func isSSH(text []byte) bool {
	return !isArmored(text) && bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN"))
}
