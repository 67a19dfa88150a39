package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
)

// Home keeps secrets as items under account names: Token Vault Keys and what
// belongs to them (KEY/journal, KEY/probe), client secrets (app/<environment>/<name>), the
// key that seals what customers' browsers keep (serve/invitations), and their sign-ins that
// wait to be confirmed (held/<invitation>).
type Home interface {
	// Name is what a record calls the home: "keychain", "file" or "shared".
	Name() string
	// Get returns an item, ErrNoItem where there is none, or a *HomeError.
	Get(ctx context.Context, account string) ([]byte, error)
	// Put writes an item so that the old one stays whole until the new one is,
	// and has read it back when it returns nil. The generation must differ from
	// that of the item it replaces. Errors are *HomeError.
	Put(ctx context.Context, account string, generation int64, secret []byte) error
	// CanDelete returns the *HomeError that a Delete would, before anything is
	// changed, and ErrNoItem where there is nothing to delete.
	CanDelete(ctx context.Context, account string) error
	// Delete removes an item and everything of it; one that is not there is no
	// error. Errors are *HomeError.
	Delete(ctx context.Context, account string) error
}

// ErrNoItem says that a home has no item under an account name.
var ErrNoItem = errors.New("the vault has no such secret")

// ErrNoList says that a home has no way to tell which items it has.
var ErrNoList = errors.New("the vault can't list what it has")

// Act is something that a person does with upsauth about a home.
type Act string

const (
	Authorize        Act = "authorize"
	SetSecret        Act = "set-secret"
	TryAgain         Act = "try-again"
	Check            Act = "check"
	Repair           Act = "repair"
	UseFileVault     Act = "use-file-vault" // for new authorizations
	TryFileVault     Act = "try-file-vault"
	StartKeychain    Act = "start-keychain"
	GivePassphrase   Act = "give-passphrase"
	OtherPassphrase  Act = "other-passphrase"
	NameIdentity     Act = "name-identity"
	OtherIdentity    Act = "other-identity"
	ReadableIdentity Act = "readable-identity"
	OpenByPassphrase Act = "open-by-passphrase"
	MakeFileVault    Act = "make-file-vault"
	RefuseHeld       Act = "refuse-held"
)

// HomeError says that a home can't be used, why, and what to do.
type HomeError struct {
	Home string
	What string // the sentence
	// Advice is what to do. Each {} in it stands for the next act, for which a face has
	// words of its own; a part in brackets around a {} is left out by a face that has
	// none.
	Advice string
	Do     []Act
	// TimedOut says that no answer came in time: what was asked for may still
	// happen later.
	TimedOut bool
	// Damaged says that the home works and this one item in it does not.
	Damaged bool
	// OfItem says that it is about this one item alone, and others may well open.
	OfItem bool
	Err    error
}

func (e *HomeError) Error() string { return e.What }

func (e *HomeError) Unwrap() error { return e.Err }

// Is makes a damaged item as good as none: what the journal has may make up for
// it.
func (e *HomeError) Is(target error) bool { return e.Damaged && target == grant.ErrNoSecrets }

func timedOut(err error) bool {
	var e *HomeError
	return errors.As(err, &e) && e.TimedOut
}

func damagedItem(home, what string) error {
	return &HomeError{Home: home, What: what, Damaged: true,
		Advice: "The company must be authorized again[: {}].", Do: []Act{Authorize}}
}

// Describe is what a sentence calls a home, behind "the".
func Describe(home string) string {
	if home == "file" || home == "shared" {
		return home + " vault"
	}
	return home
}

// Homes are the places for secrets.
type Homes []Home

// Named returns the home of a name.
func (h Homes) Named(name string) (Home, error) {
	for _, home := range h {
		if home.Name() == name {
			return home, nil
		}
	}
	return nil, fmt.Errorf("%q is not a vault: use keychain or file", name)
}

// opener is a home that has to be opened, which may ask a person.
type opener interface{ Open(context.Context) error }

// Open makes a home ready, so that no question and no slow reckoning comes up
// later, while a lock is held. Errors are *HomeError.
func (v *Vault) Open(ctx context.Context, homeName string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	if o, ok := home.(opener); ok {
		return o.Open(ctx)
	}
	return nil
}

// maker is a home that has to be made before the first item is put there.
type maker interface{ Make(context.Context) error }

// Make is Open for a home that gets something new: where there is none yet it is
// made, which may ask a person for a new passphrase.
func (v *Vault) Make(ctx context.Context, homeName string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	if m, ok := home.(maker); ok {
		return m.Make(ctx)
	}
	return v.Open(ctx, homeName)
}
