// Package keys keeps the keys of programs: what each of them may ask for, and of the key
// itself only its SHA-256. Several processes may change the keys at once.
package keys

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
)

// Right is something that a key allows.
type Right string

// What a key can allow. Any of them allows its holder to see the state of what the key
// covers.
const (
	Token   Right = "token"   // to get access tokens
	Refresh Right = "refresh" // to have tokens refreshed that are good
	Invite  Right = "invite"  // to make invitations
)

// Rights are all that there are.
func Rights() []Right { return []Right{Token, Refresh, Invite} }

// ParseRights reads rights that are parted by commas, each of them once.
func ParseRights(text string) ([]Right, error) {
	var rights []Right
	for part := range strings.SplitSeq(text, ",") {
		rights = append(rights, Right(strings.TrimSpace(part)))
	}
	if err := checkRights(rights); err != nil {
		return nil, &ScopeError{err}
	}
	return rights, nil
}

// Scope is what a key covers.
type Scope struct {
	// Companies are the identities of those that it covers, nil for all: see
	// company.Book. A key whose companies are all removed covers nothing.
	Companies []string
	// Application and Environment are those that it covers, each empty for any.
	Application, Environment string
	// Rights are never none.
	Rights []Right
}

// Allows reports whether a right is among the scope's.
func (s Scope) Allows(r Right) bool { return slices.Contains(s.Rights, r) }

// Key is what is known of a key.
type Key struct {
	Name  string
	Added time.Time
	// Used is when the key was last used, to the minute after a restart; zero for never.
	Used time.Time
	Scope
}

// Options are what a book works with.
type Options struct {
	Places *safefile.Places // who else may change the file, for Open
	Now    func() time.Time
	// Log, where set, is told what went wrong in the background.
	Log func(format string, args ...any)
}

// Book has the rules of keys, over a store. It may be used by several goroutines at once.
type Book struct {
	store Store
	now   func() time.Time
	log   func(format string, args ...any)

	mu   sync.Mutex
	used map[Digest]time.Time // what is not noted yet
	// noted is when the last uses began to be written. One writer is enough.
	noted   time.Time
	noting  bool
	closed  bool
	writers sync.WaitGroup
}

// noteEvery is how often at most it is written when keys were used.
const noteEvery = time.Minute

// File is the store in a file, which need not exist.
func File(path string, places *safefile.Places) Store { return &file{path: path, places: places} }

// Open returns the book that is in a file, which need not exist. Nothing is read before it
// is used. The caller closes the book.
func Open(path string, o Options) *Book {
	return Over(File(path, o.Places), o)
}

// Move puts all keys into another store and removes them from the one. Where it is cut off,
// the same call finishes it. A name that is another key's there is an *ExistsError, and then
// nothing is removed.
func Move(ctx context.Context, from, to Store) error {
	all, err := from.List(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	for _, e := range all {
		err := to.Add(ctx, e)
		if exists := new(ExistsError); errors.As(err, &exists) {
			if there, findErr := to.Find(ctx, e.Digest); findErr == nil && there.Name == e.Name {
				err = nil // it came before the move was cut off
			}
		}
		if err != nil {
			return err
		}
		if !e.Used.IsZero() {
			if err := to.Use(ctx, map[Digest]time.Time{e.Digest: e.Used}); err != nil {
				return err
			}
		}
	}
	for _, e := range all {
		if err := from.Remove(ctx, e.Name); err != nil && !errors.As(err, new(*NotFoundError)) {
			return err
		}
	}
	return nil
}

// Over returns the book that is in a store. The caller closes the book.
func Over(store Store, o Options) *Book {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return &Book{store: store, now: o.Now, log: o.Log, used: map[Digest]time.Time{}}
}

// Close writes what is not yet written about the use of keys.
func (b *Book) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.writers.Wait()
	return b.note(context.Background())
}

const (
	prefix = "upsauth_"
	size   = 32 // bytes of a key
)

var letters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Add makes a key and returns it, which nobody can do again. A name that is taken is an
// *ExistsError.
func (b *Book) Add(ctx context.Context, name string, scope Scope) (secret string, err error) {
	if len(scope.Rights) == 0 {
		scope.Rights = []Right{Token}
	}
	if err := checkName(name); err != nil {
		return "", &NameError{err}
	}
	if err := checkScope(scope); err != nil {
		return "", &ScopeError{err}
	}
	random := make([]byte, size)
	_, _ = rand.Read(random) // it never fails
	secret = prefix + letters.EncodeToString(random)
	err = b.store.Add(ctx, Entry{Digest: sha256.Sum256([]byte(secret)), Key: Key{Name: name, Added: b.now().UTC().Truncate(time.Second), Scope: scope}})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Remove makes a key one that nobody can use any more. An unknown name is a
// *NotFoundError.
func (b *Book) Remove(ctx context.Context, name string) error { return b.store.Remove(ctx, name) }

// List returns the keys in the order of their names. If one of them can't be read, nobody
// knows what it allows, and the list is its error.
func (b *Book) List(ctx context.Context) ([]Key, error) {
	entries, err := b.store.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Key, len(entries))
	for i, e := range entries {
		list[i] = e.Key
		if at := b.used[e.Digest]; at.After(e.Used) {
			list[i].Used = at
		}
	}
	return list, nil
}

// ErrWrong is the error of what is no key, or none any more.
var ErrWrong = errors.New("the key is wrong, or it was removed")

// Find returns what is known of a key, and remembers that it was used. The store is as it
// is now, whoever changed it.
func (b *Book) Find(ctx context.Context, secret string) (Key, error) {
	sum := Digest(sha256.Sum256([]byte(secret)))
	e, err := b.store.Find(ctx, sum)
	if err != nil {
		return Key{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if at := now.UTC().Truncate(time.Second); at.After(e.Used) {
		b.used[sum], e.Used = at, at
	}
	if past := now.Sub(b.noted); !b.noting && !b.closed && (past >= noteEvery || past < 0) {
		b.noting, b.noted = true, now
		b.writers.Go(b.noteLater)
	}
	return e.Key, nil
}

// noteLater writes when keys were used while requests go on.
func (b *Book) noteLater() {
	if err := b.note(context.Background()); err != nil {
		b.log("when keys were last used can't be saved: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noting = false
}

// note writes when keys were used, if that is news.
func (b *Book) note(ctx context.Context) error {
	b.mu.Lock()
	news := maps.Clone(b.used)
	b.mu.Unlock()
	if len(news) == 0 {
		return nil
	}
	// Whoever ends does not wait for a database that is away.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := b.store.Use(ctx, news); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for sum, at := range news {
		if b.used[sum].Equal(at) {
			delete(b.used, sum)
		}
	}
	return nil
}

// NameError says that a key can't have a name.
type NameError struct{ Err error }

func (e *NameError) Error() string { return e.Err.Error() }

func (e *NameError) Unwrap() error { return e.Err }

// ScopeError says that a key can't cover what it was to cover.
type ScopeError struct{ Err error }

func (e *ScopeError) Error() string { return e.Err.Error() }

func (e *ScopeError) Unwrap() error { return e.Err }

// ExistsError says that there is a key of a name already.
type ExistsError struct{ Name string }

func (e *ExistsError) Error() string { return fmt.Sprintf("a key %q exists already", e.Name) }

// NotFoundError says that there is no key of a name.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("there is no key %q", e.Name) }

// FileError says that the file of the keys can't be used, so that nobody knows which keys
// there are.
type FileError struct {
	Path string
	// Key is the name of the one key that can't be used, where each has a place of its own.
	Key string
	Err error
	// Damaged says that it was read, and is no list of keys.
	Damaged bool
}

func (e *FileError) Error() string {
	return fmt.Sprintf("the keys of programs in %s can't be used: %v", e.Path, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }
